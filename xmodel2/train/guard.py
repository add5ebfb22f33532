"""The guard: judges a step by its loss and gradient norm before the optimizer applies it.

    good --> go                     bad --> skip: the weights stay as they are, the next step has the next batch
    bad for the rollback_after-th time in a row --> roll back: to the last checkpoint before the trouble, and on without
        the batches of the bad steps and as many just before them (PaLM, section 5.1: those led into the spike)
    and again within 32 steps --> `DivergedError`: it is not the batches

Bad is what is not finite, or above the mean of the latest good steps by max_z_score deviations. All that a verdict depends
on is JSON in the checkpoint and in guard.json (which the checkpoint gone back to can't know), so a resumed run judges alike.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xmodel2.data.loader import Loader
from xmodel2.errors import XmodelError
from xmodel2.files import read_json
from xmodel2.recipe.settings import GuardSettings

GUARD_FILE = "guard.json"
"""In the run directory, written when the run goes back: `Guard.memory`."""
LEAST_STEPS = 32
"""Good steps before a spike is judged; steps after those passed over in which another rollback is no progress."""
LEAST_LOSS_DEVIATION = 0.02
"""Nats a token: below it a curve counts as flat, and noise in it is no spike."""
LEAST_NORM_DEVIATION = 0.2
"""The same for the natural logarithm of the gradient norm: at 10 deviations the norm is 7 times the usual one.

Measured on 900 steps of a healthy pico run (1,024 tokens each, windows of 128): deviations of 0.19 to 0.93 nats and 0.08 to
0.40, largest scores 2.2 and 8.7 without these bounds, 2.2 and 4.2 with them. Larger batches have flatter curves.
"""
MOST_DOCUMENTS = 64
"""Documents named in the line of a skipped step."""

Document = tuple[str, int, int]
"""Source, epoch, document."""


def rollback_reach(settings: GuardSettings) -> int:
    """Return how many steps before the newest checkpoint a rollback may at most go back beyond.

    Bad steps that are one short of a rollback may end at the newest one, and as many as they will be before them are passed
    over.
    """
    return 2 * settings.rollback_after - 1


def read_memory(run_dir: Path) -> dict[str, Any] | None:
    """Return guard.json's content, None without the file. Raises `XmodelError` if it is not what a guard wrote."""
    memory = read_json(run_dir / GUARD_FILE)
    if memory is None:
        return None
    try:
        rollbacks = [[rollback[key] for key in ("checkpoint", "from", "to")] for rollback in memory["rollbacks"]]
        steps = sum(rollbacks, [*memory["passed_over"]])
    except (KeyError, TypeError):
        steps = [None]
    if any(type(step) is not int for step in steps):
        raise XmodelError(
            f"{run_dir / GUARD_FILE}: wants steps in 'passed_over' and 'checkpoint', 'from' and 'to' of each of 'rollbacks';"
            " restore it, or remove it: then the run meets the batches again that it had passed over"
        )
    return dict(memory)


class DivergedError(XmodelError):
    """A run that went back and came to no better end: of this recipe and these data nothing more is to be expected."""


@dataclass(frozen=True)
class Verdict:
    """What to do with a step, and why."""

    action: Literal["go", "skip", "roll back"]
    reason: str = ""


class Guard:
    """Judges steps in their order; every rank has its own, gives it the same figures and gets the same verdicts."""

    def __init__(
        self, settings: GuardSettings, state: dict[str, Any] | None = None, memory: dict[str, Any] | None = None
    ) -> None:
        """Go on from ``state`` (of the checkpoint; None at step 0) and ``memory`` (guard.json's content, if there is one)."""
        self.settings = settings
        state, memory = state or {}, memory or {}
        self._stage: str = state.get("stage", "")
        self._losses = deque[float](state.get("losses", []), maxlen=settings.window)
        self._log_norms = deque[float](state.get("log_norms", []), maxlen=settings.window)
        self._bad: list[int] = list(state.get("bad", []))
        self.passed_over = set(state.get("passed_over", [])) | set(memory.get("passed_over", []))
        self._rollbacks: list[dict[str, int]] = max(state.get("rollbacks", []), memory.get("rollbacks", []), key=len)

    def state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        window = {"losses": list(self._losses), "log_norms": list(self._log_norms)}
        return {"stage": self._stage, **window, "bad": self._bad.copy(), **self.memory()}

    def memory(self) -> dict[str, Any]:
        """Return what goes into guard.json: what must outlive a rollback."""
        return {"passed_over": sorted(self.passed_over), "rollbacks": self._rollbacks}

    @property
    def in_trouble(self) -> bool:
        """Whether the last step was bad: no time for a checkpoint."""
        return bool(self._bad)

    def judge(self, step: int, stage: str, loss: float, grad_norm: float) -> Verdict:
        """Judge a step by its loss (nats a token) and its gradient norm before clipping."""
        if stage != self._stage:  # another mixture has another loss
            self._stage = stage
            self._losses.clear()
            self._log_norms.clear()
        reason = self._complaint(loss, grad_norm)
        if not reason:
            self._bad.clear()
            if grad_norm > 0:  # a batch without loss tokens says nothing of the next one
                self._losses.append(loss)
                self._log_norms.append(math.log(grad_norm))
            return Verdict("go")
        self._bad.append(step)
        return Verdict("roll back" if len(self._bad) >= self.settings.rollback_after else "skip", reason)

    def _complaint(self, loss: float, grad_norm: float) -> str:
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return f"loss {loss:g} with gradient norm {grad_norm:g}"
        found = [_spike("loss", loss, self._losses, LEAST_LOSS_DEVIATION, self.settings)]
        if grad_norm > 0:
            name = f"gradient norm {grad_norm:.4g}: its logarithm"
            found.append(_spike(name, math.log(grad_norm), self._log_norms, LEAST_NORM_DEVIATION, self.settings))
        return "; ".join(filter(None, found))

    def to_pass_over(self) -> range:
        """Return the steps that a rollback passes over; it goes back to a checkpoint before the first of them."""
        return range(max(1, self._bad[0] - len(self._bad)), self._bad[-1] + 1)

    def gone_back(
        self, checkpoint: int, state: dict[str, Any] | None, documents_of: Callable[[int], Sequence[Document]]
    ) -> "Guard":
        """Return the guard to go on with from the checkpoint of a step, of which ``state`` is the guard's own (None at 0).

        Raises `DivergedError` naming steps and documents if the last rollback was for about the same steps. (Not: to the
        same checkpoint; where checkpoints lie depends on when the run was stopped.)
        """
        steps, last = self.to_pass_over(), self._rollbacks[-1] if self._rollbacks else None
        if last and self._bad[0] - last["to"] <= LEAST_STEPS:
            raise DivergedError(_no_progress(last, self._bad, documents_of))
        rollback = {"checkpoint": checkpoint, "from": steps[0], "to": steps[-1]}
        memory = {"passed_over": [*self.passed_over, *steps], "rollbacks": [*self._rollbacks, rollback]}
        kept = [step for step in (state or {}).get("bad", []) if step not in steps]
        return Guard(self.settings, {**(state or {}), "bad": kept}, memory)


def state_of_branch(state: dict[str, Any] | None, step: int) -> dict[str, Any] | None:
    """Return the state in a checkpoint as a run has it that branches there, whose batches after ``step`` are others."""
    if state is None:
        return None
    return {**state, "passed_over": [passed for passed in state["passed_over"] if passed <= step], "rollbacks": []}


def _spike(name: str, value: float, window: deque[float], least_deviation: float, settings: GuardSettings) -> str:
    """Return what to say of a value too far above the window's mean, or an empty string."""
    if len(window) < min(LEAST_STEPS, settings.window) or not window:
        return ""
    mean = math.fsum(window) / len(window)
    deviation = max(least_deviation, math.dist(window, [mean] * len(window)) / math.sqrt(len(window)))
    score = (value - mean) / deviation
    if score <= settings.max_z_score:
        return ""
    return (
        f"{name} {value:.4g} is {score:.1f} deviations of {deviation:.3g} above {mean:.4g}, the mean of the last"
        f" {len(window)} good steps"
    )


def _no_progress(last: dict[str, int], bad: list[int], documents_of: Callable[[int], Sequence[Document]]) -> str:
    named = [document for step in bad for document in documents_of(step)]
    text = ", ".join(f"{source} {document} (epoch {epoch})" for source, epoch, document in named[:10])
    more = f" and {len(named) - 10} more" if len(named) > 10 else ""
    return (
        f"step {', '.join(map(str, bad))}: bad again, after steps {last['from']} to {last['to']} were passed over from"
        f" checkpoint step-{last['checkpoint']}; documents of these steps: {text}{more}; metrics.jsonl names those of every"
        " skipped step. If they are as they should be, raise guard.max_z_score, or guard.rollback_after to skip more steps in a"
        " row, and go on with --resume; otherwise begin again without the bad documents, or with a lower train.learning_rate"
    )


def batch_documents(loader: Loader, step: int) -> list[Document]:
    """Return what the batch of update ``step`` (from 1) holds, each document once, in its order."""
    rows = range((step - 1) * loader.batch_rows, step * loader.batch_rows)
    return list(dict.fromkeys(document for row in rows for document in loader.describe_row(row)))


def skip_record(
    step: int, stage: str, reason: str, loss: float, grad_norm: float, documents: Sequence[Document]
) -> dict[str, Any]:
    """Return the line of a skipped step for metrics.jsonl; what is not finite is text there, since JSON has no such number."""
    return {
        "step": step,
        "kind": "skipped",
        "stage": stage,
        "reason": reason,
        "loss": loss if math.isfinite(loss) else str(loss),
        "grad_norm": grad_norm if math.isfinite(grad_norm) else str(grad_norm),
        "documents": [list(document) for document in documents[:MOST_DOCUMENTS]],
        "documents_not_named": max(0, len(documents) - MOST_DOCUMENTS),
    }


def passed_over_record(step: int, stage: str) -> dict[str, Any]:
    """Return the line of a step that was passed over, unseen, for metrics.jsonl."""
    reason = "passed over: the run went back because of this batch, or of one soon after it"
    return {"step": step, "kind": "skipped", "stage": stage, "reason": reason}
