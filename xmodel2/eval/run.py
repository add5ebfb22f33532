"""`xmodel2 eval`: the suites that a run can be scored on, by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xmodel2.data.questions import read_questions
from xmodel2.data.shards import data_fingerprint, open_shards
from xmodel2.errors import XmodelError, nearest
from xmodel2.eval.reasoning import evaluate_reasoning
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train.checkpoint import find_tokenizer, load_model
from xmodel2.train.heldout import heldout_losses

SUITES = ("heldout", "reasoning")


def evaluate_model(
    path: Path, suites: list[str], tasks: list[str], data_dir: Path | None, limit: int | None = None
) -> dict[str, Any]:
    """Score a run or checkpoint and return results by suite; held-out losses and questions are those of the run's data.

    Results of a suite stand under the checkpoint's stage, so that the ends of both stages can be told apart, and ``steps``
    says which step each stage was measured at.
    Raises `XmodelError` for an unknown suite or task, and if the data or the harness is not there.
    """
    for suite in suites:
        if suite not in SUITES:
            raise XmodelError(f"--suite {suite!r}: allowed are {', '.join(SUITES)}.{nearest(suite, SUITES)}")
    model, recipe, state = load_model(path)
    tokenizer = load_tokenizer(find_tokenizer(path))
    data, stage = recipe.data.dir, state["stage"]
    if suites and data_fingerprint(data) != state["data"]:
        raise XmodelError(
            f"{data}: is not the data that {path} was trained on (its index differs); prepare that data again"
        )
    results: dict[str, Any] = {"steps": {stage: state["step"]}}
    if "heldout" in suites:
        results["heldout"] = {stage: heldout_losses(model, open_shards(data, cache_dir=recipe.data.cache_dir), recipe)}
    if "reasoning" in suites:
        outcome = evaluate_reasoning(model, tokenizer, read_questions(data)[:limit])
        results["transcripts"] = {stage: outcome.pop("transcripts")}
        results["reasoning"] = {stage: outcome}
    if tasks:
        results["harness"] = {task: _harness()(model, tokenizer, task, data_dir, limit) for task in tasks}
    return results


def _harness() -> Callable[..., dict[str, Any]]:
    try:
        from xmodel2.eval.harness import run_task
    except ModuleNotFoundError as error:
        raise XmodelError(f"--tasks needs the evaluation harness ({error}): pip install 'xmodel2[eval]'") from None
    return run_task
