"""HumanEval and MBPP as programs for the sandbox.

The packaged definitions of lm-evaluation-harness fetch their scorer from the network when they are imported; this is what they
hand to it: a program passes if solution, tests and nothing else run to the end within three seconds.
"""

import ast
import builtins
import sys
from collections.abc import Callable, Sequence
from typing import Any

from xmodel2.eval.sandbox import Limits, Program, Verdict, run_programs


def humaneval_program(doc: dict[str, Any], completion: str) -> Program:
    """Return the program of a row of ``openai_humaneval``: prompt and completion, against ``check`` of the entry point."""
    entry = doc["entry_point"]
    tests = f"{doc['test']}\ncheck({entry})"
    prelude = doc["prompt"] + "    pass\n"  # a whole program, which defines the helpers and stubs the entry point
    return Program(solution=doc["prompt"] + completion, tests=tests, names=(entry,), prelude=prelude)


def mbpp_program(doc: dict[str, Any], completion: str, setup: bool = False) -> Program:
    """Return the program of a row of ``mbpp``: the completion against the first three asserts, those in the prompt.

    The harness does not run ``test_setup_code``, which two rows need; ``setup`` puts it before the tests.
    """
    tests = "\n".join(doc["test_list"][:3])
    if setup:
        tests = f"{doc['test_setup_code']}\n{tests}"
    names, modules = _names_from_solution(tests, doc["code"])
    return Program(solution=completion, tests=tests, names=names, modules=modules)


def _names_from_solution(tests: str, reference: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that the tests can only mean the solution's by, and those of modules that it imports for them.

    A built-in or a module of the standard library is itself, unless the reference defines the name.
    """
    used = {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)}
    defined = {node.name for node in ast.parse(reference).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    wanted = used - (set(dir(builtins)) - defined)
    modules = (wanted & sys.stdlib_module_names) - defined
    return tuple(sorted(wanted - modules)), tuple(sorted(modules))


def score_programs(
    programs: Sequence[Program],
    limits: Limits | None = None,
    workers: int | None = None,
    insist: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Verdict]:
    """Return the verdict of each program, in their order; ``progress`` is told how many of how many are done.

    Raises `XmodelError` where programs can't be isolated, see `run_programs`.
    """
    verdicts: dict[int, Verdict] = {}
    for index, verdict in run_programs(programs, limits, workers, insist):
        verdicts[index] = verdict
        if progress:
            progress(len(verdicts), len(programs))
    return [verdicts[index] for index in range(len(programs))]
