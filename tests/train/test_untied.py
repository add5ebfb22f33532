"""Training a model whose head is a tensor of its own."""

from pathlib import Path

import pytest
import torch

from tests.train.test_memory import measured_peak, recipe_with
from xmodel2.data.shards import open_shards
from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import Recipe, replace
from xmodel2.train import load_model, read_metrics, train
from xmodel2.train.checkpoint import load_weights
from xmodel2.train.memory import Layout, memory_plan
from xmodel2.train.optimizer import build_optimizer
from xmodel2.train.run import make_loader
from xmodel2.train.step import TrainStep

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def untied(small_recipe: Recipe) -> Recipe:
    return replace(small_recipe, {"model.tie_word_embeddings": False})


def test_steps_lower_the_loss_and_both_tables_learn(untied: Recipe) -> None:
    model = Xmodel2(untied.model)
    tensor_program.initialise(model, 1)
    step = TrainStep(model, untied, "fp32", CPU)
    optimizer = build_optimizer(model.named_parameters(), untied.model, untied.train)
    batch = make_loader(untied, open_shards(untied.data.dir)).batch(0)
    losses = []
    for _ in range(5):
        loss, norm = step.gradients(batch, float(batch.targets.size))
        losses.append(loss)
        for table in (model.embed_tokens.weight, model.lm_head.weight):
            assert table.grad is not None
            assert float(table.grad.abs().max()) > 0
        unseen = sorted(set(range(60)) - set(batch.inputs.ravel().tolist()))
        assert unseen
        assert not model.embed_tokens.weight.grad[unseen].any()  # the head's errors are none of the embedding's
        step.apply(optimizer, norm)
    assert losses == sorted(losses, reverse=True)


def test_the_loss_is_that_of_its_logits(untied: Recipe) -> None:
    model = Xmodel2(untied.model)
    tensor_program.initialise(model, 1)
    batch = make_loader(untied, open_shards(untied.data.dir)).batch(0)
    loss, _ = TrainStep(model, untied, "fp32", CPU).gradients(batch, float((batch.targets >= 0).sum()))
    inputs, targets, documents = (
        torch.from_numpy(array) for array in (batch.inputs, batch.targets, batch.document_ids)
    )
    want = torch.nn.functional.cross_entropy(model(inputs, documents).flatten(0, 1), targets.flatten().long())
    assert loss == pytest.approx(want.item(), rel=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one(untied: Recipe, small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(untied, {"train.norms_every": 10, "train.heldout_every": 10})
    train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "parts", stop_after=9)
    train(recipe, tmp_path / "parts", resume=True)
    whole, parts = (load_model(tmp_path / name)[0].state_dict() for name in ("whole", "parts"))
    assert "lm_head.weight" in whole
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    norms = next(line for line in read_metrics(tmp_path / "whole") if line.get("kind") == "norms")
    assert norms["update_rms"]["head"] > 0
    checkpoint = tmp_path / "whole" / "checkpoints" / f"step-{recipe.total_steps}"
    with pytest.raises(XmodelError, match=r"tensor lm_head\.weight is \(60, 32\) there and absent in this model"):
        load_weights(Xmodel2(small_recipe.model), checkpoint)
    with pytest.raises(XmodelError, match="tie_word_embeddings"):
        train(small_recipe, tmp_path / "whole", resume=True)


@pytest.mark.parametrize(("precision", "rows"), [("fp32", 1), ("bf16", 4)])
def test_its_memory_is_planned(precision: str, rows: int) -> None:
    recipe = replace(recipe_with(micro_batch_size=rows), {"model.tie_word_embeddings": False, "model.vocab_size": 2048})
    plan = memory_plan(recipe, precision, Layout(), compiled=False, device="cpu")
    assert plan.peak == pytest.approx(measured_peak(recipe, precision), rel=0.05)
    assert plan.parts["weights"] == 4 * sum(parameter.numel() for parameter in Xmodel2(recipe.model).parameters())
