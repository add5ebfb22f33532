"""The text by which an item of each of the eighteen benchmarks is recognised, from files of the layout that the Hub has.

DIR/BENCHMARK/*.jsonl(.gz, .zst), *.parquet: all files but those of a training split or of few-shot prompts. ALFWorld: the
`traj_data.json` of its unseen games. Questions, not passages: BoolQ's passages are Wikipedia's, and give no answer away.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xmodel2.data.read import SUFFIXES, read_records
from xmodel2.errors import XmodelError

Record = dict[str, Any]
_NOT_TESTS = ("train", "prompt", "few")
_NAMED = 5  # files of a folder without an item that are named


def _question(record: Record) -> str:
    return str(record["question"])


def _piqa(record: Record) -> str:
    return f"{record['goal']} {record['sol2'] if str(record.get('label')) == '1' else record['sol1']}"


def _winogrande(record: Record) -> str:
    return str(record["sentence"]).replace("_", str(record[f"option{record.get('answer') or 1}"]))


def _mbpp(record: Record) -> str:
    return str(record["text"] if "text" in record else record["prompt"])


BENCHMARKS: dict[str, Callable[[Record], str]] = {
    "arc_challenge": _question,
    "arc_easy": _question,
    "boolq": _question,
    "hellaswag": lambda record: str(record["ctx"]),
    "openbookqa": lambda record: str(record["question_stem"]),
    "piqa": _piqa,
    "sciq": _question,
    "winogrande": _winogrande,
    "gsm8k": _question,
    "hendrycks_math": lambda record: str(record["problem"]),
    "bbh": lambda record: str(record["input"]),
    "mmlu": _question,
    "humaneval": lambda record: f"{record['prompt']}{record['canonical_solution']}",
    "mbpp": _mbpp,
    "hotpotqa": _question,
    "fever": lambda record: str(record["claim"]),
    "alfworld": lambda record: str(record["goal"]),
    "webshop": lambda record: str(record["goal"]),
}
_IS_TEST: dict[str, Callable[[Record], bool]] = {"mbpp": lambda record: 11 <= int(record["task_id"]) <= 510}


def benchmark_items(directory: Path, benchmark: str) -> Iterator[str]:
    """Yield the text of each test item in a folder of benchmarks; none if it has no folder of that name.

    Raises `XmodelError` naming file and line of a record without the benchmark's fields, or a folder that gives no item.
    """
    folder = Path(directory) / benchmark
    found = False
    for text in _items(folder, benchmark):
        found = True
        yield text
    if not found and folder.is_dir():
        files = [path for path in sorted(folder.glob("**/*")) if path.is_file()]
        there = ", ".join(str(path.relative_to(folder)) for path in files[:_NAMED]) or "nothing"
        raise XmodelError(
            f"{folder}: no test item of {benchmark} in it; there is {there}{', ...' if len(files) > _NAMED else ''}. Read are"
            f" {', '.join(SUFFIXES)} without {', '.join(_NOT_TESTS)} in their names: convert the files, or remove the folder"
        )


def _items(folder: Path, benchmark: str) -> Iterator[str]:
    for path in sorted(folder.glob("**/*")):
        place = str(path.relative_to(folder))
        if path.name == "traj_data.json" and benchmark == "alfworld" and "unseen" in place:
            yield from _alfworld(path)
        elif path.is_file() and path.name.endswith(SUFFIXES) and not any(word in place for word in _NOT_TESTS):
            for number, record in read_records(path):
                try:
                    if benchmark not in _IS_TEST or _IS_TEST[benchmark](record):
                        yield BENCHMARKS[benchmark](record)
                except (KeyError, TypeError, ValueError) as error:
                    raise XmodelError(f"{path}:{number}: not an item of {benchmark}: no {error}") from None


def _alfworld(path: Path) -> Iterator[str]:
    try:
        for annotation in json.loads(path.read_text(encoding="utf-8"))["turk_annotations"]["anns"]:
            yield str(annotation["task_desc"])
    except (ValueError, KeyError, TypeError) as error:
        raise XmodelError(f"{path}: not a game of ALFWorld: {error!r}") from None
