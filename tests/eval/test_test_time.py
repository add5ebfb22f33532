"""Windows, their losses and the result: text from everywhere it may come from, resumed measurements, mistakes named."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.test_time import lay_windows, measure_losses, scaling_law
from xmodel2.eval.test_time_text import Text, read_text

PREFIX = 1
SHARED = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "wikitext2-test"


class Fake:
    """A scorer whose loss at index t is 2 + 3 t^-0.5, and a bit for the token; a token a character."""

    prefix_token_id = PREFIX

    def __init__(self, max_length: int = 64, stop_after: int | None = None, name: str = "fake") -> None:
        self.max_length, self.stop_after = max_length, stop_after
        self.description: dict[str, Any] = {"name": name, "fingerprint": name, "dtype": "float32"}
        self.asked: list[list[int]] = []

    def encode(self, text: str) -> list[int]:
        return [PREFIX, *(2 + ord(character) % 90 for character in text)]

    def token_losses(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, np.ndarray]]:
        for index in reversed(range(len(rows))):
            if self.stop_after is not None and len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            row = np.array(rows[index])
            self.asked.append(list(rows[index]))
            yield index, (2 + 3 * np.arange(1.0, len(row)) ** -0.5 + (row[1:] % 7 - 3) / 10).astype(np.float32)


def a_text(documents: int = 30, characters: int = 150) -> Text:
    random = np.random.default_rng(0)
    letters = random.integers(97, 123, (documents, characters))
    return Text("a text", ["".join(map(chr, row)) for row in letters])


def test_windows_begin_with_the_prefix_token_once() -> None:
    windows = lay_windows(Fake(), a_text())
    rows = [windows.row(number, PREFIX) for number in range(len(windows.starts))]
    assert {len(row) for row in rows} == {65}
    assert all(row.count(PREFIX) == 1 and row[0] == PREFIX for row in rows)
    assert PREFIX not in windows.ids
    assert (
        rows[-1][-1] == windows.ids[(windows.starts[-1] + 63) % len(windows.ids)]
    )  # the last goes on at the beginning


def test_planted_law_comes_out_of_a_whole_measurement(tmp_path: Path) -> None:
    result = scaling_law(Fake(), a_text(), tmp_path / "out", draws=50)
    constants = result["fit"]["constants"]
    assert [constants[name]["value"] for name in "abc"] == pytest.approx([2.0, 3.0, 0.5], rel=0.1)
    assert result["fit"]["ahead"]["t"] == 128
    assert result["fit"]["ahead"]["loss"] == pytest.approx(2 + 3 * 128**-0.5, abs=0.1)
    assert result["fit"]["goodness"]["r2"] > 0.99
    assert len(result["curve"]) == 64
    assert result["settings"]["drawn"] == "documents"
    assert json.loads((tmp_path / "out" / "scaling.json").read_text()) == result
    assert (tmp_path / "out" / "scaling.svg").read_text().startswith("<svg")


def test_an_interrupted_measurement_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = scaling_law(Fake(), a_text(), draws=50)
    first, second, third = Fake(stop_after=10), Fake(), Fake()
    with pytest.raises(KeyboardInterrupt):
        scaling_law(first, a_text(), tmp_path, draws=50)
    resumed = scaling_law(second, a_text(), tmp_path, draws=50)
    assert len(second.asked) == whole["settings"]["windows"] - 10
    assert resumed["bins"] == whole["bins"]
    assert resumed["fit"] == whole["fit"]
    scaling_law(third, a_text(), tmp_path, draws=50, seed=1)
    assert third.asked == []  # another bootstrap measures nothing


def test_a_row_that_a_kill_tore_is_measured_again(tmp_path: Path) -> None:
    windows = lay_windows(Fake(), a_text())
    measure_losses(Fake(), windows, tmp_path)
    torn = np.lib.format.open_memmap(tmp_path / "losses.npy", mode="r+")
    torn[3, 40:] = np.nan
    torn.flush()
    again = Fake()
    assert np.isfinite(measure_losses(again, windows, tmp_path)).all()
    assert again.asked == [windows.row(3, PREFIX)]


@pytest.mark.parametrize(
    ("scorer", "text", "options", "said"),
    [
        (Fake(), a_text(), {"max_context": 65}, "beyond the model's context of 64"),
        (Fake(), a_text(), {"max_context": 8}, "a context of 8 tokens is too short for a law"),
        (Fake(8192), a_text(), {}, r"its 4,560 tokens are less than one window of 8,192"),
        (
            Fake(128),
            a_text(),
            {"stride": 1},
            r"makes .* windows of 128, .* 128 times; .* give 2 or more",
        ),
        (Fake(), a_text(), {"stride": 1000}, r"makes 5 windows .* give 228 or less"),
    ],
)
def test_what_gives_no_curve_is_said_before_anything_is_measured(
    scorer: Fake, text: Text, options: dict[str, int], said: str
) -> None:
    with pytest.raises(XmodelError, match=said):
        scaling_law(scorer, text, **options)  # type: ignore[arg-type]
    assert scorer.asked == []


def test_another_model_or_text_may_not_use_the_folder(tmp_path: Path) -> None:
    scaling_law(Fake(), a_text(), tmp_path, draws=50)
    with pytest.raises(XmodelError, match=r"another measurement \(model changed\)"):
        scaling_law(Fake(name="other"), a_text(), tmp_path)
    with pytest.raises(XmodelError, match=r"tokens, windows changed"):
        scaling_law(Fake(), a_text(documents=40), tmp_path)
    (tmp_path / "losses.npy").write_bytes(b"nothing")
    with pytest.raises(XmodelError, match=r"losses\.npy: is damaged"):
        scaling_law(Fake(), a_text(), tmp_path)


def test_a_model_that_gives_no_number_is_named() -> None:
    class Broken(Fake):
        def token_losses(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, np.ndarray]]:
            yield 0, np.full(len(rows[0]) - 1, np.nan, dtype=np.float32)

    with pytest.raises(XmodelError, match="fake: gives a loss that is not finite"):
        scaling_law(Broken(), a_text())


def test_text_comes_from_a_mirror_records_or_a_plain_file(tmp_path: Path) -> None:
    rows = [{"page": " = One = \n\n First .\n"}, {"page": " = Two = \n"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "wikitext").mkdir()
    (tmp_path / "wikitext" / "test.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "b.jsonl").write_text(lines.replace("page", "text"))
    (tmp_path / "wiki.test.raw").write_text("plain text, of any name")
    assert read_text(data_dir=tmp_path).documents == [row["page"] for row in rows]
    assert read_text(tmp_path / "b.jsonl").documents == [row["page"] for row in rows]
    assert read_text(tmp_path / "wiki.test.raw").documents == ["plain text, of any name"]


def test_text_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bytes.txt").write_bytes(b"abc\xff")
    (tmp_path / "other.jsonl").write_text('{"title": "x"}\n')
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b'{"text": "abc"}\n')[:-6])
    for name, said in {
        "absent.txt": "no such file",
        "empty.txt": "holds no text",
        "bytes.txt": "not valid UTF-8 at byte 3",
        "other.jsonl": "neither of the fields page and text",
        "torn.jsonl.gz": "damaged",
        ".": "is a folder",
    }.items():
        with pytest.raises(XmodelError, match=said):
            read_text(tmp_path / name)
    with pytest.raises(XmodelError, match=r"wikitext/test\.jsonl\.gz: no such file .* `xmodel2 eval fetch`"):
        read_text(data_dir=tmp_path)

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(XmodelError, match=r"cannot be fetched from the Hub \(no network\); give --data-dir"):
        read_text()


def test_the_copy_at_hand_is_sixty_articles() -> None:
    files = sorted(SHARED.glob("*.jsonl.gz"))
    documents = read_text(files[0]).documents if files else [" = Imagism = \n"] * 60
    assert len(documents) == 60
    assert all("= " in document for document in documents)


def test_losses_are_those_of_transformers(road: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from xmodel2.eval.engine import Engine

    model = AutoModelForCausalLM.from_pretrained(road / "hf", dtype=torch.float32)
    engine = Engine(model, AutoTokenizer.from_pretrained(road / "hf"), {"name": "ours", "fingerprint": "f"})
    text = Text("plain", [(road / "corpus" / "docs.jsonl").read_text()[:6000]])
    windows = lay_windows(engine, text, max_context=32, stride=64)
    losses = measure_losses(engine, windows, None)
    rows = torch.tensor([windows.row(number, engine.prefix_token_id) for number in range(len(windows.starts))])
    with torch.no_grad():
        logits = model(rows[:, :-1]).logits.transpose(1, 2)
    expected = torch.nn.functional.cross_entropy(logits, rows[:, 1:], reduction="none").numpy()
    assert np.abs(losses - expected).max() < 1e-4
