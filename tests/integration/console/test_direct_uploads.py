"""Uploads in three steps over HTTP: addresses, files, documents; and what becomes of those that stop half-way."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from bonito.database.pool import Pool
from bonito.knowledge import direct_uploads, upload_tickets
from bonito.knowledge.context import Ingestion
from bonito.knowledge.upload_tickets import Ticket
from bonito.tenancy.permissions import Role
from bonito.tenancy.secrets import SecretBox
from tests.integration.conftest import Database
from tests.integration.console.knowledge import MAX_BYTES, Console, Stores, running
from tests.integration.knowledge.ingesting import Parsers
from tests.integration.knowledge.served import HashModels

UPLOADS, DOCUMENTS = "/knowledge-bases/hr/uploads", "/knowledge-bases/hr/documents"
LEAVE = b"# Leave\n\nEmployees accrue twenty days of paid leave in a year.\n"
SICK = b"# Sick leave\n\nA doctor's note is due on the third day.\n"
AT_ONCE = timedelta(seconds=-7200)


@pytest.fixture
async def console(database: Database, pool: Pool, tmp_path: Path) -> AsyncIterator[Console]:
    async with running(database, pool, tmp_path) as started:
        yield started


@pytest.fixture
async def client(console: Console, org_id: UUID) -> AsyncIterator[httpx.AsyncClient]:
    async with console.client(org_id) as opened:
        made = await opened.post("/knowledge-bases", json={"name": "hr", "source": {"type": "upload"}})
        assert made.status_code == 201, made.text
        await console.work()
        yield opened


def file(name: str, content: bytes, **members: Any) -> dict[str, Any]:
    return {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | members


async def begin(client: httpx.AsyncClient, *files: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(UPLOADS, json={"files": files})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def put(address: dict[str, Any], content: bytes) -> httpx.Response:
    """As a client without any token does."""
    async with httpx.AsyncClient(trust_env=False) as anybody:
        return await anybody.put(address["url"], content=content, headers=address["headers"])


async def upload(client: httpx.AsyncClient, name: str, content: bytes, **members: Any) -> dict[str, Any]:
    begun = await begin(client, file(name, content, **members))
    assert (await put(begun["files"][0], content)).status_code == 204
    completed = await client.post(f"{UPLOADS}/{begun['id']}/complete", json={})
    assert completed.status_code == 202, completed.text
    return dict(completed.json()["items"][0])


async def names(client: httpx.AsyncClient) -> list[str]:
    return [item["name"] for item in (await client.get(DOCUMENTS)).json()["items"]]


def stored(console: Console) -> list[str]:
    return sorted(path.name for path in (console.data_dir / "uploads").rglob("*") if path.is_file())


async def sweep(console: Console) -> int:
    context = Ingestion(console.pool, Stores(console.data_dir), console.queue, HashModels(), Parsers())
    return await direct_uploads.sweep(context, grace=AT_ONCE)


async def test_files_become_documents_that_are_found(console: Console, client: httpx.AsyncClient) -> None:
    begun = await begin(client, file("policies/./leave.md", LEAVE, metadata={"team": "hr"}), file("sick.md", SICK))
    for address, content in zip(begun["files"], (LEAVE, SICK), strict=True):
        assert (await put(address, content)).status_code == 204
    completed = (await client.post(f"{UPLOADS}/{begun['id']}/complete", json={})).json()
    await console.work()
    found = await client.post("/knowledge-bases/hr/search", json={"query": "paid leave", "filter": {"team": "hr"}})

    assert [address["name"] for address in begun["files"]] == ["policies/leave.md", "sick.md"]
    assert [(item["name"], item["outcome"]) for item in completed["items"]] == [
        ("policies/leave.md", "created"),
        ("sick.md", "created"),
    ]
    assert {result["document_name"] for result in found.json()["results"]} == {"policies/leave.md"}


async def test_what_a_document_has_already_is_not_brought_again(console: Console, client: httpx.AsyncClient) -> None:
    known = await upload(client, "leave.md", LEAVE)
    await console.work()
    begun = await begin(client, file("leave.md", LEAVE, metadata={"team": "hr"}), file("sick.md", SICK))
    await put(begun["files"][1], SICK)
    completed = (await client.post(f"{UPLOADS}/{begun['id']}/complete", json={})).json()["items"]

    assert (begun["files"][0]["url"], begun["files"][0]["document_id"]) == (None, known["id"])
    assert [(item["id"] == known["id"], item["outcome"]) for item in completed] == [
        (True, "unchanged"),
        (False, "created"),
    ]
    assert completed[0]["metadata"] == {"team": "hr"}


async def test_completing_again_answers_the_same_documents(console: Console, client: httpx.AsyncClient) -> None:
    begun = await begin(client, file("leave.md", LEAVE))
    await put(begun["files"][0], LEAVE)
    path = f"{UPLOADS}/{begun['id']}/complete"
    first = (await client.post(path, json={})).json()["items"]
    await console.work()
    second = (await client.post(path, json={})).json()["items"]

    assert [item["id"] for item in first] == [item["id"] for item in second]
    assert console.queue.sent == []


async def test_a_new_version_replaces_the_document(console: Console, client: httpx.AsyncClient) -> None:
    first = await upload(client, "leave.md", LEAVE, metadata={"team": "hr"})
    await console.work()
    second = await upload(client, "leave.md", SICK)
    await console.work()
    shown = (await client.get(f"{DOCUMENTS}/{first['id']}")).json()

    assert (second["id"], second["outcome"]) == (first["id"], "replaced")
    assert (shown["sha256"], shown["metadata"]) == (hashlib.sha256(SICK).hexdigest(), {"team": "hr"})


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(b"", 400, id="nothing"),
        pytest.param(LEAVE[:-1], 400, id="a-byte-less"),
        pytest.param(b"x" * len(LEAVE), 400, id="another-content"),
        pytest.param(LEAVE + b"x", 413, id="a-byte-more"),
        pytest.param(LEAVE * 1000, 413, id="much-more"),
    ],
)
async def test_only_what_was_announced_is_taken(
    console: Console, client: httpx.AsyncClient, content: bytes, status: int
) -> None:
    begun = await begin(client, file("leave.md", LEAVE))
    answer = await put(begun["files"][0], content)
    completed = await client.post(f"{UPLOADS}/{begun['id']}/complete", json={})

    assert answer.status_code == status, answer.text
    assert stored(console) == []
    assert (completed.status_code, completed.json()["code"]) == (409, "state_conflict")
    assert "leave.md was not brought" in completed.json()["detail"]
    assert await names(client) == []


async def test_an_address_is_of_one_file_and_nothing_else(console: Console, client: httpx.AsyncClient) -> None:
    begun = await begin(client, file("leave.md", LEAVE), file("sick.md", SICK))
    swapped = await put(begun["files"][0], SICK)
    url = begun["files"][0]["url"]
    forged = await put({"url": url[:-4] + "AAAA", "headers": {}}, LEAVE)
    without = await put({"url": url.partition("?")[0], "headers": {}}, LEAVE)

    assert (swapped.status_code, forged.status_code, without.status_code) == (400, 404, 422)
    assert stored(console) == []


async def test_an_address_ends_with_its_upload(console: Console, client: httpx.AsyncClient, org_id: UUID) -> None:
    begun = await begin(client, file("leave.md", LEAVE))
    assert await sweep(console) >= 1
    swept = await put(begun["files"][0], LEAVE)
    completed = await client.post(f"{UPLOADS}/{begun['id']}/complete", json={})
    unknown = Ticket(org_id, uuid4(), 0, upload_tickets.datetime.now(upload_tickets.UTC) + timedelta(hours=1))
    ticket = upload_tickets.issue(SecretBox([bytes(32)]), unknown)
    never = await put({"url": f"{console.url}/api/uploads?ticket={ticket}", "headers": {}}, LEAVE)

    assert (swept.status_code, completed.status_code, never.status_code) == (404, 404, 404)


@pytest.mark.parametrize(
    ("files", "status"),
    [
        pytest.param([], 422, id="none"),
        pytest.param([file("a.md", LEAVE), file("./a.md", SICK)], 400, id="a-name-twice"),
        pytest.param([file("../a.md", LEAVE)], 400, id="a-name-that-climbs"),
        pytest.param([file(".hidden", LEAVE)], 400, id="a-hidden-name"),
        pytest.param([file("a", LEAVE), file("a/b.md", SICK)], 409, id="a-file-and-a-folder"),
        pytest.param([file("a.md", LEAVE) | {"size": MAX_BYTES + 1}], 400, id="too-large"),
        pytest.param([file("a.md", LEAVE) | {"sha256": "x"}], 422, id="no-hash"),
        pytest.param([file(f"{number}.md", LEAVE) for number in range(101)], 422, id="too-many"),
    ],
)
async def test_what_cannot_be_brought_gets_no_address(
    client: httpx.AsyncClient, files: list[dict[str, Any]], status: int
) -> None:
    answer = await client.post(UPLOADS, json={"files": files})

    assert answer.status_code == status, answer.text
    assert "url" not in answer.json()


async def test_a_base_with_another_source_takes_no_upload(console: Console, client: httpx.AsyncClient) -> None:
    source = {"type": "local", "path": str(console.root)}
    await client.post("/knowledge-bases", json={"name": "local", "source": source})
    answer = await client.post("/knowledge-bases/local/uploads", json={"files": [file("a.md", LEAVE)]})

    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")


async def test_a_reader_gets_no_address(console: Console, client: httpx.AsyncClient, org_id: UUID) -> None:
    async with console.client(org_id, Role.VIEWER) as viewer:
        answer = await viewer.post(UPLOADS, json={"files": [file("a.md", LEAVE)]})

    assert answer.status_code == 403


async def test_an_upload_is_of_one_base(console: Console, client: httpx.AsyncClient) -> None:
    await client.post("/knowledge-bases", json={"name": "other", "source": {"type": "upload"}})
    begun = await begin(client, file("leave.md", LEAVE))
    await put(begun["files"][0], LEAVE)

    answer = await client.post(f"/knowledge-bases/other/uploads/{begun['id']}/complete", json={})

    assert answer.status_code == 404


async def test_a_file_that_was_never_announced_goes(console: Console, client: httpx.AsyncClient) -> None:
    begun = await begin(client, file("leave.md", LEAVE), file("sick.md", SICK))
    await put(begun["files"][0], LEAVE)
    before = stored(console)
    await sweep(console)

    assert (before, stored(console)) == (["leave.md"], [])
    assert await sweep(console) == 0


async def test_a_new_version_that_was_never_announced_is_read_all_the_same(
    console: Console, client: httpx.AsyncClient
) -> None:
    """The store holds it, and whatever looks at the store next would serve it."""
    known = await upload(client, "leave.md", LEAVE)
    await console.work()
    begun = await begin(client, file("leave.md", SICK))
    await put(begun["files"][0], SICK)
    await sweep(console)
    await console.work()

    shown = (await client.get(f"{DOCUMENTS}/{known['id']}")).json()
    assert shown["sha256"] == hashlib.sha256(SICK).hexdigest()


async def test_what_was_completed_stays(console: Console, client: httpx.AsyncClient) -> None:
    await upload(client, "leave.md", LEAVE)
    await console.work()

    assert await sweep(console) >= 1
    assert (console.queue.sent, stored(console), await names(client)) == ([], ["leave.md"], ["leave.md"])


async def test_an_upload_in_its_time_is_not_swept(console: Console, client: httpx.AsyncClient) -> None:
    begun = await begin(client, file("leave.md", LEAVE))
    context = Ingestion(console.pool, Stores(console.data_dir), console.queue, HashModels(), Parsers())

    assert await direct_uploads.sweep(context) == 0
    assert (await put(begun["files"][0], LEAVE)).status_code == 204


async def test_a_file_that_came_after_its_upload_ended_is_anothers(
    console: Console, client: httpx.AsyncClient, database: Database
) -> None:
    begun = await begin(client, file("leave.md", LEAVE))
    await put(begun["files"][0], LEAVE)
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE kb_uploads SET expires_at = now() - interval '1 day' WHERE id = %s", [begun["id"]])
    await sweep(console)

    assert stored(console) == ["leave.md"]


async def test_the_audit_log_tells_who_began_brought_and_completed(client: httpx.AsyncClient) -> None:
    await upload(client, "leave.md", LEAVE)
    entries = (await client.get("/audit-log")).json()["items"]

    found = {entry["action"]: entry for entry in entries}
    assert {"upload.begin", "upload.receive", "upload.complete"} <= set(found)
    assert found["upload.receive"]["actor"] == f"upload:{found['upload.begin']['details']['upload']}"
    assert found["upload.receive"]["details"]["name"] == "leave.md"
