"""Schemas of answers: which are taken, and where others are wrong."""

from typing import Any

import pytest

from xmodel2.release.serving.api_error import ApiError
from xmodel2.release.serving.schemas import schema_of

WHERE = "response_format.json_schema.schema"


def read(schema: Any) -> Any:
    return schema_of({"type": "json_schema", "json_schema": {"schema": schema}})


def test_notes_and_references_go() -> None:
    schema = {
        "$defs": {"Size": {"title": "Size", "enum": ["s", "l"], "type": "string"}},
        "title": "Shirt",
        "type": "object",
        "properties": {"size": {"$ref": "#/$defs/Size", "description": "of it"}, "title": {"const": 1}},
        "required": ["size"],
    }
    properties = {"size": {"enum": ["s", "l"]}, "title": {"enum": [1]}}
    assert read(schema) == {"type": "object", "properties": properties, "required": ["size"]}
    assert read({}) == {}
    assert schema_of({"type": "json_object"}) == {"type": "object"}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "nonsense"}, ".type"),
        ({"type": []}, ".type"),
        ({"pattern": "a"}, ".pattern"),
        ({"\x1b": 1}, ".\\x1b"),
        ({"items": True}, ".items"),
        ({"maxItems": 10**9}, ".maxItems"),
        ({"minLength": -1}, ".minLength"),
        ({"minItems": True}, ".minItems"),
        ({"minItems": 3, "maxItems": 2}, ".minItems"),
        ({"minimum": 3, "maximum": 2}, ".minimum"),
        ({"minimum": float("inf")}, ".minimum"),
        ({"minimum": 10**400}, ".minimum"),
        ({"type": "number", "minimum": 1e-30}, ".minimum"),
        ({"type": "integer", "minimum": 0.2}, ".minimum"),
        ({"type": "string", "enum": [1]}, ".enum"),
        ({"type": "integer", "const": True}, ".const"),
        ({"enum": []}, ".enum"),
        ({"enum": [{}]}, ".enum"),
        ({"const": "\ud800"}, ".const"),
        ({"anyOf": [{"type": "null"}, 5]}, ".anyOf[1]"),
        ({"anyOf": [{}], "type": "null"}, ".type"),
        ({"properties": []}, ".properties"),
        ({"properties": {"a": {"type": 1}}}, ".properties.a.type"),
        ({"required": "a"}, ".required"),
        ({"required": ["a"], "additionalProperties": False}, ".required"),
        ({"additionalProperties": 5}, ".additionalProperties"),
        ({"$ref": "http://example.com/x"}, ".$ref"),
        ({"$ref": 5}, ".$ref"),
        ({"enum": list(range(2000))}, ".enum"),
    ],
)
def test_what_is_refused_names_its_place(schema: Any, place: str) -> None:
    with pytest.raises(ApiError) as error:
        read(schema)
    assert (error.value.status, error.value.param) == (400, WHERE + place)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$defs": {"A": {"items": {"$ref": "#/$defs/A"}}}, "$ref": "#/$defs/A"}, "refers to itself"),
        ({"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}] * 9}}, "$ref": "#/$defs/A"}, "refers to itself|parts"),
        ({"anyOf": [{}] * 1001}, "more than 1,000 parts"),
        ({"required": ["a"] * 1001}, "more than 1,000 parts"),
        ({"anyOf": [{"maxItems": 1000}] * 11}, "more than 10,000 items together"),
    ],
)
def test_large_schemas_are_refused(schema: Any, words: str) -> None:
    with pytest.raises(ApiError, match=words):
        read(schema)
