"""A Hugging Face directory becomes a run directory with one checkpoint, which every other command takes.

    config.json -> read_layout -> settings, factors     *.safetensors -> checked -> one tensor at a time -> x factor -> fused
    tokenizer -> adopt_tokenizer                        recipe.toml, if it is of this model -> RUN/recipe.toml

    RUN/recipe.toml   RUN/tokenizer/   RUN/checkpoints/step-N/{model,optimizer}.safetensors

No code of the directory is run, and no weight is unpickled.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from xmodel2.data.shards import data_fingerprint, read_index
from xmodel2.errors import XmodelError
from xmodel2.files import file_record, replaced_folder, write_json_atomic, write_text_atomic
from xmodel2.model import Xmodel2, fused_layout
from xmodel2.model.convert import FUSED, HEAD, native_name
from xmodel2.model.count import parameter_count
from xmodel2.recipe import ModelSettings, Recipe, load_recipe, recipe_from_dict, recipe_to_toml, replace
from xmodel2.release.exporting.shards import write_shards
from xmodel2.release.exporting.weights import EMBEDDING, native_shapes
from xmodel2.release.importing.compare import source_difference
from xmodel2.release.importing.layouts import Layout, factors, read_layout, same_shape, settings_of, with_head
from xmodel2.release.importing.source import Source
from xmodel2.release.importing.tokenizer import adopt_tokenizer
from xmodel2.release.trained import recipe_beside
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
    if directory.resolve().is_relative_to(out.resolve()):
        raise XmodelError(f"{out}: the directory that is imported lies there ({directory}); choose another --out")
    layout = read_layout(config)
    source = Source(directory)
    if (layers := layout.shape["num_hidden_layers"]) > len(source.shapes):  # before a model of so many is laid out
        raise XmodelError(
            f"{config}: num_hidden_layers is {layers:,}, and the weights are {len(source.shapes):,} tensors"
        )
    kept = {HEAD} if layout.tied else set()
    ignored = frozenset(key for key in source.shapes if key in kept or key.endswith(_IGNORED_END))
    source.check(native_shapes(settings_of(layout, config)), ignored)
    layout, tolerance = _tied_where_it_can_be(layout, source)
    base, complaint = (load_recipe(recipe), "") if recipe else recipe_beside(directory, layout)
    notes = [complaint] if complaint else []
    settings = base.model if base and same_shape(layout, base.model) else settings_of(layout, config)
    folded = factors(layout.scales, settings, tolerance)
    with replaced_folder(out, overwrite, "import") as folder:
        text, changed = adopt_tokenizer(tokenizer or directory, folder / "tokenizer", settings.vocab_size)
        whole = _recipe(base, settings, name, directory)
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


def _tied_where_it_can_be(layout: Layout, source: Source) -> tuple[Layout, float]:
    """Return the layout, as a tied one if its head is a multiple of its embedding, and the rounding of its logits' scale."""
    ratio = None if layout.tied else source.ratio(HEAD, EMBEDDING)
    if ratio is None:
        return layout, 0.0
    return with_head(layout, ratio), source.epsilon(HEAD)


def _recipe(base: Recipe | None, settings: ModelSettings, name: str | None, directory: Path) -> Recipe:
    """Return the recipe of the run: ``base`` with the settings of the weights, or one that says no more than those."""
    if base is None:
        length = min(4096, settings.max_position_embeddings)
        base = recipe_from_dict(
            {
                "name": directory.resolve().name,
                "model": {"max_position_embeddings": settings.max_position_embeddings},
                "data": {"sequence_length": length},
                "train": {"batch_tokens": _ROWS * length},
            }
        )
    model = {f"model.{key}": getattr(settings, key) for key in settings.__dataclass_fields__}
    return replace(base, {**model, "name": name or base.name})


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
            tensor = source.read(native_name(name.replace(fused, part)))
            parts.append(tensor * folded[part] if part in folded else tensor)
        if fused == "qkv_proj":
            yield name, fused_layout.join_qkv(parts[0], parts[1], parts[2], settings)
        elif fused == "gate_up_proj":
            yield name, fused_layout.join_gate_up(parts[0], parts[1], settings)
        else:
            yield name, parts[0]
