"""What an agent benchmark is: worlds that answer actions, and tasks to be solved in them (Table 4 of the report).

    benchmark.cases[0] -> benchmark.open(case) -> reset() -> step("search[Milhouse]") -> Turn -> ... -> scores()

An environment is one episode: it holds no model, and the same actions always give the same turns.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from xmodel2.eval.agents.dialogue import Dialogue, Move

PLAYERS = ("oracle", "random", "scripted")
"""What plays without a model: with the hidden answers, with random actions, by a simple rule that sees what a model sees."""


@dataclass(frozen=True)
class Turn:
    """What an environment answers to an action."""

    observation: str
    reward: float = 0.0
    """Of the episode if it ended here, 0 to 1."""
    done: bool = False
    valid: bool = True
    """Whether the action was one that can be done here; if not, the observation says so, and the state is as before."""


class Environment(Protocol):
    """One episode. Nothing that a model writes makes `step` raise."""

    def reset(self) -> str:
        """Begin anew and return the first observation: the task as a model gets it."""

    def step(self, action: str) -> Turn:
        """Do one action, as the model wrote it without space around it; after the end it changes nothing."""

    def scores(self) -> dict[str, float]:
        """Return every metric, 0 to 1, of the episode if it ended here."""

    @property
    def answer(self) -> str:
        """What was answered, done or bought so far, for the record; "" for nothing yet."""


class Player(Protocol):
    """What plays an episode without a model."""

    def move(self, observation: str) -> Move:
        """Return the next thought and action after an observation."""


@dataclass(frozen=True)
class Case:
    """One task of a benchmark."""

    id: str
    """Of the data it is from; unique."""
    task: str
    """In words, for the record."""
    target: str
    """The hidden answer in words, for the record."""
    part: str | None = None
    """Kind of the task, such as "bridge" or "heat"."""
    data: Any = None
    """What `Benchmark.open` needs."""


@dataclass(frozen=True)
class Examples:
    """What stands before a task."""

    instruction: str
    trajectories: tuple[str, ...]
    """Whole episodes as `Dialogue` writes them, in order; those that a short context has no room for are left out, first first."""
    source: str
    """Who wrote them: "ReAct", or "the oracle in a made-up encyclopedia"."""


@dataclass(frozen=True)
class Benchmark:
    """Tasks, the worlds they are in, and how they are asked."""

    name: str
    metric: str
    """Headline metric, a key of `Environment.scores`."""
    step_limit: int
    """Actions an episode has."""
    dialogue: Dialogue
    cases: Sequence[Case]
    of: int | None
    """Tasks of the official set; None if these are not known to be part of it."""
    world: str
    """Article store, catalogue or games, and what part of the tasks they cover: stands beside every score."""
    fingerprint: str
    """Of tasks, world and examples: equal ones give equal scores."""
    examples: Callable[[Case], Examples]
    open: Callable[[Case], Environment]
    made_up: bool = False
    """Whether tasks and world are invented here, so that no score compares with another's."""
    players: Mapping[str, Callable[[Any, random.Random], Player]] = field(default_factory=dict)
    """By name of `PLAYERS`; each gets the open environment of one episode."""
