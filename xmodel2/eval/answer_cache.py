"""Answers of one model, kept as they come: an evaluation that was killed asks only for the rest.

answers.jsonl holds {"key": ..., "answer": ...} a line; the key is a digest of the model and of the question as it gets it, so that
another limit, another suite or a changed prompt finds what is known and asks what is not.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import JsonLinesLog, read_json_lines

ANSWERS_FILE = "answers.jsonl"

Ask = Callable[[Sequence[Any]], Iterable[tuple[int, Any]]]
"""Questions -> (index, answer), in any order."""


class AnswerCache:
    """One model's answers in a folder; ``model`` is its fingerprint. Raises `XmodelError` naming a damaged line."""

    def __init__(self, folder: Path, model: str = "") -> None:
        self._model, self._log = model, JsonLinesLog(folder / ANSWERS_FILE)
        self._known = dict[str, Any]()
        for number, row in enumerate(read_json_lines(folder / ANSWERS_FILE), 1):
            if missing := [field for field in ("key", "answer") if field not in row]:
                raise XmodelError(f"{folder / ANSWERS_FILE}, line {number}: has no {missing[0]!r}; remove the line")
            self._known[row["key"]] = row["answer"]

    def answer(
        self,
        kind: str,
        questions: Sequence[Any],
        ask: Ask,
        progress: Callable[[int, int], None] | None = None,
        lasting: Callable[[Any], bool] = lambda answer: True,
    ) -> list[Any]:
        """Return the answer of every question; those not known are asked for, each once, and kept.

        ``questions`` are what JSON can hold. ``progress`` gets (answered, all). An answer that is not ``lasting`` is asked
        for again the next time.
        """
        keys = [_key(self._model, kind, question) for question in questions]
        open_ = {key: question for key, question in zip(keys, questions, strict=True) if key not in self._known}
        asked = list(open_)
        done = sum(key not in open_ for key in keys)
        copies: dict[str, int] = {}
        for key in keys:
            copies[key] = copies.get(key, 0) + 1
        try:
            for index, answer in ask(list(open_.values())) if open_ else ():
                self._keep(asked[index], answer, lasting(answer))
                done += copies[asked[index]]
                if progress:
                    progress(done, len(keys))
        finally:
            self.flush()
        return [self._known[key] for key in keys]

    def known(self, kind: str, question: Any) -> Any:
        """Return the answer to one question, None if it was never asked."""
        return self._known.get(_key(self._model, kind, question))

    def keep(self, kind: str, question: Any, answer: Any) -> None:
        """Keep the answer to one question."""
        self._keep(_key(self._model, kind, question), answer, lasting=True)

    def _keep(self, key: str, answer: Any, lasting: bool) -> None:
        self._known[key] = answer
        if lasting:
            self._log.add({"key": key, "answer": answer})

    def flush(self) -> None:
        """Write what is new."""
        self._log.flush()


def _key(model: str, kind: str, question: Any) -> str:
    return hashlib.sha256(json.dumps([model, kind, question]).encode()).hexdigest()[:20]
