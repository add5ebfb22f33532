"""A Hugging Face directory becomes a run directory with one checkpoint, which every other command takes.

    config.json -> read_layout -> settings, factors     *.safetensors -> checked -> one tensor at a time -> x factor -> fused
    tokenizer -> adopt_tokenizer                        recipe.toml, if it is of this model -> RUN/recipe.toml

    RUN/recipe.toml   RUN/tokenizer/   RUN/checkpoints/step-N/{model,optimizer}.safetensors

No code of the directory is run, and no weight is unpickled.
"""

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from xmodel2.data.shards import data_fingerprint, read_index
from xmodel2.errors import XmodelError
from xmodel2.files import file_record, replaced_folder, write_json_atomic, write_text_atomic
from xmodel2.model import Xmodel2, fused_layout
from xmodel2.model.convert import FUSED
from xmodel2.model.count import parameter_count
from xmodel2.recipe import ModelSettings, Recipe, load_recipe, recipe_from_dict, recipe_to_toml
from xmodel2.release.exporting.shards import write_shards
from xmodel2.release.exporting.weights import EMBEDDING, HEAD, native_shapes
from xmodel2.release.importing.compare import source_difference
from xmodel2.release.importing.layouts import Layout, factors, read_layout, same_shape, settings_of, with_head
from xmodel2.release.importing.source import Source
from xmodel2.release.importing.tokenizer import adopt_tokenizer
from xmodel2.tokenizer import Tokenizer
from xmodel2.train.checkpoint import FORMAT, MANIFEST_FILE, OPTIMIZER, RECIPE_FILE, STATE_FILE
from xmodel2.train.tensor_files import file_name, write_tensors

_IGNORED_END = "rotary_emb.inv_freq"  # older files keep these constants
_ROWS = 960  # of a batch, where nothing says more: the report's
_MAX_SHARD_BYTES = 5_000_000_000


def import_model(
    directory: Path,
    out: Path,
    *,
    name: str | None = None,
    tokenizer: Path | None = None,
    recipe: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the run directory ``out`` and return what was found and done; ``max_abs_difference`` is None if not compared.

    ``tokenizer``: folder to take it from, if not ``directory``. ``recipe``: of a training that is to go on from here; the
    checkpoint is then at the end of its stable stage, with optimizer moments of zero. Raises `XmodelError` if anything of the
    directory is not as its config.json says, or if `transformers` reads other logits from it; then ``out`` is as before.
    """
    directory = Path(directory)
    config = directory / "config.json"
    if not directory.is_dir():
        raise XmodelError(
            f"{directory}: is not a folder; give one that holds config.json, *.safetensors and a tokenizer (of a repository of"
            " the Hub: `hf download NAME --local-dir FOLDER`)"
        )
    layout = read_layout(config)
    source = Source(directory)
    kept = {HEAD} if layout.tied else set()
    ignored = frozenset(key for key in source.shapes if key in kept or key.endswith(_IGNORED_END))
    want = native_shapes(settings_of(layout, config))
    source.check(want if layout.tied else {**want, HEAD: want[EMBEDDING]}, ignored)
    layout, tolerance = _tied(layout, source)
    base, notes = _base(directory, recipe, layout)
    known = recipe_from_dict(base).model if base else None
    settings = known if known and same_shape(layout, known) else settings_of(layout, config)
    folded = factors(layout.scales, settings, tolerance)
    with replaced_folder(out, overwrite, "import") as folder:
        text, changed = adopt_tokenizer(tokenizer or directory, folder / "tokenizer", settings.vocab_size)
        whole = _recipe(base, settings, name, directory, recipe)
        data = _data(whole, text) if recipe else ""
        step = whole.stable_steps if recipe else 0
        own = base is not None and recipe is None
        imported = {"from": str(directory), "layout": layout.kind, "folded": folded, "own_recipe": own}
        state = {"step": step, "tokens": 0, "stage": "stable", "data": data, "imported": imported}
        _write(folder, whole, state, source, folded)
        difference = source_difference(directory, folder, tolerance) if layout.native else None
    if tolerance > torch.finfo(torch.float32).eps:
        notes.append("the head was stored in 16 bits beside the embedding; it is now the embedding, rounded its way")
    if layout.own_code:
        notes.append("config.json names code of its own (auto_map); none of it was run")
    return {
        "out": str(out),
        "name": whole.name,
        "layout": layout.kind,
        "parameters": parameter_count(settings),
        "step": step,
        "folded": folded,
        "ignored": len(ignored),
        "tokenizer": text.vocab_size,
        "max_abs_difference": difference,
        "notes": notes + changed,
    }


def _tied(layout: Layout, source: Source) -> tuple[Layout, float]:
    """Return the layout as a tied one, and the rounding of its logits' scale. Raises `XmodelError` for a head of its own."""
    if layout.tied:
        return layout, 0.0
    ratio = source.ratio(HEAD, EMBEDDING)
    if ratio is None:
        raise XmodelError(
            f"{source.directory}: {HEAD} is no multiple of {EMBEDDING}: the head of this model was learned by itself, and ours"
            " is the embedding; such a model cannot be imported"
        )
    return with_head(layout, ratio), source.epsilon(HEAD)


def _base(directory: Path, recipe: Path | None, layout: Layout) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the recipe that is to be gone on with, or else the one that lies there, as a tree; and why it is left out."""
    if recipe:
        return tomllib.loads(recipe_to_toml(load_recipe(recipe))), []
    path = directory / RECIPE_FILE
    if not path.is_file():
        return None, []
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        if "base" in tree:  # another file of this machine, which a directory from elsewhere must not choose
            raise XmodelError("it has a base")
        known = recipe_from_dict(tree, str(path))
    except (XmodelError, ValueError) as error:
        return None, [f"{RECIPE_FILE} was left out: {error}"]
    if not same_shape(layout, known.model):
        return None, [f"{RECIPE_FILE} was left out: its [model] is not that of config.json"]
    return tree, []


def _recipe(
    base: dict[str, Any] | None, settings: ModelSettings, name: str | None, directory: Path, origin: Path | None
) -> Recipe:
    model = {key: getattr(settings, key) for key in settings.__dataclass_fields__}
    length = min(4096, settings.max_position_embeddings)
    fresh = {
        "name": directory.resolve().name,
        "data": {"sequence_length": length},
        "train": {"batch_tokens": _ROWS * length},
    }
    tree = {**(base or fresh), "model": {key: value for key, value in model.items() if value is not None}}
    return recipe_from_dict({**tree, "name": name} if name else tree, str(origin or directory))


def _data(recipe: Recipe, tokenizer: Tokenizer) -> str:
    """Return the fingerprint of a recipe's data. Raises `XmodelError` if it has other ids than the model."""
    made_with = read_index(recipe.data.dir)["tokenizer"].get("fingerprint")
    if made_with != tokenizer.fingerprint:
        raise XmodelError(
            f"{recipe.data.dir}: was made with another tokenizer than the model's; import without --recipe first, then prepare"
            " the data with the RUN/tokenizer that this gives"
        )
    return data_fingerprint(recipe.data.dir)


def _write(folder: Path, recipe: Recipe, state: dict[str, Any], source: Source, folded: dict[str, float]) -> None:
    checkpoint = folder / "checkpoints" / f"step-{state['step']}"
    checkpoint.mkdir(parents=True)
    with torch.device("meta"):
        named = dict(Xmodel2(recipe.model).named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in named.items()}
    write_shards(checkpoint, shapes, _tensors(shapes, recipe.model, source, folded), torch.float32, _MAX_SHARD_BYTES)
    write_tensors(checkpoint / file_name(OPTIMIZER, 0, 1), [])
    write_json_atomic(checkpoint / STATE_FILE, state)
    for place in (checkpoint, folder):
        write_text_atomic(place / RECIPE_FILE, recipe_to_toml(recipe))
    files = {file.name: file_record(file) for file in sorted(checkpoint.iterdir())}
    write_json_atomic(checkpoint / MANIFEST_FILE, {"format": FORMAT, "files": files})


def _tensors(
    names: Iterable[str], settings: ModelSettings, source: Source, folded: dict[str, float]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield our tensors, each made of the source's, one in memory at a time."""
    for name in names:
        fused = name.removesuffix(".weight").rpartition(".")[2]
        parts = []
        for part in FUSED.get(fused, (fused,)):
            tensor = source.read("model." + name.replace(fused, part))
            parts.append(tensor * folded[part] if part in folded else tensor)
        if fused == "qkv_proj":
            yield name, fused_layout.join_qkv(parts[0], parts[1], parts[2], settings)
        elif fused == "gate_up_proj":
            yield name, fused_layout.join_gate_up(parts[0], parts[1], settings)
        else:
            yield name, parts[0]
