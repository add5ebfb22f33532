"""The stages are done, each when what it rests on is done, several at once if asked; what is done and unchanged is passed over.

A stage's commands run as processes of their own, one after another; their words go to OUT/stages/NAME.log. Killed at any moment,
the same call goes on: a stage from its last unfinished command, and that command from its own last checkpoint. A stage that fails
holds up those that rest on it, and no other.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from xmodel2.errors import XmodelError
from xmodel2.reproduction.launch import Launch, end, environment_of, last_line, launch, open_log, visible_devices
from xmodel2.reproduction.road import Road
from xmodel2.reproduction.stage import Command, Records, Stage, State

Say = Callable[[str], None]
_INTERRUPTED = 130
_POLL_SECONDS = 0.2
_SAVE_SECONDS = 300
"""For processes that were told to stop, to write their checkpoints."""


@dataclass
class _Running:
    """A stage that is being done."""

    stage: Stage
    commands: Sequence[Command]
    number: int
    """Of the command that runs."""
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]
    slot: int
    """Its place among those that run at once."""
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
        accept_code: bool = False,
    ) -> None:
        """``redo``: stages to do again, or "changed"; ``only``: stages to do, all if empty.

        ``accept_code``: go on with searches that other code began. ``show`` is given now and then what each running stage
        printed last. Raises `XmodelError` for stages that there are not.
        """
        self.records = Records(road.out, road.stages)
        names = tuple(self.records.stages)
        for flag, given in (("--redo", {*redo} - {"changed"}), ("--only", {*only})):
            if unknown := sorted({*given} - {*names}):
                raise XmodelError(f"{flag} {unknown[0]}: there is no such stage; there are {', '.join(names)}")
        self.out, self.workers = road.out, workers
        self.only = [name for name in names if not only or name in only]
        if left := sorted({*redo} - {"changed", *self.only}):
            raise XmodelError(f"--redo {left[0]}: is not among --only {','.join(self.only)}; name it there too")
        self.redo, self.say, self._show, self._launch = {*redo}, say, show, launch
        self._accept_code = accept_code
        self._may_change = {other for name in redo if name in names for other in self.records.resting_on(name)}
        self._settled: set[str] = set()
        self._failed: dict[str, str] = {}
        self._running: dict[str, _Running] = {}
        self._devices: list[str] = []

    def run(self) -> None:
        """Do what is to be done.

        Raises `XmodelError`, once nothing else is left to do, if a stage failed, or what it rests on has changed;
        KeyboardInterrupt, with everything saved, after a signal.
        """
        self._settled = {name for name in self.records.stages if name not in self.only and self.records.is_done(name)}
        for name in self.only:
            there = {*self.only, *self._settled}
            if lacking := [before for before in self.records.stages[name].after if before not in there]:
                raise XmodelError(f"--only {name}: rests on {', '.join(lacking)}, which is not done; name it too")
        again = [name for name in self.only if name in self.redo]
        for name in again:
            open_log(self.log_path(name)).close()  # before any is removed: nothing may work in one
        for name in again:
            self.records.forget(name)
        if self.workers > 1:
            self._devices = visible_devices()
        signals = [signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: goes on without its terminal
            signals.append(signal.SIGHUP)
        before = {number: signal.signal(number, _interrupt) for number in signals}
        try:
            while self._start_what_can() or self._running:
                self._look()
                self._show(self.last_words())
                time.sleep(_POLL_SECONDS if self._running else 0)
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._failed:
            raise XmodelError("\n".join(self._failed.values()))

    def state(self, stage: Stage) -> tuple[State, list[str]]:
        """Return a stage's state, and in words what has changed since it was begun; writes nothing."""
        if any(not self.records.is_done(name) for name in stage.after):
            return "waits", []
        changes = self.records.changes(stage.name, self.records.inputs(stage, stage.prepare()))
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
            over = name in self._settled or name in self._failed or name in self._running
            if over or not self._settled.issuperset(stage.after):
                continue
            quiet = stage.alone or any(running.stage.alone for running in self._running.values())
            if len(self._running) >= (1 if quiet else self.workers):
                continue
            try:
                self._begin(stage)
            except XmodelError as error:
                self._fail(name, str(error))
            moved = True
        return moved

    def _begin(self, stage: Stage) -> None:
        name = stage.name
        state, changes = self.state(stage)
        if state == "done":
            self.say(f"{name}: done before")
            self._settled.add(name)
            return
        log = open_log(self.log_path(name))
        try:
            if state == "changed" and "changed" not in self.redo and all(c.startswith("command") for c in changes):
                # The commands go on from what earlier ones left, or refuse it themselves.
                self.say(f"{name}: {changes[0]}; goes on with what is there")
            elif state == "changed":
                self._allow(name, changes)
                self.say(f"{name}: done again, since {changes[0]}")
                self.records.forget(name)
            self.say(f"{name}: {stage.purpose}")
            commands = stage.prepare()
            self.records.begin(stage, self.records.inputs(stage, commands), commands)
            began = time.monotonic()
            if stage.work is not None:
                stage.work()
            done = int(self.records.read(name)["done"])
            if done < len(commands):
                taken = {running.slot for running in self._running.values()}
                slot = next(number for number in range(self.workers) if number not in taken)
                self._start(stage, commands, done, log, slot)
            else:
                log.close()
                self.records.spend(name, time.monotonic() - began)
                self._finish(stage, time.monotonic() - began)
        except BaseException:
            log.close()
            raise

    def _allow(self, name: str, changes: Sequence[str]) -> None:
        """Raise `XmodelError` if a stage that rests on something that changed may not be done again."""
        if "changed" in self.redo or name in self._may_change:
            return
        after = ", ".join([name, *self.records.resting_on(name)])
        raise XmodelError(
            f"{self.out}: stage {name} rests on something that changed since it was begun:"
            + "".join(f"\n  {change}" for change in changes)
            + f"\nPut it back, or do it again with --redo {name} (which removes what it made; done again, if they"
            f" change, are: {after}), or choose another --out"
        )

    def _start(self, stage: Stage, commands: Sequence[Command], number: int, log: IO[bytes], slot: int) -> None:
        command = commands[number].accepting_code() if self._accept_code else commands[number]
        log.write(f"$ {command}\n".encode())
        log.flush()
        environment = dict(os.environ)
        if self.workers > 1 and not stage.alone:
            environment |= environment_of(slot, self.workers, self._devices)
        process = self._launch(command, log, environment)
        self._running[stage.name] = _Running(stage, commands, number, process, log, slot, time.monotonic())
        log.write(f"# process {process.pid}\n".encode())
        log.flush()

    def _look(self) -> None:
        """See which processes have ended, and go on with the next command of their stage."""
        for name, running in list(self._running.items()):
            code = running.process.poll()
            if code is None:
                continue
            del self._running[name]
            if not code:
                self.records.advance(name, time.monotonic() - running.began)
                if running.number + 1 < len(running.commands):
                    self._start(running.stage, running.commands, running.number + 1, running.log, running.slot)
                    continue
            running.log.close()
            try:
                if code:
                    self._complain(running, code)
                self._finish(running.stage, float(self.records.read(name)["seconds"]))
            except XmodelError as error:
                self._fail(name, str(error))

    def _finish(self, stage: Stage, seconds: float) -> None:
        if missing := self.records.missing(stage):
            raise XmodelError(f"stage {stage.name}: ended without {missing[0]}; see {self.log_path(stage.name)}")
        self.records.finish(stage.name)
        self._settled.add(stage.name)
        self.say(f"{stage.name}: done, {_time(seconds)}")

    def _fail(self, name: str, message: str) -> None:
        self._failed[name] = message
        waiting = [other for other in self.records.resting_on(name) if other in self.only]
        self.say(f"{name}: not done" + (f"; {', '.join(waiting)} wait for it" if waiting else ""))

    def _complain(self, running: _Running, code: int) -> None:
        """Raise `XmodelError` with what a command said that failed; KeyboardInterrupt if it was told to stop."""
        log = self.log_path(running.stage.name)
        if code in (_INTERRUPTED, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP):
            raise KeyboardInterrupt
        how = f"ended with {code}" if code > 0 else f"was killed by signal {-code}"
        if code == -signal.SIGKILL:
            how += ", as the system does when memory runs out; fewer --workers take less"
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-4:]
        raise XmodelError(
            "\n  ".join([f"stage {running.stage.name}: `{running.commands[running.number]}` {how}:", *words])
            + f"\nAll it printed is in {log}; set right what it says, and give the same command again to go on"
        )

    def _stop(self) -> None:
        """Tell what still runs to save itself and end, and wait for it; a second signal ends the waiting."""
        if not self._running:
            return
        self.say(f"{', '.join(self._running)}: told to save and stop; once more, and they are killed")
        for running in self._running.values():
            running.process.send_signal(signal.SIGTERM)  # a shell's background jobs ignore SIGINT
        try:
            for running in self._running.values():
                running.process.wait(_SAVE_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        for name, running in self._running.items():
            end(running.process)
            running.log.close()
            self.records.spend(name, time.monotonic() - running.began)
        self._running.clear()

    def log_path(self, name: str) -> Path:
        """Return the file with what a stage's commands print."""
        return self.out / "stages" / f"{name}.log"

    def last_words(self) -> list[str]:
        """Return for each stage that runs the last line that it printed."""
        return [f"{name}: {last_line(self.log_path(name))}" for name in self._running]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
