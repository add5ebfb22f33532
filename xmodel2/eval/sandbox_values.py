"""Values on their way between two processes that do not trust each other: plain data only, no pickle.

    [1, {"a"}] --encode--> ["list", 1, ["set", "a"]] --frame--> pipe --frame--> decode --> [1, {"a"}]

What arrives is of a built-in type whatever was sent, so no method that the sender wrote is ever called by the receiver.
Anything else stays where it is and crosses as a reference.
"""

import json
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_TYPES = {
    kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, object)
}
_VIEWS: Any = (type({}.keys()), type({}.items()))  # equal to a set of the same items
_HEADER = 4  # bytes


def encode(value: Any, refer: Callable[[Any], Any]) -> Any:
    """Return a value as JSON; an instance of a subclass goes as the built-in it extends, the rest as ``refer`` says.

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
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            return [name, *(encode(item, refer) for item in value)]
    if isinstance(value, dict):
        return ["dict", *(encode(part, refer) for item in dict.items(value) for part in item)]
    if isinstance(value, _VIEWS):
        return ["set", *(encode(item, refer) for item in value)]
    return _encode_rarer(value, refer)


def _encode_rarer(value: Any, refer: Callable[[Any], Any]) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return ["bytes" if isinstance(value, bytes) else "bytearray", bytes(value).hex()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, range):
        return ["range", *(encode(part, refer) for part in (value.start, value.stop, value.step))]
    if isinstance(value, Fraction):
        return ["Fraction", encode(value.numerator, refer), encode(value.denominator, refer)]
    if isinstance(value, Decimal):
        return ["Decimal", str(value)]
    if isinstance(value, type) and value in _TYPES.values():
        return ["type", value.__name__]
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
    if name in _SEQUENCES:
        return _SEQUENCES[name](decode(part, resolve) for part in parts)
    if name == "dict":
        items: Iterator[Any] = (decode(part, resolve) for part in parts)
        return dict(zip(items, items, strict=True))
    if name == "int":
        return int(parts[0], 16)
    if name in ("bytes", "bytearray"):
        return (bytes if name == "bytes" else bytearray).fromhex(parts[0])
    if name == "type":
        return _TYPES[parts[0]]
    rarer: dict[str, Callable[..., Any]] = {"complex": complex, "range": range, "Fraction": Fraction}
    if name in rarer:
        return rarer[name](*(decode(part, resolve) for part in parts))
    if name == "Decimal":
        return Decimal(parts[0])
    raise ValueError("not a value")


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
