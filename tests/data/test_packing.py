"""Best fit: nothing lost, nothing cut that fits, few tokens of padding, plans kept and never stale."""

from pathlib import Path

import numpy as np
import pytest

from xmodel2.data import packing
from xmodel2.data.loader import IGNORED, Loader
from xmodel2.data.packing import plan_rows
from xmodel2.data.shards import ShardSet, open_shards, verify_shards
from xmodel2.data.synthetic import Documents, write_shards
from xmodel2.errors import XmodelError

S = 32


def offsets_of(lengths: list[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def simple_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """Return the room left in each row by the textbook's rule, sorted."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else capacity) - length)
    return sorted(rooms)


@pytest.mark.parametrize("capacity", [1, 7, 64, 200])
@pytest.mark.parametrize("count", [1, 6, 300])
def test_rows_are_those_of_best_fit_decreasing(capacity: int, count: int) -> None:
    lengths = np.random.default_rng(count).integers(1, capacity + 1, count).tolist()
    plan = plan_rows(offsets_of(lengths), capacity)
    assert sorted((capacity - plan.row_tokens(np.arange(plan.rows))).tolist()) == simple_best_fit(lengths, capacity)


def test_every_token_is_in_one_row_and_blocks_are_independent() -> None:
    lengths = np.random.default_rng(0).integers(0, 150, 500).tolist()
    for block in (7, 100, 1 << 16):
        plan = plan_rows(offsets_of(lengths), 64, block)
        taken = [np.arange(a, a + n) for a, n in zip(plan.start.tolist(), plan.length.tolist(), strict=True)]
        assert np.array_equal(np.sort(np.concatenate(taken)), np.arange(sum(lengths)))
        assert plan.row_tokens(np.arange(plan.rows)).max() <= 64
        assert plan.cut == sum(length > 64 for length in lengths)


def test_log_normal_documents_leave_little_padding() -> None:
    lengths = np.random.default_rng(1).lognormal(4, 1, 5000).astype(np.int64).tolist()
    plan = plan_rows(offsets_of(lengths), 1024)
    assert sum(lengths) / (plan.rows * 1024) > 0.995


def test_a_shard_too_large_for_32_bits() -> None:
    with pytest.raises(XmodelError, match="best_fit takes shards below"):
        plan_rows(np.array([0, 1 << 32]), 4096)


def counted(lengths: list[int], first: int, with_loss: bool = True) -> Documents:
    """Documents whose tokens are all different, so that each tells where it came from; every third is no target."""
    for length in lengths:
        ids = list(range(first, first + length))
        first += length
        yield ids, [int(i % 3 != 0) for i in ids] if with_loss else None


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    lengths = np.random.default_rng(2).integers(2, 90, 200).tolist()
    documents = {"train": counted(lengths, 1)}
    write_shards(tmp_path, 60_000, {"sft": ("sft", documents)}, shard_tokens=3000)
    return open_shards(tmp_path)


def one_epoch(shards: ShardSet, **settings: object) -> Loader:
    probe = Loader(shards, [(1, {"sft": 1.0})], S, 1, seed=3, **settings)  # type: ignore[arg-type]
    rows = round(1 / probe.report()["stages"][0]["sources"]["sft"]["epochs"])
    return Loader(shards, [(rows, {"sft": 1.0})], S, 1, seed=3, **settings)  # type: ignore[arg-type]


def test_best_fit_rows_hold_whole_documents(shards: ShardSet) -> None:
    loader = one_epoch(shards, loss_on="all")
    batch = loader.rows(0, loader.total_rows)
    split = shards.source("sft").train
    assert split is not None
    tokens = batch.inputs[batch.inputs > 0]
    assert np.array_equal(np.sort(tokens), np.arange(1, split.tokens + 1))
    assert loader.realised(0) == {"sft": split.tokens}
    firsts = {int(split.document(d)[0]) for d in range(split.documents)}
    pieces = {}
    for row, ids in zip(batch.inputs, batch.document_ids, strict=True):
        for number in range(ids.max() + 1):
            piece = row[ids == number]
            pieces[int(piece[0])] = piece.tolist()
    for d in range(split.documents):
        document = split.document(d).tolist()
        for at in range(0, len(document), S):
            assert pieces[document[at]] == document[at : at + S]
    # Each token but a document's first is the target of the one before it, once, even where a long document is cut.
    wanted = sorted(set(range(1, split.tokens + 1)) - firsts)
    assert sorted(batch.targets[batch.targets != IGNORED].tolist()) == wanted
    assert (batch.targets == batch.inputs + 1)[batch.targets != IGNORED].all()


def test_padding_is_last_without_loss_and_a_document_of_its_own(shards: ShardSet) -> None:
    loader = one_epoch(shards)
    batch = loader.rows(0, loader.total_rows)
    padding = batch.inputs == 0
    assert 0 < padding.sum() < padding.size / 10
    assert (np.diff(padding.astype(int), axis=1) >= 0).all()
    assert (batch.targets[padding] == IGNORED).all()
    for row in np.flatnonzero(padding.any(axis=1)):
        own = set(batch.document_ids[row][padding[row]].tolist())
        assert own == {int(batch.document_ids[row].max())}
        assert own.isdisjoint(batch.document_ids[row][~padding[row]].tolist())
    kept = batch.targets[batch.targets != IGNORED]
    assert len(kept)
    assert (kept % 3 != 0).all()


def test_another_epoch_has_the_same_rows_in_another_order(shards: ShardSet) -> None:
    rows = one_epoch(shards).total_rows
    loader = Loader(shards, [(2 * rows, {"sft": 1.0})], S, 1, seed=3)
    first, second = (loader.rows(at, at + rows).inputs for at in (0, rows))
    assert not np.array_equal(first, second)
    assert sorted(first.tolist()) == sorted(second.tolist())


def test_plans_are_kept_beside_the_shards_and_never_stale(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    files = len(verify_shards(shards.directory))
    before = one_epoch(shards).batch(0)
    [first, *_] = kept = sorted(shards.directory.rglob(f"*.rows-{S}"))
    assert len(kept) > 1
    assert first.name == f"train-{first.name.split('-', 1)[1]}"
    assert len(verify_shards(shards.directory)) == files
    assert open_shards(shards.directory).fingerprint == shards.fingerprint

    made = []
    monkeypatch.setattr(packing, "plan_rows", lambda *a: made.append(a) or plan_rows(*a))  # type: ignore[func-returns-value]
    assert np.array_equal(one_epoch(open_shards(shards.directory)).batch(0).inputs, before.inputs)
    assert not made
    good = first.read_bytes()
    for damaged in (good[:-4], b"", good[:1], bytes([good[0] ^ 1]) + good[1:], kept[1].read_bytes()):
        first.write_bytes(damaged)
        made.clear()
        assert np.array_equal(one_epoch(open_shards(shards.directory)).batch(0).inputs, before.inputs)
        assert len(made) == 1
        assert first.read_bytes() == good


def test_plans_stay_in_memory_where_the_folder_cannot_be_written(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(packing, "write_bytes_atomic", refuse)
    loader = one_epoch(shards)
    assert not list(shards.directory.rglob("*.rows-*"))
    monkeypatch.undo()
    assert np.array_equal(loader.batch(1).inputs, one_epoch(shards).batch(1).inputs)


def test_shares_are_of_tokens_whatever_the_padding(tmp_path: Path) -> None:
    lengths = np.random.default_rng(4).choice([60, 70, 100], 700).tolist()  # badly packed in rows of 128
    sources = {
        "web": ("text", {"train": [([1] * 500, None)] * 90}),
        "sft": ("sft", {"train": counted(lengths, 1)}),
    }
    write_shards(tmp_path, 60_000, sources, shard_tokens=20_000)
    rows = 1_000_000 // 128
    loader = Loader(open_shards(tmp_path), [(rows, {"web": 0.4, "sft": 0.6})], 128, 4, seed=1)
    [stage] = loader.report()["stages"]
    assert stage["sources"]["sft"]["padding_share"] > 0.05
    realised = {"web": 0, "sft": 0}
    batch = loader.rows(0, rows)
    for row, name in zip(batch.inputs, batch.sources, strict=True):
        realised[name] += int((row > 0).sum())
    assert realised == loader.realised(0)
    for name, asked in (("web", 0.4), ("sft", 0.6)):
        assert abs(realised[name] / sum(realised.values()) - asked) < 0.001
        assert stage["sources"][name]["share_realised"] == pytest.approx(realised[name] / sum(realised.values()))


def test_packing_is_by_kind_unless_asked(shards: ShardSet) -> None:
    def padded(packing: str) -> bool:
        loader = one_epoch(shards, packing=packing)
        return bool((loader.rows(0, loader.total_rows).inputs == 0).any())

    assert [padded(packing) for packing in ("auto", "best_fit", "concatenate")] == [True, True, False]
