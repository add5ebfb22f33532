"""Processes that share work: what they are told when the command is."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from xmodel2.search.workers import share_work


def waits_for_the_other(folder: Path) -> None:
    """Begin; when told to end, end only once the other process is told, too."""

    def told(number: int, frame: object) -> None:
        (folder / f"told-{os.getpid()}").touch()
        until = time.monotonic() + 60
        while len(list(folder.glob("told-*"))) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        if time.monotonic() >= until:
            (folder / "alone").touch()
        sys.exit(0)

    signal.signal(signal.SIGTERM, told)
    (folder / f"began-{os.getpid()}").touch()
    time.sleep(60)


def test_all_are_told_to_stop_before_any_is_waited_for(tmp_path: Path) -> None:
    def look() -> None:
        if len(list(tmp_path.glob("began-*"))) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share_work(waits_for_the_other, (tmp_path,), 2, tmp_path, look)
    assert len(list(tmp_path.glob("told-*"))) == 2
    assert not (tmp_path / "alone").exists()
