"""Made-up benchmark rows with the fields and about the lengths of the real ones, where those are not at hand."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xmodel2.data.embedded import embedded_corpus
from xmodel2.eval.tasks import TASKS


def write_rows(folder: Path, names: Sequence[str]) -> None:
    """Write 200 rows of each named task that there is a form for."""
    drawn = random.Random(0)
    words = " ".join(embedded_corpus(100_000)["docs"]).split()

    def text(length: int) -> str:
        start = drawn.randrange(len(words) - 2 * length)
        return " ".join(words[start : start + drawn.randint(length // 2, 3 * length // 2)])

    def choices(length: int) -> dict[str, list[str]]:
        return {"text": [text(length) for _ in range(4)], "label": list("ABCD")}

    rows: dict[str, Callable[[int], dict[str, Any]]] = {
        "arc_challenge": lambda n: {"id": n, "question": text(24), "choices": choices(5), "answerKey": "B"},
        "arc_easy": lambda n: {"id": n, "question": text(20), "choices": choices(4), "answerKey": "B"},
        "boolq": lambda n: {"question": text(9), "passage": text(110), "label": n % 2, "idx": n},
        "hellaswag": lambda n: {
            "ind": n,
            "activity_label": text(2),
            "ctx_a": text(30),
            "ctx_b": text(4),
            "endings": choices(25)["text"],
            "label": "1",
        },
        "openbookqa": lambda n: {"id": n, "question_stem": text(12), "choices": choices(4), "answerKey": "B"},
        "piqa": lambda n: {"goal": text(9), "sol1": text(20), "sol2": text(20), "label": n % 2},
        "winogrande": lambda n: {
            "sentence": f"{text(10)} _ {text(8)}",
            "option1": "Ann",
            "option2": "Eve",
            "answer": "1",
        },
        "gsm8k": lambda n: {"question": text(45), "answer": f"{text(50)}\n#### {n}"},
        "bbh": lambda n: {"task": ("boolean_expressions", "word_sorting")[n % 2], "input": text(20), "target": "a"},
        "humaneval": lambda n: {
            "task_id": f"HumanEval/{n}",
            "prompt": f'def made_{n}(x):\n    """{text(40)}"""\n',
            "entry_point": f"made_{n}",
            "canonical_solution": "    return x\n",
            "test": "def check(f):\n    assert f(1) == 1\n",
        },
    }
    for name in set(names) & set(rows):
        place = folder / TASKS[name].directory
        place.mkdir(parents=True)
        for split in TASKS[name].splits:
            lines = [json.dumps(rows[name](number)) for number in range(200)]
            (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
