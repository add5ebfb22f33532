"""lm-evaluation-harness on our own checkpoints: its task definitions and metrics, our model, local data files, no network.

    --data-dir DIR/arc_easy/test.jsonl.gz --the packaged definition, its data set replaced--> requests --> scores

Log-likelihoods run the head on the continuation's positions only, so [batch, length, vocabulary] is never held.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
import torch
import torch.nn.functional as F
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from xmodel2.errors import XmodelError, nearest
from xmodel2.files import write_json_atomic
from xmodel2.model import Xmodel2
from xmodel2.model.generate import generate
from xmodel2.tokenizer import Tokenizer

_DEFINITIONS = Path(lm_eval.__file__).parent / "tasks"
_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class _Task:
    definition: str
    """Packaged YAML, below lm_eval/tasks."""
    split: str
    """Split that is scored, and stem of its file."""


TASKS = {
    "arc_challenge": _Task("arc/arc_challenge.yaml", "test"),
    "arc_easy": _Task("arc/arc_easy.yaml", "test"),
    "openbookqa": _Task("openbookqa/openbookqa.yaml", "test"),
    "piqa": _Task("piqa/piqa.yaml", "validation"),
}
"""Tasks that run on a local file as the packaged definition has them."""


def run_task(
    model: Xmodel2, tokenizer: Tokenizer, task: str, data_dir: Path | None, limit: int | None = None
) -> dict[str, Any]:
    """Score one task and return its metrics, ``stderr`` of each, and the number of ``examples``.

    ``data_dir`` holds a folder a task with SPLIT.jsonl or SPLIT.jsonl.gz in the fields of the Hugging Face data set.
    Raises `XmodelError` for an unknown task or a missing file.
    """
    if task not in TASKS:
        raise XmodelError(f"--tasks {task!r}: there are {', '.join(TASKS)}.{nearest(task, TASKS)}")
    if data_dir is None:
        raise XmodelError(f"--tasks {task}: give --data-dir, the folder that holds {task}/{TASKS[task].split}.jsonl.gz")
    data = _data_file(Path(data_dir), task)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        # JSON is YAML; the packaged definition is included whole, and only where its data comes from is replaced.
        definition: dict[str, Any] = {
            "include": str(_DEFINITIONS / TASKS[task].definition),
            "task": task,
            "tag": [],
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {TASKS[task].split: str(data.resolve())}, "cache_dir": folder},
            **{f"{split}_split": None for split in ("training", "validation", "test")},
            f"{TASKS[task].split}_split": TASKS[task].split,
        }
        write_json_atomic(Path(folder) / f"{task}.yaml", definition)
        report = lm_eval.simple_evaluate(
            model=HarnessLM(model, tokenizer),
            tasks=[task],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            limit=limit,
            bootstrap_iters=1000,
            log_samples=False,
        )
    if report is None:
        raise XmodelError(f"--tasks {task}: the harness gave no result")
    metrics = report["results"][task]
    scores = {name.removesuffix(",none"): value for name, value in metrics.items() if name.endswith(",none")}
    return {**scores, "examples": report["n-samples"][task]["effective"]}


def _data_file(data_dir: Path, task: str) -> Path:
    stem = data_dir / task / TASKS[task].split
    for path in (stem.with_name(f"{stem.name}.jsonl"), stem.with_name(f"{stem.name}.jsonl.gz")):
        if path.is_file():
            return path
    raise XmodelError(f"{stem}.jsonl.gz: no such file (nor .jsonl); --data-dir must hold the task's data")


@contextmanager
def _quiet() -> Iterator[None]:
    """The harness logs each of its steps; a user of ours sees warnings only."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


Request = tuple[Any, list[int], list[int]]


class HarnessLM(TemplateLM):
    """Our model as the harness sees it; every encoding begins with one ``<s>``, as every training document does."""

    def __init__(self, model: Xmodel2, tokenizer: Tokenizer, batch_tokens: int = _BATCH_TOKENS) -> None:
        super().__init__()
        self._model, self._tokens, self._batch_tokens = model.eval(), tokenizer, batch_tokens
        self._context = model.settings.max_position_embeddings

    @property
    def eot_token_id(self) -> int:
        """``</s>``."""
        return self._tokens.eos_id

    @property
    def prefix_token_id(self) -> int:
        """``<s>``, what stands before a continuation without context."""
        return self._tokens.bos_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return ids, with ``<s>`` unless it is declined."""
        return ([] if add_special_tokens is False else [self._tokens.bos_id]) + self._tokens.encode(string)

    def _loglikelihood_tokens(self, requests: Sequence[Request], **_: Any) -> list[tuple[float, bool]]:
        """Return (log-probability, whether it is the greedy one) of each continuation after its context."""
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        rows = [(context + continuation)[-(self._context + 1) :] for _, context, continuation in requests]
        for batch in self._batches([len(row) for row in rows]):
            scored = self._score([rows[i] for i in batch], [len(requests[i][2]) for i in batch])
            for i, score in zip(batch, scored, strict=True):
                found[i] = score
        return found

    @torch.no_grad()
    def _score(self, rows: list[list[int]], wanted: list[int]) -> list[tuple[float, bool]]:
        """Score the last ``wanted`` tokens of each row; rows are padded on the right, which causal attention never sees."""
        device = self._model.embed_tokens.weight.device
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        hidden_BSH = self._model.hidden(ids[:, :-1])
        scores = []
        for row, hidden_SH, target, count in zip(rows, hidden_BSH, ids, wanted, strict=True):
            count = min(count, len(row) - 1)
            logits = self._model.logits(hidden_SH[len(row) - 1 - count : len(row) - 1]).float()
            tokens = target[len(row) - count : len(row)]
            nats = F.cross_entropy(logits, tokens, reduction="sum")
            scores.append((-float(nats), bool((logits.argmax(-1) == tokens).all())))
        return scores

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield indices, longest first, as many as fit into the token budget at the longest one's length."""
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        while order:
            size = max(1, self._batch_tokens // max(1, lengths[order[0]]))
            yield order[:size]
            order = order[size:]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each whole text, in windows of the model's context."""
        totals = []
        for request in requests:
            tokens = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = get_rolling_token_windows(tokens, self.prefix_token_id, self._context, context_len=1)
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            totals.append(sum(score for score, _ in self._loglikelihood_tokens(pairs)))
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return greedy continuations, cut before the first stop string."""
        answers = [""] * len(requests)
        prompts = [self.tok_encode(request.args[0]) for request in requests]
        limits = [int(request.args[1].get("max_gen_toks", 256)) for request in requests]
        for batch in self._batches([len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)]):
            limit = min(max(limits[i] for i in batch), self._context - 1)
            room = self._context - limit
            ids = generate(self._model, [prompts[i][-room:] for i in batch], limit, self._tokens.stop_ids)
            for i, answer in zip(batch, ids, strict=True):
                text = self._tokens.decode(answer[: limits[i]], skip_special_tokens=True)
                until = requests[i].args[1].get("until", [])
                for stop in [until] if isinstance(until, str) else until:
                    text = text.partition(stop)[0] if stop else text
                answers[i] = text
        return answers
