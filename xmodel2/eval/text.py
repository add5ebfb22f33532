"""Text of any model's tokenizer: `transformers`, called as lm-evaluation-harness calls it."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError


def model_files(folder: Path) -> list[Path]:
    """Return a model directory's files that change answers: weights, settings, and the vocabulary, whatever form it has."""
    kinds = ["*.safetensors", "*.json"]
    if not (folder / "tokenizer.json").exists():
        kinds += ["*.model", "vocab.txt", "merges.txt"]
    return sorted(path for kind in kinds for path in folder.glob(kind) if path.is_file())


class TextTokenizer:
    """Encoding with the tokenizer's own special tokens in front, which a text that begins with them does not get again."""

    def __init__(self, tokenizer: Any, more_stop_ids: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.prefix_id: int = bos if bos is not None else eos
        """What stands before a continuation without context."""
        if self.prefix_id is None:
            raise XmodelError(
                "the tokenizer has neither a beginning-of-text nor an end-of-text token to stand before a text"
            )
        self._prefix_text = tokenizer.decode([self.prefix_id])
        self.stop_ids = {token for token in (eos, *more_stop_ids) if token is not None}
        """What ends a generated answer."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of one text."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """Return the ids of each text; ``special=False`` adds none in front."""
        if not texts:
            return []
        begins = [special and not (self._prefix_text and text.startswith(self._prefix_text)) for text in texts]
        ids: list[list[int]] = [[]] * len(texts)
        for wanted in (True, False):
            chosen = [number for number, begin in enumerate(begins) if begin == wanted]
            if chosen:
                encoded = self.tokenizer([texts[n] for n in chosen], add_special_tokens=wanted, verbose=False)[
                    "input_ids"
                ]
                for number, row in zip(chosen, encoded, strict=True):
                    ids[number] = list(row)
        return ids

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, the first one of its own included."""
        return [len(ids) for ids in self.encode_many(texts)]

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Return the text of ids; special tokens are left out unless asked for."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=not special)
        return text

    def completes_stop(self, ids: Sequence[int], until: tuple[str, ...]) -> bool:
        """Tell whether the newest of an answer's ids complete a stop string, which may be a special token."""
        if not until:
            return False
        tail = self.decode(ids[-_tail(until) :], special=True)
        return any(stop and stop in tail for stop in until)


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the SHA-256 of a `transformers` tokenizer as it was loaded: a folder may hold another one under the same name."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    rules = fast.to_str() if fast else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(f"{rules} {tokenizer.bos_token_id} {tokenizer.eos_token_id}".encode()).hexdigest()


@cache
def _tail(until: tuple[str, ...]) -> int:
    """Return how many tokens' text shows whether one of the strings has just been completed: a token has a byte at least."""
    return max(len(stop.encode()) for stop in until) + 2
