"""Hugging Face data sets from local folders of every layout the library writes: the hub's own loading path, offline."""

import json
from pathlib import Path

import datasets
import pytest

from xmodel2.data.huggingface import count_shards, read_dataset
from xmodel2.data.prepare import prepare
from xmodel2.errors import XmodelError
from xmodel2.recipe.preparation import FieldSettings, PreparedSource

ROWS = [{"content": f"document number {n} about the river", "id": n} for n in range(60)]
FIELDS = FieldSettings(text="content")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for part in range(3):
        datasets.Dataset.from_list(ROWS[part::3]).to_parquet(
            str(tmp_path / "hub" / "data" / f"train-{part:05d}-of-00003.parquet")
        )
    datasets.Dataset.from_list(ROWS[:5]).to_parquet(str(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet"))
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(
        str(tmp_path / "saved"), num_shards={"train": 2}
    )
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def texts(source: PreparedSource, root: Path) -> list[str]:
    parts = count_shards(source, root)
    return [document["text"] for part in range(parts) for _, document in read_dataset(source, root, (part, parts))]


@pytest.mark.parametrize(("name", "parts"), [("hub", 3), ("saved", 2), ("lines", 1)])
def test_every_row_once_from_as_many_parts_as_there_are_files(root: Path, name: str, parts: int) -> None:
    source = PreparedSource(dataset=name, fields=FIELDS)
    assert count_shards(source, root) == parts
    assert sorted(texts(source, root)) == sorted(row["content"] for row in ROWS)


def test_another_split(root: Path) -> None:
    assert len(texts(PreparedSource(dataset="hub", split="test", fields=FIELDS), root)) == 5


def test_what_is_missing_is_said(root: Path) -> None:
    empty = datasets.Dataset.from_dict({"content": []})
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS), "test": empty}).save_to_disk(str(root / "half"))
    assert len(texts(PreparedSource(dataset="half", fields=FIELDS), root)) == 60
    with pytest.raises(XmodelError, match=r"half: cannot be opened, split 'test': it has no rows"):
        count_shards(PreparedSource(dataset="half", split="test"), root)
    with pytest.raises(XmodelError, match=r"saved: cannot be opened, split 'test': there are only train"):
        count_shards(PreparedSource(dataset="saved", split="test"), root)
    with pytest.raises(XmodelError, match=r"hub: cannot be opened, split 'validation'"):
        count_shards(PreparedSource(dataset="hub", split="validation"), root)
    with pytest.raises(
        XmodelError, match=r"data set 'nobody/nothing' \(no folder .*, so looked for on the hub\): cannot"
    ):
        count_shards(PreparedSource(dataset="nobody/nothing"), root)
    skipped: list[str] = []
    assert list(read_dataset(PreparedSource(dataset="lines"), root, (0, 1), on_skip=skipped.append)) == []
    assert skipped[0] == "lines:0:0: neither text nor messages"
    with pytest.raises(XmodelError, match="lines:0:0: neither text nor messages"):
        list(read_dataset(PreparedSource(dataset="lines"), root, (0, 1), strict=True))


def test_prepared_from_a_data_set(root: Path) -> None:
    (root / "sources.toml").write_text(
        '[tokenizer]\nvocab_size = 370\n[sources.web]\ndataset = "hub"\nfields = { text = "content" }\nheldout_fraction = 0.1\n'
    )
    web = prepare(root / "sources.toml", root / "out")["sources"]["web"]
    assert web["train"]["documents"] + web["heldout"]["documents"] == 60
    assert web["heldout"]["documents"] > 0
