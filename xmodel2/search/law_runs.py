"""The runs of a scaling law: one stable stage a size and seed, and a decay from it for each length (MiniCPM, section 4.5).

    stable  |------------s1------------s2------------------------s3     trained once, as far as the longest needs
                          \\_ decay      \\_ decay                  \\_ decay      -> loss of (size, s1 + its decay), ...

Every length has the recipe's shape: its share of decay, and its half-life stretched with it. So m lengths cost the longest and
m decays, where training each from the beginning would cost the sum of all.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.model.count import block_parameter_count, flops_per_token, parameter_count
from xmodel2.recipe import Recipe, replace
from xmodel2.search.law_points import Row
from xmodel2.search.sizes import at_width, size_name
from xmodel2.search.trial import last_heldout, mean_text_loss
from xmodel2.search.trials import forget_other_shapes
from xmodel2.train import read_metrics, train
from xmodel2.train.checkpoint import checkpoint_steps
from xmodel2.train.guard import DivergedError


@dataclass(frozen=True)
class Job:
    """A run to make: the recipe at one size, seed and length."""

    recipe: Recipe
    begins: int
    """Steps of the stable stage that the next shorter run of its size needs too."""
    longest: int
    """Steps of the stable stage that the longest one needs."""

    @property
    def size(self) -> str:
        """Width x depth."""
        return size_name(self.recipe.model)

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return self.recipe.total_steps * self.recipe.train.batch_tokens

    @property
    def key(self) -> tuple[str, int, int]:
        """What a result is known by."""
        return self.size, self.tokens, self.recipe.seed

    @property
    def flops(self) -> float:
        """Of its decay, and of the stable stage from where the next shorter run's ends."""
        recipe = self.recipe
        tokens = (recipe.total_steps - self.begins) * recipe.train.batch_tokens
        return tokens * flops_per_token(recipe.model, recipe.data.sequence_length)

    def row(self, loss: float = math.nan, seconds: float = 0.0, ended: str = "") -> Row:
        """Return its result."""
        model, batch = self.recipe.model, self.recipe.train.batch_tokens
        return Row(
            block_parameter_count(model),
            self.tokens,
            loss,
            self.recipe.seed,
            parameter_count(model),
            self.size,
            self.recipe.decay_steps * batch,
            seconds,
            ended,
        )


def jobs_of(recipe: Recipe, width: int, lengths: Sequence[int], seed: int) -> list[Job]:
    """Return the runs of one size and seed, shortest first; ``lengths`` in tokens, rounded to whole steps.

    Raises `XmodelError` if the width has no heads of the recipe's width, or a length leaves no stable stage.
    """
    sized = replace(at_width(recipe, width), {"seed": seed})
    recipes = sorted((at_length(sized, tokens) for tokens in lengths), key=lambda r: r.total_steps)
    distinct = list({r.total_steps: r for r in recipes}.values())
    begins = [0, *(r.stable_steps for r in distinct)]
    return [Job(r, begin, distinct[-1].stable_steps) for r, begin in zip(distinct, begins, strict=False)]


def at_length(recipe: Recipe, tokens: int) -> Recipe:
    """Return the recipe stretched or shortened to ``tokens`` in all: warm-up as it is, decay and half-life in proportion."""
    train = recipe.train
    if train.schedule != "wsd" or not recipe.decay_steps:
        raise XmodelError(
            "recipe: a scaling law branches decays from one stable stage, so it needs train.schedule = 'wsd' and"
            " stages.decay.tokens above 0"
        )
    share = recipe.decay_steps / recipe.total_steps
    total = round(tokens / train.batch_tokens)
    decay = max(1, round(total * share))
    if total - decay < max(1, train.warmup_steps):
        least = math.ceil(max(1, train.warmup_steps) / (1 - share) + 1) * train.batch_tokens
        raise XmodelError(
            f"--tokens {tokens:,}: are {total} steps, and without the {decay} of the decay fewer than the"
            f" {train.warmup_steps} of the warm-up (train.warmup_steps); give at least {least:,}"
        )
    half_life = max(1, round(train.decay_half_life_steps * decay / recipe.decay_steps))
    return replace(
        recipe,
        {
            "stages.stable.tokens": (total - decay) * train.batch_tokens,
            "stages.decay.tokens": decay * train.batch_tokens,
            "train.decay_half_life_steps": half_life,
            "train.heldout_every": 0,
        },
    )


def run_job(job: Job, runs: Path) -> Row:
    """Make a run, in ``runs/SIZE-seed-N``, going on with what is there, and return its result; diverging is one.

    Raises KeyboardInterrupt if a signal stopped it, saved.
    """
    forget_other_shapes(job.recipe)
    begin, folder = time.perf_counter(), runs / f"{job.size}-seed-{job.recipe.seed}"
    run_dir = folder / f"decay-{job.recipe.stable_steps}-{job.recipe.decay_steps}"
    try:
        stable = _stable_run(job, folder)
        result = train(
            job.recipe, run_dir, resume=True, branch_from=f"{stable}@{job.recipe.stable_steps}", progress=False
        )
    except DivergedError as error:
        return job.row(seconds=time.perf_counter() - begin, ended=f"diverged: {error}")
    if not result.finished:
        raise KeyboardInterrupt
    loss = mean_text_loss(last_heldout(read_metrics(run_dir), job.recipe))
    ended = "" if math.isfinite(loss) else "diverged: the held-out loss is not finite"
    return job.row(loss, time.perf_counter() - begin, ended)


def _stable_run(job: Job, folder: Path) -> Path:
    """Return a run with a checkpoint where the decay begins: one that has it, the common one taken there, or a new one."""
    step = job.recipe.stable_steps
    for run_dir in sorted(folder.glob("stable-*")):
        if step in checkpoint_steps(run_dir):
            return run_dir
    run_dir, last = folder / f"stable-{job.longest}", job.longest
    if max(checkpoint_steps(run_dir), default=0) > step:  # a length between others, asked for later
        run_dir, last = folder / f"stable-{step}", step
    tokens = last * job.recipe.train.batch_tokens
    without_decay = {"stages.stable.tokens": tokens, "stages.decay.tokens": 0, "train.decay_half_life_steps": 1}
    stable = replace(job.recipe, without_decay)
    if train(stable, run_dir, resume=True, stop_after=step, progress=False).step < step:
        raise KeyboardInterrupt
    return run_dir
