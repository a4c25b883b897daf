"""Generations: built beside the served one, switched to by one transaction, pinned by whoever comes first."""

from __future__ import annotations

import asyncio
import dataclasses
from uuid import UUID, uuid4

import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import KnowledgeBaseNotFound, StateConflict
from bonito.knowledge import bases, generations
from bonito.knowledge.bases import Options, Source
from bonito.knowledge.generations import Generation, Pinned

PINNED = Pinned(
    embedding_model="test/hash",
    embedding_fingerprint="test/hash:1",
    dimensions=None,
    tokenizer="test/hash",
    chunk_size=256,
    chunk_overlap=25,
    language=None,
)
SMALLER = dataclasses.replace(PINNED, chunk_size=128)
ONE, TWO = b"1" * 32, b"2" * 32

ADD_DOCUMENT = """
    INSERT INTO kb_documents (org_id, id, knowledge_base_id, file_path, file_name, file_hash, status)
    VALUES (%s, %s, %s, %s, 'a.md', %s, 'ready')
"""
ADD_REVISION = """
    INSERT INTO kb_revisions (org_id, id, knowledge_base_id, generation_id, document_id, file_hash, status)
    VALUES (%s, gen_random_uuid(), %s, %s, %s, %s, %s)
"""


class Base:
    """A knowledge base in the database and what a test does to it, each step in its own transaction."""

    def __init__(self, pool: Pool, org_id: UUID) -> None:
        self.pool, self.org_id, self.id = pool, org_id, uuid4()

    async def create(self) -> Generation:
        async with tenant(self.pool, self.org_id) as conn:
            await bases.create(
                conn,
                org_id=self.org_id,
                knowledge_base_id=self.id,
                generation_id=uuid4(),
                options=Options(name=f"kb-{self.id.hex[:8]}"),
                source=Source(type="upload", config={"type": "upload"}, bucket=str(self.id)),
                pinned=PINNED,
            )
        return (await self.open())[0]

    async def open(self) -> tuple[Generation, ...]:
        async with tenant(self.pool, self.org_id) as conn:
            return await generations.building_or_served(conn, org_id=self.org_id, knowledge_base_id=self.id)

    async def begin(self, pinned: Pinned) -> Generation | None:
        async with tenant(self.pool, self.org_id) as conn:
            return await generations.begin(
                conn, org_id=self.org_id, knowledge_base_id=self.id, generation_id=uuid4(), pinned=pinned
            )

    async def serve_first(self, generation: Generation) -> bool:
        async with tenant(self.pool, self.org_id) as conn:
            return await generations.serve_first(
                conn, org_id=self.org_id, knowledge_base_id=self.id, generation_id=generation.id
            )

    async def switch(self) -> bool:
        async with tenant(self.pool, self.org_id) as conn:
            return await generations.switch_if_complete(conn, org_id=self.org_id, knowledge_base_id=self.id)

    async def served(self) -> UUID | None:
        async with tenant(self.pool, self.org_id) as conn:
            return (await bases.get(conn, org_id=self.org_id, name_or_id=str(self.id))).served_generation

    async def document(self, path: str, file_hash: bytes = ONE) -> UUID:
        document_id = uuid4()
        async with tenant(self.pool, self.org_id) as conn:
            await conn.execute(ADD_DOCUMENT, [self.org_id, document_id, self.id, path, file_hash])
        return document_id

    async def revision(self, document: UUID, generation: Generation, *, file_hash: bytes, status: str) -> None:
        async with tenant(self.pool, self.org_id) as conn:
            row = [self.org_id, self.id, generation.id, document, file_hash, status]
            await conn.execute(ADD_REVISION, row)

    async def set(self, statement: str, *values: object) -> None:
        async with tenant(self.pool, self.org_id) as conn:
            await conn.execute(statement, values)  # type: ignore[call-overload]


@pytest.fixture
def base(pool: Pool, org_id: UUID) -> Base:
    return Base(pool, org_id)


async def test_the_first_flip_serves_the_first_generation_once(base: Base) -> None:
    first = await base.create()

    outcomes = await asyncio.gather(*(base.serve_first(first) for _ in range(3)))

    assert sorted(outcomes) == [False, False, True]
    (served,) = await base.open()
    assert (served.id, served.status) == (first.id, "served")
    assert served.served_at is not None
    assert await base.served() == first.id


async def test_a_generation_beside_a_served_one_is_not_served_by_its_flips(base: Base) -> None:
    first = await base.create()
    await base.serve_first(first)
    second = await base.begin(SMALLER)
    assert second is not None

    assert not await base.serve_first(second)
    assert [generation.status for generation in await base.open()] == ["served", "building"]
    assert await base.served() == first.id


async def test_the_switch_waits_for_every_served_document(base: Base) -> None:
    first = await base.create()
    documents = [await base.document(f"{n}.md") for n in range(3)]
    for document in documents:
        await base.revision(document, first, file_hash=ONE, status="served")
    await base.serve_first(first)
    second = await base.begin(SMALLER)
    assert second is not None

    assert not await base.switch()
    await base.revision(documents[0], second, file_hash=ONE, status="served")
    await base.revision(documents[1], second, file_hash=ONE, status="building")
    await base.revision(documents[2], second, file_hash=ONE, status="failed")
    assert not await base.switch()
    await base.set("UPDATE kb_revisions SET status = 'served' WHERE status = 'building'")

    assert sorted(await asyncio.gather(*(base.switch() for _ in range(3)))) == [False, False, True]
    assert await base.served() == second.id
    (served,) = await base.open()
    assert served.id == second.id
    async with tenant(base.pool, base.org_id) as conn:
        retired = await generations.get(conn, org_id=base.org_id, generation_id=first.id)
    assert retired is not None
    assert retired.status == "retired"
    assert retired.retired_at is not None


async def test_the_switch_never_goes_back_to_older_content(base: Base) -> None:
    first = await base.create()
    document = await base.document("a.md", TWO)
    await base.revision(document, first, file_hash=TWO, status="served")
    await base.serve_first(first)
    second = await base.begin(SMALLER)
    assert second is not None

    await base.revision(document, second, file_hash=ONE, status="served")
    assert not await base.switch()
    await base.set("UPDATE kb_revisions SET status = 'superseded' WHERE generation_id = %s", second.id)
    await base.revision(document, second, file_hash=TWO, status="served")
    assert await base.switch()


async def test_the_switch_does_not_wait_for_an_old_generation_that_cannot_follow(base: Base) -> None:
    first = await base.create()
    document = await base.document("a.md", TWO)
    await base.revision(document, first, file_hash=ONE, status="served")
    await base.serve_first(first)
    second = await base.begin(SMALLER)
    assert second is not None

    await base.revision(document, second, file_hash=TWO, status="served")
    assert await base.switch()


async def test_deleted_documents_do_not_hold_the_switch(base: Base) -> None:
    first = await base.create()
    document = await base.document("a.md")
    await base.revision(document, first, file_hash=ONE, status="served")
    await base.serve_first(first)
    await base.begin(SMALLER)

    await base.set("UPDATE kb_documents SET deleted_at = now() WHERE id = %s", document)
    assert await base.switch()


async def test_a_change_during_a_build_takes_its_place(base: Base) -> None:
    first = await base.create()
    await base.serve_first(first)
    second = await base.begin(SMALLER)
    third = await base.begin(dataclasses.replace(PINNED, chunk_size=64))
    again = await base.begin(dataclasses.replace(PINNED, chunk_size=64))

    assert second is not None
    assert third is not None
    assert again == third
    assert [generation.id for generation in await base.open()] == [first.id, third.id]


async def test_a_change_back_to_what_is_served_ends_the_build(base: Base) -> None:
    first = await base.create()
    await base.serve_first(first)
    await base.begin(SMALLER)

    assert await base.begin(PINNED) is None
    assert [generation.id for generation in await base.open()] == [first.id]
    assert not await base.switch()


async def test_before_anything_is_served_a_change_starts_over(base: Base) -> None:
    first = await base.create()
    second = await base.begin(SMALLER)

    assert second is not None
    assert not await base.serve_first(first), "a late flip of the retired generation"
    assert not await base.switch()
    assert await base.serve_first(second)


async def test_of_two_changes_at_once_one_is_built(base: Base) -> None:
    first = await base.create()
    await base.serve_first(first)

    await asyncio.gather(*(base.begin(dataclasses.replace(PINNED, chunk_size=32 * n)) for n in range(1, 5)))

    assert [generation.status for generation in await base.open()] == ["served", "building"]


async def test_a_deleted_base_neither_begins_nor_serves(base: Base) -> None:
    first = await base.create()
    async with tenant(base.pool, base.org_id) as conn:
        await bases.delete(conn, org_id=base.org_id, knowledge_base_id=base.id)

    assert not await base.serve_first(first)
    with pytest.raises(KnowledgeBaseNotFound):
        await base.begin(SMALLER)


async def test_the_first_vector_tells_the_dimensions(base: Base) -> None:
    first = await base.create()

    async def pin(dimensions: int) -> None:
        async with tenant(base.pool, base.org_id) as conn:
            await generations.pin_dimensions(conn, org_id=base.org_id, generation_id=first.id, dimensions=dimensions)

    await asyncio.gather(*(pin(384) for _ in range(3)))
    await pin(384)
    with pytest.raises(StateConflict, match=r"1536 numbers.* built with 384"):
        await pin(1536)
    assert (await base.open())[0].dimensions == 384


async def test_the_first_text_tells_the_language(base: Base) -> None:
    first = await base.create()

    async def pin(language: str) -> str:
        async with tenant(base.pool, base.org_id) as conn:
            return await generations.pin_language(conn, org_id=base.org_id, generation_id=first.id, language=language)

    decided = await asyncio.gather(*(pin(language) for language in ["german", "english", "simple"]))
    assert len(set(decided)) == 1
    assert await pin("danish") == decided[0]


async def test_a_generation_that_is_gone_cannot_be_pinned(base: Base) -> None:
    await base.create()

    async with tenant(base.pool, base.org_id) as conn:
        with pytest.raises(StateConflict):
            await generations.pin_language(conn, org_id=base.org_id, generation_id=uuid4(), language="english")
        with pytest.raises(StateConflict):
            await generations.pin_dimensions(conn, org_id=base.org_id, generation_id=uuid4(), dimensions=3)


async def test_another_organization_can_neither_switch_nor_pin(base: Base, other_org_id: UUID) -> None:
    first = await base.create()

    async with tenant(base.pool, other_org_id) as conn:
        for org_id in (base.org_id, other_org_id):
            assert await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=base.id) == ()
            assert not await generations.switch_if_complete(conn, org_id=org_id, knowledge_base_id=base.id)
            assert not await generations.serve_first(
                conn, org_id=org_id, knowledge_base_id=base.id, generation_id=first.id
            )
            with pytest.raises(StateConflict):
                await generations.pin_language(conn, org_id=org_id, generation_id=first.id, language="english")


async def test_the_next_generation_is_written_with_the_measured_length(base: Base) -> None:
    first = await base.create()
    await base.serve_first(first)
    await base.set(
        "UPDATE kb_generations SET document_count = 10, chunk_count = 100, token_count = 20480, lexeme_count = 8192"
    )

    second = await base.begin(SMALLER)

    assert first.average_length == pytest.approx(generations.LEXEMES_PER_TOKEN * 256)
    assert second is not None
    assert second.average_length == pytest.approx(8192 / 20480 * 204.8 / 256 * 128)
