"""Damaged shards are found and named."""

from pathlib import Path

import pytest

from xmodel2.data.shards import open_shards, verify_shards
from xmodel2.data.synthetic import write_random_shards
from xmodel2.errors import XmodelError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_random_shards(tmp_path, vocab_size=50, seed=3)
    return tmp_path


def test_verify_lists_every_file(data: Path) -> None:
    assert len(verify_shards(data)) == 10


def test_truncated_shard_is_named_on_opening(data: Path) -> None:
    shard = data / "text" / "train-00000.tokens"
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(XmodelError, match=r"train-00000\.tokens: \d+ bytes, \d+ bytes expected"):
        open_shards(data)


def test_flipped_bit_is_found_when_asked(data: Path) -> None:
    shard = data / "sft" / "train-00000.tokens"
    content = bytearray(shard.read_bytes())
    content[11] ^= 1
    shard.write_bytes(content)
    open_shards(data)
    with pytest.raises(XmodelError, match=r"train-00000\.tokens: its content changed"):
        open_shards(data, verify=True)
    with pytest.raises(XmodelError, match=r"train-00000\.tokens"):
        verify_shards(data)


def test_missing_file_index_and_source(data: Path) -> None:
    (data / "text" / "heldout-00000.offsets").unlink()
    with pytest.raises(XmodelError, match=r"heldout-00000\.offsets: missing"):
        open_shards(data)
    (data / "index.json").write_text("{}")
    with pytest.raises(XmodelError, match=r"index\.json: cannot be read"):
        open_shards(data)
    (data / "index.json").unlink()
    with pytest.raises(XmodelError, match="data prepare"):
        open_shards(data)
