"""One episode being played: its text so far, what is asked next, and a record of every step.

question() -> a model's or player's text -> take(text) -> question() ... until done
"""

from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.dialogue import THOUGHT_SEEN, Move, Question
from xmodel2.eval.agents.environment import Benchmark, Case, Turn
from xmodel2.eval.agents.outcome import outcome_of

_LONGEST = 2000  # characters of an action that are kept; what a model goes on writing is no action


class Episode:
    """A case of a benchmark, from its first observation on."""

    def __init__(self, benchmark: Benchmark, case: Case) -> None:
        self.case = case
        self.steps: list[dict[str, Any]] = []
        self.history: list[str] = []
        """What each step added to the text."""
        self.output = ""
        """The last text that was taken."""
        self._benchmark, self._error = benchmark, ""
        self._second: Question | None = None
        self.task = self.observation = ""
        try:
            self.environment = benchmark.open(case)
            self.observation = self.environment.reset()
            self.task = benchmark.dialogue.begin(self.observation)
        except Exception as error:  # one game that is damaged is told in the results, and the others go on
            self._error = _named(error)

    @property
    def done(self) -> bool:
        """Whether the world has ended it, or its steps are used up."""
        ended = bool(self.steps) and (self.steps[-1]["done"] or len(self.steps) >= self._benchmark.step_limit)
        return ended or bool(self._error)

    @property
    def question(self) -> Question:
        """What is asked now."""
        return self._second or self._benchmark.dialogue.ask(len(self.steps) + 1)

    def take(self, text: str) -> None:
        """Do what an answer says, or ask again where there is no action in it."""
        dialogue, number = self._benchmark.dialogue, len(self.steps) + 1
        # A server's JSON can hold half a character, which no prompt or file can.
        self.output = text = text.encode("utf-8", "replace").decode()
        read = dialogue.reread(number, self._second, text) if self._second else dialogue.read(number, text)
        if isinstance(read, Question):
            self._second = read
            return
        self._second = None
        move = Move(read.thought[:_LONGEST], read.action[:_LONGEST], read.said[:_LONGEST])
        turn = self._step(move)
        self.observation = turn.observation
        self.history.append(dialogue.write(number, move, turn.observation))
        self.steps.append(
            {"step": number, "thought": move.thought, "action": move.action, "observation": turn.observation}
            | {"reward": turn.reward, "done": turn.done, "valid": turn.valid}
        )

    def _step(self, move: Move) -> Turn:
        if move.thought and not move.action and self._benchmark.dialogue.thinks_apart:
            return Turn(THOUGHT_SEEN, self.steps[-1]["reward"] if self.steps else 0.0)
        try:
            return self.environment.step(move.action)
        except XmodelError:
            raise
        except Exception as error:
            self._error = _named(error)
            return Turn(f"The environment failed: {self._error}", valid=False)

    def record(self) -> dict[str, Any]:
        """Return what items/TASK.jsonl keeps of an ended episode, without its number."""
        scores = {} if self._error else self.environment.scores()
        metric = self._benchmark.metric
        scores = {metric: 0.0, **scores}
        solved = scores[metric] == 1
        return {
            "part": self.case.part,
            "doc_id": self.case.id,
            "prompt": self.task or self.case.task,
            "options": None,
            "target": self.case.target,
            "output": self.output,
            "answer": "" if self._error else self.environment.answer,
            "scores": scores,
            "correct": int(solved),
            "outcome": outcome_of(self.steps, solved, bool(self._error)),
            "error": self._error or None,
            "steps": self.steps,
        }


def _named(error: Exception) -> str:
    said = str(error).strip()[:300]
    return said if isinstance(error, XmodelError) else f"{type(error).__name__}: {said}"
