"""What differs in the arms of an ablation, and which are refused."""

import pytest

from xmodel2.errors import XmodelError
from xmodel2.model.count import block_parameter_count
from xmodel2.recipe import PRESETS, Recipe, recipe_from_dict, replace
from xmodel2.search.ablation import OWN, AblationSettings, Arm, arms_of, parse_arms, parse_data


def arms(recipe: Recipe, name: str) -> dict[str, Recipe]:
    """Return the recipes of a comparison of the architecture by arm."""
    found = arms_of(recipe, AblationSettings((name,)).checked())[name]
    assert found[0] == Arm(OWN, OWN)
    return {arm.name: arm.recipe(recipe) for arm in found}


def by_hand(recipe: Recipe, text: str) -> Arm:
    [_, arm] = arms_of(recipe, AblationSettings((), arms={"other": text}).checked())["keys"]
    return arm


def test_the_embedding_is_shared_or_not(small_recipe: Recipe) -> None:
    assert not arms(small_recipe, "embedding")["untied"].model.tie_word_embeddings
    untied = replace(small_recipe, {"model.tie_word_embeddings": False})
    assert arms(untied, "embedding")["tied"].model.tie_word_embeddings


@pytest.mark.parametrize("preset", PRESETS)
def test_other_depths_have_equal_blocks(preset: str) -> None:
    recipe = recipe_from_dict({"model": {"preset": preset}})
    found = arms(recipe, "depth")
    own = recipe.model
    assert {r.model.num_hidden_layers / own.num_hidden_layers for r in found.values()} >= {0.5, 1, 2}
    for other in found.values():
        model = other.model
        assert block_parameter_count(model) == pytest.approx(block_parameter_count(own), rel=0.01)
        assert model.head_dim == own.head_dim
        assert 0.5 < model.intermediate_size / model.hidden_size / 2.5 < 2
        assert (model.hidden_size > own.hidden_size) == (model.num_hidden_layers < own.num_hidden_layers)


def test_a_depth_that_no_width_fits_is_refused(small_recipe: Recipe) -> None:
    recipe = replace(small_recipe, {"model.num_attention_heads": 1, "model.intermediate_size": 8})
    with pytest.raises(
        XmodelError, match=r"--compare depth: 2 layers of heads 32 wide can't have .* give the recipe more"
    ):
        arms(recipe, "depth")


def test_heads_that_share_keys_and_values(small_recipe: Recipe) -> None:
    four = replace(small_recipe, {"model.num_attention_heads": 4, "model.num_key_value_heads": 2})
    found = arms(four, "attention")
    assert {name: r.model.num_key_value_heads for name, r in found.items()} == {
        OWN: 2,
        "multi-head": 4,
        "multi-head-equal": 4,
        "multi-query": 1,
    }
    own, equal = (block_parameter_count(found[name].model) for name in (OWN, "multi-head-equal"))
    assert equal == pytest.approx(own, rel=0.01)
    assert block_parameter_count(found["multi-head"].model) > own * 1.05
    assert found["multi-head-equal"].model.intermediate_size < four.model.intermediate_size
    assert set(arms(small_recipe, "attention")) == {OWN, "multi-head", "multi-head-equal"}
    assert set(arms(replace(four, {"model.num_key_value_heads": 4}), "attention")) == {OWN, "multi-query"}
    with pytest.raises(XmodelError, match="has one attention head"):
        arms(replace(small_recipe, {"model.num_attention_heads": 1}), "attention")


def test_an_arm_by_hand(small_recipe: Recipe) -> None:
    arm = by_hand(
        small_recipe, 'train.weight_decay=0.2, model.rules_off=["embedding", "head"],train.decay_shape=linear'
    )
    assert arm.changes == {
        "train.weight_decay": 0.2,
        "model.rules_off": ["embedding", "head"],
        "train.decay_shape": "linear",
    }
    recipe = arm.recipe(small_recipe, rate=2.0, seed=7)
    assert (recipe.name, recipe.seed, recipe.train.weight_decay) == ("other_rate2_seed7", 7, 0.2)
    assert recipe.train.learning_rate == pytest.approx(2 * small_recipe.train.learning_rate)
    assert recipe.train.muon_learning_rate == pytest.approx(2 * small_recipe.train.muon_learning_rate)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.weight_deacy=0.2", r"--arm other:train.weight_deacy=0.2: unknown key train.weight_deacy.*weight_decay"),
        ("train.weight_decay", "write it as NAME:key=value"),
        ("train.weight_decay=0.1", "changes nothing"),
        ("model.preset=nano", "changes nothing"),
        ("seed=4", "seed must be the same in all arms"),
        ("data.dir=elsewhere", "give other data with --data"),
        ("model.num_attention_heads=5", "must be a multiple of num_attention_heads 5"),
    ],
)
def test_an_arm_by_hand_that_is_refused(small_recipe: Recipe, text: str, message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        by_hand(small_recipe, text)


@pytest.mark.parametrize("name", ["own", "../up", "untied", ".", ""])
def test_a_name_must_be_an_arms_own(small_recipe: Recipe, name: str) -> None:
    settings = AblationSettings(("embedding",), arms={name: "train.weight_decay=0.2"}).checked()
    with pytest.raises(XmodelError, match="an arm needs a name of its own"):
        arms_of(small_recipe, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (AblationSettings(("embeddings",)), "--compare 'embeddings': allowed are all, embedding"),
        (AblationSettings(("tokenizer",)), "--compare tokenizer: give at least one --data"),
        (AblationSettings(("keys",)), "--compare keys: give at least one --arm"),
        (AblationSettings(()), "--compare: give at least one"),
        (AblationSettings(rates=()), "--rates: give numbers above 0"),
        (AblationSettings(rates=(0.0, 1.0)), "--rates: give numbers above 0"),
        (AblationSettings(seeds=0), "--seeds 0: give at least 1"),
        (AblationSettings(at_once=0), "--trials-at-once 0: give at least 1"),
    ],
)
def test_settings_that_are_refused(settings: AblationSettings, message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        settings.checked()


def test_what_is_given_is_compared() -> None:
    settings = AblationSettings(("all",), (2, 1, 2), data={"bpe": "x"}, arms={"a": "b"}).checked()
    assert settings.compare == ("embedding", "depth", "attention", "tokenizer", "keys")
    assert settings.rates == (1, 2)


def test_names_before_what_they_name() -> None:
    assert parse_arms(["a:model.scale_emb=1,seed=2"]) == {"a": "model.scale_emb=1,seed=2"}
    assert parse_data(["bpe=runs/a=b"]) == {"bpe": "runs/a=b"}
    for parse, given in ((parse_arms, ["a"]), (parse_arms, [":b=1"]), (parse_data, ["bpe="])):
        with pytest.raises(XmodelError, match="write it as NAME"):
            parse(given)
    with pytest.raises(XmodelError, match="--data a: is given twice"):
        parse_data(["a=b", "a=c"])
