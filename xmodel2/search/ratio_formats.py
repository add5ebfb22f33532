"""The same instruction documents in the decay as chats and as plain text, each scored in both formats.

data with as_text -> two decays a seed -> formats.jsonl: their scores in both formats -> a table of paired differences
"""

from collections.abc import Iterable, Sequence
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


def missing_texts(recipe: Recipe) -> list[str]:
    """Return the recipe's instruction sources that its data do not have as text."""
    known = read_index(recipe.data.dir)["sources"]
    wanted = [name for name, share in recipe.stages.decay.sft_mixture.items() if share > 0]
    return [name for name in wanted if text_form(name) not in known]


def no_texts(recipe: Recipe, missing: Sequence[str]) -> XmodelError:
    """Return the error for data that were prepared without the texts."""
    return XmodelError(
        f"--compare format: {recipe.data.dir} does not have {', '.join(missing)} as text; put `as_text = true` under"
        f" {', '.join(f'[sources.{name}]' for name in missing)} in its sources file and run `xmodel2 data prepare` again"
    )


def score_formats(out: Path, names: Iterable[str], score: Score, say: Say) -> None:
    """Score the finished decays that have no line in formats.jsonl yet. Of several processes, one does it at a time."""
    (out / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(out / "locks" / "formats.lock"):
        done = format_rows(out)
        for name in names:
            if name not in done:
                found = score(out / "decays" / name)
                append_json_line(out / FORMATS_FILE, {"name": name, "formats": found})
                losses = ", ".join(f"{form} {scores['documents']:.4g}" for form, scores in found.items())
                say(f"{name}: answers as {losses}")


def format_rows(out: Path) -> dict[str, dict[str, Any]]:
    """Return the scores so far by name of the decay."""
    return {row["name"]: row["formats"] for row in read_json_lines(out / FORMATS_FILE)}
