"""HumanEval and MBPP in the sandbox: the harness's program, right solutions pass, wrong ones fail."""

import ast
import gzip
import json
from pathlib import Path
from typing import Any

import jinja2
import lm_eval
import yaml

from xmodel2.eval.code_tasks import humaneval_program, mbpp_program, score_programs
from xmodel2.eval.sandbox import Limits, Program

SHARED = Path(__file__).parents[3] / "shared" / "data" / "eval"
PACKAGED = Path(lm_eval.__file__).parent / "tasks"
LIMITS = Limits(seconds=20)  # the machine may be busy; what is tested here is right or wrong

ROOT = {
    "prompt": "import math\n\n\ndef square(x: int):\n    return x * x\n\n\ndef root(x: int):\n    '''Invert square.'''\n",
    "entry_point": "root",
    "canonical_solution": "    return math.isqrt(x)\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    for x in range(9):\n        assert candidate(square(x)) == x\n",
}
BARE = {
    "prompt": "def inc(x):\n",
    "entry_point": "inc",
    "canonical_solution": "    return x + 1\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
}
SUM = {
    "text": "Write a function to find the sum of two numbers.",
    "code": "def sum(a, b):\r\n    return a + b",
    "test_setup_code": "",
    "test_list": ["assert sum(1, 2) == 3", "assert sum(-1, 1) == 0", "assert sum(2, 2) == 4"],
}
LIST = {
    "text": "Write a function to find the length of a linked list.",
    "code": "class Node:\n    def __init__(self, rest): self.rest = rest\ndef length(n): return 1 + length(n.rest) if n else 0",
    "test_setup_code": "root = Node(None)\nroot.rest = Node(None)",
    "test_list": ["assert length(root) == 2", "assert length(None) == 0", "assert length(Node(root)) == 3"],
}


def rows(file: str, own: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """Return our own rows, and every ``step``-th of the published set where it is at hand."""
    path = SHARED / file
    if not path.exists():
        return own
    with gzip.open(path, "rt") as lines:
        return own + [json.loads(line) for line in lines][::step]


def humaneval_rows() -> list[dict[str, Any]]:
    return rows("humaneval/test.jsonl.gz", [ROOT, BARE], 8)


def mbpp_rows() -> list[dict[str, Any]]:
    return rows("mbpp/all.jsonl.gz", [SUM, LIST], 49)


class _Mutation(ast.NodeTransformer):
    """Each function answers something else than it did."""

    def visit_Return(self, node: ast.Return) -> ast.Return:
        value = node.value or ast.Constant(None)
        return ast.Return(ast.Tuple([value, ast.Constant("wrong")], ast.Load()))


def mutated(code: str) -> str:
    return ast.unparse(ast.fix_missing_locations(_Mutation().visit(ast.parse(code))))


def test_programs_are_those_of_the_harness() -> None:
    """Its scorer joins prediction, a line's end and the rendered target."""
    for task, build, prediction in (
        ("humaneval", humaneval_program, lambda doc: doc["prompt"] + doc["canonical_solution"]),
        ("mbpp", mbpp_program, lambda doc: doc["code"]),
    ):
        text = (PACKAGED / task / f"{task}.yaml").read_text().replace("!function", "")
        target = jinja2.Template(yaml.safe_load(text)["doc_to_target"])
        for doc in humaneval_rows() if task == "humaneval" else mbpp_rows():
            completion = doc.get("canonical_solution") or doc["code"]
            assert build(doc, completion).text == prediction(doc) + "\n" + target.render(**doc)


def test_right_solutions_pass_and_wrong_ones_fail() -> None:
    right = [humaneval_program(doc, doc["canonical_solution"]) for doc in humaneval_rows()]
    right += [mbpp_program(doc, doc["code"], setup=True) for doc in mbpp_rows()]
    wrong = [humaneval_program(doc, "    return None\n") for doc in humaneval_rows()]
    wrong += [mbpp_program(doc, mutated(doc["code"]), setup=True) for doc in mbpp_rows()]
    seen: list[tuple[int, int]] = []
    verdicts = score_programs(right + wrong, LIMITS, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(done, len(verdicts)) for done in range(1, len(verdicts) + 1)]
    assert [verdict.reason for verdict in verdicts[: len(right)] if not verdict.passed] == []
    assert [one.solution for one, verdict in zip(wrong, verdicts[len(right) :], strict=True) if verdict.passed] == []


def test_helpers_of_the_prompt_are_the_prompts_own() -> None:
    """A completion that redefines what the tests compare with gains nothing."""
    honest = ROOT["canonical_solution"]
    programs = [
        humaneval_program(ROOT, honest + "def square(x):\n    return None\n"),
        humaneval_program(ROOT, "    return 0\ndef square(x):\n    return 0\ndef range(x):\n    return [0]\n"),
        humaneval_program(ROOT, "    return 0\ndef check(candidate):\n    pass\n"),
    ]
    assert [verdict.passed for verdict in score_programs(programs, LIMITS)] == [True, False, False]


def test_names_that_the_tests_take_from_the_solution() -> None:
    def names(program: Program) -> tuple[str, ...]:
        return program.names

    assert names(humaneval_program(ROOT, "")) == ("root",)
    assert names(mbpp_program(SUM, "")) == ("sum",)
    assert names(mbpp_program(LIST, "")) == ("Node", "length", "root")
    tests = {**SUM, "test_list": ["assert sum(1, 2) == max(3, len([1]))"]}
    assert names(mbpp_program(tests, "")) == ("sum",)


SIZE: dict[str, Any] = {
    "code": "import sys\ndef size(x):\n    return sys.getsizeof(x)",
    "test_setup_code": "",
    "test_list": [
        "assert size('a') == sys.getsizeof('a')",
        "assert sys.getsizeof(2) == size(2)",
        "assert size(()) > 9",
    ],
}
"""As MBPP's task 596: the tests use a module that the solution has to import."""


def test_modules_of_the_tests_are_the_librarys_own() -> None:
    """A solution that replaces or patches the module its answer is compared by gains nothing."""
    assert (mbpp_program(SIZE, "").names, mbpp_program(SIZE, "").modules) == (("size",), ("sys",))
    constant = "def size(x): return 70\n"
    completions = [
        SIZE["code"],
        constant + "class sys: getsizeof = lambda x: 70",
        constant + "import sys\nsys.getsizeof = lambda x: 70",
        constant + "sys = size\nsys.getsizeof = size",
        SIZE["code"].replace("import sys\n", "from sys import getsizeof\n").replace("sys.", ""),
    ]
    verdicts = score_programs([mbpp_program(SIZE, text) for text in completions], LIMITS)
    assert [verdict.passed for verdict in verdicts] == [True, False, False, False, False]
    assert verdicts[-1].reason == "exception NameError: name 'sys' is not defined"
