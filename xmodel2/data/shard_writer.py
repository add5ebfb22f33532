"""Documents of tokens become shard files, each with its size and SHA-256 (`data/shards.py` draws the layout)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.files import write_bytes_atomic

COUNTS = ("documents", "tokens", "loss_tokens", "bytes")
"""What is counted of a split: documents, their tokens, those that are targets, and bytes of text."""


class SplitWriter:
    """Collect documents and write them as ``stem-000``, ``stem-001``, ...: shards of about ``shard_tokens``."""

    def __init__(self, folder: Path, stem: str, dtype: str, with_loss: bool, shard_tokens: int = 1 << 27) -> None:
        self._folder, self._stem, self._dtype, self._with_loss = folder, stem, dtype, with_loss
        self._shard_tokens = shard_tokens
        self._shards: list[dict[str, Any]] = []
        self._totals = dict.fromkeys(COUNTS, 0)
        self._clear()

    def _clear(self) -> None:
        self._ids: list[np.ndarray] = []
        self._loss: list[np.ndarray] = []
        self._offsets = [0]

    def add(self, ids: Sequence[int] | np.ndarray, loss: list[int] | None, text_bytes: int) -> None:
        """Append one document; ``text_bytes`` is its length in UTF-8."""
        self._ids.append(np.array(ids, dtype=self._dtype))
        if self._with_loss:
            self._loss.append(np.array(loss, dtype=np.uint8))
        self._offsets.append(self._offsets[-1] + len(ids))
        self._totals["documents"] += 1
        self._totals["tokens"] += len(ids)
        self._totals["loss_tokens"] += sum(loss) if loss is not None else len(ids)
        self._totals["bytes"] += text_bytes
        if self._offsets[-1] >= self._shard_tokens:
            self._flush()

    def _flush(self) -> None:
        if not self._ids:
            return
        stem = f"{self._stem}-{len(self._shards):03d}"
        arrays = {
            "tokens": np.concatenate(self._ids),
            "offsets": np.array(self._offsets, dtype=np.uint64),
        }
        if self._with_loss:
            arrays["loss"] = np.concatenate(self._loss)
        files = {}
        for kind, array in arrays.items():
            path = self._folder / f"{stem}.{kind}"
            data = array.view(np.uint8).data if array.size else memoryview(b"")
            write_bytes_atomic(path, data)
            files[kind] = {"file": path.name, "bytes": array.nbytes, "sha256": hashlib.sha256(data).hexdigest()}
        self._shards.append({"documents": len(self._ids), "tokens": self._offsets[-1], "files": files})
        self._clear()

    def finish(self) -> dict[str, Any]:
        """Write what is left and return totals and shards, as the index has them."""
        self._flush()
        return {**self._totals, "shards": self._shards}
