"""The tasks of the tables by name, and suites of them."""

import subprocess
import sys

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.tasks import AGENTS, SUITES, TASKS, resolve


def test_suites_are_the_columns_of_tables_2_3_and_4() -> None:
    assert SUITES == {
        "commonsense": (
            "arc_challenge",
            "arc_easy",
            "boolq",
            "hellaswag",
            "openbookqa",
            "piqa",
            "sciq",
            "winogrande",
        ),
        "reasoning": ("gsm8k", "math", "bbh", "mmlu", "humaneval", "mbpp"),
        "agents": ("hotpotqa", "fever", "alfworld", "webshop"),
    }
    assert not set(AGENTS) & set(TASKS)  # environments of our own, none of the harness's
    assert {TASKS[name].metric for name in SUITES["commonsense"]} == {"acc"}
    assert {name: (TASKS[name].metric, TASKS[name].num_fewshot) for name in SUITES["reasoning"]} == {
        "gsm8k": ("exact_match", 5),
        "math": ("exact_match", 4),
        "bbh": ("exact_match", 3),
        "mmlu": ("acc", 0),
        "humaneval": ("pass@1", 0),
        "mbpp": ("pass@1", 3),
    }
    assert all(name == task.name for name, task in TASKS.items())


def test_names_are_resolved_in_order_each_once() -> None:
    assert resolve(["reasoning"], ["wikitext", "mmlu"]) == [*SUITES["reasoning"], "wikitext"]
    assert resolve([], ["piqa", " sciq"]) == ["piqa", "sciq"]
    assert resolve(["agents"], ["fever", "piqa"]) == [*AGENTS, "piqa"]
    assert resolve([], ["webshop"]) == ["webshop"]
    assert resolve() == []


@pytest.mark.parametrize(
    ("suites", "tasks", "message"),
    [
        ([], ["arc_esay"], r"--tasks 'arc_esay': there are arc_challenge, .*\. Did you mean 'arc_easy'\?"),
        (
            ["comonsense"],
            [],
            r"--suite 'comonsense': there are commonsense, reasoning, agents\. Did you mean 'commonsense'\?",
        ),
        ([], ["web_shop"], r"--tasks 'web_shop': there are .* Did you mean 'webshop'\?"),
        ([], ["xyz"], r"lambada_openai, hotpotqa, fever, alfworld, webshop\.$"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(suites: list[str], tasks: list[str], message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        resolve(suites, tasks)


def test_names_are_known_without_the_harness() -> None:
    code = "import sys; import xmodel2.eval.tasks; sys.exit(any(n in sys.modules for n in ('lm_eval', 'datasets', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
