"""Errors have OpenAI's shape and statuses, so that its SDK raises its own classes; and no internals."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import openai
import psycopg
import pytest

from bonito.database.migrate import SCHEMA_VERSION
from bonito.database.pool import open_pool
from bonito.errors import BonitoError, openai_body
from bonito.providers.base import ProviderRequest
from tests.integration.conftest import Database
from tests.integration.gateway.conftest import Gateway, add_provider, running
from tests.stub_provider import StubProvider

QUESTION: list[Any] = [{"role": "user", "content": "How many days of leave?"}]


@pytest.fixture
async def raw(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30) as client:
        yield client


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("stub/status-400", openai.BadRequestError, "invalid_request_error"),
        ("stub/status-401", openai.InternalServerError, "upstream_error"),
        ("stub/status-403", openai.InternalServerError, "upstream_error"),
        ("stub/status-404", openai.BadRequestError, "invalid_request_error"),
        ("stub/status-429", openai.RateLimitError, "rate_limit_exceeded"),
        ("stub/status-500", openai.InternalServerError, "upstream_error"),
        ("stub/status-503", openai.InternalServerError, "upstream_error"),
        ("stub/not-json", openai.InternalServerError, "upstream_error"),
        ("stub/unknown", openai.NotFoundError, "model_not_found"),
        ("nobody/model", openai.NotFoundError, "model_not_found"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_the_sdk_raises_its_own_class(
    gateway: Gateway, model: str, kind: type[openai.APIStatusError], code: str, is_stream: bool
) -> None:
    with pytest.raises(kind) as refused:
        await gateway.client().chat.completions.create(model=model, messages=QUESTION, stream=is_stream)
    [row] = await gateway.rows()

    assert refused.value.code == code
    assert (row["status"], row["error_code"]) == (refused.value.status_code, code)
    assert row["is_stream"] is is_stream
    assert not row["is_estimated"]


async def test_a_providers_429_tells_when_to_come_back(gateway: Gateway) -> None:
    with pytest.raises(openai.RateLimitError) as refused:
        await gateway.client().chat.completions.create(model="stub/status-429", messages=QUESTION)

    assert refused.value.response.headers["retry-after"] == "7"
    assert refused.value.response.headers["x-bonito-route"] == "model=status-429; provider=stub"


async def test_a_provider_that_is_not_there_is_a_502(gateway: Gateway) -> None:
    await add_provider(gateway.pool, gateway.registry, gateway.org_id, "gone", "http://127.0.0.1:9/v1")

    with pytest.raises(openai.InternalServerError) as refused:
        await gateway.client().chat.completions.create(model="gone/x", messages=QUESTION)

    assert (refused.value.status_code, refused.value.code) == (502, "upstream_error")


async def test_a_provider_at_a_forbidden_address_is_not_the_callers_mistake(gateway: Gateway) -> None:
    await add_provider(gateway.pool, gateway.registry, gateway.org_id, "metadata", "http://localhost.invalid/v1")

    with pytest.raises(openai.InternalServerError) as refused:
        await gateway.client().chat.completions.create(model="metadata/x", messages=QUESTION)

    assert refused.value.status_code == 502


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b'{"model": "\xff"}', None),
        (b'{"model":"a","model":"b"}', None),
        (b"[]", None),
        (b"{}", "model"),
        (b'{"model":"stub/echo","bonito":{"topk":1}}', "bonito.topk"),
    ],
)
async def test_a_body_that_is_wrong_is_a_400_that_names_the_field(
    raw: httpx.AsyncClient, stub: StubProvider, body: bytes, param: str | None
) -> None:
    answer = await raw.post("/v1/chat/completions", content=body)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert stub.received == []


async def test_a_credential_that_does_not_open_is_not_the_callers_mistake(
    gateway: Gateway, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(database.superuser_url) as connection:
        connection.execute("UPDATE secrets SET key_id = 'lost' WHERE org_id = %s", [gateway.org_id])
    with psycopg.connect(database.superuser_url) as connection:
        connection.execute("UPDATE providers SET updated_at = now() WHERE org_id = %s", [gateway.org_id])
    gateway.registry.forget(gateway.org_id)

    with pytest.raises(openai.InternalServerError) as refused:
        await gateway.client().chat.completions.create(model="stub/echo", messages=QUESTION)

    assert (refused.value.status_code, refused.value.code) == (502, "upstream_error")
    assert "lost" not in refused.value.message
    assert "unreadable_secret" in caplog.text


async def test_a_body_without_a_declared_length_is_bounded_too(gateway: Gateway, raw: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(25):
            yield b"x" * 2**20

    answer = await raw.post("/v1/chat/completions", content=endless())

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "payload_too_large"
    assert [row["status"] for row in await gateway.rows()] == [413]


async def test_a_client_that_asks_first_is_refused_before_it_sends(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\nexpect: 100-continue\r\n"
        b"authorization: Bearer " + gateway.key.encode() + b"\r\n\r\n"
    )
    head = await reader.readuntil(b"\r\n")
    writer.close()

    assert b"413" in head


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/stub/nothing", 404, "model_not_found"),
    ],
)
async def test_wrong_paths_and_methods_have_the_same_shape(
    raw: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await raw.request(method, path, headers={"x-request-id": "r1"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"] == "r1"


async def test_what_was_not_foreseen_is_a_500_without_internals(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty:
        name = "stub"

        async def call(self, request: ProviderRequest) -> Any:
            raise KeyError(f"secret detail {request.body!r}")

    async def faulty(*_: object) -> Faulty:
        return Faulty()

    monkeypatch.setattr(gateway.registry, "provider", faulty)
    with caplog.at_level(logging.DEBUG), pytest.raises(openai.InternalServerError) as refused:
        await gateway.client().chat.completions.create(
            model="stub/echo", messages=QUESTION, extra_headers={"x-request-id": "find-me"}
        )
    [row] = await gateway.rows()

    error = json.loads(refused.value.response.text)["error"]
    assert error == openai_body(BonitoError("The gateway failed; the request's id is find-me."))["error"]
    assert (row["status"], row["error_code"], row["request_id"]) == (500, "internal_error", "find-me")
    assert "find-me failed: KeyError" in caplog.text
    assert "secret detail" not in caplog.text.replace('raise KeyError(f"secret detail', "")


async def test_a_database_that_is_down_is_a_503_and_never_a_401(
    database: Database, org_id: UUID, stub: StubProvider
) -> None:
    pool = await open_pool(database.runtime_url, max_size=1, timeout_s=1)
    async with running(database, org_id, stub, pool=pool) as gateway:
        await gateway.client().chat.completions.create(model="stub/echo", messages=QUESTION)
        await pool.close()
        known = await gateway.client().chat.completions.create(model="stub/echo", messages=QUESTION)
        with pytest.raises(openai.InternalServerError) as refused:
            await gateway.client(key="bn-" + "A" * 43).chat.completions.create(model="stub/echo", messages=QUESTION)
        async with httpx.AsyncClient() as client:
            readiness = await client.get(f"{gateway.url}/readyz")
            health = await client.get(f"{gateway.url}/healthz")

    assert known.choices[0].message.content
    assert (refused.value.status_code, refused.value.code) == (503, "overloaded")
    assert (readiness.status_code, health.status_code) == (503, 200)
    assert "psycopg" not in readiness.text


async def test_a_schema_that_is_not_ours_is_not_ready(gateway: Gateway, database: Database) -> None:
    async with httpx.AsyncClient() as client:
        before = await client.get(f"{gateway.url}/readyz")
        with psycopg.connect(database.superuser_url, autocommit=True) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '0001'")
            after = await client.get(f"{gateway.url}/readyz")
            connection.execute("UPDATE alembic_version SET version_num = %s", [f"{SCHEMA_VERSION:04}"])

    assert (before.status_code, before.json()) == (200, {"status": "ok"})
    assert after.status_code == 503
    assert "bonito migrate" in after.json()["error"]["message"]
