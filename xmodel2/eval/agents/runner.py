"""Many episodes through one model: each turn's answer is kept as it comes, so that a run that was killed plays them again
without asking the model anew.

    cases -> episodes -> prompts -> backend -> answers.jsonl -> steps/TASK.jsonl, a line a step -> items
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from xmodel2.eval.agents.baselines import Baseline
from xmodel2.eval.agents.dialogue import MAX_NEW_TOKENS
from xmodel2.eval.agents.environment import Benchmark, Case
from xmodel2.eval.agents.episode import Episode
from xmodel2.eval.answer_cache import AnswerCache
from xmodel2.eval.backend import Backend, Prompt
from xmodel2.eval.conversation import Reply, converse_in_waves
from xmodel2.files import JsonLinesLog, write_text_atomic

STEPS_FOLDER = "steps"
_BYTES = 3
"""Of a token; English has four and more."""
Progress = Callable[[str, int, int], None]


@runtime_checkable
class Converses(Protocol):
    """A backend that keeps what it has computed of a conversation."""

    def converse(self, conversations: Iterator[tuple[int, Prompt]], reply: Reply) -> None:
        """Hold conversations."""


class AgentRun:
    """A benchmark being played by a model."""

    def __init__(
        self, benchmark: Benchmark, backend: Backend, cache: AnswerCache, out: Path, progress: Progress | None = None
    ) -> None:
        self._benchmark, self._backend, self._cache, self._progress = benchmark, backend, cache, progress
        self._log = _new_log(out / STEPS_FOLDER / f"{benchmark.name}.jsonl")
        self._episodes: dict[int, Episode] = {}
        self._asked: dict[int, Prompt] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._counts: dict[str, int] = {}
        self._dropped: dict[int, int] = {}
        self._shown: list[int] = []
        self._steps = self._total = 0
        self.cut = 0
        """Prompts that examples or early steps were left out of, to fit the model's context."""

    @property
    def examples_shown(self) -> float | None:
        """Examples that stood in a prompt, on average; None if nothing was asked."""
        return sum(self._shown) / len(self._shown) if self._shown else None

    def play(self, limit: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
        """Play the first ``limit`` cases to their ends and return items in their order. ``seed`` is of baselines' chances."""
        cases = list(enumerate(self._benchmark.cases[:limit]))
        self._total = len(cases) * self._benchmark.step_limit
        try:
            if isinstance(self._backend, Baseline):
                for index, case in cases:
                    self._episodes[index] = Episode(self._benchmark, case)
                    self._act(index, self._backend.player, random.Random(f"{seed} {case.id}"))
            else:
                prompts = self._begin(cases)
                if isinstance(self._backend, Converses):
                    self._backend.converse(prompts, self._reply)
                else:
                    converse_in_waves(self._backend, prompts, self._reply)
        finally:
            self._cache.flush()
            self._log.flush()
        return [{"id": index, **self._items[index]} for index, _ in cases]

    def _begin(self, cases: list[tuple[int, Case]]) -> Iterator[tuple[int, Prompt]]:
        for index, case in cases:
            self._episodes[index] = Episode(self._benchmark, case)
            if (prompt := self._next(index)) is not None:
                yield index, prompt

    def _reply(self, index: int, text: str) -> Prompt | None:
        self._cache.keep("turn", _question(self._asked[index]), text)
        self._take(index, text)
        return self._next(index)

    def _next(self, index: int) -> Prompt | None:
        """Return the next prompt that is to be asked, after all whose answers are known; None at the end."""
        episode = self._episodes[index]
        while not episode.done:
            prompt = self._asked[index] = self._prompt(index)
            known = self._cache.known("turn", _question(prompt))
            if known is None:
                return prompt
            self._take(index, known)
        self._end(index)
        return None

    def _act(self, index: int, name: str, chance: random.Random) -> None:
        episode = self._episodes[index]
        if not episode.done:
            player = self._benchmark.players[name](episode.environment, chance)
        while not episode.done:
            for text in self._benchmark.dialogue.tell(len(episode.steps) + 1, player.move(episode.observation)):
                if not episode.done:
                    self._take(index, text)
        self._end(index)

    def _take(self, index: int, text: str) -> None:
        episode = self._episodes[index]
        before, asked = len(episode.steps), self._asked.get(index)
        episode.take(text)
        for step in episode.steps[before:]:
            told = {"episode": index, "doc_id": episode.case.id, "prompt": _digest(asked.text) if asked else None}
            self._log.add({**told, **step})
        self._show(len(episode.steps) - before)

    def _end(self, index: int) -> None:
        episode = self._episodes.pop(index)
        self._items[index] = episode.record()
        self._asked.pop(index, None)
        self._dropped.pop(index, None)
        self._show(self._benchmark.step_limit - len(episode.steps))

    def _show(self, steps: int) -> None:
        """Count steps, those that an ended episode did not need too: episodes that are played together end together."""
        self._steps += steps
        if self._progress and steps:
            self._progress(f"{self._benchmark.name}, steps", self._steps, self._total)

    def _prompt(self, index: int) -> Prompt:
        """Return what is asked now; what does not fit is left out: examples, the first first, then early steps."""
        episode = self._episodes[index]
        examples, question = self._benchmark.examples(episode.case), episode.question
        needed = [examples.instruction, episode.task, question.ending]
        parts, told = [*examples.trajectories, *episode.history], len(examples.trajectories)
        room = self._backend.max_length - MAX_NEW_TOKENS
        dropped = self._dropped.get(index, 0)
        if sum(len(text.encode()) for text in (*needed, *parts[dropped:])) + 1 > room:  # a token has a byte at least
            lengths = self._lengths([*needed, *parts])
            fixed, limit = sum(lengths[: len(needed)]), room
            kept = fixed + sum(lengths[len(needed) + dropped :])
            while kept > limit and dropped < len(parts):
                kept -= lengths[len(needed) + dropped]
                dropped += 1
                # Steps are short: half of them at once, so that the next turns go on with what is computed; never the last.
                limit = (fixed + room) // 2 if told < dropped < len(parts) - 1 else room
            self._dropped[index] = dropped
        self.cut += dropped > 0
        self._shown.append(max(0, told - dropped))
        before, after = parts[dropped:told], parts[max(told, dropped) :]
        text = "".join([examples.instruction, *before, episode.task, *after, question.ending])
        return Prompt(text, question.until, MAX_NEW_TOKENS)

    def _lengths(self, texts: list[str]) -> list[int]:
        """Return the tokens of each text, or where the backend cannot tell, about as many as English has."""
        new = [text for text in dict.fromkeys(texts) if text not in self._counts]
        counts = self._backend.token_counts(new) if new else []
        if counts is None:
            counts = [len(text.encode()) // _BYTES + 1 for text in new]
        self._counts |= dict(zip(new, counts, strict=True))
        return [self._counts[text] for text in texts]


def _new_log(path: Path) -> JsonLinesLog:
    """Return a log whose file is empty: a run that goes on writes it anew, from the answers that it knows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, "")
    return JsonLinesLog(path)


def _question(prompt: Prompt) -> list[Any]:
    return [prompt.text, list(prompt.until), prompt.max_new_tokens]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
