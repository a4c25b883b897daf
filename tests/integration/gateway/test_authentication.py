"""Who may call /v1, and what a known caller costs the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest

from bonito.database.pool import Pool, open_pool, tenant
from bonito.errors import AuthenticationFailed
from bonito.gateway.authentication import GatewayKeys
from bonito.tenancy import keys
from tests.integration.conftest import Database
from tests.integration.gateway.conftest import Gateway, make_key, running
from tests.stub_provider import StubProvider

QUESTION: list[Any] = [{"role": "user", "content": "How many days of leave?"}]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (None, "No key was sent"),
        ("", "No key was sent"),
        ("Bearer", "No key was sent"),
        ("Basic bn-x", "No key was sent"),
        ("Bearer sk-123", "unknown, expired or revoked"),
        ("Bearer bn-" + "A" * 43, "unknown, expired or revoked"),
        ("Bearer bn-" + "A" * 42, "unknown, expired or revoked"),
        ("Bearer rt-" + "A" * 43, "routing policies"),
        ("Bearer bt-" + "A" * 43, "VPC gateway"),
        ("Bearer bp-" + "A" * 43, "personal token"),
        ("Bearer bn-\x80", "unknown, expired or revoked"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/models"])
async def test_without_a_key_nothing_is_answered(
    gateway: Gateway, stub: StubProvider, header: str | None, says: str, path: str
) -> None:
    headers = {} if header is None else {b"authorization": header.encode("latin-1")}
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        method = "GET" if path == "/v1/models" else "POST"
        answer = await client.request(method, path, headers=headers, content=b"" if method == "GET" else b"x")

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert says in answer.json()["error"]["message"]
    assert stub.received == []
    assert await gateway.rows() == []


async def test_an_expired_key_is_refused_also_from_memory(pool: Pool, org_id: UUID) -> None:
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    key_id, key = await make_key(pool, org_id, expires_at=expires_at)
    now = [expires_at - timedelta(seconds=1)]
    gateway_keys = GatewayKeys(pool, now=lambda: now[0])

    assert (await gateway_keys.authenticate(f"bearer {key}")).key_id == key_id
    now[0] = expires_at
    with pytest.raises(AuthenticationFailed):
        await gateway_keys.authenticate(f"Bearer {key}")


async def test_a_revoked_key_is_refused(gateway: Gateway) -> None:
    key_id, key = await make_key(gateway.pool, gateway.org_id)
    async with tenant(gateway.pool, gateway.org_id) as conn:
        await keys.revoke(conn, org_id=gateway.org_id, key_id=key_id)

    with pytest.raises(openai.AuthenticationError):
        await gateway.client(key=key).chat.completions.create(model="stub/echo", messages=QUESTION)


async def test_a_warm_request_runs_no_sql_before_its_answer(
    database: Database, org_id: UUID, stub: StubProvider
) -> None:
    """G10. Whoever runs a statement takes a connection first, and the pool counts those."""
    pool = await open_pool(database.runtime_url)
    async with running(database, org_id, stub, pool=pool) as gateway:
        client = gateway.client()
        await client.chat.completions.create(model="stub/echo", messages=QUESTION)
        before = pool.get_stats()["requests_num"]
        for _ in range(20):
            await client.chat.completions.create(model="stub/echo", messages=QUESTION)
        stream = await client.chat.completions.create(model="stub/echo", messages=QUESTION, stream=True)
        assert [chunk async for chunk in stream]
        after = pool.get_stats()["requests_num"]
        rows = await gateway.rows()
    await pool.close()

    assert after == before > 0
    assert len(rows) == 22
