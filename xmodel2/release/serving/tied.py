"""Run a command as a child that ends when our standard input does, which the kernel sees to however our parent ends.

python -m xmodel2.release.serving.tied COMMAND ARGUMENT...
"""

import os
import signal
import subprocess
import sys
import threading


def _end(*_: object) -> None:
    os.killpg(0, signal.SIGKILL)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    _end()


def main() -> int:
    """Run the command and return its exit code. We lead a process group, which ends whole."""
    signal.signal(signal.SIGTERM, _end)
    try:
        child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}")
        return 127
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
