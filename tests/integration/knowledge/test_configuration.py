"""Creating and changing knowledge bases below the HTTP layer: what is decided once, and what begins anew (I16)."""

from __future__ import annotations

import dataclasses
from uuid import UUID

import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import InvalidRequest, ModelNotFound, StateConflict
from bonito.knowledge import configuration, generations
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.configuration import KnowledgeBaseChange, NewKnowledgeBase
from bonito.knowledge.generations import Generation
from bonito.knowledge.sources import SourcePolicy, UploadSource
from bonito.providers.base import EmbeddingModel
from tests.integration.knowledge.served import HashEmbedding, serve

UPLOADS = SourcePolicy(readable=frozenset({"upload"}))
NEW = NewKnowledgeBase(name="hr", source=UploadSource(type="upload"))


@dataclasses.dataclass
class ChangingModels:
    """An organization whose `auto` and whose model behind a name change."""

    auto: str = "test/first"
    fingerprint: str = "1"

    async def embedding_model(self, org_id: UUID, name: str) -> EmbeddingModel:
        if name == "test/none":
            raise ModelNotFound("Add a provider with an embedding model: `bonito providers add`.")
        return HashEmbedding(name=self.auto if name == "auto" else name, fingerprint=self.fingerprint)


async def created(pool: Pool, models: ChangingModels, org_id: UUID) -> KnowledgeBase:
    base = await configuration.create_base(pool, models, org_id=org_id, new=NEW, sources=UPLOADS)
    await serve(pool, org_id, base, "a.md", ["one", "two"])
    return base


async def changed(pool: Pool, models: ChangingModels, org_id: UUID, **fields: object) -> Generation | None:
    _, building = await configuration.change_base(
        pool, models, org_id=org_id, name_or_id="hr", change=KnowledgeBaseChange(**fields), sources=UPLOADS
    )
    return building


async def present(pool: Pool, org_id: UUID, base: KnowledgeBase) -> tuple[Generation, ...]:
    async with tenant(pool, org_id) as conn:
        return await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=base.id)


async def test_auto_is_decided_once_per_generation(pool: Pool, org_id: UUID) -> None:
    models = ChangingModels()
    base = await created(pool, models, org_id)
    models.auto = "test/second"

    assert await changed(pool, models, org_id, description="new") is None
    assert [generation.embedding_model for generation in await present(pool, org_id, base)] == ["test/first"]

    building = await changed(pool, models, org_id, chunk_size=128)
    assert building is not None
    assert (building.embedding_model, building.chunk_size) == ("test/second", 128)


async def test_a_model_that_changed_behind_its_name_is_refused_and_setting_it_again_builds_anew(
    pool: Pool, org_id: UUID
) -> None:
    models = ChangingModels()
    base = await created(pool, models, org_id)
    models.fingerprint = "2"
    (served,) = await present(pool, org_id, base)

    with pytest.raises(StateConflict, match="no longer the one"):
        generations.check_fingerprint(served, await models.embedding_model(org_id, served.embedding_model))
    building = await changed(pool, models, org_id, embedding_model="auto")

    assert building is not None
    assert (building.embedding_fingerprint, building.chunk_size) == ("2", served.chunk_size)
    assert await changed(pool, models, org_id, embedding_model="auto") == building


async def test_a_detected_language_stays_when_something_else_changes(pool: Pool, org_id: UUID) -> None:
    models = ChangingModels()
    base = await created(pool, models, org_id)
    (served,) = await present(pool, org_id, base)
    async with tenant(pool, org_id) as conn:
        await generations.pin_language(conn, org_id=org_id, generation_id=served.id, language="german")

    building = await changed(pool, models, org_id, chunk_size=64, chunk_overlap=0)
    assert building is not None
    assert building.language == "german"
    assert await changed(pool, models, org_id, chunk_size=512, chunk_overlap=50) is None

    named = await changed(pool, models, org_id, language="english")
    assert named is not None
    assert named.language == "english"
    again = await changed(pool, models, org_id, language="auto")
    assert again is not None
    assert again.language is None


async def test_an_organization_without_a_model_is_told_what_to_do(pool: Pool, org_id: UUID) -> None:
    new = NewKnowledgeBase(name="hr", source=UploadSource(type="upload"), embedding_model="test/none")

    with pytest.raises(InvalidRequest, match="providers add") as raised:
        await configuration.create_base(pool, ChangingModels(), org_id=org_id, new=new, sources=UPLOADS)
    assert raised.value.param == "embedding_model"


async def test_the_chunk_size_in_force_is_what_the_model_reads(pool: Pool, org_id: UUID) -> None:
    base = await configuration.create_base(pool, ChangingModels(), org_id=org_id, new=NEW, sources=UPLOADS)

    (generation,) = await present(pool, org_id, base)

    assert (base.chunk_size, base.chunk_overlap) == (512, 50)
    assert (generation.chunk_size, generation.chunk_overlap) == (256, 25)
