"""The command that shows whether a model is as often right as it says."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from xmodel2.arguments import Flag, Model
from xmodel2.commands import importing_harness
from xmodel2.eval.model_options import DEFAULTS, ModelOptions


def calibrate(
    model: tyro.conf.Positional[str | None] = None,
    /,
    task: str = "mmlu",
    data_dir: Path | None = None,
    limit: int | None = None,
    out: Path | None = None,
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="DIR")] = None,
    options: Model = DEFAULTS,
    json: Flag = False,
) -> None:
    """Is the model as often right as it says (Figure 4)? Reliability diagram, calibration errors, temperature scaling.

    Example: xmodel2 calibrate runs/nano --data-dir data/eval --limit 100

    An evaluation that is there, of any backend: xmodel2 calibrate --from runs/nano/evaluation/step-200 --task arc_easy

    Args:
        model: run, checkpoint, model directory, hub id, or one of the report's rivals
        task: a multiple-choice task, such as mmlu or hellaswag
        data_dir: folder of benchmark files (default: the Hugging Face Hub)
        limit: items at most, the first ones, as many of each subject
        out: folder of the evaluation, and of calibration.json, .svg and .html (default: as of `xmodel2 eval`, or --from)
        from_: folder of a finished evaluation, which is read instead of asking a model
        json: print calibration.json
    """
    from xmodel2.errors import XmodelError, nearest
    from xmodel2.eval.tasks import TASKS
    from xmodel2.output import busy, print_json

    if (model is None) == (from_ is None):
        raise XmodelError("calibrate: give a MODEL to ask, or --from DIR to read what was asked")
    ignored = [name for name, value in (("--limit", limit), ("--data-dir", data_dir)) if value is not None]
    if from_ and (ignored := ignored + options.given()):
        raise XmodelError(f"calibrate: {', '.join(ignored)} would not be used: --from DIR reads what was asked")
    allowed = [name for name, known in TASKS.items() if known.multiple_choice]
    if task not in allowed:
        raise XmodelError(f"--task {task!r}: must be multiple choice: {', '.join(allowed)}.{nearest(task, allowed)}")
    folder = from_ if model is None else _evaluated(model, task, data_dir, limit, out, options)
    assert folder is not None
    from xmodel2.eval.calibration import calibrate_evaluation
    from xmodel2.eval.calibration_page import write_calibration

    with busy("calibrating"):
        found = calibrate_evaluation(folder, task)
        files = write_calibration(found, out or folder)
    print_json(found) if json else _print(found, files)


def _evaluated(
    model: str, task: str, data_dir: Path | None, limit: int | None, out: Path | None, options: ModelOptions
) -> Path:
    """Ask a model what its folder does not hold yet, and return that folder."""
    from xmodel2.errors import XmodelError
    from xmodel2.output import busy, progress_bars

    if limit is not None and limit < 1:
        raise XmodelError(f"--limit {limit}: must be 1 or more")
    with importing_harness("calibrate"):
        from xmodel2.eval.evaluation import evaluate
        from xmodel2.eval.hub import open_data
        from xmodel2.eval.open_model import default_folder, open_backend
    folder = out or default_folder(model)
    data = open_data(data_dir)
    with busy("loading"):
        backend = open_backend(model, options)
    with progress_bars() as progress:
        evaluate(backend, [task], folder, data, limit=limit, progress=progress)
    return folder


def _print(found: dict[str, Any], files: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    from xmodel2.eval.calibration_page import measure_rows, verdict
    from xmodel2.output import print_wide

    console = Console()
    shown = Table("", "as it is", "temperature scaled", box=None, pad_edge=False)
    for row in measure_rows(found):
        shown.add_row(*(cell.replace("[", "\\[") for cell in row))
    print_wide(shown)
    for line in (verdict(found), ", ".join(str(file) for file in files)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
