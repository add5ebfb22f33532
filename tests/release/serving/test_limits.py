"""Keys, rates and places, asked as a client sees them and alone."""

import asyncio

import pytest

from xmodel2.release.serving.api_error import ApiError
from xmodel2.release.serving.limits import Keys, Places, RateLimit


def test_keys() -> None:
    keys = Keys(["one", "two"])
    assert keys.client("Bearer one") != keys.client("bearer two")
    for header in (None, "", "one", "Bearer", "Bearer on", "Basic one", "Bearer \udcff"):
        with pytest.raises(ApiError) as error:
            keys.client(header)
        assert error.value.status == 401
        assert error.value.headers["WWW-Authenticate"] == "Bearer"
    assert Keys([]).client(None) == ""


def test_a_bucket_fills_evenly() -> None:
    now = [0.0]
    limit = RateLimit(3, lambda: now[0])
    for _ in range(3):
        limit.take("a")
    with pytest.raises(ApiError) as error:
        limit.take("a")
    assert (error.value.status, error.value.headers["Retry-After"]) == (429, "20")
    limit.take("b")
    now[0] = 20
    limit.take("a")
    with pytest.raises(ApiError):
        limit.take("a")
    now[0] = 1e6
    for _ in range(3):
        limit.take("a")
    with pytest.raises(ApiError):
        limit.take("a")


def test_less_than_one_request_a_minute() -> None:
    now = [0.0]
    limit = RateLimit(0.5, lambda: now[0])
    limit.take("a")
    with pytest.raises(ApiError) as error:
        limit.take("a")
    assert error.value.headers["Retry-After"] == "120"


def test_places_are_given_in_turn_and_the_queue_has_an_end() -> None:
    async def run() -> list[int]:
        places, order = Places(1, 2), list[int]()
        hold = asyncio.Event()

        async def ask(number: int) -> None:
            async with places.one():
                order.append(number)
                await hold.wait()

        tasks = [asyncio.create_task(ask(number)) for number in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (places.taken, places.waiting) == (1, 2)
        with pytest.raises(ApiError) as error:
            await ask(9)
        assert (error.value.status, error.value.code) == (429, "queue_full")
        tasks[1].cancel()
        hold.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (places.taken, places.waiting) == (0, 0)
        return order

    assert asyncio.run(run()) == [0, 2]
