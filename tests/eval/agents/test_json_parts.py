"""Large JSON files are read part by part: the same values as whole, with the place of each, and damage is named."""

import hashlib
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.agents import json_parts
from xmodel2.eval.agents.json_parts import Part

FILE = Path("file.json")


def parts(content: bytes, of: str = "[]") -> list[Part]:
    return list(json_parts.json_parts(io.BytesIO(content), FILE, of, hashlib.sha256()))


def drawn_value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.randrange(7 if depth < 3 else 5)
    if kind < 5:
        return (
            None,
            draw.random(),
            draw.randrange(-(10**12), 10**12),
            draw.choice(["", 'é"\\/]}', "日本語 😀", "\n\u2028,"]),
            True,
        )[kind]
    values = [drawn_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return values if kind == 5 else {f"k{number}ü": value for number, value in enumerate(values)}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_parts_are_those_of_the_whole_wherever_chunks_end(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_parts, "_CHUNK", chunk)
    draw = random.Random(chunk)
    for _ in range(60):
        # What cannot be told from its beginning, a number, is no part of the files that this is for.
        values = [[drawn_value(draw)] for _ in range(draw.randrange(6))]
        written = {"ensure_ascii": draw.random() < 0.5, "indent": draw.choice([None, 1, 4])}
        content = f" {json.dumps(values, **written)}\n ".encode()
        found = parts(content)
        assert [part.value for part in found] == values
        assert [json.loads(content[part.begin : part.begin + part.length]) for part in found] == values
        named = {f"n{number}é": value for number, value in enumerate(values)}
        found = parts(json.dumps(named, **written).encode(), "{}")
        assert {part.key: part.value for part in found} == named


@pytest.mark.parametrize("written", [b'[{"a": 1}]', b"[]"])
def test_the_digest_is_of_the_whole_file(written: bytes) -> None:
    content = written + b" " * 3_000_000 + b"\n"
    digest = hashlib.sha256()
    assert len(list(json_parts.json_parts(io.BytesIO(content), FILE, "[]", digest))) == len(json.loads(content))
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "of", "message"),
    [
        (b"", "[]", "must be a JSON array"),
        (b'{"a": 1}', "[]", "must be a JSON array"),
        (b"[{}]", "{}", "must be a JSON object"),
        (b'[{"a": 1}, {"b": "never ends', "[]", "entry 2 is cut off"),
        (b'[{"a": 1}, {"b": 2}', "[]", "entry 2 is not followed by ',' or ']'"),
        (b'[{"a": 1} {"b": 2}]', "[]", "entry 1 is not followed by"),
        (b'[{"a": 1}, {"b": oops, "c": "and so on for a while"}]', "[]", "entry 2 is not valid JSON"),
        (b'[{"a": "\xff\xfe"}]', "[]", "entry 1 is not UTF-8"),
        (b"\xff\xfe[\0", "[]", "entry 1 is not UTF-8"),
        (b'[{"a": "\xc3\xa9"}, {"a": "\xc3"}]', "[]", "entry 2 is not UTF-8"),
        (b'[{"a": 1}, {"b": "\xc3', "[]", "entry 2 is cut off"),
        (b'[{"a": 1}]\n[{"b": 2}]', "[]", "goes on after its last ']'"),
        (b'[{"a": 1}]\xff', "[]", "is not UTF-8"),
        (b"{} x", "{}", "goes on after its last '}'"),
        (b"[" + b"[" * 100_000, "[]", "entry 1 is not valid JSON"),
        (b'[{"a": ' + b"9" * 5000 + b"}]", "[]", "entry 1 is not valid JSON"),
        (b'{"a": {}, 5: {}}', "{}", "entry 2 is not a name and a value"),
        (b'{"a" {}}', "{}", "entry 1 is not a name and a value"),
        (b"[{},]", "[]", "entry 2 is"),
    ],
)
def test_damage_is_named(content: bytes, of: str, message: str) -> None:
    with pytest.raises(XmodelError, match=r"^file\.json: ") as error:
        parts(content, of)
    assert message in str(error.value)


def test_a_missing_quotation_mark_does_not_read_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_parts, "_LONGEST", 10_000)
    monkeypatch.setattr(json_parts, "_CHUNK", 1_000)
    file = io.BytesIO(b'[{"a": "' + b"x" * 1_000_000)
    with pytest.raises(XmodelError, match="entry 1 is not valid JSON"):
        list(json_parts.json_parts(file, FILE, "[]", hashlib.sha256()))
    assert file.tell() < 50_000
