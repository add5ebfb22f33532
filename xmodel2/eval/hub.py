"""Benchmark rows from the Hugging Face Hub: the data sets that the harness's own definitions name.

Downloads are kept in the cache of `datasets`, so that a second evaluation needs no network. Rows pass the checks of a
local mirror, and equal rows have the same fingerprint there.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.definitions import packaged_definition, part_files
from xmodel2.eval.mirror import DataSource, Mirror, MissingDataError, TaskData, check_row, comparable, coverage, to_line
from xmodel2.eval.row_checks import Row
from xmodel2.eval.tasks import Task

Load = Callable[[str, str | None, str], Iterable[Row]]
"""(data set, configuration, split) -> rows, as `datasets.load_dataset`."""


def open_data(data_dir: Path | None) -> DataSource:
    """Return the mirror in a folder, or the Hub if none is given. Raises `XmodelError` if there is no such folder."""
    return Hub() if data_dir is None else Mirror(data_dir)


class Hub:
    """The Hub, or with ``load`` what stands in for it."""

    description = "Hugging Face Hub"

    def __init__(self, load: Load | None = None) -> None:
        self._load = load or _load_dataset

    def load(self, task: Task) -> TaskData:
        """Return a task's rows.

        Raises `MissingDataError` if the Hub is out of reach, and `XmodelError` if a row is not as the task needs it.
        """
        splits = {split: self.rows(task, split) for split in task.splits}
        digest = hashlib.sha256()
        for rows in splits.values():
            digest.update(b"".join(map(to_line, rows)))
        compared = {split: [comparable(task, row) for row in rows] for split, rows in splits.items()}
        return TaskData(compared, coverage(task, splits, data_set(task)[0]), digest.hexdigest())

    def rows(self, task: Task, split: str, on_part: Callable[[], None] = lambda: None) -> list[Row]:
        """Return a split, the parts of a task one after another, each row with its part's name; raises as `load`.

        ``on_part`` is called after each data set that is read.
        """
        rows: list[Row] = []
        for part in part_files(task) if task.part_fields else [None]:
            path, name = data_set(task, part)
            for number, found in enumerate(self._read(task, path, name, split), 1):
                row = dict(found)
                if part is not None and task.part_of(row) != part:
                    row = {task.part_fields[0]: part, **row}
                if complaint := check_row(task, row):
                    raise XmodelError(f"{path} on the Hub, {split} row {number}: {complaint}")
                rows.append(row)
            on_part()
        return rows

    def _read(self, task: Task, path: str, name: str | None, split: str) -> Iterable[Row]:
        from datasets.exceptions import DatasetsError

        try:
            return self._load(path, name, split)
        except (OSError, DatasetsError, ValueError) as error:  # ValueError: no such configuration or split
            raise MissingDataError(
                f"{task.name}: {path} cannot be read from the Hugging Face Hub ({error}). Without a network give "
                f"--data-dir DIR; `xmodel2 eval fetch --tasks {task.name} --out DIR` makes it on a machine that has one"
            ) from None


def data_set(task: Task, part: str | None = None) -> tuple[str, str | None]:
    """Return the Hub's name of a task's data set, and of its configuration, as the harness's definition has them."""
    if part is None and task.part_fields:
        part = next(iter(part_files(task)))
    packaged = packaged_definition(task, part)
    return packaged["dataset_path"], packaged.get("dataset_name")


def _load_dataset(path: str, name: str | None, split: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(path, name, split=split)
