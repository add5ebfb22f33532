"""Conversations get the answers that each of their prompts gets alone, from much less computation."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.eval.rival_models import NATIVE, tiny_rival
from xmodel2.eval import shared_attention
from xmodel2.eval.backend import Prompt
from xmodel2.eval.conversation import converse_in_waves
from xmodel2.eval.engine import Engine
from xmodel2.eval.model_options import ModelOptions
from xmodel2.eval.open_model import open_backend

EXAMPLES = ["Question: how many legs has a cat? Answer: four.\n" * 4, "> go to desk 1\nYou see a pen.\n" * 5]


class Talk:
    """Conversations of ``turns`` turns, about two things, that keep every prompt and its answer."""

    def __init__(self, count: int, turns: int, temperature: float = 0.0, examples: Sequence[str] = EXAMPLES) -> None:
        self.count, self.turns, self.temperature, self.examples = count, turns, temperature, examples
        self.asked: list[list[Prompt]] = [[] for _ in range(count)]
        self.answered: list[list[str]] = [[] for _ in range(count)]

    def begin(self) -> Iterator[tuple[int, Prompt]]:
        for index in range(self.count):
            yield index, self._ask(index, f"{self.examples[index % len(self.examples)]}Task {index}:")

    def reply(self, index: int, text: str) -> Prompt | None:
        self.answered[index].append(text)
        if len(self.asked[index]) > index % self.turns:
            return None
        return self._ask(index, f"{self.asked[index][-1].text}{text}\nIt is {len(text)} o'clock.\nNow:")

    def _ask(self, index: int, text: str) -> Prompt:
        self.asked[index].append(Prompt(text, ("\n",), 5 + index % 3, temperature=self.temperature, seed=index))
        return self.asked[index][-1]

    def alone(self, engine: Engine) -> list[list[str]]:
        return [[dict(engine.generate([prompt]))[0] for prompt in prompts] for prompts in self.asked]


def open_tiny(tmp_path: Path, number: int = 0, slots: int = 64, context: int = 512) -> Engine:
    engine = open_backend(str(tiny_rival(NATIVE[number], tmp_path, context=context)), ModelOptions(device="cpu"))
    assert isinstance(engine, Engine)
    engine._slots = slots
    return engine


@pytest.mark.parametrize("slots", [1, 4, 64])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_those_of_each_prompt_alone(tmp_path: Path, slots: int, temperature: float) -> None:
    engine, talk = open_tiny(tmp_path, slots=slots), Talk(9, turns=4, temperature=temperature)
    engine.converse(talk.begin(), talk.reply)
    assert [len(prompts) for prompts in talk.asked] == [1 + index % 4 for index in range(9)]
    assert talk.answered == talk.alone(engine)


@pytest.mark.parametrize("number", range(len(NATIVE)), ids=[rival.name for rival in NATIVE])
def test_every_native_rival_converses_after_examples_read_once(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, talk = open_tiny(tmp_path, number, slots=5), Talk(7, turns=3, examples=[EXAMPLES[0] * 4])
    wanted, shared = list[int](), shared_attention._LEAST_COLUMNS

    def noted(config: Any, beginning: shared_attention.Beginning, rows: int) -> Any:
        wanted.append(beginning.count if rows >= 4 else 0)
        return shared_attention.sharing(config, beginning, rows)

    monkeypatch.setattr("xmodel2.eval.conversation.sharing", noted)
    engine.converse(talk.begin(), talk.reply)
    assert max(wanted) > shared
    assert talk.answered == talk.alone(engine)


def test_a_beginning_read_once_gives_plain_attentions_result(tmp_path: Path) -> None:
    engine = open_tiny(tmp_path)
    prompts = [Prompt(f"{EXAMPLES[0] * 4}Task {number}:", (), 8) for number in range(6)]
    seen, attend = list[float](), shared_attention.sdpa_attention_forward
    used = shared_attention._attend

    def compared(module: Any, query: Any, key: Any, value: Any, mask: Any, **others: Any) -> Any:
        found, wanted = (
            used(module, query, key, value, mask, **others),
            attend(module, query, key, value, mask, **others),
        )
        seen.append((found[0] - wanted[0]).abs().max().item() / wanted[0].abs().max().item())
        return found

    shared_attention.AttentionInterface.register(shared_attention._NAME, compared)
    try:
        together = dict(engine.generate(prompts))
    finally:
        shared_attention.AttentionInterface.register(shared_attention._NAME, used)
    assert len(seen) >= 7 * engine.network.config.num_hidden_layers
    assert max(seen) < 1e-5
    assert [together[index] for index in range(6)] == [dict(engine.generate([prompt]))[0] for prompt in prompts]


def test_prompts_longer_than_the_context_are_cut_as_alone(tmp_path: Path) -> None:
    engine, talk = open_tiny(tmp_path, context=96, slots=4), Talk(6, turns=4)
    engine.converse(talk.begin(), talk.reply)
    assert talk.answered == talk.alone(engine)


def test_only_what_is_new_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, talk = open_tiny(tmp_path), Talk(12, turns=4)
    fed, forward = list[int](), engine.network.logits

    def counted(ids: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        fed.append(ids.numel())
        return forward(ids, *rest, **named)

    monkeypatch.setattr(engine.network, "logits", counted)
    engine.converse(talk.begin(), talk.reply)
    assert sum(fed) < 0.4 * sum(engine.token_counts([prompt.text for prompts in talk.asked for prompt in prompts]))


def test_a_backend_without_slots_takes_turns_in_waves(tmp_path: Path) -> None:
    engine, talk = open_tiny(tmp_path), Talk(7, turns=4)
    converse_in_waves(engine, talk.begin(), talk.reply, width=3)
    assert talk.answered == talk.alone(engine)


def test_a_few_conversations_are_open_at_a_time(tmp_path: Path) -> None:
    engine, talk, open_now, most = open_tiny(tmp_path, slots=3), Talk(10, turns=2), 0, 0

    def begin() -> Iterator[tuple[int, Prompt]]:
        nonlocal open_now, most
        for start in talk.begin():
            open_now += 1
            most = max(most, open_now)
            yield start

    def reply(index: int, text: str) -> Prompt | None:
        nonlocal open_now
        prompt = talk.reply(index, text)
        open_now -= prompt is None
        return prompt

    engine.converse(begin(), reply)
    assert (open_now, most) == (0, 3)


def test_memory_that_is_outgrown_is_shared_by_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, talk = open_tiny(tmp_path), Talk(12, turns=4)
    monkeypatch.setattr(engine, "_cache_tokens", lambda: 700)
    engine.converse(talk.begin(), talk.reply)
    assert talk.answered == talk.alone(engine)


def test_no_conversation_is_no_work(tmp_path: Path) -> None:
    open_tiny(tmp_path).converse(iter(()), lambda index, text: None)
