"""A row or two of each benchmark in the fields of its data set, with the spacing that definitions treat."""

from typing import Any

Row = dict[str, Any]

ARC: Row = {
    "id": "a",
    "question": "Which of these  floats?",
    "choices": {"text": ["iron", "cork ", "lead"], "label": ["A", "B", "C"]},
    "answerKey": "B",
}
GSM8K: list[Row] = [
    {"question": f"Ann has {n} pens and buys 2. How many?", "answer": f"{n}+2={n + 2}\n#### {n + 2}"} for n in range(12)
]
ROWS: dict[str, list[Row]] = {
    "arc_challenge": [ARC],
    "arc_easy": [ARC, {**ARC, "choices": {"text": ["1", "2"], "label": ["1", "2"]}, "answerKey": "2"}],
    "boolq": [{"question": "is ice cold", "passage": "Ice -- frozen water.", "label": 1, "idx": 0}],
    "hellaswag": [
        {
            "ind": 4,
            "activity_label": "Removing ice",
            "ctx_a": "A man [header] sits. [title] He  waits",
            "ctx_b": "he then",
            "endings": ["stands [step] up.", "  sleeps.", "runs  away.", "[substeps] eats."],
            "label": "3",
        }
    ],
    "openbookqa": [{"question_stem": "Wood is", "choices": ARC["choices"], "answerKey": " B", "id": "1"}],
    "piqa": [{"goal": "Boil water", "sol1": "Heat it.", "sol2": "Cool it. ", "label": 0}],
    "sciq": [
        {
            "question": "What do plants release?",
            "support": "\n Plants make oxygen.",
            "distractor1": "gold",
            "distractor2": "iron",
            "distractor3": "salt",
            "correct_answer": "oxygen",
        }
    ],
    "winogrande": [
        {"sentence": "Ann thanked Eve because _ had helped .", "option1": "Ann", "option2": "Eve", "answer": "2"}
    ],
    "gsm8k": GSM8K[:3],
    "math": [
        {"problem": "What is $1+1$?", "level": "Level 1", "type": "Algebra", "solution": "It is $\\boxed{2}$."},
        {
            "problem": "$4!$?",
            "level": "Level 2",
            "type": "Counting & Probability",
            "solution": "$\\boxed{\\frac{48}{2}}$",
        },
    ],
    "bbh": [
        {"task": "boolean_expressions", "input": "not True is", "target": "False"},
        {"task": "word_sorting", "input": "Sort: b a", "target": "a b"},
    ],
    "mmlu": [
        {"question": " How many legs?\n", "subject": "anatomy", "choices": ["1", "2", "3", "4"], "answer": 1},
        {"question": "Which court?", "subject": "international_law", "choices": ["a", "b", "c", "d"], "answer": 3},
    ],
    "humaneval": [
        {
            "task_id": "HumanEval/0",
            "prompt": 'def one():\n    """Return 1."""\n',
            "entry_point": "one",
            "canonical_solution": "    return 1\n",
            "test": "def check(f):\n    assert f() == 1\n",
        }
    ],
    "mbpp": [
        {
            "task_id": 11,
            "text": "Write a function that returns 1.",
            "code": "def one():\r\n  return 1",
            "test_list": ["assert one() == 1", "assert one() > 0", "assert one() < 2"],
            "test_setup_code": "",
            "challenge_test_list": [],
        }
    ],
    "wikitext": [{"page": " = Title = \n\n It is 3 @-@ 4 , said the men 's choir . \n"}],
    "lambada_openai": [{"text": "He opened the old wooden door"}],
}
