"""A new decay from a stable checkpoint of another run: what Warmup-Stable-Decay is for (arXiv 2404.06395, section 4.3).

    train decay.toml --branch-from runs/a@5000   ->   stable ends at step 5000, with that run's state; then decay.toml's decay

Up to that step the two runs are one, so everything that shaped it must be the same: only the decay may differ. The checkpoint
becomes the branch's own first one, its tensors as links to the same files: neither run needs the other from there on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import read_json, write_json_atomic
from xmodel2.recipe import Recipe, load_recipe, replace
from xmodel2.train.checkpoint import check_files, checkpoint_steps, read_state
from xmodel2.train.checkpoint_writer import take_over
from xmodel2.train.guard import state_of_branch
from xmodel2.train.run_dir import BRANCH_FILE, FREE, INIT_FILE, RECIPE_FILE, differences, open_run_dir

_DECAY = {
    "stages.stable.tokens",
    "train.decay_shape",
    "train.decay_half_life_steps",
    "train.final_learning_rate_share",
}


@dataclass(frozen=True)
class Origin:
    """A run and one of its checkpoints."""

    run_dir: Path
    step: int

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoint."""
        return self.run_dir / "checkpoints" / f"step-{self.step}"


def branched(recipe: Recipe, branch_from: str, run_dir: Path | None = None) -> Recipe:
    """Return the recipe with a stable stage that ends at the step of ``branch_from`` ("RUN@STEP", "RUN@stable").

    A branch in ``run_dir`` that has a checkpoint needs the run no more. Raises `XmodelError` if there is no such
    checkpoint, it is not of the stable stage, or more than the decay differs.
    """
    if run_dir and (run_dir / INIT_FILE).exists():
        raise _of_its_own(run_dir)
    note = _note(run_dir) if run_dir else None
    if run_dir and note and checkpoint_steps(run_dir):
        run, _, step = branch_from.rpartition("@")
        if (str(Path(run).resolve()), step) not in ((note["run"], name) for name in ("stable", str(note["step"]))):
            raise _of_another(run_dir, note)
        return replace(recipe, {"stages.stable.tokens": note["step"] * recipe.train.batch_tokens})
    origin, before = _find(branch_from)
    if not recipe.decay_steps:
        raise XmodelError("recipe: stages.decay.tokens is 0; a branch is a decay, so give it a length")
    if recipe.train.schedule != "wsd":
        raise XmodelError("recipe: train.schedule is 'cosine', which has no stable stage to branch from; use 'wsd'")
    changed = [
        f"{key} was {a!r}, is {b!r}"
        for key, a, b in differences(before, recipe)
        if key not in FREE | _DECAY and not key.startswith("stages.decay.")
    ]
    if changed:
        raise XmodelError(
            f"{origin.run_dir}: cannot be branched from with a recipe that differs in more than its decay"
            f" ({'; '.join(changed)}); set these as in {origin.run_dir / RECIPE_FILE}"
        )
    precision = before.train.precision if recipe.train.precision == "auto" else recipe.train.precision
    tokens = origin.step * recipe.train.batch_tokens
    return replace(recipe, {"stages.stable.tokens": tokens, "train.precision": precision})


def open_run(
    recipe: Recipe, run_dir: Path, resume: bool, data: str, branch_from: str | None = None
) -> tuple[Path | None, Recipe]:
    """Open a run directory as `open_run_dir` does; a branch without a checkpoint of its own takes over its origin's.

    ``recipe`` is `branched` already, and ``data`` the fingerprint of the data at hand.
    """
    note = _note(run_dir)
    own, recipe = open_run_dir(recipe, run_dir, resume, data)
    if own is not None and branch_from and not note:
        raise _of_its_own(run_dir)
    if own is not None or not (branch_from or note):
        return own, recipe
    if branch_from:
        origin = _find(branch_from)[0]
    else:
        assert note is not None
        origin = Origin(Path(note["run"]), note["step"])
    if recipe.stable_steps != origin.step:
        raise XmodelError(f"{run_dir}: was begun as a branch; give --branch-from {origin.run_dir}@{origin.step} again")
    if note and (note["run"], note["step"]) != (str(origin.run_dir.resolve()), origin.step):
        raise _of_another(run_dir, note)
    check_files(origin.checkpoint)
    if read_state(origin.checkpoint)["data"] != data:
        raise XmodelError(
            f"{recipe.data.dir}: is not the data that {origin.run_dir} was trained on (its index differs); point data.dir"
            " at that data"
        )
    if not note:  # before the checkpoint: a run that has one and no note is a run of its own
        write_json_atomic(run_dir / BRANCH_FILE, {"run": str(origin.run_dir.resolve()), "step": origin.step})
    return _taken_over(origin, run_dir, recipe), recipe


def _note(run_dir: Path) -> dict[str, Any] | None:
    """Return what a branch says of its origin; None for a run of its own. Raises `XmodelError` if it says something else."""
    note = read_json(run_dir / BRANCH_FILE)
    if note is None:
        return None
    if not (isinstance(note, dict) and isinstance(note.get("run"), str) and type(note.get("step")) is int):
        raise XmodelError(
            f"{run_dir / BRANCH_FILE}: wants the run that this one comes from in 'run', and its step, a number, in 'step';"
            " restore it, or begin the branch again in another --out"
        )
    return note


def _of_its_own(run_dir: Path) -> XmodelError:
    return XmodelError(f"{run_dir}: is a run of its own, not a branch; choose another --out")


def _of_another(run_dir: Path, note: dict[str, Any]) -> XmodelError:
    return XmodelError(f"{run_dir}: is a branch of {note['run']}@{note['step']}; choose another --out")


def _taken_over(origin: Origin, run_dir: Path, recipe: Recipe) -> Path:
    """Return the origin's checkpoint as one of the branch's own."""
    state = read_state(origin.checkpoint)
    state["guard"] = state_of_branch(state.get("guard"), origin.step)
    return take_over(origin.checkpoint, run_dir / "checkpoints" / origin.checkpoint.name, recipe, state, moments=True)


def _find(branch_from: str) -> tuple[Origin, Recipe]:
    """Return the checkpoint that is meant, which is there and of the stable stage, and its run's recipe."""
    run, separator, step_text = branch_from.rpartition("@")
    if not (separator and run and (step_text == "stable" or step_text.isdecimal())):
        raise XmodelError(f"--branch-from {branch_from!r}: write it as RUN@STEP, such as runs/nano@2000, or RUN@stable")
    run_dir = Path(run)
    if not (run_dir / RECIPE_FILE).exists():
        raise XmodelError(f"--branch-from {branch_from}: {run_dir} is not a run directory (no {RECIPE_FILE})")
    recipe = load_recipe(run_dir / RECIPE_FILE)
    step = recipe.stable_steps if step_text == "stable" else int(step_text)
    there = [
        number for number in checkpoint_steps(run_dir) if recipe.train.warmup_steps <= number <= recipe.stable_steps
    ]
    if step not in there:
        why = "has no checkpoint"
        if step > recipe.total_steps:
            why = "is beyond the end"
        elif step > recipe.stable_steps:
            why = "is of the decay stage"
        elif step < recipe.train.warmup_steps:
            why = "is of the warm-up"
        listed = ", ".join(map(str, there)) or "none"
        raise XmodelError(
            f"--branch-from {branch_from}: step {step} {why}; to branch from there are: {listed}"
            " (train.keep_checkpoint_every keeps some for good)"
        )
    return Origin(run_dir, step), recipe
