"""Many episodes through one model: each turn's answer is kept as it comes, so that a run that was killed plays them again
without asking the model anew.

    cases -> episodes -> prompts -> backend -> answers.jsonl -> steps/TASK.jsonl, a line a step -> items
"""

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from xmodel2.eval.agents.baselines import Baseline
from xmodel2.eval.agents.dialogue import MAX_NEW_TOKENS
from xmodel2.eval.agents.environment import Benchmark
from xmodel2.eval.agents.episode import Episode
from xmodel2.eval.answer_cache import AnswerCache
from xmodel2.eval.backend import Backend, Prompt
from xmodel2.eval.conversation import Reply, converse_in_waves
from xmodel2.files import append_json_lines, write_text_atomic

STEPS_FOLDER = "steps"
_SECONDS = 5.0
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
        self._log = StepLog(out / STEPS_FOLDER / f"{benchmark.name}.jsonl")
        self._episodes: dict[int, Episode] = {}
        self._asked: dict[int, Prompt] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._counts: dict[str, int] = {}
        self._total = 0
        self.cut = 0
        """Prompts that examples or early steps were left out of, to fit the model's context."""

    def play(self, limit: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
        """Play the first ``limit`` cases to their ends and return items in their order. ``seed`` is of baselines' chances."""
        cases = list(enumerate(self._benchmark.cases[:limit]))
        self._total = len(cases)
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

    def _begin(self, cases: list[tuple[int, Any]]) -> Iterator[tuple[int, Prompt]]:
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
            prompt, cut = self._prompt(episode)
            self._asked[index], self.cut = prompt, self.cut + cut
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

    def _end(self, index: int) -> None:
        self._items[index] = self._episodes.pop(index).record()
        self._asked.pop(index, None)
        if self._progress:
            self._progress(self._benchmark.name, len(self._items), self._total)

    def _prompt(self, episode: Episode) -> tuple[Prompt, bool]:
        """Return what is asked, and whether something was left out to fit: examples, the first first, then early steps."""
        examples, question = self._benchmark.examples(episode.case), episode.question
        needed = [examples.instruction, episode.task, question.ending]
        dropped = [*examples.trajectories, *episode.history]
        room = self._backend.max_length - MAX_NEW_TOKENS
        first = 0
        if sum(len(text.encode()) for text in (*needed, *dropped)) + 1 > room:  # a token has a byte at least
            lengths = self._lengths([*needed, *dropped])
            over = sum(lengths) - room
            while over > 0 and first < len(dropped):
                over -= lengths[len(needed) + first]
                first += 1
        told = len(examples.trajectories)
        parts = [examples.instruction, *examples.trajectories[first:], episode.task]
        parts += [*episode.history[max(0, first - told) :], question.ending]
        return Prompt("".join(parts), question.until, MAX_NEW_TOKENS), first > 0

    def _lengths(self, texts: list[str]) -> list[int]:
        """Return tokens of each text, 0 where the backend cannot tell; those of one text are never fewer than of its parts."""
        new = [text for text in dict.fromkeys(texts) if text not in self._counts]
        counts = self._backend.token_counts(new) if new else []
        self._counts |= dict(zip(new, counts if counts is not None else [0] * len(new), strict=True))
        return [self._counts[text] for text in texts]


class StepLog:
    """A line a step, written as they come; a run that goes on writes the file anew, from the answers that it knows."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines, self._written = path, list[dict[str, Any]](), time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, "")

    def add(self, line: dict[str, Any]) -> None:
        """Take a line, and write what has come if the last time is a while ago."""
        self._lines.append(line)
        if time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        if self._lines:
            append_json_lines(self._path, self._lines)
        self._lines, self._written = [], time.monotonic()


def _question(prompt: Prompt) -> list[Any]:
    return [prompt.text, list(prompt.until), prompt.max_new_tokens]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
