"""The gradient of a tied embedding, added in place, is autograd's."""

from dataclasses import replace as copy_of

import pytest
import torch

from xmodel2.data.shards import open_shards
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import Recipe, replace
from xmodel2.train.run import make_loader
from xmodel2.train.step import TrainStep
from xmodel2.train.tied_embedding import TiedEmbedding, add_rows_in_place

CPU = torch.device("cpu")


@pytest.mark.parametrize("micro_batch_size", [2, 4], ids=["accumulated", "at once"])
def test_the_gradient_is_that_of_two_uses_of_one_weight(small_recipe: Recipe, micro_batch_size: int) -> None:
    recipe = replace(small_recipe, {"train.micro_batch_size": micro_batch_size})
    batch = make_loader(recipe, open_shards(recipe.data.dir)).batch(0)
    batch = copy_of(batch, inputs=batch.inputs % 50)  # pieces that come up often, and some that never do
    model, plain = Xmodel2(recipe.model), Xmodel2(recipe.model)
    for each in (model, plain):
        tensor_program.initialise(each, 1)
    step = TrainStep(model, recipe, "fp32", CPU)
    assert isinstance(model.embed_tokens, TiedEmbedding)
    assert list(model.state_dict()) == list(plain.state_dict())
    for _ in range(2):  # a second backward pass adds to the first one's
        _, norm = step.gradients(batch, float((batch.targets >= 0).sum()))
        inputs, targets, documents = map(torch.from_numpy, (batch.inputs, batch.targets, batch.document_ids))
        logits = plain(inputs, documents).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, targets.flatten().long(), reduction="sum").backward()
        wanted, found = plain.embed_tokens.weight.grad, model.embed_tokens.weight.grad
        assert wanted is not None
        assert found is not None
        assert float((found - wanted).norm() / wanted.norm()) < 1e-6
    assert float(norm) > 0


def test_an_embedding_that_nothing_else_uses_gets_its_gradient(small_recipe: Recipe) -> None:
    model = Xmodel2(small_recipe.model)
    add_rows_in_place(model)
    add_rows_in_place(model)
    rows = model.embed_tokens(torch.tensor([[3, 3, 5]]))
    rows.sum().backward()
    assert model.embed_tokens.weight.grad is not None
    assert model.embed_tokens.weight.grad.sum(1).nonzero().flatten().tolist() == [3, 5]
    assert rows.grad is None
    with torch.no_grad():
        assert not model.embed_tokens(torch.tensor([[3]])).requires_grad


def test_a_head_of_its_own_leaves_the_embedding_as_it_is(small_recipe: Recipe) -> None:
    model = Xmodel2(replace(small_recipe, {"model.tie_word_embeddings": False}).model)
    add_rows_in_place(model)
    assert not isinstance(model.embed_tokens, TiedEmbedding)
