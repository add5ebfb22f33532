"""Shards come back as written, from many files and from afar; damaged ones are found and named."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from xmodel2.data.maps import OPEN_MAPS
from xmodel2.data.shards import SourceSplit, data_fingerprint, open_shards, verify_shards
from xmodel2.data.synthetic import repeat_shards, write_random_shards, write_shards
from xmodel2.errors import XmodelError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_random_shards(tmp_path, vocab_size=50, seed=3)
    return tmp_path


def test_verify_lists_every_file(data: Path) -> None:
    assert len(verify_shards(data)) == 10


def touch(data: Path) -> None:
    """Read a document of every split."""
    for source in open_shards(data).sources.values():
        for split in (source.train, source.heldout):
            assert split is not None
            assert split.document(split.documents - 1)[0] == 1


def test_truncated_shard_is_named_when_touched(data: Path) -> None:
    shard = next((data / "text").glob("train-*.tokens"))
    shard.write_bytes(shard.read_bytes()[:-7])
    open_shards(data)
    with pytest.raises(XmodelError, match=rf"{shard.name}: \d+ bytes, \d+ bytes expected"):
        touch(data)
    with pytest.raises(XmodelError, match=rf"{shard.name}: \d+ bytes, \d+ bytes expected"):
        open_shards(data, verify=True)


def test_flipped_bit_is_found_when_asked(data: Path) -> None:
    shard = next((data / "sft").glob("train-*.tokens"))
    content = bytearray(shard.read_bytes())
    content[11] ^= 1
    shard.write_bytes(content)
    touch(data)
    with pytest.raises(XmodelError, match=rf"{shard.name}: its content changed"):
        open_shards(data, verify=True)
    with pytest.raises(XmodelError, match=shard.name):
        verify_shards(data)


def test_missing_file_source_and_index(data: Path) -> None:
    next((data / "text").glob("heldout-*.offsets")).unlink()
    with pytest.raises(XmodelError, match=r"heldout-.*\.offsets: missing"):
        touch(data)
    shutil.rmtree(data / "sft")
    with pytest.raises(XmodelError, match=r"sft: missing, but index\.json has this source"):
        open_shards(data)
    (data / "index.json").write_text("{}")
    with pytest.raises(XmodelError, match=r"index\.json: cannot be read"):
        open_shards(data)
    (data / "index.json").unlink()
    with pytest.raises(XmodelError, match="data prepare"):
        open_shards(data)


def test_documents_of_several_shards_come_back(tmp_path: Path) -> None:
    documents = [[1, *range(10, 10 + n), 2] for n in range(1, 40)]
    write_shards(tmp_path, 60, {"text": ("text", {"train": [(ids, None) for ids in documents]})}, shard_tokens=100)
    split = open_shards(tmp_path).source("text").train
    assert split is not None
    assert len(split.files["tokens"]) > 5
    assert [split.document(n).tolist() for n in range(split.documents)] == documents


def test_more_files_than_may_be_open(data: Path) -> None:
    one = open_shards(data).source("text").train
    repeat_shards(data, 700)
    split: SourceSplit | None = open_shards(data).source("text").train
    assert one is not None
    assert split is not None
    before = len(os.listdir("/dev/fd"))
    for number in range(0, split.documents, 50):
        assert np.array_equal(split.document(number), one.document(number % one.documents))
    assert len(os.listdir("/dev/fd")) <= before + OPEN_MAPS + 2
    del split
    assert len(os.listdir("/dev/fd")) <= before + 2


@pytest.fixture
def remote(data: Path) -> Iterator[str]:
    """The same data in an object store (of this process)."""
    store = fsspec.filesystem("memory")
    store.put(str(data), "/bucket/data", recursive=True)
    yield "memory://bucket/data"
    store.rm("/bucket", recursive=True)


def test_remote_shards_are_copied_when_touched(
    remote: str, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    with pytest.raises(XmodelError, match=r"data\.cache_dir"):
        open_shards(remote)
    shards = open_shards(remote, cache_dir=cache)
    assert shards.fingerprint == data_fingerprint(remote) == data_fingerprint(data)
    assert not list(cache.rglob("*.tokens"))
    split, there = shards.source("text").train, open_shards(data).source("text").train
    assert split is not None
    assert there is not None
    assert np.array_equal(split.document(7), there.document(7))
    assert [path.parent.name for path in cache.rglob("*.tokens")] == ["text"]
    assert len(verify_shards(remote, cache)) == 10


def test_remote_tokenizer_comes_along(data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (data / "tokenizer").mkdir()
    for name in ("tokenizer.json", "unigram.model"):
        (data / "tokenizer" / name).write_text(name)
    index = json.loads((data / "index.json").read_text())
    index["tokenizer"]["fingerprint"] = hashlib.sha256(b"tokenizer.json").hexdigest()
    (data / "index.json").write_text(json.dumps(index))
    store = fsspec.filesystem("memory")
    store.put(str(data), "/tokenized", recursive=True)
    shards = open_shards("memory://tokenized", cache_dir=tmp_path_factory.mktemp("cache"))
    assert (shards.directory / "tokenizer" / "unigram.model").read_text() == "unigram.model"
    store.pipe("/tokenized/tokenizer/tokenizer.json", b"another")
    with pytest.raises(XmodelError, match="not the tokenizer that made the tokens"):
        open_shards("memory://tokenized", cache_dir=tmp_path_factory.mktemp("cache"))
    store.rm("/tokenized", recursive=True)


def test_remote_file_that_is_not_as_written(remote: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = tmp_path_factory.mktemp("cache")
    store = fsspec.filesystem("memory")
    [path] = [path for path in store.find("/bucket") if "text/train" in path and path.endswith(".tokens")]
    content = store.cat(path)
    for damaged, words in ((content[:-2], "bytes expected"), (bytes(len(content)), "content changed")):
        store.pipe(path, damaged)
        split = open_shards(remote, cache_dir=cache).source("text").train
        assert split is not None
        with pytest.raises(XmodelError, match=rf"memory://bucket/data/text/train.*{words}"):
            split.document(0)
        assert not list(cache.rglob("*.tokens"))
    store.rm(path)
    with pytest.raises(XmodelError, match=r"memory://.*missing"):
        verify_shards(remote, cache)
    with pytest.raises(XmodelError, match=r"memory://bucket/other/index\.json: not found"):
        open_shards("memory://bucket/other", cache_dir=cache)
    with pytest.raises(XmodelError, match="cannot be opened"):
        open_shards("nosuchstore://bucket", cache_dir=cache)
