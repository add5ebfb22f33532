"""The same answers after the same questions in two formats: as a chat, and as pretraining text.

    chat  <s><|user|>Q<|end|><|assistant|> A        text  <s>Q\\n\\n A

The tokens of A are the same in both (it is tokenized alone), and only they are scored: not what ends a turn, which a text has
not. So two scores differ in nothing but what stands before the answer.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from xmodel2.data.document import TURNS_APART, chat_as_text
from xmodel2.data.reasoning import Example, extract_answer
from xmodel2.eval.answers import token_losses
from xmodel2.model import Xmodel2
from xmodel2.model.generate import generate
from xmodel2.tokenizer import Tokenizer

Format = Literal["chat", "text"]
FORMATS: tuple[Format, ...] = get_args(Format)


def format_scores(
    model: Xmodel2, tokenizer: Tokenizer, questions: Sequence[Example], documents: Sequence[Example]
) -> dict[str, dict[str, Any]]:
    """Return for each format `documents`, `later_tokens`, `questions` (nats a token) and `accuracy`, with their counts.

    All are chats that end with the assistant's message and have a `task`; ``questions`` have an `answer` beside it. In
    `documents` each task weighs alike, `later_tokens` leaves out each answer's first token, which tells that an answer begins.
    A chat that is too long for the context in either format is left out.
    """
    documents = [example for example in documents if _fits(model, tokenizer, example)]
    questions = [example for example in questions if _fits(model, tokenizer, example)]
    scores: dict[str, dict[str, Any]] = {}
    for form in FORMATS:
        found, asked = _losses(model, tokenizer, documents, form), _losses(model, tokenizer, questions, form)
        by_task = {task: _mean([loss for answer in answers for loss in answer]) for task, answers in found.items()}
        later = [_mean([loss for answer in answers for loss in answer[1:]]) for answers in found.values()]
        scores[form] = {
            "documents": _mean([loss for loss in by_task.values() if loss is not None]),
            "documents_by_source": by_task,
            "later_tokens": _mean([loss for loss in later if loss is not None]),
            "questions": _mean([loss for answers in asked.values() for answer in answers for loss in answer]),
            "accuracy": _accuracy(model, tokenizer, questions, form) if questions else None,
            "counts": {"documents": len(documents), "questions": len(questions)},
        }
    return scores


def prompt_ids(tokenizer: Tokenizer, example: Example, form: Format) -> list[int]:
    """Return all that stands before the answer."""
    asked = example["messages"][:-1]
    if form == "chat":
        return tokenizer.encode_prompt(asked)
    return [tokenizer.bos_id, *tokenizer.encode(chat_as_text(asked) + TURNS_APART)]


def _losses(
    model: Xmodel2, tokenizer: Tokenizer, examples: Sequence[Example], form: Format
) -> dict[str, list[list[float]]]:
    """Return by task the nats of each token of each answer."""
    rows = []
    for example in examples:
        prompt = prompt_ids(tokenizer, example, form)
        rows.append((prompt + tokenizer.encode(example["messages"][-1]["content"]), len(prompt)))
    found: dict[str, list[list[float]]] = {}
    for row, losses in token_losses(model, rows):
        found.setdefault(examples[row]["task"], []).append(losses)
    return dict(sorted(found.items()))


def _accuracy(
    model: Xmodel2, tokenizer: Tokenizer, examples: Sequence[Example], form: Format, max_new_tokens: int = 48
) -> float:
    """Return the share of questions answered exactly by greedy generation; of a text, as many paragraphs as the answer has."""
    room = model.settings.max_position_embeddings - max_new_tokens
    prompts = [prompt_ids(tokenizer, example, form) for example in examples]
    order = sorted((n for n in range(len(prompts)) if len(prompts[n]) <= room), key=lambda n: len(prompts[n]))
    correct = 0
    for start in range(0, len(order), 64):
        picked = order[start : start + 64]
        answers = generate(model, [prompts[n] for n in picked], max_new_tokens, tokenizer.stop_ids)
        for n, ids in zip(picked, answers, strict=True):
            said, wanted = tokenizer.decode(ids, skip_special_tokens=True), examples[n]
            if form == "text":
                paragraphs = 1 + wanted["messages"][-1]["content"].count(TURNS_APART)
                said = TURNS_APART.join(said.split(TURNS_APART)[:paragraphs])
            correct += extract_answer(said) == wanted["answer"]
    return correct / len(examples)


def _fits(model: Xmodel2, tokenizer: Tokenizer, example: Example) -> bool:
    answer = tokenizer.encode(example["messages"][-1]["content"])
    longest = max(len(prompt_ids(tokenizer, example, form)) for form in FORMATS) + len(answer)
    return bool(answer) and longest <= model.settings.max_position_embeddings


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
