"""A sources file becomes a list of tasks: some files of one source each, the unit that is done, or done again, as a whole.

Tasks stand in order of preference: of near-duplicates, the document of the earlier task stays. The list depends on the
sources alone, never on the number of workers, and so do the shards.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodel2.data.huggingface import count_shards, pinned_dataset
from xmodel2.data.read import check_kind
from xmodel2.errors import XmodelError
from xmodel2.files import as_path, files_below
from xmodel2.recipe.preparation import Preparation, PreparedSource, text_form
from xmodel2.tokenizer import load_tokenizer

_TASK_BYTES = 8 << 20  # of files, packed or not, that are read by one task if there are many small ones
_FORMAT = 3  # raised when the same sources would give other shards


@dataclass(frozen=True)
class Task:
    """Some files, or one part of a data set, of one source."""

    source: str
    heldout: bool
    """All its documents are held out."""
    files: tuple[str, ...] = ()
    part: tuple[int, int] = (0, 1)
    """Of a data set without ``files``: which part of how many."""
    repeats: int | None = None
    """Number of the task whose training documents this one writes again as text; it reads nothing itself."""


@dataclass(frozen=True)
class Plan:
    """What is to be done, and where the half-done lies."""

    preparation: Preparation
    root: str
    """Folder of the sources file, which relative paths start from."""
    tasks: tuple[Task, ...]
    fingerprint: str
    """Of the settings and of name, size and time of every input file: another one is other work."""

    def source_tasks(self, name: str) -> list[int]:
        """Return the numbers of the tasks of a source."""
        return [n for n, task in enumerate(self.tasks) if task.source == name]

    def tasks_of(self, method: str) -> list[int]:
        """Return the numbers of the tasks whose documents a deduplication method looks at."""
        settings = self.preparation.deduplicate
        methods = {"text": settings.text, "sft": settings.sft}
        sources = self.preparation.sources
        read = ((n, task) for n, task in enumerate(self.tasks) if task.repeats is None)
        return [n for n, task in read if method in methods[sources[task.source].kind]]


def make_plan(path: Path, preparation: Preparation) -> Plan:
    """Find every file of every source. Raises `XmodelError` naming a pattern that matches none, or what cannot be read."""
    root = Path(path).resolve().parent
    if preparation.tokenizer.path is not None:
        load_tokenizer(root / preparation.tokenizer.path)  # before hours of cleaning
    pinned: dict[str, PreparedSource] = {}
    heldout: list[Task] = []
    training: list[Task] = []
    found: list[Any] = []
    for name, source in preparation.sources.items():
        taken: set[str] = set()  # a file is read once, and one that is held out is not trained on
        for key, tasks in (("heldout", heldout), ("files", training)):
            matches = find_files(root, f"{path}: sources.{name}.{key}", getattr(source, key))
            files = list({str(file[0]): file for file in matches if str(file[0]) not in taken}.values())
            taken |= {str(file) for file, *_ in files}
            tasks += [Task(name, key == "heldout", tuple(str(file) for file, *_ in group)) for group in _grouped(files)]
            found += [(str(file), size, time) for file, size, time in files]
        if source.dataset is not None:
            source, state = pinned_dataset(source, root)
            parts = count_shards(source, root)
            found.append((name, parts, state))
            training += [Task(name, False, part=(part, parts)) for part in range(parts)]
        pinned[name] = source
    tasks = [*heldout, *training]
    tasks += _repeated(path, pinned, tasks)
    for folder in filter(None, (*preparation.decontaminate.dirs, preparation.tokenizer.path)):
        found += files_below(root / folder)
    preparation = dataclasses.replace(preparation, sources=pinned)  # type: ignore[type-var]
    settings = dataclasses.asdict(preparation)  # type: ignore[call-overload]
    content = json.dumps([_FORMAT, settings, found, len(training)], sort_keys=True)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    return Plan(preparation, str(root), tuple(tasks), fingerprint)


def _repeated(path: Path, sources: dict[str, PreparedSource], tasks: list[Task]) -> list[Task]:
    """Add to ``sources`` those that have others' documents as text, and return their tasks.

    What is left of a chat is left of its text: the chat alone is cleaned, compared with others, or held out.
    """
    for name, source in [item for item in sources.items() if item[1].as_text]:
        if text_form(name) in sources:
            raise XmodelError(
                f"{path}: sources.{name}.as_text makes a source {text_form(name)}, and there is one of that name; rename it"
            )
        origin = source.files or [str(source.dataset)]
        own: dict[str, Any] = {"kind": "text", "stage": "evaluation", "weight": None, "clean": None, "as_text": False}
        sources[text_form(name)] = dataclasses.replace(source, **own, files=[], dataset=None, heldout=origin)  # type: ignore[type-var]
    return [
        Task(text_form(task.source), False, repeats=number)
        for number, task in enumerate(tasks)
        if sources[task.source].as_text and not task.heldout
    ]


def find_files(root: Path, where: str, patterns: list[str]) -> list[tuple[Path, int, float]]:
    """Return (file, bytes, time of change) of all that match, sorted within each pattern. Raises `XmodelError`."""
    found = []
    for pattern in patterns:
        exact = as_path(pattern) if "://" in pattern else root / pattern
        matches = [exact] if pattern and exact.is_file() else _matching(root, pattern, exact)
        if not matches:
            raise XmodelError(f"{where}: no file matches {pattern!r}")
        for file in matches:
            try:
                check_kind(file)
            except XmodelError as error:
                raise XmodelError(f"{where}: {error}") from None
            status = file.stat()
            found.append((file, status.st_size, status.st_mtime))
    return found


def _matching(root: Path, pattern: str, exact: Path) -> list[Path]:
    """Return what a pattern finds, sorted. Only its own wildcards count, not those in the name of a folder above."""
    if not any(sign in pattern for sign in "*?["):
        return []
    if "://" not in pattern and not Path(pattern).is_absolute():
        top, rest = root, pattern
    else:
        fixed = next(n for n, part in enumerate(exact.parts) if any(sign in part for sign in "*?["))
        top, rest = exact, "/".join(exact.parts[fixed:])
        for _ in exact.parts[fixed:]:
            top = top.parent
    return sorted((file for file in top.glob(rest) if file.is_file()), key=str)


def _grouped(files: list[tuple[Path, int, float]]) -> list[list[tuple[Path, int, float]]]:
    """Put small files that follow one another together, up to `_TASK_BYTES`."""
    groups: list[list[tuple[Path, int, float]]] = []
    room = 0
    for file in files:
        if not groups or file[1] > room:
            groups.append([])
            room = _TASK_BYTES
        groups[-1].append(file)
        room -= file[1]
    return groups
