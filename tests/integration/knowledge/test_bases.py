"""Knowledge bases as rows: found by name or id, created once, gone when deleted, another organization's never."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import AlreadyExists, InvalidRequest, KnowledgeBaseNotFound
from bonito.knowledge import bases, generations
from bonito.knowledge.bases import KnowledgeBase, Options, Source
from bonito.knowledge.generations import Pinned

PINNED = Pinned(
    embedding_model="test/hash",
    embedding_fingerprint="test/hash:1",
    dimensions=None,
    tokenizer="test/hash",
    chunk_size=256,
    chunk_overlap=25,
    language=None,
)


async def create(pool: Pool, org_id: UUID, name: str) -> KnowledgeBase:
    new_id = uuid4()
    async with tenant(pool, org_id) as conn:
        return await bases.create(
            conn,
            org_id=org_id,
            knowledge_base_id=new_id,
            generation_id=uuid4(),
            options=Options(name=name, metadata={"team": "hr"}),
            source=Source(type="upload", config={"type": "upload"}, bucket=str(new_id)),
            pinned=PINNED,
        )


async def test_a_created_base_is_found_by_name_and_by_id_and_has_a_building_generation(
    pool: Pool, org_id: UUID
) -> None:
    created = await create(pool, org_id, "hr-docs")

    async with tenant(pool, org_id) as conn:
        assert await bases.get(conn, org_id=org_id, name_or_id="hr-docs") == created
        assert await bases.get(conn, org_id=org_id, name_or_id=str(created.id).upper()) == created
        (generation,) = await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=created.id)
    assert (created.status, created.served_generation, created.metadata) == ("pending", None, {"team": "hr"})
    assert (generation.status, generation.chunk_size, generation.language) == ("building", 256, None)


@pytest.mark.parametrize("name_or_id", ["other", "", "Hr-Docs", "a\x00b", "00000000-0000-0000-0000-000000000000"])
async def test_what_does_not_exist_is_not_found(pool: Pool, org_id: UUID, name_or_id: str) -> None:
    await create(pool, org_id, "hr-docs")

    async with tenant(pool, org_id) as conn:
        with pytest.raises(KnowledgeBaseNotFound):
            await bases.get(conn, org_id=org_id, name_or_id=name_or_id)


async def test_another_organization_sees_nothing_and_may_use_the_same_name(
    pool: Pool, org_id: UUID, other_org_id: UUID
) -> None:
    created = await create(pool, org_id, "hr-docs")
    theirs = await create(pool, other_org_id, "hr-docs")

    async with tenant(pool, other_org_id) as conn:
        assert (await bases.get(conn, org_id=other_org_id, name_or_id="hr-docs")).id == theirs.id
        with pytest.raises(KnowledgeBaseNotFound):
            await bases.get(conn, org_id=other_org_id, name_or_id=str(created.id))
        with pytest.raises(KnowledgeBaseNotFound):
            await bases.get(conn, org_id=org_id, name_or_id=str(created.id))
        with pytest.raises(KnowledgeBaseNotFound):
            await bases.delete(conn, org_id=org_id, knowledge_base_id=created.id)


async def test_of_creates_at_once_with_one_name_one_wins(pool: Pool, org_id: UUID) -> None:
    outcomes = await asyncio.gather(*(create(pool, org_id, "hr-docs") for _ in range(4)), return_exceptions=True)

    assert sum(isinstance(outcome, KnowledgeBase) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 3


async def test_a_deleted_base_is_gone_at_once_and_its_name_is_free(pool: Pool, org_id: UUID) -> None:
    created = await create(pool, org_id, "hr-docs")

    async with tenant(pool, org_id) as conn:
        await bases.delete(conn, org_id=org_id, knowledge_base_id=created.id)
    again = await create(pool, org_id, "hr-docs")

    async with tenant(pool, org_id) as conn:
        assert (await bases.get(conn, org_id=org_id, name_or_id="hr-docs")).id == again.id
        with pytest.raises(KnowledgeBaseNotFound):
            await bases.delete(conn, org_id=org_id, knowledge_base_id=created.id)


async def test_pages_follow_the_names(pool: Pool, org_id: UUID) -> None:
    made = {name: await create(pool, org_id, name) for name in ["b", "a", "a.b", "a-b", "c"]}

    async with tenant(pool, org_id) as conn:
        first = await bases.list_page(conn, org_id=org_id, limit=3)
        second = await bases.list_page(conn, org_id=org_id, limit=3, after_name=first[-1].name)
    assert [base.name for base in first + second] == sorted(made)


async def test_an_update_sets_options_and_refuses_a_taken_name(pool: Pool, org_id: UUID) -> None:
    created = await create(pool, org_id, "hr-docs")
    await create(pool, org_id, "legal")

    async with tenant(pool, org_id) as conn:
        updated = await bases.update(
            conn, org_id=org_id, knowledge_base_id=created.id, options=Options(name="people", description="All of HR")
        )
    with pytest.raises(AlreadyExists):
        async with tenant(pool, org_id) as conn:
            await bases.update(conn, org_id=org_id, knowledge_base_id=created.id, options=Options(name="legal"))

    assert (updated.name, updated.description, updated.metadata) == ("people", "All of HR", {})
    assert updated.updated_at > created.updated_at


@pytest.mark.parametrize("name", ["a", "hr-docs", "2026.q1_plan", "a" * 63])
def test_names_that_may_be(name: str) -> None:
    assert bases.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-a", ".a", "A", "a b", "a/b", "é", "a" * 64, "a\n", "6f1c3a52-9d6b-4c5e-8f0e-0d8a4f2b7c11"],
)
def test_names_that_may_not_be(name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        bases.check_name(name)
    assert raised.value.param == "name"
