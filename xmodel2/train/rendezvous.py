"""A store of this attempt alone, for processes that `torchrun --max-restarts` starts again.

Its agent keeps one store over all attempts (PyTorch 2.11 to 2.13), in which addresses of processes that are gone still lie: one
that reads such an address before its successor has written its own never connects, and the restart fails. The agents' counts of
restarts differ between nodes, so the ranks agree on a name by keys that only a process that is there now can have answered.

This is for agents that begin an attempt together, as those of one node and of ``--rdzv-backend c10d`` do; those of a static
rendezvous over several nodes do not.
"""

import os
import time
from datetime import timedelta
from uuid import uuid4

import torch.distributed as dist

_POLL_SECONDS = 0.02
"""Between looks, in which a signal is seen: a wait within the store's own code would see none."""


def store_of_this_attempt(timeout: timedelta) -> dist.Store | None:
    """Return a store that no earlier attempt has written to, once all ranks are there; None if no agent keeps the store."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store, rank, size = next(dist.rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    return dist.PrefixStore(agree(dist.PrefixStore("attempt", store), rank, size), store)


def agree(store: dist.Store, rank: int, size: int) -> str:
    """Return a name that all ``size`` ranks of this attempt return, and none did before; waits for all."""
    me = uuid4().hex
    if rank:
        store.set(f"{rank} is", me)
        while not store.check([f"{me} joins"]):
            time.sleep(_POLL_SECONDS)
        name: str = store.get(f"{me} joins").decode()
        store.set(f"{rank} joined {name}", "")
        return name
    missing = set(range(1, size))
    while missing:
        for other in list(missing):
            if store.check([f"{other} joined {me}"]):
                missing.remove(other)
            elif store.check([f"{other} is"]):  # perhaps of an earlier attempt, which then nobody reads
                store.set(f"{store.get(f'{other} is').decode()} joins", me)
        time.sleep(_POLL_SECONDS)
    return me
