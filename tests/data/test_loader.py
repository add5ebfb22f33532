"""The loader: exact proportions, purity, ranks, stages, and where no loss is taken."""

from pathlib import Path

import numpy as np
import pytest

from xmodel2.data.loader import IGNORED, Loader, heldout_rows, prefetch
from xmodel2.data.mixture import Mixture, counts
from xmodel2.data.shards import ShardSet, open_shards
from xmodel2.data.synthetic import write_random_shards
from xmodel2.errors import XmodelError

MIXTURE = {"text": 0.3612, "sft": 0.6388}


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    write_random_shards(tmp_path, vocab_size=50, seed=3)
    return open_shards(tmp_path, verify=True)


def loader(shards: ShardSet, **changes: object) -> Loader:
    settings: dict = {"sequence_length": 16, "batch_rows": 4, "seed": 7} | changes
    return Loader(shards, [(40, {"text": 1.0}), (40, MIXTURE)], **settings)


@pytest.mark.parametrize(
    "weights", [{"a": 0.6388, "b": 0.2, "c": 0.1, "d": 0.0612}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, {"a": 1.0}]
)
def test_proportions_are_exact_after_a_million_tokens(weights: dict[str, float]) -> None:
    rows = 1_000_000 // 256
    realised = counts(weights, rows)
    assert sum(realised.values()) == rows
    for name, weight in weights.items():
        assert abs(100 * realised[name] / rows - 100 * weight) < 0.1


def test_assignment_agrees_with_counts_and_numbers_rows_without_gaps() -> None:
    mixture = Mixture({"a": 0.5, "b": 0.3, "c": 0.2})
    source, number = mixture.assign(0, 1000)
    for index, name in enumerate(mixture.names):
        assert sorted(number[source == index]) == list(range(mixture.counts(1000)[name]))
    late_source, late_number = mixture.assign(900, 1000)
    assert np.array_equal(late_source, source[900:])
    assert np.array_equal(late_number, number[900:])


def test_the_order_of_the_shares_does_not_matter() -> None:
    first, other = Mixture({"a": 0.5, "b": 0.3, "c": 0.2}), Mixture({"c": 0.2, "a": 0.5, "b": 0.3})
    assert first.names == other.names
    assert all(np.array_equal(x, y) for x, y in zip(first.assign(0, 500), other.assign(0, 500), strict=True))


@pytest.mark.parametrize(
    ("weights", "words"), [({"a": 0.5}, "sum to 0.5"), ({"a": 1.5, "b": -0.5}, "share of b is -0.5")]
)
def test_bad_weights(weights: dict[str, float], words: str) -> None:
    with pytest.raises(XmodelError, match=words):
        Mixture(weights)


def test_a_batch_depends_on_seed_and_step_alone(shards: ShardSet) -> None:
    forward = [loader(shards).batch(step) for step in range(20)]
    one = loader(shards)
    for step in reversed(range(20)):
        again = one.batch(step)
        assert np.array_equal(again.inputs, forward[step].inputs)
        assert np.array_equal(again.targets, forward[step].targets)
    assert not np.array_equal(loader(shards, seed=8).batch(0).inputs, forward[0].inputs)


def test_ranks_together_make_the_same_batch(shards: ShardSet) -> None:
    whole = loader(shards).batch(12)
    parts = [loader(shards).rows(48 + 2 * rank, 50 + 2 * rank) for rank in range(2)]
    assert np.array_equal(np.concatenate([part.inputs for part in parts]), whole.inputs)


def test_a_source_goes_on_in_the_next_stage_without_repeating(shards: ShardSet) -> None:
    split = shards.source("text").train
    assert split is not None
    run = Loader(shards, [(20, {"text": 1.0}), (20, {"text": 0.5, "sft": 0.5})], 16, 4, seed=1)
    batch = run.rows(0, 40)
    rows = [row for row, name in zip(batch.inputs, batch.sources, strict=True) if name == "text"]
    stream = np.concatenate(rows)
    assert len(stream) == 30 * 16 <= split.tokens
    documents = [document for row in range(40) for name, _, document in run.describe_row(row) if name == "text"]
    distinct = [a for a, b in zip(documents, [-1, *documents[:-1]], strict=True) if a != b]
    assert len(set(distinct)) == len(distinct)


def test_no_loss_across_documents_or_on_the_user(shards: ShardSet) -> None:
    batch = loader(shards).rows(40, 80)
    assert (batch.targets[:, :-1][np.diff(batch.document_ids) != 0] == IGNORED).all()
    assert (batch.targets != 1).all()
    asked = [r for r, name in enumerate(batch.sources) if name == "sft"]
    assert 0.2 < (batch.targets[asked] == IGNORED).mean() < 0.8
    everything = loader(shards, loss_on="all").rows(40, 80)
    assert (everything.targets[asked] == IGNORED).mean() < 0.1


def test_realised_tokens(shards: ShardSet) -> None:
    assert loader(shards).realised(1) == {"text": 14 * 16, "sft": 26 * 16}


def test_heldout_rows_cover_every_token_once(shards: ShardSet) -> None:
    split = shards.source("text").heldout
    assert split is not None
    rows = heldout_rows(split, 16)
    assert (rows.targets != IGNORED).sum() == split.tokens - split.documents


def test_prefetch_gives_the_same_batches(shards: ShardSet) -> None:
    one = loader(shards)
    for step, batch in enumerate(prefetch(one, 3, 8), 3):
        assert np.array_equal(batch.inputs, one.batch(step).inputs)


def test_unknown_source_and_rows_beyond_the_end(shards: ShardSet) -> None:
    with pytest.raises(XmodelError, match="Did you mean 'text'"):
        Loader(shards, [(4, {"txt": 1.0})], 16, 4, 0)
    with pytest.raises(XmodelError, match="outside the run's 80"):
        loader(shards).rows(79, 81)
