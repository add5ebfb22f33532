"""What plays without a model: what the environments are tested with, and the floor and ceiling of every agent score."""

from collections.abc import Iterator, Sequence
from typing import Any

from xmodel2.errors import XmodelError, nearest
from xmodel2.eval.agents.environment import PLAYERS
from xmodel2.eval.backend import Prompt


class Baseline:
    """A `Backend` in form: it is in results as models are, and answers nothing but the agents' environments."""

    max_length = 2**31

    def __init__(self, name: str) -> None:
        if name not in PLAYERS:
            raise XmodelError(
                f"{name}: with --backend baseline the model is {', '.join(PLAYERS)}.{nearest(name, PLAYERS)}"
            )
        self.player = name

    @property
    def description(self) -> dict[str, Any]:
        """What results say of it."""
        told = {"name": self.player, "backend": "baseline", "fingerprint": f"baseline {self.player}"}
        return {**told, "parameters": None, "dtype": None, "source": f"the {self.player} player, no model"}

    def token_counts(self, texts: Sequence[str]) -> None:
        """Tell nothing: it reads no tokens."""

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """Refuse."""
        raise self._refusal()

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """Refuse."""
        raise self._refusal()

    def generate(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, str]]:
        """Refuse."""
        raise self._refusal()

    def _refusal(self) -> XmodelError:
        return XmodelError(f"{self.player}: plays the agents' environments only; give --suite agents, or a model")
