"""Decays to be compared: many ends of one stable stage, each a run directory and a line of results.jsonl.

    stable run (seed, rate) --checkpoint--> decay (steps, shape, SFT share, mixture) --> losses, scores --> a line, appended
    cosine run (seed, rate): both stages from the beginning under one cosine; the same tokens in the same order

A branch has its stable run's seed (weights and order of the data are one draw), so another seed is another stable run. All
decays are made in one process, which compiles the model once; several processes may work on one directory, each takes what no
other has. A kill loses the decay in progress back to its last checkpoint.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import append_json_line, having, read_json_lines, sha256_file
from xmodel2.recipe import Recipe, replace
from xmodel2.search.decay import Decay
from xmodel2.search.rates import at_rate
from xmodel2.search.setting import same_setting
from xmodel2.search.trial import last_heldout, mean_text_loss
from xmodel2.train import read_metrics, train
from xmodel2.train.checkpoint import MANIFEST_FILE, checkpoint_steps
from xmodel2.train.guard import DivergedError

Row = dict[str, Any]
Score = Callable[[Path], dict[str, Any]]
"""Scores of a finished run, by name; `answers` and `accuracy` are known to the comparisons."""
Say = Callable[[str], None]

RESULTS_FILE = "results.jsonl"


class DecayRuns:
    """The directory of a comparison: recipe.toml, stable/, decays/, results.jsonl."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        every: int,
        origins: Mapping[int, Path],
        score: Score,
        say: Say = lambda text: None,
    ) -> None:
        """``every``: steps between checkpoints that stable runs keep; ``origins``: stable runs that are there, by seed.

        Raises `XmodelError` if the directory began with another recipe or other data, or a checkpoint is not what its decays
        began with.
        """
        self.out, self.every, self.origins = Path(out), every, dict(origins)
        self.recipe = same_setting(recipe, self.out)
        self.score, self.say = score, say
        self._seconds, self._steps = 0.0, 0
        self._diverged: dict[Path, DivergedError] = {}
        self._same_checkpoints()

    def rows(self) -> dict[str, Row]:
        """Return the results so far by name of the decay, its last ones; a line torn by a kill is passed over."""
        return {row["name"]: row for row in read_json_lines(self.out / RESULTS_FILE)}

    def make(self, decays: Sequence[Decay]) -> None:
        """Make the decays that have no result yet; returns when all have one, those that other processes make too.

        Raises `XmodelError` if a stable run that is there kept no checkpoint where a decay is to begin; KeyboardInterrupt,
        everything saved, after a signal.
        """
        left, wait = self._without_result(decays), 0.0
        self._check_checkpoints(left)
        while left:
            for decay in left:
                with self._alone(decay.name, wait) as alone:
                    if alone and decay.name not in self.rows():
                        self._make(decay, self._without_result(left))
            left, wait = self._without_result(left), 1.0

    def score_again(self, asked: int) -> None:
        """Score by ``asked`` questions what was scored by another number: rows that are compared have the same ones."""
        for name in self.rows():
            with self._alone(name):
                row = self.rows()[name]
                if row.get("questions", asked) != asked:
                    again = row | self.score(self.out / "decays" / name)
                    append_json_line(self.out / RESULTS_FILE, again)
                    self.say(f"{name}, by {asked:,} questions, not {row['questions']:,}: {', '.join(_scores(again))}")

    def stable_dir(self, decay: Decay) -> Path:
        """Return the stable run that a decay begins with."""
        own = f"seed{decay.seed}" + (f"_rate{decay.rate:g}" if decay.rate != 1 else "")
        given = self.origins.get(decay.seed) if decay.rate == 1 else None
        return given or self.out / "stable" / own

    def _without_result(self, decays: Sequence[Decay]) -> list[Decay]:
        rows = self.rows()
        return [decay for decay in decays if decay.name not in rows]

    def _make(self, decay: Decay, left: Sequence[Decay]) -> None:
        begin, run_dir, ended = time.perf_counter(), self.out / "decays" / decay.name, ""
        recipe, stable = decay.recipe(self.recipe), None
        try:
            if decay.schedule == "wsd":
                stable = self._stable(decay)
            branch_from = f"{stable}@{decay.step}" if stable else None
            self._train(recipe, run_dir, branch_from)
        except DivergedError as error:
            ended = f"diverged: {error}"
        row = self._row(decay, recipe, run_dir, ended)
        seconds = time.perf_counter() - begin
        row |= {"origin": self._manifest(decay) if stable else None, "wall_seconds": seconds}
        append_json_line(self.out / RESULTS_FILE, row)
        self._seconds, self._steps = self._seconds + seconds, self._steps + decay.own_steps
        ahead = self._steps_of([other for other in left if other != decay]) * self._seconds / self._steps
        done = ended or ", ".join(_scores(row))
        self.say(f"{decay.name}: {done}; {seconds:.0f} s, {len(left) - 1} left: about {ahead:.0f} s")

    def _steps_of(self, decays: Sequence[Decay]) -> int:
        """Return the steps that decays will take, with those of the stable stages that they lack."""
        lacking = {self.stable_dir(decay) for decay in decays if decay.schedule == "wsd" and not self._is_there(decay)}
        return sum(decay.own_steps for decay in decays) + len(lacking) * self.recipe.stable_steps

    def _is_there(self, decay: Decay) -> bool:
        run_dir = self.stable_dir(decay)
        return run_dir in self.origins.values() or self.recipe.stable_steps in checkpoint_steps(run_dir)

    def _stable(self, decay: Decay) -> Path:
        """Return the run to branch from, trained to the end of its stable stage."""
        run_dir = self.stable_dir(decay)
        if run_dir in self._diverged:
            raise self._diverged[run_dir]
        if self._is_there(decay):
            return run_dir
        settings = {
            "name": run_dir.name,
            "seed": decay.seed,
            "stages.decay.tokens": 0,
            "train.checkpoint_every": self.every,
            "train.keep_checkpoint_every": self.every,
        }
        with self._alone(run_dir.name):  # another process may be training it
            self.say(f"stable stage, {run_dir.name}: {self.recipe.stable_steps} steps")
            try:
                self._train(replace(at_rate(self.recipe, decay.rate), settings), run_dir, None)
            except DivergedError as error:
                self._diverged[run_dir] = error
                raise
            self._steps += self.recipe.stable_steps
        return run_dir

    def _train(self, recipe: Recipe, run_dir: Path, branch_from: str | None) -> None:
        result = train(recipe, run_dir, resume=True, branch_from=branch_from, progress=False)
        if not result.finished:
            raise KeyboardInterrupt

    def _row(self, decay: Decay, recipe: Recipe, run_dir: Path, ended: str) -> Row:
        row: Row = {
            "name": decay.name,
            **asdict(decay),
            "tokens": recipe.total_steps * recipe.train.batch_tokens,
            "learning_rate": recipe.train.learning_rate,
            "ended": ended,
        }
        if ended:
            return row
        lines = read_metrics(run_dir)
        heldout = last_heldout(lines, recipe)
        losses = {name: source["loss"] for name, source in heldout.items()}
        sft = [losses[name] for name in self.recipe.stages.decay.sft_mixture if name in losses]
        return {
            **row,
            "text": mean_text_loss(heldout),
            "sft": sum(sft) / len(sft) if sft else None,
            "heldout": losses,
            **self.score(run_dir),
            "seconds": sum(line["seconds"] for line in lines if "seconds" in line),
        }

    def _alone(self, name: str, timeout: float = -1) -> AbstractContextManager[bool]:
        """Yield whether this process has the work of that name to itself."""
        return having(self.out / "locks" / f"{name}.lock", timeout)

    def _check_checkpoints(self, decays: Sequence[Decay]) -> None:
        for decay in decays:
            run_dir = self.stable_dir(decay)
            if decay.schedule != "wsd" or not self._is_there(decay):
                continue
            kept = checkpoint_steps(run_dir)
            if decay.step not in kept:
                raise XmodelError(
                    f"{run_dir}: kept checkpoints at steps {', '.join(map(str, sorted(kept)))}, and a decay is to begin at"
                    f" {decay.step}; give --checkpoints as the first time, or choose another --out"
                )

    def _same_checkpoints(self) -> None:
        fields = Decay.__dataclass_fields__
        for row in self.rows().values():
            decay = Decay(**{key: row[key] for key in fields})
            if row["origin"] and row["origin"] != self._manifest(decay):
                raise XmodelError(
                    f"{self._checkpoint(decay)}: is not the checkpoint that the decays in {self.out} began with (it was"
                    " changed or removed); put it back, or choose another --out"
                )

    def _checkpoint(self, decay: Decay) -> Path:
        return self.stable_dir(decay) / "checkpoints" / f"step-{decay.step}"

    def _manifest(self, decay: Decay) -> str | None:
        path = self._checkpoint(decay) / MANIFEST_FILE
        return sha256_file(path) if path.exists() else None


def _scores(row: Row) -> list[str]:
    return [f"{key} {row[key]:.4g}" for key in ("text", "sft", "answers", "accuracy") if row.get(key) is not None]
