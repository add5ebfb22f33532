"""The command that evaluates a model."""

from pathlib import Path

import tyro

from xmodel2.arguments import Flag
from xmodel2.output import busy, print_json, print_results


def evaluate(
    model: tyro.conf.Positional[Path],
    /,
    suite: str = "heldout,reasoning",
    tasks: str = "",
    data_dir: Path | None = None,
    limit: int | None = None,
    out: Path | None = None,
    json: Flag = False,
) -> None:
    """Evaluate a run or checkpoint: held-out losses, reasoning by generation, harness tasks on local files.

    Example: xmodel2 eval runs/nano --tasks arc_easy --data-dir data/eval --limit 100

    Args:
        model: run directory or checkpoint
        suite: comma-separated from heldout, reasoning; empty for none
        tasks: comma-separated lm-evaluation-harness tasks that we ship a local form of
        data_dir: folder of benchmark files, one folder a task
        limit: questions a task at most (default: all)
        out: results.json to write, with a transcript of every question
        json: print the results as one JSON object
    """
    from xmodel2.eval.run import evaluate_model
    from xmodel2.files import write_json_atomic

    names = [name for name in suite.split(",") if name]
    with busy("evaluating"):
        results = evaluate_model(model, names, [task for task in tasks.split(",") if task], data_dir, limit)
    if out:
        write_json_atomic(out, results)
    results.pop("transcripts", None)
    print_json(results) if json else print_results(results)
