"""How an episode ended, in a word: what to look at when a score is low."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

OUTCOMES = ("solved", "wrong", "out of steps", "repeats itself", "malformed actions", "environment error")
_HALF = 0.5


def outcome_of(steps: Sequence[Mapping[str, Any]], solved: bool, failed: bool) -> str:
    """Return one of `OUTCOMES`; ``failed`` is of the environment.

    An episode that came to no end is put down to what fills half of it: actions that cannot be done, or one thing said again
    and again.

    >>> again = {"thought": "", "action": "look", "valid": True, "done": False}
    >>> outcome_of([again] * 5, solved=False, failed=False)
    'repeats itself'
    """
    if failed:
        return "environment error"
    if solved:
        return "solved"
    if steps and steps[-1]["done"]:
        return "wrong"
    half = _HALF * len(steps)
    if sum(not step["valid"] for step in steps) > half:
        return "malformed actions"
    said = Counter((step["thought"] if not step["action"] else "", step["action"]) for step in steps)
    return "repeats itself" if len(steps) > 2 and max(said.values()) > half else "out of steps"
