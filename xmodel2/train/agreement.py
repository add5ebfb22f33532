"""What the ranks of a run settle together: every rank gets the same answer, or the same error.

In one process each of these is a plain call.
"""

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from xmodel2.errors import XmodelError

T = TypeVar("T")


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def together(work: Callable[[], T], group: dist.ProcessGroup | None = None) -> list[T]:
    """Call ``work`` on every rank and return what each returned, by rank; a collective.

    Raises `XmodelError` on every rank if it failed on any: none goes on, or waits, alone.
    """
    if world_size() == 1:
        return [work()]
    value, failure = None, None
    try:
        value = work()
    except Exception as error:
        failure = error
    told = failure if isinstance(failure, OSError) else repr(failure)  # which leaves out the file
    said = str(failure) if isinstance(failure, XmodelError) else f"rank {rank()}: {told}"
    outcomes: list[tuple[T, str | None]] = [None] * world_size()  # type: ignore[list-item]
    dist.all_gather_object(outcomes, (value, said if failure else None), group)
    problems = dict.fromkeys(problem for _, problem in outcomes if problem)
    if problems:
        raise XmodelError("; ".join(problems)) from failure
    return [value for value, _ in outcomes]


def on_each_rank(work: Callable[[], T]) -> T:
    """Call ``work`` on every rank and return this rank's own value, which goes nowhere else; errors as in `together`."""
    own: list[T] = []
    together(lambda: own.append(work()))
    return own[0]


def on_rank_0(work: Callable[[], T]) -> T:
    """Call ``work`` on rank 0 alone and return its value, or raise its error, on every rank; a collective."""
    return together(lambda: work() if rank() == 0 else None)[0]  # type: ignore[return-value]
