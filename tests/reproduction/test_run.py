"""The stages of a reproduction, with processes that take no time: their order, what is done again, what stops them."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from xmodel2.errors import XmodelError
from xmodel2.reproduction.launch import environment_of, last_line
from xmodel2.reproduction.run import Reproduction
from xmodel2.reproduction.stage import Command, Records, Stage


@dataclass
class Process:
    """A process that ends when it is looked at for the ``looks``-th time."""

    code: int
    looks: int
    ends: Callable[[], None]
    told: list[int] = field(default_factory=list)
    killed: bool = False
    pid: int = 2**30
    """None has it: pids are below 2**22."""

    def poll(self) -> int | None:
        self.looks -= 1
        if self.looks == 0:
            self.ends()
        return None if self.looks > 0 else self.code

    def send_signal(self, number: int) -> None:
        self.told.append(number)

    def wait(self, timeout: float | None = None) -> int:
        return self.code

    def kill(self) -> None:
        self.killed = True


class Commands:
    """Starts "make FILE WORD": FILE below OUT is what ``contents`` has for it, or WORD."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.started: list[str] = []
        self.codes: dict[str, int] = {}
        self.contents: dict[str, str] = {}
        self.looks: dict[str, int] = {}
        self.running: set[str] = set()
        self.together: list[set[str]] = []
        self.environments: dict[str, dict[str, str]] = {}

    def __call__(self, command: Command, log: IO[bytes], environment: dict[str, str]) -> Any:
        _, file, word = command.arguments
        self.started.append(file)
        self.running.add(file)
        self.together.append(set(self.running))
        self.environments[file] = environment
        code = self.codes.get(file, 0)
        log.write(f"{file} says {code}\n".encode())
        log.flush()

        def ends() -> None:
            self.running.discard(file)
            if not code and file not in self.contents.get("nothing", ""):
                (self.out / file).parent.mkdir(parents=True, exist_ok=True)
                (self.out / file).write_text(self.contents.get(file, word))

        return Process(code, self.looks.get(file, 1), ends)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmodel2.reproduction.run._POLL_SECONDS", 0)
    monkeypatch.setattr("xmodel2.reproduction.launch.PATIENCE_SECONDS", 0)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def stage(name: str, after: Sequence[str] = (), parts: int = 1, **given: Any) -> Stage:
    """Return a stage whose commands make NAME/1, NAME/2 ..., of which the last is its result."""
    files = [f"{name}/{number}" for number in range(1, parts + 1)]
    made = [Command(("make", file, "same")) for file in files]
    settings = {"folders": (name,), "results": (files[-1],), **given}
    return Stage(name, f"makes {name}", tuple(after), lambda: made, **settings)


def run(commands: Commands, stages: Sequence[Stage], **given: Any) -> list[str]:
    """Do the stages and return the commands that were started."""
    commands.started.clear()
    road: Any = SimpleNamespace(out=commands.out, stages=stages)
    said: list[str] = []
    Reproduction(road, launch=commands, say=said.append, **given).run()
    return commands.started


DIAMOND = [stage("a"), stage("b", "a"), stage("c", "a"), stage("d", "bc")]


def test_stages_come_when_what_they_rest_on_is_done_and_only_once(commands: Commands) -> None:
    assert run(commands, DIAMOND) == ["a/1", "b/1", "c/1", "d/1"]
    assert run(commands, DIAMOND) == []
    record = json.loads((commands.out / "stages" / "d.json").read_text())
    assert set(record["inputs"]) == {"command 1", "b: b/1", "c: c/1"}
    assert list(record["results"]) == ["d/1"]
    assert record["done"] == 1
    assert "$ xmodel2 make d/1 same\n" in (commands.out / "stages" / "d.log").read_text()


def test_workers_do_several_at_once_and_share_the_threads(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("xmodel2.reproduction.launch.usable_cores", lambda: 8)
    stages = [*DIAMOND[:3], stage("e", "a"), stage("timed", "a", alone=True), DIAMOND[3]]
    commands.looks = dict.fromkeys(["b/1", "c/1", "e/1", "d/1", "timed/1"], 2)
    run(commands, stages, workers=2)
    assert {"b/1", "c/1"} in commands.together
    assert max(map(len, commands.together)) == 2
    assert all(together == {"timed/1"} for together in commands.together if "timed/1" in together)
    assert commands.environments["b/1"]["OMP_NUM_THREADS"] == "4"
    assert "OMP_NUM_THREADS" not in commands.environments["timed/1"]


def test_workers_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment_of(1, 4, ["0", "1", "2"]) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert environment_of(3, 4, ["4", "6", "7"]) == {"CUDA_VISIBLE_DEVICES": "4"}
    assert environment_of(1, 4, ["0"]) == {}


def test_a_failed_stage_goes_on_from_its_failed_command_and_holds_up_no_other(commands: Commands) -> None:
    stages = [stage("a", parts=3), stage("b", "a"), stage("c")]
    commands.codes = {"a/2": 1}
    with pytest.raises(XmodelError, match=r"(?s)stage a: `xmodel2 make a/2 same` ended with 1:.*a/2 says 1.*a\.log"):
        run(commands, stages)
    assert commands.started == ["a/1", "a/2", "c/1"]
    commands.codes = {}
    assert run(commands, stages) == ["a/2", "a/3", "b/1"]


def test_a_command_that_the_system_killed_is_told_from_one_that_failed(commands: Commands) -> None:
    commands.codes = {"a/1": -9}
    with pytest.raises(XmodelError, match="killed by signal 9, as the system does when memory runs out"):
        run(commands, [stage("a")])


def test_a_stage_that_ends_without_its_result_is_not_done(commands: Commands) -> None:
    stages = [stage("a", parts=2), stage("b", "a")]
    commands.contents = {"nothing": "a/2"}
    for _ in range(2):
        with pytest.raises(XmodelError, match="stage a: ended without a/2"):
            run(commands, stages)
        assert commands.started == ["a/1", "a/2"]
    commands.contents = {}
    assert run(commands, stages) == ["a/1", "a/2", "b/1"]


def test_a_file_that_changed_is_named_and_done_again_on_request_only(commands: Commands) -> None:
    prints = {"web-000.jsonl": "1"}
    stages = [stage("corpus", files=lambda: prints), stage("data", ["corpus"]), stage("other")]
    run(commands, stages)
    prints["web-000.jsonl"] = "2"
    with pytest.raises(XmodelError) as error:
        run(commands, stages)
    for part in ("stage corpus", "file web-000.jsonl is not what it was", "--redo corpus", "corpus, data"):
        assert part in str(error.value)
    assert commands.started == []
    assert (commands.out / "corpus" / "1").exists()
    assert run(commands, stages, redo=["corpus"]) == ["corpus/1"]  # its result is what it was
    prints["more.jsonl"] = "3"
    commands.contents = {"corpus/1": "other"}
    assert run(commands, stages, redo=["changed"]) == ["corpus/1", "data/1"]


def test_what_rests_on_a_stage_done_again_follows_if_it_has_another_result(commands: Commands) -> None:
    run(commands, DIAMOND)
    commands.contents = {"b/1": "other", "d/1": "other"}
    assert run(commands, DIAMOND, redo=["b"]) == ["b/1", "d/1"]
    commands.contents["a/1"] = "other"  # and b and c come out as they were
    assert run(commands, DIAMOND, redo=["a"]) == ["a/1", "b/1", "c/1"]


def test_a_result_that_was_changed_by_hand_is_named(commands: Commands) -> None:
    run(commands, DIAMOND)
    (commands.out / "b" / "1").write_text("by hand")
    with pytest.raises(
        XmodelError, match=r"(?s)stage b rests on something that changed.*its result b/1 is not what it made"
    ):
        run(commands, DIAMOND)
    assert run(commands, DIAMOND, redo=["changed"]) == ["b/1"]


def test_what_was_written_into_a_folder_goes_with_it(commands: Commands) -> None:
    scores = stage("scores", "a", folders=(), results=())
    figure = stage("figure", ["scores"], folders=(), results=())
    stages = [stage("a"), scores, figure, stage("b", "a")]
    run(commands, stages)
    assert run(commands, stages, redo=["a"]) == ["a/1", "scores/1", "figure/1"]


def test_a_folder_inside_another_stages_is_removed_with_either(commands: Commands) -> None:
    part = Stage("part", "", ("a",), lambda: [Command(("make", "a/part/1", "same"))], ("a/part",), ())
    stages = [stage("a"), part]
    run(commands, stages)
    (commands.out / "a" / "part" / "old").write_text("of another measurement")
    assert run(commands, stages, redo=["part"]) == ["a/part/1"]
    assert sorted(path.name for path in (commands.out / "a").iterdir()) == ["1", "part"]
    assert not (commands.out / "a" / "part" / "old").exists()
    assert run(commands, stages, redo=["a"]) == ["a/1", "a/part/1"]


def test_a_result_that_was_removed_is_made_again(commands: Commands) -> None:
    stages = [stage("a", parts=2), stage("b", "a")]
    run(commands, stages)
    (commands.out / "a" / "2").unlink()
    records = Records(commands.out, stages)
    assert not records.is_done("a")
    assert records.is_done("b")
    assert run(commands, stages) == ["a/1", "a/2"]


def test_a_changed_command_goes_on_with_what_is_there(commands: Commands) -> None:
    run(commands, [stage("a")])
    (commands.out / "a" / "kept").write_text("a run of the first command")
    other = Stage("a", "", (), lambda: [Command(("make", "a/1", "two words"))], ("a",), ("a/1",))
    road: Any = SimpleNamespace(out=commands.out, stages=[other])
    change = "command 1 was `xmodel2 make a/1 same`, is `xmodel2 make a/1 'two words'`"
    assert Reproduction(road).state(other) == ("changed", [change])
    assert run(commands, [other]) == ["a/1"]
    assert (commands.out / "a" / "kept").exists()
    assert run(commands, [other]) == []


def test_searches_go_on_with_other_code_on_request(commands: Commands) -> None:
    made: list[tuple[str, ...]] = []

    def launch(command: Command, log: IO[bytes], environment: dict[str, str]) -> Any:
        made.append(command.arguments)
        return commands(Command(command.arguments[:3]), log, environment)

    lines = [("search", "a/1", "x"), ("law", "a/2", "x"), ("transfer", "a/3", "x")]
    one = Stage("a", "", (), lambda: [Command(line) for line in lines], ("a",), ("a/3",))
    road: Any = SimpleNamespace(out=commands.out, stages=[one])
    Reproduction(road, launch=launch, say=lambda _: None, accept_code=True).run()
    assert [line[3:] for line in made] == [("--accept-code",), (), ("--accept-code",)]
    whole = Reproduction(road, launch=launch)
    assert whole.state(one) == ("done", [])  # how it was gone on with is no change


def test_recipes_are_written_when_a_stage_begins_and_not_when_it_is_looked_at(commands: Commands) -> None:
    text = {"recipes/a.toml": "width = 1\n"}
    stages = [stage("a", recipes=lambda: text)]
    road: Any = SimpleNamespace(out=commands.out, stages=stages)
    assert Reproduction(road).state(stages[0]) == ("to do", [])
    assert not any(commands.out.iterdir())
    run(commands, stages)
    assert (commands.out / "recipes" / "a.toml").read_text() == "width = 1\n"
    text["recipes/a.toml"] = "width = 2\n"
    assert Reproduction(road).state(stages[0]) == ("changed", ["recipe recipes/a.toml is not what it was"])
    assert (commands.out / "recipes" / "a.toml").read_text() == "width = 1\n"


def test_stages_that_are_named_are_checked_before_anything_is_done(commands: Commands) -> None:
    with pytest.raises(XmodelError, match="--only d: rests on b, c, which is not done"):
        run(commands, DIAMOND, only=["a", "d"])
    assert run(commands, DIAMOND, only=["a", "b"]) == ["a/1", "b/1"]
    with pytest.raises(XmodelError, match="--redo a: is not among --only c"):
        run(commands, DIAMOND, only=["c"], redo=["a"])
    for flag in ("only", "redo"):
        with pytest.raises(XmodelError, match=f"--{flag} e: there is no such stage; there are a, b, c, d"):
            run(commands, DIAMOND, **{flag: ["e"]})
    assert run(commands, DIAMOND) == ["c/1", "d/1"]


def test_a_damaged_record_is_named(commands: Commands) -> None:
    run(commands, DIAMOND)
    (commands.out / "stages" / "b.json").write_text('{"stage": "b", "inp')
    with pytest.raises(XmodelError, match=r"b\.json: not valid JSON"):
        run(commands, DIAMOND)


def _sleeper(command: Command, log: IO[bytes], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(60)"]
    return subprocess.Popen(line, stdout=log, start_new_session=True)


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals do what they do by default, also where the tests were started in the background or without a terminal."""
    before = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in before.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_nothing_counts_as_done(heard: None, commands: Commands, number: int) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def start(*given: Any) -> "subprocess.Popen[bytes]":
        processes.append(_sleeper(*given))
        return processes[-1]

    def show(lines: list[str]) -> None:
        # Not the last lines: what the process says and the note of its number come in either order.
        if len(lines) == 2 and all("\nup\n" in (commands.out / "stages" / f"{n}.log").read_text() for n in "bc"):
            os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    road: Any = SimpleNamespace(out=commands.out, stages=DIAMOND)
    run(commands, DIAMOND, only=["a"])
    with pytest.raises(KeyboardInterrupt):
        Reproduction(road, 2, launch=start, show=show, say=lambda text: None).run()
    assert [process.returncode for process in processes] == [-signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) is before
    assert json.loads((commands.out / "stages" / "b.json").read_text())["done"] == 0
    assert run(commands, DIAMOND) == ["b/1", "c/1", "d/1"]


def test_a_second_signal_does_not_wait(commands: Commands) -> None:
    class Slow(Process):
        def wait(self, timeout: float | None = None) -> int:
            if timeout is not None:
                raise KeyboardInterrupt
            return self.code

    slow = Slow(0, 100, lambda: None)

    def interrupt(lines: list[str]) -> None:
        raise KeyboardInterrupt

    road: Any = SimpleNamespace(out=commands.out, stages=[stage("a")])
    with pytest.raises(KeyboardInterrupt):
        Reproduction(road, launch=lambda *_: slow, show=interrupt, say=lambda text: None).run()  # type: ignore[arg-type, return-value]
    assert slow.told == [signal.SIGTERM]
    assert slow.killed


def test_a_command_that_was_told_to_stop_stops_the_whole(commands: Commands) -> None:
    commands.codes = {"a/1": 130}
    with pytest.raises(KeyboardInterrupt):
        run(commands, DIAMOND)
    commands.codes = {}
    assert run(commands, DIAMOND) == ["a/1", "b/1", "c/1", "d/1"]


def test_a_process_that_outlived_its_call_is_named(commands: Commands) -> None:
    """It holds the log's lock, as what was started by a call that was killed does."""
    run(commands, DIAMOND, only=["a"])
    log = commands.out / "stages" / "b.log"
    with open(log, "wb") as held:
        held.write(b"$ xmodel2 make b/1 same\n# process 4321\nstep 7\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(XmodelError, match=r"stage b: process 4321, .* still works on it; .*kill 4321"):
            run(commands, DIAMOND)
        assert commands.started == ["c/1"]
        with pytest.raises(XmodelError, match="process 4321"):
            run(commands, DIAMOND, redo=["b"])
    assert last_line(log) == "step 7"
    assert run(commands, DIAMOND) == ["b/1", "d/1"]
