"""When failed work is tried again, and how long what is in work stays in one worker's hands."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from bonito.errors import BonitoError, DocumentError

logger = logging.getLogger(__name__)

# Failed tries of one document's content, or of one batch's model call, before a person has to look. With the pauses
# below that is some ten minutes after the first.
MAX_ATTEMPTS = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 4.0, 300.0
# Documents and batches are given up by their own counts; this ends messages that fail before they come to that. What
# only has to wait is sent anew, and is no delivery.
MAX_DELIVERIES = 60
# A model that answers "not now" counts as failed only when it has answered nothing else for longer than a day's quota.
LONGEST_REFUSAL = timedelta(hours=25)


@dataclass(frozen=True)
class Leases:
    """How long rows stay in work before the sweeper takes it that their worker was lost.

    Attributes:
        work: a document that is fetched and parsed; renewed while that lasts.
        batch: a batch in a model call; renewed while that lasts.
        renewal: between two renewals; a small part of the two above.
        waiting: a document whose chunks wait for their vectors, or that is to be tried again; longer than queues are.
        sync: a sync whose documents are in work, until it is looked at whether they are done.
    """

    work: timedelta = timedelta(seconds=60)
    batch: timedelta = timedelta(seconds=10)
    renewal: timedelta = timedelta(seconds=3)
    waiting: timedelta = timedelta(hours=2)
    sync: timedelta = timedelta(minutes=10)


def is_retryable(error: BaseException) -> bool:
    """Whether the same work may succeed later: everything but what Bonito itself calls final."""
    return error.retryable if isinstance(error, BonitoError) else True


def retry_pause(error: BaseException, *, attempts: int, jitter: float) -> timedelta:
    """How long to wait before the next try.

    Args:
        error: what ended the last one; its `retry_after_s` is honoured.
        attempts: how many failed, >= 1.
        jitter: in [0, 1); spreads those who wait for the same thing.
    """
    asked_s = error.retry_after_s if isinstance(error, BonitoError) else None
    if asked_s is not None:
        return timedelta(seconds=asked_s * (1 + jitter / 4) + jitter)
    pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (min(attempts, MAX_ATTEMPTS) - 1))
    return timedelta(seconds=pause_s * (0.5 + jitter / 2))


def next_pause(error: BaseException, deliveries: int) -> timedelta | None:
    """How long a queue keeps back a message that failed; None ends it where poison is kept.

    Args:
        error: what ended the last try.
        deliveries: how many there were, >= 1.
    """
    if not is_retryable(error) or deliveries >= MAX_DELIVERIES:
        return None
    return retry_pause(error, attempts=deliveries, jitter=random.random())  # noqa: S311 - only spreads


def refusal_pause(asked_s: float | None, *, refused_for: timedelta) -> timedelta:
    """How long to leave a model alone that took no call.

    Args:
        asked_s: how long it wants to be left alone; None or 0: it did not say, and the pauses grow.
        refused_for: for how long it has been taking none.
    """
    if asked_s:
        return timedelta(seconds=asked_s)
    return timedelta(seconds=min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, refused_for.total_seconds())))


def explain(error: BaseException) -> str:
    """A sentence for a person, without anything internal."""
    if isinstance(error, BonitoError):
        return error.message
    if isinstance(error, psycopg.Error):
        return "The database did not do its part."
    return f"Something unforeseen happened inside Bonito ({type(error).__name__})."


def is_unforeseen(error: BaseException) -> bool:
    """Whether it is neither a failure that Bonito raises on purpose nor one of the database."""
    return not isinstance(error, BonitoError | psycopg.OperationalError)


def gave_up(attempts: int, trouble: str | None) -> DocumentError:
    """The final error of a document that was tried often enough."""
    reason = trouble or "the worker ended every time, perhaps for lack of memory."
    return DocumentError(f"Gave up after {attempts} tries: {reason}")


@asynccontextmanager
async def kept(renew: Callable[[], Awaitable[bool]], every: timedelta) -> AsyncIterator[None]:
    """Renew a lease while the body runs; a renewal that fails is tried again, one that finds it lost is the last."""
    task = asyncio.create_task(_keep(renew, every.total_seconds()))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _keep(renew: Callable[[], Awaitable[bool]], every_s: float) -> None:
    is_held = True
    while is_held:
        await asyncio.sleep(every_s)
        try:
            is_held = await renew()
        except (psycopg.Error, BonitoError) as error:
            logger.warning("A lease could not be renewed and will be tried again: %s", type(error).__name__)
