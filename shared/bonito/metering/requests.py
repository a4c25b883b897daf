"""The rows of gateway_requests: written in batches, read in pages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from psycopg.rows import class_row

from bonito.database.pool import Connection
from bonito.metering.usage import UsageRecord

# One statement for a whole batch, whose rows travel as one JSON value: a tenth of the work of a parameter each. A batch
# that was written and not confirmed comes again: its rows are there already.
INSERT: LiteralString = """
    INSERT INTO gateway_requests (
        org_id, id, created_at, request_id, key_id, operation, model_requested, model_used, provider, is_stream, status,
        error_code, input_tokens, output_tokens, is_estimated, inference_cost_nano_usd, retrieval_cost_nano_usd,
        latency_ms, first_token_ms, retrieval_latency_ms, retrieval_status, knowledge_base_ids)
    SELECT %(org_id)s::uuid, r.id, r.created_at, r.request_id, r.key_id, r.operation, r.model_requested, r.model_used,
           r.provider, r.is_stream, r.status, r.error_code, r.input_tokens, r.output_tokens, r.is_estimated,
           r.inference_cost_nano_usd, r.retrieval_cost_nano_usd, r.latency_ms, r.first_token_ms, r.retrieval_latency_ms,
           r.retrieval_status, r.knowledge_base_ids
      FROM json_to_recordset(%(records)s::json) AS r (
               id uuid, created_at timestamptz, request_id text, key_id uuid, operation text, model_requested text,
               model_used text, provider text, is_stream boolean, status integer, error_code text, input_tokens integer,
               output_tokens integer, is_estimated boolean, inference_cost_nano_usd bigint,
               retrieval_cost_nano_usd bigint, latency_ms integer, first_token_ms integer, retrieval_latency_ms integer,
               retrieval_status text, knowledge_base_ids uuid[])
    ON CONFLICT (org_id, created_at, id) DO NOTHING
"""

# Newest first; a page goes on below the last row of the one before. The range on created_at leaves out whole months.
PAGE: LiteralString = """
    SELECT id, created_at, request_id, key_id, operation, model_requested, model_used, provider, is_stream, status,
           error_code, input_tokens, output_tokens, is_estimated, inference_cost_nano_usd, retrieval_cost_nano_usd,
           latency_ms, first_token_ms, retrieval_latency_ms, retrieval_status, knowledge_base_ids
      FROM gateway_requests
     WHERE org_id = %(org_id)s
       AND (%(before_at)s::timestamptz IS NULL
            OR (created_at, id) < (%(before_at)s::timestamptz, %(before_id)s::uuid))
       AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s::timestamptz)
       AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s::timestamptz)
       AND (%(key_id)s::uuid IS NULL OR key_id = %(key_id)s::uuid)
       AND (%(knowledge_base_id)s::uuid IS NULL OR knowledge_base_ids @> ARRAY[%(knowledge_base_id)s::uuid])
       AND (%(operation)s::text IS NULL OR operation = %(operation)s::text)
       AND (%(model)s::text IS NULL OR model_used = %(model)s::text OR model_requested = %(model)s::text)
       AND (%(status)s::integer IS NULL OR status = %(status)s::integer)
       AND (%(is_error)s::boolean IS NULL OR (status >= 400) = %(is_error)s::boolean)
       AND (%(request_id)s::text IS NULL OR request_id = %(request_id)s::text)
     ORDER BY created_at DESC, id DESC LIMIT %(limit)s
"""


@dataclass(frozen=True)
class LoggedRequest:
    """A row, as it is shown."""

    id: UUID
    created_at: datetime
    request_id: str
    key_id: UUID | None
    operation: str
    model_requested: str
    model_used: str | None
    provider: str | None
    is_stream: bool
    status: int
    error_code: str | None
    input_tokens: int | None
    output_tokens: int | None
    is_estimated: bool
    inference_cost_nano_usd: int | None
    retrieval_cost_nano_usd: int | None
    latency_ms: int
    first_token_ms: int | None
    retrieval_latency_ms: int | None
    retrieval_status: str | None
    knowledge_base_ids: list[UUID]


@dataclass(frozen=True)
class RequestFilter:
    """Which rows to show; None is all. `since` is inclusive, `until` is not; `model` as asked for or as used."""

    since: datetime | None = None
    until: datetime | None = None
    key_id: UUID | None = None
    knowledge_base_id: UUID | None = None
    operation: str | None = None
    model: str | None = None
    status: int | None = None
    is_error: bool | None = None
    request_id: str | None = None


async def insert(connection: Connection, *, org_id: UUID, records: Iterable[UsageRecord]) -> None:
    """Write the records of one organization; those that are there already stay as they are."""
    rows = json.dumps([vars(record) for record in records], default=str)
    await connection.execute(INSERT, {"org_id": org_id, "records": rows})


async def list_page(
    connection: Connection,
    *,
    org_id: UUID,
    wanted: RequestFilter,
    before: tuple[datetime, UUID] | None = None,
    limit: int,
) -> list[LoggedRequest]:
    """The newest requests, up to `limit`, older than the row that `before` names."""
    before_at, before_id = before or (None, None)
    parameters = {**vars(wanted), "org_id": org_id, "before_at": before_at, "before_id": before_id, "limit": limit}
    async with connection.cursor(row_factory=class_row(LoggedRequest)) as cursor:
        await cursor.execute(PAGE, parameters)
        return await cursor.fetchall()
