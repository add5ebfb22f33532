"""Loss on the answers to questions: what a small model gains before it answers any of them exactly."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from xmodel2.data.reasoning import Example
from xmodel2.model import Xmodel2
from xmodel2.tokenizer import Tokenizer


def answer_losses(
    model: Xmodel2, tokenizer: Tokenizer, examples: Sequence[Example], batch_size: int = 16
) -> dict[str, Any]:
    """Return nats a token of the assistant's last message (``loss``), count of ``tokens``, and both by task.

    An example that is too long for the context is left out.
    """
    rows, tasks = [], []
    for example in examples:
        prompt, whole = tokenizer.encode_prompt(example["messages"][:-1]), tokenizer.encode_chat(example["messages"])[0]
        if len(whole) <= model.settings.max_position_embeddings:
            rows.append((whole, len(prompt)))
            tasks.append(example["task"])
    nats: dict[str, float] = {}
    tokens: dict[str, int] = {}
    for row, losses in token_losses(model, rows, batch_size):
        nats[tasks[row]] = nats.get(tasks[row], 0.0) + sum(losses)
        tokens[tasks[row]] = tokens.get(tasks[row], 0) + len(losses)
    total = sum(tokens.values())
    return {
        "loss": sum(nats.values()) / total if total else None,
        "tokens": total,
        "by_task": {task: {"loss": nats[task] / tokens[task], "tokens": tokens[task]} for task in sorted(tokens)},
    }


@torch.no_grad()
def token_losses(
    model: Xmodel2, rows: Sequence[tuple[list[int], int]], batch_size: int = 16
) -> Iterator[tuple[int, list[float]]]:
    """Yield (number of the row, nats of each token from ``begin`` on) for rows of (ids, begin), short rows first."""
    device = model.embed_tokens.weight.device
    order = sorted(range(len(rows)), key=lambda row: len(rows[row][0]))
    for start in range(0, len(order), batch_size):
        part = [(row, *rows[row]) for row in order[start : start + batch_size]]
        longest = max(len(ids) for _, ids, _ in part)
        ids_BS = torch.tensor([ids + [0] * (longest - len(ids)) for _, ids, _ in part], device=device)
        hidden_BSH = model.hidden(ids_BS[:, :-1])  # what follows the end can't be seen from before it
        for hidden_SH, (row, ids, begin) in zip(hidden_BSH, part, strict=True):
            logits_TV = model.logits(hidden_SH[begin - 1 : len(ids) - 1]).float()
            losses_T = F.cross_entropy(logits_TV, torch.tensor(ids[begin:], device=device), reduction="none")
            yield row, losses_T.tolist()
