"""The benchmark tasks by name, the paper's two suites, and where each task's definition and data are.

    resolve(["commonsense"], ["gsm8k"])  -> names, in order, each once
    TASKS["mmlu"].num_fewshot, .metric, .rows, .parts_below ...

Nothing heavy is imported here, so that a misspelt name is answered at once. Prompts, options, stop strings and metrics are
the harness's own (`xmodel2.eval.definitions`); the settings below are the paper's, arXiv 2412.19638, tables 2 and 3.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from xmodel2.errors import XmodelError, nearest
from xmodel2.eval.row_checks import (
    Check,
    Index,
    Row,
    boxed,
    choices,
    code,
    codes,
    containing,
    defining,
    ending_in_answer,
    filled,
    function_of_prompt,
    integer,
    label_of_choices,
    one_of,
    text,
    texts,
    with_last_word,
)


@dataclass(frozen=True)
class Task:
    """One benchmark as the harness defines it and the paper uses it."""

    name: str
    title: str
    """As the paper's tables head its column."""
    definition: str
    """Packaged YAML below lm_eval/tasks; a glob where the task has parts (MMLU's subjects), each a YAML of its own."""
    split: str
    """Split that is scored."""
    rows: int
    """Rows of that split in the whole official set."""
    metric: str
    """Headline metric, the one of the paper's tables."""
    fields: Mapping[str, Check] = field(repr=False, hash=False)
    """What a row must have; more is allowed."""
    filter: str = "none"
    """The harness's filter whose metric is the headline; the others stay in ``metrics``."""
    num_fewshot: int = 0
    fewshot_split: str | None = None
    """Split that few-shot examples are drawn from; None where there are none, or the definition holds them."""
    fewshot_rows: int | None = None
    """Rows of that split in the whole official set: others give other examples."""
    part_fields: tuple[str, ...] = ()
    """Field that names a row's part; the first that a row has counts."""
    multiple_choice: bool = False
    """Whether one of given options is chosen."""
    folder: str = ""
    """Folder of the mirror; "" for the task's name."""
    runs_code: bool = False
    """Whether answers are programs, scored by running them."""
    higher_is_better: bool = True

    @property
    def directory(self) -> str:
        """Folder of the mirror."""
        return self.folder or self.name

    @property
    def splits(self) -> dict[str, int | None]:
        """Every split that is needed, and its official number of rows."""
        fewshot = {self.fewshot_split: self.fewshot_rows} if self.fewshot_split else {}
        return {self.split: self.rows, **fewshot}

    def part_of(self, row: Row) -> str | None:
        """Return the name of a row's part as the harness names its data set, None in a task without parts.

        >>> TASKS["math"].part_of({"type": "Counting & Probability"})
        'counting_and_probability'
        """
        for name in self.part_fields:
            if name in row:
                return str(row[name]).lower().replace("&", "and").replace(" ", "_")
        return None


_ARC = {"question": text, "choices": choices, "answerKey": label_of_choices}

_ALL = (
    Task("arc_challenge", "ARC-c", "arc/arc_challenge.yaml", "test", 1172, "acc", _ARC, multiple_choice=True),
    Task("arc_easy", "ARC-e", "arc/arc_easy.yaml", "test", 2376, "acc", _ARC, multiple_choice=True),
    Task(
        "boolq",
        "Boolq",
        "super_glue/boolq/default.yaml",
        "validation",
        3270,
        "acc",
        {"question": text, "passage": text, "label": Index(2, boolean=True)},
        multiple_choice=True,
    ),
    Task(
        "hellaswag",
        "HellaSwag",
        "hellaswag/hellaswag.yaml",
        "validation",
        10042,
        "acc",
        {"activity_label": text, "ctx_a": text, "ctx_b": text, "endings": texts(4), "label": Index(4)},
        multiple_choice=True,
    ),
    Task(
        "openbookqa",
        "OBQA",
        "openbookqa/openbookqa.yaml",
        "test",
        500,
        "acc",
        {"question_stem": text, "choices": choices, "answerKey": label_of_choices},
        multiple_choice=True,
    ),
    Task(
        "piqa",
        "PiQA",
        "piqa/piqa.yaml",
        "validation",
        1838,
        "acc",
        {"goal": text, "sol1": text, "sol2": text, "label": Index(2)},
        multiple_choice=True,
    ),
    Task(
        "sciq",
        "SciQ",
        "sciq/sciq.yaml",
        "test",
        1000,
        "acc",
        dict.fromkeys(("question", "support", "distractor1", "distractor2", "distractor3", "correct_answer"), text),
        multiple_choice=True,
    ),
    Task(
        "winogrande",
        "Winogrande",
        "winogrande/default.yaml",
        "validation",
        1267,
        "acc",
        {"sentence": containing("_"), "option1": text, "option2": text, "answer": one_of("1", "2")},
        multiple_choice=True,
    ),
    Task(
        "gsm8k",
        "GSM8K",
        "gsm8k/gsm8k.yaml",
        "test",
        1319,
        "exact_match",
        {"question": text, "answer": ending_in_answer},
        filter="strict-match",
        num_fewshot=5,
        fewshot_split="train",
        fewshot_rows=7473,
    ),
    Task(
        "math",
        "MATH",
        "minerva_math/minerva_math_*.yaml",
        "test",
        5000,
        "exact_match",
        {"problem": text, "solution": boxed},
        num_fewshot=4,
        part_fields=("type",),
        folder="hendrycks_math",
    ),
    Task(
        "bbh",
        "BBH",
        "bbh/cot_fewshot/[!_]*.yaml",
        "test",
        6511,
        "exact_match",
        {"input": text, "target": text},
        filter="get-answer",
        num_fewshot=3,
        part_fields=("task",),
    ),
    Task(
        "mmlu",
        "MMLU",
        "mmlu/default/mmlu_*.yaml",
        "test",
        14042,
        "acc",
        {"question": text, "choices": texts(4), "answer": Index(4)},
        part_fields=("subject", "type"),
        multiple_choice=True,
    ),
    Task(
        "humaneval",
        "HumanEval",
        "humaneval/humaneval.yaml",
        "test",
        164,
        "pass@1",
        {
            "task_id": text,
            "prompt": text,
            "entry_point": function_of_prompt,
            "canonical_solution": text,
            "test": defining("check"),
        },
        runs_code=True,
    ),
    Task(
        "mbpp",
        "MBPP",
        "mbpp/mbpp.yaml",
        "test",
        500,
        "pass@1",
        {"task_id": integer, "text": text, "code": code, "test_list": codes(at_least=3), "test_setup_code": code},
        num_fewshot=3,
        runs_code=True,
    ),
    Task(
        "wikitext",
        "WikiText-2",
        "wikitext/wikitext.yaml",
        "test",
        62,
        "word_perplexity",
        {"page": filled},
        higher_is_better=False,
    ),
    Task(
        "lambada_openai",
        "LAMBADA",
        "lambada/lambada_openai.yaml",
        "test",
        5153,
        "acc",
        {"text": with_last_word},
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}

SUITES: dict[str, tuple[str, ...]] = {
    "commonsense": tuple(TASKS)[:8],
    "reasoning": tuple(TASKS)[8:14],
    "agents": ("hotpotqa", "fever", "alfworld", "webshop"),
}
"""Tables 2, 3 and 4 of the report, in the order of their columns."""
AGENTS = SUITES["agents"]
"""Played step by step in environments of our own (`xmodel2.eval.agents`); the others are the harness's."""


def resolve(suites: Iterable[str] = (), tasks: Iterable[str] = (), own: Iterable[str] = ()) -> list[str]:
    """Return the tasks of the suites, then the single ones, each once; ``own`` are names of the user's own tasks.

    Raises `XmodelError` for an unknown name, with the nearest one.
    """
    names: list[str] = []
    for suite in suites:
        names += SUITES[_known("--suite", suite, tuple(SUITES))]
    names += [_known("--tasks", task, (*TASKS, *AGENTS, *own)) for task in tasks]
    return list(dict.fromkeys(names))


def _known(option: str, name: str, allowed: Sequence[str]) -> str:
    name = name.strip()
    if name not in allowed:
        raise XmodelError(f"{option} {name!r}: there are {', '.join(allowed)}.{nearest(name, allowed)}")
    return name
