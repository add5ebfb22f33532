"""Loss on answers: each answer's own tokens given all before them, whatever it is batched with."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from xmodel2.data.questions import read_questions
from xmodel2.eval.answers import answer_losses
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train import load_model


def test_it_is_the_cross_entropy_of_the_assistants_tokens(road: Path) -> None:
    model, _, _ = load_model(road / "run")
    tokenizer = load_tokenizer(road / "run" / "tokenizer")
    questions = read_questions(road / "data")
    found = answer_losses(model, tokenizer, questions, batch_size=5)
    nats, tokens = 0.0, 0
    for question in questions:
        ids, mask = tokenizer.encode_chat(question["messages"])
        with torch.no_grad():
            logits_SV = model(torch.tensor([ids]))[0]
        answer = torch.tensor(mask[1:], dtype=torch.bool)
        nats += float(F.cross_entropy(logits_SV[:-1][answer], torch.tensor(ids[1:])[answer], reduction="sum"))
        tokens += int(answer.sum())
    assert found["tokens"] == tokens
    assert found["loss"] == pytest.approx(nats / tokens, rel=1e-4)
    assert found["by_task"].keys() == {question["task"] for question in questions}
    assert sum(row["tokens"] for row in found["by_task"].values()) == tokens


def test_what_is_too_long_is_left_out(road: Path) -> None:
    model, _, _ = load_model(road / "run")
    tokenizer = load_tokenizer(road / "run" / "tokenizer")
    question = read_questions(road / "data")[0]
    long = {**question, "messages": [{"role": "user", "content": "word " * 600}, question["messages"][-1]]}
    assert answer_losses(model, tokenizer, [question, long]) == answer_losses(model, tokenizer, [question])
    assert answer_losses(model, tokenizer, [long])["loss"] is None
