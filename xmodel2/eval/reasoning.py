"""Exact match on verifiable questions, answered by greedy generation."""

from collections.abc import Sequence
from typing import Any

from xmodel2.data.reasoning import Example, extract_answer, majority_answers
from xmodel2.model import Xmodel2
from xmodel2.model.generate import generate
from xmodel2.tokenizer import Tokenizer


def evaluate_reasoning(
    model: Xmodel2, tokenizer: Tokenizer, examples: Sequence[Example], max_new_tokens: int = 48, batch_size: int = 64
) -> dict[str, Any]:
    """Return accuracy, accuracy and count by task, and a transcript of every question.

    An example has task, answer, and messages that end with the assistant's, which the model does not see. One that is too
    long for the context counts as wrong.
    """
    prompts = [tokenizer.encode_prompt(example["messages"][:-1]) for example in examples]
    room = model.settings.max_position_embeddings - max_new_tokens
    order = sorted((i for i in range(len(examples)) if len(prompts[i]) <= room), key=lambda i: len(prompts[i]))
    transcripts: list[dict[str, Any]] = [
        {
            "task": e["task"],
            "question": e["messages"][-2]["content"],
            "answer": e["answer"],
            "said": "",
            "correct": False,
        }
        for e in examples
    ]
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        asked = [prompts[i] for i in picked]
        answers = generate(model, asked, max_new_tokens, tokenizer.stop_ids, pieces=tokenizer.vocab_size)
        for i, ids in zip(picked, answers, strict=True):
            said = tokenizer.decode(ids, skip_special_tokens=True)
            transcripts[i] |= {"said": said, "correct": extract_answer(said) == examples[i]["answer"]}
    return {**_accuracy(transcripts), "transcripts": transcripts}


def majority_baseline(train: Sequence[Example], heldout: Sequence[Example]) -> dict[str, Any]:
    """Return the accuracy of always giving each task's commonest training answer."""
    answers = majority_answers(train)
    return _accuracy([{"task": e["task"], "correct": answers.get(e["task"]) == e["answer"]} for e in heldout])


def _accuracy(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    tasks: dict[str, list[bool]] = {}
    for row in rows:
        tasks.setdefault(row["task"], []).append(row["correct"])
    return {
        "accuracy": sum(row["correct"] for row in rows) / len(rows) if rows else 0.0,
        "count": len(rows),
        "by_task": {task: {"accuracy": sum(r) / len(r), "count": len(r)} for task, r in sorted(tasks.items())},
    }
