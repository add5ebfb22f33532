"""A head of its own: what it counts, how it starts and learns, and the same logits in native Granite."""

import pytest
import torch

from tests.model.test_tensor_program import SIZES
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.model.convert import from_granite, granite_config, parity_difference, to_granite
from xmodel2.model.count import flops_per_token, parameter_count
from xmodel2.model.generate import generate
from xmodel2.recipe import ModelSettings, TrainSettings
from xmodel2.train.optimizer import build_optimizer

TIED = ModelSettings(**SIZES, dim_model_base=256)
UNTIED = ModelSettings(**SIZES, dim_model_base=256, tie_word_embeddings=False)
HEAD = "lm_head.weight"


def drawn(settings: ModelSettings) -> Xmodel2:
    model = Xmodel2(settings)
    tensor_program.initialise(model, 3)
    return model.eval()


def test_it_counts_as_parameters_and_costs_no_product_more() -> None:
    built = sum(parameter.numel() for parameter in Xmodel2(UNTIED).parameters())
    assert built == parameter_count(UNTIED) == parameter_count(TIED) + 300 * 512
    assert flops_per_token(UNTIED, 64) == flops_per_token(TIED, 64)


def test_all_other_tensors_start_as_in_a_tied_model() -> None:
    tied, untied = (dict(drawn(settings).named_parameters()) for settings in (TIED, UNTIED))
    assert untied.keys() - tied.keys() == {HEAD}
    assert all(torch.equal(tensor, untied[name]) for name, tensor in tied.items())
    first = 0.1 * torch.randn(300, 512, generator=torch.Generator().manual_seed(3))
    assert torch.equal(tied["embed_tokens.weight"], first)
    assert float(untied[HEAD].detach().std()) == pytest.approx(0.1, rel=0.02)
    assert not torch.equal(untied[HEAD], first)


def test_it_learns_as_the_embedding_does() -> None:
    model = drawn(UNTIED)
    optimizer = build_optimizer(model.named_parameters(), UNTIED, TrainSettings())
    groups = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert groups[id(model.head_weight)] == groups[id(model.embed_tokens.weight)] == (0.01, 0.0)


@pytest.mark.parametrize("parametrization", ["tensor_program", "standard"])
def test_native_granite_has_the_same_logits(parametrization: str) -> None:
    settings = ModelSettings(**SIZES, tie_word_embeddings=False, parametrization=parametrization)  # type: ignore[arg-type]
    model = drawn(settings)
    assert parity_difference(model, settings, seed=2) < 1e-4
    assert granite_config(settings)["tie_word_embeddings"] is False
    ours = dict(model.named_parameters())
    back = from_granite(to_granite(ours, settings), settings)
    assert back.keys() == ours.keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in ours.items())


@torch.no_grad()
def test_what_it_generates_is_what_its_own_head_finds_likeliest() -> None:
    model, ids = drawn(UNTIED), [1, 7, 30]
    for token in generate(model, [ids], 6, stop_ids=[])[0]:
        hidden = model.hidden(torch.tensor([ids]))[0, -1]
        assert token == int((model.lm_head.weight @ hidden).argmax())
        ids = [*ids, token]
