"""The local backend: any `transformers` causal language model, its answers equal to lm-evaluation-harness's, several times faster.

What is the same: how texts become tokens, which tokens are scored, where answers are cut. What is not: shared beginnings are
computed once (`prefix_tree`), logits are made only where they are wanted (`network`), and answers of different lengths do not
wait for each other (`generation`).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from xmodel2.errors import XmodelError
from xmodel2.eval.backend import Prompt
from xmodel2.eval.conversation import Converser, Reply, converse_in_waves
from xmodel2.eval.generation import SLOTS, Generator
from xmodel2.eval.network import Network
from xmodel2.eval.plain_generation import generate_plainly
from xmodel2.eval.requests import encode_pair, rolling_windows
from xmodel2.eval.scoring import score_pairs
from xmodel2.eval.text import TextTokenizer
from xmodel2.eval.trust import has_rules_of_its_own, shares_safely

_CACHE_BYTES = 2**30
"""Keys and values of generation on a CPU; on a GPU a quarter of what is free."""


class Engine:
    """A `Backend` on one device. ``batch_tokens`` are the tokens of a forward pass, padding included.

    ``share_prefixes=False`` is for classes that understand no masks, positions and caches but their own; where `shares_safely`
    finds one of `transformers` that does not, it is so without saying. Raises `XmodelError` for a model that is not causal, a
    tokenizer without a first token, and a context too short.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any,
        description: dict[str, Any],
        *,
        max_length: int | None = None,
        batch_tokens: int = 0,
        share_prefixes: bool = True,
        slots: int = SLOTS,
    ) -> None:
        self.network = Network(model)
        on_gpu = self.network.device.type != "cpu"
        generation = getattr(model, "generation_config", None)
        stops: Any = getattr(generation, "eos_token_id", None)
        self.text = TextTokenizer(tokenizer, stops if isinstance(stops, list) else [stops])
        self._description = description
        self._max_length = context_of(self.network.config, max_length)
        # Measured on a CPU: 512 tokens a core stay in its cache, 2,048 take a fifth longer.
        self._batch_tokens = batch_tokens or (16384 if on_gpu else 512 * min(8, torch.get_num_threads()))
        self._share = share_prefixes and shares_safely(self.network)
        self._plain = not self._share or has_rules_of_its_own(generation)
        self._slots = slots

    @property
    def description(self) -> dict[str, Any]:
        """What results say of the model."""
        return self._description

    @property
    def max_length(self) -> int:
        """Context, in tokens."""
        return self._max_length

    @property
    def shares_prefixes(self) -> bool:
        """Whether common beginnings are computed once."""
        return self._share

    @property
    def prefix_token_id(self) -> int:
        """Token that stands before a text."""
        return self.text.prefix_id

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, with the tokenizer's own first token."""
        return self.text.encode(text)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, the first one of its own included."""
        return self.text.count_tokens(texts)

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """Yield the log-probability of each continuation after its context, and whether it is the greedy one."""
        wanted = dict.fromkeys(text for pair in pairs for text in (pair[0].rstrip(), "".join(pair)))
        known = dict(zip(wanted, self.text.encode_many(list(wanted)), strict=True))
        split = [encode_pair(known.__getitem__, *pair, self.text.prefix_id) for pair in pairs]
        for index, nats, greedy in score_pairs(self.network, split, self._max_length, self._batch_tokens, self._share):
            total = float(nats.sum())
            if not math.isfinite(total):
                raise XmodelError(
                    f"{self._description.get('source')}: gives log-probabilities that are no numbers ({-total})"
                )
            yield index, (-total, greedy)

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """Yield the log-probability of each text, in windows of the context; the first token follows the prefix token, once."""
        for index, ids in enumerate(self.text.encode_many(texts, special=False)):
            windows = list(rolling_windows(ids, self.text.prefix_id, self._max_length))
            scored = score_pairs(self.network, windows, self._max_length, self._batch_tokens, share=False)
            yield index, -sum(float(nats.sum()) for _, nats, _ in scored)

    def token_losses(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield nats [len(row) - 1] of every token but the first of each row of ids."""
        pairs = [([row[0]], list(row[1:])) for row in rows]
        for index, nats, _ in score_pairs(self.network, pairs, self._max_length, self._batch_tokens, share=False):
            yield index, nats

    def generate(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, str]]:
        """Yield the continuation of each prompt, cut before its first stop string."""
        if self._plain:
            # A step of generation feeds one token a row: a batch of whole answers may be larger than a forward pass.
            yield from generate_plainly(self.network, self.text, prompts, self._max_length, 8 * self._batch_tokens)
        elif prompts:
            room = self._cache_tokens()
            generator = Generator(self.network, self.text, self._max_length, self._batch_tokens, room, self._slots)
            yield from generator.run(prompts)

    def converse(self, conversations: Iterator[tuple[int, Prompt]], reply: Reply) -> None:
        """Hold conversations from (its number, first prompt); ``reply`` gets each answer and gives the next prompt."""
        if self._plain:
            converse_in_waves(self, conversations, reply, self._slots)
        else:
            room = self._cache_tokens()
            Converser(self.network, self.text, self._max_length, self._batch_tokens, room, self._slots).run(
                conversations, reply
            )

    def _cache_tokens(self) -> int:
        """Return of how many tokens the keys and values fit into the memory for them."""
        config, network = self.network.config.get_text_config(), self.network
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        per_token = 2 * config.num_hidden_layers * heads * head_dim * network.dtype.itemsize
        room = torch.cuda.mem_get_info(network.device)[0] // 4 if network.device.type == "cuda" else _CACHE_BYTES
        return int(room // per_token)


def context_of(config: Any, asked: int | None = None) -> int:
    """Return the tokens that a model of this ``config`` sees: what is asked for, at most what it was made for."""
    config = config.get_text_config()
    names = ("n_positions", "max_position_embeddings", "n_ctx")
    made_for = next((getattr(config, name) for name in names if hasattr(config, name)), 2048)
    if asked is not None and asked < 2:
        raise XmodelError(f"--max-length {asked}: must be 2 tokens or more")
    return min(asked, made_for) if asked else int(made_for)
