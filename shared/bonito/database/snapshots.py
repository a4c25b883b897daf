"""What the database said a moment ago: bounded in age and number, loaded once for all who wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_AGE_S = 10.0
ABSENT_MAX_AGE_S = 2.0
MAX_ENTRIES = 10_000


class Snapshots(Generic[K, V]):
    """A cache for values that may be a few seconds old, never more.

    Absent values (None) are remembered too, for a shorter time and in a space of their own, so that guesses push
    nothing out. A failed load is not remembered: while the database is down, what is cached lives on to its age, and
    the rest fails.
    """

    def __init__(
        self,
        load: Callable[[K], Awaitable[V | None]],
        *,
        max_age_s: float = MAX_AGE_S,
        absent_max_age_s: float = ABSENT_MAX_AGE_S,
        max_entries: int = MAX_ENTRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Cache what `load` answers.

        Args:
            load: reads one value; None where there is none.
            max_age_s: from the start of the load on.
            absent_max_age_s: the same for None.
            max_entries: of values, and again of absent ones; the oldest leave first.
            clock: seconds, never going back.
        """
        self._load, self._clock, self._max_entries = load, clock, max_entries
        self._max_age_s, self._absent_max_age_s = max_age_s, absent_max_age_s
        self._present: dict[K, tuple[V, float]] = {}
        self._absent: dict[K, float] = {}
        self._loading: dict[K, asyncio.Task[V | None]] = {}

    async def get(self, key: K) -> V | None:
        """The value from memory, or loaded; whatever `load` raises."""
        found = self._present.get(key)
        if found is not None and self._clock() < found[1]:
            return found[0]
        if self._clock() < self._absent.get(key, 0.0):
            return None
        task = self._loading.get(key)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = asyncio.get_running_loop().create_task(self._loaded(key))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        # Whoever waits may be cancelled; the load goes on for the others.
        return await asyncio.shield(task)

    def forget(self, key: K) -> None:
        """Load the next time, even if a load is on its way: it may have read what was before."""
        self._present.pop(key, None)
        self._absent.pop(key, None)
        self._loading.pop(key, None)

    async def _loaded(self, key: K) -> V | None:
        started = self._clock()
        value = await self._load(key)
        if self._loading.get(key) is asyncio.current_task():
            self._keep(key, value, started)
        return value

    def _keep(self, key: K, value: V | None, started: float) -> None:
        self._present.pop(key, None)
        self._absent.pop(key, None)
        if value is None:
            self._absent[key] = started + self._absent_max_age_s
            _drop_oldest(self._absent, self._max_entries)
        else:
            self._present[key] = (value, started + self._max_age_s)
            _drop_oldest(self._present, self._max_entries)

    def _ended(self, key: K, task: asyncio.Task[V | None]) -> None:
        if self._loading.get(key) is task:
            del self._loading[key]
        if not task.cancelled():
            task.exception()  # retrieved here in case that everybody who waited is gone


def _drop_oldest(entries: dict[K, V], max_entries: int) -> None:
    while len(entries) > max_entries:
        del entries[next(iter(entries))]
