"""One step: the same whatever the micro-batch, the packing of memory, or compilation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from xmodel2.data.loader import Batch, Loader
from xmodel2.data.shards import open_shards
from xmodel2.data.synthetic import write_random_shards
from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.recipe import Recipe, recipe_from_dict, replace
from xmodel2.train.build import build_step
from xmodel2.train.device import can_compile
from xmodel2.train.step import TrainStep


def recipe_of(**train: object) -> Recipe:
    size = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2}
    return recipe_from_dict(
        {
            "model": {**size, "num_key_value_heads": 1, "vocab_size": 60, "dim_model_base": 32},
            "data": {"sequence_length": 32},
            "train": {"batch_tokens": 8 * 32, "micro_batch_size": 8, "compile": False, **train},
        }
    )


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """Packed documents and chats, so that rows have unequal numbers of loss tokens."""
    write_random_shards(tmp_path, vocab_size=60, seed=0)
    loader = Loader(open_shards(tmp_path), [(80, {"text": 0.4, "sft": 0.6})], 32, 8, seed=1)
    return loader.batch(3)


def two_steps(batch: Batch, **train: object) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return the losses and the weights after two steps."""
    recipe = recipe_of(**train)
    step, optimizer = build_step(recipe, "fp32", torch.device("cpu"))
    losses = []
    for _ in range(2):
        loss, norm = step.gradients(batch, float((batch.targets != -100).sum()))
        step.apply(optimizer, norm)
        losses.append(loss)
    return losses, dict(step.model.named_parameters())


def test_micro_batches_do_not_change_the_step(batch: Batch) -> None:
    assert len({int((row != -100).sum()) for row in batch.targets}) > 1
    whole, parts = two_steps(batch), two_steps(batch, micro_batch_size=2)
    assert whole[0] == pytest.approx(parts[0], abs=1e-5)
    assert all(torch.allclose(whole[1][name], parts[1][name], atol=1e-4) for name in whole[1])
    assert whole[0][1] < whole[0][0]


def test_gradients_go_over_the_ranks_after_the_last_micro_batch_alone(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("xmodel2.train.step.sync_gradients", lambda root, on: asked.append(on))
    two_steps(batch, micro_batch_size=2)
    assert asked == [False, False, False, True] * 2


@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="torch.compile needs a C++ compiler here")
def test_compilation_does_not_change_the_step(batch: Batch) -> None:
    eager, compiled = two_steps(batch), two_steps(batch, compile=True)
    assert eager[0] == pytest.approx(compiled[0], abs=1e-4)
    assert all(torch.allclose(eager[1][name], compiled[1][name], atol=2e-3) for name in eager[1])


def test_a_batch_without_loss_tokens_changes_nothing_by_gradient(batch: Batch) -> None:
    empty = Batch(batch.inputs, np.full_like(batch.targets, -100), batch.document_ids, batch.sources)
    losses, weights = two_steps(empty, weight_decay=0.0)
    assert losses == [0.0, 0.0]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


@pytest.mark.parametrize("size", [7, 64, 10_000])
def test_chunks_of_the_loss_do_not_change_the_step(batch: Batch, size: int) -> None:
    whole, parts = two_steps(batch), two_steps(batch, loss_chunk_tokens=size)
    assert whole[0] == pytest.approx(parts[0], abs=1e-5)
    assert all(torch.allclose(whole[1][name], parts[1][name], atol=1e-4) for name in whole[1])


def test_chunks_look_alike_to_the_compiler_whether_or_not_all_positions_have_a_target(batch: Batch) -> None:
    recipe = recipe_of(micro_batch_size=1)
    step = TrainStep(Xmodel2(recipe.model), recipe, "fp32", torch.device("cpu"))
    targets = batch.targets.copy()
    targets[0] = 1
    assert (targets == -100).any(1).tolist()[:1] == [False]
    assert (targets == -100).any()
    seen, loss = set(), step.module.cross_entropy

    def looked_at(*inputs: torch.Tensor) -> object:
        seen.add(tuple((x.requires_grad, x.shape, x.stride()) for x in inputs if isinstance(x, torch.Tensor)))
        return loss(*inputs)

    step.module.cross_entropy = looked_at  # type: ignore[assignment]
    step.gradients(Batch(batch.inputs, targets, batch.document_ids, batch.sources), float((targets != -100).sum()))
    assert len(seen) == 1


@pytest.mark.parametrize("changed", [{"attention": "plain"}, {"activation_memory_budget": 0.3}])
def test_how_attention_is_computed_and_what_is_kept_do_not_change_the_step(
    batch: Batch, changed: dict[str, object]
) -> None:
    usual, other = two_steps(batch), two_steps(batch, **changed)
    assert usual[0] == pytest.approx(other[0], abs=1e-5)
    assert all(torch.allclose(usual[1][name], other[1][name], atol=1e-4) for name in usual[1])


@pytest.mark.parametrize(
    ("kernel", "message"), [("flex", "has no backward pass on a CPU"), ("sdpa", "can't keep packed documents apart")]
)
def test_a_kernel_that_cannot_be_used_is_named(batch: Batch, kernel: str, message: str) -> None:
    with pytest.raises(XmodelError, match=f"train.attention = '{kernel}' {message}"):
        two_steps(batch, attention=kernel)


@pytest.mark.parametrize("kernel", ["documents", "sdpa"])
def test_a_kernel_that_needs_whole_rows_is_refused_where_ranks_share_them(kernel: str) -> None:
    keys = {"parallel.context_parallel": 2, "data.mask_documents": False}
    recipe = replace(recipe_of(attention=kernel), keys)
    with pytest.raises(XmodelError, match=f"train.attention = '{kernel}' needs all positions of a row on one rank"):
        build_step(recipe, "fp32", torch.device("cpu"))


def test_without_a_compiler_a_cpu_runs_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert not can_compile(torch.device("cpu"))
