"""The watchdog: ends a run that hangs, and says which rank hangs in what.

    loop: beat(step, phase) --memory--> a thread a rank: publishes the beat every second in the store of the process group
    no beat for hang_seconds --> reads all ranks' beats, names those behind, prints this rank's stacks, exits with code 1

Ranks make the same beats in the same order, so whoever has made fewer is waited for by the others. torchrun takes the other
ranks down when one exits. A hang in C code that keeps the interpreter's lock stops the thread too: then Python's own timer,
which needs no lock, prints the stacks, and the other ranks miss this one's beats. While rank 0 works alone it is watched by
its own thread, and that thread by the other ranks.
"""

import faulthandler
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from types import TracebackType

import torch.distributed as dist

_STDERR = 2
"""The file descriptor itself: sys.stderr may be a progress bar's."""
_LATE_REPORT, _LATE_EXIT = 4, 9
"""Seconds after hang_seconds at which a rank reports, by when all have noticed, and exits, by when all have reported."""
_MOST_RANKS = 16
"""Ranks listed in a report."""


@dataclass(frozen=True)
class Heartbeat:
    """What a rank last said: its ``count``-th beat of ``step`` came ``seconds`` before the ``tick``-th second of its thread."""

    step: int
    count: int
    phase: str
    seconds: float
    tick: int
    host: str
    pid: int

    def __str__(self) -> str:
        return f"step {self.step}, {self.phase}, for {self.seconds:.0f} s (host {self.host}, pid {self.pid})"


class Watchdog:
    """Watches from entry to exit; ``store`` is the process group's, None for a single process; 0 seconds watch nothing."""

    def __init__(
        self, rank: int, world_size: int, store: dist.Store | None, hang_seconds: float, every: float = 1.0
    ) -> None:
        self._rank, self._ranks, self._hang_seconds, self._every = rank, world_size, hang_seconds, every
        # A connection of its own: the main one is locked while somebody waits in it.
        self._store: dist.Store | None = None
        if store is not None and hang_seconds:
            self._store = dist.PrefixStore("watchdog", store.clone())  # type: ignore[attr-defined]
            self._store.set_timeout(timedelta(seconds=30))
        self._beat = (0, 0, "starting")
        self._follows, self._heard = False, b""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._hang_seconds:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._hang_seconds:
            self._thread.join(timeout=5)  # a store that hangs must not keep the process
            faulthandler.cancel_dump_traceback_later()

    def beat(self, step: int, phase: str) -> None:
        """Say that ``phase`` ("forward", "saving", ...) of ``step`` begins; costs less than a microsecond."""
        last, count, _ = self._beat
        self._beat = (step, count + 1 if step == last else 0, phase)

    def alive(self) -> None:
        """Say that the phase goes on; unlike a beat, other ranks need not say so too."""
        step, count, phase = self._beat
        self._beat = (step, count, phase)

    @contextmanager
    def following_rank_0(self, step: int, phase: str) -> Iterator[None]:
        """Within it other ranks wait for rank 0, however long, as long as that one's watchdog is heard of."""
        if self._rank:  # one beat ahead, so that rank 0 is the one that is behind
            self.beat(step, phase)
        self._follows = self._rank > 0
        try:
            yield
        finally:
            self._follows = False

    def _watch(self) -> None:
        host, pid = socket.gethostname(), os.getpid()
        seen, waited, tick, late, before = self._beat, 0.0, 0, 0, time.monotonic()
        first: dict[int, Heartbeat] = {}
        while not self._done.wait(self._every):
            now = time.monotonic()
            # Not the clock's time: a process that was suspended (Ctrl-Z, a batch system) did not hang.
            waits = self._beat is seen and not (self._follows and self._rank_0_was_heard())
            waited = waited + min(now - before, 2 * self._every) if waits else 0.0
            late = late + 1 if waited >= self._hang_seconds else 0
            seen, tick, before = self._beat, tick + 1, now
            own = Heartbeat(*seen, waited, tick, host, pid)
            self._publish(own)
            faulthandler.dump_traceback_later(self._hang_seconds, file=_STDERR)
            if late == 1:
                first = self._beats(own)
            elif late == _LATE_REPORT:
                report = hang_report(self._hang_seconds, self._ranks, first, self._beats(own))
                with suppress(OSError):  # nobody may be left to read it; the process ends all the same
                    os.write(_STDERR, f"[rank {self._rank}] {report}\n".encode())
                    faulthandler.dump_traceback(file=_STDERR)
            elif late == _LATE_EXIT:
                os._exit(1)

    def _publish(self, own: Heartbeat) -> None:
        if self._store is not None:
            with suppress(RuntimeError):  # a store that is gone shows when beats are read
                self._store.set(str(self._rank), json.dumps(asdict(own)))

    def _rank_0_was_heard(self) -> bool:
        """Tell whether rank 0's thread has published anything since this was asked last."""
        before = self._heard
        if self._store is not None:
            with suppress(RuntimeError):
                self._heard = self._store.get("0")
        return self._heard != before

    def _beats(self, own: Heartbeat) -> dict[int, Heartbeat]:
        """Return the latest beat of each rank that can be heard of."""
        beats = {self._rank: own}
        if self._store is not None:
            with suppress(RuntimeError):
                for rank in range(self._ranks):
                    if rank != self._rank and self._store.check([str(rank)]):
                        beats[rank] = Heartbeat(**json.loads(self._store.get(str(rank))))
        return beats


def hang_report(
    hang_seconds: float, ranks: int, before: Mapping[int, Heartbeat], after: Mapping[int, Heartbeat]
) -> str:
    """Return who hangs, from the beats of all ranks read twice, a few seconds apart."""
    found = f"no progress for {hang_seconds:g} s (guard.hang_seconds), so the run is stopped. "
    silent = [rank for rank in range(ranks) if rank not in after or before.get(rank) == after[rank]]
    least = min((beat.step, beat.count) for beat in after.values())
    behind = [rank for rank, beat in after.items() if (beat.step, beat.count) == least]
    if silent:
        found += f"{_ranks(silent)} not heard of: the process is gone, cut off, or hangs holding Python's lock."
    elif ranks == 1:
        found += "The stacks below show where."
    elif len(behind) < ranks:
        found += f"{_ranks(behind)} behind the others, which wait."
    else:
        found += "All ranks are equally far: look at the network, or at what they all read or write."
    named = sorted(after, key=lambda rank: (rank not in silent, after[rank].step, after[rank].count, rank))
    lines = [found, *(f"  rank {rank}: {after[rank]}" for rank in named[:_MOST_RANKS])]
    if len(named) > _MOST_RANKS:
        lines.append(f"  and {len(named) - _MOST_RANKS} more ranks")
    return "\n".join([*lines, "Go on with --resume; raise guard.hang_seconds if this was no hang."])


def _ranks(ranks: Sequence[int]) -> str:
    names = ", ".join(map(str, sorted(ranks)))
    return f"Rank {names} is" if len(ranks) == 1 else f"Ranks {names} are"
