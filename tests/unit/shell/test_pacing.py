"""Loops begin at once while there are few, and at a bounded pace when there are many; virtual time."""

from __future__ import annotations

import asyncio

from ratchet.fakes.clock import run
from ratchet.shell.pacing import AT_ONCE, BURST, PER_SECOND, Pacer


async def begin(pacer: Pacer, moments: list[float], takes_s: float = 0.0) -> None:
    async with pacer.turn():
        moments.append(asyncio.get_running_loop().time())
        await asyncio.sleep(takes_s)


def densest(moments: list[float], window_s: float = 1.0) -> int:
    return max(sum(t <= later < t + window_s for later in moments) for t in moments)


def test_a_few_begin_at_once() -> None:
    moments: list[float] = []

    async def story() -> None:
        pacer = Pacer()
        await asyncio.gather(*(begin(pacer, moments) for _ in range(BURST)))

    run(story())
    assert moments == [0.0] * BURST


def test_two_hundred_begin_within_seven_seconds_and_no_second_sees_more_than_its_share() -> None:
    moments: list[float] = []

    async def story() -> None:
        pacer = Pacer()
        await asyncio.gather(*(begin(pacer, moments) for _ in range(200)))

    run(story())
    assert len(moments) == 200
    assert max(moments) < 7.0
    assert densest(moments) <= BURST + PER_SECOND


def test_a_process_that_stood_still_does_not_make_up_for_it() -> None:
    moments: list[float] = []

    async def story() -> None:
        pacer = Pacer()
        waiting = asyncio.gather(*(begin(pacer, moments) for _ in range(100)))
        await asyncio.sleep(0.5)
        stood_still(10.0)
        await waiting

    run(story())
    assert densest(moments) <= BURST + PER_SECOND


def stood_still(seconds: float) -> None:
    """Move the loop's clock without letting anything run."""
    loop = asyncio.get_running_loop()
    loop._jump.skipped += seconds  # type: ignore[attr-defined]


def test_slow_ones_are_bounded_in_number() -> None:
    moments: list[float] = []

    async def story() -> None:
        pacer = Pacer()
        waiting = asyncio.gather(*(begin(pacer, moments, takes_s=60) for _ in range(2 * AT_ONCE)))
        await asyncio.sleep(30)
        assert len(moments) == AT_ONCE
        await waiting

    run(story())
    assert len(moments) == 2 * AT_ONCE


def test_one_that_gives_up_waiting_holds_up_nobody() -> None:
    moments: list[float] = []

    async def story() -> None:
        pacer = Pacer()
        waiting = [asyncio.create_task(begin(pacer, moments)) for _ in range(3 * BURST)]
        await asyncio.sleep(0)
        for task in waiting[BURST : 2 * BURST]:
            task.cancel()
        await asyncio.wait(waiting)

    run(story())
    assert len(moments) == 2 * BURST


def test_a_failure_gives_the_place_back() -> None:
    async def fails(pacer: Pacer) -> None:
        async with pacer.turn():
            raise ValueError

    async def story() -> None:
        pacer = Pacer()
        many = (fails(pacer) for _ in range(2 * AT_ONCE))
        ended = await asyncio.gather(*many, return_exceptions=True)
        assert all(isinstance(end, ValueError) for end in ended)

    run(story())
