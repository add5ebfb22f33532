"""A directory that `transformers` loads without our code, written one tensor at a time and proved on the spot.

    tensors, checked -> x the layout's factor -> dtype -> model*.safetensors --\\
    settings -> config.json   tokenizer -> its files, generation_config.json   }-> loaded by transformers, logits against ours
    card -> README.md         recipe -> recipe.toml                         --/
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xmodel2.files import read_json, write_json_atomic, write_text_atomic
from xmodel2.model.convert import HEAD
from xmodel2.recipe import ModelSettings, recipe_to_toml
from xmodel2.release.card import card_of
from xmodel2.release.exporting.shards import DTYPES, write_shards
from xmodel2.release.exporting.verify import prompt_ids, reference_logits, transformers_difference
from xmodel2.release.exporting.weights import EMBEDDING, check_tensors, native_shapes, native_tensors
from xmodel2.release.trained import Trained
from xmodel2.tokenizer import Tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")
TEMPLATE_FILE = "chat_template.jinja"


@dataclass(frozen=True)
class Layout:
    """How our weights are laid out for an architecture of `transformers`."""

    architecture: str
    config: Callable[[ModelSettings, Tokenizer], dict[str, Any]]
    """The architecture's own keys of config.json."""
    factor: Callable[[str, ModelSettings], float] = lambda name, settings: 1.0
    """What a tensor of a native name is multiplied by."""
    may_tie: bool = True
    """Whether the head can be the embedding, as in a tied model; it is written as a tensor of its own otherwise."""

    def copies_head(self, settings: ModelSettings) -> bool:
        """Whether the head that is written is a copy of the embedding."""
        return settings.tie_word_embeddings and not self.may_tie


def write_directory(trained: Trained, folder: Path, layout: Layout, dtype: str, max_shard_bytes: int) -> dict[str, Any]:
    """Fill an empty folder and return {"bytes", "dtype", "max_abs_difference"} once its logits are proved to be ours.

    Raises `XmodelError` if they are not, if tensors are missing or unknown, or if a value is not finite in ``dtype``.
    """
    settings, tokenizer = trained.settings, trained.tokenizer
    prompts = prompt_ids(trained)
    check_tensors(trained)
    shapes = native_shapes(settings)
    if copied := layout.copies_head(settings):
        shapes[HEAD] = shapes[EMBEDDING]
    written = write_shards(folder, shapes, _tensors(trained, layout), DTYPES[dtype], max_shard_bytes)
    types = {"dtype": dtype, "torch_dtype": dtype}  # transformers before 4.56 knows the second name alone
    config = {"architectures": [layout.architecture], **layout.config(settings, tokenizer), "use_cache": True, **types}
    write_json_atomic(folder / "config.json", config)
    _write_tokenizer(trained.tokenizer_dir, tokenizer, folder)
    if recipe := trained.public_recipe:
        write_text_atomic(folder / "recipe.toml", recipe_to_toml(recipe))
    write_text_atomic(folder / "README.md", _card(trained, layout.architecture))

    def as_written(name: str, tensor: torch.Tensor) -> torch.Tensor:
        factor = layout.factor(name, settings)
        return (tensor * factor).to(DTYPES[dtype]).float() / factor

    exact = dtype == "float32"
    ours = reference_logits(trained, prompts, None if exact else as_written, head_copied=copied)
    difference = transformers_difference(folder, layout.architecture, prompts, ours, settings, tokenizer)
    return {"bytes": written, "dtype": dtype, "max_abs_difference": difference}


def _tensors(trained: Trained, layout: Layout) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in native_tensors(trained):
        factor = layout.factor(name, trained.settings)
        if name == EMBEDDING and layout.copies_head(trained.settings):
            yield HEAD, tensor * layout.factor(HEAD, trained.settings)
        yield name, tensor if factor == 1.0 else tensor.float().mul_(factor)


def _card(trained: Trained, architecture: str) -> str:
    """Return the model card; a directory exported before, in the same layout, keeps its own, which knows its training."""
    kept = trained.path / "README.md"
    if not trained.state and kept.is_file() and architecture in (text := kept.read_text("utf-8", "replace")):
        return text
    return card_of(trained, architecture)


def _write_tokenizer(source: Path, tokenizer: Tokenizer, folder: Path) -> None:
    for name in (*TOKENIZER_FILES, TEMPLATE_FILE):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    template = (read_json(source / "tokenizer_config.json") or {}).get("chat_template")
    if isinstance(template, str) and not (folder / TEMPLATE_FILE).exists():
        # where transformers 5 looks first; older ones read the other
        write_text_atomic(folder / TEMPLATE_FILE, template)
    write_json_atomic(
        folder / "generation_config.json",
        {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.stop_ids,
            "pad_token_id": tokenizer.pad_id,
            "do_sample": False,
        },
    )
