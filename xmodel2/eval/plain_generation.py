"""Generation by a model's own `generate`, in batches padded on the left: for classes that come with a repository's own code,
which need not understand the masks and caches of `generation`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from xmodel2.eval.backend import Prompt
from xmodel2.eval.network import Network
from xmodel2.eval.requests import cut_at_stop, fit_prompt
from xmodel2.eval.text import TextTokenizer


class _AtStopString(StoppingCriteria):
    """Ends a row once its newest text holds one of its stop strings."""

    def __init__(self, tokenizer: TextTokenizer, prompts: Sequence[Prompt], width: int) -> None:
        self._tokenizer, self._prompts, self._width = tokenizer, prompts, width

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        rows = zip(input_ids[:, self._width :].tolist(), self._prompts, strict=True)
        ended = [self._tokenizer.completes_stop(row, prompt.until) for row, prompt in rows]
        return torch.tensor(ended, device=input_ids.device)


@torch.inference_mode()
def generate_plainly(
    network: Network, tokenizer: TextTokenizer, prompts: Sequence[Prompt], max_length: int, batch_tokens: int
) -> Iterator[tuple[int, str]]:
    """Yield (index, text before the first stop string); prompts of equal settings share batches, longest first."""
    encoded = tokenizer.encode_many([prompt.text for prompt in prompts])
    ids = [fit_prompt(row, prompt.max_new_tokens, max_length)[0] for row, prompt in zip(encoded, prompts, strict=True)]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        settings = (prompt.max_new_tokens, prompt.temperature, prompt.top_p, prompt.seed)
        groups.setdefault(settings, []).append(index)
    for members in groups.values():
        members.sort(key=lambda index: -len(ids[index]))
        while members:
            room = len(ids[members[0]]) + prompts[members[0]].max_new_tokens
            batch = members[: max(1, batch_tokens // room)]
            members = members[len(batch) :]
            yield from _generate(network, tokenizer, batch, prompts, ids, max_length)


def _generate(
    network: Network,
    tokenizer: TextTokenizer,
    batch: Sequence[int],
    prompts: Sequence[Prompt],
    ids: Sequence[Sequence[int]],
    max_length: int,
) -> Iterator[tuple[int, str]]:
    width, first = max(len(ids[index]) for index in batch), prompts[batch[0]]
    pads = [width - len(ids[index]) for index in batch]
    rows = torch.tensor([[0] * pad + list(ids[index]) for pad, index in zip(pads, batch, strict=True)])
    real = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
    settings: dict[str, Any] = {"do_sample": first.temperature > 0}
    if first.temperature > 0:
        settings |= {"temperature": first.temperature, "top_p": first.top_p}
        torch.manual_seed(first.seed)
    stops = StoppingCriteriaList([_AtStopString(tokenizer, [prompts[index] for index in batch], width)])
    answers = network.model.generate(  # type: ignore[operator]
        input_ids=rows.to(network.device),
        attention_mask=real.to(network.device),
        max_new_tokens=min(first.max_new_tokens, max_length - width),
        eos_token_id=sorted(tokenizer.stop_ids) or None,
        pad_token_id=0,
        stopping_criteria=stops,
        **settings,
    )[:, width:].tolist()
    for index, answer in zip(batch, answers, strict=True):
        end = next((place for place, token in enumerate(answer) if token in tokenizer.stop_ids), len(answer))
        yield index, cut_at_stop(tokenizer.decode(answer[:end]), prompts[index].until)
