"""Hostile programs are contained and none passes, as root and as an ordinary user; honest ones pass as in a plain interpreter.

A hostile program answers its tests rightly only if it got what it wanted: "passed" is the word for a breach.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.code_tasks import score_programs
from xmodel2.eval.sandbox import Limits, Program, Verdict, run_programs

FOLDER = Path(__file__).parent / "hostile"
HOSTILE = sorted(path.stem for path in FOLDER.glob("*.txt"))
LIMITS = Limits(seconds=0.7, memory=(200 << 20) + os.getpid())  # whose processes are those of this test run
USERS = ["this user", "an ordinary user"] if os.geteuid() == 0 else ["this user"]
HONEST = "def f(x):\n    return x + 1"

REASONS = {
    "catches_everything": "timeout",
    "endless_output": "timeout",
    "exit_code": "exited early",
    "exit_when_called": "exited early",
    "fork_bomb": "assertion",
    "infinite_loop": "timeout",
    "other_ends": "exited early",
    "segmentation_fault": "killed by SIGSEGV",
    "sleeps": "timeout",
    "segmentation_fault_when_called": "killed by SIGSEGV",
    "system_exit": "exited early",
    "system_exit_when_called": "exited early",
    "uninterruptible": "timeout",
}


def program(solution: str, tests: str = "assert f(1) == 2\nassert f(41) == 42") -> Program:
    return Program(solution, tests, names=("f",))


@dataclass
class Surroundings:
    """What hostile programs are after."""

    file: Path
    process: subprocess.Popen[bytes]
    server: socket.socket

    def given(self, name: str) -> Program:
        constants = {
            "PID": self.process.pid,
            "PORT": self.server.getsockname()[1],
            "FILE": str(self.file),
            "REPOSITORY": str(FOLDER.parents[2]),
        }
        lines = [f"{key} = {value!r}\n" for key, value in constants.items()]
        return program("".join(lines) + (FOLDER / f"{name}.txt").read_text())


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    """A file that anybody may read, write and delete, a process, a listening socket."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    file = folder / "file"
    file.write_text("SECRET")
    file.chmod(0o666)
    with socket.create_server(("127.0.0.1", 0)) as server, subprocess.Popen(["sleep", "600"]) as process:
        server.setblocking(False)
        yield Surroundings(file, process, server)
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(FOLDER.parents[2]), "XMODEL2_SECRET": "1"}


def run_elsewhere(
    before: list[str], programs: list[Program], *arguments: str, limits: Limits = LIMITS
) -> list[Verdict] | str:
    """Run programs behind ``before`` in another process; return the verdicts, or why it refused."""
    given = {"programs": [asdict(one) for one in programs], "limits": asdict(limits)}
    done = subprocess.run(
        [*before, sys.executable, str(FOLDER / "run.py"), *arguments],
        input=json.dumps(given),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment(),
    )
    answer = json.loads(done.stdout)
    return answer if isinstance(answer, str) else [Verdict(*parts) for parts in answer]


@pytest.fixture(scope="module", params=USERS)
def verdicts(request: pytest.FixtureRequest, around: Surroundings) -> dict[str, Verdict]:
    """The verdicts of the whole table, with an honest program at its end."""
    programs = [*(around.given(name) for name in HOSTILE), program(HONEST)]
    if request.param == "this user":
        found = run_elsewhere([], programs)
    else:
        found = run_elsewhere(["unshare", "--mount"], programs, "ordinary")
    assert not isinstance(found, str), found
    return dict(zip([*HOSTILE, "honest"], found, strict=True))


def test_no_hostile_program_passes(verdicts: dict[str, Verdict]) -> None:
    assert len(HOSTILE) >= 70
    assert [name for name in HOSTILE if verdicts[name].passed] == []
    assert verdicts["honest"].passed


def test_reasons_say_what_happened(verdicts: dict[str, Verdict]) -> None:
    assert {name: verdicts[name].reason for name in REASONS} == REASONS
    assert max(verdict.seconds for verdict in verdicts.values()) < LIMITS.seconds + 3


def test_nothing_outside_was_touched(verdicts: dict[str, Verdict], around: Surroundings) -> None:
    assert around.file.read_text() == "SECRET"
    assert around.process.poll() is None
    assert not Path(f"/tmp/xmodel2-{around.process.pid}").exists()
    assert not Path(f"/dev/shm/xmodel2-{around.process.pid}").exists()
    with pytest.raises(BlockingIOError):
        around.server.accept()


def workers_with(limits: Limits) -> set[str]:
    """Return the processes of sandboxes with these limits, by their command lines."""
    mark, found = f'"seconds": {limits.seconds}, "memory": {limits.memory}', set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if mark in path.read_text(errors="replace"):
                found.add(path.parent.name)
    return found


def test_no_process_is_left(verdicts: dict[str, Verdict]) -> None:
    assert workers_with(LIMITS) == set()


def test_everything_ends_with_a_killed_caller(around: Surroundings) -> None:
    limits = Limits(seconds=0.75)
    given = {"programs": [asdict(around.given("sleeps"))] * 50, "limits": asdict(limits)}
    caller = subprocess.Popen([sys.executable, str(FOLDER / "run.py")], stdin=subprocess.PIPE, env=environment())
    assert caller.stdin is not None
    caller.stdin.write(json.dumps(given).encode())
    caller.stdin.close()
    while len(workers_with(limits)) < 5:  # until solutions run
        assert caller.poll() is None
        time.sleep(0.02)
    caller.kill()
    caller.wait()
    last = time.monotonic() + 20
    while workers_with(limits) and time.monotonic() < last:
        time.sleep(0.02)
    assert workers_with(limits) == set()


FORBID = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"',
    "sh",
]
BARE = {"one user": (FORBID, ()), **({"root and others": ([], ("bare",))} if os.geteuid() == 0 else {})}
"""Machines without namespaces: what to start them with, and the arguments."""


@pytest.mark.parametrize("machine", BARE)
def test_it_refuses_without_namespaces_unless_told_otherwise(machine: str, around: Surroundings) -> None:
    before, arguments = BARE[machine]
    assert "can't be isolated here: new user namespace" in str(run_elsewhere(before, [program(HONEST)], *arguments))

    names = ["any_socket", "exit_code", "forged_verdict", "forged_verdict_of_others", "fork_bomb", "memory_bomb"]
    names += ["read_evaluator", "signal_others", "signals_itself", "write_memory"]
    late_import = program("def f(x):\n    import colorsys, numpy\n    return x + 1")
    programs = [program(HONEST), late_import, around.given("read_file"), *(around.given(name) for name in names)]
    found = run_elsewhere(before, programs, *arguments, "insist", limits=Limits(seconds=2, memory=200 << 20))
    assert not isinstance(found, str), found
    # Unconfined, a program does read the user's files; the rest holds all the same.
    assert [one.passed for one in found[:3]] == [True] * 3
    rest = dict(zip(names, found[3:], strict=True))
    assert [name for name, one in rest.items() if one.passed] == []
    assert rest["signals_itself"].reason == "killed by signal 40"


ANSWERS = [
    ("[1, (2.5, 'a'), {3}, {4: None}]", "assert f(0) == [1, (2.5, 'a'), {3}, {4: None}]"),
    (
        "collections.Counter('aab')",
        "c = f(0)\nassert c == {'a': 2, 'b': 1} and c['c'] == 0 and c.most_common(1) == [('a', 2)]",
    ),
    ("collections.OrderedDict(a=1)", "assert f(0) == {'a': 1}\nassert f(0).popitem(last=False) == ('a', 1)"),
    ("[x.move_to_end(1), x][1]", "import collections\nassert list(f(collections.OrderedDict({1: 0, 2: 0}))) == [2, 1]"),
    ("collections.defaultdict(list, {1: [2]})", "d = f(0)\nassert d == {1: [2]} and d[3] == []"),
    ("collections.defaultdict(lambda: 7)", "assert f(0)[3] == 7"),
    (
        "collections.namedtuple('P', 'x y')(1, 2)",
        "p = f(0)\nassert p == (1, 2) and p.y == 2 and str(p) == 'P(x=1, y=2)'",
    ),
    ("collections.deque(x)", "import collections\nassert f([1, 2]) == collections.deque([1, 2])"),
    ("dict.fromkeys(x).keys()", "assert f('hello') == set('hello') and list(f('hello')) == list('helo')"),
    ("{2: [1], 1: [2]}.items()", "assert list(f(0)) == [(2, [1]), (1, [2])]"),
    ("{2: 1, 1: 2}.values()", "assert list(f(0)) == [1, 2] and len(f(0)) == 2"),
    (
        "x + datetime.timedelta(1)",
        "import datetime\nassert f(datetime.date(2020, 2, 28)) == datetime.date(2020, 2, 29)",
    ),
    ("datetime.datetime(x, 1, 1)", "assert f(2020).isoformat() == '2020-01-01T00:00:00'"),
    ("[1, 2, 3][x]", "assert f(slice(0, 2)) == [1, 2]"),
    ("(type(x), x)", "assert f(None) == (type(None), None) and f(...)[1] is ..."),
    ("sum(x)", "assert f(iter([1, 2])) == f(map(int, '12')) == 3"),
    ("fractions.Fraction(4, 2)", "assert f(0) == 2"),
    ("decimal.Decimal('0.1')", "assert f(0) != 0.1"),
    ("10 ** 6000", "assert f(0) == 10 ** 6000"),
    ("(True, 1j, b'x', range(3), float('inf'))", "assert f(0) == (True, 1j, b'x', range(3), float('inf'))"),
    ("float('nan')", "assert f(0) != f(0)"),
    ("'\\ud800'", "assert f(0) == '\\ud800'"),
    ("(i * i for i in range(3))", "assert list(f(0)) == [0, 1, 4]"),
    ("map(str, [1, 2])", "assert tuple(f(0)) == ('1', '2')"),
    ("collections.deque([1, 2])", "d = f(0)\nassert len(d) == 2 and d[1] == 2 and 2 in d and list(d) == [1, 2]"),
    ("numpy.arange(3).sum()", "assert f(0) == 3"),
    ("{}[x]", "try:\n    f('a')\nexcept KeyError as error:\n    assert error.args == ('a',)\nelse:\n    assert False"),
    ("int(x)", "try:\n    f('a')\nexcept ValueError:\n    pass\nelse:\n    assert False"),
    ("isinstance(1, x)", "assert f(int)"),
]


def test_answers_arrive_as_they_were() -> None:
    imports = "import collections, datetime, decimal, fractions"
    programs = [
        program(f"{imports}{', numpy' * ('numpy' in answer)}\ndef f(x): return {answer}", tests)
        for answer, tests in ANSWERS
    ]
    found = score_programs(programs, Limits(seconds=20))
    assert [(row, one.reason) for row, one in zip(ANSWERS, found, strict=True) if not one.passed] == []


def test_arguments_change_in_place() -> None:
    changes = {
        "list": ("x.sort()", "x = [3, [2], 1][::2]\nassert f(x) is None\nassert x == [1, 3]"),
        "twice": ("x.append(1); return x", "x = y = []\nf(x)\nassert f(x) == [1, 1] == y"),
        "inner": ("x[0].reverse()", "x = [[1, 2]]\nf(x)\nassert x == [[2, 1]]"),
        "dict": ("del x[1]; x[2] = {3}", "x = {1: 2}\nf(x=x)\nassert x == {2: {3}}"),
        "set": ("x.add(1)", "x = {0}\nf(x)\nassert x == {0, 1}"),
        "deque": (
            "x.rotate(1)",
            "import collections\nx = collections.deque([1, 2, 3], 3)\nf(x)\nassert list(x) == [3, 1, 2]",
        ),
        "itself": ("x.append(x); return 5", "x = []\nassert f(x) == 5"),
        "replaced": ("x = [2]; return x", "x = [1]\nassert f(x) == [2] and x == [1]"),
    }
    found = score_programs(
        [program(f"def f(x): {body}", tests) for body, tests in changes.values()], Limits(seconds=20)
    )
    assert [(name, one.reason) for name, one in zip(changes, found, strict=True) if not one.passed] == []


def test_objects_of_the_solution_can_be_used_by_the_tests() -> None:
    solution = "class Node:\n    def __init__(self, x): self.x, self.next = x, None\ndef f(n): return n.x + n.next.x"
    tests = "a, b = Node(1), Node(2)\na.next = b\nassert f(a) == 3\nassert a.next.x == 2\nassert a.next == b != a"
    assert score_programs([Program(solution, tests, names=("Node", "f"))])[0].passed


FAILURES = {
    "def f(x): return x": "assertion",
    "def f(x): return x +": "exception SyntaxError: invalid syntax (<solution>, line 1)",
    "def f(x): return y": "exception NameError: name 'y' is not defined",
    "def g(x): return x + 1": "exception NameError: name 'f' is not defined",
    "def f(x): return [0] * (1 << 30)": "memory",
}


def test_failures_have_a_reason() -> None:
    found = score_programs([program(solution) for solution in FAILURES], Limits(seconds=20))
    assert [one.reason for one in found] == list(FAILURES.values())


def test_a_verdict_is_the_same_every_time() -> None:
    solution = "import random\ndef f(x): return [*{'a', 'b', 'c', 'd', 'e'}, random.random()]"
    one = program(solution + "\nraise ValueError(f(0))")
    assert len({found.reason for _ in range(2) for found in score_programs([one, one])}) == 1


def test_it_can_be_left_early() -> None:
    for _, found in run_programs([program(HONEST)] * 50, workers=1):
        assert found.passed
        break


def test_a_worker_that_dies_is_replaced() -> None:
    """A test text that ends its own process, which no solution can, costs that program only."""
    programs = [program(HONEST), program(HONEST, "import os\nos.kill(os.getpid(), 9)"), program(HONEST)]
    assert [found.passed for found in score_programs(programs, workers=1)] == [True, False, True]


def test_nothing_to_run() -> None:
    assert score_programs([]) == []


def test_refusal_is_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(XmodelError, match="/bin/false did not start"):
        score_programs([program(HONEST)])
