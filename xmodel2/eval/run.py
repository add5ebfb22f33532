"""What a run of ours is scored on beside the benchmarks: its own held-out documents and questions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xmodel2.data.questions import has_questions, read_questions
from xmodel2.data.shards import data_fingerprint, open_shards
from xmodel2.errors import XmodelError
from xmodel2.eval.reasoning import evaluate_reasoning
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train.checkpoint import find_tokenizer, load_model
from xmodel2.train.heldout import heldout_losses


def evaluate_run(path: Path, suites: Sequence[str], limit: int | None = None, skip: bool = False) -> dict[str, Any]:
    """Score a run or checkpoint on those of `open_model.RUN_SUITES` that are asked for; ``limit`` is of questions, and
    with ``skip`` data without any is no fault.

    Results of a suite stand under the checkpoint's stage, so that the ends of both stages can be told apart, and ``steps``
    says which step each stage was measured at; beside the questions stands their limit; ``transcripts`` are
    their answers.
    Raises `XmodelError` if the data is not there.
    """
    model, recipe, state = load_model(path)
    if "imported" in state and not state["data"]:
        raise XmodelError(f"{path}: was imported, so it has no held-out data of its own; name --suite or --tasks")
    data, stage = recipe.data.dir, state["stage"]
    if data_fingerprint(data) != state["data"]:
        raise XmodelError(
            f"{data}: is not the data that {path} was trained on (its index differs); prepare that data again"
        )
    results: dict[str, Any] = {"steps": {stage: state["step"]}}
    if "heldout" in suites:
        results["heldout"] = {stage: heldout_losses(model, open_shards(data, cache_dir=recipe.data.cache_dir), recipe)}
    if "questions" in suites and (has_questions(data) or not skip):
        questions = read_questions(data)[:limit]
        outcome = evaluate_reasoning(model, load_tokenizer(find_tokenizer(path)), questions)
        results["transcripts"] = {stage: outcome.pop("transcripts")}
        results["questions"] = {stage: {**outcome, "limit": limit}}
    return results
