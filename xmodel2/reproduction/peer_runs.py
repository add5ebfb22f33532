"""The runs of both sides: each is made once, and is a line of results.jsonl; a run that a kill cut off is made again.

ours   runs/rate-R/SIZE-seed-N/   one stable stage a seed, decays branched from it   (goes on from its checkpoint)
peer   one `Trainer.train`, no checkpoints                                            (begins again)
"""

import math
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from xmodel2.files import append_json_line, read_json_lines
from xmodel2.recipe import Recipe, replace
from xmodel2.reproduction.peer_speed import measure_speed
from xmodel2.reproduction.peer_trainer import PeerRun, train_peer
from xmodel2.search.law_runs import jobs_of, run_job
from xmodel2.search.rates import at_rate

RESULTS_FILE = "results.jsonl"

Line = dict[str, Any]
Say = Callable[[str], None]


class PeerRuns:
    """The folder of a comparison: recipe.toml, results.jsonl, runs/."""

    def __init__(self, recipe: Recipe, out: Path, planned: int, say: Say) -> None:
        """``planned``: runs in all, as far as they are known before the first."""
        self._recipe, self._out, self._say = recipe, out, say
        self._planned, self._asked = planned, set[str]()
        self.tokens = recipe.total_steps * recipe.train.batch_tokens

    def tuned(self, multiple: float) -> float:
        """Return our loss at a multiple of the recipe's rate, first seed, full length; its run is not kept."""
        folder = f"tune-{multiple:g}"
        loss = self.ours(multiple, self._recipe.seed, [self.tokens], folder)[self.tokens]
        shutil.rmtree(self._out / "runs" / folder, ignore_errors=True)
        return loss

    def ours(self, multiple: float, seed: int, lengths: Sequence[int], folder: str = "") -> dict[int, float]:
        """Return our loss by length in tokens."""
        recipe = at_rate(self._recipe, multiple)
        losses = {}
        for job in jobs_of(recipe, recipe.model.hidden_size, lengths, seed):

            def made(job: Any = job) -> Line:
                row = run_job(job, self._out / "runs" / (folder or f"rate-{multiple:g}"))
                return {"loss": row.loss, "ended": row.ended}

            losses[job.tokens] = self._loss({"run": "ours", "rate": multiple, "seed": seed, "tokens": job.tokens}, made)
        return losses

    def peer(self, rate: float, seed: int, measured_at: Collection[int] = ()) -> Line:
        """Return a line of the peer: loss, loss_masked, and curve of [tokens, loss]."""
        recipe = replace(self._recipe, {"seed": seed})
        batch = recipe.train.batch_tokens

        def made() -> Line:
            run: PeerRun = train_peer(recipe, rate, self._out / "trainer", measured_at)
            curve = [[step * batch, _number(loss)] for step, loss in sorted(run.curve.items())]
            return {"loss": run.loss, "loss_masked": _number(run.loss_masked), "curve": curve}

        key = {"run": "peer", "rate": rate, "seed": seed, "tokens": self.tokens}
        self._loss(key, made)
        return self._known(key) or {}

    def speed(self, rounds: int) -> Line:
        """Return what `measure_speed` found."""
        key = {"run": "speed", "rounds": rounds}
        if (line := self._known(key)) is None:
            self._say("speed: rounds of both sides in turn, after compiling")
            line = key | measure_speed(self._recipe, self._out / "trainer", rounds)
            append_json_line(self._out / RESULTS_FILE, line)
        return line

    def _known(self, key: Line) -> Line | None:
        lines = read_json_lines(self._out / RESULTS_FILE)
        return next((line for line in lines if key.items() <= line.items()), None)

    def _loss(self, key: Line, make: Callable[[], Line]) -> float:
        """Return a run's loss, NaN if it diverged; make it if results.jsonl has no line of it."""
        line = self._known(key)
        self._asked.add(str(key))
        if line is None:
            began = time.perf_counter()
            line = key | make() | {"seconds": time.perf_counter() - began}
            line["loss"] = _number(line["loss"])
            append_json_line(self._out / RESULTS_FILE, line)
            gave = "diverged" if line["loss"] is None else f"loss {line['loss']:.4f}"
            count = len(self._asked)
            what = f"{key['run']}, rate {key['rate']:g}, seed {key['seed']}, {key['tokens']:,} tokens"
            self._say(f"{count}/{max(count, self._planned)}  {what}: {gave}  ({line['seconds']:.0f} s)")
        return math.nan if line["loss"] is None else float(line["loss"])


def _number(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
