"""What a person sees while a run trains: a live line on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xmodel2.recipe import Recipe

MOST_EPOCHS = 4
"""Up to which tokens seen again teach nearly as much as new ones (arXiv 2305.16264)."""


def repetitions(epochs: Mapping[str, float]) -> str:
    """Return a line about the sources that a run goes through more often than pays, or nothing.

    >>> repetitions({"web": 0.2, "code": 7.4, "sft": 4.3})
    'read more than 4 times in all: code 7.4, sft 4.3; beyond that a repetition teaches less and less (arXiv 2305.16264)'
    """
    most = sorted(((count, name) for name, count in epochs.items() if count > MOST_EPOCHS), reverse=True)
    if not most:
        return ""
    named = ", ".join(f"{name} {count:,.1f}" for count, name in most[:3]) + (
        f" and {len(most) - 3} more" if most[3:] else ""
    )
    return f"read more than {MOST_EPOCHS} times in all: {named}; beyond that a repetition teaches less and less (arXiv 2305.16264)"


class TrainProgress:
    """Shows stage, loss, learning rate, tokens/s, MFU and time left."""

    def __init__(self, recipe: Recipe, start_step: int, shown: bool = True, plain_every_seconds: float = 20.0) -> None:
        """``shown``: whether this rank is the one that speaks."""
        self._total = recipe.total_steps
        self._started, self._start_step = time.perf_counter(), start_step
        self._plain_every, self._last_plain = plain_every_seconds, 0.0
        self._console = Console(stderr=True, quiet=not shown)
        self._live = shown and sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("[bold]{task.fields[stage]:<6}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("train", total=self._total, completed=start_step, stage="", text="compiling")

    def __enter__(self) -> "TrainProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(
        self,
        step: int,
        stage: str,
        loss: float,
        rate: float,
        tokens_per_second: float,
        mfu: float,
        nominal: float | None = None,
    ) -> None:
        """Show one finished step; ``nominal`` is the MFU with full attention over the data sheet's rate."""
        text = f"loss {loss:.3f}  lr {rate:.2e}  {tokens_per_second:,.0f} tok/s  MFU {mfu:.0%}"
        if nominal is not None:
            text += f" causal/measured, {nominal:.0%} full/data sheet"
        self._bar.update(self._task, completed=step, stage=stage, text=text)
        now = time.perf_counter()
        if not self._live and (now - self._last_plain > self._plain_every or step == self._total):
            self._last_plain = now
            pace = (now - self._started) / max(1, step - self._start_step)
            left = pace * (self._total - step)
            self.say(f"step {step}/{self._total} {stage}  {text}  {left:.0f} s left")

    def doing(self, text: str) -> None:
        """Show beside the bar what goes on between two steps."""
        self._bar.update(self._task, text=text)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
