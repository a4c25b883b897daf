"""Sessions: obtained once for all who wait, renewed in time, never used beyond their end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from bonito.clouds.access import BearerToken
from bonito.clouds.renewing import Renewing, RenewingTokens
from bonito.errors import AccessDenied, UpstreamError

START = datetime(2026, 5, 1, tzinfo=UTC)


class Account:
    """Gives sessions of an hour by a clock of its own, or fails as it is told."""

    def __init__(self, lifetime: timedelta | None = timedelta(hours=1)) -> None:
        self.now, self.calls, self.lifetime = START, 0, lifetime
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def obtain(self) -> Held:
        self.calls += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Held(self.calls, None if self.lifetime is None else self.now + self.lifetime)

    def session(self) -> Renewing[Held]:
        return Renewing(self.obtain, clock=lambda: self.now)


class Held:
    def __init__(self, number: int, expires_at: datetime | None) -> None:
        self.number, self.expires_at = number, expires_at


async def test_all_who_wait_share_one_call() -> None:
    account = Account()
    account.gate.clear()
    session = account.session()
    waiting = [asyncio.create_task(session.get()) for _ in range(20)]
    await asyncio.sleep(0)
    account.gate.set()

    assert {held.number for held in await asyncio.gather(*waiting)} == {1}
    assert account.calls == 1


async def test_one_who_gives_up_does_not_end_the_call_for_the_others() -> None:
    account = Account()
    account.gate.clear()
    session = account.session()
    first, second = asyncio.create_task(session.get()), asyncio.create_task(session.get())
    await asyncio.sleep(0)
    first.cancel()
    account.gate.set()

    assert (await second).number == 1
    assert account.calls == 1


@pytest.mark.parametrize(
    ("lifetime", "kept"),
    [
        pytest.param(timedelta(hours=1), timedelta(minutes=55), id="until-five-minutes-before-the-end"),
        pytest.param(timedelta(minutes=6), timedelta(minutes=3), id="for-half-of-a-short-life"),
        pytest.param(None, timedelta(minutes=5), id="for-five-minutes-where-it-never-ends"),
    ],
)
async def test_a_session_is_kept(lifetime: timedelta | None, kept: timedelta) -> None:
    account = Account(lifetime)
    session = account.session()
    await session.get()

    account.now = START + kept - timedelta(seconds=1)
    assert (await session.get()).number == 1
    account.now = START + kept
    assert (await session.get()).number == 2


async def test_a_renewal_that_fails_leaves_what_still_works() -> None:
    account = Account()
    session = account.session()
    await session.get()
    account.now, account.failure = START + timedelta(minutes=57), UpstreamError("away")

    assert (await session.get()).number == 1
    account.now = START + timedelta(hours=1)
    with pytest.raises(UpstreamError, match="away"):
        await session.get()


async def test_a_refusal_ends_the_session_and_is_not_asked_for_again_at_once() -> None:
    account = Account()
    session = account.session()
    await session.get()
    account.now, account.failure = START + timedelta(minutes=57), AccessDenied("the role is gone")

    for _ in range(3):
        with pytest.raises(AccessDenied, match="the role is gone"):
            await session.get()
    assert account.calls == 2
    account.now, account.failure = account.now + timedelta(seconds=10), None
    assert (await session.get()).number == 3


async def test_each_scope_has_a_token_of_its_own() -> None:
    asked: list[str] = []

    async def obtain(scope: str) -> BearerToken:
        asked.append(scope)
        return BearerToken(f"for {scope}", START + timedelta(hours=1))

    tokens = RenewingTokens(obtain, clock=lambda: START)

    assert [(await tokens.get(scope)).token for scope in ("a", "b", "a")] == ["for a", "for b", "for a"]
    assert asked == ["a", "b"]


async def test_a_new_event_loop_obtains_anew() -> None:
    account = Account()
    account.gate.clear()
    session = account.session()

    async def give_up() -> None:
        account.gate = asyncio.Event()  # of this loop
        task = asyncio.create_task(session.get())
        await asyncio.sleep(0)
        task.cancel()

    await asyncio.to_thread(asyncio.run, give_up())
    account.gate = asyncio.Event()
    account.gate.set()

    assert (await session.get()).number == 2
