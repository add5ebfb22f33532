"""Generation with a cache gives what the whole sequence gives, for rows of any length together."""

from typing import Any

import pytest
import torch

from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.model.generate import choose, generate, stream

PROMPTS = [[1, 5, 9, 22], [1, 70, 3, 8, 41, 6, 11], [1]]


@torch.no_grad()
def slow_greedy(model: Xmodel2, prompt: list[int], steps: int) -> list[int]:
    ids = list(prompt)
    for _ in range(steps):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_equals_recomputing_the_whole_sequence(model: Xmodel2) -> None:
    assert generate(model, PROMPTS, 12, stop_ids=[]) == [slow_greedy(model, prompt, 12) for prompt in PROMPTS]


def test_stop_ids_end_a_row_and_are_left_out(model: Xmodel2) -> None:
    whole = generate(model, PROMPTS, 12, stop_ids=[])
    stop = whole[0][4]
    stopped = generate(model, PROMPTS, 12, stop_ids=[stop])
    assert stopped == [row[: row.index(stop)] if stop in row else row for row in whole]


def test_sampling_depends_on_the_seed_and_narrows_to_greedy(model: Xmodel2) -> None:
    first, again, other = (generate(model, PROMPTS, 20, [], temperature=1.0, seed=s) for s in (1, 1, 2))
    assert first == again != other
    assert generate(model, PROMPTS, 12, [], temperature=1.0, top_p=1e-6) == generate(model, PROMPTS, 12, [])


def test_a_stream_gives_the_tokens_of_generate_one_by_one(model: Xmodel2) -> None:
    cases: list[dict[str, Any]] = [{}, {"temperature": 0.8, "top_k": 9, "seed": 3}, {"repetition_penalty": 1.3}]
    for how in cases:
        (whole,) = generate(model, PROMPTS[:1], 12, stop_ids=[], **how)
        assert list(stream(model, PROMPTS[0], 12, [], **how)) == whole
        assert list(stream(model, PROMPTS[0], 12, whole[6:7], **how)) == whole[: whole.index(whole[6])]
    first = next(stream(model, PROMPTS[0], 12, []))  # and no step of the others is computed
    assert first == generate(model, PROMPTS[:1], 1, [])[0][0]


def test_only_the_likeliest_are_drawn() -> None:
    logits = torch.tensor([[0.1, 0.3, 0.2, 0.4]]).log()

    def drawn(top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0) -> set[int]:
        generator = torch.Generator().manual_seed(0)
        return {int(choose(logits, 1.0, top_p, generator, top_k, min_p)) for _ in range(200)}

    assert drawn() == drawn(top_k=9) == {0, 1, 2, 3}
    assert drawn(top_k=2) == drawn(top_p=0.5) == drawn(min_p=0.7) == {1, 3}
    assert drawn(top_k=2, top_p=0.5) == {3}  # 0.4 / 0.7 of the two that are left
    assert drawn(min_p=1.0) == {3}


def test_a_repetition_penalty_lowers_what_a_row_has(model: Xmodel2) -> None:
    rows = generate(model, PROMPTS, 12, [], repetition_penalty=1e6)
    assert all(len({*prompt, *row}) == len(set(prompt)) + 12 for prompt, row in zip(PROMPTS, rows, strict=True))
    ids, expected = list(PROMPTS[0]), []
    for _ in range(12):
        logits = model(torch.tensor([ids]))[0, -1].detach()
        for token in set(ids):
            logits[token] = logits[token] / 1.5 if logits[token] > 0 else logits[token] * 1.5
        ids.append(int(logits.argmax()))
        expected.append(ids[-1])
    assert generate(model, PROMPTS, 12, [], repetition_penalty=1.5)[0] == expected


def test_bad_prompts(model: Xmodel2) -> None:
    assert generate(model, [], 5, []) == []
    with pytest.raises(XmodelError, match="empty"):
        generate(model, [[1], []], 5, [])
    with pytest.raises(XmodelError, match=r"1000 tokens and 100 new ones exceed"):
        generate(model, [[1] * 1000], 100, [])
