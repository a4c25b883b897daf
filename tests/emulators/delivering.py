"""What Cloud Tasks, Eventarc and Pub/Sub have in common: a message is posted until the answer is 2xx."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp

Headers = Callable[[int], Mapping[str, str]]


@dataclass
class Deliveries:
    """Messages on their way.

    Attributes:
        pause_s: before the second try; twice as long before each further one, and never above a second.
        attempts: until a message is dropped.
        at_once: messages in work.
        duplicate: the share of messages that are delivered twice, at least once being all that is promised.
        answers: of every delivery that was answered: address, attempt, status.
        dropped: bodies of messages that had their tries.
    """

    pause_s: float = 0.02
    attempts: int = 100
    at_once: int = 6
    duplicate: float = 0.0
    answers: list[tuple[str, int, int]] = field(default_factory=list)
    dropped: list[bytes] = field(default_factory=list)
    _open: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _random: random.Random = field(default_factory=lambda: random.Random(0), init=False)

    def __post_init__(self) -> None:
        self._room = asyncio.Semaphore(self.at_once)

    def send(self, url: str, body: bytes, headers: Headers) -> None:
        """Deliver, from the running loop."""
        for _ in range(1 + (self._random.random() < self.duplicate)):
            task = asyncio.get_running_loop().create_task(self._deliver(url, body, headers))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way."""
        return bool(self._open)

    async def idle(self) -> None:
        """Return when nothing is on its way, nor what came of it."""
        while self._open:
            await asyncio.wait(set(self._open))

    async def aclose(self) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _deliver(self, url: str, body: bytes, headers: Headers) -> None:
        for attempt in range(1, self.attempts + 1):
            if await self._post(url, body, headers(attempt), attempt):
                return
            await asyncio.sleep(min(1.0, self.pause_s * 2.0 ** (attempt - 1)))
        self.dropped.append(body)

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str], attempt: int) -> bool:
        timeout = aiohttp.ClientTimeout(total=120)
        async with self._room:
            try:
                async with (
                    aiohttp.ClientSession(timeout=timeout) as http,
                    http.post(url, data=body, headers=headers) as response,
                ):
                    await response.read()
            except aiohttp.ClientError:
                return False
        self.answers.append((url, attempt, response.status))
        return 200 <= response.status < 300
