"""The project's own proofs, run on the installed package: `xmodel2 check`. Each is also a test.

A check returns a figure and the bound it is held to; it passes if the figure does not exceed the bound.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xmodel2.data.mixture import Mixture
from xmodel2.errors import XmodelError, nearest
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.model.count import parameter_count
from xmodel2.recipe import PRESETS, Recipe, recipe_from_dict
from xmodel2.train.schedule import wsd

PAPER_PARAMETERS = 1_251_755_520


def check_params() -> tuple[float, float]:
    """Parameters of the 1.2B preset, built on the meta device, against Table 1's architecture counted by hand."""
    recipe = recipe_from_dict({"model": {"preset": "xl"}})
    with torch.device("meta"):
        built = sum(p.numel() for p in Xmodel2(recipe.model).parameters())
    return max(abs(built - PAPER_PARAMETERS), abs(parameter_count(recipe.model) - PAPER_PARAMETERS)), 0


def check_schedule() -> tuple[float, float]:
    """WSD against its three formulas written out again, over a whole run."""
    rate, warmup, stable, half = 0.01, 50, 400, 70
    worst = 0.0
    for step in range(1, 801):
        expected = rate * min(step / warmup, 1.0) * 2.0 ** (-max(0, step - stable) / half)
        worst = max(worst, abs(wsd(step, rate, warmup, stable, half) - expected))
    return worst, 1e-15


def check_mixture() -> tuple[float, float]:
    """Largest difference, in percentage points, between asked and realised shares after 1M tokens in rows of 256."""
    weights = {"web": 0.2411, "books": 0.0612, "code": 0.0589, "sft": 0.6388}
    rows = 1_000_000 // 256
    mixture = Mixture(weights)
    source, _ = mixture.assign(0, rows)  # what the loader asks for each row
    realised = dict(zip(mixture.names, np.bincount(source, minlength=len(weights)), strict=True))
    return max(abs(100 * realised[name] / rows - 100 * weight) for name, weight in weights.items()), 0.1


def check_coordinate() -> tuple[float, float]:
    """How many criteria of a quick coordinate check don't hold under Table 6's rules (of 19; see `search.coordinate`)."""
    from xmodel2.search.coordinate import coordinate_check

    sizes = {"hidden_size": 128, "intermediate_size": 320, "num_attention_heads": 4, "num_key_value_heads": 2}
    return sum(not finding.held for finding in coordinate_check(recipe_from_dict({"model": sizes}))), 0


def check_export_parity() -> tuple[float, float]:
    """Largest logit difference between our model and the exported one in `transformers`, fp32."""
    from xmodel2.model.convert import parity_difference

    recipe = recipe_from_dict({"model": {**PRESETS["pico"], "num_hidden_layers": 2, "vocab_size": 512}})
    model = Xmodel2(recipe.model)
    tensor_program.initialise(model, 0)
    return parity_difference(model, recipe.model, seed=0), 1e-4


def check_resume() -> tuple[float, float]:
    """Difference in the final loss and weights between a run and the same run stopped and resumed."""
    from xmodel2.data.synthetic import write_random_shards
    from xmodel2.train import load_model, train

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_random_shards(root / "data", vocab_size=64, seed=0)
        recipe = _resume_recipe(root / "data")
        whole = train(recipe, root / "whole")
        train(recipe, root / "parts", stop_after=5)
        resumed = train(recipe, root / "parts", resume=True)
        if whole.loss is None or resumed.loss is None:
            return float("inf"), 0
        a, b = (dict(load_model(root / name)[0].named_parameters()) for name in ("whole", "parts"))
        worst = max(float((a[name] - b[name]).detach().abs().max()) for name in a)
        return max(abs(whole.loss - resumed.loss), worst), 0


def _resume_recipe(data: Path) -> Recipe:
    return recipe_from_dict(
        {
            "model": {**PRESETS["pico"], "num_hidden_layers": 1, "vocab_size": 64},
            "data": {"dir": str(data), "sequence_length": 32},
            "stages": {
                "stable": {"tokens": 6 * 256, "mixture": {"text": 1.0}},
                "decay": {"tokens": 4 * 256, "sft_mixture": {"sft": 1.0}},
            },
            "train": {
                "batch_tokens": 256,
                "micro_batch_size": 4,
                "warmup_steps": 2,
                "decay_half_life_steps": 2,
                "compile": False,
                "precision": "fp32",
                "heldout_every": 0,
                "checkpoint_every": 100,
            },
        }
    )


CHECKS: dict[str, Callable[[], tuple[float, float]]] = {
    "params": check_params,
    "schedule": check_schedule,
    "mixture-exact": check_mixture,
    "export-parity": check_export_parity,
    "resume-exact": check_resume,
    "coordinate": check_coordinate,
}


def run_checks(names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Run the named checks (all by default); each row has name, passed, figure and bound."""
    for name in names:
        if name not in CHECKS:
            raise XmodelError(f"check {name!r} is unknown; there are {', '.join(CHECKS)}.{nearest(name, CHECKS)}")
    rows = []
    for name in names or CHECKS:
        figure, bound = CHECKS[name]()
        rows.append({"name": name, "passed": bool(figure <= bound), "figure": float(figure), "bound": bound})
    return rows
