"""Retries: who may come back, when, and what a person is told."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest

from bonito.errors import DocumentError, InvalidRequest, ModelNotFound, Overloaded, ProviderTimeout, RateLimited
from bonito.knowledge.retries import (
    LONGEST_PAUSE_S,
    MAX_ATTEMPTS,
    MAX_DELIVERIES,
    explain,
    gave_up,
    is_retryable,
    kept,
    next_pause,
    retry_pause,
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ProviderTimeout("x"), True),
        (RateLimited("x"), True),
        (Overloaded("x"), True),
        (psycopg.OperationalError("x"), True),
        (KeyError("x"), True),
        (DocumentError("x"), False),
        (ModelNotFound("x"), False),
        (InvalidRequest("x"), False),
    ],
)
def test_everything_but_what_is_final_comes_back(error: Exception, expected: bool) -> None:
    assert is_retryable(error) is expected


def test_pauses_grow_and_are_spread_and_bounded() -> None:
    error = ProviderTimeout("x")
    longest = [retry_pause(error, attempts=attempts, jitter=0.999).total_seconds() for attempts in range(1, 12)]
    shortest = [retry_pause(error, attempts=attempts, jitter=0.0).total_seconds() for attempts in range(1, 12)]

    assert longest == sorted(longest)
    assert max(longest) <= LONGEST_PAUSE_S
    assert all(2 * low == pytest.approx(high, rel=0.01) for low, high in zip(shortest, longest, strict=True))


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_what_the_provider_asks_for_is_waited_for(jitter: float) -> None:
    pause = retry_pause(RateLimited("x", retry_after_s=40.0), attempts=1, jitter=jitter)

    assert timedelta(seconds=40) <= pause < timedelta(seconds=60)


def test_a_person_is_told_nothing_internal() -> None:
    assert explain(ProviderTimeout("The model did not answer.")) == "The model did not answer."
    assert "password" not in explain(psycopg.OperationalError("password authentication failed at 10.0.0.1"))
    assert "secret" not in explain(ValueError("secret"))
    assert gave_up(MAX_ATTEMPTS, "It rains.").message == "Gave up after 8 tries: It rains."


async def test_a_lease_is_renewed_until_the_work_ends() -> None:
    renewals = 0

    async def renew() -> bool:
        nonlocal renewals
        renewals += 1
        if renewals == 2:
            raise psycopg.OperationalError("the database restarts")
        return True

    async with kept(renew, timedelta(milliseconds=1)):
        while renewals < 5:
            await asyncio.sleep(0.001)
    ended = renewals
    await asyncio.sleep(0.02)

    assert renewals == ended


async def test_a_lost_lease_is_not_asked_for_again() -> None:
    renewals = 0

    async def renew() -> bool:
        nonlocal renewals
        renewals += 1
        return False

    async with kept(renew, timedelta(milliseconds=1)):
        await asyncio.sleep(0.05)

    assert renewals == 1


async def test_the_works_own_failure_comes_through() -> None:
    async def renew() -> bool:
        return True

    with pytest.raises(ZeroDivisionError):
        async with kept(renew, timedelta(seconds=10)):
            raise ZeroDivisionError


def test_a_queue_keeps_back_what_may_succeed_later_and_ends_the_rest() -> None:
    asked = next_pause(Overloaded("x", retry_after_s=8), 1)

    assert asked is not None
    assert timedelta(seconds=8) <= asked <= timedelta(seconds=11)
    assert next_pause(DocumentError("x"), 1) is None
    assert next_pause(RuntimeError("x"), MAX_DELIVERIES - 1) is not None
    assert next_pause(RuntimeError("x"), MAX_DELIVERIES) is None
