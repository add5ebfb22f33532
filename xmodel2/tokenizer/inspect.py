"""A tokenizer and some texts become the figures that say how well they fit."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.tokenizer.encoder import Encoder
from xmodel2.tokenizer.load import Tokenizer

_BATCH = 256  # documents encoded at once, so that a large corpus is never held whole
_NUMBER = re.compile(r"[0-9]+")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Counts:
    """What is counted of one tokenizer on texts; counts of several sources add up."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.tokens: Counter[int] = Counter()
        self.identifiers: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()

    def add(self, texts: Iterable[str]) -> None:
        """Count texts, each encoded alone, no specials."""
        stream = iter(texts)
        while batch := list(islice(stream, _BATCH)):
            for text, ids in zip(batch, self.encoder.encode_batch(batch), strict=True):
                self.tokens.update(ids)
                self.identifiers.update(_IDENTIFIER.findall(text))
                self.totals["documents"] += 1
                self.totals["characters"] += len(text)
                self.totals["bytes"] += len(text.encode())
                self.totals["words"] += len(text.split())
                self.totals["lines"] += text.count("\n") + (not text.endswith("\n"))
                self.totals["numbers"] += len(_NUMBER.findall(text))
                self.totals["round_trip_failures"] += self.encoder.decode(ids) != text

    def update(self, other: "Counts") -> None:
        """Add the counts of the same tokenizer on other texts."""
        self.tokens.update(other.tokens)
        self.identifiers.update(other.identifiers)
        self.totals.update(other.totals)

    def figures(self) -> dict[str, Any]:
        """Return the figures (`tokenizer_statistics`). Raises `XmodelError` if there was no text."""
        tokens, totals, encoder = self.tokens.total(), self.totals, self.encoder
        if not tokens:
            raise XmodelError("tokenizer statistics: the text is empty; give files with text")
        learned = [index for index in range(encoder.vocab_size) if index not in encoder.byte_ids | encoder.special_ids]
        digits = sum(self.tokens[index] for index in learned if _NUMBER.search(encoder.pieces[index]))
        return {
            "vocab_size": encoder.vocab_size,
            "documents": totals["documents"],
            "characters": totals["characters"],
            "bytes": totals["bytes"],
            "tokens": tokens,
            "bytes_per_token": totals["bytes"] / tokens,
            "chars_per_token": totals["characters"] / tokens,
            "tokens_per_word": tokens / max(totals["words"], 1),
            "tokens_per_line": tokens / max(totals["lines"], 1),
            "tokens_per_number": digits / max(totals["numbers"], 1),
            "tokens_per_identifier": self._tokens_per_identifier(),
            "byte_fallback_rate": sum(self.tokens[index] for index in encoder.byte_ids) / tokens,
            "unknown_tokens": 0 if encoder.unknown_id is None else self.tokens[encoder.unknown_id],
            "used_vocabulary": sum(self.tokens[index] > 0 for index in learned) / len(learned),
            "renyi_efficiency": renyi_efficiency(self.tokens.values(), encoder.vocab_size),
            "round_trip_failures": totals["round_trip_failures"],
        }

    def _tokens_per_identifier(self) -> float:
        """Each occurrence counts as the tokens that its name takes after a space."""
        if not self.identifiers:
            return 0.0
        before, *found = map(len, self.encoder.encode_batch(["a", *(f"a {name}" for name in self.identifiers)]))
        counts = self.identifiers.values()
        return sum((length - before) * count for length, count in zip(found, counts, strict=True)) / sum(counts)


def tokenizer_statistics(tokenizer: Encoder | Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Return compression and coverage of a tokenizer on texts (each encoded alone, no specials).

    ``bytes_per_token`` and ``chars_per_token`` are means over all text; ``words`` are runs without white space, numbers runs of
    digits, identifiers runs of letters, digits and ``_``; ``byte_fallback_rate`` is the share of tokens that are single bytes;
    ``renyi_efficiency`` is `renyi_efficiency`; ``round_trip_failures`` counts texts that do not decode to themselves (expected: 0).
    Raises `XmodelError` if there is no text.
    """
    encoder = tokenizer.as_encoder() if isinstance(tokenizer, Tokenizer) else tokenizer
    counts = Counts(encoder)
    counts.add(texts)
    figures = counts.figures()
    text = [index for index in range(encoder.vocab_size) if index not in encoder.byte_ids | encoder.special_ids]
    return figures | {
        "mean_piece_length": sum(len(encoder.pieces[index]) for index in text) / len(text),
        "longest_piece": max((encoder.pieces[index].strip() for index in text), key=len),
        "most_common": [[encoder.pieces[index], count] for index, count in counts.tokens.most_common(10)],
    }


def renyi_efficiency(counts: Iterable[int], vocab_size: int, alpha: float = 2.5) -> float:
    """Return the Renyi entropy of order alpha of the token distribution over log(vocab_size), from 0 to 1.

    Zouhar et al. 2023, "Tokenization and the Noiseless Channel": at alpha 2.5 it goes with translation quality; too many very
    frequent tokens lower it.

    >>> renyi_efficiency([5, 5, 5, 5], 4), renyi_efficiency([5, 5, 5, 5], 16)
    (1.0, 0.5)
    """
    counts = list(counts)
    total = sum(counts)
    power_sum = sum((count / total) ** alpha for count in counts)
    return math.log(power_sum) / (1 - alpha) / math.log(vocab_size)
