"""A model's limits hold for all workers together, whoever they are; pauses that a provider asks for do too."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import Overloaded, RateLimited
from bonito.providers import accounts
from bonito.providers.accounts import ProviderSettings
from bonito.providers.base import EmbeddingResult, Purpose, Usage
from bonito.providers.turns import PacedEmbeddingModel, RateLimits, Turns
from bonito.tenancy.secrets import SecretBox

BOX = SecretBox([bytes(32)])
HOURS = timedelta(hours=5)
NO_PATIENCE = timedelta()


async def add_provider(pool: Pool, org_id: UUID) -> UUID:
    async with tenant(pool, org_id) as conn:
        made = await accounts.create(
            conn,
            BOX,
            org_id=org_id,
            provider_id=uuid4(),
            secret_id=uuid4(),
            settings=ProviderSettings("openai", "openai"),
            credential=None,
        )
    return made.id


@pytest.fixture
async def provider_id(pool: Pool, org_id: UUID) -> UUID:
    return await add_provider(pool, org_id)


def turns_of(pool: Pool, org_id: UUID, provider_id: UUID, model: str = "m", **limits: int) -> Turns:
    return Turns(pool, org_id=org_id, provider_id=provider_id, model=model, limits=RateLimits(**limits))


class Model:
    """An embedding model that reports `tokens` for each text, and fails when it is told to."""

    name, fingerprint, dimensions = "openai/m", "1", None
    max_input_tokens, max_batch, max_batch_tokens, max_parallel, price_nano_usd = 512, 8, 1000, 1, 5

    def __init__(self, tokens: int | None = 1) -> None:
        self.tokens, self.calls = tokens, 0
        self.failures: list[Exception] = []

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        if self.failures:
            raise self.failures.pop(0)
        self.calls += 1
        tokens = None if self.tokens is None else self.tokens * len(texts)
        return EmbeddingResult(tuple(array("f", [1.0, 2.0]) for _ in texts), Usage(input_tokens=tokens))


def paced(model: Model, turns: Turns) -> PacedEmbeddingModel:
    return PacedEmbeddingModel(model, turns, patience=NO_PATIENCE)  # type: ignore[arg-type]


async def all_of(turns: Turns, amounts: Sequence[int]) -> list[float]:
    """When each call may begin, on this process's clock."""
    begins = []
    for tokens in amounts:
        wait_s = await turns.take(tokens, patience=HOURS)
        begins.append(time.monotonic() + wait_s)
    return begins


def most_in_a_minute(begins: Sequence[float], amounts: Sequence[int]) -> int:
    """A second less than a minute: our clock is read some milliseconds after the database's."""
    pairs = sorted(zip(begins, amounts, strict=True))
    return max(sum(amount for at, amount in pairs if start <= at < start + 59) for start, _ in pairs)


@pytest.mark.parametrize("limit", [1, 3, 12, 60])
async def test_in_no_minute_more_requests_begin_than_the_limit_whoever_asks(
    pool: Pool, org_id: UUID, provider_id: UUID, limit: int
) -> None:
    workers = [turns_of(pool, org_id, provider_id, requests_per_minute=limit) for _ in range(4)]

    count = limit // 2 + 1
    begun = await asyncio.gather(*(all_of(turns, [1] * count) for turns in workers))
    begins = [at for of_one in begun for at in of_one]

    assert most_in_a_minute(begins, [1] * len(begins)) <= limit
    assert len([at for at in begins if at < min(begins) + 66]) >= limit, "and the limit is made use of"


async def test_in_no_minute_more_tokens_are_sent_than_the_limit(pool: Pool, org_id: UUID, provider_id: UUID) -> None:
    turns = turns_of(pool, org_id, provider_id, tokens_per_minute=60_000)
    amounts = [1_000, 2_500, 300, 4_000] * 16

    begins = await all_of(turns, amounts)

    assert most_in_a_minute(begins, amounts) <= 60_000
    assert sum(tokens for tokens, at in zip(amounts, begins, strict=True) if at < min(begins) + 66) >= 56_000


async def test_a_call_above_a_bursts_tokens_goes_when_those_before_it_are_spread(
    pool: Pool, org_id: UUID, provider_id: UUID
) -> None:
    turns = turns_of(pool, org_id, provider_id, tokens_per_minute=6_000)

    first, second = [await turns.take(3_000, patience=HOURS) for _ in range(2)]

    assert first == 0
    assert 30 < second <= 32.5


async def test_whoever_has_no_patience_is_told_when_to_come_back_and_takes_nothing(
    pool: Pool, org_id: UUID, provider_id: UUID
) -> None:
    turns = turns_of(pool, org_id, provider_id, requests_per_minute=1)
    await turns.take(1, patience=NO_PATIENCE)

    told = []
    for _ in range(3):
        with pytest.raises(Overloaded) as refused:
            await turns.take(1, patience=timedelta(seconds=5))
        told.append(refused.value.retry_after_s or 0)

    assert all(60 < wait <= 65 for wait in told)


async def test_questions_count_and_never_wait(pool: Pool, org_id: UUID, provider_id: UUID) -> None:
    turns = turns_of(pool, org_id, provider_id, requests_per_minute=60)

    assert [await turns.take(1, patience=None) for _ in range(30)] == [0.0] * 30
    with pytest.raises(Overloaded) as refused:
        await turns.take(1, patience=timedelta(seconds=5))

    assert 20 < (refused.value.retry_after_s or 0) < 30


async def test_models_providers_and_organizations_have_turns_of_their_own(
    pool: Pool, org_id: UUID, other_org_id: UUID, provider_id: UUID
) -> None:
    other = await add_provider(pool, other_org_id)
    for turns in (
        turns_of(pool, org_id, provider_id, "m", requests_per_minute=1),
        turns_of(pool, org_id, provider_id, "n", requests_per_minute=1),
        turns_of(pool, other_org_id, other, "m", requests_per_minute=1),
    ):
        assert await turns.take(1, patience=NO_PATIENCE) == 0
    async with tenant(pool, other_org_id) as conn:
        seen = await (await conn.execute("SELECT org_id FROM embedding_turns")).fetchall()

    assert seen == [(other_org_id,)]


async def test_without_limits_nobody_waits(pool: Pool, org_id: UUID, provider_id: UUID) -> None:
    turns = turns_of(pool, org_id, provider_id)

    assert [await turns.take(10**9, patience=NO_PATIENCE) for _ in range(20)] == [0.0] * 20


async def test_a_removed_providers_turns_are_gone(pool: Pool, org_id: UUID, provider_id: UUID) -> None:
    await turns_of(pool, org_id, provider_id).take(1, patience=NO_PATIENCE)
    async with tenant(pool, org_id) as conn:
        await accounts.delete(conn, org_id=org_id, provider_id=provider_id)
        left = await (await conn.execute("SELECT count(*) FROM embedding_turns")).fetchone()

    assert left == (0,)


@pytest.mark.parametrize(("asked_s", "lowest", "highest"), [(30.0, 29, 30), (None, 1, 2), (10_000_000.0, 3590, 3600)])
async def test_a_pause_that_one_worker_learns_of_holds_for_all(
    pool: Pool, org_id: UUID, provider_id: UUID, asked_s: float | None, lowest: float, highest: float
) -> None:
    refused_model, others = Model(), Model()
    refused_model.failures.append(RateLimited("Slow down.", retry_after_s=asked_s))

    with pytest.raises(RateLimited):
        await paced(refused_model, turns_of(pool, org_id, provider_id)).embed(["a"])
    with pytest.raises(Overloaded) as refused:
        await paced(others, turns_of(pool, org_id, provider_id)).embed(["a"])
    await paced(others, turns_of(pool, org_id, provider_id)).embed(["a"], purpose="query")

    assert lowest <= (refused.value.retry_after_s or 0) <= highest
    assert others.calls == 1, "the question did not wait"


async def test_a_turn_that_comes_soon_is_waited_for(pool: Pool, org_id: UUID, provider_id: UUID) -> None:
    turns = turns_of(pool, org_id, provider_id, requests_per_minute=6000)
    for _ in range(470):
        await turns.take(1, patience=None)
    model = Model()

    await PacedEmbeddingModel(model, turns).embed(["a"])  # type: ignore[arg-type]

    assert model.calls == 1


async def test_what_an_estimate_was_wrong_by_is_charged_with_the_next_call(
    pool: Pool, org_id: UUID, provider_id: UUID
) -> None:
    model = Model(tokens=2_000)
    turns = turns_of(pool, org_id, provider_id, tokens_per_minute=6_000)
    embedding = PacedEmbeddingModel(model, turns)  # type: ignore[arg-type]

    await embedding.embed(["a"])  # taken for one token
    await embedding.embed(["a"])  # this one pays for the first
    with pytest.raises(Overloaded) as refused:
        await embedding.embed(["a"])

    assert 20 < (refused.value.retry_after_s or 0) < 45
    assert model.calls == 2


async def test_what_the_model_is_shows_through(pool: Pool, org_id: UUID, provider_id: UUID) -> None:
    model = Model(tokens=None)
    embedding = paced(model, turns_of(pool, org_id, provider_id))
    result = await embedding.embed(["a", "b"])

    shown: dict[str, Any] = {name: getattr(embedding, name) for name in ("name", "fingerprint", "max_batch")}
    assert shown == {"name": "openai/m", "fingerprint": "1", "max_batch": 8}
    assert (embedding.max_batch_tokens, embedding.max_parallel, embedding.price_nano_usd) == (1000, 1, 5)
    assert len(result.vectors) == 2
