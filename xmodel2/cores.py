"""How many CPU cores there are to work with."""

import os
import sys


def usable_cores() -> int:
    """Return on how many cores this process may run: of the machine's, those that a container or `taskset` leaves it."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
