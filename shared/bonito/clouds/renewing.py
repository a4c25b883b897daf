"""A session that is obtained once for all who wait, and again shortly before it expires."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from bonito.clouds.access import BearerToken
from bonito.errors import AccessDenied, UpstreamError

logger = logging.getLogger(__name__)

# Before the end, so that whoever gets a session has it for some minutes: for an object, for a page of a listing.
MARGIN = timedelta(minutes=5)
# What never expires by itself is looked up anew: whoever replaced it should not have to restart anything.
UNBOUNDED = timedelta(minutes=5)
# A thousand documents that wait for one refused account ask it once in so long.
REFUSED_FOR = timedelta(seconds=10)


class Expiring(Protocol):
    """Credentials or a token."""

    @property
    def expires_at(self) -> datetime | None:
        """When it stops to work; None: not by itself."""
        ...


Session = TypeVar("Session", bound=Expiring)


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


class Renewing(Generic[Session]):
    """Holds one session of one organization through one connection."""

    def __init__(self, obtain: Callable[[], Awaitable[Session]], *, clock: Callable[[], datetime] = utc_now) -> None:
        """Obtain nothing yet."""
        self._obtain, self._clock = obtain, clock
        self._session: Session | None = None
        self._renew_at = self._refused_until = datetime.min.replace(tzinfo=UTC)
        self._refusal = ""
        self._obtaining: asyncio.Task[Session] | None = None

    async def get(self) -> Session:
        """The session, valid for some minutes at least where the cloud gives it so long.

        Raises:
            AccessDenied: the account refuses; told again from memory for ten seconds.
            UpstreamError: it did not answer, and there is no session that still works.
        """
        now = self._clock()
        if self._session is not None and now < self._renew_at:
            return self._session
        if now < self._refused_until:
            raise AccessDenied(self._refusal)
        try:
            return await self._obtained()
        except AccessDenied:
            raise
        except UpstreamError as error:
            if self._session is not None and _works(self._session, self._clock()):
                logger.warning("A session could not be renewed and is used on: %s", type(error).__name__)
                return self._session
            raise

    async def _obtained(self) -> Session:
        task = self._obtaining
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._obtaining = asyncio.get_running_loop().create_task(self._renewed())
            task.add_done_callback(_retrieve)
        # Whoever waits may be cancelled; the call goes on for the others.
        return await asyncio.shield(task)

    async def _renewed(self) -> Session:
        began = self._clock()
        try:
            session = await self._obtain()
        except AccessDenied as error:
            self._session, self._refusal = None, error.message
            self._refused_until = self._clock() + REFUSED_FOR
            raise
        if self._obtaining is asyncio.current_task():
            self._session, self._renew_at = session, began + _pause(session, began)
        return session


class RenewingTokens:
    """A token of one connection for each scope that is asked for."""

    def __init__(
        self, obtain: Callable[[str], Awaitable[BearerToken]], *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        """Obtain nothing yet; `obtain` takes a scope."""
        self._obtain, self._clock = obtain, clock
        self._sessions: dict[str, Renewing[BearerToken]] = {}

    async def get(self, scope: str) -> BearerToken:
        """As `Renewing.get`."""
        if scope not in self._sessions:
            self._sessions[scope] = Renewing(partial(self._obtain, scope), clock=self._clock)
        return await self._sessions[scope].get()


def _pause(session: Expiring, began: datetime) -> timedelta:
    """How long to use a session before a new one is obtained."""
    if session.expires_at is None:
        return UNBOUNDED
    lifetime = session.expires_at - began
    return max(lifetime - MARGIN, lifetime / 2)


def _works(session: Expiring, now: datetime) -> bool:
    return session.expires_at is None or now < session.expires_at


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take note of a failure that everybody who waited for is gone."""
    if not task.cancelled():
        task.exception()
