"""The fast path gives the ids of tokenizer.json, whatever the text and wherever it is cut."""

import json
import random
from pathlib import Path

import pytest
import tokenizers

from xmodel2.errors import XmodelError
from xmodel2.tokenizer import Tokenizer
from xmodel2.tokenizer.engine import Engine, build_engine

PARTS = [
    " ",
    "  ",
    "\n",
    "\t",
    "\t\t\t",
    "    ",
    "▁",
    "\0",
    "▅",
    "</s>",
    "<0x41>",
    "<|end|>",
    "é\u0301",
    "日本",
    "😀",
    "­\ufeff",
]


@pytest.fixture(scope="module")
def plain(directory: Path) -> tokenizers.Tokenizer:
    """What a user of the `tokenizers` package loads."""
    fast = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    fast.encode_special_tokens = True
    return fast


@pytest.fixture(scope="module")
def engine(plain: tokenizers.Tokenizer) -> Engine:
    built = build_engine(plain)
    assert built is not None
    return built


def check(engine: Engine, plain: tokenizers.Tokenizer, samples: list[str]) -> None:
    expected = [encoding.ids for encoding in plain.encode_batch(samples, add_special_tokens=False)]
    found = [ids.tolist() for ids in engine.encode(samples)]
    different = [index for index, ids in enumerate(expected) if found[index] != ids]
    assert not different, f"{len(different)} differ, the first: {samples[different[0]]!r}"


def random_text(source: random.Random, corpus: str, pieces: list[str], length: int) -> str:
    """Pieces of the vocabulary, runs of one character, ordinary text and any code point, in random order."""
    text = ""
    while len(text) < length:
        kind = source.randrange(5)
        if kind == 0:
            text += source.choice(pieces)
        elif kind == 1:
            text += source.choice(PARTS) * source.randrange(1, 6)
        elif kind == 2:
            text += chr(source.choice([source.randrange(0x20, 0xD800), source.randrange(0xE000, 0x110000)]))
        elif kind == 3:
            text += source.choice("aeth=-*#._/\\ \n") * source.randrange(1, 40)
        else:
            start = source.randrange(len(corpus))
            text += corpus[start : start + source.randrange(60)]
    return text


def test_random_text(engine: Engine, plain: tokenizers.Tokenizer, tokenizer: Tokenizer, texts: list[str]) -> None:
    source, corpus = random.Random(11), "".join(texts)
    pieces = [tokenizer.token(index) for index in range(264, tokenizer.vocab_size)]
    check(engine, plain, [random_text(source, corpus, pieces, source.randrange(80)) for _ in range(3000)])
    check(engine, plain, [random_text(source, corpus, pieces, 10_000) for _ in range(10)])


def test_documents_longer_than_a_stretch(engine: Engine, plain: tokenizers.Tokenizer, texts: list[str]) -> None:
    whole = "".join(texts)
    check(engine, plain, [whole, whole.replace("\n", ""), whole.replace(" ", ""), whole.replace("e", "▁"), *texts])


@pytest.mark.parametrize("unit", ["a", " ", "=", "\t", "\n", "ab", "▁", "字", "the ", "    x"])
def test_long_runs(engine: Engine, plain: tokenizers.Tokenizer, unit: str) -> None:
    check(engine, plain, ["x" + unit * (20_000 // len(unit)) + "y"])


def test_run_without_a_place_to_cut_is_lossless(tokenizer: Tokenizer) -> None:
    text = " " * 200_000 + "x"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_batch_of_every_kind(tokenizer: Tokenizer, texts: list[str]) -> None:
    batch = ["", texts[0], "▁", "", "a", "a ▁ b", texts[1]]
    arrays = tokenizer.encode_arrays(batch)
    assert [ids.tolist() for ids in arrays] == tokenizer.encode_batch(batch) == [tokenizer.encode(t) for t in batch]
    assert {(str(ids.dtype), ids.ndim) for ids in arrays} == {("int32", 1)}
    assert tokenizer.encode_batch(batch * 5) == tokenizer.encode_batch(batch) * 5


def test_wrong_text_is_an_error(tokenizer: Tokenizer) -> None:
    for position, text in enumerate(["\ud800", "ab" * 9000 + "\udfff", "▁\ud800"]):
        with pytest.raises(XmodelError, match=f"text {position} of the batch"):
            tokenizer.encode_arrays(["fine"] * position + [text])


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree["model"]["vocab"][300].__setitem__(1, -7.001),
        lambda tree: tree["model"]["vocab"][300].__setitem__(0, "☃☃"),
        lambda tree: tree.__setitem__("normalizer", {"type": "NFC"}),
        lambda tree: tree.__setitem__("pre_tokenizer", {"type": "Whitespace"}),
        lambda tree: tree["model"].__setitem__("byte_fallback", False),
        lambda tree: tree["added_tokens"][5].__setitem__("special", False),
    ],
)
def test_no_engine_where_equal_ids_are_not_certain(directory: Path, tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    tree = json.loads((directory / "tokenizer.json").read_text())
    change(tree)
    fast = tokenizers.Tokenizer.from_str(json.dumps(tree))
    assert build_engine(fast) is None
    without = Tokenizer(fast, "", tmp_path)
    assert without.encode_batch(["a cat", ""]) == [
        encoding.ids for encoding in fast.encode_batch(["a cat", ""], add_special_tokens=False)
    ]
