"""A player whose moves are written one after another, each answered by what is observed after it."""

from collections.abc import Callable, Generator

from xmodel2.eval.agents.dialogue import Move

Plan = Generator[Move, str, None]
"""Moves, each answered by its observation."""


class Planned:
    """A player with a plan that begins with the task."""

    def __init__(self, plan: Callable[[str], Plan]) -> None:
        self._plan = plan
        self._moves: Plan | None = None

    def move(self, observation: str) -> Move:
        """Return the plan's next move."""
        if self._moves is None:
            self._moves = self._plan(observation)
            return next(self._moves)
        return self._moves.send(observation)
