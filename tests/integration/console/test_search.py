"""POST …/search over HTTP: found by what was uploaded, filtered, and refused where it makes no sense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from bonito.database.pool import Pool
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.console.knowledge import Console, running

SEARCH = "/knowledge-bases/hr/search"
TEXTS = {
    "leave.md": "# Leave\n\nEmployees accrue twenty days of paid leave in a year, and ask two weeks before.",
    "travel.md": "# Travel\n\nTrains are booked in second class; flights need the approval of the manager.",
    "harbour/valves.txt": "The anemometer of the harbour is calibrated every spring, and the valve is replaced.",
}


@pytest.fixture
async def console(database: Database, pool: Pool, tmp_path: Path) -> AsyncIterator[Console]:
    async with running(database, pool, tmp_path) as console:
        yield console


@pytest.fixture
async def api(console: Console, org_id: UUID) -> AsyncIterator[httpx.AsyncClient]:
    """A client, and a knowledge base `hr` with three documents of two teams."""
    async with console.client(org_id) as client:
        await make_base(client, console)
        yield client


async def make_base(client: httpx.AsyncClient, console: Console) -> None:
    await client.post("/knowledge-bases", json={"name": "hr", "source": {"type": "upload"}})
    for name, text in TEXTS.items():
        data = {"metadata": json.dumps({"team": "hr" if name == "leave.md" else "office"})}
        await client.post("/knowledge-bases/hr/documents", files=[("files", (name, text.encode()))], data=data)
    await console.work()


async def search(api: httpx.AsyncClient, query: str, **options: Any) -> dict[str, Any]:
    answer = await api.post(SEARCH, json={"query": query, "mode": "keyword"} | options)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def names(api: httpx.AsyncClient, query: str, **options: Any) -> list[str]:
    return [result["document_name"] for result in (await search(api, query, **options))["results"]]


async def test_a_result_tells_where_it_comes_from(api: httpx.AsyncClient) -> None:
    answer = await search(api, "How many days of paid leave?")

    assert answer["query"] == "How many days of paid leave?"
    assert answer["search_time_ms"] > 0
    best = answer["results"][0]
    assert set(best) == {
        "chunk_id",
        "content",
        "score",
        "document_id",
        "document_name",
        "page",
        "section",
        "metadata",
    }
    assert (best["document_name"], best["section"], best["page"]) == ("leave.md", "Leave", None)
    assert best["metadata"] == {"team": "hr"}
    assert 0 < best["score"] <= 1
    document = (await api.get(f"/knowledge-bases/hr/documents/{best['document_id']}")).json()
    assert document["name"] == "leave.md"


async def test_every_mode_answers(api: httpx.AsyncClient) -> None:
    exact = TEXTS["harbour/valves.txt"]
    assert (await names(api, exact, mode="vector", top_k=1)) == ["harbour/valves.txt"]
    assert (await names(api, exact, mode="hybrid", top_k=1)) == ["harbour/valves.txt"]
    assert len(await names(api, exact, mode="vector")) == 3


async def test_top_k_min_score_and_filter_narrow_it(api: httpx.AsyncClient) -> None:
    everything = "leave trains anemometer"
    assert sorted(await names(api, everything)) == sorted(TEXTS)
    assert len(await names(api, everything, top_k=2)) == 2
    assert await names(api, everything, min_score=1) == []
    assert await names(api, everything, filter={"team": "hr"}) == ["leave.md"]
    assert await names(api, everything, filter={"team": "nobody"}) == []
    assert sorted(await names(api, everything, filter={})) == sorted(TEXTS)


async def test_it_follows_metadata_changes_and_deletions(api: httpx.AsyncClient, console: Console) -> None:
    (found,) = (await search(api, "anemometer"))["results"]
    path = f"/knowledge-bases/hr/documents/{found['document_id']}"

    await api.patch(path, json={"metadata": {"team": "harbour"}})
    assert await names(api, "anemometer", filter={"team": "office"}) == []
    assert await names(api, "anemometer", filter={"team": "harbour"}) == ["harbour/valves.txt"]

    await api.delete(path)
    assert await names(api, "anemometer") == []


async def test_it_answers_from_what_is_served_while_a_rebuild_runs_and_after_the_switch(
    api: httpx.AsyncClient, console: Console
) -> None:
    (before,) = (await search(api, "anemometer"))["results"]
    await api.put("/knowledge-bases/hr", json={"chunk_size": 32, "chunk_overlap": 0})

    async def ask() -> set[str]:
        seen = set()
        for _ in range(20):
            (result,) = (await search(api, "anemometer"))["results"]
            seen.add(result["chunk_id"])
        return seen

    asked, _ = await asyncio.gather(ask(), console.work())
    (after,) = (await search(api, "anemometer"))["results"]

    assert after["chunk_id"] != before["chunk_id"]
    assert asked <= {before["chunk_id"], after["chunk_id"]}


async def test_a_base_is_searched_by_its_id_too_and_before_its_first_sync_not_at_all(
    api: httpx.AsyncClient, console: Console
) -> None:
    base = (await api.get("/knowledge-bases/hr")).json()
    answer = await api.post(f"/knowledge-bases/{base['id']}/search", json={"query": "anemometer"})
    assert answer.status_code == 200

    await api.post("/knowledge-bases", json={"name": "new", "source": {"type": "upload"}})
    early = await api.post("/knowledge-bases/new/search", json={"query": "anything"})
    assert (early.status_code, early.json()["code"]) == (409, "knowledge_base_not_ready")
    await console.work()
    empty = await api.post("/knowledge-bases/new/search", json={"query": "anything"})
    assert (empty.status_code, empty.json()["results"]) == (200, [])
    missing = await api.post("/knowledge-bases/missing/search", json={"query": "anything"})
    assert (missing.status_code, missing.json()["code"]) == (404, "knowledge_base_not_found")


async def test_a_wrong_question_is_refused(api: httpx.AsyncClient) -> None:
    for body, status, param in [
        ({}, 422, "body.query"),
        ({"query": ""}, 422, "body.query"),
        ({"query": "x" * 32_001}, 422, "body.query"),
        ({"query": " \n"}, 400, "query"),
        ({"query": ["x"]}, 422, "body.query"),
        ({"query": "x", "top_k": 0}, 422, "body.top_k"),
        ({"query": "x", "top_k": 101}, 422, "body.top_k"),
        ({"query": "x", "top_k": True}, 422, "body.top_k"),
        ({"query": "x", "top_k": 1.5}, 422, "body.top_k"),
        ({"query": "x", "min_score": -0.1}, 422, "body.min_score"),
        ({"query": "x", "min_score": 1.1}, 422, "body.min_score"),
        ({"query": "x", "mode": "fuzzy"}, 422, "body.mode"),
        ({"query": "x", "filter": "team"}, 422, "body.filter"),
        ({"query": "x", "filter": {"a": "x" * 20_000}}, 400, "filter"),
        ({"query": "x", "limit": 3}, 422, "body.limit"),
    ]:
        answer = await api.post(SEARCH, json=body)
        assert (answer.status_code, answer.json()["param"]) == (status, param), body


async def test_each_search_leaves_a_row_of_what_it_used(
    database: Database, api: httpx.AsyncClient, console: Console, org_id: UUID
) -> None:
    base = (await api.get("/knowledge-bases/hr")).json()
    answer = await api.post(SEARCH, json={"query": "anemometer"}, headers={"x-request-id": "asked-once"})
    await search(api, "anemometer", mode="hybrid")
    await search(api, "anemometer", filter={"team": "nobody"})
    await api.post("/knowledge-bases/missing/search", json={"query": "anemometer"})
    await api.post(SEARCH, json={"query": ""})  # searched nothing
    with psycopg.connect(database.superuser_url) as connection:
        connection.execute("UPDATE kb_generations SET dimensions = 9 WHERE org_id = %s", [org_id])
    await api.post(SEARCH, json={"query": "the embedding's answer does not fit"})

    rows = list(reversed((await api.get("/gateway/logs", params={"operation": "search"})).json()["items"]))
    told = ("status", "retrieval_status", "model_used", "provider", "input_tokens", "cost", "error_code")
    assert [tuple(row[field] for field in told) for row in rows] == [
        (200, "ok", "test/hash", "test", 1, None, None),
        (200, "ok", "test/hash", "test", 0, 0, None),
        (200, "empty", None, None, None, 0, None),
        (404, "failed", None, None, None, 0, "knowledge_base_not_found"),
        (503, "failed", "test/hash", "test", None, None, "knowledge_base_unavailable"),
    ]
    assert [row["knowledge_base_ids"] for row in rows] == [[base["id"]]] * 3 + [[], [base["id"]]]
    assert rows[0]["request_id"] == answer.headers["x-request-id"]
    assert all(row["latency_ms"] == row["retrieval_latency_ms"] for row in rows)
    assert all((row["key_id"], row["model_requested"], row["is_stream"]) == (None, "", False) for row in rows)


async def test_two_organizations_with_the_same_names_find_their_own(
    api: httpx.AsyncClient, console: Console, other_org_id: UUID
) -> None:
    ours = (await search(api, "anemometer"))["results"]
    base = (await api.get("/knowledge-bases/hr")).json()

    async with console.client(other_org_id) as theirs:
        assert (await theirs.post(SEARCH, json={"query": "anemometer"})).status_code == 404
        foreign = await theirs.post(f"/knowledge-bases/{base['id']}/search", json={"query": "anemometer"})
        assert foreign.status_code == 404
        await make_base(theirs, console)
        found = (await search(theirs, "anemometer"))["results"]

    assert [result["content"] for result in found] == [result["content"] for result in ours]
    assert not {result["chunk_id"] for result in found} & {result["chunk_id"] for result in ours}


async def test_a_viewer_may_search(api: httpx.AsyncClient, console: Console, org_id: UUID) -> None:
    async with console.client(org_id, Role.VIEWER) as viewer:
        assert await names(viewer, "anemometer") == ["harbour/valves.txt"]
