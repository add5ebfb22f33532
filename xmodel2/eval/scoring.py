"""Log-probabilities of tokens under a network, in batches of rows that share beginnings.

(context, continuation) pairs --tree_rows--> rows --by length--> batches --Network.logits--> nats of each continuation
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from xmodel2.eval.network import Network
from xmodel2.eval.prefix_tree import TreeRow, batch_mask, batch_tensors, tree_rows
from xmodel2.eval.requests import distinct

Pair = tuple[list[int], list[int]]
"""Ids of a context (at least one) and of what follows."""
_LOGIT_ROWS = 256
"""Positions whose probabilities are made at a time."""


def score_pairs(
    network: Network, pairs: Sequence[Pair], max_length: int, batch_tokens: int, share: bool = True
) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Yield (index, nats [len(continuation)] of each of its tokens, whether they are the greedy ones).

    What exceeds ``max_length`` is cut off on the left. ``share=False`` gives every different sequence a row to itself.
    """
    wholes = [(context + continuation)[-(max_length + 1) :] for context, continuation in pairs]
    targets = [whole[max(1, len(whole) - len(pair[1])) :] for whole, pair in zip(wholes, pairs, strict=True)]
    asked = [index for index, target in enumerate(targets) if target]
    for index in set(range(len(pairs))).difference(asked):  # nothing is certain
        yield index, np.zeros(0, dtype=np.float32), True
    fed = [wholes[index][:-1] for index in asked]
    if share and network.takes_positions:
        rows = list(tree_rows(fed))
    else:
        rows = list[TreeRow]()
        for ids, places in distinct(map(tuple, fed)).items():
            (row,) = tree_rows([ids])
            row.paths = [(place, row.paths[0][1]) for place in places]
            rows.append(row)
    for row in rows:
        row.paths = [(asked[place], columns) for place, columns in row.paths]
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
            for column, token in zip(columns[len(columns) - len(targets[index]) :], targets[index], strict=True):
                places.append(place_of.setdefault((number, column), len(place_of)))
                tokens.append(token)
    device = network.device
    ids, positions = batch_tensors(rows, device)
    wanted = torch.tensor(list(place_of), device=device)
    mask = batch_mask(rows, device)
    parts = network.logit_parts(ids, (wanted[:, 0], wanted[:, 1]), positions if mask is not None else None, mask)
    nats, greedy = token_nats(parts, torch.tensor(places, device=device), torch.tensor(tokens, device=device))
    at = 0
    for index in sequences:
        end = at + len(targets[index])
        yield index, nats[at:end], bool(greedy[at:end].all())
        at = end


@torch.inference_mode()
def token_nats(
    parts: Iterable[torch.Tensor], places_M: torch.Tensor, tokens_M: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return -log p [M] of each token at its place, in fp32, and whether it is the likeliest there.

    A place is a row of the logits, which come in ``parts`` [n, vocab].
    """
    nats = torch.empty(len(places_M), device=places_M.device)
    greedy = torch.empty(len(places_M), dtype=torch.bool, device=places_M.device)
    start = 0
    for part in parts:
        inside = ((places_M >= start) & (places_M < start + len(part))).nonzero()[:, 0]
        rows, tokens = places_M[inside] - start, tokens_M[inside]
        total = torch.cat([rows_nV.float().logsumexp(-1) for rows_nV in part.split(_LOGIT_ROWS)])
        nats[inside] = total[rows] - part[rows, tokens].float()
        greedy[inside] = part.argmax(-1)[rows] == tokens
        start += len(part)
    return nats.cpu().numpy(), greedy.cpu().numpy()
