"""The cache of what the database said."""

from __future__ import annotations

import asyncio

import pytest

from bonito.database.snapshots import Snapshots


class Source:
    """A database of one value."""

    def __init__(self) -> None:
        self.value: str | None = "first"
        self.loads = 0
        self.failure: Exception | None = None
        self.has_read = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, key: str) -> str | None:
        self.loads += 1
        value = self.value
        self.has_read.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return value


class Clock:
    """Time that passes when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def snapshots(source: Source, clock: Clock) -> Snapshots[str, str]:
    return Snapshots(source.load, max_age_s=10, absent_max_age_s=2, max_entries=2, clock=clock)


async def test_a_value_is_loaded_once_until_it_is_too_old(
    snapshots: Snapshots[str, str], source: Source, clock: Clock
) -> None:
    assert [await snapshots.get("a"), await snapshots.get("a")] == ["first", "first"]
    source.value = "second"
    clock.now += 9.9
    assert await snapshots.get("a") == "first"
    clock.now += 0.2

    assert await snapshots.get("a") == "second"
    assert source.loads == 2


async def test_the_age_counts_from_the_start_of_the_load(
    snapshots: Snapshots[str, str], source: Source, clock: Clock
) -> None:
    source.gate.clear()
    waiting = asyncio.create_task(snapshots.get("a"))
    await source.has_read.wait()
    clock.now += 9
    source.gate.set()
    await waiting
    clock.now += 2
    await snapshots.get("a")

    assert source.loads == 2


async def test_an_absent_value_is_remembered_for_a_shorter_time(
    snapshots: Snapshots[str, str], source: Source, clock: Clock
) -> None:
    source.value = None
    assert [await snapshots.get("a"), await snapshots.get("a")] == [None, None]
    assert source.loads == 1
    source.value = "there"
    clock.now += 2.1

    assert await snapshots.get("a") == "there"


async def test_all_who_wait_share_one_load(snapshots: Snapshots[str, str], source: Source) -> None:
    assert await asyncio.gather(*(snapshots.get("a") for _ in range(5))) == ["first"] * 5
    assert source.loads == 1


async def test_a_cancelled_caller_does_not_cancel_the_others(snapshots: Snapshots[str, str], source: Source) -> None:
    source.gate.clear()
    first, second = asyncio.create_task(snapshots.get("a")), asyncio.create_task(snapshots.get("a"))
    await source.has_read.wait()
    first.cancel()
    source.gate.set()

    assert await second == "first"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_failure_is_not_remembered_and_what_is_cached_goes_on(
    snapshots: Snapshots[str, str], source: Source
) -> None:
    await snapshots.get("a")
    source.failure = OSError("down")
    assert await snapshots.get("a") == "first"
    with pytest.raises(OSError, match="down"):
        await snapshots.get("b")
    source.failure = None

    assert await snapshots.get("b") == "first"


async def test_absent_values_push_no_present_ones_out(snapshots: Snapshots[str, str], source: Source) -> None:
    await snapshots.get("a")
    source.value = None
    for guess in range(10):
        await snapshots.get(f"guess-{guess}")
    loads = source.loads

    assert await snapshots.get("a") == "first"
    assert source.loads == loads


async def test_the_oldest_value_leaves_when_there_are_too_many(snapshots: Snapshots[str, str], source: Source) -> None:
    for key in ("a", "b", "c"):
        await snapshots.get(key)
    assert source.loads == 3
    await snapshots.get("b")
    assert source.loads == 3
    await snapshots.get("a")

    assert source.loads == 4


async def test_what_is_forgotten_during_a_load_is_not_kept(snapshots: Snapshots[str, str], source: Source) -> None:
    source.gate.clear()
    waiting = asyncio.create_task(snapshots.get("a"))
    await source.has_read.wait()
    source.value = "second"
    snapshots.forget("a")
    source.gate.set()
    assert await waiting == "first"

    assert await snapshots.get("a") == "second"
