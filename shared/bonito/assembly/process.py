"""The one event loop of a function's process, and what its calls share: made at the first call, kept between calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

Shared = TypeVar("Shared")
Result = TypeVar("Result")


class Process(Generic[Shared]):
    """Runs steps on a loop in a thread of its own, so that any number of a host's threads may call at once.

    What the steps share (connections, sessions, a parser) belongs to that loop. It is made when the first step needs
    it; should that fail, the next step tries again. Nothing of it is closed: the host ends the process, and every part
    bears that at any moment.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Shared]]) -> None:
        """Make nothing yet; `make` is called on the loop, at the first step."""
        self._make = make
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shared: asyncio.Task[Shared] | None = None

    def run(self, step: Callable[[Shared], Awaitable[Result]]) -> Result:
        """Run a step and wait for it; what it raises is raised here."""
        return asyncio.run_coroutine_threadsafe(self._run(step), self._running_loop()).result()

    async def _run(self, step: Callable[[Shared], Awaitable[Result]]) -> Result:
        if self._shared is None or (self._shared.done() and self._shared.exception() is not None):
            self._context = self._make()
            self._shared = asyncio.create_task(self._context.__aenter__())
        return await step(await asyncio.shield(self._shared))

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="bonito", daemon=True).start()
            return self._loop
