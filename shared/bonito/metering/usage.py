"""What one request through the gateway used, or one search through /api, and who takes note of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

# The last is no request of a caller's: ingestion embedding the chunks of a document.
Operation = Literal["chat.completions", "completions", "embeddings", "embeddings.ingest"]
RetrievalStatus = Literal["ok", "empty", "failed"]


@dataclass(frozen=True)
class UsageRecord:
    """One request, as the row of gateway_requests that it leaves; the fields are its columns.

    Attributes:
        key_id: None for a search, which a person's token pays for.
        model_requested: empty for a search: its knowledge base has chosen.
        status: the HTTP status that the caller saw; 499 where he hung up.
        input_tokens: as the provider reported them; None where no provider answered.
        is_estimated: the provider reported no tokens, and these are counted from the characters that passed.
        inference_cost_nano_usd: None where the price is unknown.
        first_token_ms: from the request's arrival to the first piece of a streamed answer.
    """

    org_id: UUID
    id: UUID
    created_at: datetime
    request_id: str
    key_id: UUID | None
    operation: Operation | Literal["search"]
    model_requested: str
    is_stream: bool
    status: int
    latency_ms: int
    model_used: str | None = None
    provider: str | None = None
    error_code: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    is_estimated: bool = False
    inference_cost_nano_usd: int | None = None
    retrieval_cost_nano_usd: int | None = None
    first_token_ms: int | None = None
    retrieval_latency_ms: int | None = None
    retrieval_status: RetrievalStatus | None = None
    knowledge_base_ids: tuple[UUID, ...] = ()


class UsageSink(Protocol):
    """Takes one record per request."""

    async def record(self, usage: UsageRecord) -> None:
        """Called before the last byte of the answer is sent, and awaited: what must not wait is done when it returns.

        A server returns at once and writes later; a function, which is frozen after its last byte, has written. It
        never raises: a request that was answered does not fail because its record could not be kept.
        """
        ...
