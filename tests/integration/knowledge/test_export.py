"""The export: whole, of one generation, and enough to search elsewhere without Bonito (DB-14)."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import KnowledgeBaseNotFound, KnowledgeBaseNotReady, StateConflict
from bonito.knowledge import export, generations
from bonito.knowledge.bases import KnowledgeBase
from tests.integration.conftest import Database
from tests.integration.knowledge.served import HashEmbedding, create_base, serve, vector_of


@pytest.fixture
async def base(pool: Pool, org_id: UUID) -> KnowledgeBase:
    return await create_base(pool, org_id, f"kb-{uuid4().hex[:8]}")


async def export_of(pool: Pool, org_id: UUID, base: KnowledgeBase, *, page: int = 200) -> list[dict[str, Any]]:
    begun, generation = await export.begin(pool, org_id=org_id, name_or_id=str(base.id))
    found = []
    async for line in export.lines(pool, org_id=org_id, base=begun, generation=generation, page=page):
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        found.append(json.loads(line))
    return found


async def test_every_document_is_followed_by_its_chunks_with_vectors(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    await serve(pool, org_id, base, "b.md", ['She said "no".\nTwice.', "Ünïcode \u2028 ✓"], metadata={"team": "hr"})
    await serve(pool, org_id, base, "a.md", [])

    head, first, second, *chunks, end = await export_of(pool, org_id, base)

    assert (head["type"], head["format"], head["name"]) == ("knowledge_base", "bonito-export/1", base.name)
    assert head["generation"]["embedding_model"] == "test/hash"
    assert (first["type"], first["path"], first["chunk_count"]) == ("document", "a.md", 0)
    assert (second["path"], second["metadata"], second["chunk_count"]) == ("b.md", {"team": "hr"}, 2)
    assert [chunk["content"] for chunk in chunks] == ['She said "no".\nTwice.', "Ünïcode \u2028 ✓"]
    assert {chunk["document_id"] for chunk in chunks} == {second["id"]}
    assert chunks[0]["section"] == "Leave > Accrual"
    assert [float(value) for value in chunks[0]["embedding"]] == pytest.approx(list(vector_of(chunks[0]["content"])))
    assert end == {"type": "end", "documents": 2, "chunks": 2}


async def test_more_than_a_page_of_documents_and_of_chunks_is_whole(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    for number in range(5):
        await serve(pool, org_id, base, f"{number}.md", [f"chunk {number}.{n}" for n in range(number * 2)])

    lines = await export_of(pool, org_id, base, page=2)

    assert [line["path"] for line in lines if line["type"] == "document"] == [f"{n}.md" for n in range(5)]
    contents = [line["content"] for line in lines if line["type"] == "chunk"]
    assert contents == [f"chunk {number}.{n}" for number in range(5) for n in range(number * 2)]
    assert lines[-1] == {"type": "end", "documents": 5, "chunks": 20}


async def test_an_export_is_of_one_generation_even_if_it_is_switched_meanwhile(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    for path in ("a.md", "b.md"):
        await serve(pool, org_id, base, path, ["old one", "old two"])
    begun, generation = await export.begin(pool, org_id=org_id, name_or_id=base.name)
    lines = export.lines(pool, org_id=org_id, base=begun, generation=generation, page=1)
    seen = [json.loads(await anext(lines)) for _ in range(2)]

    pinned = generations.pin(HashEmbedding(), chunk_size=64, chunk_overlap=0, language="english")
    async with tenant(pool, org_id) as conn:
        ids = {"org_id": org_id, "knowledge_base_id": base.id}
        building = await generations.begin(conn, **ids, generation_id=uuid4(), pinned=pinned)
    for path in ("a.md", "b.md"):
        await serve(pool, org_id, base, path, ["old one", "old two"], generation=building)
    async with tenant(pool, org_id) as conn:
        assert await generations.switch_if_complete(conn, **ids)
    seen += [json.loads(line) async for line in lines]

    assert {line["type"] for line in seen} == {"knowledge_base", "document", "chunk", "end"}
    assert seen[0]["generation"]["id"] == str(generation.id)
    assert seen[-1] == {"type": "end", "documents": 2, "chunks": 4}
    assert (await export_of(pool, org_id, base))[0]["generation"]["chunk_size"] == 64


async def test_an_export_whose_rows_were_removed_ends_with_an_error_and_no_end(
    pool: Pool, org_id: UUID, base: KnowledgeBase
) -> None:
    await serve(pool, org_id, base, "a.md", ["one", "two"])
    begun, generation = await export.begin(pool, org_id=org_id, name_or_id=base.name)
    lines = export.lines(pool, org_id=org_id, base=begun, generation=generation)
    await anext(lines)
    await anext(lines)

    async with tenant(pool, org_id) as conn:
        await conn.execute("DELETE FROM kb_chunks WHERE knowledge_base_id = %s", [base.id])

    with pytest.raises(StateConflict, match="begin again"):
        await anext(lines)


async def test_what_serves_nothing_or_is_another_organizations_cannot_be_exported(
    pool: Pool, org_id: UUID, other_org_id: UUID, base: KnowledgeBase
) -> None:
    with pytest.raises(KnowledgeBaseNotReady):
        await export.begin(pool, org_id=org_id, name_or_id=base.name)

    await serve(pool, org_id, base, "a.md", ["one"])
    with pytest.raises(KnowledgeBaseNotFound):
        await export.begin(pool, org_id=other_org_id, name_or_id=str(base.id))
    begun, generation = await export.begin(pool, org_id=org_id, name_or_id=base.name)
    theirs = [
        json.loads(line) async for line in export.lines(pool, org_id=other_org_id, base=begun, generation=generation)
    ]
    assert [line["type"] for line in theirs] == ["knowledge_base", "end"]


async def test_an_export_is_searchable_in_a_database_without_bonito(
    pool: Pool, database: Database, org_id: UUID, base: KnowledgeBase
) -> None:
    contents = [f"The valve number {n} was replaced." for n in range(30)]
    for number in range(6):
        await serve(pool, org_id, base, f"{number}.md", contents[number * 5 : number * 5 + 5])
    question = str(list(vector_of("Which valve was replaced?")))
    async with tenant(pool, org_id) as conn:
        statement = "SELECT chunk_id, embedding <=> %s::vector FROM kb_index ORDER BY 2, 1 LIMIT 10"
        here = await (await conn.execute(statement, [question])).fetchall()

    exported = await export_of(pool, org_id, base)
    with psycopg.connect(database.superuser_url) as elsewhere:
        dimensions = exported[0]["generation"]["dimensions"]
        elsewhere.execute(
            f"CREATE TEMP TABLE vectors (id uuid, path text, content text, embedding vector({dimensions}))"
        )
        paths = {line["id"]: line["path"] for line in exported if line["type"] == "document"}
        for line in exported:
            if line["type"] == "chunk":
                row = [line["id"], paths[line["document_id"]], line["content"], json.dumps(line["embedding"])]
                elsewhere.execute("INSERT INTO vectors VALUES (%s, %s, %s, %s)", row)
        query = "SELECT id, embedding <=> %s::vector FROM vectors ORDER BY 2, 1 LIMIT 10"
        there = elsewhere.execute(query, [question]).fetchall()
        assert elsewhere.execute("SELECT count(*), count(DISTINCT path) FROM vectors").fetchone() == (30, 6)

    assert there == here
