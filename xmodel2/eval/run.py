"""`xmodel2 eval`: the suites that a run can be scored on, by name."""

from pathlib import Path
from typing import Any

from xmodel2.data.reasoning import reasoning_examples
from xmodel2.data.shards import open_shards
from xmodel2.errors import XmodelError, nearest
from xmodel2.eval.harness import run_task
from xmodel2.eval.reasoning import evaluate_reasoning
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train.checkpoint import find_tokenizer, load_model
from xmodel2.train.heldout import heldout_losses

SUITES = ("heldout", "reasoning")


def evaluate_model(
    path: Path, suites: list[str], tasks: list[str], data_dir: Path | None, limit: int
) -> dict[str, Any]:
    """Score a run or checkpoint and return results by suite. Raises `XmodelError` for an unknown suite or task."""
    for suite in suites:
        if suite not in SUITES:
            raise XmodelError(f"--suite {suite!r}: allowed are {', '.join(SUITES)}.{nearest(suite, SUITES)}")
    model, recipe, _ = load_model(path)
    tokenizer = load_tokenizer(find_tokenizer(path))
    results: dict[str, Any] = {}
    if "heldout" in suites:
        results["heldout"] = {"decay": heldout_losses(model, open_shards(Path(recipe.data.dir)), recipe)}
    if "reasoning" in suites:
        outcome = evaluate_reasoning(model, tokenizer, reasoning_examples(limit, seed=2))
        del outcome["transcripts"]
        results["reasoning"] = {"decay": outcome}
    if tasks:
        results["harness"] = {task: run_task(model, tokenizer, task, data_dir, limit) for task in tasks}
    return results
