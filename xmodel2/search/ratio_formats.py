"""The same instruction documents in the decay as chats and as plain text, each scored in both formats.

data with as_text -> two decays a seed -> formats.jsonl: their scores in both formats -> a table of paired differences
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from xmodel2.data.shards import read_index
from xmodel2.errors import XmodelError
from xmodel2.files import append_json_line, read_json_lines
from xmodel2.recipe import Recipe
from xmodel2.recipe.preparation import text_form
from xmodel2.search.decay import AS_TEXT, OWN
from xmodel2.search.decay_runs import Say, Score

FORMATS_FILE = "formats.jsonl"
MEASURES = {
    "documents": "answers of all held-out instruction documents",
    "later_tokens": "the same without each answer's first token",
    "questions": "answers to the held-out questions",
    "accuracy": "questions answered exactly",
}
"""What is measured in both formats: nats a token of the answers' text, but for the accuracy; the first one decides."""
ARMS = {"chat": OWN, "text": AS_TEXT}
"""Mixture of the decay that sees each format."""


def no_two_formats(recipe: Recipe) -> XmodelError | None:
    """Return why a recipe's instruction data can not be compared with the same as text, if so."""
    if not recipe.stages.decay.sft_share:
        return XmodelError(
            "--compare format: stages.decay.sft_share is 0; give it the share that chats and texts are to have"
        )
    known = read_index(recipe.data.dir)["sources"]
    wanted = [name for name, share in recipe.stages.decay.sft_mixture.items() if share > 0]
    missing = [name for name in wanted if text_form(name) not in known]
    if not missing:
        return None
    return XmodelError(
        f"--compare format: {recipe.data.dir} does not have {', '.join(missing)} as text; put `as_text = true` under"
        f" {', '.join(f'[sources.{name}]' for name in missing)} in its sources file and run `xmodel2 data prepare` again"
    )


def score_formats(out: Path, names: Iterable[str], score: Score, most: int | None, say: Say) -> None:
    """Score the finished decays that have no line of ``most`` questions in formats.jsonl. Processes take turns."""
    (out / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(out / "locks" / "formats.lock"):
        rows = {row["name"]: row for row in read_json_lines(out / FORMATS_FILE)}
        for name in names:
            if name not in rows or rows[name]["questions"] != most:
                found = score(out / "decays" / name)
                append_json_line(out / FORMATS_FILE, {"name": name, "questions": most, "formats": found})
                losses = (f"{form} {scores['documents'] or math.nan:.4g}" for form, scores in found.items())
                say(f"{name}: answers in the format {', '.join(losses)}")


def format_rows(out: Path) -> dict[str, dict[str, Any]]:
    """Return the scores so far by name of the decay."""
    return {row["name"]: row["formats"] for row in read_json_lines(out / FORMATS_FILE)}
