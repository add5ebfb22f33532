"""The stages are done, each when what it rests on is done, several at once if asked; what is done and unchanged is passed over.

A stage's commands run as processes of their own, one after another; their words go to OUT/stages/NAME.log. Killed at any moment,
the same call goes on: a stage from its last unfinished command, and that command from its own last checkpoint.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from xmodel2.errors import XmodelError
from xmodel2.reproduction.road import Road
from xmodel2.reproduction.stage import Command, Records, Stage, State

Say = Callable[[str], None]
Launch = Callable[[Command, IO[bytes], dict[str, str]], "subprocess.Popen[bytes]"]
_INTERRUPTED = 130
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 60
"""For processes that were told to stop, to write their checkpoints."""


def launch(command: Command, log: IO[bytes], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a command; what it prints goes to the log, or to the file that it is for."""
    line = [sys.executable, "-m", "xmodel2.cli", *command.arguments]
    # A session of its own: Ctrl-C reaches it once, from here, when what it has is to be saved.
    options = {"stderr": log, "stdin": subprocess.DEVNULL, "env": environment, "start_new_session": True}
    if command.stdout is None:
        return subprocess.Popen(line, stdout=log, **options)  # type: ignore[call-overload, no-any-return]
    command.stdout.parent.mkdir(parents=True, exist_ok=True)
    with open(command.stdout, "wb") as file:
        return subprocess.Popen(line, stdout=file, **options)  # type: ignore[call-overload, no-any-return]


@dataclass
class _Running:
    """A stage that is being done."""

    stage: Stage
    commands: Sequence[Command]
    number: int
    """Of the command that runs."""
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]
    began: float


class Reproduction:
    """A reproduction under way."""

    def __init__(
        self,
        road: Road,
        workers: int = 1,
        redo: Collection[str] = (),
        only: Collection[str] = (),
        say: Say = print,
        show: Callable[[list[str]], None] = lambda lines: None,
        launch: Launch = launch,
    ) -> None:
        """``redo``: stages to do again, or "changed"; ``only``: stages to do, all if empty.

        ``show`` is given now and then what each running stage printed last. Raises `XmodelError` for stages that there are not.
        """
        self.records = Records(road.out, road.stages)
        names = tuple(self.records.stages)
        for flag, given in (("--redo", {*redo} - {"changed"}), ("--only", {*only})):
            if unknown := sorted({*given} - {*names}):
                raise XmodelError(f"{flag} {unknown[0]}: there is no such stage; there are {', '.join(names)}")
        self.out, self.workers = road.out, workers
        self.only = [name for name in names if not only or name in only]
        self.redo, self.say, self._show, self._launch = {*redo}, say, show, launch
        self._may_change = {other for name in redo if name in names for other in self.records.resting_on(name)}
        self._settled: set[str] = set()
        self._running: dict[str, _Running] = {}

    def run(self) -> None:
        """Do what is to be done.

        Raises `XmodelError` if a stage fails, or what it rests on has changed; KeyboardInterrupt, with everything saved, after
        a signal.
        """
        for name in self.redo - {"changed"}:
            self.records.forget(name)
        self._settled = {name for name in self.records.stages if name not in self.only and self.records.is_done(name)}
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while self._start_what_can() or self._running:
                self._look()
                self._show(self.last_words())
                time.sleep(_POLL_SECONDS)
        finally:
            self._stop()
            signal.signal(signal.SIGTERM, before)
        for name in self.only:
            if lacking := [before for before in self.records.stages[name].after if before not in self._settled]:
                raise XmodelError(f"--only {name}: rests on {', '.join(lacking)}, which is not done; name it too")

    def state(self, stage: Stage) -> tuple[State, list[str]]:
        """Return a stage's state, and in words what has changed since it was begun."""
        if any(not self.records.is_done(name) for name in stage.after):
            return "waits", []
        inputs = self.records.inputs(stage, stage.prepare())
        changes = self.records.changes(stage.name, inputs)
        if changes:
            return "changed", changes
        if self.records.is_done(stage.name):
            return "done", []
        return ("begun" if self.records.read(stage.name) else "to do"), []

    def _start_what_can(self) -> bool:
        """Start the stages whose turn it is, as many as there are workers; tell whether any was started or settled."""
        moved = False
        for name in self.only:
            stage = self.records.stages[name]
            if name in self._settled or name in self._running or not self._settled.issuperset(stage.after):
                continue
            quiet = stage.alone or any(running.stage.alone for running in self._running.values())
            if len(self._running) >= (1 if quiet else self.workers):
                continue
            self._begin(stage)
            moved = True
        return moved

    def _begin(self, stage: Stage) -> None:
        name = stage.name
        state, changes = self.state(stage)
        if state == "changed":
            if "changed" not in self.redo and name not in self._may_change:
                after = ", ".join([name, *self.records.resting_on(name)])
                raise XmodelError(
                    f"{self.out}: stage {name} rests on something that changed since it was begun:"
                    + "".join(f"\n  {change}" for change in changes)
                    + f"\nPut it back, or do it again with --redo {name} (which removes what it made; done again, if they"
                    f" change, are: {after}), or choose another --out"
                )
            self.say(f"{name}: done again, since {changes[0]}")
            self.records.forget(name)
        if state == "done":
            self.say(f"{name}: done before")
            self._settled.add(name)
            return
        commands = stage.prepare()
        self.records.begin(name, self.records.inputs(stage, commands), commands)
        began = time.monotonic()
        if stage.work is not None:
            self.say(f"{name}: {stage.purpose}")
            stage.work()
        done = int(self.records.read(name)["done"])
        if done >= len(commands):
            self._finish(stage, time.monotonic() - began)
            return
        if stage.work is None:
            self.say(f"{name}: {stage.purpose}")
        self._start(stage, commands, done)

    def _start(self, stage: Stage, commands: Sequence[Command], number: int) -> None:
        path = self.log_path(stage.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        log = open(path, "ab")
        log.write(f"$ {commands[number]}\n".encode())
        log.flush()
        environment = dict(os.environ)
        if self.workers > 1 and not stage.alone:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.workers)))
        process = self._launch(commands[number], log, environment)
        self._running[stage.name] = _Running(stage, commands, number, process, log, time.monotonic())

    def _look(self) -> None:
        """See which processes have ended, and go on with the next command of their stage."""
        for name, running in list(self._running.items()):
            code = running.process.poll()
            if code is None:
                continue
            running.log.close()
            del self._running[name]
            if code:
                self._failed(running, code)
            self.records.advance(name, time.monotonic() - running.began)
            if running.number + 1 < len(running.commands):
                self._start(running.stage, running.commands, running.number + 1)
            else:
                self._finish(running.stage, float(self.records.read(name)["seconds"]))

    def _finish(self, stage: Stage, seconds: float) -> None:
        missing = [file for file in stage.results if not (self.out / file).exists()]
        if missing:
            raise XmodelError(f"stage {stage.name}: ended without {missing[0]}; see {self.log_path(stage.name)}")
        self.records.finish(stage.name)
        self._settled.add(stage.name)
        self.say(f"{stage.name}: done, {_time(seconds)}")

    def _failed(self, running: _Running, code: int) -> None:
        log = self.log_path(running.stage.name)
        if code in (_INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
            raise KeyboardInterrupt
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-4:]
        raise XmodelError(
            "\n  ".join(
                [f"stage {running.stage.name}: `{running.commands[running.number]}` ended with {code}:", *words]
            )
            + f"\nAll it printed is in {log}; set right what it says, and give the same command again to go on"
        )

    def _stop(self) -> None:
        """Tell what still runs to save itself and end, and wait for it."""
        for running in self._running.values():
            running.process.send_signal(signal.SIGTERM)  # a shell's background jobs ignore SIGINT
        for running in self._running.values():
            try:
                running.process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(running.process.pid, signal.SIGKILL)
                running.process.wait()
            running.log.close()
        self._running.clear()

    def log_path(self, name: str) -> Path:
        """Return the file with what a stage's commands print."""
        return self.out / "stages" / f"{name}.log"

    def last_words(self) -> list[str]:
        """Return for each stage that runs the last line that it printed."""
        lines = []
        for name in self._running:
            text = self.log_path(name).read_bytes()[-2000:].decode("utf-8", "replace").strip()
            lines.append(f"{name}: {text.splitlines()[-1] if text else '...'}")
        return lines


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
