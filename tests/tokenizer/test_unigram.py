"""Training: what the directory holds, losslessness, agreement with SentencePiece, mistakes."""

import json
import random
from pathlib import Path

import pytest
import sentencepiece

from xmodel2.errors import XmodelError
from xmodel2.tokenizer import SPECIAL_TOKENS, Tokenizer, train_unigram
from xmodel2.tokenizer.unigram import train_sentencepiece

AWKWARD = [
    "",
    " ",
    "   \n\n\t\t  ",
    "\r\n",
    "\0\x01\x7f",
    "▁ ▁a▁",
    "▅",
    "</s>",
    "<0x41><0x0A>",
    "<|user|>hi<|end|>",
    "é\u0301 ﬁ Å ½",
    "日本語 العربية 😀👩‍👩‍👧",
    "\ufeff\u200b\u2028\u3000",
    "\U0010ffff\ud7ff\ue000",
]


def random_text(source: random.Random) -> str:
    """Unicode scalars from every plane, mixed with spaces, specials and ordinary text."""
    parts = [" ", "  ", "\n", "\t", "▁", "<0x41>", "</s>", "<|end|>", "the cat", "x = 12"]
    text = ""
    for _ in range(source.randrange(40)):
        if source.random() < 0.6:
            text += source.choice(parts)
        else:
            code = source.randrange(source.choice([0x80, 0x800, 0x3000, 0x10000, 0x110000]))
            text += "" if 0xD800 <= code <= 0xDFFF else chr(code)
    return text


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_round_trips(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_any_unicode_text_round_trips(tokenizer: Tokenizer) -> None:
    source = random.Random(7)
    texts = [random_text(source) for _ in range(2000)]
    ids = tokenizer.encode_batch(texts)
    assert [tokenizer.decode(row) for row in ids] == texts
    assert all(token >= len(SPECIAL_TOKENS) for row in ids for token in row)


def test_every_code_point_round_trips(tokenizer: Tokenizer) -> None:
    text = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF and code % 7 == 0)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_fast_equals_sentencepiece(tokenizer: Tokenizer, directory: Path, texts: list[str]) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    source = random.Random(3)
    corpus = "".join(texts)
    starts = [source.randrange(len(corpus)) for _ in range(1000)]
    samples = [corpus[start : start + source.randrange(200)] for start in starts]
    samples += [random_text(source).replace("▁", "") for _ in range(1000)]
    assert tokenizer.encode_batch(samples) == reference.encode(samples)


def test_specials_have_fixed_ids_and_ascii_is_in_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token(index) for index in range(8)] == list(SPECIAL_TOKENS)
    assert tokenizer.vocab_size == 600
    pieces = {tokenizer.token(index) for index in range(tokenizer.vocab_size)}
    assert {chr(code) for code in range(0x20, 0x7F)} | {"\n", "\t"} <= pieces


def test_digits_are_split(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token(index) for index in tokenizer.encode("2024")] == list("2024")


def test_training_is_deterministic(texts: list[str], tmp_path: Path) -> None:
    first = train_unigram(texts, 450, tmp_path / "a", max_bytes=30_000)
    second = train_unigram(texts, 450, tmp_path / "b", max_bytes=30_000)
    assert first.fingerprint == second.fingerprint


def test_sources_weigh_by_their_shares(texts: list[str], tmp_path: Path) -> None:
    english, code = [texts[0].replace("argument", "zwieback")], [texts[1]]
    sizes = {}
    for name, share in (("much", 0.9), ("little", 0.1)):
        shares = {"english": share, "code": 1 - share}
        trained = train_unigram({"english": english, "code": code}, 450, tmp_path, shares=shares, max_bytes=25_000)
        sizes[name] = len(trained.encode(english[0]))
    assert sizes["much"] < sizes["little"]


def test_bpe_to_compare_with(texts: list[str]) -> None:
    model = sentencepiece.SentencePieceProcessor(model_proto=train_sentencepiece(texts, 600, algorithm="bpe"))
    assert model.get_piece_size() == 600
    assert [model.id_to_piece(index) for index in range(8)] == list(SPECIAL_TOKENS)
    assert [model.decode(model.encode(text)) for text in texts] == texts


def test_sample_depends_on_the_seed(texts: list[str], tmp_path: Path) -> None:
    paragraphs = [text[start : start + 3000] for text in texts for start in range(0, len(text), 3000)]
    prints = {train_unigram(paragraphs, 400, tmp_path, seed=seed, max_bytes=9000).fingerprint for seed in range(3)}
    assert len(prints) > 1


@pytest.mark.parametrize("texts", [[], [""], ["\0"]])
def test_empty_text_is_an_error(texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="the text is empty"):
        train_unigram(texts, 500, tmp_path)


def test_too_large_vocabulary_says_the_largest(texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"at most (\d+)") as caught:
        train_unigram(texts, 50_000, tmp_path)
    largest = int(str(caught.value).split("at most ")[1].split(",")[0])
    assert train_unigram(texts, largest, tmp_path).vocab_size == largest


def test_too_small_vocabulary_says_the_smallest(texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"at least (\d+)"):
        train_unigram(texts, 100, tmp_path)


def test_rare_characters_leave_room_for_pieces(texts: list[str], tmp_path: Path) -> None:
    """A text of 2,000 different characters, of which a small vocabulary can hold a part."""
    many = [*texts, *("".join(map(chr, range(0x4E00 + n, 0x4E00 + n + 200))) for n in range(0, 2000, 200))]
    tokenizer = train_unigram(many, 600, tmp_path / "t")
    pieces = [tokenizer.token(number) for number in range(600)]
    assert sum(len(piece) == 1 and piece > "\u4e00" for piece in pieces) <= 150
    assert sum(len(piece) > 2 and piece.isalpha() for piece in pieces) > 20
    assert all(tokenizer.decode(ids) == text for text, ids in zip(many, tokenizer.encode_batch(many), strict=True))


def test_a_vocabulary_smaller_than_the_characters_of_the_text(texts: list[str], tmp_path: Path) -> None:
    source = random.Random(4)
    characters = [chr(code) for code in range(0x4E00, 0x4E00 + 900)]
    words = ["".join(source.choices(characters, range(900, 0, -1), k=2)) for _ in range(3000)]
    many = [*texts, "".join(source.choices(words, k=30_000))]
    tokenizer = train_unigram(many, 600, tmp_path / "t")
    pieces = [tokenizer.token(number) for number in range(600)]
    assert 0 < sum(len(piece) == 1 and piece > "\u4e00" for piece in pieces) <= (600 - 368) // 2
    assert sum(len(piece) > 1 and piece.isalpha() for piece in pieces) > 50
    assert tokenizer.decode(tokenizer.encode(many[-1])) == many[-1]


@pytest.mark.parametrize(
    ("size", "said"), [(-3, "at least 368"), (0, "at least 368"), (4_000_000_000, "at most 1048576")]
)
def test_a_vocabulary_that_cannot_be_is_refused(texts: list[str], tmp_path: Path, size: int, said: str) -> None:
    with pytest.raises(XmodelError, match=f"vocab_size: {size} is .*{said}"):
        train_unigram(texts, size, tmp_path)


def test_transformers_loads_it_and_renders_the_same_chat(tokenizer: Tokenizer, directory: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(directory)
    messages = [
        {"role": "system", "content": "Be brief. \n"},
        {"role": "user", "content": "  What is 2 + 2?\tNow."},
        {"role": "assistant", "content": "4\n\n"},
        {"role": "user", "content": "naïve 😀?"},
        {"role": "assistant", "content": "yes"},
    ]
    ids = theirs.apply_chat_template(messages, return_dict=False)
    assert ids == tokenizer.encode_chat(messages)[0]
    prompt = theirs.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert prompt == tokenizer.encode_prompt(messages[:-1])
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 3)
    assert len(theirs) == tokenizer.vocab_size
    text = "a cat\n\tsat ▁ 12"
    assert theirs(text).input_ids == [tokenizer.bos_id, *tokenizer.encode(text)]
    assert theirs.decode(tokenizer.encode(text)) == text


def test_directory_names_no_path(directory: Path) -> None:
    config = json.loads((directory / "tokenizer_config.json").read_text())
    assert config["eos_token"] == "</s>"
    assert not any("/" in str(value) for key, value in config.items() if key not in ("eos_token", "chat_template"))
