"""The loader: purity, ranks, epochs, stages, where no loss is taken, and memory that does not grow with the data."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from xmodel2.data import maps
from xmodel2.data.loader import IGNORED, Batch, Loader, heldout_rows, prefetch
from xmodel2.data.shards import ShardSet, SourceSplit, open_shards
from xmodel2.data.synthetic import repeat_shards, write_random_shards, write_shards
from xmodel2.errors import XmodelError

MIXTURE = {"text": 0.3612, "sft": 0.6388}


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    write_random_shards(tmp_path, vocab_size=50, seed=3)
    return open_shards(tmp_path, verify=True)


def loader(shards: ShardSet, **changes: object) -> Loader:
    settings: dict = {"sequence_length": 16, "batch_rows": 4, "seed": 7} | changes
    return Loader(shards, [(40, {"text": 1.0}), (40, MIXTURE)], **settings)


@pytest.fixture
def counted(tmp_path: Path) -> ShardSet:
    """A source of three shards and 1,000 tokens, all different: each tells its place in the stream."""
    lengths = np.random.default_rng(0).integers(2, 40, 1000)
    ends = np.minimum(np.cumsum(lengths), 1000)
    bounds = [0, *ends[: int((ends < 1000).sum()) + 1].tolist()]
    documents = [(list(range(a, b)), None) for a, b in pairwise(bounds)]
    write_shards(tmp_path / "counted", 1000, {"web": ("text", {"train": documents})}, shard_tokens=400)
    return open_shards(tmp_path / "counted")


def train_split(shards: ShardSet, name: str) -> SourceSplit:
    split = shards.source(name).train
    assert split is not None
    return split


def equal(a: Batch, b: Batch) -> bool:
    arrays = ("inputs", "targets", "document_ids", "positions")
    return a.sources == b.sources and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)


def joined(parts: list[Batch]) -> Batch:
    arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in ("inputs", "targets", "document_ids"))
    return Batch(*arrays, [name for part in parts for name in part.sources])


def test_a_batch_depends_on_seed_and_step_alone(shards: ShardSet) -> None:
    forward = [loader(shards).batch(step) for step in range(20)]
    one = loader(shards)
    assert all(equal(one.batch(step), forward[step]) for step in reversed(range(20)))
    assert not np.array_equal(loader(shards, seed=8).batch(0).inputs, forward[0].inputs)


def test_types_and_shapes(shards: ShardSet) -> None:
    batch = loader(shards).batch(0)
    dtypes = {"inputs": np.int64, "targets": np.int64, "document_ids": np.int32, "positions": np.int32}
    for name, dtype in dtypes.items():
        array = getattr(batch, name)
        assert (array.shape, array.dtype, array.flags.c_contiguous) == ((4, 16), dtype, True)


def test_any_number_of_ranks_sees_the_same_global_order_even_changed_on_the_way(shards: ShardSet) -> None:
    whole = [loader(shards, batch_rows=8).batch(step) for step in range(10)]

    def by_ranks(ranks: int, steps: range) -> list[Batch]:
        own = [loader(shards, batch_rows=8) for _ in range(ranks)]
        share = 8 // ranks
        return [
            joined([one.rows(8 * step + share * rank, 8 * step + share * (rank + 1)) for rank, one in enumerate(own)])
            for step in steps
        ]

    elastic = by_ranks(4, range(3)) + by_ranks(1, range(3, 5)) + by_ranks(2, range(5, 10))
    for made in (by_ranks(1, range(10)), by_ranks(2, range(10)), by_ranks(4, range(10)), elastic):
        assert all(equal(a, b) for a, b in zip(made, whole, strict=True))


@pytest.mark.parametrize("length", [7, 16, 100])
def test_an_epoch_takes_each_token_at_most_once_and_leaves_less_than_a_row(counted: ShardSet, length: int) -> None:
    rows = 1000 // length
    run = Loader(counted, [(3 * rows, {"web": 1.0})], length, 1, seed=5)
    epochs = [run.rows(epoch * rows, (epoch + 1) * rows) for epoch in range(3)]
    for batch in epochs:
        tokens = batch.inputs.ravel()
        assert len(set(tokens.tolist())) == len(tokens) == rows * length
        kept = batch.targets != IGNORED
        assert (batch.targets[kept] == batch.inputs[kept] + 1).all()
        assert len(set(batch.targets[kept].tolist())) == kept.sum()
    firsts = [sorted(batch.inputs[:, 0].tolist()) for batch in epochs]
    assert firsts[0] != firsts[1] != firsts[2]  # cut at other places


def test_rows_longer_than_the_source_go_round(counted: ShardSet) -> None:
    batch = Loader(counted, [(2, {"web": 1.0})], 2500, 1, seed=5).batch(1)
    assert np.array_equal(batch.inputs[0] % 1000, (batch.inputs[0, 0] + np.arange(2500)) % 1000)
    at = np.flatnonzero(batch.inputs[0] == 0)
    assert (batch.targets[0, at - 1] == IGNORED).all()


def test_document_ids_positions_and_targets_follow_the_documents(counted: ShardSet) -> None:
    split = train_split(counted, "web")
    firsts = {int(split.document(d)[0]) for d in range(split.documents)}
    batch = Loader(counted, [(60, {"web": 1.0})], 64, 60, seed=5).batch(0)
    for inputs, targets, ids, positions in zip(
        batch.inputs, batch.targets, batch.document_ids, batch.positions, strict=True
    ):
        document, position = 0, -1
        for i, token in enumerate(inputs.tolist()):
            begins = i > 0 and token in firsts
            document, position = document + begins, 0 if begins else position + 1
            assert (ids[i], positions[i]) == (document, position)
            follows = (token + 1) % 1000
            assert targets[i] == (IGNORED if follows in firsts else follows)


def test_describe_row_names_the_documents(counted: ShardSet) -> None:
    split = train_split(counted, "web")
    run = Loader(counted, [(40, {"web": 1.0})], 64, 4, seed=5)
    for row in range(40):
        described = run.describe_row(row)
        assert {epoch for _, epoch, _ in described} == {row // 15}
        pieces = np.concatenate([split.document(document) for _, _, document in described])
        assert set(run.rows(row, row + 1).inputs.ravel().tolist()) <= set(pieces.tolist())


def test_a_source_goes_on_in_the_next_stage_without_repeating(counted: ShardSet, tmp_path: Path) -> None:
    other = [([1, 2, 3, 4], None)] * 50
    tokens = [([*range(a, a + 50)], None) for a in range(0, 1000, 50)]
    sources = {"other": ("text", {"train": other}), "web": ("text", {"train": tokens})}
    write_shards(tmp_path / "two", 1000, sources)
    run = Loader(open_shards(tmp_path / "two"), [(20, {"web": 1.0}), (60, {"web": 0.5, "other": 0.5})], 20, 4, seed=1)
    batch = run.rows(0, 80)
    web = np.array([name == "web" for name in batch.sources])
    assert sorted(batch.inputs[web].ravel().tolist()) == list(range(1000))


def test_no_loss_across_documents_or_on_the_user(shards: ShardSet) -> None:
    batch = loader(shards).rows(40, 80)
    assert (batch.targets[:, :-1][np.diff(batch.document_ids) != 0] == IGNORED).all()
    assert (batch.targets != 1).all()
    asked = [r for r, name in enumerate(batch.sources) if name == "sft"]
    assert 0.2 < (batch.targets[asked] == IGNORED).mean() < 0.8
    everything = loader(shards, loss_on="all").rows(40, 80)
    padding = everything.inputs[asked] == 0
    assert (everything.targets[asked][~padding] == IGNORED).mean() < 0.1


def test_realised_tokens_are_those_of_the_rows(shards: ShardSet) -> None:
    run = loader(shards)
    for rows in (1, 17, 40):
        batch = run.rows(40, 40 + rows)
        found = dict.fromkeys(MIXTURE, 0)
        for row, name in zip(batch.inputs, batch.sources, strict=True):
            found[name] += int((row != 0).sum())
        assert run.realised(1, rows) == found
    assert run.realised(0) == {"text": 40 * 16}


@pytest.mark.parametrize("length", [5, 31])  # less than a row of 16, and nearly two
def test_epochs_of_a_source_near_a_row(tmp_path: Path, length: int) -> None:
    write_shards(tmp_path, 100, {"text": ("text", {"train": [(list(range(1, length + 1)), None)]})})
    run = Loader(open_shards(tmp_path), [(10, {"text": 1.0})], 16, 1, seed=0)
    seen = np.bincount(run.rows(0, 10).inputs.ravel(), minlength=length + 1)[1:]
    assert run.report()["stages"][0]["sources"]["text"]["epochs"] == pytest.approx(seen.mean())


def test_pieces_that_the_tokenizer_lacks_are_told_where_checksums_were_not_verified(shards: ShardSet) -> None:
    path = shards.directory / "text" / "train-000.tokens"
    tokens = np.fromfile(path, shards.dtype)
    tokens[:] = 60
    tokens.tofile(path)
    damaged = open_shards(shards.directory)
    loader(damaged).rows(0, 4)  # verified, this would not have been opened
    with pytest.raises(XmodelError, match=r"a row of documents text \d+.* has a piece beyond the 50 of the tokenizer"):
        loader(damaged, check_pieces=True).rows(0, 4)


def test_report_of_what_was_done(shards: ShardSet) -> None:
    run = loader(shards)
    first, second = run.report(rows=50)["stages"]
    assert (first["rows"], second["rows"], second["rows_planned"]) == (40, 10, 40)
    text = first["sources"]["text"]
    assert (text["rows"], text["tokens"], text["share_asked"], text["share_realised"]) == (40, 640, 1.0, 1.0)
    assert text["epochs"] == 640 / train_split(shards, "text").tokens
    assert second["sources"]["text"]["epochs"] > text["epochs"]
    assert run.epochs() == {name: source["epochs"] for name, source in run.report()["stages"][1]["sources"].items()}
    assert 0 <= second["sources"]["sft"]["padding_share"] < 0.2
    assert second["sources"]["sft"]["share_asked"] == MIXTURE["sft"]
    assert 0 < second["sources"]["sft"]["cut_documents_share"] <= 1


def test_heldout_rows_cover_every_token_once(shards: ShardSet) -> None:
    for name in ("text", "sft"):
        split = shards.source(name).heldout
        assert split is not None
        rows = heldout_rows(split, 16)
        size = split.tokens - 1
        assert np.array_equal(rows.inputs.ravel()[:size], np.concatenate(_documents(split))[:size])
        if name == "text":
            assert (rows.targets != IGNORED).sum() == split.tokens - split.documents
        padding = rows.inputs == 0
        assert (rows.targets[padding] == IGNORED).all()
        assert set(rows.document_ids[padding]).isdisjoint(rows.document_ids[-1][~padding[-1]])
        assert np.array_equal(heldout_rows(split, 16, max_rows=2).targets, rows.targets[:2])


def _documents(split: SourceSplit) -> list[np.ndarray]:
    return [split.document(d) for d in range(split.documents)]


def test_prefetch_gives_the_same_batches(shards: ShardSet) -> None:
    one = loader(shards)
    for step, batch in enumerate(prefetch(one, 3, 8), 3):
        assert equal(batch, one.batch(step))


def test_what_goes_wrong_ahead_of_time_is_told(shards: ShardSet) -> None:
    next((shards.directory / "text").glob("train-*.tokens")).unlink()
    with pytest.raises(XmodelError, match=r"text/train-.*: missing"):
        list(prefetch(loader(shards), 0, 2))
    with pytest.raises(XmodelError, match="outside the run's 80"):
        list(prefetch(Loader(shards, [(80, {"sft": 1.0})], 16, 4, 0), 18, 22))


def test_unknown_source_and_rows_beyond_the_end(shards: ShardSet) -> None:
    with pytest.raises(XmodelError, match="Did you mean 'text'"):
        Loader(shards, [(4, {"txt": 1.0})], 16, 4, 0)
    with pytest.raises(XmodelError, match="outside the run's 80"):
        loader(shards).rows(79, 81)
    with pytest.raises(XmodelError, match="outside the run's 80"):
        loader(shards).describe_row(80)


def test_asking_the_disk_ahead_changes_nothing(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    before = loader(shards, batch_rows=80).batch(0)
    monkeypatch.setattr(maps, "SMALL", 0)
    assert equal(loader(open_shards(shards.directory), batch_rows=80).batch(0), before)


def resident(directory: Path) -> int:
    """Return the bytes that an open loader holds after some batches."""
    tracemalloc.start()
    run = Loader(open_shards(directory), [(10**6, {"text": 1.0})], 256, 8, seed=1)
    for step in range(0, 100_000, 1000):
        run.batch(step)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held


def test_memory_does_not_grow_with_the_number_of_documents(tmp_path: Path) -> None:
    sizes = {}
    for documents in (2_000, 200_000):
        directory = tmp_path / str(documents)
        made = [([1, 5, 2], None)] * (documents // 10)
        write_shards(directory, 60, {"text": ("text", {"train": made})})
        repeat_shards(directory, 10)
        sizes[documents] = resident(directory)
    assert sizes[200_000] < sizes[2_000] + 50_000


def test_memory_of_ten_thousand_shards_is_a_few_numbers_each(tmp_path: Path) -> None:
    write_shards(tmp_path, 60, {"text": ("text", {"train": [([1, *range(3, 50), 2], None)] * 100})})
    few = resident(tmp_path)
    repeat_shards(tmp_path, 10_000)
    assert resident(tmp_path) < few + 10_000 * 400
