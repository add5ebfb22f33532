"""A stage of a reproduction: commands of `xmodel2`, what they rest on, and the record that they were done.

    OUT/stages/NAME.json   {"inputs": fingerprints of what it rests on, "done": commands finished, "results": SHA-256 by file}

A stage is done again only if something that it rests on is not what it was: its commands, its recipes, files of the corpus, or a
result of an earlier stage.
"""

import hashlib
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from xmodel2.files import read_json, sha256_file, write_json_atomic, write_text_atomic

State = Literal["waits", "to do", "begun", "done", "changed"]


_SEARCHING = ("search", "transfer")
"""Commands that refuse to go on with a study that other code began, unless they are told to."""


@dataclass(frozen=True)
class Command:
    """A command line of `xmodel2`, without the program's name."""

    arguments: tuple[str, ...]
    stdout: Path | None = None
    """File that takes what it prints."""

    def __str__(self) -> str:
        line = shlex.join(["xmodel2", *self.arguments])
        return f"{line} > {shlex.quote(str(self.stdout))}" if self.stdout else line

    def accepting_code(self) -> "Command":
        """Return the command as it goes on with a search that other code began; any other command as it is."""
        return replace(self, arguments=(*self.arguments, "--accept-code")) if self.arguments[0] in _SEARCHING else self


@dataclass(frozen=True)
class Stage:
    """One step of the road."""

    name: str
    purpose: str
    after: tuple[str, ...]
    """Stages whose results it rests on."""
    prepare: Callable[[], Sequence[Command]]
    """Returns its commands, once the stages before it are done."""
    folders: tuple[str, ...]
    """What it makes, below OUT: removed when it is done again; perhaps in a folder of a stage that it rests on. Empty: it writes
    over what is there."""
    results: tuple[str, ...]
    """Files below OUT that later stages and the ledger rest on."""
    recipes: Callable[[], dict[str, str]] = field(default=dict)
    """Text of the recipe files below OUT that it reads, once the stages before it are done."""
    files: Callable[[], dict[str, str]] = field(default=dict)
    """Fingerprints of files from outside."""
    work: Callable[[], None] | None = None
    """What it does itself, before its commands."""
    order_only: tuple[str, ...] = ()
    """Those of ``after`` whose results count only by what its commands say."""
    alone: bool = False
    """It measures time, so nothing runs beside it."""


class Records:
    """The records of a reproduction's stages."""

    def __init__(self, out: Path, stages: Sequence[Stage]) -> None:
        self.out = out
        self.stages = {stage.name: stage for stage in stages}

    def path(self, name: str) -> Path:
        """Return the file of a stage's record."""
        return self.out / "stages" / f"{name}.json"

    def read(self, name: str) -> dict[str, Any]:
        """Return a stage's record, empty if it never began."""
        return read_json(self.path(name)) or {}

    def inputs(self, stage: Stage, commands: Sequence[Command]) -> dict[str, str]:
        """Return what a stage rests on, by name; the stages before it are done."""
        found = {f"command {number}": str(command) for number, command in enumerate(commands, 1)}
        found |= {f"recipe {name}": hashlib.sha256(text.encode()).hexdigest() for name, text in stage.recipes().items()}
        found |= {f"file {name}": digest for name, digest in stage.files().items()}
        for before in (name for name in stage.after if name not in stage.order_only):
            found |= {f"{before}: {name}": digest for name, digest in self.read(before).get("results", {}).items()}
        return found

    def is_done(self, name: str) -> bool:
        """Tell whether a stage was done and its results are there."""
        record = self.read(name)
        return bool(record.get("finished")) and all((self.out / file).exists() for file in record["results"])

    def changes(self, name: str, inputs: dict[str, str]) -> list[str]:
        """Return what is not as it was when a stage began, in words; empty if it never began."""
        record = self.read(name)
        before = record.get("inputs")
        if before is None:
            return []
        keys = sorted(key for key in {*before, *inputs} if before.get(key) != inputs.get(key))
        made = record.get("results", {})
        other = [file for file in made if (self.out / file).exists() and sha256_file(self.out / file) != made[file]]
        return [
            *(_change(key, before.get(key), inputs.get(key)) for key in keys),
            *(f"its result {file} is not what it made" for file in other),
        ]

    def begin(self, stage: Stage, inputs: dict[str, str], commands: Sequence[Command]) -> None:
        """Note that a stage begins, or goes on, and write its recipes."""
        record = self.read(stage.name)
        fresh: dict[str, Any] = {"stage": stage.name, "began": _now(), "inputs": inputs, "done": 0}
        fresh["seconds"] = record.get("seconds", 0.0)  # of an earlier command, whose work it goes on with
        record = record if record.get("inputs") == inputs else fresh
        if record.pop("results", None) or self.missing(stage):
            record["done"] %= max(1, len(commands))  # all are done, and a result has gone: they make it again
        record.pop("finished", None)
        record |= {"commands": [str(command) for command in commands]}
        write_json_atomic(self.path(stage.name), record)
        for name, text in stage.recipes().items():
            write_text_atomic(self.out / name, text)

    def missing(self, stage: Stage) -> list[str]:
        """Return results of a stage that are not there."""
        return [file for file in stage.results if not (self.out / file).exists()]

    def advance(self, name: str, seconds: float) -> None:
        """Note that one more command of a stage has ended."""
        self.spend(name, seconds)
        record = self.read(name)
        write_json_atomic(self.path(name), {**record, "done": record["done"] + 1})

    def spend(self, name: str, seconds: float) -> None:
        """Add to the time that a stage has taken, in all calls together."""
        record = self.read(name)
        write_json_atomic(self.path(name), {**record, "seconds": record["seconds"] + seconds})

    def finish(self, name: str) -> None:
        """Note that a stage is done, with the fingerprints of its results."""
        results = {file: sha256_file(self.out / file) for file in self.stages[name].results}
        write_json_atomic(self.path(name), {**self.read(name), "results": results, "finished": _now()})

    def forget(self, name: str) -> None:
        """Remove what a stage made, and its record; and the records of stages that wrote into it."""
        places = [self.out / made for made in self.stages[name].folders]
        aside = {made: made.with_name(f".{made.name}.old") for made in places}
        for made, old in aside.items():  # a folder goes all at once: half of one could pass for a whole
            shutil.rmtree(old, ignore_errors=True)
            if made.exists():
                made.replace(old)
        gone = {name}
        self.path(name).unlink(missing_ok=True)
        for other in self.stages.values():
            within = not other.folders or any((self.out / made).parent in places for made in other.folders)
            if within and gone & set(other.after):
                gone.add(other.name)
                self.path(other.name).unlink(missing_ok=True)
        for old in aside.values():
            shutil.rmtree(old, ignore_errors=True)

    def resting_on(self, name: str) -> Iterator[str]:
        """Yield the stages that rest on one, directly or not, in their order."""
        reached = {name}
        for stage in self.stages.values():
            if reached & set(stage.after):
                reached.add(stage.name)
                yield stage.name


def _change(key: str, before: str | None, now: str | None) -> str:
    if before is None:
        return f"{key} is new"
    if now is None:
        return f"{key} is gone"
    if key.startswith("command"):
        return f"{key} was `{before}`, is `{now}`"
    return f"{key} is not what it was"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
