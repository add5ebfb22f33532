"""Generation with a key/value cache: batched, left-padded, greedy or sampled."""

from collections.abc import Sequence

import torch

from xmodel2.errors import XmodelError
from xmodel2.model.decoder import KVCache, Xmodel2


@torch.no_grad()
def generate(
    model: Xmodel2,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Sequence[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[int]]:
    """Continue each prompt until a stop id (left out of the answer) or ``max_new_tokens``; temperature 0 is greedy.

    Raises `XmodelError` for an empty prompt, or one that leaves no room in the context.
    """
    if not prompts:
        return []
    longest = max(len(prompt) for prompt in prompts)
    if min(len(prompt) for prompt in prompts) == 0:
        raise XmodelError("generate: a prompt is empty; start it with the tokenizer's <s>")
    capacity = longest + max_new_tokens
    if capacity > model.settings.max_position_embeddings:
        raise XmodelError(
            f"generate: a prompt of {longest} tokens and {max_new_tokens} new ones exceed"
            f" max_position_embeddings {model.settings.max_position_embeddings}"
        )
    weight = model.embed_tokens.weight
    pads = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor([[0] * pad + list(prompt) for pad, prompt in zip(pads, prompts, strict=True)])
    ids = ids.to(weight.device)
    cache = KVCache(model.settings, torch.tensor(pads, device=weight.device), capacity, weight.dtype)
    generator = torch.Generator(device=weight.device).manual_seed(seed)
    stops = set(stop_ids)
    answers: list[list[int]] = [[] for _ in prompts]
    running = [True] * len(prompts)
    for _ in range(max_new_tokens):
        logits_BV = model.logits(model.hidden(ids, cache=cache)[:, -1])
        next_B = choose(logits_BV, temperature, top_p, generator)
        for row, token in enumerate(next_B.tolist()):
            if running[row] and token in stops:
                running[row] = False
            elif running[row]:
                answers[row].append(token)
        if not any(running):
            break
        ids = next_B[:, None]
    return answers


def choose(logits_BV: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator) -> torch.Tensor:
    """Return the next tokens [batch]: the likeliest at temperature 0, else drawn from those that together have ``top_p``."""
    if temperature == 0:
        return logits_BV.argmax(-1)
    probability, order = torch.softmax(logits_BV.float() / temperature, -1).sort(descending=True)
    before = probability.cumsum(-1) - probability
    probability = probability.masked_fill(before >= top_p, 0.0)
    pick = torch.multinomial(probability, 1, generator=generator)
    return order.gather(-1, pick)[:, 0]
