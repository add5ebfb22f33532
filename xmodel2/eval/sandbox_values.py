"""Values on their way between two processes that do not trust each other: plain data only, no pickle.

    [1, {"a"}] --encode--> ["list", 1, ["set", "a"]] --frame--> pipe --frame--> decode --> [1, {"a"}]

What arrives is of a built-in type whatever was sent, so no method that the sender wrote is ever called by the receiver.
Anything else stays where it is and crosses as a reference.
"""

import builtins
import json
import os
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from types import NoneType
from typing import Any

_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_DICTS: dict[str, Any] = {"OrderedDict": OrderedDict, "Counter": Counter, "dict": dict}
_VIEWS: dict[str, Any] = {name: type(getattr({}, name)()) for name in ("keys", "items", "values")}
_PARTS: dict[type[Any], tuple[str, ...]] = {
    complex: ("real", "imag"),
    range: ("start", "stop", "step"),
    slice: ("start", "stop", "step"),
    Fraction: ("numerator", "denominator"),
    datetime: ("year", "month", "day", "hour", "minute", "second", "microsecond"),
    date: ("year", "month", "day"),
    timedelta: ("days", "seconds", "microseconds"),
}
"""Types and the attributes that make a value of them again; a type comes before the one it extends."""
_NAMED = {kind.__name__: kind for kind in _PARTS}
_TYPES = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and name[0] != "_"}
_TYPES["NoneType"] = NoneType
_CONSTANTS = {"Ellipsis": ..., "NotImplemented": NotImplemented}
MUTABLE = (list, dict, set, deque, bytearray)
_MOST_FIELDS = 100  # of a named tuple, whose class is made anew
_HEADER = 4  # bytes


def encode(value: Any, refer: Callable[[Any], Any]) -> Any:
    """Return a value as JSON; an instance of a subclass goes as the type here that it extends, the rest as ``refer`` says.

    >>> encode((1, [2.5, {"a"}], {3: None}), str)
    ['tuple', 1, ['list', 2.5, ['set', 'a']], ['dict', 3, None]]
    """
    if value is None or type(value) in (bool, str, float):
        return value
    if isinstance(value, int):
        number = int.__int__(value)  # in base 16 where it is long: base 10 is quadratic, and limited to 4300 digits
        return number if -(1 << 63) <= number < 1 << 63 else ["int", hex(number)]
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, tuple) and 0 < len(fields := getattr(value, "_fields", ())) == len(value) <= _MOST_FIELDS:
        return ["namedtuple", type(value).__name__, list(fields), *(encode(item, refer) for item in value)]
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            return [name, *(encode(item, refer) for item in value)]
    if isinstance(value, dict):
        items = OrderedDict.items(value) if isinstance(value, OrderedDict) else dict.items(value)
        flat = [encode(part, refer) for item in items for part in item]
        if isinstance(value, defaultdict):
            return ["defaultdict", encode(value.default_factory, refer), *flat]
        return [next(name for name, kind in _DICTS.items() if isinstance(value, kind)), *flat]
    return _encode_rarer(value, refer)


def _encode_rarer(value: Any, refer: Callable[[Any], Any]) -> Any:
    for name, view in _VIEWS.items():
        if isinstance(value, view):
            return [name, *(encode(item, refer) for item in value)]
    if isinstance(value, deque):
        return ["deque", value.maxlen, *(encode(item, refer) for item in value)]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes" if isinstance(value, bytes) else "bytearray", bytes(value).hex()]
    for kind, attributes in _PARTS.items():
        if isinstance(value, kind) and getattr(value, "tzinfo", None) is None:
            return [kind.__name__, *(encode(getattr(value, attribute), refer) for attribute in attributes)]
    if isinstance(value, Decimal):
        return ["Decimal", str(value)]
    if isinstance(value, type) and _TYPES.get(value.__name__) is value:
        return ["type", value.__name__]
    for name, constant in _CONSTANTS.items():
        if value is constant:
            return ["constant", name]
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return encode(value.item(), refer)
    return refer(value)


def decode(data: Any, resolve: Callable[[list[Any]], Any]) -> Any:
    """Return the value of `encode`'s answer; ``resolve`` turns the arguments of a reference into what it stands for.

    Raises an ``Exception`` of some kind for anything that `encode` does not write.

    >>> decode(encode((1, [2.5, {"a"}], {3: None}), str), list)
    (1, [2.5, {'a'}], {3: None})
    """
    if not isinstance(data, list):
        if isinstance(data, dict):
            raise ValueError("not a value")
        return data
    name, *parts = data
    if name == "ref":
        return resolve(parts)
    if name in ("int", "bytes", "bytearray", "type", "constant", "Decimal"):
        return _decode_text(name, *parts)
    if name == "namedtuple":
        kind = _named_tuple(parts[0], tuple(parts[1]))
        return kind._make(decode(part, resolve) for part in parts[2:])
    items: Iterator[Any] = (decode(part, resolve) for part in parts)
    if name in _SEQUENCES:
        return _SEQUENCES[name](items)
    if name in _DICTS:
        return _DICTS[name](dict(zip(items, items, strict=True)))
    if name in _NAMED:
        return _NAMED[name](*items)
    return _decode_rarer(name, items)


def _decode_text(name: str, text: str) -> Any:
    if name == "int":
        return int(text, 16)
    if name in ("bytes", "bytearray"):
        return (bytes if name == "bytes" else bytearray).fromhex(text)
    return Decimal(text) if name == "Decimal" else (_TYPES if name == "type" else _CONSTANTS)[text]


def _decode_rarer(name: str, items: Iterator[Any]) -> Any:
    match name:
        case "defaultdict":
            return defaultdict(next(items), zip(items, items, strict=True))
        case "iter":
            return iter(list(items))
        case "deque":
            maxlen = next(items)
            return deque(items, maxlen)
        case "keys":
            return dict.fromkeys(items).keys()
        case "items":
            return dict(items).items()
        case "values":
            return dict(enumerate(items)).values()
    raise ValueError("not a value")


@lru_cache(maxsize=64)
def _named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    """Return a class without the methods that the sender may have given to its own. Raises ``ValueError`` for other than names."""
    if len(fields) > _MOST_FIELDS:
        raise ValueError("not a value")
    return namedtuple(name, fields)


def write_frame(descriptor: int, data: Any) -> None:
    """Write one JSON document behind its length."""
    body = json.dumps(data).encode()
    rest = memoryview(len(body).to_bytes(_HEADER, "big") + body)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_frame(descriptor: int, limit: int = 1 << 31) -> Any:
    """Read one JSON document of at most ``limit`` bytes; ``EOFError`` at the end, ``ValueError`` beyond the limit."""
    size = int.from_bytes(_read(descriptor, _HEADER), "big")
    if size > limit:
        raise ValueError(f"an answer of {size} bytes, more than {limit}")
    return json.loads(_read(descriptor, size))


def _read(descriptor: int, size: int) -> bytes:
    parts, left = [], size
    while left:
        part = os.read(descriptor, min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
