"""Answers in two formats: the same tokens after a chat's turns and after the same question as text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from xmodel2.data.questions import read_questions
from xmodel2.eval.answer_formats import format_scores
from xmodel2.model import Xmodel2
from xmodel2.tokenizer import Tokenizer, load_tokenizer
from xmodel2.train import load_model

Road = tuple[Xmodel2, Tokenizer, list[dict[str, Any]]]


@pytest.fixture
def small(road: Path) -> Road:
    model, _, _ = load_model(road / "run")
    return model, load_tokenizer(road / "run" / "tokenizer"), read_questions(road / "data")[:8]


def nats(model: Xmodel2, before: list[int], answer: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits_SV = model(torch.tensor([before + answer]))[0]
    return F.cross_entropy(logits_SV[len(before) - 1 : -1], torch.tensor(answer), reduction="none")


def test_only_what_stands_before_the_answer_differs(small: Road) -> None:
    model, tokenizer, questions = small
    found = format_scores(model, tokenizer, questions, [{**question, "task": "one"} for question in questions])
    losses: dict[str, list[torch.Tensor]] = {"chat": [], "text": []}
    for question in questions:
        asked, said = (message["content"] for message in question["messages"])
        answer = tokenizer.encode(said)
        chat = [tokenizer.bos_id, tokenizer.role_ids["user"], *tokenizer.encode(asked), tokenizer.end_id]
        losses["chat"].append(nats(model, [*chat, tokenizer.role_ids["assistant"]], answer))
        losses["text"].append(nats(model, [tokenizer.bos_id, *tokenizer.encode(f"{asked}\n\n")], answer))
    for form, every in losses.items():
        assert found[form]["questions"] == pytest.approx(float(torch.cat(every).mean()), rel=1e-4)
        assert found[form]["documents"] == pytest.approx(found[form]["questions"])
        later = torch.cat([each[1:] for each in every])
        assert found[form]["later_tokens"] == pytest.approx(float(later.mean()), rel=1e-4)
        assert found[form]["counts"] == {"documents": 8, "questions": 8}


def test_what_is_too_long_in_one_format_is_left_out_of_both_and_sources_weigh_alike(small: Road) -> None:
    model, tokenizer, questions = small
    one, other = ({**question, "task": task} for question, task in zip(questions, "ab", strict=False))
    long = {**one, "messages": [{"role": "user", "content": "word " * 600}, one["messages"][-1]]}
    found = format_scores(model, tokenizer, [], [one, one, other, long])["text"]
    assert found["counts"] == {"documents": 3, "questions": 0}
    assert found["documents"] == pytest.approx(sum(found["documents_by_source"].values()) / 2)
    assert found["documents_by_source"].keys() == {"a", "b"}
    assert found["questions"] is None
    assert found["accuracy"] is None


def test_a_text_answers_with_as_many_paragraphs_as_the_answer_has(small: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer, questions = small
    said = {question["messages"][0]["content"]: question["messages"][1]["content"] for question in questions}

    def right_then_more(model: Xmodel2, prompts: Sequence[list[int]], *_: Any) -> list[list[int]]:
        asked = (tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in prompts)
        return [tokenizer.encode(f"{said[question]}\n\nAnd another: #### 0") for question in asked]

    monkeypatch.setattr("xmodel2.eval.answer_formats.generate", right_then_more)
    found = format_scores(model, tokenizer, questions, [])
    assert found["text"]["accuracy"] == 1
    assert found["chat"]["accuracy"] == 0  # a chat's answer is all that it says
