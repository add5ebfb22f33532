"""How an episode is written down for a language model, and how its answer becomes an action: the two forms of ReAct.

    Numbered (HotpotQA, FEVER)          Commands (ALFWorld)            Commands (WebShop)
    Thought 1: I need to search ...     > think: First I need ...      Action: think[...]
    Action 1: Search[Milhouse]          OK.                            Observation: OK.
    Observation 1: Milhouse is ...      > go to desk 1                 (blank line)
    Thought 2:                          On the desk 1, you see ...     Action:

Source: ReAct (arXiv 2210.03629) and its notebooks; 100 tokens an answer, greedy.
"""

from dataclasses import dataclass
from typing import Protocol

MAX_NEW_TOKENS = 100


@dataclass(frozen=True)
class Move:
    """A thought, "" for none, and the action after it; where thoughts are actions of their own, one of the two is ""."""

    thought: str
    action: str
    said: str = ""
    """The line as a model wrote it, where that is more than these two."""


@dataclass(frozen=True)
class Question:
    """What stands at the end of a prompt, and where its answer ends."""

    ending: str
    until: tuple[str, ...]


class Dialogue(Protocol):
    """One way of writing episodes."""

    @property
    def thinks_apart(self) -> bool:
        """Whether a thought is an action of its own, which no environment is asked about."""

    def begin(self, observation: str) -> str:
        """Return the task's text, from the environment's first observation."""

    def ask(self, number: int) -> Question:
        """Return what asks for move ``number`` (from 1)."""

    def read(self, number: int, text: str) -> Move | Question:
        """Return the move in a model's answer, or what is to be asked next to get it."""

    def reread(self, number: int, question: Question, text: str) -> Move:
        """Return the move in the answer to the second question."""

    def write(self, number: int, move: Move, observation: str) -> str:
        """Return what a move and its observation add to the text."""

    def tell(self, number: int, move: Move) -> list[str]:
        """Return a player's move as answers of a model: `read` of each gives what `Player.move` meant."""


class Numbered:
    """Thought, action and observation in numbered lines."""

    thinks_apart = False

    def begin(self, observation: str) -> str:
        """Return the task on a line."""
        return f"{observation}\n"

    def ask(self, number: int) -> Question:
        """Ask for thought and action at once."""
        return Question(f"Thought {number}:", (f"\nObservation {number}:",))

    def read(self, number: int, text: str) -> Move | Question:
        """Return the move, or ask for the action alone after the first line where there is no action, or several."""
        parts = text.strip().split(f"\nAction {number}: ")
        if len(parts) == 2 and parts[1].strip():
            return Move(parts[0].strip(), parts[1].strip())
        thought = (text.strip().splitlines() or [""])[0].strip()
        return Question(f"Thought {number}: {thought}\nAction {number}:", ("\n",))

    def reread(self, number: int, question: Question, text: str) -> Move:
        """Return the thought that was kept, and the line as action."""
        thought = question.ending.removeprefix(f"Thought {number}: ").removesuffix(f"\nAction {number}:")
        return Move(thought, text.strip())

    def write(self, number: int, move: Move, observation: str) -> str:
        """Return three numbered lines."""
        return (
            f"Thought {number}: {move.thought}\nAction {number}: {move.action}\nObservation {number}: {observation}\n"
        )

    def tell(self, number: int, move: Move) -> list[str]:
        """Return one answer."""
        return [f" {move.thought}\nAction {number}: {move.action}"]


@dataclass(frozen=True)
class Commands:
    """One action a line; a thought is an action of its own, that the environment is not asked about."""

    prompt: str
    """Stands before every action, "\\n>" or "\\n\\nAction:"."""
    answer: str
    """Stands before every observation, "\\n" or "\\nObservation: "."""
    think: tuple[str, str]
    """What a thought is between, ("think: ", "") or ("think[", "]")."""
    thinks_apart: bool = True

    def begin(self, observation: str) -> str:
        """Return the first observation; what asks for an action follows."""
        return observation

    def ask(self, number: int) -> Question:
        """Ask for one line."""
        return Question(self.prompt, ("\n",))

    def read(self, number: int, text: str) -> Move | Question:
        """Return a thought or an action."""
        line = text.strip()
        begin, end = self.think
        if line.startswith(begin.rstrip()):
            return Move(line.removeprefix(begin.rstrip()).removesuffix(end).strip() or "...", "", line)
        return Move("", line)

    def reread(self, number: int, question: Question, text: str) -> Move:
        """Not asked for: every line is a thought or an action."""
        return Move("", text.strip())

    def write(self, number: int, move: Move, observation: str) -> str:
        """Return the line and what was observed, after what asked for it."""
        return f"{self.prompt} {self._line(move)}{self.answer}{observation}"

    def tell(self, number: int, move: Move) -> list[str]:
        """Return the thought, if there is one, and the action as answers of their own."""
        parts = [Move(move.thought, ""), Move("", move.action)]
        return [f" {self._line(part)}" for part in parts if part.thought or part.action]

    def _line(self, move: Move) -> str:
        begin, end = self.think
        return move.said or move.action or f"{begin}{move.thought}{end}"


THOUGHT_SEEN = "OK."
"""What is observed after a thought that is an action of its own."""


def shorten(text: str, longest: int = 200) -> str:
    """Return a text to be quoted in an observation: an action may have thousands of characters.

    >>> shorten("search[" + "a" * 20, 10)
    'search[aaa...'
    """
    return text if len(text) <= longest else f"{text[:longest]}..."
