"""lm-evaluation-harness on any `Backend`: its tasks, requests, filters and metrics; our model, cache and progress.

BuiltTask --evaluator.evaluate--> requests -> HarnessLM -> AnswerCache -> Backend
                               -> samples --items_of--> items/TASK.jsonl
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lm_eval import evaluator
from lm_eval.api import task as harness_task
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs

from xmodel2.eval.answer_cache import AnswerCache
from xmodel2.eval.backend import Backend, Prompt
from xmodel2.eval.definitions import BuiltTask, harness_tasks
from xmodel2.eval.prefix_tree import common_length

Progress = Callable[[str, int, int], None]
"""(task, answered, all)."""
Generated = Callable[[Sequence[tuple[dict[str, Any], str]]], None]
"""Gets all (document, generated text) of a task before they are scored."""
Items = list[dict[str, Any]]

_DEFAULT_NEW_TOKENS = 256
"""The harness's, where a task says nothing."""


@dataclass(frozen=True)
class Ran:
    """What a task that was run gave."""

    reports: dict[str, dict[str, Any]]
    """The harness's aggregated metrics by its task names."""
    items: Items
    cut: int
    """Requests that were cut on the left to fit into the context."""


class HarnessLM(LM):
    """A backend as the harness sees it."""

    def __init__(
        self,
        backend: Backend,
        cache: AnswerCache,
        progress: Callable[[int, int], None] | None = None,
        generated: Generated | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._backend, self._cache, self._progress, self._generated = backend, cache, progress, generated
        self._seed = seed
        self.cut = 0

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log-probability, whether greedy) of each continuation."""
        pairs = [(request.args[0], request.args[1]) for request in requests]
        answers = self._cache.answer("loglikelihood", pairs, self._backend.loglikelihood, self._progress)
        self._count_cut(["".join(pair) for pair in pairs], [self._backend.max_length + 1] * len(pairs))
        return [(nats, greedy) for nats, greedy in answers]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each text."""
        texts = [request.args[0] for request in requests]
        return self._cache.answer("rolling", texts, self._backend.rolling, self._progress)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the continuation of each prompt, cut before its first stop string."""
        questions = [(request.args[0], _settings(request.args[1], self._seed)) for request in requests]
        texts: list[str] = self._cache.answer("generate", questions, self._generate, self._progress)
        context = self._backend.max_length
        rooms = [context - settings["max_new_tokens"] for _, settings in questions]
        self._count_cut([text for text, _ in questions], [room if room > 0 else context // 2 for room in rooms])
        if self._generated:
            self._generated([(request.doc, text) for request, text in zip(requests, texts, strict=True)])
        return texts

    def _count_cut(self, texts: Sequence[str], rooms: Sequence[int]) -> None:
        counts = self._backend.token_counts(texts)
        self.cut += sum(count > room for count, room in zip(counts, rooms, strict=True)) if counts else 0

    def _generate(self, questions: Sequence[Any]) -> Iterator[tuple[int, str]]:
        return iter(self._backend.generate([_prompt(question) for question in questions]))


def _prompt(question: tuple[str, dict[str, Any]]) -> Prompt:
    text, settings = question
    return Prompt(text, **{**settings, "until": tuple(settings["until"])})


def _settings(arguments: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return a task's generation settings in our names; a seed only where something is drawn."""
    found = normalize_gen_kwargs(arguments, _DEFAULT_NEW_TOKENS)
    until = found.get("until") or []
    settings = {
        "until": [until] if isinstance(until, str) else list(until),
        "max_new_tokens": int(found["max_gen_toks"]),
    }
    if found["do_sample"] and found["temperature"] > 0:
        settings |= {"temperature": found["temperature"], "top_p": found.get("top_p", 1.0), "seed": seed}
    return settings


def run_task(
    built: BuiltTask,
    backend: Backend,
    cache: AnswerCache,
    limit: int | None = None,
    progress: Progress | None = None,
    generated: Generated | None = None,
    seed: int = 0,
) -> Ran:
    """Run one task on its first items, ``limit`` in all; ``generated`` gets all texts before they are scored."""

    def show(done: int, total: int) -> None:
        if progress:
            progress(built.task.name, done, total)

    tasks, samples = harness_tasks({built.task.name: built}), None
    if limit is not None:
        samples = _first(built, limit)
        # To the harness no samples are all of them.
        tasks = {name: task for name, task in tasks.items() if samples[name]}
    model = HarnessLM(backend, cache, show, generated, seed)
    with _quiet():
        report = evaluator.evaluate(
            lm=model,
            task_dict={"tasks": tasks, "groups": {}},
            samples=samples,
            bootstrap_iters=0,
            log_samples=True,
        )
    assert report is not None  # it is for other ranks of a distributed evaluation
    items: Items = []
    for part, task in built.parts.items():
        if task.config.task in tasks:
            items += items_of(built, part, report["samples"][task.config.task])
    for index, item in enumerate(items):
        item["id"] = index
    return Ran(report["results"], items, model.cut)


def _first(built: BuiltTask, limit: int) -> dict[str, list[int]]:
    """Return indices by the harness's task name: the first of every part, as many of each, ``limit`` in all."""
    sizes = {task.config.task: len(task.eval_docs) for task in built.parts.values()}
    taken = dict.fromkeys(sizes, 0)
    left = min(limit, sum(sizes.values()))
    while left:
        for name, size in sizes.items():
            if left and taken[name] < size:
                taken[name], left = taken[name] + 1, left - 1
    return {name: list(range(count)) for name, count in taken.items()}


def items_of(built: BuiltTask, part: str | None, samples: Sequence[dict[str, Any]]) -> Items:
    """Return one line for each document: the harness gives one for each filter of it."""
    by_document: dict[int, dict[str, Any]] = {}
    for sample in samples:
        item = by_document.get(sample["doc_id"])
        if item is None:
            item = by_document[sample["doc_id"]] = {
                "id": 0,
                "part": part,
                "doc_id": sample["doc_id"],
                **_answered(sample),
            }
        headline = sample["filter"] == built.task.filter
        for metric in sample["metrics"]:
            name = metric if headline else f"{metric},{sample['filter']}"
            item["scores"][name] = _number(sample[metric])
        if headline:
            if item["options"] is None:
                item["answer"] = _plain(sample["filtered_resps"][0])
            value = item["scores"].get(built.task.metric)
            item["correct"] = int(value) if value in (0.0, 1.0) else None
    return list(by_document.values())


def _answered(sample: dict[str, Any]) -> dict[str, Any]:
    """Return prompt, options, target and output of a document."""
    arguments, responses = sample["arguments"], [response[0] for response in sample["resps"]]
    item: dict[str, Any] = {"target": _plain(sample["target"]), "scores": {}, "correct": None, "answer": None}
    if len(arguments[0]) < 2:  # a rolling text
        return {**item, "prompt": arguments[0][0], "options": None, "output": responses[0]}
    if not isinstance(arguments[0][1], str):
        return {**item, "prompt": arguments[0][0], "options": None, "output": responses[0]}
    # WinoGrande fills the gap in the context and scores what comes after: what differs is the option.
    contexts = [context for context, _ in arguments]
    common = contexts[0]
    if len(set(contexts)) > 1:
        common = common[: min(common_length(common, context) for context in contexts)].rpartition(" ")[0]
    options = [context[len(common) :] + continuation for context, continuation in arguments]
    nats = [response[0] for response in responses]
    best = max(range(len(nats)), key=nats.__getitem__)
    return {**item, "prompt": common, "options": options, "output": nats, "answer": best}


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else str(value)


def _number(value: Any) -> Any:
    return [float(part) for part in value] if isinstance(value, tuple | list) else float(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness from logging each of its steps, and from drawing a bar for each part of a task."""
    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, harness_task.tqdm
    logger.setLevel(logging.ERROR)
    harness_task.tqdm = lambda iterable, **_: iterable
    try:
        yield
    finally:
        logger.setLevel(level)
        harness_task.tqdm = bar
