"""Whether generated programs pass their tests: all programs of a task run in the sandbox at once, verdicts kept like answers."""

from collections.abc import Iterator, Sequence
from typing import Any

from xmodel2.eval.answer_cache import AnswerCache
from xmodel2.eval.code_tasks import humaneval_program, mbpp_program, score_programs
from xmodel2.eval.tasks import TASKS

_PROGRAMS = {"humaneval": humaneval_program, "mbpp": mbpp_program}


class CodeJudge:
    """Runs the programs of one task."""

    def __init__(self, task: str, cache: AnswerCache, insist: bool) -> None:
        self._task, self._cache, self._insist = task, cache, insist
        self._verdicts: dict[str, bool] = {}
        self.needed = TASKS[task].runs_code

    def run(self, answers: Sequence[tuple[dict[str, Any], str]]) -> None:
        """Run the programs made of (document, generated text)."""
        programs = [_PROGRAMS[self._task](document, text) for document, text in answers]
        verdicts = self._cache.answer("program", programs, self._judge)
        self._verdicts |= dict(zip(programs, (bool(verdict["passed"]) for verdict in verdicts), strict=True))

    def _judge(self, programs: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, verdict in enumerate(score_programs(programs, insist=self._insist)):
            yield index, {"passed": verdict.passed, "reason": verdict.reason}

    def passes(self, task: str, document: dict[str, Any], text: str) -> bool:
        """Return the verdict on a program that was run."""
        return self._verdicts[_PROGRAMS[task](document, text)]
