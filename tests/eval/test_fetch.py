"""A mirror is made from the Hub, or what stands in for it: whole, resumable, never over a stranger's file."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import pytest
from filelock import FileLock

from xmodel2.commands.eval_fetch import eval_fetch
from xmodel2.errors import XmodelError
from xmodel2.eval.definitions import build_tasks, part_files
from xmodel2.eval.fetch import fetch
from xmodel2.eval.hub import Hub, data_set, open_data
from xmodel2.eval.mirror import Mirror
from xmodel2.eval.tasks import SUITES, TASKS

MATH = {"problem": "What is $1+1$?", "solution": "$\\boxed{2}$", "level": "Level 1"}


class LocalHub(Hub):
    """Files DIR/OWNER/NAME/[CONFIGURATION/]SPLIT.jsonl, read by `datasets` as it reads the Hub's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(self._local)
        self.folder, self.asked = folder, list[tuple[str, str | None, str]]()

    def _local(self, path: str, name: str | None, split: str) -> Iterable[dict[str, Any]]:
        self.asked.append((path, name, split))
        file = self.folder / path / (name or "") / f"{split}.jsonl"
        rows: Iterable[dict[str, Any]] = datasets.load_dataset(
            "json", data_files={split: str(file)}, split=split, cache_dir=str(self.folder / "cache")
        )
        return rows

    def put(self, path: str, name: str | None, split: str, rows: Iterable[dict[str, Any]]) -> None:
        """Publish a split."""
        file = self.folder / path / (name or "") / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def hub(tmp_path: Path) -> LocalHub:
    """SciQ and OpenBookQA whole."""
    hub = LocalHub(tmp_path / "hub")
    fields = ("question", "support", "distractor1", "distractor2", "distractor3", "correct_answer")
    hub.put("allenai/sciq", None, "test", ({name: f"{name} {n} é" for name in fields} for n in range(1000)))
    options = {"text": ["a", "b"], "label": ["A", "B"]}
    rows = ({"id": f"{n}", "question_stem": f"Is it {n}", "choices": options, "answerKey": "A"} for n in range(500))
    hub.put("allenai/openbookqa", "main", "test", rows)
    return hub


def test_a_mirror_is_written_and_read_as_the_hub_is(hub: LocalHub, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    out = tmp_path / "out"
    records = fetch(["sciq", "openbookqa"], out, hub, lambda *step: seen.append(step))
    assert seen == [("sciq", 1, 1), ("openbookqa", 1, 1)]
    assert [record["rows"] for record in records.values()] == [1000, 500]
    assert json.loads((out / "MANIFEST.json").read_text())["files"] == records
    assert hub.asked == [("allenai/sciq", None, "test"), ("allenai/openbookqa", "main", "test")]
    with gzip.open(out / "sciq" / "test.jsonl.gz", "rt", encoding="utf-8") as handle:
        assert json.loads(handle.readline())["support"] == "support 0 é"
    for name in ("sciq", "openbookqa"):
        here, there = Mirror(out).load(TASKS[name]), hub.load(TASKS[name])
        assert (here.splits, here.fingerprint) == (there.splits, there.fingerprint)
        assert here.coverage.whole
        assert there.coverage.whole
    assert build_tasks(["sciq"], hub)["sciq"].parts[None].task_docs[3]["question"] == "question 3 é"


def test_a_stopped_fetch_goes_on_and_a_damaged_file_is_fetched_again(hub: LocalHub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(XmodelError, match="piqa: baber/piqa cannot be read from the Hugging Face Hub"):
        fetch(["sciq", "piqa"], out, hub)
    before = (out / "sciq" / "test.jsonl.gz").stat().st_mtime_ns
    hub.asked.clear()
    fetch(["sciq", "openbookqa"], out, hub)
    assert [path for path, _, _ in hub.asked] == ["allenai/openbookqa"]
    assert (out / "sciq" / "test.jsonl.gz").stat().st_mtime_ns == before
    (out / "sciq" / "test.jsonl.gz").write_bytes(b"half")
    fetch(["sciq"], out, hub)
    assert Mirror(out).load(TASKS["sciq"]).coverage.whole
    (out / "MANIFEST.json").unlink()  # as after a kill between a file and its record
    assert fetch(["sciq"], out, hub)["sciq/test.jsonl.gz"]["rows"] == 1000


def test_a_changed_file_is_left_alone_and_ours_from_another_zlib_is_known(hub: LocalHub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fetch(["sciq"], out, hub)
    file = out / "sciq" / "test.jsonl.gz"
    rows = gzip.decompress(file.read_bytes())
    other = gzip.compress(rows, compresslevel=1)
    file.write_bytes(other)
    (out / "MANIFEST.json").unlink()
    record = fetch(["sciq"], out, hub)["sciq/test.jsonl.gz"]
    assert (file.read_bytes(), record["bytes"]) == (other, len(other))
    file.write_bytes(gzip.compress(rows + b"{}\n"))
    with pytest.raises(XmodelError, match=r"test.jsonl.gz: was changed after `xmodel2 eval fetch`"):
        fetch(["sciq"], out, hub)
    assert gzip.decompress(file.read_bytes()) == rows + b"{}\n"


def test_a_strangers_file_is_left_alone(hub: LocalHub, tmp_path: Path) -> None:
    file = tmp_path / "out" / "sciq" / "test.jsonl.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    with pytest.raises(XmodelError, match=r"test.jsonl.gz: was not written by `xmodel2 eval fetch`"):
        fetch(["sciq"], tmp_path / "out", hub)
    assert file.read_bytes() == b"mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "MANIFEST.json").write_text("[1]")
    with pytest.raises(XmodelError, match=r"MANIFEST.json: was not written by"):
        fetch(["sciq"], tmp_path / "other", hub)


def test_a_set_that_is_not_whole_or_has_a_bad_row_is_refused(hub: LocalHub, tmp_path: Path) -> None:
    hub.put("baber/piqa", None, "validation", [{"goal": "g", "sol1": "a", "sol2": "b", "label": 1}] * 3)
    with pytest.raises(
        XmodelError, match=r"baber/piqa has 3 rows of the split 'validation', the official set has 1,838"
    ):
        fetch(["piqa"], tmp_path / "out", hub)
    hub.put("allenai/winogrande", "winogrande_xl", "validation", [{"sentence": "no blank"}])
    with pytest.raises(XmodelError, match=r"allenai/winogrande on the Hub, validation row 1: field 'sentence'"):
        fetch(["winogrande"], tmp_path / "out", hub)
    assert not list((tmp_path / "out").rglob("*.gz"))


def test_each_part_is_read_as_the_harness_reads_it() -> None:
    asked = []

    def load(path: str, name: str | None, split: str) -> list[dict[str, Any]]:
        asked.append((path, name, split))
        return [MATH]

    task, seen = TASKS["math"], []
    rows = Hub(load).rows(task, "test", lambda: seen.append(len(asked)))
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert [task.part_of(row) for row in rows] == list(part_files(task)) == [name for _, name, _ in asked]
    assert {(path, split) for path, _, split in asked} == {("EleutherAI/hendrycks_math", "test")}


def test_every_task_has_a_data_set_on_the_hub() -> None:
    sets = {name: data_set(TASKS[name]) for name in (*SUITES["commonsense"], *SUITES["reasoning"], "wikitext")}
    assert sets["arc_easy"] == ("allenai/ai2_arc", "ARC-Easy")
    assert sets["boolq"] == ("aps/super_glue", "boolq")
    assert sets["wikitext"] == ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1")
    assert all("/" in path for path, _ in sets.values())


def test_without_a_network_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'allenai/sciq' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        XmodelError, match=r"Couldn't reach .* Without a network give --data-dir DIR; `xmodel2 eval fetch --tasks sciq"
    ):
        open_data(None).load(TASKS["sciq"])
    with pytest.raises(XmodelError, match="cannot be read"):
        eval_fetch(tmp_path, tasks="sciq")


def test_two_fetches_into_one_folder(hub: LocalHub, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".fetch.lock"),
        pytest.raises(XmodelError, match="another `xmodel2 eval fetch` writes to it"),
    ):
        fetch(["sciq"], tmp_path, hub)


def test_the_command_prints_files_and_knows_names(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = hub._load
    monkeypatch.setattr(Hub, "__init__", lambda self: setattr(self, "_load", load))
    eval_fetch(tmp_path / "out", tasks="sciq")
    assert f"{tmp_path}/out/sciq/test.jsonl.gz  1,000 rows" in capsys.readouterr().out
    eval_fetch(tmp_path / "out", tasks="sciq", json=True)
    assert json.loads(capsys.readouterr().out)["sciq/test.jsonl.gz"]["data_set"] == "allenai/sciq"
    with pytest.raises(XmodelError, match="Did you mean 'sciq'"):
        eval_fetch(tmp_path / "out", tasks="scqi")
