"""What the trials of a folder share: settled when it begins, and only with a recipe that can be trained."""

from pathlib import Path

import pytest

from xmodel2.data.synthetic import write_shards
from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe, replace
from xmodel2.search.setting import same_setting


def test_a_recipe_that_does_not_fit_its_data_begins_no_folder(small_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"pieces but model\.vocab_size is"):
        same_setting(replace(small_recipe, {"model.vocab_size": 8}), tmp_path / "out")
    with pytest.raises(XmodelError, match="no source 'absent'"):
        same_setting(replace(small_recipe, {"stages.stable.mixture": {"absent": 1.0}}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert same_setting(small_recipe, tmp_path / "out").train.precision != "auto"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data.json", "recipe.toml"]


def test_nor_do_data_that_nothing_can_be_judged_by(small_recipe: Recipe, tmp_path: Path) -> None:
    documents = [([1, *range(4, 40), 2], None)] * 40
    write_shards(tmp_path / "data", 60, {"prose": ("text", {"train": documents})})
    recipe = {
        "data.dir": str(tmp_path / "data"),
        "stages.stable.mixture": {"prose": 1.0},
        "stages.decay.sft_share": 0.0,
    }
    with pytest.raises(XmodelError, match="no source has held-out text"):
        same_setting(replace(small_recipe, recipe), tmp_path / "out")
    assert not (tmp_path / "out").exists()
