"""Log-probabilities of tokens under a network, in batches of rows that share beginnings.

(context, continuation) pairs --tree_rows--> rows --by length--> batches --Network.logits--> nats of each continuation
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from xmodel2.eval.network import Network
from xmodel2.eval.prefix_tree import TreeRow, batch_mask, batch_tensors, tree_rows
from xmodel2.eval.requests import distinct

Pair = tuple[list[int], list[int]]
"""Ids of a context (at least one) and of what follows (at least one)."""
_LOGIT_ROWS = 256
"""Positions whose probabilities are made at a time."""


def score_pairs(
    network: Network, pairs: Sequence[Pair], max_length: int, batch_tokens: int, share: bool = True
) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Yield (index, nats [len(continuation)] of each of its tokens, whether they are the greedy ones).

    What exceeds ``max_length`` is cut off on the left. ``share=False`` gives every different sequence a row to itself.
    """
    wholes = [(context + continuation)[-(max_length + 1) :] for context, continuation in pairs]
    fed = [whole[:-1] for whole in wholes]
    targets = [whole[-min(len(pair[1]), len(whole) - 1) :] for whole, pair in zip(wholes, pairs, strict=True)]
    if share and network.takes_positions:
        rows = list(tree_rows(fed))
    else:
        rows = list[TreeRow]()
        for ids, places in distinct(map(tuple, fed)).items():
            (row,) = tree_rows([ids])
            row.paths = [(index, row.paths[0][1]) for index in places]
            rows.append(row)
    for batch in by_length(rows, batch_tokens):
        yield from _score(network, batch, targets)


def by_length(rows: Sequence[TreeRow], batch_tokens: int) -> Iterator[list[TreeRow]]:
    """Yield batches of rows, longest first, each as large as the budget allows at its longest row's length."""
    order = sorted(rows, key=len, reverse=True)
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, len(order[start])))
        yield order[start : start + size]
        start += size


def _score(
    network: Network, rows: list[TreeRow], targets: Sequence[Sequence[int]]
) -> Iterator[tuple[int, np.ndarray, bool]]:
    place_of: dict[tuple[int, int], int] = {}
    sequences, places, tokens = list[int](), list[int](), list[int]()
    for number, row in enumerate(rows):
        for index, columns in row.paths:
            sequences.append(index)
            for column, token in zip(columns[-len(targets[index]) :], targets[index], strict=True):
                places.append(place_of.setdefault((number, column), len(place_of)))
                tokens.append(token)
    device = network.device
    ids, positions = batch_tensors(rows, device)
    wanted = torch.tensor(list(place_of), device=device)
    mask = batch_mask(rows, device)
    logits = network.logits(ids, (wanted[:, 0], wanted[:, 1]), positions if mask is not None else None, mask)
    nats, greedy = token_nats(logits, torch.tensor(places, device=device), torch.tensor(tokens, device=device))
    at = 0
    for index in sequences:
        end = at + len(targets[index])
        yield index, nats[at:end], bool(greedy[at:end].all())
        at = end


@torch.inference_mode()
def token_nats(
    logits_NV: torch.Tensor, places_M: torch.Tensor, tokens_M: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return -log p [M] of each token at its place (a row of the logits), in fp32, and whether it is the likeliest there."""
    total, best = [], []
    for part in logits_NV.split(_LOGIT_ROWS):
        total.append(part.float().logsumexp(-1))
        best.append(part.argmax(-1))
    of_token = logits_NV[places_M, tokens_M].float()
    nats = torch.cat(total)[places_M] - of_token
    return nats.cpu().numpy(), (torch.cat(best)[places_M] == tokens_M).cpu().numpy()
