"""Loss on the answers to questions: what a small model gains before it answers any of them exactly."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from xmodel2.data.reasoning import Example
from xmodel2.model import Xmodel2
from xmodel2.tokenizer import Tokenizer


@torch.no_grad()
def answer_losses(
    model: Xmodel2, tokenizer: Tokenizer, examples: Sequence[Example], batch_size: int = 16
) -> dict[str, Any]:
    """Return nats a token of the assistant's last message (``loss``), count of ``tokens``, and both by task.

    An example that is too long for the context is left out.
    """
    device = model.embed_tokens.weight.device
    rows = []
    for example in examples:
        prompt, whole = tokenizer.encode_prompt(example["messages"][:-1]), tokenizer.encode_chat(example["messages"])[0]
        if len(whole) <= model.settings.max_position_embeddings:
            rows.append((whole, len(prompt), example["task"]))
    rows.sort(key=lambda row: len(row[0]))
    nats: dict[str, float] = {}
    tokens: dict[str, int] = {}
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        longest = max(len(ids) for ids, _, _ in part)
        ids_BS = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _, _ in part], device=device)
        hidden_BSH = model.hidden(ids_BS[:, :-1])  # what follows the end can't be seen from before it
        for hidden_SH, (ids, begin, task) in zip(hidden_BSH, part, strict=True):
            logits_TV = model.logits(hidden_SH[begin - 1 : len(ids) - 1]).float()
            loss = F.cross_entropy(logits_TV, torch.tensor(ids[begin:], device=device), reduction="sum")
            nats[task] = nats.get(task, 0.0) + float(loss)
            tokens[task] = tokens.get(task, 0) + len(ids) - begin
    total = sum(tokens.values())
    return {
        "loss": sum(nats.values()) / total if total else None,
        "tokens": total,
        "by_task": {task: {"loss": nats[task] / tokens[task], "tokens": tokens[task]} for task in sorted(tokens)},
    }
