"""Checkpoints, read: complete or absent, never pickled.

    checkpoints/step-200/{model,optimizer}.safetensors  state.json  recipe.toml  manifest.json (sizes, SHA-256)

Several ranks write {model,optimizer}-0000R-of-0000N.safetensors instead; any number of ranks in any layout reads either.
A folder of that name is complete (`checkpoint_writer`). A damaged one is passed over for the one before it.
"""

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xmodel2.errors import XmodelError
from xmodel2.files import sha256_file
from xmodel2.model import Xmodel2
from xmodel2.recipe import ModelSettings, Recipe, load_recipe
from xmodel2.train.tensor_files import TensorFiles

MODEL, OPTIMIZER = "model", "optimizer"
STATE_FILE, MANIFEST_FILE, RECIPE_FILE = "state.json", "manifest.json", "recipe.toml"
FORMAT = 2
"""Of the manifest; in format 1 the rows of fused tensors lay in another order."""


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
    steps = (step_of(folder, "step-") for folder in (run_dir / "checkpoints").glob("step-*"))
    return sorted(step for step in steps if step is not None)


def step_of(folder: Path, prefix: str) -> int | None:
    """Return the step of a folder that is named ``prefix`` and a step; None for any other, such as a copy made by hand.

    >>> step_of(Path("step-20"), "step-"), step_of(Path("step-020"), "step-"), step_of(Path("step-20.bak"), "step-")
    (20, None, None)
    """
    text = folder.name.removeprefix(prefix)
    return int(text) if text.isdecimal() and folder.name == f"{prefix}{int(text)}" else None


def check_files(checkpoint: Path) -> None:
    """Raise `XmodelError` naming the first file that is missing, truncated or changed."""
    try:
        manifest = json.loads((checkpoint / MANIFEST_FILE).read_text())
        written = manifest["format"]
        files = {name: (record["bytes"], record["sha256"]) for name, record in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise XmodelError(
            f"{checkpoint / MANIFEST_FILE}: cannot be read ({error}); the checkpoint is not usable"
        ) from None
    if written != FORMAT:
        raise XmodelError(
            f"{checkpoint}: was written in format {written}, this version reads format {FORMAT}; use the version that wrote"
            " it, or train again"
        )
    if missing := [name for name in (STATE_FILE, RECIPE_FILE) if name not in files]:
        raise XmodelError(f"{checkpoint / MANIFEST_FILE}: does not list {missing[0]}; the checkpoint is damaged")
    if not any(name.startswith(MODEL) for name in files):
        raise XmodelError(f"{checkpoint / MANIFEST_FILE}: lists no weights; the checkpoint is damaged")
    with ThreadPoolExecutor() as pool:
        for problem in pool.map(partial(_problem, checkpoint), files.items()):
            if problem:
                raise XmodelError(f"{problem}; the checkpoint is damaged")


def _problem(checkpoint: Path, entry: tuple[str, tuple[int, str]]) -> str | None:
    name, (wanted, digest) = entry
    path = checkpoint / name
    try:
        size = path.stat().st_size if path.exists() else None
        if size != wanted:
            return f"{path}: {'missing' if size is None else f'{size} bytes'}, {wanted} bytes expected"
        return None if sha256_file(path) == digest else f"{path}: its SHA-256 is not the manifest's"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"


def newest_valid(run_dir: Path, below: int | None = None) -> tuple[Path | None, list[str]]:
    """Return the newest undamaged checkpoint (before step ``below``), and what was wrong with newer ones."""
    complaints: list[str] = []
    for step in reversed([step for step in checkpoint_steps(run_dir) if below is None or step < below]):
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
        if (path / "config.json").exists():
            detail += f"; make a run of it with `xmodel2 import {path} --out RUN`"
        raise XmodelError(f"{path}: {detail}")
    report_passed_over(complaints, checkpoint)
    return checkpoint


def report_passed_over(complaints: list[str], checkpoint: Path) -> None:
    """Say on standard error which damaged checkpoints `newest_valid` passed over, and what is used instead."""
    if complaints:
        print(f"{'; '.join(complaints)}; using {checkpoint} instead", file=sys.stderr)


def run_of(model: Path) -> Path:
    """Return the run directory of a run or checkpoint, by its place alone; a checkpoint that is in no run is its own."""
    model = Path(model)
    place = model.resolve()
    return place.parent.parent if (model / MANIFEST_FILE).exists() and place.parent.name == "checkpoints" else model


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


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Fill the model's parameters, plain or `DTensor`; raises `XmodelError` naming the first tensor that does not fit."""
    tensors = TensorFiles(checkpoint, MODEL)
    parameters = dict(model.named_parameters())
    for name in sorted(tensors.shapes.keys() | parameters.keys()):
        have = tensors.shapes.get(name, "absent")
        want = tuple(parameters[name].shape) if name in parameters else "absent"
        if have != want:
            raise XmodelError(
                f"{checkpoint}: tensor {name} is {have} there and {want} in this model:"
                " the checkpoint is of another architecture; use the recipe that it was trained with"
            )
    for name, parameter in parameters.items():
        tensors.read_into(name, parameter)


def load_training_state(
    checkpoint: Path, recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Fill this rank's parts of model and optimizer from a checkpoint and return its state.

    A parameter gets what the optimizer held for it (nothing, if it had no update yet): a tensor of the parameter's shape
    is laid out as the parameter is, another is whole on every rank.
    """
    _same_architecture(checkpoint, recipe.model)
    load_weights(model, checkpoint)
    # Several ranks once wrote no file of moments before an update; one always did, and an average has none.
    several = any(checkpoint.glob(f"{MODEL}-*-of-*.safetensors"))
    tensors = TensorFiles(checkpoint, OPTIMIZER, required=not several)
    kept_on_device = {p for group in optimizer.param_groups if group.get("fused") for p in group["params"]}
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for full_name, shape in tensors.shapes.items():
        name, _, key = full_name.partition("/")
        parameter, dtype = parameters[name], tensors.dtype(full_name)
        if shape == tuple(parameter.shape):
            value = torch.empty_like(parameter.detach(), dtype=dtype)
        else:  # the step counter is beside the parameter in fused optimizers alone
            on_device = key != "step" or parameter in kept_on_device
            value = torch.empty(shape, dtype=dtype, device=parameter.device if on_device else "cpu")
        tensors.read_into(full_name, value)
        optimizer.state[parameter][key] = value
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
