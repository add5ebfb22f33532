"""A hang ends the process and names the rank, in real processes; what is not a hang does not."""

import ctypes
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from xmodel2.train.watchdog import Heartbeat, Watchdog, hang_report

BEAT = Heartbeat(step=5, count=2, phase="all-reduce", seconds=60.0, tick=70, host="node", pid=12)


def run(target: Callable[..., None], *arguments: Any) -> list[int | None]:
    """Run a function in one process for each rank and return their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xmodel2.train.watchdog"])
    processes = [context.Process(target=target, args=(rank, *arguments)) for rank in range(arguments[1])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def into_file(rank: int, folder: Path) -> None:
    """Let what a process says on stderr go to a file."""
    os.dup2(os.open(folder / f"{rank}.err", os.O_CREAT | os.O_WRONLY), 2)


def sleeper(rank: int, folder: Path, ranks: int) -> None:
    """Two ranks that wait for each other in every step; rank 1 gets no data for step 2."""
    into_file(rank, folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=ranks)
    store = dist.TCPStore("localhost", int((folder / "port").read_text()), is_master=False)
    with Watchdog(rank, ranks, store, hang_seconds=0.6, every=0.05) as dog:
        for step in (1, 2):
            dog.beat(step, "waiting for data")
            if (step, rank) == (2, 1):
                time.sleep(60)
            dog.beat(step, "all-reduce")
            dist.barrier()


def test_of_two_ranks_the_one_that_hangs_is_named_with_its_stack(tmp_path: Path) -> None:
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    (tmp_path / "port").write_text(str(store.port))
    assert run(sleeper, tmp_path, 2) == [1, 1]
    said = [(tmp_path / f"{rank}.err").read_text() for rank in range(2)]
    for rank in range(2):
        assert f"[rank {rank}] no progress for 0.6 s (guard.hang_seconds)" in said[rank]
        assert "Rank 1 is behind the others, which wait." in said[rank]
        assert "rank 1: step 2, waiting for data, for " in said[rank]
        assert "rank 0: step 2, all-reduce, for " in said[rank]
    assert "in sleeper" in said[1]
    assert "in barrier" in said[0]


def alone(rank: int, folder: Path, ranks: int) -> None:
    into_file(rank, folder)
    with Watchdog(rank, ranks, None, hang_seconds=0.3, every=0.02) as dog:
        for number in range(8):
            dog.beat(7, "forward") if number < 4 else dog.alive()  # slow, but alive
            time.sleep(0.1)
        dog.beat(7, "saving")
        time.sleep(60)


def follower(_: int, folder: Path, ranks: int) -> None:
    """Rank 1 of two, which waits for rank 0: heard of for longer than a hang, then no more."""
    into_file(1, folder)
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    with Watchdog(1, 2, store, hang_seconds=0.3, every=0.02) as dog, dog.following_rank_0(7, "waiting for rank 0"):
        for tick in range(20):
            dist.PrefixStore("watchdog", store).set("0", json.dumps(asdict(replace(BEAT, tick=tick))))
            time.sleep(0.05)
        (folder / "alive").touch()
        time.sleep(60)


def test_who_waits_for_rank_0_goes_by_what_is_heard_of_it(tmp_path: Path) -> None:
    assert run(follower, tmp_path, 1) == [1]
    assert (tmp_path / "alive").exists()
    said = (tmp_path / "1.err").read_text()
    assert "Rank 0 is not heard of" in said
    assert "rank 1: step 7, waiting for rank 0, for " in said


def test_a_process_alone_says_in_what_it_hangs(tmp_path: Path) -> None:
    assert run(alone, tmp_path, 1) == [1]
    said = (tmp_path / "0.err").read_text()
    assert "rank 0: step 7, saving, for 0 s" in said
    assert "in alone" in said


def locked(rank: int, folder: Path, ranks: int) -> None:
    """Sleep in C, keeping the interpreter's lock."""
    into_file(rank, folder)
    with Watchdog(rank, ranks, None, hang_seconds=0.3, every=0.02) as dog:
        dog.beat(7, "forward")
        time.sleep(0.1)
        ctypes.PyDLL(None).usleep(900_000)
        dog.beat(8, "forward")


def test_a_hang_that_keeps_the_lock_shows_its_stack(tmp_path: Path) -> None:
    assert run(locked, tmp_path, 1) == [0]
    said = (tmp_path / "0.err").read_text()
    assert "Timeout" in said
    assert "in locked" in said
    assert "no progress" not in said


def test_a_rank_that_is_not_heard_of_is_named_first() -> None:
    others = {rank: replace(BEAT, pid=rank) for rank in range(20)}
    later = {rank: replace(beat, tick=beat.tick + 3) for rank, beat in others.items()}
    report = hang_report(60, 20, others, {**later, 17: others[17]})
    assert "Rank 17 is not heard of" in report
    assert report.index("rank 17: ") < report.index("rank 0: ")
    assert "and 4 more ranks" in report
    del later[3], later[4]
    assert "Ranks 3, 4 are not heard of" in hang_report(60, 20, others, later)


def test_ranks_that_are_equally_far_are_said_to_be() -> None:
    later = {rank: replace(BEAT, tick=73) for rank in range(2)}
    assert "All ranks are equally far" in hang_report(60, 2, {0: BEAT, 1: BEAT}, later)
    later[0] = replace(later[0], step=6, count=0)
    assert "Rank 1 is behind" in hang_report(60, 2, {0: BEAT, 1: BEAT}, later)


@pytest.mark.parametrize("seconds", [0, 60])
def test_a_beat_costs_little_and_leaving_stops_the_thread(seconds: int) -> None:
    with Watchdog(0, 1, None, seconds, every=0.01) as dog:
        started = time.perf_counter()
        for step in range(1000):
            dog.beat(step, "forward")
        assert time.perf_counter() - started < 0.1
        time.sleep(0.03)
    assert not dog._thread.is_alive()
