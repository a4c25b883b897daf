"""/api/providers, /api/models and /api/gateway/logs."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.console.services import Services
from bonito.metering.sinks import write
from bonito.metering.usage import UsageRecord
from tests import stub_provider
from tests.integration.conftest import Database
from tests.integration.console.conftest import Person
from tests.stub_provider import StubProvider

KEY = "sk-canary-0123456789abcdefghij"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
async def stub() -> AsyncIterator[StubProvider]:
    async with stub_provider.serving() as running:
        yield running


def wanted(stub: StubProvider, **fields: Any) -> dict[str, Any]:
    body = {"name": "stub", "type": "openai_compatible", "base_url": stub.base_url, "credential": {"api_key": KEY}}
    return body | fields


async def add(owner: Person, stub: StubProvider, **fields: Any) -> dict[str, Any]:
    answer = await owner.client.post("/api/providers", json=wanted(stub, **fields))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_new_provider_is_called_and_shown_without_its_credential(owner: Person, stub: StubProvider) -> None:
    made = await add(owner, stub)

    assert made["verified_at"] is not None
    assert made["verification_error"] is None
    assert made["has_credential"]
    assert made["models"] == "all"
    assert stub.received[-1].headers["authorization"] == f"Bearer {KEY}"
    shown = [
        made,
        (await owner.client.get("/api/providers")).json(),
        (await owner.client.get(f"/api/providers/{made['id']}")).json(),
        (await owner.client.get("/api/audit-log")).json(),
    ]
    assert KEY not in str(shown)


async def test_limits_are_shown_changed_and_forgotten(owner: Person, stub: StubProvider) -> None:
    made = await add(owner, stub, limits={"requests_per_minute": 60})
    path = f"/api/providers/{made['id']}"
    changed = await owner.client.put(path, json=wanted(stub, limits={"tokens_per_minute": 5000}))
    forgotten = await owner.client.put(path, json=wanted(stub))
    refused = await owner.client.put(path, json=wanted(stub, limits={"requests_per_minute": 0}))

    assert made["limits"] == {"requests_per_minute": 60, "tokens_per_minute": None}
    assert changed.json()["limits"] == {"requests_per_minute": None, "tokens_per_minute": 5000}
    assert forgotten.json()["limits"] == {"requests_per_minute": None, "tokens_per_minute": None}
    assert refused.status_code == 422


async def test_a_provider_that_does_not_answer_is_kept_with_the_reason(owner: Person, stub: StubProvider) -> None:
    made = await add(owner, stub, base_url="http://127.0.0.1:9/v1")
    again = (await owner.client.post(f"/api/providers/{made['id']}/verify")).json()

    assert made["verified_at"] is None
    assert made["verification_error"] == again["verification_error"] != ""


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"base_url": "http://10.0.0.1/v1"}, 400, "address_not_allowed"),
        ({"base_url": "http://169.254.169.254/v1"}, 400, "address_not_allowed"),
        ({"base_url": None}, 400, "invalid_request_error"),
        ({"base_url": "ftp://example.com"}, 422, "invalid_request_error"),
        ({"type": "anthropic"}, 422, "invalid_request_error"),
        ({"type": "bedrock", "base_url": None}, 400, "invalid_request_error"),
        ({"type": "vertex", "base_url": None, "region": "europe-west4"}, 400, "invalid_request_error"),
        ({"type": "azure_openai"}, 400, "invalid_request_error"),
        ({"type": "local", "name": "local"}, 400, "invalid_request_error"),
        ({"name": "local"}, 400, "invalid_request_error"),
        ({"name": "With Space"}, 422, "invalid_request_error"),
        ({"vendor": "anthropic"}, 400, "invalid_request_error"),
        ({"models": []}, 422, "invalid_request_error"),
        ({"credential": {"secret": "arn:x"}}, 400, "invalid_request_error"),
        ({"credential": {"password": "x"}}, 400, "invalid_request_error"),
        ({"credential": {"api_key": "a\nb"}}, 400, "invalid_request_error"),
        ({"credential": "sk-x"}, 422, "invalid_request_error"),
    ],
)
async def test_what_cannot_be_a_provider_is_refused_and_not_kept(
    owner: Person, stub: StubProvider, fields: dict[str, Any], status: int, code: str
) -> None:
    answer = await owner.client.post("/api/providers", json=wanted(stub, **fields))

    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert KEY not in answer.text
    assert (await owner.client.get("/api/providers")).json()["items"] == []
    assert stub.received == []


async def test_a_name_is_taken_once(owner: Person, stranger: Person, stub: StubProvider) -> None:
    await add(owner, stub)
    await add(stranger, stub)
    answer = await owner.client.post("/api/providers", json=wanted(stub))

    assert (answer.status_code, answer.json()["code"]) == (409, "already_exists")


async def test_a_change_keeps_the_credential_and_verifies_anew(owner: Person, stub: StubProvider) -> None:
    made = await add(owner, stub)
    body = wanted(stub, models=["echo", "echo"])
    del body["credential"]
    changed = (await owner.client.put(f"/api/providers/{made['id']}", json=body)).json()

    assert changed["models"] == ["echo"]
    assert changed["has_credential"]
    assert changed["verified_at"] is not None
    assert [one.headers["authorization"] for one in stub.received] == [f"Bearer {KEY}"] * 2


async def test_a_credential_is_not_sent_to_an_address_that_it_was_not_entered_for(
    owner: Person, stub: StubProvider
) -> None:
    made = await add(owner, stub)
    body = wanted(stub, base_url=stub.base_url.replace("127.0.0.1", "localhost"))
    del body["credential"]
    answer = await owner.client.put(f"/api/providers/{made['id']}", json=body)

    assert (answer.status_code, answer.json()["param"]) == (400, "credential")


async def test_a_removed_provider_takes_its_credential_along(
    owner: Person, stub: StubProvider, database: Database
) -> None:
    made = await add(owner, stub)
    assert (await owner.client.delete(f"/api/providers/{made['id']}")).status_code == 204

    assert (await owner.client.get(f"/api/providers/{made['id']}")).status_code == 404
    assert (await owner.client.get("/api/models")).json()["items"] == []
    with psycopg.connect(database.superuser_url) as connection:
        row = connection.execute("SELECT count(*) FROM secrets WHERE org_id = %s", [owner.org_id]).fetchone()
    assert row == (0,)


async def test_a_provider_that_bases_embed_with_is_kept_until_none_does(
    owner: Person, stranger: Person, stub: StubProvider, database: Database
) -> None:
    made = await add(owner, stub, name="test")  # whose model the bases are built with
    other = await add(owner, stub, name="te")
    theirs = await add(stranger, stub, name="test")
    for name in ("wiki", "hr-docs"):
        body = {"name": name, "source": {"type": "upload"}, "embedding_model": "test/hash"}
        assert (await owner.client.post("/api/knowledge-bases", json=body)).status_code == 201

    refused = await owner.client.delete(f"/api/providers/{made['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "state_conflict")
    assert "embed with test: hr-docs, wiki." in refused.json()["detail"]
    assert (await owner.client.get(f"/api/providers/{made['id']}")).json()["has_credential"]
    assert (await owner.client.delete(f"/api/providers/{other['id']}")).status_code == 204
    assert (await stranger.client.delete(f"/api/providers/{theirs['id']}")).status_code == 204

    assert (await owner.client.delete("/api/knowledge-bases/wiki")).status_code == 204
    with psycopg.connect(database.superuser_url) as connection:  # as after a switch to another model
        connection.execute(
            "UPDATE kb_generations SET status = 'retired', retired_at = now() WHERE org_id = %s", [owner.org_id]
        )
    assert (await owner.client.delete(f"/api/providers/{made['id']}")).status_code == 204


async def test_models_are_listed_in_pages(owner: Person, stub: StubProvider) -> None:
    await add(owner, stub)
    await add(owner, stub, name="few", models=["a/b"])
    seen: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        parameters = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await owner.client.get("/api/models", params=parameters)).json()
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert [model["id"] for model in seen] == [
        "stub/echo",
        "stub/gpt-4o",
        "stub/text-embedding-3-small",
        "few/a/b",
    ]
    assert seen[2]["operations"] == ["embeddings"]
    assert seen[3] == {"id": "few/a/b", "provider": "few", "model": "a/b", "operations": ["chat.completions"]}


def record(org_id: UUID, **fields: Any) -> UsageRecord:
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


async def test_logs_are_paged_from_the_newest_and_filtered(owner: Person, services: Services) -> None:
    records = [record(owner.org_id, created_at=NOW + timedelta(minutes=number)) for number in range(5)]
    records.append(record(owner.org_id, status=404, error_code="model_not_found", request_id="gone"))
    ingest: dict[str, Any] = {"operation": "embeddings.ingest", "model_requested": "stub/e", "request_id": "revision"}
    records[0] = dataclasses.replace(records[0], **ingest)
    await write(services.pool, records)
    first = (await owner.client.get("/api/gateway/logs", params={"limit": 4})).json()
    second = (await owner.client.get("/api/gateway/logs", params={"cursor": first["next_cursor"]})).json()
    failed = (await owner.client.get("/api/gateway/logs", params={"outcome": "failed"})).json()
    ingested = (await owner.client.get("/api/gateway/logs", params={"operation": "embeddings.ingest"})).json()
    later = (
        await owner.client.get("/api/gateway/logs", params={"since": "2026-05-01T12:03:00Z", "model": "stub/echo"})
    ).json()

    times = [item["created_at"] for item in first["items"] + second["items"]]
    assert len(times) == 6
    assert times == sorted(times, reverse=True)
    assert second["next_cursor"] is None
    assert [item["request_id"] for item in failed["items"]] == ["gone"]
    assert [item["request_id"] for item in ingested["items"]] == ["revision"]
    assert len(later["items"]) == 2


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({"inference_cost_nano_usd": 0}, 0),
        ({"inference_cost_nano_usd": None}, None),
        ({"inference_cost_nano_usd": 3, "retrieval_status": "ok", "retrieval_cost_nano_usd": 2}, 5e-9),
        ({"inference_cost_nano_usd": 3, "retrieval_status": "ok", "retrieval_cost_nano_usd": None}, None),
    ],
)
async def test_an_unknown_part_makes_the_cost_unknown(
    owner: Person, services: Services, fields: dict[str, Any], cost: float | None
) -> None:
    await write(services.pool, [record(owner.org_id, **fields)])
    [shown] = (await owner.client.get("/api/gateway/logs")).json()["items"]

    assert shown["cost"] == cost


async def test_another_organizations_logs_are_not_shown(owner: Person, stranger: Person, services: Services) -> None:
    await write(services.pool, [record(owner.org_id)])

    assert (await stranger.client.get("/api/gateway/logs")).json()["items"] == []
