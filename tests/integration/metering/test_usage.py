"""Usage records become rows, once each, whatever happens to the database meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.database.pool import Pool, open_pool, tenant
from bonito.metering import requests
from bonito.metering.requests import RequestFilter
from bonito.metering.sinks import ImmediateUsageSink, PostgresUsageSink, write
from bonito.metering.usage import UsageRecord
from tests.integration.conftest import Database

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def usage(org_id: UUID, **fields: Any) -> UsageRecord:
    values: dict[str, Any] = {
        "org_id": org_id,
        "id": uuid4(),
        "created_at": NOW,
        "request_id": "r",
        "key_id": uuid4(),
        "operation": "chat.completions",
        "model_requested": "stub/echo",
        "is_stream": False,
        "status": 200,
        "latency_ms": 3,
    }
    return UsageRecord(**values | fields)


FULL: dict[str, Any] = {
    "model_used": "stub/echo",
    "provider": "stub",
    "error_code": "x",
    "input_tokens": 12,
    "output_tokens": 0,
    "is_estimated": True,
    "inference_cost_nano_usd": 2**40,
    "retrieval_cost_nano_usd": 0,
    "first_token_ms": 2,
    "retrieval_latency_ms": 1,
    "retrieval_status": "ok",
    "knowledge_base_ids": (uuid4(), uuid4()),
    "is_stream": True,
}


async def rows(pool: Pool, org_id: UUID, **wanted: Any) -> list[requests.LoggedRequest]:
    async with tenant(pool, org_id) as conn:
        return await requests.list_page(conn, org_id=org_id, wanted=RequestFilter(**wanted), limit=1000)


@pytest.fixture
async def sink(pool: Pool) -> AsyncIterator[PostgresUsageSink]:
    made = PostgresUsageSink(pool, gather_s=0.0)
    yield made
    await made.aclose()


async def test_every_field_of_a_record_is_a_column_of_its_row(pool: Pool, org_id: UUID) -> None:
    record = usage(org_id, **FULL)
    await write(pool, [record])

    [row] = await rows(pool, org_id)
    shown = dataclasses.asdict(record)
    del shown["org_id"]
    assert dataclasses.asdict(row) == shown | {"knowledge_base_ids": list(record.knowledge_base_ids)}


async def test_a_record_that_comes_twice_is_one_row(pool: Pool, org_id: UUID) -> None:
    record = usage(org_id)
    await write(pool, [record, record])
    await write(pool, [record])

    assert len(await rows(pool, org_id)) == 1


async def test_records_of_several_organizations_each_reach_their_own(
    pool: Pool, org_id: UUID, other_org_id: UUID
) -> None:
    await write(pool, [usage(org_id), usage(other_org_id), usage(org_id)])

    assert [len(await rows(pool, owner)) for owner in (org_id, other_org_id)] == [2, 1]


async def test_one_bad_record_does_not_take_the_others_with_it(
    pool: Pool, org_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    bad = usage(org_id, latency_ms=-1, request_id="bad-one")

    assert await write(pool, [usage(org_id), bad, usage(org_id)]) == 1
    assert len(await rows(pool, org_id)) == 2
    assert "bad-one" in caplog.text


@pytest.mark.parametrize("text", ["", "a'b\"c\\", "日本 🐟", "%s {} \t"])
async def test_any_text_is_kept_as_it_is(pool: Pool, org_id: UUID, text: str) -> None:
    await write(pool, [usage(org_id, model_requested=text)])

    assert [row.model_requested for row in await rows(pool, org_id)] == [text]


async def test_a_server_writes_behind_its_back(sink: PostgresUsageSink, pool: Pool, org_id: UUID) -> None:
    for _ in range(1200):
        await sink.record(usage(org_id))
    async with asyncio.timeout(60):
        while len(await rows(pool, org_id)) < 1000:
            await asyncio.sleep(0.01)
    await sink.flush()
    with psycopg.connect(pool.conninfo) as connection:
        connection.execute("SELECT set_config('app.org_id', %s, false)", [str(org_id)])
        assert connection.execute("SELECT count(*) FROM gateway_requests").fetchone() == (1200,)


async def test_nothing_is_lost_when_a_server_stops(pool: Pool, org_id: UUID) -> None:
    sink = PostgresUsageSink(pool, gather_s=60)
    for _ in range(3):
        await sink.record(usage(org_id))
    await sink.aclose()

    assert len(await rows(pool, org_id)) == 3
    assert sink.lost == 0


async def test_records_wait_for_a_database_that_is_down(
    database: Database, pool: Pool, org_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    down = await open_pool(database.runtime_url, max_size=1, timeout_s=5)
    sink = PostgresUsageSink(down, gather_s=0.0, retry_s=0.01)
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON gateway_requests FROM bonito_runtime")
        await sink.record(usage(org_id))
        async with asyncio.timeout(60):
            while "wait for the database" not in caplog.text:
                await asyncio.sleep(0.01)
        connection.execute("GRANT INSERT ON gateway_requests TO bonito_runtime")
    await sink.aclose()
    await down.close()

    assert len(await rows(pool, org_id)) == 1
    assert sink.lost == 0


async def test_what_does_not_fit_is_lost_and_counted(
    pool: Pool, org_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    sink = PostgresUsageSink(pool, gather_s=60, max_waiting=2)
    for _ in range(5):
        await sink.record(usage(org_id))
    await sink.aclose()

    assert sink.lost == 3
    assert "were lost, 3 since the start" in caplog.text
    assert len(await rows(pool, org_id)) == 2


async def test_a_function_has_written_when_record_returns(pool: Pool, org_id: UUID) -> None:
    await ImmediateUsageSink(pool).record(usage(org_id))

    assert len(await rows(pool, org_id)) == 1


async def test_a_function_writes_on_when_its_caller_is_cancelled(pool: Pool, org_id: UUID) -> None:
    recording = asyncio.create_task(ImmediateUsageSink(pool).record(usage(org_id)))
    await asyncio.sleep(0)
    recording.cancel()
    async with asyncio.timeout(60):
        while not await rows(pool, org_id):
            await asyncio.sleep(0.01)


async def test_a_function_without_a_database_answers_on(database: Database, org_id: UUID) -> None:
    closed = await open_pool(database.runtime_url)
    await closed.close()
    sink = ImmediateUsageSink(closed)
    await sink.record(usage(org_id))

    assert sink.lost == 1


async def test_pages_go_from_the_newest_to_the_oldest(pool: Pool, org_id: UUID) -> None:
    records = [usage(org_id, created_at=NOW + timedelta(days=20 * number)) for number in range(5)]
    await write(pool, records)
    seen: list[uuid.UUID] = []
    before: tuple[datetime, UUID] | None = None
    async with tenant(pool, org_id) as conn:
        while page := await requests.list_page(conn, org_id=org_id, wanted=RequestFilter(), before=before, limit=2):
            seen += [row.id for row in page]
            before = (page[-1].created_at, page[-1].id)

    assert seen == [record.id for record in reversed(records)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, 4),
        ({"since": NOW + timedelta(seconds=1)}, 3),
        ({"until": NOW + timedelta(seconds=1)}, 1),
        ({"model": "stub/echo"}, 3),
        ({"model": "openai/gpt"}, 1),
        ({"status": 404}, 1),
        ({"is_error": True}, 1),
        ({"is_error": False}, 3),
        ({"request_id": "r2"}, 1),
        ({"key_id": UUID(int=7)}, 1),
        ({"knowledge_base_id": UUID(int=8)}, 1),
    ],
)
async def test_pages_show_what_is_wanted(pool: Pool, org_id: UUID, wanted: dict[str, Any], expected: int) -> None:
    later = NOW + timedelta(seconds=5)
    await write(
        pool,
        [
            usage(org_id, key_id=UUID(int=7)),
            usage(org_id, created_at=later, status=404, error_code="model_not_found"),
            usage(org_id, created_at=later, request_id="r2", model_requested="gpt", model_used="openai/gpt"),
            usage(org_id, created_at=later, knowledge_base_ids=(UUID(int=8), UUID(int=9))),
        ],
    )

    assert len(await rows(pool, org_id, **wanted)) == expected


async def test_another_organization_sees_none(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    await write(pool, [usage(org_id)])

    async with tenant(pool, other_org_id) as conn:
        assert await requests.list_page(conn, org_id=org_id, wanted=RequestFilter(), limit=10) == []
