"""Generation with a key/value cache: batched and left-padded, or one answer token by token; greedy or sampled.

prompts -> generate -> answers, when all have ended
prompt  -> stream   -> each token as soon as it is chosen
"""

from collections.abc import Iterator, Sequence

import torch

from xmodel2.errors import XmodelError
from xmodel2.model.decoder import KVCache, Xmodel2


def generate(
    model: Xmodel2,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Sequence[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    *,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    pieces: int | None = None,
) -> list[list[int]]:
    """Continue each prompt until a stop id (left out of the answer) or ``max_new_tokens``; `choose` tells of the rest.

    With a ``repetition_penalty`` above 1, positive logits of tokens that a row has are divided by it, and negative ones
    multiplied. ``pieces``: of the tokenizer, where the model has more rows, which then are never chosen. Raises `XmodelError`
    for an empty prompt, or one that leaves no room in the context.
    """
    stops = set(stop_ids)
    answers: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    how = (temperature, top_p, top_k, min_p, repetition_penalty, pieces)
    for tokens in _steps(model, prompts, max_new_tokens, seed, *how) if prompts else ():
        running -= {row for row in running if tokens[row] in stops}
        for row in running:
            answers[row].append(tokens[row])
        if not running:
            break
    return answers


def stream(
    model: Xmodel2,
    prompt: Sequence[int],
    max_new_tokens: int,
    stop_ids: Sequence[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    *,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    pieces: int | None = None,
) -> Iterator[int]:
    """Yield what `generate` gives for one prompt, a token at a time; raises as it does, at the first token."""
    how = (temperature, top_p, top_k, min_p, repetition_penalty, pieces)
    for (token,) in _steps(model, [prompt], max_new_tokens, seed, *how):
        if token in stop_ids:
            return
        yield token


@torch.inference_mode()
def _steps(
    model: Xmodel2,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    seed: int,
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    repetition_penalty: float,
    pieces: int | None,
) -> Iterator[list[int]]:
    """Yield the next token of every row, ``max_new_tokens`` times, whether or not a row has ended."""
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
    had_BV = torch.zeros(len(prompts), len(weight), dtype=torch.bool, device=weight.device)
    if repetition_penalty != 1:
        for row, prompt in enumerate(prompts):
            had_BV[row, list(prompt)] = True
    for _ in range(max_new_tokens):
        logits_BV = model.logits(model.hidden(ids, cache=cache)[:, -1])
        if pieces is not None:
            logits_BV[:, pieces:] = float("-inf")
        if repetition_penalty != 1:
            lower_BV = torch.where(logits_BV > 0, logits_BV / repetition_penalty, logits_BV * repetition_penalty)
            logits_BV = torch.where(had_BV, lower_BV, logits_BV)
        next_B = choose(logits_BV, temperature, top_p, generator, top_k, min_p)
        yield next_B.tolist()
        ids = next_B[:, None]
        if repetition_penalty != 1:
            had_BV.scatter_(1, ids, True)


def choose(
    logits_BV: torch.Tensor,
    temperature: float,
    top_p: float,
    generator: torch.Generator,
    top_k: int = 0,
    min_p: float = 0.0,
) -> torch.Tensor:
    """Return the next tokens [batch]: the likeliest at temperature 0, else drawn by softmax(logits / temperature).

    Drawn are only the ``top_k`` likeliest (0: all), of those the likeliest that together have ``top_p``, and none that is
    less likely than ``min_p`` times the likeliest.
    """
    if temperature == 0:
        return logits_BV.argmax(-1)
    # Above the greatest, and by what fp32 can tell from 0: however small a temperature, the likeliest stay finite.
    logits_BV = (logits_BV.float() - logits_BV.amax(-1, keepdim=True).float()) / max(temperature, 1e-30)
    logits, order = logits_BV.topk(min(top_k, logits_BV.shape[-1])) if top_k else logits_BV.sort(descending=True)
    probability = torch.softmax(logits, -1)
    before = probability.cumsum(-1) - probability
    left_out = (before >= top_p) | (probability < min_p * probability[:, :1])
    pick = torch.multinomial(probability.masked_fill(left_out, 0.0), 1, generator=generator)
    return order.gather(-1, pick)[:, 0]
