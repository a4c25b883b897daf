"""Requests and tokens per minute of an embedding model, shared by all workers through one row of Postgres (I15)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString
from uuid import UUID

from bonito.database.pool import Pool, tenant
from bonito.errors import Overloaded, RateLimited
from bonito.providers.base import EmbeddingModel, EmbeddingResult, Purpose
from bonito.providers.batching import estimated_tokens
from bonito.providers.wrapped import WrappedEmbeddingModel

# A worker waits so long with its call in hand; when its turn is further away, the call goes back to the queue.
PATIENCE = timedelta(seconds=5)
# All leave a model alone for so long that refused a call without saying when to come back.
DEFAULT_PAUSE_S = 2.0
LONGEST_PAUSE_S = 3600.0

TAKE: LiteralString = """
    SELECT is_taken, wait_s
      FROM take_embedding_turn(%(org_id)s, %(provider_id)s, %(model)s, %(requests_per_minute)s, %(tokens_per_minute)s,
                               %(tokens)s, %(patience)s)
"""

PAUSE: LiteralString = """
    INSERT INTO embedding_turns AS t (org_id, provider_id, model, paused_until)
    VALUES (%(org_id)s, %(provider_id)s, %(model)s, now() + %(pause)s)
    ON CONFLICT (org_id, provider_id, model)
        DO UPDATE SET paused_until = greatest(t.paused_until, excluded.paused_until)
"""


@dataclass(frozen=True)
class RateLimits:
    """What an organization wants a provider's model to be called at most; None is no limit of ours."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def are_set(self) -> bool:
        """Whether there is one."""
        return self.requests_per_minute is not None or self.tokens_per_minute is not None


class Turns:
    """The turns of one model of one provider of an organization."""

    def __init__(self, pool: Pool, *, org_id: UUID, provider_id: UUID, model: str, limits: RateLimits) -> None:
        self.limits = limits
        self._pool, self._org_id = pool, org_id
        self._row = {"org_id": org_id, "provider_id": provider_id, "model": model}

    async def take(self, tokens: int, *, patience: timedelta | None) -> float:
        """The seconds to wait before a call of so many tokens, which then has its turn.

        Args:
            tokens: that it will read.
            patience: the longest wait that is of use; None counts the call and never refuses it.

        Returns:
            The wait, 0 where there is none.

        Raises:
            Overloaded: the turn is further away than `patience`; `retry_after_s` says how far.
        """
        row = {**self._row, **vars(self.limits), "tokens": tokens, "patience": patience}
        async with tenant(self._pool, self._org_id) as conn:
            found = await (await conn.execute(TAKE, row)).fetchone()
        assert found is not None  # noqa: S101 - a function with OUT parameters answers one row
        is_taken, wait_s = found
        if not is_taken:
            raise Overloaded("The embedding model's limit of requests or tokens is reached.", retry_after_s=wait_s)
        return float(wait_s)

    async def pause(self, pause_s: float) -> None:
        """Have all workers leave the model alone for so long."""
        row = {**self._row, "pause": timedelta(seconds=min(pause_s, LONGEST_PAUSE_S))}
        async with tenant(self._pool, self._org_id) as conn:
            await conn.execute(PAUSE, row)


class PacedEmbeddingModel(WrappedEmbeddingModel):
    """EmbeddingModel that waits for its turn, and passes on to all workers when its provider asks for a pause.

    Questions are counted and never wait: whoever asks is waiting already, and documents are not in a hurry.
    """

    def __init__(self, model: EmbeddingModel, turns: Turns, *, patience: timedelta = PATIENCE) -> None:
        """Wrap a model; `patience` is the longest wait inside of a call."""
        super().__init__(model)
        self._turns, self._patience = turns, patience
        # By how much the calls so far were estimated too low, or too high where it is negative: the next one pays it.
        self._owed_tokens = 0

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        """As the model's own; and Overloaded where the turn is too far away."""
        estimate = estimated_tokens(texts)
        await self._wait(estimate, purpose)
        try:
            result = await super().embed(texts, purpose=purpose)
        except RateLimited as error:
            await self._turns.pause(error.retry_after_s or DEFAULT_PAUSE_S)
            raise
        if result.usage.input_tokens is not None:
            self._owed_tokens += result.usage.input_tokens - estimate
        return result

    async def _wait(self, estimate: int, purpose: Purpose) -> None:
        if purpose == "query" and not self._turns.limits.are_set:
            return
        tokens = max(0, estimate + self._owed_tokens)
        wait_s = await self._turns.take(tokens, patience=None if purpose == "query" else self._patience)
        self._owed_tokens += estimate - tokens
        if wait_s:
            await asyncio.sleep(wait_s)
