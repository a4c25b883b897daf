"""Documents as their readers see them: pages of them, their chunks, metadata that filters see, uploads announced."""

from __future__ import annotations

import hashlib
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import NotFound
from bonito.knowledge import documents
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.documents import Document
from tests.integration.conftest import Database
from tests.integration.knowledge.served import create_base, serve

SOME_HASH = hashlib.sha256(b"some").digest()
OTHER_HASH = hashlib.sha256(b"other").digest()


@pytest.fixture
async def base(pool: Pool, org_id: UUID) -> KnowledgeBase:
    return await create_base(pool, org_id, f"kb-{uuid4().hex[:8]}")


async def paths(pool: Pool, org_id: UUID, base: KnowledgeBase, **options: object) -> list[str]:
    async with tenant(pool, org_id) as conn:
        page = await documents.list_page(
            conn,
            org_id=org_id,
            knowledge_base_id=base.id,
            **{"limit": 100} | options,  # type: ignore[arg-type]
        )
    return [document.file_path for document in page]


async def announce(
    pool: Pool,
    org_id: UUID,
    base: KnowledgeBase,
    path: str,
    file_hash: bytes,
    metadata: dict[str, object] | None = None,
) -> Document:
    async with tenant(pool, org_id) as conn:
        return await documents.announce(
            conn,
            org_id=org_id,
            knowledge_base_id=base.id,
            document_id=uuid4(),
            path=path,
            size=4,
            file_hash=file_hash,
            metadata=metadata,
        )


async def same(pool: Pool, org_id: UUID, base: KnowledgeBase, path: str, file_hash: bytes) -> UUID | None:
    async with tenant(pool, org_id) as conn:
        found = await documents.find_by_hash(
            conn, org_id=org_id, knowledge_base_id=base.id, file_hash=file_hash, path=path
        )
    return None if found is None else found.id


async def test_pages_follow_the_bytes_of_the_paths_and_keep_to_status_and_prefix(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    for path in ["b/1.md", "a.md", "é.md", "b_1.md", "B.md", "b/2 100%.md"]:
        await serve(pool, org_id, base, path, ["text"])
    await announce(pool, org_id, base, "b/3.md", SOME_HASH)
    by_bytes = sorted(["b/1.md", "a.md", "é.md", "b_1.md", "B.md", "b/2 100%.md", "b/3.md"], key=str.encode)

    first = await paths(pool, org_id, base, limit=3)
    second = await paths(pool, org_id, base, limit=9, after_path=first[-1])

    assert first + second == by_bytes
    assert await paths(pool, org_id, base, prefix="b/") == ["b/1.md", "b/2 100%.md", "b/3.md"]
    assert await paths(pool, org_id, base, prefix="b%") == []
    assert await paths(pool, org_id, base, status="pending") == ["b/3.md"]


async def test_chunks_come_in_order_and_from_what_is_served_now(pool: Pool, org_id: UUID, base: KnowledgeBase) -> None:
    document_id = await serve(pool, org_id, base, "a.md", [f"old {n}" for n in range(5)])
    assert await serve(pool, org_id, base, "a.md", [f"new {n}" for n in range(5)]) == document_id

    async with tenant(pool, org_id) as conn:
        whole = await documents.chunks(
            conn, org_id=org_id, knowledge_base_id=base.id, document_id=document_id, limit=100
        )
        page = await documents.chunks(
            conn, org_id=org_id, knowledge_base_id=base.id, document_id=document_id, limit=2, from_index=2
        )

    assert [chunk.content for chunk in whole] == [f"new {n}" for n in range(5)]
    assert page == whole[2:4]
    assert (page[0].source_page, page[0].source_section) == (1, "Leave > Accrual")


async def test_metadata_is_set_on_the_document_its_chunks_and_what_filters_read(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    document_id = await serve(pool, org_id, base, "a.md", ["one", "two"], metadata={"team": "hr"})
    other_id = await serve(pool, org_id, base, "b.md", ["three"], metadata={"team": "hr"})

    async with tenant(pool, org_id) as conn:
        changed = await documents.set_metadata(
            conn, org_id=org_id, knowledge_base_id=base.id, document_id=document_id, metadata={"team": "legal"}
        )

    assert changed.metadata == {"team": "legal"}
    async with tenant(pool, org_id) as conn:
        for table in ("kb_chunks", "kb_index"):
            statement = f"SELECT document_id, metadata->>'team', count(*) FROM {table} GROUP BY 1, 2"
            rows = await (await conn.execute(statement)).fetchall()  # type: ignore[call-overload]
            assert set(rows) == {(document_id, "legal", 2), (other_id, "hr", 1)}


async def test_another_base_and_another_organization_have_no_such_document(
    pool: Pool, org_id: UUID, other_org_id: UUID, base: KnowledgeBase
) -> None:
    document_id = await serve(pool, org_id, base, "a.md", ["one"])
    elsewhere = await create_base(pool, org_id, "elsewhere")

    for caller, asked, base_id in [
        (org_id, org_id, elsewhere.id),
        (other_org_id, other_org_id, base.id),
        (other_org_id, org_id, base.id),
    ]:
        async with tenant(pool, caller) as conn:
            ids = {"org_id": asked, "knowledge_base_id": base_id, "document_id": document_id}
            with pytest.raises(NotFound):
                await documents.get(conn, **ids)
            with pytest.raises(NotFound):
                await documents.set_metadata(conn, **ids, metadata={"team": "theirs"})
            assert await documents.chunks(conn, **ids, limit=9) == []
    async with tenant(pool, other_org_id) as conn:
        assert await documents.list_page(conn, org_id=org_id, knowledge_base_id=base.id, limit=9) == []


async def test_an_announced_upload_is_pending_with_its_metadata_and_found_by_its_hash(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    announced = await announce(pool, org_id, base, "sub/a.md", SOME_HASH, {"team": "hr"})

    assert (announced.status, announced.file_name, announced.metadata) == ("pending", "a.md", {"team": "hr"})
    assert await same(pool, org_id, base, "other.md", SOME_HASH) == announced.id
    assert await same(pool, org_id, base, "sub/a.md", OTHER_HASH) is None


async def test_a_known_path_keeps_its_id_and_without_new_metadata_the_old(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    first = await announce(pool, org_id, base, "a.md", SOME_HASH, {"team": "hr"})
    second = await announce(pool, org_id, base, "a.md", OTHER_HASH)
    third = await announce(pool, org_id, base, "a.md", OTHER_HASH, {})

    assert first.id == second.id == third.id
    assert (second.metadata, third.metadata) == ({"team": "hr"}, {})


async def test_content_that_is_about_to_be_replaced_is_not_already_there(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    await serve(pool, org_id, base, "a.md", ["some"])
    served_hash = hashlib.sha256(b"some").digest()
    assert await same(pool, org_id, base, "a.md", served_hash) is not None

    await announce(pool, org_id, base, "a.md", OTHER_HASH)

    assert await same(pool, org_id, base, "a.md", served_hash) is None


async def test_content_that_is_being_read_or_built_is_already_there(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    announced = await announce(pool, org_id, base, "a.md", SOME_HASH)
    async with tenant(pool, org_id) as conn:
        await conn.execute("UPDATE kb_documents SET status = 'processing'")
    assert await same(pool, org_id, base, "b.md", SOME_HASH) == announced.id

    async with tenant(pool, org_id) as conn:
        await conn.execute("UPDATE kb_documents SET source_version = 'of the store'")
        await conn.execute(
            """INSERT INTO kb_revisions (org_id, id, knowledge_base_id, generation_id, document_id, file_hash)
               SELECT org_id, gen_random_uuid(), knowledge_base_id, id, %s, %s FROM kb_generations
                WHERE knowledge_base_id = %s""",
            [announced.id, SOME_HASH, base.id],
        )
    assert await same(pool, org_id, base, "b.md", SOME_HASH) == announced.id
    assert await same(pool, org_id, base, "b.md", OTHER_HASH) is None


async def test_of_two_documents_with_one_content_the_one_at_the_path_is_found(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    ids = {path: await serve(pool, org_id, base, path, ["some"]) for path in ("a.md", "b.md")}

    assert await same(pool, org_id, base, "b.md", hashlib.sha256(b"some").digest()) == ids["b.md"]
    assert await same(pool, org_id, base, "c.md", hashlib.sha256(b"some").digest()) == ids["a.md"]


async def test_an_upload_brings_a_deleted_document_back_with_nothing_of_its_past(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    first = await announce(pool, org_id, base, "a.md", SOME_HASH, {"team": "hr"})
    async with tenant(pool, org_id) as conn:
        await conn.execute("UPDATE kb_documents SET deleted_at = now() WHERE id = %s", [first.id])
    assert await same(pool, org_id, base, "a.md", SOME_HASH) is None

    again = await announce(pool, org_id, base, "a.md", SOME_HASH)

    assert (again.id, again.metadata, again.status) == (first.id, {}, "pending")
    assert await paths(pool, org_id, base) == ["a.md"]


async def test_a_content_is_looked_for_by_its_hash_and_not_in_every_document(
    database: Database, pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    with psycopg.connect(database.superuser_url) as connection:
        connection.execute(
            """INSERT INTO kb_documents (org_id, id, knowledge_base_id, file_path, file_name, status, file_hash)
               SELECT %s, gen_random_uuid(), %s, n || '.md', n || '.md',
                      CASE WHEN mod(n, 1000) = 0 THEN 'processing' ELSE 'ready' END, sha256(n::text::bytea)
                 FROM generate_series(1, 5000) n""",
            [org_id, base.id],
        )
        connection.execute("ANALYZE kb_documents")
    row = {"org_id": org_id, "knowledge_base_id": base.id, "file_hash": SOME_HASH, "path": "a.md"}
    row["uploaded_version"] = documents.uploaded_version(SOME_HASH)
    async with tenant(pool, org_id) as conn:
        rows = await (await conn.execute("EXPLAIN " + documents.FIND_BY_HASH, row)).fetchall()

    plan = "\n".join(line for (line,) in rows)
    assert "Index Scan on kb_documents_content" in plan, plan
    assert "Index Scan on kb_documents_in_work" in plan, plan
    assert "Seq Scan" not in plan.replace("Seq Scan on kb_revisions", ""), plan
    assert "kb_documents_path" not in plan, plan
