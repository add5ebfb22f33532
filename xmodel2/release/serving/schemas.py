"""A request's ``response_format``, checked before llama.cpp sees it: one that it cannot compile it passes over in silence,
and a large one takes all memory.

    {"type": "json_schema", "json_schema": {"schema": ...}} -> schema_of -> known keywords, bounded sizes, no references
"""

from typing import Any

from xmodel2.page import printable
from xmodel2.release.serving.api_error import wrong
from xmodel2.tokenizer.load import is_unicode

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
_NOTES = {"title", "description", "default", "examples", "$schema", "$comment", "$defs", "definitions"}
"""Keywords that change nothing, or nothing where they stand."""
_SIZES = {"minItems": 1000, "maxItems": 1000, "minLength": 5000, "maxLength": 5000}
_PAIRS = (("minItems", "maxItems"), ("minLength", "maxLength"), ("minimum", "maximum"))
_KEYWORDS = ("type", "properties", "required", "additionalProperties", "items", "minimum", "maximum", *_SIZES)
_ALONE = ("$ref", "anyOf", "enum", "const")
_MAX_PARTS, _MAX_DEPTH, _MAX_ITEMS = 1000, 16, 10_000
"""20 arrays of 1,000 items still compile (0.6 s), 450 do not."""
_MAX_NUMBER = 1e9

Schema = dict[str, Any]


def schema_of(value: Any) -> Schema | None:
    """Return the schema that an answer must keep to, None for any text. Raises `ApiError` (400) naming what is not supported."""
    if not isinstance(value, dict):
        raise wrong("response_format", "must be an object with a type", "invalid_type")
    kind = value.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        raise wrong("response_format.type", "must be text, json_object or json_schema")
    inside = value.get("json_schema")
    root = inside.get("schema") if isinstance(inside, dict) else None
    where = "response_format.json_schema.schema"
    if not isinstance(root, dict):
        raise wrong(where, "must be an object, a JSON schema", "missing" if root is None else "invalid_type")
    return _Reader(root).read(root, where, 0)


class _Reader:
    """Reads the parts of one schema and counts them."""

    def __init__(self, root: Schema) -> None:
        self._root, self._parts, self._items = root, 0, 0

    def read(self, value: Any, where: str, depth: int) -> Schema:
        """Return a part without what changes nothing."""
        if not isinstance(value, dict):
            raise wrong(where, "must be an object", "invalid_type")
        self._count(where, 1)
        if depth > _MAX_DEPTH:
            raise wrong(where, f"is more than {_MAX_DEPTH} deep, or refers to itself", "unsupported_value")
        part = {key: inner for key, inner in value.items() if key not in _NOTES}
        for key in part:
            if key not in _KEYWORDS and key not in _ALONE:
                known = ", ".join((*_KEYWORDS, *_ALONE))
                raise wrong(
                    f"{where}.{printable(key[:60])}",
                    f"is not supported; of JSON Schema {known} are",
                    "unsupported_value",
                )
        types = self._types(part, where)
        if alone := next((key for key in _ALONE if key in part), ""):
            if others := set(part) - {alone} - ({"type"} if alone in ("enum", "const") else set()):
                raise wrong(f"{where}.{min(others)}", f"is not supported beside {alone}", "unsupported_value")
            return self._alone(alone, part[alone], types, f"{where}.{alone}", depth)
        _check_sizes(part, types, where)
        return part | self._object(part, where, depth) | self._array(part, where, depth)

    def _count(self, where: str, parts: int) -> None:
        self._parts += parts
        if self._parts > _MAX_PARTS:
            raise wrong(where, f"the schema has more than {_MAX_PARTS:,} parts", "unsupported_value")

    def _types(self, part: Schema, where: str) -> list[str]:
        if "type" not in part:
            return list(_TYPES)
        types = part["type"] if isinstance(part["type"], list) else [part["type"]]
        if not types or not all(isinstance(one, str) and one in _TYPES for one in types):
            raise wrong(f"{where}.type", f"must be of {', '.join(_TYPES)}")
        return types

    def _alone(self, key: str, value: Any, types: list[str], where: str, depth: int) -> Schema:
        if key == "$ref":
            _, _, name = value.rpartition("/") if isinstance(value, str) else ("", "", "")
            for place in ("$defs", "definitions"):
                found = self._root.get(place)
                if value == f"#/{place}/{name}" and isinstance(found, dict) and name in found:
                    return self.read(found[name], where, depth + 1)
            raise wrong(where, "must name a definition of this schema, as #/$defs/NAME does")
        values = [value] if key == "const" else value
        if not isinstance(values, list) or not values:
            raise wrong(where, "must be a list that is not empty", "invalid_type")
        if key == "anyOf":
            return {key: [self.read(one, f"{where}[{at}]", depth + 1) for at, one in enumerate(values)]}
        self._count(where, len(values))
        for one in values:
            if isinstance(one, dict | list) or not any(_is_of(one, kind) for kind in types):
                raise wrong(
                    where, "must be texts, numbers, true, false or null, of the part's type", "unsupported_value"
                )
            if isinstance(one, str):
                _check_text(one, where)
            elif one is not None and not isinstance(one, bool):
                _check_number(one, where)
        return {"enum": values}

    def _object(self, part: Schema, where: str, depth: int) -> Schema:
        properties, required = part.get("properties", {}), part.get("required", [])
        if not isinstance(properties, dict):
            raise wrong(f"{where}.properties", "must be an object", "invalid_type")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise wrong(f"{where}.required", "must be a list of names", "invalid_type")
        for name in (*properties, *required):
            _check_text(name, f"{where}.properties")
        self._count(f"{where}.required", len(required))
        more = part.get("additionalProperties", True)
        if more is False and (absent := sorted(set(required) - set(properties))):
            raise wrong(f"{where}.required", f"{printable(absent[0][:60])!r} is none of the properties")
        read: Schema = {}
        if properties:
            inner = f"{where}.properties"
            read["properties"] = {
                name: self.read(one, f"{inner}.{printable(name[:60])}", depth + 1) for name, one in properties.items()
            }
        if not isinstance(more, bool):
            read["additionalProperties"] = self.read(more, f"{where}.additionalProperties", depth + 1)
        return read

    def _array(self, part: Schema, where: str, depth: int) -> Schema:
        self._items += max(part.get("minItems", 0), part.get("maxItems", 0))
        if self._items > _MAX_ITEMS:
            raise wrong(where, f"the schema's arrays have more than {_MAX_ITEMS:,} items together", "unsupported_value")
        return {"items": self.read(part["items"], f"{where}.items", depth + 1)} if "items" in part else {}


def _check_sizes(part: Schema, types: list[str], where: str) -> None:
    for key, most in _SIZES.items():
        if key in part and not (type(part[key]) is int and 0 <= part[key] <= most):
            raise wrong(f"{where}.{key}", f"must be a whole number from 0 to {most:,}")
    for key in ("minimum", "maximum"):
        if key in part:
            _check_number(part[key], f"{where}.{key}")
            if "integer" in types and part[key] % 1:
                raise wrong(f"{where}.{key}", "must be a whole number where integers are allowed")
    for low, high in _PAIRS:
        if low in part and high in part and part[low] > part[high]:
            raise wrong(f"{where}.{low}", f"is above {high}")


def _check_number(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_NUMBER:
        raise wrong(where, f"must be a number from {-_MAX_NUMBER:,.0f} to {_MAX_NUMBER:,.0f}")
    if value != round(value, 9):
        raise wrong(where, "must be a number of at most 9 decimals")


def _check_text(value: str, where: str) -> None:
    if not is_unicode(value):
        raise wrong(where, "is not Unicode text: it has half of a surrogate pair")


def _is_of(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
