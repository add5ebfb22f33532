"""Held-out loss of one document after another, so that two sets of weights can be compared document by document.

    Documents -> document_nats(model) -> [documents] -> summary(documents, after, before)

Every document stands alone, from its first token, cut into windows of the context; targets are the tokens that training
counts (all of a text, the answers of a conversation). Run in fp32 whatever the weights are: what is measured is the weights.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from xmodel2.eval.intervals import bootstrap_ratio
from xmodel2.model import Xmodel2
from xmodel2.release.quantising.documents import Documents

_BATCH_TOKENS = 512
"""Of a forward pass on each core, as `xmodel2.eval.engine` has measured it."""
_LOGIT_ROWS = 256
"""Positions whose logits are made at a time."""
_FEWEST = 10
"""Documents that an interval is drawn from."""
ALL = "all"
"""What stands beside the sources for everything together."""


@torch.no_grad()
def document_nats(model: Xmodel2, documents: Documents, context: int) -> np.ndarray:
    """Return the nats of each document's counted tokens [documents]."""
    nats = np.zeros(len(documents.ids))
    for batch in _batches(documents, context):
        longest = max(len(window.ids) for window in batch)
        ids = torch.tensor([window.ids + [0] * (longest - len(window.ids)) for window in batch])
        counted = torch.zeros(ids.shape, dtype=torch.bool)
        for row, window in enumerate(batch):
            counted[row, 1 : len(window.ids)] = torch.from_numpy(window.counted)
        hidden_ND = model.hidden(ids[:, :-1])[counted[:, 1:]]
        losses = [
            F.cross_entropy(model.logits(hidden).float(), targets, reduction="none")
            for hidden, targets in zip(hidden_ND.split(_LOGIT_ROWS), ids[counted].split(_LOGIT_ROWS), strict=True)
        ]
        owners = np.array([window.document for window in batch])[counted.nonzero()[:, 0].numpy()]
        np.add.at(nats, owners, torch.cat(losses).double().numpy())
    return nats


@dataclass
class _Window:
    document: int
    ids: list[int]
    counted: np.ndarray


def _batches(documents: Documents, context: int) -> Iterator[list[_Window]]:
    """Yield windows of all documents, longest first, so that little is padding."""
    windows = [
        _Window(number, ids[start : start + context + 1], mask[start : start + context])
        for number, (ids, mask) in enumerate(zip(documents.ids, documents.counted, strict=True))
        for start in range(0, len(ids) - 1, context)
        if mask[start : start + context].any()
    ]
    windows.sort(key=lambda window: len(window.ids), reverse=True)
    room = _BATCH_TOKENS * min(8, torch.get_num_threads())
    start = 0
    while start < len(windows):
        size = max(1, room // len(windows[start].ids))
        yield windows[start : start + size]
        start += size


def summary(documents: Documents, nats: np.ndarray, before: np.ndarray | None) -> dict[str, dict[str, Any]]:
    """Return {source or "all": loss in nats a token, perplexity, tokens, documents, and the difference to ``before``}.

    The difference is of the same documents; its 95% interval is a bootstrap over documents, redrawn whole.
    """
    sources = np.array(documents.sources)
    tokens = np.array([mask.sum() for mask in documents.counted], dtype=float)
    found: dict[str, dict[str, Any]] = {}
    for name in (*dict.fromkeys(documents.sources), ALL):
        here = np.ones(len(sources), bool) if name == ALL else sources == name
        loss = nats[here].sum() / tokens[here].sum()
        row: dict[str, Any] = {
            "loss": float(loss),
            "perplexity": math.exp(min(loss, 700.0)),
            "tokens": int(tokens[here].sum()),
            "documents": int(here.sum()),
        }
        if before is not None:
            change = nats[here] - before[here]
            row["difference"] = float(change.sum() / tokens[here].sum())
            row["interval"] = list(bootstrap_ratio(change, tokens[here])) if here.sum() >= _FEWEST else None
        found[name] = row
    return found
