"""Whether generated programs pass their tests: all programs of a task run in the sandbox at once, verdicts kept like answers."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from xmodel2.eval.answer_cache import AnswerCache
from xmodel2.eval.code_tasks import humaneval_program, mbpp_program
from xmodel2.eval.sandbox import Limits, Program, run_programs
from xmodel2.eval.tasks import TASKS

_PROGRAMS = {"humaneval": humaneval_program, "mbpp": mbpp_program}
_MACHINE = ("timeout", "killed", "killed by SIGKILL")
"""Reasons that a machine which is busy or short of memory may be to blame for."""


class CodeJudge:
    """Runs the programs of one task; ``insist`` runs them where they can't be isolated, too."""

    def __init__(self, task: str, cache: AnswerCache, insist: bool) -> None:
        self._task, self._cache, self._insist = task, cache, insist
        self._passed: dict[Program, bool] = {}
        self.needed = TASKS[task].runs_code

    def run(self, answers: Sequence[tuple[dict[str, Any], str]]) -> None:
        """Run the programs made of (document, generated text). Raises `XmodelError` where they can't be isolated."""
        programs = [_PROGRAMS[self._task](document, text) for document, text in answers]
        questions = [{**asdict(program), "limits": asdict(Limits()), "insist": self._insist} for program in programs]
        verdicts = self._cache.answer("program", questions, self._judge, lasting=lambda v: v["reason"] not in _MACHINE)
        for program, verdict in zip(programs, verdicts, strict=True):
            self._passed[program] = verdict["passed"]

    def _judge(self, questions: Sequence[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        programs = [
            Program(**{field.name: question[field.name] for field in fields(Program)}) for question in questions
        ]
        for index, verdict in run_programs(programs, insist=self._insist):
            yield index, {"passed": verdict.passed, "reason": verdict.reason}

    def passes(self, task: str, document: dict[str, Any], text: str) -> bool:
        """Return the verdict on a program that was run."""
        return self._passed[_PROGRAMS[task](document, text)]
