"""/api/knowledge-bases/…/documents over HTTP: uploads of every kind, and what becomes of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from bonito.database.pool import Pool
from bonito.errors import UpstreamError
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.console.knowledge import MAX_BYTES, Console, running

DOCUMENTS = "/knowledge-bases/hr/documents"
LEAVE = b"# Leave\n\nEmployees accrue twenty days of paid leave in a year.\n"


WRONG_UPLOADS: dict[str, tuple[list[Any], int]] = {
    "dots-as-name": ([("files", ("..", b"x"))], 400),
    "a-name-that-climbs": ([("files", ("../../etc/passwd", b"x"))], 400),
    "a-name-that-climbs-later": ([("files", ("a/../../b.md", b"x"))], 400),
    "a-name-that-climbs-by-backslashes": ([("files", ("..\\..\\b.md", b"x"))], 400),
    "a-name-too-long": ([("files", ("x" * 300 + ".md", b"x"))], 400),
    "a-hidden-name": ([("files", (".hidden", b"x"))], 400),
    "a-name-twice": ([("files", ("a.md", b"x")), ("files", ("./a.md", b"y"))], 400),
    "a-file-and-a-folder": ([("files", ("a", b"x")), ("files", ("a/b", b"y"))], 409),
    "another-field": ([("file", ("a.md", b"x"))], 400),
    "too-many-files": ([("files", (f"{n}.md", b"x")) for n in range(101)], 400),
    "metadata-no-json": ([("files", ("a.md", b"x")), ("metadata", (None, b"{"))], 400),
    "metadata-no-object": ([("files", ("a.md", b"x")), ("metadata", (None, b"[]"))], 400),
    "metadata-nul": ([("files", ("a.md", b"x")), ("metadata", (None, b'{"a": "\\u0000"}'))], 400),
    "metadata-no-utf8": ([("files", ("a.md", b"x")), ("metadata", (None, b"\xff"))], 400),
    "metadata-infinite": ([("files", ("a.md", b"x")), ("metadata", (None, b'{"a": 1e999}'))], 400),
    "metadata-too-large": ([("files", ("a.md", b"x")), ("metadata", (None, b" " * 50_000))], 413),
    "metadata-too-deep": ([("files", ("a.md", b"x")), ("metadata", (None, b"[" * 30_000))], 400),
    "metadata-twice": ([("files", ("a.md", b"x"))] + [("metadata", (None, b"{}"))] * 2, 400),
}

NO_FORMS: dict[str, tuple[str, bytes, int]] = {
    "no-part": ("multipart/form-data; boundary=x", b"--x--\r\n", 400),
    "json": ("application/json", b"{}", 415),
    "nothing": ("", b"", 415),
    "no-boundary": ("multipart/form-data", b"--x--\r\n", 400),
    "a-long-boundary": (f"multipart/form-data; boundary={'x' * 71}", b"", 400),
    "empty": ("multipart/form-data; boundary=x", b"", 400),
    "no-multipart": ("multipart/form-data; boundary=x", b"nonsense", 400),
    "no-disposition": ("multipart/form-data; boundary=x", b"--x\r\n\r\nx\r\n--x--\r\n", 400),
    "no-end": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.md"\r\n\r\nhalf',
        400,
    ),
    "a-file-without-name": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\ntext\r\n--x--\r\n',
        400,
    ),
    "a-name-that-is-no-utf8": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="\xff.md"\r\n\r\nx\r\n--x--\r\n',
        400,
    ),
    "an-endless-header": (
        "multipart/form-data; boundary=x",
        b"--x\r\nContent-Disposition: form-data; name=files; filename=" + b"a" * 9000 + b"\r\n\r\nx\r\n--x--\r\n",
        400,
    ),
}


@pytest.fixture
async def console(database: Database, pool: Pool, tmp_path: Path) -> AsyncIterator[Console]:
    async with running(database, pool, tmp_path) as console:
        yield console


@pytest.fixture
async def api(console: Console, org_id: UUID) -> AsyncIterator[httpx.AsyncClient]:
    """A client, and a knowledge base `hr` for uploads, synced once."""
    async with console.client(org_id) as client:
        answer = await client.post("/knowledge-bases", json={"name": "hr", "source": {"type": "upload"}})
        assert answer.status_code == 201
        await console.work()
        yield client


def files(**contents: bytes | str) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (name, data if isinstance(data, bytes) else data.encode())) for name, data in contents.items()]


async def uploaded(
    api: httpx.AsyncClient, *named: tuple[str, bytes], metadata: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    data = {"metadata": json.dumps(metadata)} if metadata is not None else None
    answer = await api.post(DOCUMENTS, files=[("files", each) for each in named], data=data)
    assert answer.status_code == 202, answer.text
    return list(answer.json()["items"])


async def listed(api: httpx.AsyncClient, **parameters: Any) -> list[dict[str, Any]]:
    answer = await api.get(DOCUMENTS, params=parameters)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def stored(console: Console) -> dict[str, bytes]:
    """Every file below the uploads, by its last two names, staged ones too."""
    root = console.data_dir / "uploads"
    return {"/".join(path.parts[-2:]): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def test_an_uploaded_file_becomes_a_document_with_chunks(api: httpx.AsyncClient, console: Console) -> None:
    (item,) = await uploaded(api, ("leave.md", LEAVE), metadata={"team": "hr"})
    assert (item["name"], item["path"], item["status"], item["outcome"]) == (
        "leave.md",
        "leave.md",
        "pending",
        "created",
    )
    assert (item["size"], item["metadata"]) == (len(LEAVE), {"team": "hr"})

    await console.work()

    document = (await api.get(f"{DOCUMENTS}/{item['id']}")).json()
    assert (document["status"], document["error"], document["warnings"]) == ("ready", None, [])
    assert (document["type"], document["chunk_count"], document["page_count"]) == ("md", 1, None)
    assert document["sha256"] == hashlib.sha256(LEAVE).hexdigest()
    chunks = (await api.get(f"{DOCUMENTS}/{item['id']}/chunks")).json()
    assert chunks["next_cursor"] is None
    (chunk,) = chunks["items"]
    assert "twenty days" in chunk["content"]
    assert (chunk["section"], chunk["page"], chunk["index"]) == ("Leave", None, 0)
    assert chunk["metadata"] == {"team": "hr"}
    base = (await api.get("/knowledge-bases/hr")).json()
    assert (base["document_count"], base["chunk_count"], base["status"]) == (1, 1, "ready")


async def test_files_on_a_disk_that_is_not_mounted_are_not_taken_for_gone(
    api: httpx.AsyncClient, console: Console, org_id: UUID
) -> None:
    (item,) = await uploaded(api, ("leave.md", LEAVE))
    await console.work()
    base_id = (await api.get("/knowledge-bases/hr")).json()["id"]
    message = {"org_id": str(org_id), "knowledge_base_id": base_id, "path": "leave.md"}
    (console.data_dir / "uploads").rename(console.data_dir / "elsewhere")

    await console.queue.send("ingest", message)
    with pytest.raises(UpstreamError, match="not there"):
        await console.work()
    refused = await api.post(DOCUMENTS, files=[("files", ("b.md", b"b"))])
    assert (refused.status_code, refused.json()["code"]) == (502, "upstream_unavailable")
    assert stored(console) == {}
    shutil.rmtree(console.data_dir / "uploads")
    (console.data_dir / "elsewhere").rename(console.data_dir / "uploads")
    await console.queue.send("ingest", message)
    await console.work()

    document = (await api.get(f"{DOCUMENTS}/{item['id']}")).json()
    assert (document["status"], document["chunk_count"]) == ("ready", 1)


async def test_many_files_of_one_request_keep_their_order_names_and_metadata(
    api: httpx.AsyncClient, console: Console
) -> None:
    names = ["b.md", "sub folder/a + 1 100%.md", "Übersicht.txt", "c\\d.md", "/e.md", "./f.md", "日本.md"]
    items = await uploaded(api, *((name, f"About {name}.".encode()) for name in names), metadata={"a": [1, None]})

    kept = ["b.md", "sub folder/a + 1 100%.md", "Übersicht.txt", "c/d.md", "e.md", "f.md", "日本.md"]
    assert [item["name"] for item in items] == kept
    await console.work()
    assert [document["name"] for document in await listed(api)] == sorted(kept, key=str.encode)
    assert {document["status"] for document in await listed(api)} == {"ready"}
    assert all(document["metadata"] == {"a": [1, None]} for document in await listed(api))
    assert [document["name"] for document in await listed(api, prefix="sub")] == ["sub folder/a + 1 100%.md"]


async def test_new_content_under_a_name_is_a_new_revision_of_the_document(
    api: httpx.AsyncClient, console: Console
) -> None:
    (first,) = await uploaded(api, ("a.md", b"The anemometer."), metadata={"team": "hr"})
    await console.work()
    (second,) = await uploaded(api, ("a.md", b"The barometer."))

    assert (second["id"], second["outcome"], second["status"]) == (first["id"], "replaced", "pending")
    assert second["metadata"] == {"team": "hr"}
    served = (await api.get(f"{DOCUMENTS}/{first['id']}/chunks")).json()["items"]
    assert [chunk["content"] for chunk in served] == ["The anemometer."]
    await console.work()
    served = (await api.get(f"{DOCUMENTS}/{first['id']}/chunks")).json()["items"]
    assert [(chunk["content"], chunk["metadata"]) for chunk in served] == [("The barometer.", {"team": "hr"})]


async def test_a_file_that_is_there_by_its_hash_answers_with_its_id_and_makes_no_work(
    api: httpx.AsyncClient, console: Console
) -> None:
    (first,) = await uploaded(api, ("a.md", LEAVE))
    (waiting,) = await uploaded(api, ("b.md", LEAVE))
    await console.work()
    (same,) = await uploaded(api, ("a.md", LEAVE), metadata={"team": "hr"})
    (renamed,) = await uploaded(api, ("c.md", LEAVE), metadata={"team": "other"})

    assert {item["id"] for item in (waiting, same, renamed)} == {first["id"]}
    assert {item["outcome"] for item in (waiting, same, renamed)} == {"unchanged"}
    assert console.sent("ingest") == []
    (document,) = await listed(api)
    assert (document["name"], document["metadata"]) == ("a.md", {"team": "other"})


async def test_metadata_of_a_file_that_is_there_under_another_name_is_its_documents_metadata(
    api: httpx.AsyncClient, console: Console
) -> None:
    before = await api.post(DOCUMENTS, files=[("files", ("a.md", LEAVE))], data={"metadata": '{"team": "hr"}'})
    await console.work()
    again = await api.post(DOCUMENTS, files=[("files", ("b.md", LEAVE))], data={"metadata": '{"team": "office"}'})
    kept = await api.post(DOCUMENTS, files=[("files", ("c.md", LEAVE))])

    (item,) = again.json()["items"]
    assert (item["name"], item["outcome"], item["metadata"]) == ("a.md", "unchanged", {"team": "office"})
    assert item["id"] == before.json()["items"][0]["id"]
    assert kept.json()["items"][0]["metadata"] == {"team": "office"}
    (chunk,) = (await api.get(f"{DOCUMENTS}/{item['id']}/chunks")).json()["items"]
    assert chunk["metadata"] == {"team": "office"}


async def test_two_files_of_one_request_with_one_content_are_one_document(
    api: httpx.AsyncClient, console: Console
) -> None:
    items = await uploaded(api, ("a.md", LEAVE), ("b.md", LEAVE))

    assert items[0]["id"] == items[1]["id"]
    assert [item["outcome"] for item in items] == ["created", "unchanged"]


async def test_a_file_that_failed_is_tried_again_when_it_is_sent_again(
    api: httpx.AsyncClient, console: Console
) -> None:
    (item,) = await uploaded(api, ("broken.pdf", b"%PDF-1.7\nthis is no PDF"))
    await console.work()
    (document,) = await listed(api, status="error")
    assert (document["id"], document["chunk_count"]) == (item["id"], 0)
    assert len(document["error"]) > 20

    (again,) = await uploaded(api, ("broken.pdf", b"%PDF-1.7\nthis is no PDF"))

    assert (again["id"], again["outcome"], again["status"]) == (item["id"], "replaced", "pending")
    assert len(console.sent("ingest")) == 1


async def test_a_file_of_the_greatest_size_is_taken_and_one_byte_more_is_not(
    api: httpx.AsyncClient, console: Console
) -> None:
    await uploaded(api, ("largest.txt", b"x" * MAX_BYTES), ("empty.txt", b""))

    answer = await api.post(
        DOCUMENTS, files=[("files", ("small.txt", b"x")), ("files", ("large.txt", b"x" * (MAX_BYTES + 1)))]
    )

    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "large.txt" in answer.json()["detail"]
    assert sorted(document["name"] for document in await listed(api)) == ["empty.txt", "largest.txt"]
    assert {name.rsplit("/", 1)[-1] for name in stored(console)} == {"empty.txt", "largest.txt"}


async def test_a_wrong_upload_is_refused_and_leaves_nothing(api: httpx.AsyncClient, console: Console) -> None:
    for case, (parts, status) in WRONG_UPLOADS.items():
        answer = await api.post(DOCUMENTS, files=parts)

        assert answer.status_code == status, f"{case}: {answer.text}"
        assert answer.json()["code"] in {"invalid_request_error", "payload_too_large", "state_conflict"}
        assert await listed(api) == [], case
        assert stored(console) == {}, case
        assert console.sent("ingest") == [], case


async def test_a_body_that_is_no_form_is_refused(api: httpx.AsyncClient, console: Console) -> None:
    for case, (content_type, body, status) in NO_FORMS.items():
        headers = {"content-type": content_type} if content_type else {}
        answer = await api.post(DOCUMENTS, content=body, headers=headers)

        assert answer.status_code == status, f"{case}: {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert stored(console) == {}, case


async def test_a_body_above_the_limit_is_refused_by_its_length_alone(api: httpx.AsyncClient, console: Console) -> None:
    host, port = console.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = [
        f"POST /api{DOCUMENTS} HTTP/1.1",
        f"Host: {host}:{port}",
        f"Authorization: {api.headers['authorization']}",
        "Content-Type: multipart/form-data; boundary=x",
        f"Content-Length: {2 * 2**30}",
    ]
    writer.write("\r\n".join([*head, "", "--x\r\n"]).encode())

    assert (await reader.readline()).split()[1] == b"413"
    writer.close()
    await writer.wait_closed()


async def test_a_connection_that_ends_within_a_file_leaves_nothing(api: httpx.AsyncClient, console: Console) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.md"\r\n\r\n'

    async def breaking() -> AsyncIterator[bytes]:
        yield head + b"x" * 100_000
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await api.post(DOCUMENTS, content=breaking(), headers={"content-type": "multipart/form-data; boundary=x"})
    while stored(console):
        await asyncio.sleep(0.01)

    assert await listed(api) == []


async def test_a_document_is_no_folder_of_documents(api: httpx.AsyncClient) -> None:
    await uploaded(api, ("a/b.md", b"x"))

    for name in ("a", "a/b.md/c.md"):
        answer = await api.post(DOCUMENTS, files=[("files", (name, b"y")), ("files", ("other.md", b"z"))])
        assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    assert [document["name"] for document in await listed(api)] == ["a/b.md"]


async def test_of_files_of_which_one_is_refused_none_is_kept(
    api: httpx.AsyncClient, console: Console, org_id: UUID
) -> None:
    base = (await api.get("/knowledge-bases/hr")).json()
    folder = console.data_dir / "uploads" / str(org_id) / base["id"]
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "left.md").write_bytes(b"of a lost process, and no document")
    answer = await api.post(DOCUMENTS, files=[("files", ("a.md", LEAVE)), ("files", ("d", b"text"))])

    assert (answer.status_code, "d would be" in answer.json()["detail"]) == (409, True)
    assert await listed(api) == []
    assert console.sent("ingest") == []
    assert not (folder / "a.md").exists()


async def test_the_audit_log_tells_what_was_kept_before_an_upload_failed(
    api: httpx.AsyncClient, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*args: object, **kwargs: object) -> None:
        raise UpstreamError("The message could not be queued.")

    with monkeypatch.context() as patched:
        patched.setattr(console.queue, "send", fails)
        answer = await api.post(DOCUMENTS, files=[("files", ("a.md", LEAVE)), ("files", ("b.md", b"text"))])

    assert answer.status_code == 502
    (document,) = await listed(api)
    entry = (await api.get("/audit-log")).json()["items"][0]
    assert (entry["action"], document["name"]) == ("document.upload", "a.md")
    assert entry["details"]["documents"] == [document["id"]]


async def test_only_a_base_for_uploads_takes_them(api: httpx.AsyncClient, console: Console) -> None:
    (console.root / "a.md").write_bytes(LEAVE)
    source = {"type": "local", "path": str(console.root)}
    await api.post("/knowledge-bases", json={"name": "folder", "source": source})
    await console.work()
    (document,) = (await api.get("/knowledge-bases/folder/documents")).json()["items"]
    assert document["status"] == "ready"

    upload = await api.post("/knowledge-bases/folder/documents", files=[("files", ("b.md", b"x"))])
    delete = await api.delete(f"/knowledge-bases/folder/documents/{document['id']}")

    for answer in (upload, delete):
        assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
        assert "source" in answer.json()["detail"]
    assert (console.root / "a.md").exists()


async def test_a_deleted_document_is_gone_at_once_and_stays_gone(api: httpx.AsyncClient, console: Console) -> None:
    (item,) = await uploaded(api, ("sub/a.md", LEAVE))
    await console.work()

    assert (await api.delete(f"{DOCUMENTS}/{item['id']}")).status_code == 204

    assert await listed(api) == []
    assert (await api.get(f"{DOCUMENTS}/{item['id']}")).status_code == 404
    assert (await api.delete(f"{DOCUMENTS}/{item['id']}")).status_code == 404
    assert (await api.get("/knowledge-bases/hr")).json()["chunk_count"] == 0
    assert stored(console) == {}
    await console.work()
    await api.post("/knowledge-bases/hr/sync", json={})
    await console.work()
    assert await listed(api) == []
    (again,) = await uploaded(api, ("sub/a.md", LEAVE))
    await console.work()
    assert [document["status"] for document in await listed(api)] == ["ready"]
    assert again["outcome"] in {"created", "replaced"}


async def test_a_document_deleted_before_it_was_read_stays_gone(api: httpx.AsyncClient, console: Console) -> None:
    (item,) = await uploaded(api, ("a.md", LEAVE))

    assert (await api.delete(f"{DOCUMENTS}/{item['id']}")).status_code == 204
    await console.work()

    assert await listed(api) == []


async def test_metadata_is_replaced_on_the_document_and_its_chunks(api: httpx.AsyncClient, console: Console) -> None:
    (item,) = await uploaded(api, ("a.md", LEAVE), metadata={"team": "hr", "year": 2026})
    await console.work()

    answer = await api.patch(f"{DOCUMENTS}/{item['id']}", json={"metadata": {"team": "legal"}})

    assert (answer.status_code, answer.json()["metadata"]) == (200, {"team": "legal"})
    (chunk,) = (await api.get(f"{DOCUMENTS}/{item['id']}/chunks")).json()["items"]
    assert chunk["metadata"] == {"team": "legal"}
    for body, status in [({}, 422), ({"metadata": None}, 422), ({"metadata": {}, "name": "b"}, 422)]:
        assert (await api.patch(f"{DOCUMENTS}/{item['id']}", json=body)).status_code == status
    too_large = {"metadata": {"a": "x" * 20_000}}
    assert (await api.patch(f"{DOCUMENTS}/{item['id']}", json=too_large)).status_code == 400


async def test_metadata_set_while_a_document_is_read_counts(api: httpx.AsyncClient, console: Console) -> None:
    (item,) = await uploaded(api, ("a.md", LEAVE), metadata={"team": "hr"})

    await api.patch(f"{DOCUMENTS}/{item['id']}", json={"metadata": {"team": "legal"}})
    await console.work()

    (chunk,) = (await api.get(f"{DOCUMENTS}/{item['id']}/chunks")).json()["items"]
    assert chunk["metadata"] == {"team": "legal"}


async def test_lists_and_chunks_page(api: httpx.AsyncClient, console: Console) -> None:
    text = "\n\n".join(
        f"## Rule {n}\n\n" + f"Rule number {n} says what to do and what not to do. " * 30 for n in range(9)
    )
    await uploaded(api, ("long.md", text.encode()), *((f"{n}.md", f"Text {n}".encode()) for n in range(6)))
    await console.work()

    async def whole(path: str) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = (await api.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            assert len(page["items"]) <= 2
            seen += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return seen

    found = await whole(DOCUMENTS)
    assert [document["name"] for document in found] == [*(f"{n}.md" for n in range(6)), "long.md"]
    chunks = await whole(f"{DOCUMENTS}/{found[-1]['id']}/chunks")
    assert [chunk["index"] for chunk in chunks] == list(range(found[-1]["chunk_count"]))
    assert len(chunks) > 4


@pytest.mark.parametrize(
    "parameters",
    [{"status": "done"}, {"limit": 0}, {"limit": 201}, {"cursor": "!"}, {"prefix": "x" * 1025}, {"order": "name"}],
    ids=str,
)
async def test_wrong_parameters_are_refused(api: httpx.AsyncClient, parameters: dict[str, Any]) -> None:
    answer = await api.get(DOCUMENTS, params=parameters)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request_error")


async def test_another_organization_reaches_no_document(
    api: httpx.AsyncClient, console: Console, other_org_id: UUID
) -> None:
    (item,) = await uploaded(api, ("a.md", LEAVE))
    await console.work()
    base = (await api.get("/knowledge-bases/hr")).json()

    async with console.client(other_org_id) as theirs:
        await theirs.post("/knowledge-bases", json={"name": "hr", "source": {"type": "upload"}})
        for name in ("hr", base["id"]):
            path = f"/knowledge-bases/{name}/documents/{item['id']}"
            answers = [
                await theirs.get(path),
                await theirs.get(f"{path}/chunks"),
                await theirs.patch(path, json={"metadata": {}}),
                await theirs.delete(path),
            ]
            assert {answer.status_code for answer in answers} == {404}
        upload = await theirs.post(f"/knowledge-bases/{base['id']}/documents", files=files(b="x"))
        assert upload.status_code == 404
        (unknown,) = await uploaded(theirs, ("a.md", LEAVE))
        assert unknown["outcome"] == "created"
        assert unknown["id"] != item["id"]

    assert [document["id"] for document in await listed(api)] == [item["id"]]


async def test_uploads_at_once_of_one_name_end_as_one_document_with_one_of_the_contents(
    api: httpx.AsyncClient, console: Console
) -> None:
    await asyncio.gather(*(uploaded(api, ("a.md", f"Content number {n}.".encode())) for n in range(6)))
    await console.work()

    (document,) = await listed(api)
    assert document["status"] == "ready"
    (chunk,) = (await api.get(f"{DOCUMENTS}/{document['id']}/chunks")).json()["items"]
    (kept,) = stored(console).values()
    assert chunk["content"] == kept.decode()
    assert document["sha256"] == hashlib.sha256(kept).hexdigest()


async def test_a_sync_shows_its_progress_and_retries_what_failed(api: httpx.AsyncClient, console: Console) -> None:
    await uploaded(api, ("a.md", LEAVE), ("broken.pdf", b"%PDF-1.7\nthis is no PDF"))
    await console.work()

    begun = await api.post("/knowledge-bases/hr/sync", json={"retry_failed": True})
    assert begun.status_code == 202
    assert (begun.json()["status"], begun.json()["finished_at"]) == ("syncing", None)
    await console.work()

    ended = (await api.get("/knowledge-bases/hr/sync-status")).json()
    assert (ended["status"], ended["progress_percentage"]) == ("ready", 100.0)
    assert (ended["files_total"], ended["files_processed"], ended["files_failed"]) == (2, 2, 1)
    assert ended["started_at"] < ended["finished_at"]
    assert (await api.post("/knowledge-bases/hr/sync", json={"retry_failed": "yes"})).status_code == 422


async def test_a_source_that_cannot_be_listed_shows_why(api: httpx.AsyncClient, console: Console) -> None:
    (console.root / "papers").mkdir()
    source = {"type": "local", "path": str(console.root / "papers")}
    await api.post("/knowledge-bases", json={"name": "papers", "source": source})
    before = (await api.get("/knowledge-bases/papers/sync-status")).json()
    (console.root / "papers").rmdir()
    await console.work()

    status = (await api.get("/knowledge-bases/papers/sync-status")).json()
    base = (await api.get("/knowledge-bases/papers")).json()

    assert (before["status"], before["finished_at"]) == ("syncing", None)
    assert (status["status"], base["status"]) == ("error", "error")
    assert "folder" in status["error"]
    assert status["finished_at"] is not None


async def test_the_export_streams_lines_and_is_refused_before_anything_is_served(
    api: httpx.AsyncClient, console: Console
) -> None:
    await api.post("/knowledge-bases", json={"name": "new", "source": {"type": "upload"}})
    refused = await api.get("/knowledge-bases/new/export")
    assert (refused.status_code, refused.json()["code"]) == (409, "knowledge_base_not_ready")

    await uploaded(api, ("a.md", LEAVE), metadata={"team": "hr"})
    await console.work()
    async with api.stream("GET", "/knowledge-bases/hr/export") as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) async for line in answer.aiter_lines()]

    assert [line["type"] for line in lines] == ["knowledge_base", "document", "chunk", "end"]
    assert lines[1]["metadata"] == {"team": "hr"}
    assert len(lines[2]["embedding"]) == lines[0]["generation"]["dimensions"] == 8
    assert lines[-1] == {"type": "end", "documents": 1, "chunks": 1}


async def test_a_rebuild_answers_from_the_old_until_it_is_complete(api: httpx.AsyncClient, console: Console) -> None:
    text = "\n\n".join(f"Paragraph {n} tells what happened on day {n} of the year." for n in range(40))
    await uploaded(api, ("a.md", text.encode()))
    await console.work()
    before = (await api.get("/knowledge-bases/hr")).json()

    changed = (await api.put("/knowledge-bases/hr", json={"chunk_size": 32, "chunk_overlap": 0})).json()
    assert (changed["chunk_count"], changed["in_force"]["chunk_size"]) == (before["chunk_count"], 256)
    assert changed["rebuild"]["documents_missing"] == 1
    await console.work()

    after = (await api.get("/knowledge-bases/hr")).json()
    assert (after["rebuild"], after["in_force"]["chunk_size"]) == (None, 32)
    assert after["chunk_count"] > before["chunk_count"]
    (document,) = await listed(api)
    assert (document["status"], document["chunk_count"]) == ("ready", after["chunk_count"])


async def test_a_viewer_reads_documents_and_changes_none(
    api: httpx.AsyncClient, console: Console, org_id: UUID
) -> None:
    (item,) = await uploaded(api, ("a.md", LEAVE))
    async with console.client(org_id, Role.VIEWER) as viewer:
        reads = [await viewer.get(DOCUMENTS), await viewer.get(f"{DOCUMENTS}/{item['id']}")]
        changes = [
            await viewer.post(DOCUMENTS, files=[("files", ("b.md", b"x"))]),
            await viewer.patch(f"{DOCUMENTS}/{item['id']}", json={"metadata": {}}),
            await viewer.delete(f"{DOCUMENTS}/{item['id']}"),
            await viewer.post("/knowledge-bases/hr/sync", json={}),
        ]

    assert {answer.status_code for answer in reads} == {200}
    assert {answer.status_code for answer in changes} == {403}
