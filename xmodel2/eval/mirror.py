"""Benchmark rows from a local folder, checked, with what part of the official set they are.

    DIR/arc_easy/test.jsonl.gz          SPLIT.jsonl or SPLIT.jsonl.gz: the whole split
    DIR/hellaswag/validation-1000.jsonl.gz, DIR/mmlu/stem-test.jsonl.gz     a part of it, named as you like
    DIR/mbpp/all.jsonl.gz               all of MBPP, divided into splits by task_id

`xmodel2 eval fetch` writes such a folder; each row has the fields of the Hugging Face data set that the harness reads, and
in a task with parts a field that names its part (`Task.part_fields`).
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from xmodel2.errors import XmodelError
from xmodel2.eval.row_checks import Row, as_compared
from xmodel2.eval.tasks import Task

_MBPP_SPLITS = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}
"""By task_id, as the authors divide them."""


@dataclass(frozen=True)
class Coverage:
    """How much of the official set is there."""

    rows: int
    of: int
    source: str
    """File or data set that the rows are from, and of few-shot examples how many there are to draw from, unless all."""

    @property
    def whole(self) -> bool:
        """Whether all of it is."""
        return self.rows >= self.of

    def __str__(self) -> str:
        return f"{self.rows:,} of {self.of:,} rows ({self.source})"


def coverage(task: Task, splits: Mapping[str, Sequence[Row]], source: str) -> Coverage:
    """Return how much of a task is there."""
    if task.fewshot_split and task.fewshot_rows and (found := len(splits[task.fewshot_split])) != task.fewshot_rows:
        source += f"; examples from {found:,} of {task.fewshot_rows:,} rows"
    return Coverage(len(splits[task.split]), task.rows, source)


@dataclass(frozen=True)
class TaskData:
    """What a task is scored on."""

    splits: dict[str, list[Row]]
    coverage: Coverage
    """Of the scored split."""
    fingerprint: str
    """SHA-256 of all rows: equal data, equal fingerprint, wherever it came from in the same form."""


class MissingDataError(XmodelError):
    """A task's rows are not there at all."""


class DataSource(Protocol):
    """Where rows come from: a `Mirror`, or `xmodel2.eval.hub.Hub`."""

    @property
    def description(self) -> str:
        """What results.json says of the data."""

    def load(self, task: Task) -> TaskData:
        """Return a task's rows. Raises `MissingDataError` saying how to get them if they are not there."""


class Kept:
    """A source whose rows are read once: hours later the network, or the folder, may be gone."""

    def __init__(self, source: DataSource) -> None:
        self._source, self._loaded = source, dict[str, TaskData]()

    @property
    def description(self) -> str:
        """That of the source."""
        return self._source.description

    def load(self, task: Task) -> TaskData:
        """Return a task's rows; raises as the source does."""
        if task.name not in self._loaded:
            self._loaded[task.name] = self._source.load(task)
        return self._loaded[task.name]


class Mirror:
    """A folder of benchmark files."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise XmodelError(f"--data-dir {folder}: no such folder; `xmodel2 eval fetch --out {folder}` makes one")
        self.folder = folder

    @property
    def description(self) -> str:
        """The folder."""
        return str(self.folder)

    def load(self, task: Task) -> TaskData:
        """Return a task's rows.

        Raises `MissingDataError` for a file that is not there, and `XmodelError` for one that is damaged, naming line and field
        of a row that is not as the task needs it.
        """
        splits: dict[str, list[Row]] = {}
        digest = hashlib.sha256()
        sources: dict[str, Path] = {}
        for split in task.splits:
            sources[split] = self._file(task, split)
            content = _content(sources[split])
            digest.update(content)
            rows = _rows(sources[split], content, task)
            by_id = task.name == "mbpp" and _stem(sources[split]) == "all"
            splits[split] = [row for row in rows if row["task_id"] in _MBPP_SPLITS[split]] if by_id else rows
            if not splits[split]:
                raise XmodelError(f"{sources[split]}: no rows of the split {split!r}; {self._how(task)}")
        if task.fewshot_split and (found := len(splits[task.fewshot_split])) < task.num_fewshot:
            raise XmodelError(f"{sources[task.fewshot_split]}: {found} rows, and {task.num_fewshot} examples are drawn")
        file = sources[task.split]
        return TaskData(splits, coverage(task, splits, f"{file.parent.name}/{file.name}"), digest.hexdigest())

    def _file(self, task: Task, split: str) -> Path:
        folder = self.folder / task.directory
        files = sorted(path for path in folder.glob("*.jsonl*") if path.name.endswith((".jsonl", ".jsonl.gz")))
        found = (
            [file for file in files if _stem(file) == split]
            or [file for file in files if _stem(file) == "all" and task.name == "mbpp"]
            or [file for file in files if split in _stem(file).split("-")]
        )
        if not found:
            raise MissingDataError(f"{folder / split}.jsonl.gz: no such file (nor .jsonl); {self._how(task)}")
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise XmodelError(f"{folder}: {names} hold the same split; join them as {split}.jsonl, or keep one")
        return found[0]

    def _how(self, task: Task) -> str:
        return f"with a network, `xmodel2 eval fetch --tasks {task.name} --out {self.folder}` gets it"


def to_line(row: Row) -> bytes:
    """Return a row as the mirror has it."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def check_row(task: Task, row: Row) -> str | None:
    """Return what is wrong with a row, naming the field, or None.

    >>> from xmodel2.eval.tasks import TASKS
    >>> check_row(TASKS["piqa"], {"goal": "Boil water", "sol1": "Heat it.", "sol2": "Cool it.", "label": 2})
    "field 'label' is 2, and must be a number from 0 to 1"
    """
    for name, check in task.fields.items():
        if name not in row:
            return f"field {name!r} is missing"
        if allowed := check(row[name], row):
            return f"field {name!r} is {_short(row[name])}, and must be {allowed}"
    if task.part_fields and task.part_of(row) is None:
        return f"field {task.part_fields[0]!r} is missing"
    return None


def comparable(task: Task, row: Row) -> Row:
    """Return a checked row with its labels in the form that the harness compares."""
    return {**row, **{name: as_compared(check, row[name]) for name, check in task.fields.items()}}


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".jsonl")


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    if file.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise XmodelError(f"{file}: damaged ({error}); fetch it again") from None


def read_rows(file: Path) -> list[Row]:
    """Return the objects of a JSON-lines file, packed by gzip if it is named so.

    Raises `XmodelError` for a damaged file, and naming the line of what is no object.
    """
    return [row for _, row in _numbered(file, _content(file))]


def _numbered(file: Path, content: bytes) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise XmodelError(f"{file}, line {number}: not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise XmodelError(f"{file}, line {number}: not a JSON object")
        yield number, row


def _rows(file: Path, content: bytes, task: Task) -> list[Row]:
    rows: list[Row] = []
    for number, row in _numbered(file, content):
        row = _harness_fields(task, row)
        if complaint := check_row(task, row):
            raise XmodelError(f"{file}, line {number}: {complaint}")
        rows.append(comparable(task, row))
    return rows


def _harness_fields(task: Task, row: Row) -> Row:
    """LAMBADA also goes around with its last word in a field of its own."""
    if task.name == "lambada_openai" and "text" not in row and {"context", "continuation"} <= row.keys():
        return {"text": f"{row['context']} {row['continuation']}"}
    return row


def of_part(rows: Sequence[Row], task: Task, part: str | None) -> list[Row]:
    """Return the rows of one part, in their order; all of them in a task without parts."""
    return list(rows) if part is None else [row for row in rows if task.part_of(row) == part]
