"""Generation with a cache gives what the whole sequence gives, for rows of any length together."""

import pytest
import torch

from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.model.generate import generate

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


def test_bad_prompts(model: Xmodel2) -> None:
    assert generate(model, [], 5, []) == []
    with pytest.raises(XmodelError, match="empty"):
        generate(model, [[1], []], 5, [])
    with pytest.raises(XmodelError, match=r"1000 tokens and 100 new ones exceed"):
        generate(model, [[1] * 1000], 100, [])
