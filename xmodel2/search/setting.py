"""What all trials of one folder have in common, so that their losses compare: recipe, data and precision."""

from pathlib import Path

from xmodel2.data.shards import data_fingerprint, open_shards
from xmodel2.errors import XmodelError
from xmodel2.files import read_json, write_json_atomic, write_text_atomic
from xmodel2.recipe import Recipe, load_recipe, recipe_to_toml, replace
from xmodel2.search.trial import no_heldout
from xmodel2.train.device import pick_device, pick_precision
from xmodel2.train.run import make_loader
from xmodel2.train.run_dir import FREE, RECIPE_FILE, check_data, differences

DATA_FILE = "data.json"
_RATES = "all"
"""What trials at another rate change: Muon's, too."""
FREE_TO_CHANGE = {key for key in FREE if not key.startswith("guard.")} - {"train.heldout_rows", "train.precision"}
"""Keys that may change between calls: none that a trial's held-out loss depends on."""


def same_setting(recipe: Recipe, out: Path) -> Recipe:
    """Return the recipe with the folder's precision and its data verified; write both down if the folder is new.

    The shards are read for their checksums here, if the recipe says so, and not again by each trial. Raises `XmodelError` for
    a damaged one, for a recipe that can't be trained on them, and if ``out`` began with another recipe or other data: losses
    would not compare.
    """
    check_trainable(recipe)
    return replace(_with_own_precision(recipe, out), {"data.verify_checksums": False})


def check_trainable(recipe: Recipe) -> None:
    """Verify the data, and raise `XmodelError` for what the first trial would: a folder that has begun keeps its recipe."""
    shards = open_shards(recipe.data.dir, recipe.data.verify_checksums, recipe.data.cache_dir)
    check_data(recipe, shards)
    make_loader(recipe, shards)
    if all(source.heldout is None or not source.heldout.tokens for source in shards.sources.values()):
        raise no_heldout(recipe)


def _with_own_precision(recipe: Recipe, out: Path) -> Recipe:
    path, data = out / RECIPE_FILE, data_fingerprint(recipe.data.dir)
    if not path.exists():
        recipe = replace(recipe, {"train.precision": picked_precision(recipe)})
        write_json_atomic(out / DATA_FILE, {"fingerprint": data, "rates": _RATES})
        write_text_atomic(path, recipe_to_toml(recipe))
        return recipe
    before = load_recipe(path)
    if recipe.train.precision == "auto":
        recipe = replace(recipe, {"train.precision": before.train.precision})
    changed = [f"{key} was {a!r}, is {b!r}" for key, a, b in differences(before, recipe) if key not in FREE_TO_CHANGE]
    if changed:
        raise XmodelError(
            f"{path}: what is here began with another recipe ({'; '.join(changed)}); use that one, or choose another --out"
        )
    kept = read_json(out / DATA_FILE) or {}
    if recipe.train.optimizer == "muon" and kept.get("rates") != _RATES:
        raise XmodelError(f"{out}: was begun by a version whose other rates were not Muon's; choose another --out")
    if kept.get("fingerprint") != data:
        raise XmodelError(
            f"{recipe.data.dir}: is not the data that {out} began with (its index differs); point data.dir at that data,"
            " or choose another --out"
        )
    return recipe


def picked_precision(recipe: Recipe) -> str:
    """Return the recipe's precision, or for `auto` what this device is faster in."""
    if recipe.train.precision != "auto":
        return recipe.train.precision
    rows = recipe.train.micro_batch_size * recipe.data.sequence_length
    return pick_precision("auto", pick_device(recipe.train.device), rows, recipe.model)[0]
