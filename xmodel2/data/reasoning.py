"""Verifiable instruction data from the library reasoning-gym: questions whose answers can be checked, made from a seed.

Where a task offers what leads to its answer (partial sums, legs by animal), the assistant writes that first
and then `#### answer`; elsewhere the answer alone. Held-out questions come from another seed, and none was seen in training.
"""

import random
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from xmodel2.errors import XmodelError

with warnings.catch_warnings():  # of a package below it, told wherever no compiled modules are kept
    warnings.simplefilter("ignore", SyntaxWarning)
    import reasoning_gym

Example = dict[str, Any]

TASKS: dict[str, dict[str, Any]] = {
    "aiw": {},
    "family_relationships": {"min_family_size": 4, "max_family_size": 4},
    "leg_counting": {"min_animals": 1, "max_animals": 2, "min_instances": 1, "max_instances": 9},
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
}
"""Tasks of reasoning-gym and their settings, from what a model of a few million parameters learns in minutes to what it
does not."""

_SEED_SPACE = 1_000_003
_ANSWER_MARK = "####"


def reasoning_examples(
    count: int, seed: int, tasks: dict[str, dict[str, Any]] | None = None, exclude: Collection[str] = ()
) -> list[Example]:
    """Return ``count`` examples, tasks in equal parts and shuffled; questions in ``exclude`` are left out.

    Each has task, question, answer, and messages (user, assistant). Raises `XmodelError` if a task runs out of new questions.
    """
    tasks = TASKS if tasks is None else tasks
    share = -(-count // len(tasks))
    examples: list[Example] = []
    for number, (task, settings) in enumerate(tasks.items()):
        data = reasoning_gym.create_dataset(task, size=2 * share + 100, seed=seed * _SEED_SPACE + number, **settings)
        found = []
        for entry in (data[i] for i in range(2 * share + 100)):
            question = entry["question"].strip()
            if question not in exclude:
                found.append(_example(task, question, entry))
            if len(found) == share:
                break
        if len(found) < share:
            raise XmodelError(
                f"reasoning: task {task} gave {len(found)} of {share} new questions; widen its settings or ask for fewer"
            )
        examples += found
    random.Random(seed).shuffle(examples)
    return examples[:count]


def extract_answer(text: str) -> str:
    """Return what follows the last ``####``, or the whole text, stripped.

    >>> extract_answer("4 + 5 = 9\\n#### 9")
    '9'
    """
    return text.rpartition(_ANSWER_MARK)[2].strip()


def majority_answers(examples: Sequence[Example]) -> dict[str, str]:
    """Return the commonest answer of each task: what a model that ignores the question would best say."""
    answers: dict[str, Counter[str]] = {}
    for example in examples:
        answers.setdefault(example["task"], Counter())[example["answer"]] += 1
    return {task: counter.most_common(1)[0][0] for task, counter in answers.items()}


def _example(task: str, question: str, entry: dict[str, Any]) -> Example:
    answer = str(entry["answer"])
    work = _WORK[task](entry["metadata"]) if task in _WORK else ""
    content = f"{work}\n{_ANSWER_MARK} {answer}" if work else answer
    return {
        "task": task,
        "question": question,
        "answer": answer,
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": content}],
    }


def _partial_sums(metadata: dict[str, Any]) -> str:
    terms = metadata["expression"].split()
    total, lines = int(terms[0]), []
    for sign, term in zip(terms[1::2], terms[2::2], strict=True):
        after = total + int(term) if sign == "+" else total - int(term)
        lines.append(f"{total} {sign} {term} = {after}")
        total = after
    return "\n".join(lines)


def _legs(metadata: dict[str, Any]) -> str:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    lines, total = [], 0
    for number, (animal, count) in enumerate(metadata["animals"].items()):
        legs = count * ANIMALS[animal]
        lines.append(f"{count} {animal}: {count} * {ANIMALS[animal]} = {legs}")
        if number:
            lines.append(f"{total} + {legs} = {total + legs}")
        total += legs
    return "\n".join(lines)


_WORK: dict[str, Callable[[dict[str, Any]], str]] = {
    "chain_sum": _partial_sums,
    "leg_counting": _legs,
}
