"""The command in a pseudo-terminal, with the real keys: Ctrl-C in the middle of an answer."""

import importlib.util
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("prompt_toolkit")
ENGINES = ["torch"]
if importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("gguf"):
    ENGINES.append("llama")
_LONGEST_S = 120.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _at_the_terminal() -> None:
    os.close(os.open(os.ttyname(0), os.O_RDWR))  # the terminal whose Ctrl-C it gets
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it


_TAKE_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))  # from now on it gets the terminal's Ctrl-C
os.execv(sys.executable, [sys.executable, "-m", "xmodel2.cli", *sys.argv[1:]])
"""


class Terminal:
    """A command in a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_at_the_terminal,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        os.close(slave)
        self._shown = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, pattern: str) -> str:
        """Return what is shown next, up to a pattern."""
        deadline = time.monotonic() + _LONGEST_S
        while not (found := re.search(pattern, self._shown)):
            assert time.monotonic() < deadline, self._shown
            assert self.process.poll() is None, self._shown
            if select.select([self._master], [], [], 0.1)[0]:
                self._shown = _ESCAPES.sub("", self._shown + os.read(self._master, 65536).decode(errors="replace"))
        before, self._shown = self._shown[: found.end()], self._shown[found.end() :]
        return before


def test_sigterm_ends_it(tiny: Path) -> None:
    terminal = Terminal("chat", str(tiny), "--engine", ENGINES[0])
    try:
        terminal.until("you>")
        terminal.process.terminate()
        assert terminal.process.wait(_LONGEST_S) == 130
    finally:
        terminal.process.kill()
        terminal.process.wait()


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_in_the_middle_of_an_answer(tiny: Path, engine: str) -> None:
    settings = ("--temperature", "1", "--max-new-tokens", "400", "--threads", "1")
    terminal = Terminal("chat", str(tiny), "--engine", engine, *settings)
    try:
        assert engine in terminal.until("you>")
        for _ in range(9):  # an answer may end before the key comes
            terminal.type("Count to a thousand\r")
            terminal.until("Count to a thousand\r\r\n.+")
            terminal.type("\x03")
            stopped = "stopped" in terminal.until("[0-9] token.*|at once")
            terminal.until("you>")
            if stopped:
                break
        assert stopped
        terminal.type("\x03")
        terminal.until("Ctrl-D or /quit leaves")
        terminal.type("/set max_new_tokens=2\r")
        terminal.until("max_new_tokens=2 ")
        terminal.type("Again\r")
        terminal.until("[0-9] token|at once")
        terminal.until("you>")
        terminal.type("\x1b[A and again\r")  # the arrow brings the last question back
        terminal.until("Again and again")
        terminal.until("[0-9] token|at once")
        terminal.until("you>")
        terminal.type("\x04")
        assert terminal.process.wait(_LONGEST_S) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
