"""Where usage records go: the rows of gateway_requests, written behind a server's back or before a function ends."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from itertools import groupby, islice
from operator import attrgetter
from uuid import UUID

import psycopg

from bonito.database.pool import Pool, tenant
from bonito.errors import BonitoError
from bonito.metering import requests
from bonito.metering.usage import UsageRecord

BATCH = 500
GATHER_S = 0.2  # how long a record waits for others to share its transaction
RETRY_S = 1.0
MAX_WAITING = 20_000  # records, of about a kilobyte each
CLOSE_TIMEOUT_S = 10.0
LAST_RECORDS_S = 0.1

logger = logging.getLogger(__name__)


class PostgresUsageSink:
    """UsageSink of a server: records wait in memory for moments, and are written in batches.

    While the database is down, up to `max_waiting` records wait for it; further ones are lost, counted in `lost`, and
    the log says so. `aclose` writes what waits.
    """

    def __init__(
        self, pool: Pool, *, max_waiting: int = MAX_WAITING, gather_s: float = GATHER_S, retry_s: float = RETRY_S
    ) -> None:
        self.lost = 0
        self._pool, self._max_waiting, self._gather_s, self._retry_s = pool, max_waiting, gather_s, retry_s
        self._waiting: deque[UsageRecord] = deque()
        self._arrived = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def record(self, usage: UsageRecord) -> None:
        if len(self._waiting) >= self._max_waiting:
            self._lose(1)
            return
        self._waiting.append(usage)
        if not self._arrived.is_set():
            self._arrived.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write_forever())

    async def flush(self) -> None:
        """Write all that waits; whatever the database raises."""
        async with self._writing:
            while self._waiting:
                batch = list(islice(self._waiting, BATCH))
                self.lost += await write(self._pool, batch)
                for _ in batch:
                    self._waiting.popleft()

    async def aclose(self) -> None:
        """Write what waits, within a few seconds, and stop.

        A server that stops cancels the requests that are still running, and does not wait for their ends: their records
        are on the way.
        """
        await asyncio.sleep(LAST_RECORDS_S)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.flush()
        except (TimeoutError, psycopg.Error, BonitoError):
            self._lose(len(self._waiting))
            self._waiting.clear()

    async def _write_forever(self) -> None:
        while True:
            await self._arrived.wait()
            await asyncio.sleep(self._gather_s)
            self._arrived.clear()
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001 - this task must live as long as its process
                logger.warning("Usage records wait for the database: %s", type(error).__name__)
                self._arrived.set()
                await asyncio.sleep(self._retry_s)

    def _lose(self, count: int) -> None:
        if count:
            self.lost += count
            logger.error("Usage records were lost, %d since the start: the database took none for too long", self.lost)


class ImmediateUsageSink:
    """UsageSink of a function: the record is written when `record` returns."""

    def __init__(self, pool: Pool) -> None:
        self.lost = 0
        self._pool = pool

    async def record(self, usage: UsageRecord) -> None:
        # The caller may be cancelled meanwhile: what was begun is written to the end.
        await asyncio.shield(self._write(usage))

    async def _write(self, usage: UsageRecord) -> None:
        try:
            self.lost += await write(self._pool, [usage])
        except (psycopg.Error, BonitoError) as error:
            self.lost += 1
            logger.error("A usage record was lost: %s", type(error).__name__)


async def write(pool: Pool, records: Sequence[UsageRecord]) -> int:
    """Insert records of any organizations, a transaction per organization; again is harmless.

    Returns:
        How many Postgres refused for what is in them, which would be an error here; the log has their request ids.

    Raises:
        psycopg.Error, Overloaded: the database did not take them; nothing is lost yet.
    """
    refused = 0
    for org_id, own in groupby(sorted(records, key=attrgetter("org_id")), key=attrgetter("org_id")):
        refused += await _write_own(pool, org_id, list(own))
    return refused


async def _write_own(pool: Pool, org_id: UUID, records: Sequence[UsageRecord]) -> int:
    try:
        async with tenant(pool, org_id) as connection:
            await requests.insert(connection, org_id=org_id, records=records)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        if len(records) > 1:  # one bad record must not take the others with it
            return sum([await _write_own(pool, org_id, [record]) for record in records])
        logger.error("Usage of request %s was refused: %s", records[0].request_id, type(error).__name__)
        return 1
    return 0
