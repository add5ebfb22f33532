"""The command that evaluates a model."""

import sys
from pathlib import Path
from typing import Any

import tyro

from xmodel2.arguments import Agents, Flag, Model
from xmodel2.commands import importing_harness
from xmodel2.eval.agents.options import MADE_UP
from xmodel2.eval.model_options import DEFAULTS
from xmodel2.output import busy, print_evaluation, print_json, print_results, progress_bars


def evaluate(
    model: tyro.conf.Positional[str],
    /,
    suite: str = "",
    tasks: str = "",
    include_path: Path | None = None,
    data_dir: Path | None = None,
    limit: int | None = None,
    seed: int = 1234,
    out: Path | None = None,
    options: Model = DEFAULTS,
    agents: Agents = MADE_UP,
    unsafe_code: Flag = False,
    overwrite: Flag = False,
    skip_missing: Flag = False,
    json: Flag = False,
) -> None:
    """Score a model on the report's tables (Tables 2, 3 and 4) or single tasks; resumable.

    Example: xmodel2 eval runs/nano --suite commonsense --data-dir data/eval --limit 100

    A rival: xmodel2 eval Qwen2.5-1.5B --suite commonsense,reasoning

    The agents: xmodel2 eval runs/nano --suite agents --agents-dir data/eval/agents --limit 20

    What they give without a model: xmodel2 eval oracle --backend baseline --suite agents

    A server: xmodel2 eval my-model --backend endpoint --base-url http://localhost:8000/v1 --tasks gsm8k

    Args:
        model: run, checkpoint, model directory, hub id, or one of the report's rivals (`xmodel2 rivals`)
        suite: comma-separated from commonsense, reasoning, agents, and for our runs heldout, questions (their default)
        tasks: comma-separated single tasks, such as arc_easy, gsm8k, wikitext, hotpotqa
        include_path: folder of task YAMLs of your own (lm-evaluation-harness's), which --tasks may then name
        data_dir: folder of benchmark files (`xmodel2 eval fetch` makes one); default: the Hugging Face Hub
        limit: items a task at most, the first ones, as many of each of its parts
        seed: of the few-shot examples that are drawn
        out: folder to write or go on with (default: RUN/evaluation/step-N, or evaluation/NAME)
        unsafe_code: run generated programs (HumanEval, MBPP) even unconfined, able to reach your files and processes
        overwrite: discard what is in the folder
        skip_missing: leave out benchmarks whose data is not there, and name them
        json: print the results as one JSON object
    """
    from xmodel2.errors import XmodelError
    from xmodel2.eval.agents.benchmarks import with_folder
    from xmodel2.eval.tasks import AGENTS, SUITES, resolve
    from xmodel2.files import write_json_atomic

    names = _wanted(model, suite, tasks, options.backend == "baseline")
    if limit is not None and limit < 1:
        raise XmodelError(f"--limit {limit}: must be 1 or more")
    own = {}
    if include_path is not None:
        with importing_harness("eval --include-path"):
            from xmodel2.eval.own_tasks import own_tasks
        own = own_tasks(include_path)
    chosen = resolve([name for name in names if name in SUITES], [task for task in tasks.split(",") if task], own)
    if own and not set(own) & set(chosen):
        raise XmodelError(f"--include-path {include_path}: name its tasks with --tasks: {', '.join(own)}")
    if set(chosen) & set(AGENTS):
        agents = with_folder(agents, data_dir)
        if agents.agents_dir is None and data_dir is not None:
            print(f"{data_dir}: has no folder agents, so worlds are made up where no option names one", file=sys.stderr)
    with importing_harness("eval"):
        from xmodel2.eval.evaluation import evaluate as run_evaluation
        from xmodel2.eval.hub import open_data
        from xmodel2.eval.open_model import default_folder, open_backend
    data = open_data(data_dir) if set(chosen) - {*AGENTS, *own} else None
    extra: dict[str, Any] = {}
    with busy("loading"):
        opened = open_backend(model, options)
        if suites := [name for name in names if name not in SUITES]:
            from xmodel2.eval.run import evaluate_run

            extra = evaluate_run(Path(model), suites, limit, skip=not suite)
    folder = out or default_folder(model)
    transcripts = extra.pop("transcripts", None)
    with progress_bars() as progress:
        results = run_evaluation(
            opened,
            chosen,
            folder,
            data,
            limit=limit,
            seed=seed,
            progress=progress,
            insist=unsafe_code,
            extra=extra,
            agents=agents,
            overwrite=overwrite,
            skip_missing=skip_missing,
            own=own,
        )
    for name, why in results.get("skipped", {}).items():
        if name in chosen:
            print(f"left out {name}: {why}", file=sys.stderr)
    if transcripts:
        write_json_atomic(folder / "transcripts.json", transcripts)
    if json:
        print_json(results)
        return
    print_results(results)
    print_evaluation(results, folder)


def _wanted(model: str, suite: str, tasks: str, baseline: bool) -> list[str]:
    """Return the suites that are asked for. Raises `XmodelError` for an unknown one."""
    from xmodel2.errors import XmodelError, nearest
    from xmodel2.eval.open_model import RUN_SUITES, is_ours
    from xmodel2.eval.tasks import SUITES

    ours = is_ours(Path(model))
    allowed = (*SUITES, *RUN_SUITES) if ours else tuple(SUITES)
    names = [name for name in suite.split(",") if name]
    for name in names:
        if name in RUN_SUITES and not ours:
            raise XmodelError(f"--suite {name}: is made of a run's own data, and {model} is no run of ours")
        if name not in allowed:
            raise XmodelError(f"--suite {name!r}: allowed are {', '.join(allowed)}.{nearest(name, allowed)}")
    if not names and not tasks and baseline:
        names = ["agents"]
    elif not names and not tasks:
        names = list(RUN_SUITES) if ours else [name for name in SUITES if name != "agents"]
    return names
