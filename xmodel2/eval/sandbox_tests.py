"""The process that runs the tests and says whether they passed; the solution lives in another one.

    tests: assert f([1]) == 2   -> call f [1] ->   solution's process
                  int.__eq__    <-    2       <-

Every comparison is made here, between values of built-in types, in a process that the solution can't reach. So a verdict
can't be forged by what a solution prints, patches, redefines, exits with or finds by introspection: to pass, it has to answer
what the tests expect, and it doesn't see the tests. What is not plain data stays with the solution behind a `_Remote`, which
equals nothing but itself.
"""

import builtins
import importlib
import signal
from collections.abc import Iterator, Sequence
from time import perf_counter
from types import FrameType
from typing import Any, NoReturn

from xmodel2.eval.sandbox_values import MUTABLE, decode, encode, read_frame, write_frame

_AGAIN = 0.05  # seconds: a test may swallow what interrupts it


class _Stop(BaseException):
    """Ends the tests, past any ``except Exception`` in them."""


class _Link:
    """The way to the solution; ``over`` says why there is none any more."""

    def __init__(self, reader: int, writer: int, answer_bytes: int) -> None:
        self.reader, self.writer, self.answer_bytes = reader, writer, answer_bytes
        self.over = ""
        self.remotes: dict[int, _Remote] = {}

    def stop(self, reason: str) -> NoReturn:
        self.over = self.over or reason
        raise _Stop

    def ask(self, verb: str, *operands: Any) -> Any:
        """Return the answer as it was sent, or raise what the solution raised."""
        if self.over:
            raise _Stop
        try:
            write_frame(self.writer, [verb, *operands])
            answer = read_frame(self.reader, self.answer_bytes)
        except (EOFError, OSError):
            self.stop("gone")
        except (ValueError, RecursionError) as error:
            self.stop(f"exception {type(error).__name__}: {error}")
        match answer:
            case ["answer", value]:
                return value
            case ["raised", list(kinds), arguments]:
                raise self._exception(kinds, decode(arguments, str))
        self.stop("exited early")

    def _exception(self, kinds: list[Any], arguments: tuple[Any, ...]) -> Exception:
        """Return the nearest built-in of the exception; one that is no ``Exception``, as ``SystemExit``, ends the tests."""
        for kind in kinds:
            found = getattr(builtins, kind, None) if isinstance(kind, str) else None
            if isinstance(found, type) and issubclass(found, Exception):
                try:
                    return found(*arguments)
                except Exception:  # one that takes more or others than its subclass had
                    return Exception(f"{kind}: {arguments}")
        self.stop("exited early")

    def _resolve(self, parts: list[Any]) -> Any:
        match parts:
            case [int(number)]:
                return self.remotes.setdefault(number, _Remote(self, number))
        raise ValueError("not a reference")

    def _data(self, value: Any) -> Any:
        def refer(other: Any) -> list[Any]:
            if isinstance(other, _Remote):
                return ["ref", object.__getattribute__(other, "_number")]
            if isinstance(other, Iterator):  # as far as it goes: the solution can't ask for more
                return ["iter", *(self._data(item) for item in other)]
            raise TypeError(f"tests can't hand a {type(other).__name__} to a solution")

        return encode(value, refer)

    def perform(self, verb: str, *operands: Any) -> Any:
        """Return the value of one request about values and remote objects."""
        return decode(self.ask(verb, *(self._data(operand) for operand in operands)), self._resolve)

    def call(self, function: "_Remote", arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Return what a function of the solution answers; what it changed in its arguments changes in the tests' own."""
        answer, changes = self.ask("call", *(self._data(operand) for operand in (function, arguments, named)))
        given = (*arguments, *named.values())
        for number, data in changes:
            _renew(given[number], decode(data, self._resolve))
        return decode(answer, self._resolve)

    def named(self, names: Sequence[str], modules: Sequence[str]) -> dict[str, Any]:
        """Return the solution's globals of these names, where it has them; in the place of ``modules``, our own copies."""
        sent = self.ask("names", *names, *modules)
        found = {name: decode(sent[name], self._resolve) for name in names if name in sent}
        return found | {name: importlib.import_module(name) for name in modules if name in sent}


def _renew(old: Any, new: Any) -> None:
    """Give a container the content of another of its kind; ``ValueError`` where that is not what they are."""
    kind: Any = next((kind for kind in MUTABLE if isinstance(old, kind) and isinstance(new, kind)), None)
    if kind is None:
        raise ValueError("not a change")
    kind.clear(old)
    (kind.update if kind in (dict, set) else kind.extend)(old, new)


class _Remote:
    """An object that stayed with the solution: can be called, iterated and looked into, never compared by its own rules."""

    def __init__(self, link: _Link, number: int) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def _perform(self, verb: str, *operands: Any) -> Any:
        return object.__getattribute__(self, "_link").perform(verb, self, *operands)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return object.__getattribute__(self, "_link").call(self, arguments, named)

    def __getattr__(self, name: str) -> Any:
        return self._perform("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._perform("set", name, value)

    def __iter__(self) -> Iterator[Any]:
        return self._perform("iter")

    def __next__(self) -> Any:
        return self._perform("next")

    def __len__(self) -> int:
        return self._perform("len")

    def __getitem__(self, key: Any) -> Any:
        return self._perform("item", key)

    def __contains__(self, value: Any) -> bool:
        return self._perform("contains", value)

    def __bool__(self) -> bool:
        return self._perform("bool")

    def __str__(self) -> str:
        return self._perform("str")


def run_tests(job: dict[str, Any], reader: int, writer: int, seconds: float, answer_bytes: int) -> tuple[str, float]:
    """Have the solution run, then the tests with the names they take from it; return the reason and the seconds.

    ``job`` has the fields of a `Program`. The reason is "passed" only if the tests ran to their end, and
    "gone" where the solution's process ended or hung up.
    """
    link = _Link(reader, writer, answer_bytes)

    def ring(_signal: int, _frame: FrameType | None) -> None:
        link.stop("timeout")

    start = perf_counter()
    signal.signal(signal.SIGALRM, ring)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    reason = ""
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
        reason = _outcome(job, link)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except _Stop:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return link.over or reason, perf_counter() - start


def _outcome(job: dict[str, Any], link: _Link) -> str:
    space: dict[str, Any] = {}
    try:
        link.ask("run", job["solution"])
        exec(compile(job["prelude"], "<prelude>", "exec"), space)
        space.update(link.named(job["names"], job["modules"]))
        exec(compile(job["tests"], "<tests>", "exec"), space)
    except _Stop:
        raise
    except AssertionError:
        return "assertion"
    except MemoryError:
        return "memory"
    except BaseException as error:
        return f"exception {type(error).__name__}: {error}"[:300]
    return "passed"
