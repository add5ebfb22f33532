"""Tokenizers of several kinds on the same texts: loading, figures that add up, tables, mistakes."""

import math
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from xmodel2.errors import XmodelError
from xmodel2.tokenizer import Tokenizer
from xmodel2.tokenizer.compare import compare_tokenizers, comparison_figure, comparison_markdown, summary_markdown
from xmodel2.tokenizer.encoder import Encoder, load_any

SOURCES = {"prose": ["the cat sat on the mat\n", "it cost 12 or 2024"], "code": ["def f(long_name):\n    return 7\n"]}


@pytest.fixture(scope="module")
def byte_level(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE, as GPT-2's."""
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False))
    bpe.save(str(path))
    return path


@pytest.fixture(scope="module")
def encoders(directory: Path, byte_level: Path) -> dict[str, Encoder]:
    return {
        "ours": load_any(directory),
        "sentencepiece": load_any(directory / "tokenizer.model"),
        "bpe": load_any(byte_level),
    }


def test_every_kind_is_lossless_and_measured_alike(encoders: dict[str, Encoder], texts: list[str]) -> None:
    found = compare_tokenizers(encoders, {"texts": texts})
    assert found["ours"] == found["sentencepiece"]
    assert {figures["all"]["round_trip_failures"] for figures in found.values()} == {0}
    assert found["bpe"]["all"]["characters"] == sum(map(len, texts))
    assert found["bpe"]["all"]["chars_per_token"] > 1.5


def test_bytes_of_characters_count_as_fallback(encoders: dict[str, Encoder]) -> None:
    found = compare_tokenizers(encoders, {"far": ["日本", "aaaa"]})
    assert found["ours"]["far"]["byte_fallback_rate"] == pytest.approx(6 / found["ours"]["far"]["tokens"])
    assert found["bpe"]["far"]["byte_fallback_rate"] == pytest.approx(6 / found["bpe"]["far"]["tokens"])


def test_groups_and_total_add_up(encoders: dict[str, Encoder]) -> None:
    found = compare_tokenizers(encoders, SOURCES, groups={"English": ["prose"]})
    for figures in found.values():
        assert list(figures) == ["prose", "code", "English", "all"]
        assert figures["English"] == figures["prose"]
        for count in ("documents", "characters", "bytes", "tokens"):
            assert figures["all"][count] == figures["prose"][count] + figures["code"][count]


def test_numbers_and_identifiers(encoders: dict[str, Encoder], tokenizer: Tokenizer) -> None:
    found = compare_tokenizers({"ours": encoders["ours"]}, SOURCES)["ours"]
    assert found["prose"]["tokens_per_number"] == 3  # 12 and 2024, digits alone
    names = ["def", "f", "long_name", "return"]
    expected = sum(len(tokenizer.encode(f" {name}")) for name in names) / len(names)
    assert found["code"]["tokens_per_identifier"] == expected
    assert found["code"]["tokens_per_line"] == len(tokenizer.encode(SOURCES["code"][0])) / 2


def test_renyi_efficiency_of_a_known_distribution() -> None:
    letters = Encoder(
        pieces=["a", "b", "c", "d"],
        byte_ids=frozenset(),
        special_ids=frozenset(),
        unknown_id=None,
        encode_batch=lambda texts: [["abcd".index(letter) for letter in text if letter in "abcd"] for text in texts],
        decode=lambda ids: "".join("abcd"[index] for index in ids),
    )
    found = compare_tokenizers({"letters": letters}, {"even": ["abcd"], "uneven": ["aaab"]})["letters"]
    assert found["even"]["renyi_efficiency"] == pytest.approx(1)
    expected = math.log(0.75**2.5 + 0.25**2.5) / -1.5 / math.log(4)
    assert found["uneven"]["renyi_efficiency"] == pytest.approx(expected)
    assert found["uneven"]["used_vocabulary"] == 0.5


def test_table_marks_the_best(encoders: dict[str, Encoder]) -> None:
    found = compare_tokenizers({name: encoders[name] for name in ("ours", "bpe")}, SOURCES)
    lines = comparison_markdown(found).splitlines()
    assert lines[0] == "| source | ours | bpe |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| prose", "| code", "| all"]
    best = max(found, key=lambda name: found[name]["all"]["chars_per_token"])
    assert f"**{found[best]['all']['chars_per_token']:.3f}**" in lines[-1]
    assert lines[-1].count("**") == 2
    assert "| vocab_size | 600 | 500 |" in summary_markdown(found)


def test_figure_shows_every_source_and_tokenizer(encoders: dict[str, Encoder]) -> None:
    axes = comparison_figure(compare_tokenizers(encoders, SOURCES)).axes[0]
    assert {label.get_text() for label in axes.get_yticklabels()} == {"prose", "code", "all"}
    assert [line.get_label() for line in axes.get_lines()] == list(encoders)


def test_mistakes_name_what_is_wrong(encoders: dict[str, Encoder], tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="no tokenizer there"):
        load_any(tmp_path)
    (tmp_path / "a.model").write_bytes(b"no model")
    with pytest.raises(XmodelError, match=r"a\.model: not a tokenizer"):
        load_any(tmp_path)
    with pytest.raises(XmodelError, match="source empty: the text is empty"):
        compare_tokenizers(encoders, {"empty": [""]})
    with pytest.raises(XmodelError, match=r"groups\.English: there is no source prse"):
        compare_tokenizers(encoders, SOURCES, groups={"English": ["prse"]})
    with pytest.raises(XmodelError, match=r"groups\.code: is the name of a source"):
        compare_tokenizers(encoders, SOURCES, groups={"code": ["prose"]})
    with pytest.raises(XmodelError, match="source all: is the name of the sum"):
        compare_tokenizers(encoders, {"all": ["prose"]})
