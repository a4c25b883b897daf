"""What a route never gets to see: too large a body, another type, no JSON; and what failures tell (T5)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import httpx
import psycopg
import pytest

from bonito.console.app import create_app
from bonito.console.permissions import MAX_JSON_BYTES, Call, requires
from bonito.console.routing import api_router
from bonito.console.services import Services
from bonito.database.pool import open_pool
from bonito.tenancy.permissions import Permission, Role
from tests.integration.conftest import Database
from tests.integration.console.conftest import Person, client_of
from tests.integration.console.services import make_services
from tests.integration.people import make_member

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "required", id="nothing"),
        pytest.param(b"{", "not valid JSON", id="cut-off"),
        pytest.param(b"[]", "valid dictionary", id="another-type"),
        pytest.param(b'{"name": "a", "overlap_hours": NaN}', "NaN is not JSON", id="nan"),
        pytest.param(b'{"name": "a", "name": "b"}', "a name is repeated", id="repeated-name"),
        pytest.param(b'{"name": "\xff"}', "not UTF-8", id="not-utf-8"),
        pytest.param('{"name": "a"}'.encode("utf-16"), "not", id="utf-16"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="deep"),
        pytest.param(b'{"name": "a", "nmae": "b"}', "no such field", id="unknown-field"),
        pytest.param(b'{"name": " "}', "match pattern", id="blank-name"),
        pytest.param(b'{"name": 1}', "valid string", id="wrong-type"),
        pytest.param(b'{"name": "a", "expires_at": 1893456000}', "offset from UTC", id="number-for-a-moment"),
        pytest.param(b'{"name": "a", "expires_at": "2031-01-31"}', "offset from UTC", id="date-for-a-moment"),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_with_its_reason(owner: Person, body: bytes, message: str) -> None:
    answer = await owner.client.post("/api/keys", content=body, headers=JSON)

    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid_request_error"
    assert message in json.dumps(answer.json()["errors"])


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b'"a\\u0000b"', id="nul"),
        pytest.param(b'"\\ud800"', id="half-of-a-pair"),
        pytest.param(b'[{"a\\u0000": 1}]', id="nul-in-a-name-inside"),
        pytest.param(b"1e999", id="endless"),
        pytest.param(b"9" * 5000, id="long"),
    ],
)
async def test_what_cannot_be_stored_is_refused(owner: Person, value: bytes) -> None:
    answer = await owner.client.post("/api/keys", content=b'{"name": ' + value + b"}", headers=JSON)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request_error")


async def test_every_field_at_fault_is_named(owner: Person) -> None:
    answer = await owner.client.post("/api/invites", json={"email": "nobody", "role": "king", "x": 1})

    assert sorted(problem["param"] for problem in answer.json()["errors"]) == ["body.email", "body.role", "body.x"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
async def test_another_type_of_body_is_refused(owner: Person, content_type: str) -> None:
    answer = await owner.client.post("/api/keys", content=b'{"name": "a"}', headers={"content-type": content_type})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_charset_beside_the_type_is_fine(owner: Person) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}

    answer = await owner.client.post("/api/keys", content=b'{"name": "a"}', headers=headers)

    assert answer.status_code == 201


async def test_a_body_above_the_limit_is_refused_however_it_comes(owner: Person) -> None:
    body = b'{"name": "' + b"a" * MAX_JSON_BYTES + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    declared = await owner.client.post("/api/keys", content=body, headers=JSON)
    streamed = await owner.client.post("/api/keys", content=pieces(), headers=JSON)

    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert str(MAX_JSON_BYTES) in answer.json()["detail"]


async def test_nothing_of_a_body_is_read_for_a_caller_without_the_permission(
    services: Services, database: Database, org_id: UUID, anonymous: httpx.AsyncClient
) -> None:
    viewer = make_member(database, org_id, Role.VIEWER)
    read: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        read.append(b"{}")
        yield b"{}"

    async with client_of(services, viewer.token) as client:
        refused = await client.post("/api/keys", content=pieces(), headers=JSON)
    unknown = await anonymous.post("/api/keys", content=pieces(), headers=JSON)

    assert (refused.status_code, unknown.status_code) == (403, 401)
    assert read == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "limit=1&limit=2", "cursor=x", "cursor=", "page=2"]
)
async def test_a_query_that_does_not_fit_is_refused(owner: Person, query: str) -> None:
    answer = await owner.client.get(f"/api/keys?{query}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["param"].startswith("query.")


async def test_pages_lead_through_all_keys_once(owner: Person) -> None:
    for number in range(5):
        await owner.client.post("/api/keys", json={"name": f"key {number}"})

    names: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    while True:
        page = (await owner.client.get("/api/keys", params=query)).json()
        names += [key["name"] for key in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]

    assert names == [f"key {number}" for number in range(5)]


async def test_answers_carry_security_headers_also_when_they_refuse(anonymous: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/api/keys", "/api/nothing"):
        headers = (await anonymous.get(path)).headers

        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "x-request-id" in headers


async def test_an_unexpected_failure_tells_nothing_but_the_requests_id(
    services: Services, owner: Person, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(services)
    router = api_router("/broken", "broken")

    @router.get("")
    async def broken(call: Annotated[Call, requires(Permission.KEYS_READ)]) -> None:
        """Fail with something that nobody may see."""
        raise RuntimeError("canary: /etc/passwd, SELECT *")

    @router.get("/sql")
    async def broken_sql(call: Annotated[Call, requires(Permission.KEYS_READ)]) -> None:
        """Fail in the database."""
        async with call.transaction() as conn:
            await conn.execute("SELECT canary FROM nowhere")

    app.include_router(router)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    headers = {"Authorization": f"Bearer {owner.token}", "x-request-id": "find-me"}
    async with httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers) as client:
        for path in ("/api/broken", "/api/broken/sql"):
            answer = await client.get(path)

            assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
            assert answer.json()["request_id"] == "find-me"
            assert "canary" not in answer.text
    assert "canary" in caplog.text
    assert caplog.text.count("request find-me: unexpected failure") == 2


async def test_a_database_that_is_gone_is_a_503(database: Database, org_id: UUID) -> None:
    pool = await open_pool(database.runtime_url, min_size=1, max_size=1, timeout_s=2)
    member = make_member(database, org_id, Role.OWNER)
    with psycopg.connect(database.superuser_url, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'test_runtime' AND datname = current_database()"
        )
    try:
        async with client_of(make_services(pool), member.token) as client:
            answer = await client.get("/api/organization")
            again = await client.get("/api/organization")
    finally:
        await pool.close()

    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "1"
    assert again.status_code == 200
