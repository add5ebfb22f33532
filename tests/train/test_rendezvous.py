"""Ranks that are started again agree on a store that no earlier attempt wrote to."""

import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from xmodel2.train.rendezvous import agree, store_of_this_attempt


def test_no_attempt_sees_another_whatever_it_left() -> None:
    store = dist.HashStore()
    store.set("2 is", "a process that died before anyone answered it")
    names = []
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        found: dict[int, str] = {}

        def join(rank: int, found: dict[int, str] = found) -> None:
            found[rank] = agree(store, rank, 3)

        threads = [threading.Thread(target=join, args=(rank,), daemon=True) for rank in order]
        for thread in threads:
            thread.start()
            thread.join(0.05)  # so that they come one after another
        for thread in threads:
            thread.join(20)
        assert sorted(found) == [0, 1, 2]
        assert len(set(found.values())) == 1
        names.append(found[0])
    assert len(set(names)) == 3


def test_without_an_agent_there_is_nothing_to_agree_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert store_of_this_attempt(timedelta(seconds=1)) is None
