"""Recipe files: inheritance, overrides, round trip, and errors that name file, key and the nearest valid name."""

from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.recipe import PRESETS, Recipe, load_recipe, recipe_from_dict, recipe_to_toml

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    (tmp_path / "base.toml").write_text('name = "base"\n[model]\npreset = "nano"\n[stages.stable.mixture]\na = 1.0\n')
    path = tmp_path / "mine.toml"
    path.write_text('base = "base.toml"\n[train]\nlearning_rate = 0.02\n[stages.stable.mixture]\nb = 0.25\nc = 0.75\n')
    return path


def test_base_is_inherited_and_a_mixture_is_replaced_whole(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    assert (recipe.name, recipe.model.hidden_size, recipe.train.learning_rate) == ("base", 256, 0.02)
    assert recipe.stages.stable.mixture == {"b": 0.25, "c": 0.75}


def test_set_overrides_any_key(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["train.learning_rate=0.03", "data.loss_on=all", "model.num_hidden_layers=2"])
    assert (recipe.train.learning_rate, recipe.data.loss_on, recipe.model.num_hidden_layers) == (0.03, "all", 2)


def test_round_trip_through_toml(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file)
    copy = tmp_path / "copy.toml"
    copy.write_text(recipe_to_toml(recipe))
    assert load_recipe(copy) == recipe


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.hiden_size=3", ["--set", "model.hiden_size", "Did you mean 'hidden_size'?"]),
        ("train.precision=fp8", ["train.precision", "'fp32' or 'bf16'"]),
        ("train.learning_rate=fast", ["train.learning_rate", "number"]),
        ("train.learning_rate=-1", ["train.learning_rate", "greater than 0"]),
        ("model.preset=nanoo", ["model.preset", "Did you mean 'nano'?", "pico"]),
        ("model.num_attention_heads=5", ["hidden_size 256", "num_attention_heads 5"]),
        ("stages.stable.mixture={a=0.5,b=0.4}", ["stages.stable.mixture sums to 0.9"]),
        ("train.micro_batch_size=7", ["micro_batch_size 7", "960 rows"]),
        ("stages.stable.tokens=3_932_160", ["warmup_steps 2000", "1 steps of the stable stage"]),
        ("evaluation.tasks=[]", ["evaluation.tasks", "at least 1 item"]),
        ("evaluation.evry=5", ["unknown key evaluation.evry", "Did you mean 'every'?"]),
        ("modle.hidden_size=4", ["--set modle.hidden_size=4: unknown key modle", "Did you mean 'model'?"]),
        ("nonsense", ["--set", "key=value"]),
        ("train..x=1", ["--set", "key=value"]),
        ('base="x"', ["`base` stands in a recipe file"]),
        ("train.adam_beta2=1.0", ["train.adam_beta2", "less than 1"]),
        ("train.weight_decay=inf", ["train.weight_decay", "finite"]),
        ("seed=18446744073709551616", ["seed", "less than or equal to"]),
    ],
)
def test_errors_name_key_and_cure(recipe_file: Path, override: str, words: list[str]) -> None:
    with pytest.raises(XmodelError) as error:
        load_recipe(recipe_file, [override])
    for word in words:
        assert word in str(error.value)


def test_a_preset_replaces_the_sizes_of_a_resolved_recipe(recipe_file: Path, tmp_path: Path) -> None:
    resolved = tmp_path / "best.toml"
    resolved.write_text(recipe_to_toml(load_recipe(recipe_file, ["model.scale_emb=7"])))
    (tmp_path / "large.toml").write_text('base = "best.toml"\n[model]\npreset = "tiny"\nnum_hidden_layers = 20\n')
    model = load_recipe(tmp_path / "large.toml").model
    assert (model.hidden_size, model.num_hidden_layers, model.scale_emb) == (512, 20, 7)
    assert load_recipe(resolved, ["model.preset=xl"]).model.hidden_size == 1536
    both = load_recipe(resolved, ["model.num_hidden_layers=2", "model.preset=tiny"]).model
    assert (both.hidden_size, both.num_hidden_layers) == (512, 2)
    assert load_recipe(resolved, ["model.preset=nano"]).model.hidden_size == 256


def test_unknown_key_in_a_base_names_the_base(recipe_file: Path) -> None:
    (recipe_file.parent / "base.toml").write_text("[trian]\nx = 1\n")
    with pytest.raises(XmodelError, match=r"base\.toml: unknown key trian\. Did you mean 'train'\?"):
        load_recipe(recipe_file)


def test_missing_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="no such recipe file"):
        load_recipe(tmp_path / "absent.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("a = = 1\n")
    with pytest.raises(XmodelError, match=r"bad\.toml: not valid TOML.*line 1"):
        load_recipe(bad)
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(XmodelError, match="UTF-8"):
        load_recipe(bad)
    with pytest.raises(XmodelError, match=r"is a folder, and a recipe file is wanted$"):
        load_recipe(tmp_path)
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(XmodelError, match=r"is wanted; give .*recipe\.toml"):
        load_recipe(tmp_path)
    bad.write_text('base = "bad.toml"\n')
    with pytest.raises(XmodelError, match="circle"):
        load_recipe(bad)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.name)
def test_every_recipe_of_the_repository_loads(path: Path) -> None:
    assert load_recipe(path).total_steps > 0


def test_the_published_run() -> None:
    recipe = load_recipe(RECIPES / "xmodel2-1.2b.toml")
    assert recipe.batch_rows == 960
    assert recipe.stages.decay.sft_share == 0.64
    assert abs(sum(recipe.decay_mixture.values()) - 1) < 1e-9
    assert recipe.decay_mixture["sft_mixed"] == pytest.approx(0.64)
    assert set(recipe.decay_mixture) <= set(recipe.data.sources)
    assert recipe.decay_steps == 5087


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset: str) -> None:
    recipe = recipe_from_dict({"model": {"preset": preset}})
    assert isinstance(recipe, Recipe)
    assert recipe.model.head_dim == 64
