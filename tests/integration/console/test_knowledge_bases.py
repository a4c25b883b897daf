"""/api/knowledge-bases over HTTP: every field, wrong input of every kind, two tenants, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from bonito.database.pool import Pool, tenant
from bonito.knowledge import bases
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.console.knowledge import Console, running
from tests.integration.knowledge.served import serve

UPLOAD = {"name": "hr-docs", "source": {"type": "upload"}}


@pytest.fixture
async def console(database: Database, pool: Pool, tmp_path: Path) -> AsyncIterator[Console]:
    async with running(database, pool, tmp_path) as console:
        yield console


@pytest.fixture
async def api(console: Console, org_id: UUID) -> AsyncIterator[httpx.AsyncClient]:
    async with console.client(org_id) as client:
        yield client


@pytest.fixture
async def strangers_api(console: Console, other_org_id: UUID) -> AsyncIterator[httpx.AsyncClient]:
    async with console.client(other_org_id) as client:
        yield client


async def created(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await api.post("/knowledge-bases", json=UPLOAD | fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def stored(pool: Pool, org_id: UUID, base: dict[str, Any]) -> bases.KnowledgeBase:
    async with tenant(pool, org_id) as conn:
        return await bases.get(conn, org_id=org_id, name_or_id=base["id"])


async def test_a_created_base_answers_what_was_asked_for_and_what_is_in_force(
    api: httpx.AsyncClient, console: Console
) -> None:
    base = await created(api)

    assert base["name"] == "hr-docs"
    assert base["source"] == {"type": "upload"}
    assert (base["embedding_model"], base["chunk_size"], base["chunk_overlap"]) == ("auto", 512, 50)
    assert (base["language"], base["sync_schedule"], base["sync_timezone"]) == ("auto", None, "UTC")
    assert (base["status"], base["error"], base["last_synced_at"], base["rebuild"]) == ("pending", None, None, None)
    assert (base["document_count"], base["chunk_count"], base["total_tokens"]) == (0, 0, 0)
    assert base["in_force"] == {
        "embedding_model": "test/hash",
        "dimensions": 8,
        "chunk_size": 256,
        "chunk_overlap": 25,
        "language": None,
    }
    assert [message["knowledge_base_id"] for message in console.sent("sync")] == [base["id"]]


async def test_a_base_is_read_by_name_and_by_id_and_in_the_list(api: httpx.AsyncClient) -> None:
    base = await created(api, description="All of HR.", metadata={"team": "hr"})

    for name in ("hr-docs", base["id"], base["id"].upper()):
        answer = await api.get(f"/knowledge-bases/{name}")
        assert (answer.status_code, answer.json()) == (200, base)
    assert (await api.get("/knowledge-bases")).json() == {"items": [base], "next_cursor": None}


async def test_lists_page_by_name(api: httpx.AsyncClient) -> None:
    names = sorted(f"kb-{number}" for number in range(7))
    for name in reversed(names):
        await created(api, name=name)

    seen: list[str] = []
    cursor = None
    while True:
        parameters = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/knowledge-bases", params=parameters)).json()
        seen += [base["name"] for base in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == names


async def test_a_local_source_is_a_folder_below_a_root_with_links_resolved(
    api: httpx.AsyncClient, console: Console
) -> None:
    (console.root / "papers").mkdir()
    (console.root / "link").symlink_to(console.root / "papers")

    base = await created(api, source={"type": "local", "path": str(console.root / "link" / ".." / "papers")})

    assert base["source"] == {"type": "local", "path": str((console.root / "papers").resolve())}


async def test_a_folder_that_may_not_be_read_is_refused(api: httpx.AsyncClient, console: Console) -> None:
    (console.root / "escape").symlink_to("/etc")

    for path in ("/etc", f"{console.root}/escape", f"{console.root}/../data", f"{console.root}/missing"):
        answer = await api.post("/knowledge-bases", json=UPLOAD | {"source": {"type": "local", "path": path}})

        assert (answer.status_code, answer.json()["param"]) == (400, "source.path"), path
    assert (await api.get("/knowledge-bases")).json()["items"] == []


async def test_a_bucket_without_a_connection_is_refused_and_not_kept(api: httpx.AsyncClient) -> None:
    for source in (
        {"type": "s3", "bucket": "b", "prefix": "p/", "region": "eu-central-1"},
        {"type": "azure_blob", "account": "a", "container": "c"},
        {"type": "gcs", "bucket": "b"},
    ):
        answer = await api.post("/knowledge-bases", json=UPLOAD | {"source": source})

        assert (answer.status_code, answer.json()["param"]) == (400, "source.connection")
        assert "POST /api/connections" in answer.json()["detail"]
    assert (await api.get("/knowledge-bases")).json()["items"] == []


async def test_a_cloud_deployment_reads_no_folder(database: Database, pool: Pool, org_id: UUID, tmp_path: Path) -> None:
    async with running(database, pool, tmp_path, cloud="aws") as console, console.client(org_id) as api:
        source = {"type": "local", "path": str(console.root)}
        answer = await api.post("/knowledge-bases", json=UPLOAD | {"source": source})

    assert (answer.status_code, answer.json()["param"]) == (400, "source.type")


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        pytest.param({"name": "HR"}, 422, "body.name", id="not-as-described"),
        pytest.param({"source": {"type": "upload", "secret": "x"}}, 422, "body.source.upload.secret", id="credential"),
        pytest.param({"owner": "me"}, 422, "body.owner", id="unknown-field"),
        pytest.param({"sync_schedule": "every hour"}, 400, "sync_schedule", id="without-sense"),
        pytest.param({"language": "klingon"}, 400, "language", id="unknown-language"),
        pytest.param({"embedding_model": "test/unknown"}, 400, "embedding_model", id="unknown-model"),
    ],
)
async def test_wrong_fields_are_named(api: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str) -> None:
    answer = await api.post("/knowledge-bases", json=UPLOAD | fields)

    assert (answer.status_code, answer.json()["param"]) == (status, param)
    assert answer.json()["code"] == "invalid_request_error"


async def test_what_was_asked_for_is_kept(api: httpx.AsyncClient) -> None:
    fields = {
        "description": "Everything that people ask.",
        "chunk_size": 100.0,
        "chunk_overlap": 0,
        "language": "german",
        "sync_schedule": "*/15 8-18 * * mon-fri",
        "sync_timezone": "Europe/Berlin",
        "metadata": {"tags": ["a", "ü", "😀"], "n": 1.5, "none": None},
        "embedding_model": "test/other",
    }
    base = await created(api, **fields)

    assert {name: base[name] for name in fields} == fields
    assert base["in_force"]["language"] == "german"


async def test_a_small_chunk_has_a_small_overlap_where_none_is_asked_for(api: httpx.AsyncClient) -> None:
    base = await created(api, chunk_size=16)

    assert (base["chunk_overlap"], base["in_force"]["chunk_overlap"]) == (4, 4)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"{", {"content-type": "application/json"}, 422, id="no-json"),
        pytest.param(b'{"name": "a", "name": "b"}', {"content-type": "application/json"}, 422, id="a-name-twice"),
        pytest.param(b"\xff\xfe", {"content-type": "application/json"}, 422, id="no-utf8"),
        pytest.param(b"[]", {"content-type": "application/json"}, 422, id="a-list"),
        pytest.param(b"name=a", {"content-type": "application/x-www-form-urlencoded"}, 415, id="a-form"),
        pytest.param(b" " * 2_000_000, {"content-type": "application/json"}, 413, id="two-megabytes"),
    ],
)
async def test_a_wrong_body_is_refused(
    api: httpx.AsyncClient, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await api.post("/knowledge-bases", content=body, headers=headers)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_half_of_a_surrogate_pair_is_refused(api: httpx.AsyncClient) -> None:
    for field in (b'"description": "\\ud800"', b'"metadata": {"a": "\\ud800"}', b'"\\ud800": 1'):
        body = b'{"name": "a", "source": {"type": "upload"}, ' + field + b"}"
        answer = await api.post("/knowledge-bases", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request_error"), field


async def test_of_creates_at_once_with_one_name_one_wins(api: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(api.post("/knowledge-bases", json=UPLOAD) for _ in range(5)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    assert {answer.json()["code"] for answer in answers if answer.is_error} == {"already_exists"}
    assert len((await api.get("/knowledge-bases")).json()["items"]) == 1


async def test_an_unknown_base_is_not_found(api: httpx.AsyncClient) -> None:
    nothing = "00000000-0000-0000-0000-000000000000"
    for name in ("missing", nothing, "x" * 63):
        for method, path in [
            ("GET", ""),
            ("PUT", ""),
            ("DELETE", ""),
            ("GET", "/stats"),
            ("GET", "/documents"),
            ("GET", "/export"),
            ("GET", f"/documents/{nothing}"),
            ("GET", f"/documents/{nothing}/chunks"),
            ("DELETE", f"/documents/{nothing}"),
        ]:
            answer = await api.request(method, f"/knowledge-bases/{name}{path}", json={} if method == "PUT" else None)
            assert (answer.status_code, answer.json()["code"]) == (404, "knowledge_base_not_found"), (method, path)


async def test_another_organizations_base_is_not_found_and_unharmed(
    api: httpx.AsyncClient, strangers_api: httpx.AsyncClient
) -> None:
    base = await created(api)
    theirs = await created(strangers_api)

    for method, path, body in [
        ("GET", "", None),
        ("PUT", "", {"description": "theirs"}),
        ("DELETE", "", None),
        ("GET", "/stats", None),
        ("GET", "/documents", None),
        ("GET", "/export", None),
    ]:
        answer = await strangers_api.request(method, f"/knowledge-bases/{base['id']}{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "knowledge_base_not_found"), (method, path)
    assert (await api.get(f"/knowledge-bases/{base['id']}")).json() == base
    assert [item["id"] for item in (await strangers_api.get("/knowledge-bases")).json()["items"]] == [theirs["id"]]


async def test_a_put_changes_what_is_sent_and_nothing_else(api: httpx.AsyncClient) -> None:
    base = await created(api, sync_schedule="0 6 * * *", metadata={"team": "hr"})

    answer = await api.put(
        "/knowledge-bases/hr-docs", json={"name": "people", "description": "People", "sync_schedule": None}
    )

    assert answer.status_code == 200
    changed = answer.json()
    assert changed == base | {
        "name": "people",
        "description": "People",
        "sync_schedule": None,
        "updated_at": changed["updated_at"],
    }
    assert (await api.get("/knowledge-bases/hr-docs")).status_code == 404


async def test_a_put_of_another_chunking_builds_beside_what_answers_and_then_switches(
    api: httpx.AsyncClient, console: Console, pool: Pool, org_id: UUID
) -> None:
    base = await created(api)
    await serve(pool, org_id, await stored(pool, org_id, base), "a.md", ["one", "two"])
    syncs = len(console.sent("sync"))

    changed = (await api.put("/knowledge-bases/hr-docs", json={"chunk_size": 64, "chunk_overlap": 8})).json()

    assert changed["chunk_size"] == 64
    assert changed["in_force"]["chunk_size"] == 256
    assert (changed["rebuild"]["chunk_size"], changed["rebuild"]["documents_missing"]) == (64, 1)
    assert (changed["document_count"], changed["chunk_count"]) == (1, 2)
    assert len(console.sent("sync")) == syncs + 1

    back = (await api.put("/knowledge-bases/hr-docs", json={"chunk_size": 512, "chunk_overlap": 50})).json()

    assert (back["rebuild"], back["in_force"]["chunk_size"]) == (None, 256)


async def test_a_put_on_an_empty_base_is_in_force_at_once(api: httpx.AsyncClient, console: Console) -> None:
    await created(api)

    changed = (await api.put("/knowledge-bases/hr-docs", json={"embedding_model": "test/other"})).json()

    assert changed["rebuild"] is None
    assert changed["in_force"]["embedding_model"] == "test/other"
    assert changed["in_force"]["chunk_size"] == 512


async def test_a_put_that_changes_no_chunk_builds_nothing(
    api: httpx.AsyncClient, console: Console, pool: Pool, org_id: UUID
) -> None:
    base = await created(api)
    await serve(pool, org_id, await stored(pool, org_id, base), "a.md", ["one"])
    syncs = len(console.sent("sync"))

    for body in ({"chunk_size": 512}, {"description": "x"}, {"language": "auto"}, {}):
        assert (await api.put("/knowledge-bases/hr-docs", json=body)).json()["rebuild"] is None

    assert len(console.sent("sync")) == syncs


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        pytest.param({"chunk_size": 32}, 400, "chunk_overlap", id="below-the-present-overlap"),
        pytest.param({"chunk_overlap": 600}, 400, "chunk_overlap", id="above-the-present-size"),
        pytest.param({"source": {"type": "local", "path": "{root}"}}, 400, "source", id="another-source"),
        pytest.param({"source": {"type": "gcs", "bucket": "b"}}, 400, "source.connection", id="no-connection"),
        pytest.param({"language": "klingon"}, 400, "language", id="unknown-language"),
        pytest.param({"embedding_model": "test/unknown"}, 400, "embedding_model", id="unknown-model"),
        pytest.param({"id": "x"}, 422, "body.id", id="unknown-field"),
        pytest.param({"name": "Wrong Name"}, 422, "body.name", id="wrong-name"),
    ],
)
async def test_a_wrong_put_changes_nothing(
    api: httpx.AsyncClient, console: Console, body: dict[str, Any], status: int, param: str
) -> None:
    base = await created(api)
    if "path" in body.get("source", {}):
        body = {"source": {"type": "local", "path": str(console.root)}}

    answer = await api.put("/knowledge-bases/hr-docs", json=body)

    assert answer.status_code == status
    assert answer.json()["param"].startswith(param)
    assert (await api.get("/knowledge-bases/hr-docs")).json() == base


async def test_the_source_that_it_has_may_be_sent_along(api: httpx.AsyncClient) -> None:
    await created(api)

    answer = await api.put("/knowledge-bases/hr-docs", json=UPLOAD | {"description": "same source"})

    assert (answer.status_code, answer.json()["description"]) == (200, "same source")


async def test_a_put_to_a_taken_name_is_refused(api: httpx.AsyncClient) -> None:
    await created(api)
    await created(api, name="legal")

    answer = await api.put("/knowledge-bases/legal", json={"name": "hr-docs"})

    assert (answer.status_code, answer.json()["code"]) == (409, "already_exists")


async def test_puts_at_once_all_count(api: httpx.AsyncClient, pool: Pool, org_id: UUID) -> None:
    base = await created(api)
    await serve(pool, org_id, await stored(pool, org_id, base), "a.md", ["one"])

    bodies = [{"description": "new"}, {"chunk_size": 128}, {"metadata": {"a": 1}}, {"language": "german"}]
    answers = await asyncio.gather(*(api.put("/knowledge-bases/hr-docs", json=body) for body in bodies))

    assert [answer.status_code for answer in answers] == [200] * 4
    now = (await api.get("/knowledge-bases/hr-docs")).json()
    assert (now["description"], now["chunk_size"], now["metadata"], now["language"]) == ("new", 128, {"a": 1}, "german")
    assert (now["rebuild"]["chunk_size"], now["rebuild"]["language"]) == (128, "german")


async def test_a_deleted_base_is_gone_and_its_name_is_free(api: httpx.AsyncClient) -> None:
    base = await created(api)

    assert (await api.delete("/knowledge-bases/hr-docs")).status_code == 204
    assert (await api.delete("/knowledge-bases/hr-docs")).status_code == 404
    assert (await api.get(f"/knowledge-bases/{base['id']}")).status_code == 404
    assert (await created(api))["id"] != base["id"]


async def test_stats_count_what_is_there(api: httpx.AsyncClient, pool: Pool, org_id: UUID) -> None:
    base = await created(api)
    row = await stored(pool, org_id, base)
    await serve(pool, org_id, row, "a.md", ["one two", "three"])
    await serve(pool, org_id, row, "b.md", ["four"])
    async with tenant(pool, org_id) as conn:
        await conn.execute("UPDATE kb_documents SET status = 'error' WHERE file_path = 'b.md'")

    stats = (await api.get("/knowledge-bases/hr-docs/stats")).json()

    assert stats == {
        "document_count": 2,
        "documents": {"pending": 0, "processing": 0, "ready": 1, "ready_with_warnings": 0, "error": 1},
        "served_document_count": 2,
        "chunk_count": 3,
        "total_tokens": 4,
        "source_bytes": len("one two\nthree") + len("four"),
        "vector_bytes": 3 * (8 + 4 * 8),
        "last_synced_at": None,
    }


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.VIEWER, {"read"}),
        (Role.MEMBER, {"read", "create", "change", "export"}),
        (Role.ADMIN, {"read", "create", "change", "export", "delete"}),
    ],
)
async def test_roles_may_do_what_they_may(
    api: httpx.AsyncClient, console: Console, org_id: UUID, role: Role, allowed: set[str]
) -> None:
    await created(api)
    async with console.client(org_id, role) as client:
        answers = {
            "read": await client.get("/knowledge-bases/hr-docs"),
            "create": await client.post("/knowledge-bases", json=UPLOAD | {"name": "other"}),
            "change": await client.put("/knowledge-bases/hr-docs", json={"description": "x"}),
            "export": await client.get("/knowledge-bases/hr-docs/export"),
            "delete": await client.delete("/knowledge-bases/hr-docs"),
        }

    assert {name for name, answer in answers.items() if answer.status_code != 403} == allowed


async def test_changes_are_in_the_audit_log(api: httpx.AsyncClient) -> None:
    base = await created(api)
    await api.put("/knowledge-bases/hr-docs", json={"description": "x"})
    await api.delete("/knowledge-bases/hr-docs")

    log = (await api.get("/audit-log")).json()["items"]

    assert [entry["action"] for entry in reversed(log)] == [
        "knowledge_base.create",
        "knowledge_base.update",
        "knowledge_base.delete",
    ]
    assert {entry["target"] for entry in log} == {f"knowledge_base:{base['id']}"}
