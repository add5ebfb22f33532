"""A small world: doors, one of which hides the coin. What is said of it is enough to find the coin in three steps."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from xmodel2.eval.agents.dialogue import Commands, Dialogue, Move, Numbered
from xmodel2.eval.agents.environment import Benchmark, Case, Examples, Turn
from xmodel2.eval.backend import Prompt

NUMBERED = Numbered()
COMMANDS = Commands("\n>", "\n", ("think: ", ""))


class Doors:
    """Door ``coin`` hides the coin; ``fault`` is raised when door 9 is opened."""

    def __init__(self, house: str, coin: int, fault: Exception | None = None) -> None:
        self.house, self.coin, self.fault = house, coin, fault
        self.reset()

    def reset(self) -> str:
        self.opened: list[int] = []
        return f"Find the coin in {self.house} behind door 1 to 8. A sign says {self.coin}."

    def step(self, action: str) -> Turn:
        if not action.startswith("open[") or not action[5:-1].isdigit():
            return Turn("Say open[NUMBER].", self._reward(), valid=False)
        self.opened.append(int(action[5:-1]))
        if self.opened[-1] == 9 and self.fault:
            raise self.fault
        found = self.opened[-1] == self.coin
        return Turn("The coin!" if found else "Nothing.", self._reward(), done=found or self.opened[-1] == 0)

    def _reward(self) -> float:
        return float(self.coin in self.opened)

    def scores(self) -> dict[str, float]:
        return {"found": self._reward(), "doors": len(self.opened) / 10}

    @property
    def answer(self) -> str:
        return str(self.opened[-1]) if self.opened else ""


class Opener:
    def __init__(self, choose: Callable[[], int]) -> None:
        self.choose = choose

    def move(self, observation: str) -> Move:
        return Move(f"Behind one of them, after {observation[:4]}", f"open[{self.choose()}]")


def doors(
    count: int, dialogue: Dialogue = NUMBERED, step_limit: int = 4, fault: Exception | None = None, examples: int = 2
) -> Benchmark:
    cases = [Case(f"house-{number}", "Find the coin.", str(number % 8 + 1), str(number % 2)) for number in range(count)]
    shown = Examples("Open doors.\n", tuple(f"Example {number}: a coin.\n" for number in range(examples)), "the oracle")
    return Benchmark(
        "doors",
        "found",
        step_limit,
        dialogue,
        cases,
        None,
        "eight made-up doors",
        "fingerprint-of-doors",
        lambda case: shown,
        lambda case: Doors(case.id, int(case.target), fault),
        made_up=True,
        players={
            "oracle": lambda doors, chance: Opener(lambda: doors.coin),
            "random": lambda doors, chance: Opener(lambda: chance.randint(1, 8)),
        },
    )


class Voice:
    """A backend that answers by a rule, and keeps what it was asked."""

    max_length = 4096

    def __init__(self, rule: Callable[[str], str], patience: int | None = None, max_length: int = 4096) -> None:
        self.rule, self.patience, self.max_length = rule, patience, max_length
        self.asked: list[Prompt] = []
        self.waves: list[int] = []
        self.description: dict[str, Any] = {"name": "voice", "backend": "test", "fingerprint": "voice"}
        self.description |= {"parameters": None, "dtype": None, "source": "a rule"}

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def generate(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, str]]:
        self.waves.append(len(prompts))
        order = list(range(len(prompts)))
        random.Random(0).shuffle(order)
        for index in order:
            if self.patience is not None and len(self.asked) >= self.patience:
                raise KeyboardInterrupt
            self.asked.append(prompts[index])
            text = self.rule(prompts[index].text)
            yield index, text

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        raise AssertionError

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        raise AssertionError
