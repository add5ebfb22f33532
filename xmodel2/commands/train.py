"""Commands on a recipe: train it, or say what training it would cost."""

import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import tyro

from xmodel2.arguments import Flag, Overrides
from xmodel2.commands import INTERRUPTED

if TYPE_CHECKING:
    from xmodel2.recipe import Recipe
    from xmodel2.train.evaluation import Evaluate


def train(
    recipe: tyro.conf.Positional[Path],
    /,
    set: Overrides = (),
    out: Path | None = None,
    resume: Flag = False,
    branch_from: str | None = None,
    init_from: Path | None = None,
    profile: Flag = False,
) -> int:
    """Train both stages of a recipe: stable, then decay with instruction data.

    Example: xmodel2 train recipes/nano.toml --set train.learning_rate=0.02 --out runs/nano --resume

    On several GPUs: torchrun --nproc-per-node 8 -m xmodel2.cli train recipes/xmodel2-1.2b.toml --resume

    Another decay: xmodel2 train recipes/nano.toml --branch-from runs/nano@stable --set stages.decay.sft_share=0.3 --out runs/b

    Fine-tuning: xmodel2 train chat.toml --init-from runs/base --out runs/tuned

    Args:
        recipe: recipe file
        set: override a key of the recipe; may be repeated
        out: run directory (default: runs/NAME)
        resume: go on from the newest checkpoint in the run directory
        branch_from: RUN@STEP or RUN@stable: begin with the decay, at that checkpoint of another run
        init_from: run or checkpoint whose weights a new run begins with, and whose model it has if the recipe names none
        profile: trace a few steps into RUN/profile and print the ten costliest operations
    """
    from xmodel2.errors import XmodelError
    from xmodel2.output import Unfailing
    from xmodel2.recipe import load_recipe
    from xmodel2.train import train as run
    from xmodel2.train.world import rank_of_process

    settings = load_recipe(recipe, set)
    if out is None and (settings.name == ".." or Path(settings.name).parts != (settings.name,)):
        raise XmodelError(
            f"recipe: name = {settings.name!r} is no name of a folder in runs/; choose one, or give --out"
        )
    run_dir = out or Path("runs") / settings.name
    evaluate = _evaluator(settings)
    with redirect_stderr(cast(IO[str], Unfailing(sys.stderr))):
        result = run(
            settings, run_dir, resume, branch_from=branch_from, init_from=init_from, profile=profile, evaluate=evaluate
        )
    if rank_of_process():
        return 0 if result.finished else INTERRUPTED
    if result.finished and result.loss is None:
        print(f"{result.run_dir}: already finished at step {result.step}")
    elif result.finished:
        print(f"{result.run_dir}: finished at step {result.step}, loss {result.loss:.4f}")
    return 0 if result.finished else INTERRUPTED


def _evaluator(recipe: "Recipe") -> "Evaluate | None":
    """Return what scores the run while it trains, its tasks and data checked; ranks other than 0 only know that there is one."""
    from xmodel2.errors import XmodelError
    from xmodel2.train.world import rank_of_process

    if not recipe.evaluation.every:
        return None
    if rank_of_process():
        return lambda snapshot, alive: {}
    try:
        from xmodel2.eval.in_training import InTraining
    except ModuleNotFoundError as error:
        raise XmodelError(f"evaluation.every needs the harness ({error}): pip install 'xmodel2[eval]'") from None
    return InTraining(recipe)


def average(
    run: tyro.conf.Positional[Path],
    /,
    *,
    out: Path,
    last: int | None = None,
    steps: tuple[int, ...] = (),
    decay: str = "mean",
    overwrite: Flag = False,
) -> None:
    """Average the weights of several checkpoints: an early look at the decayed model, without a decay.

    Example: xmodel2 average runs/nano --last 4 --out runs/nano-average && xmodel2 eval runs/nano-average

    Args:
        run: run directory
        out: checkpoint directory to write, which eval, export and chat take
        last: average so many of the newest checkpoints
        steps: or those of these steps
        decay: how they are weighed: mean, ema:FACTOR, or half-life[:STEPS], which stands for a decay of that half-life
        overwrite: replace an earlier average in that directory
    """
    from xmodel2.train.average import average_checkpoints

    averaged = average_checkpoints(run, out, last, steps, decay, overwrite)
    weights = zip(averaged["steps"], averaged["weights"], strict=True)
    print(f"{out}: {', '.join(f'{weight:.3f} x step {step}' for step, weight in weights)}")


def plan(
    recipe: tyro.conf.Positional[Path],
    /,
    set: Overrides = (),
    devices: int = 1,
    device: str = "h200",
    mfu: float | None = None,
    measured: Path | None = None,
    price_per_hour: float | None = None,
    json: Flag = False,
) -> None:
    """Parameters, FLOPs, memory by part, layouts that fit, days and cost of a recipe, before anything is paid for.

    Example: xmodel2 plan recipes/xmodel2-1.2b.toml --devices 8 --device h200 --price-per-hour 3.20

    Args:
        recipe: recipe file
        set: override a key of the recipe; may be repeated
        devices: how many there are: the processes of torchrun; with the device cpu they share this machine
        device: h100, h200, b200, a100-80gb, a100-40gb, l40s, rtx-4090 or cpu
        mfu: share of the device's FLOP/s that training reaches, as metrics.jsonl states it
        measured: run directory to read that share from
        price_per_hour: US dollars an hour of one device
        json: print one JSON object
    """
    from xmodel2.output import print_json
    from xmodel2.recipe import load_recipe
    from xmodel2.train.plan import plan_run
    from xmodel2.train.plan_table import print_plan

    result = plan_run(load_recipe(recipe, set), devices, device, mfu, price_per_hour, measured)
    if json:
        print_json(result)
    else:
        print_plan(result)
