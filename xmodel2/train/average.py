"""Weights of several checkpoints averaged: an early look at the decayed model, without a decay.

An average stands for a decay of the rate (WSM, arXiv 2507.17634): if checkpoint j of 0..n has weight c_j, the steps between
j - 1 and j count w_j = c_j + ... + c_n of what they did. So a decay w_j is had by c_j = w_j - w_{j+1}, with w_0 = 1.
"""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xmodel2.errors import XmodelError
from xmodel2.files import file_record, replaced_folder, write_json_atomic, write_text_atomic
from xmodel2.recipe import load_recipe, recipe_to_toml
from xmodel2.train.checkpoint import (
    FORMAT,
    MANIFEST_FILE,
    MODEL,
    RECIPE_FILE,
    STATE_FILE,
    check_files,
    checkpoint_steps,
    read_state,
)
from xmodel2.train.lineage import weights_of
from xmodel2.train.run_dir import INIT_FILE
from xmodel2.train.tensor_files import Piece, TensorFiles, file_name, write_tensors


def mean_weights(count: int) -> list[float]:
    """Return equal weights: the rate that they stand for falls linearly to 0.

    >>> mean_weights(4)
    [0.25, 0.25, 0.25, 0.25]
    """
    return [1 / count] * count


def ema_weights(count: int, factor: float) -> list[float]:
    """Return the weights of an exponential moving average, oldest first: e = factor e + (1 - factor) checkpoint.

    >>> ema_weights(3, 0.5)
    [0.25, 0.25, 0.5]
    """
    return [factor ** (count - 1)] + [(1 - factor) * factor ** (count - 1 - i) for i in range(1, count)]


def half_life_weights(steps: Sequence[int], half_life: float) -> list[float]:
    """Return weights that stand for f(t) = 0.5 ** (t / half_life) from the first step on: the decay of the report.

    >>> [round(weight, 3) for weight in half_life_weights([0, 1, 2], half_life=1)]
    [0.5, 0.25, 0.25]
    """
    kept = [
        sum(0.5 ** ((step - steps[0]) / half_life) for step in range(a + 1, b + 1)) / (b - a)
        for a, b in itertools.pairwise(steps)
    ]
    return [a - b for a, b in itertools.pairwise([1.0, *kept, 0.0])]


def average_checkpoints(
    run_dir: Path,
    out: Path,
    last: int | None = None,
    steps: Sequence[int] = (),
    decay: str = "mean",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write ``out``, a checkpoint (fp32 weights alone) that `eval`, `export` and `chat` take, and return what went into it.

    Either the ``last`` checkpoints of a run or those of ``steps``. ``decay`` says how they are weighed: "mean", "ema:FACTOR", or
    "half-life[:STEPS]" (default: the recipe's train.decay_half_life_steps). Raises `XmodelError` if one is absent or damaged.
    """
    chosen = _choose(run_dir, last, steps)
    folders = [run_dir / "checkpoints" / f"step-{step}" for step in chosen]
    for folder in folders:
        check_files(folder)
    recipe, state = load_recipe(folders[-1] / RECIPE_FILE), read_state(folders[-1])
    weights = _weights(decay, chosen, recipe.train.decay_half_life_steps)
    averaged = {"run": str(run_dir), "steps": chosen, "weights": weights, "decay": decay}
    kept = {key: state[key] for key in ("step", "tokens", "stage", "data")}
    with replaced_folder(out, overwrite, "average") as beside:
        name = file_name(MODEL, 0, 1)
        files = {name: write_tensors(beside / name, _average(folders, weights))}
        write_json_atomic(beside / STATE_FILE, {**kept, "averaged": averaged})
        write_text_atomic(beside / RECIPE_FILE, recipe_to_toml(recipe))
        files |= {name: file_record(beside / name) for name in (STATE_FILE, RECIPE_FILE)}
        if (run_dir / "tokenizer").is_dir():
            shutil.copytree(run_dir / "tokenizer", beside / "tokenizer")
        if first := weights_of(run_dir):
            write_json_atomic(beside / INIT_FILE, first)
        write_json_atomic(beside / MANIFEST_FILE, {"format": FORMAT, "files": files})
    return averaged


def _choose(run_dir: Path, last: int | None, steps: Sequence[int]) -> list[int]:
    there = checkpoint_steps(run_dir)
    if (last is None) == (not steps):
        raise XmodelError("average: give either --last N or --steps")
    chosen = sorted(set(steps)) if last is None else there[max(0, len(there) - last) :]
    missing = [step for step in chosen if step not in there]
    if missing or len(chosen) < max(2, last or 0):
        raise XmodelError(
            f"{run_dir}: its checkpoints are {', '.join(map(str, there)) or 'none'}; name two or more of them with --steps,"
            " or a --last N that there are (train.keep_checkpoints and keep_checkpoint_every say which are kept)"
        )
    return chosen


def _weights(decay: str, steps: Sequence[int], half_life: float) -> list[float]:
    kind, _, text = decay.partition(":")
    try:
        if kind == "mean" and not text:
            return mean_weights(len(steps))
        if kind == "ema" and 0 < float(text) < 1:
            return ema_weights(len(steps), float(text))
        if kind == "half-life" and (not text or float(text) > 0):
            return half_life_weights(steps, float(text) if text else half_life)
    except ValueError:
        pass
    raise XmodelError(f"--decay {decay!r}: allowed are mean, ema:FACTOR (0 < FACTOR < 1) and half-life[:STEPS]")


def _average(folders: Sequence[Path], weights: Sequence[float]) -> list[Piece]:
    sources = [TensorFiles(folder, MODEL) for folder in folders]
    pieces = []
    for name, shape in sources[0].shapes.items():
        total, tensor = torch.zeros(shape, dtype=torch.float64), torch.empty(shape)
        for source, weight in zip(sources, weights, strict=True):
            source.read_into(name, tensor)
            total.add_(tensor, alpha=weight)
        pieces.append(Piece(name, total.float(), (0,) * len(shape)))
    return pieces
