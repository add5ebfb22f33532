"""The space: keys of the recipe by their own types; what can't be searched is refused before the first trial."""

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, replace
from xmodel2.search.space import check_space, comparable_tokens, distributions, drawn


def with_space(recipe: Recipe, key: str, **range_: Any) -> Recipe:
    return replace(recipe, {"search.space": {key: range_}})


def test_table_5_is_the_default_and_users_add_to_it(small_recipe: Recipe) -> None:
    space = distributions(with_space(small_recipe, "train.weight_decay", low=0.01, high=1, log=True))
    assert space == {
        "model.dim_model_base": CategoricalDistribution([32, 64, 128, 256, 512, 1024]),
        "model.scale_depth": FloatDistribution(1.0, 5.0, step=0.1),
        "model.scale_emb": FloatDistribution(2, 20, step=1),
        "train.learning_rate": FloatDistribution(0.001, 0.1, step=0.001),
        "train.weight_decay": FloatDistribution(0.01, 1, log=True),
    }


def test_whole_numbers_stay_whole_and_a_range_ends_on_its_grid(small_recipe: Recipe) -> None:
    recipe = with_space(small_recipe, "stages.decay.tokens", low=512, high=1200, step=256)
    assert distributions(recipe)["stages.decay.tokens"] == IntDistribution(512, 1024, step=256)
    check_space(recipe)
    with pytest.raises(XmodelError, match=r"train.warmup_steps takes whole numbers"):
        check_space(with_space(small_recipe, "train.warmup_steps", low=0.0, high=2.5))


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("model.scale_embed", "Did you mean 'model.scale_emb'"),
        ("name", "'name' is not a key"),
        ("search.pruner", "'search.pruner' is not a key"),
        ("train", "'train' is not a key"),
    ],
)
def test_a_key_that_cannot_be_searched_is_refused(small_recipe: Recipe, key: str, named: str) -> None:
    with pytest.raises(XmodelError, match=named):
        check_space(with_space(small_recipe, key, choices=[1, 2]))


def test_a_word_takes_choices(small_recipe: Recipe) -> None:
    check_space(with_space(small_recipe, "train.decay_shape", choices=["linear", "cosine"]))
    with pytest.raises(XmodelError, match="give its choices"):
        check_space(with_space(small_recipe, "train.decay_shape", low=1, high=2))
    with pytest.raises(XmodelError, match=r"train.decay_shape = 'cubic' gives no recipe"):
        check_space(with_space(small_recipe, "train.decay_shape", choices=["linear", "cubic"]))


def test_a_width_that_no_draw_can_cut_into_heads_is_refused(small_recipe: Recipe) -> None:
    with pytest.raises(XmodelError, match=r"hidden_size = 33 gives no recipe: .*multiple of num_attention_heads 2"):
        check_space(with_space(small_recipe, "model.hidden_size", choices=[32, 33]))
    # Each value is good beside some other: only the pair of 32 and 3 is not.
    heads = {"model.hidden_size": {"choices": [32, 36]}, "model.num_attention_heads": {"choices": [2, 3]}}
    recipe = replace(small_recipe, {"search.space": heads})
    check_space(recipe)
    with pytest.raises(XmodelError, match="multiple of num_attention_heads"):
        drawn(recipe, {"model.hidden_size": 32, "model.num_attention_heads": 3})


def test_a_draw_is_written_as_a_person_would(small_recipe: Recipe) -> None:
    assert drawn(small_recipe, {"model.scale_depth": 1.7000000000000002}).model.scale_depth == 1.7


def test_losses_compare_to_the_end_unless_stages_differ_in_length(small_recipe: Recipe) -> None:
    assert comparable_tokens(small_recipe) == 20 * 64
    assert comparable_tokens(with_space(small_recipe, "stages.decay.tokens", low=64, high=640)) == 12 * 64
    assert comparable_tokens(with_space(small_recipe, "stages.stable.tokens", choices=[640, 512])) == 512
