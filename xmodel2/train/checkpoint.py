"""Checkpoints: complete or absent, never pickled.

    checkpoints/step-200/{model,optimizer}.safetensors  state.json  recipe.toml  manifest.json (sizes, SHA-256)

Written to a hidden folder beside, synced, then renamed: a folder of that name is complete, and a kill or a full disk at any
moment leaves the previous checkpoint valid. A damaged one is passed over for the one before it.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from xmodel2.errors import XmodelError
from xmodel2.files import file_record, fsync_dir, sha256_file, write_json_atomic, write_text_atomic
from xmodel2.model import Xmodel2
from xmodel2.recipe import ModelSettings, Recipe, load_recipe, recipe_to_toml

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"
STATE_FILE, MANIFEST_FILE, RECIPE_FILE = "state.json", "manifest.json", "recipe.toml"


def save_checkpoint(
    run_dir: Path, step: int, recipe: Recipe, model: Xmodel2, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> Path:
    """Write and publish a checkpoint; ``state`` is JSON (step, tokens, stage). Raises `XmodelError` if it cannot be written."""
    root = run_dir / "checkpoints"
    final, beside = root / f"step-{step}", root / f".step-{step}.tmp"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        save_file({n: p.detach().cpu().contiguous() for n, p in model.named_parameters()}, beside / MODEL_FILE)
        save_file(_optimizer_tensors(model, optimizer), beside / OPTIMIZER_FILE)
        write_json_atomic(beside / STATE_FILE, {"step": step, **state})
        write_text_atomic(beside / RECIPE_FILE, recipe_to_toml(recipe))
        files = {p.name: file_record(p) for p in sorted(beside.iterdir())}
        write_json_atomic(beside / MANIFEST_FILE, {"format": 1, "files": files})
        for name in (MODEL_FILE, OPTIMIZER_FILE):
            with open(beside / name, "rb") as handle:
                os.fsync(handle.fileno())
        fsync_dir(beside)
        if final.exists():
            shutil.rmtree(final)
        os.replace(beside, final)
        fsync_dir(root)
    except Exception as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, XmodelError):
            raise
        raise XmodelError(
            f"{final}: the checkpoint could not be written ({error}); the previous one is untouched."
            " Free some space and run again with --resume."
        ) from error
    return final


def prune_checkpoints(run_dir: Path, keep: int, always: set[int]) -> None:
    """Delete all but the newest ``keep`` checkpoints and those whose step is in ``always``."""
    steps = checkpoint_steps(run_dir)
    for step in steps[:-keep]:
        if step not in always:
            shutil.rmtree(run_dir / "checkpoints" / f"step-{step}")


def set_aside(run_dir: Path, above: int) -> None:
    """Rename checkpoints of later steps to ``unused-step-N``: a run that went back past them will write its own."""
    root = run_dir / "checkpoints"
    for step in checkpoint_steps(run_dir):
        if step > above:
            shutil.rmtree(root / f"unused-step-{step}", ignore_errors=True)
            os.replace(root / f"step-{step}", root / f"unused-step-{step}")


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return step, tokens, stage and the fingerprint of the data."""
    state: dict[str, Any] = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    return state


def checkpoint_steps(run_dir: Path) -> list[int]:
    """Return the steps of the published checkpoints, oldest first."""
    found = (run_dir / "checkpoints").glob("step-*")
    return sorted(int(p.name[5:]) for p in found if p.name[5:].isdigit())


def check_files(checkpoint: Path) -> None:
    """Raise `XmodelError` naming the first file that is missing, truncated or changed."""
    try:
        manifest = json.loads((checkpoint / MANIFEST_FILE).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise XmodelError(
            f"{checkpoint / MANIFEST_FILE}: cannot be read ({error}); the checkpoint is not usable"
        ) from None
    for name, want in manifest.items():
        path = checkpoint / name
        size = path.stat().st_size if path.exists() else None
        if size != want["bytes"]:
            raise XmodelError(f"{path}: {size} bytes, {want['bytes']} expected; the checkpoint is damaged")
        if sha256_file(path) != want["sha256"]:
            raise XmodelError(f"{path}: its SHA-256 is not the manifest's; the checkpoint is damaged")


def newest_valid(run_dir: Path) -> tuple[Path | None, list[str]]:
    """Return the newest undamaged checkpoint, and what was wrong with newer ones."""
    complaints: list[str] = []
    for step in reversed(checkpoint_steps(run_dir)):
        checkpoint = run_dir / "checkpoints" / f"step-{step}"
        try:
            check_files(checkpoint)
            return checkpoint, complaints
        except XmodelError as error:
            complaints.append(str(error))
    return None, complaints


def find_checkpoint(path: Path) -> Path:
    """Resolve a run directory (its newest valid checkpoint) or a checkpoint directory, checked."""
    path = Path(path)
    if (path / MANIFEST_FILE).exists():
        check_files(path)
        return path
    checkpoint, complaints = newest_valid(path)
    if checkpoint is None:
        detail = "; ".join(complaints) or "it is neither a run directory with checkpoints nor a checkpoint"
        raise XmodelError(f"{path}: {detail}")
    return checkpoint


def run_of(model: Path) -> Path:
    """Return the run directory of a run or checkpoint, by its place alone: nothing is read."""
    model = Path(model)
    return model.resolve().parent.parent if (model / MANIFEST_FILE).exists() else model


def find_tokenizer(model: Path) -> Path:
    """Return the tokenizer directory of a run or checkpoint. Raises `XmodelError` if the run has none."""
    folder = run_of(model) / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        raise XmodelError(f"{model}: no tokenizer/ beside its checkpoints")
    return folder


def load_model(path: Path) -> tuple[Xmodel2, Recipe, dict[str, Any]]:
    """Return model (fp32, CPU, eval mode), recipe and state of a run's newest checkpoint, or of one checkpoint."""
    checkpoint = find_checkpoint(path)
    recipe = load_recipe(checkpoint / RECIPE_FILE)
    with torch.device("meta"):
        model = Xmodel2(recipe.model)
    model.to_empty(device="cpu")
    load_weights(model, checkpoint)
    return model.eval(), recipe, read_state(checkpoint)


def load_weights(model: Xmodel2, checkpoint: Path) -> None:
    """Fill the model's parameters; raises `XmodelError` naming the first tensor that does not fit."""
    tensors = load_file(checkpoint / MODEL_FILE)
    parameters = dict(model.named_parameters())
    for name in sorted(tensors.keys() | parameters.keys()):
        have = tuple(tensors[name].shape) if name in tensors else "absent"
        want = tuple(parameters[name].shape) if name in parameters else "absent"
        if have != want:
            raise XmodelError(
                f"{checkpoint / MODEL_FILE}: tensor {name} is {have} there and {want} in this model:"
                " the checkpoint is of another architecture; use the recipe that it was trained with"
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def load_training_state(
    checkpoint: Path, recipe: Recipe, model: Xmodel2, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Fill model and optimizer from a checkpoint and return its state."""
    _same_architecture(checkpoint, recipe.model)
    load_weights(model, checkpoint)
    tensors = load_file(checkpoint / OPTIMIZER_FILE)
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            key: tensors[f"{name}/{key}"].to(parameter.device if key != "step" else "cpu", copy=True)
            for key in ("step", "exp_avg", "exp_avg_sq")
        }
    if next(model.parameters()).is_cuda:  # fused AdamW keeps its step counter beside the parameter
        for entry in optimizer.state.values():
            entry["step"] = entry["step"].cuda()
    return read_state(checkpoint)


def _same_architecture(checkpoint: Path, want: ModelSettings) -> None:
    have = load_recipe(checkpoint / RECIPE_FILE).model
    changed = [
        f"{name} is {getattr(have, name)} there and {getattr(want, name)} here"
        for name in want.__dataclass_fields__
        if name != "preset" and getattr(have, name) != getattr(want, name)
    ]
    if changed:
        raise XmodelError(f"{checkpoint}: the checkpoint is of another architecture: {'; '.join(changed)}")


def _optimizer_tensors(model: Xmodel2, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }
