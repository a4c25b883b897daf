"""What every route of /api has in common."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.console.conftest import Person


async def test_the_owner_reads_the_organization(owner: Person) -> None:
    answer = await owner.client.get("/api/organization")

    assert answer.status_code == 200
    assert answer.json()["id"] == str(owner.org_id)
    assert answer.json()["role"] == "owner"


async def test_the_process_is_alive_and_ready(anonymous: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        answer = await anonymous.get(path)

        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="nothing"),
        pytest.param("Basic dXNlcjpwYXNz", id="another-scheme"),
        pytest.param("Bearer", id="no-token"),
        pytest.param("Bearer bn-" + "A" * 43, id="a-gateway-key"),
        pytest.param("Bearer bp-" + "A" * 43, id="unknown"),
        pytest.param("Bearer bp-\x00" + "A" * 42, id="nul"),
        pytest.param("Bearer bp-" + "A" * 5000, id="long"),
    ],
)
async def test_a_call_without_a_known_token_is_refused(anonymous: httpx.AsyncClient, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}

    answer = await anonymous.get("/api/organization", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid_api_key"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_an_unknown_query_parameter_is_refused_by_name(owner: Person) -> None:
    answer = await owner.client.get("/api/organization", params={"nmae": "x"})

    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"param": "query.nmae", "message": "there is no such field"}]


async def test_an_unknown_path_and_another_method_are_problem_details(owner: Person) -> None:
    unknown = await owner.client.get("/api/nothing")
    method = await owner.client.delete("/api/organization")

    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert (method.status_code, method.json()["code"]) == (405, "method_not_allowed")
    assert method.headers["allow"] == "GET"


async def test_a_request_id_is_echoed_only_when_it_is_harmless(anonymous: httpx.AsyncClient) -> None:
    echoed = await anonymous.get("/healthz", headers={"x-request-id": "abc-1"})
    replaced = await anonymous.get("/healthz", headers={"x-request-id": 'x" onload='})

    assert echoed.headers["x-request-id"] == "abc-1"
    assert len(replaced.headers["x-request-id"]) == 32
