"""A native `transformers` directory (GraniteForCausalLM) from a checkpoint, proved on the spot.

The directory is loaded back by `transformers` without our code; if its logits differ from ours by more than 1e-4 on real
prompts (plain, padded, and with a key/value cache) it is not published.
"""

import shutil
from pathlib import Path
from typing import Any

import torch

from xmodel2.errors import XmodelError
from xmodel2.files import replaced_folder, write_json_atomic, write_text_atomic
from xmodel2.model import Xmodel2
from xmodel2.model.convert import granite_config, granite_difference, no_progress_bar, to_granite
from xmodel2.recipe import ModelSettings, recipe_to_toml
from xmodel2.release.card import model_card
from xmodel2.release.results import run_results
from xmodel2.tokenizer import Tokenizer, load_tokenizer
from xmodel2.train.checkpoint import find_tokenizer, load_model, run_of

BOUND = 1e-4
_PROMPTS = (
    "def main():\n    return 0",
    "The language model was trained on text and code.",
    "Licence",
    "A list of numbers: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, and so on.",
)


def export_checkpoint(path: Path, out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Export a run's newest checkpoint, or one checkpoint, with the run's tokenizer and a model card."""
    model, recipe, state = load_model(path)
    card = model_card(recipe, state, run_results(run_of(path)))
    return export_hf(
        model, recipe.model, find_tokenizer(path), out, card=card, recipe=recipe_to_toml(recipe), overwrite=overwrite
    )


def export_hf(
    model: Xmodel2,
    settings: ModelSettings,
    tokenizer_dir: Path,
    out: Path,
    *,
    card: str,
    recipe: str = "",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write ``out`` and return {"max_abs_difference"}. Raises `XmodelError` if it exists or its logits differ from ours."""
    from transformers import GraniteConfig, GraniteForCausalLM

    tokenizer = load_tokenizer(tokenizer_dir)
    with replaced_folder(Path(out), overwrite, "export") as folder, no_progress_bar():
        config = GraniteConfig(**granite_config(settings, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id))
        config.architectures = ["GraniteForCausalLM"]
        with torch.device("meta"):
            shell = GraniteForCausalLM(config)
        tensors = to_granite({n: p.detach().float().cpu() for n, p in model.named_parameters()}, settings)
        shell.save_pretrained(folder, state_dict=tensors)
        _write_generation_config(folder, tokenizer)
        for file in sorted(Path(tokenizer_dir).iterdir()):
            if file.is_file() and not file.name.startswith("."):
                shutil.copy2(file, folder / file.name)
        if recipe:
            write_text_atomic(folder / "recipe.toml", recipe)
        write_text_atomic(folder / "README.md", card)
        difference = _verify(model, folder, tokenizer)
    return {"max_abs_difference": difference}


def _write_generation_config(folder: Path, tokenizer: Tokenizer) -> None:
    write_json_atomic(
        folder / "generation_config.json",
        {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.stop_ids,
            "pad_token_id": tokenizer.pad_id,
            "do_sample": False,
        },
    )


def _verify(model: Xmodel2, folder: Path, tokenizer: Tokenizer) -> float:
    from transformers import GraniteForCausalLM

    native = GraniteForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = [tokenizer.encode_document(text)[:-1] for text in _PROMPTS]
    difference = granite_difference(model.float().cpu().eval(), native, prompts, tokenizer.pad_id)
    if not difference < BOUND:
        raise XmodelError(
            f"export: logits differ from ours by {difference:.2e}, more than {BOUND:.0e}; nothing was published"
        )
    return difference
