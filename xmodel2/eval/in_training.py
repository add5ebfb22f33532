"""Benchmarks while a run trains: what `train` calls every so many steps with the run's weights.

    Snapshot -> Granite in memory -> Engine -> evaluate -> RUN/evaluation/during/step-N, {"arc_easy": 0.31, ...}

The folder is an evaluation like any other; `xmodel2 eval compare` takes two of them. It is that of those very weights: a run that
was killed comes to the same ones again, finds there what was answered, and asks for the rest.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from xmodel2.errors import XmodelError, nearest
from xmodel2.eval.definitions import build_tasks
from xmodel2.eval.engine import Engine
from xmodel2.eval.evaluation import discard, evaluate
from xmodel2.eval.hub import open_data
from xmodel2.eval.mirror import Kept
from xmodel2.eval.result_files import RESULTS_FILE, read_results
from xmodel2.eval.tasks import AGENTS, SUITES, TASKS, resolve
from xmodel2.files import as_path, sha256_file
from xmodel2.model import Xmodel2
from xmodel2.model.convert import as_granite
from xmodel2.recipe import Recipe
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train.checkpoint import find_tokenizer
from xmodel2.train.device import DTYPES
from xmodel2.train.evaluation import Alive, Snapshot


class InTraining:
    """Scores a run's snapshots on the tasks of its recipe."""

    def __init__(self, recipe: Recipe) -> None:
        """Read all that will be asked, so that what is missing is told before the first step. Raises `XmodelError`."""
        settings = recipe.evaluation
        self._names = tasks_of(settings.tasks)
        self._limit = settings.limit
        if settings.data_dir and not Path(settings.data_dir).is_dir():
            how = f"xmodel2 eval fetch --tasks {','.join(self._names)} --out {settings.data_dir}"
            raise XmodelError(f"evaluation.data_dir {settings.data_dir}: no such folder; `{how}` makes one")
        self._data = Kept(open_data(Path(settings.data_dir) if settings.data_dir else None))
        try:
            build_tasks(self._names, self._data)
        except XmodelError as error:
            raise XmodelError(f"evaluation.tasks: {error} (--data-dir is evaluation.data_dir in a recipe)") from None
        if not (as_path(recipe.data.dir) / "tokenizer" / "tokenizer.json").exists():
            raise XmodelError(
                f"{recipe.data.dir}: has no tokenizer/, without which benchmarks can't be asked; set evaluation.every = 0"
            )

    def __call__(self, snapshot: Snapshot, alive: Alive) -> dict[str, float]:
        """Return the score of each task; goes on with what the step's folder holds, if it is of the same weights."""

        def progress(task: str, done: int, total: int) -> None:
            alive(f"{task} {done:,}/{total:,}")

        engine = open_snapshot(snapshot)
        folder = snapshot.run_dir / "evaluation" / "during" / f"step-{snapshot.step}"
        before = read_results(folder) if (folder / RESULTS_FILE).exists() else None
        same = (engine.description["fingerprint"], self._limit)
        if before and (before["model"]["fingerprint"], before["settings"]["limit"]) != same:
            discard(folder)  # the run went back, and came here with other weights or settings
        results = evaluate(engine, self._names, folder, self._data, limit=self._limit, progress=progress)
        return {name: results["tasks"][name]["score"] for name in self._names}


def tasks_of(names: Sequence[str]) -> list[str]:
    """Return the tasks of a recipe's list of tasks and suites.

    Raises `XmodelError` for an unknown one, with the nearest, and for one that is played in an environment.
    """
    played = ("agents", *AGENTS)
    allowed = [name for name in (*SUITES, *TASKS) if name not in played]
    for name in names:
        if name in played:
            how = f"xmodel2 eval RUN {'--suite' if name in SUITES else '--tasks'} {name}"
            raise XmodelError(
                f"evaluation.tasks: {name!r} is not played while a run trains; play it afterwards: `{how}`"
            )
        if name not in allowed:
            raise XmodelError(f"evaluation.tasks: {name!r}: there are {', '.join(allowed)}.{nearest(name, allowed)}")
    return resolve([name for name in names if name in SUITES], [name for name in names if name in TASKS])


def open_snapshot(snapshot: Snapshot) -> Engine:
    """Return a run's present model as a backend, on the run's device and in its precision."""
    from transformers import AutoTokenizer

    settings, dtype = snapshot.recipe.model, DTYPES[snapshot.recipe.train.precision]
    with torch.device("meta"):
        model = Xmodel2(settings)
    model.load_state_dict(snapshot.tensors, assign=True)
    native = as_granite(model, settings).to(device=snapshot.device, dtype=dtype)
    folder = find_tokenizer(snapshot.run_dir)
    native.generation_config.eos_token_id = load_tokenizer(folder).stop_ids
    told = str(dtype).removeprefix("torch.")
    description = {
        "name": snapshot.recipe.name,
        "source": f"{snapshot.run_dir}, step {snapshot.step}, while it trained",
        "fingerprint": _fingerprint(snapshot.tensors, sha256_file(folder / "tokenizer.json"), told),
        "backend": "transformers",
        "parameters": sum(tensor.numel() for tensor in snapshot.tensors.values()),
        "dtype": told,
    }
    return Engine(native, AutoTokenizer.from_pretrained(str(folder)), description)


def _fingerprint(tensors: Mapping[str, torch.Tensor], *more: str) -> str:
    digest = hashlib.sha256(json.dumps([*more, *sorted(tensors)]).encode())
    for _, tensor in sorted(tensors.items()):
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
