"""Steps of many threads share one loop and what was made on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from bonito.assembly.process import Process


class Making:
    def __init__(self, failures: int = 0) -> None:
        self.made, self._failures = 0, failures

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[int]:
        self.made += 1
        await asyncio.sleep(0)
        if self.made <= self._failures:
            raise ConnectionError("no database yet")
        yield self.made


def test_all_threads_share_one_loop_and_what_was_made_once() -> None:
    making = Making()
    process = Process(making)

    async def step(shared: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return shared, id(asyncio.get_running_loop())

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: process.run(step), range(32)))

    assert making.made == 1
    assert len(set(found)) == 1


def test_what_a_step_raises_is_raised_to_its_caller_and_harms_nobody_else() -> None:
    process = Process(Making())

    async def broken(shared: int) -> None:
        raise ValueError("this step alone")

    async def whole(shared: int) -> int:
        return shared

    with pytest.raises(ValueError, match="this step alone"):
        process.run(broken)
    assert process.run(whole) == 1


def test_a_start_that_failed_is_tried_again_by_the_next_step() -> None:
    making = Making(failures=1)
    process = Process(making)

    async def step(shared: int) -> int:
        return shared

    with pytest.raises(ConnectionError):
        process.run(step)
    assert process.run(step) == 2
