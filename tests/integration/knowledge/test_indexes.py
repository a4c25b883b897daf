from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import AsyncConnection

from bonito.database.pool import Pool, tenant
from bonito.errors import SchemaMismatch
from bonito.knowledge import bases, indexes
from bonito.knowledge.search import Searcher, SearchRequest
from tests.integration.conftest import Database
from tests.integration.knowledge.shelves import Models, Shelf, TableEmbedding, create_shelf, next_generation

INDEXES = """
    SELECT c.relname, x.indisvalid, pg_get_indexdef(x.indexrelid)
      FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid WHERE c.relname LIKE 'kb\\_hnsw%' ORDER BY 1
"""

pytestmark = pytest.mark.usefixtures("small_limit")


@pytest.fixture
def owner(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A superuser, to look and to break things; other tests' generations are retired for this one."""
    with psycopg.connect(database.superuser_url, autocommit=True) as connection:
        connection.execute("UPDATE knowledge_bases SET deleted_at = now()")
        yield connection


@pytest.fixture
async def shelf(owner: object, pool: Pool, org_id: uuid.UUID) -> Shelf:
    """A base above the limit of exact search."""
    shelf = await create_shelf(pool, org_id, "large", model=TableEmbedding())
    await fill(shelf, 50)
    return shelf


async def fill(shelf: Shelf, count: int, *, path: str = "a.md") -> None:
    drawn = random.Random(count)
    vectors = [[drawn.gauss(0, 1) for _ in range(shelf.dimensions)] for _ in range(count)]
    await shelf.add(path, [f"text {number}" for number in range(count)], vectors)


async def count_as_written(shelf: Shelf, written: int) -> None:
    async with tenant(shelf.pool, shelf.org_id) as conn:
        await conn.execute(
            "UPDATE kb_generations SET chunks_written = chunks_written + %s WHERE org_id = %s AND id = %s",
            [written, shelf.org_id, shelf.generation_id],
        )


def names(owner: psycopg.Connection[tuple[object, ...]]) -> list[object]:
    return [name for name, *_ in owner.execute(INDEXES).fetchall()]


async def test_a_large_generation_gets_an_index_of_its_own(
    database: Database, shelf: Shelf, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    done = await indexes.maintain(database.maintenance_url)
    assert done == indexes.Maintained(built=[f"kb_hnsw_{shelf.generation_id.hex}_50"], dropped=[], failed=[])
    ((_, is_valid, definition),) = owner.execute(INDEXES).fetchall()
    assert is_valid
    for key in (shelf.org_id, shelf.base_id, shelf.generation_id):
        assert str(key) in str(definition)


async def test_a_second_run_has_nothing_to_do(database: Database, shelf: Shelf) -> None:
    await indexes.maintain(database.maintenance_url)
    assert await indexes.maintain(database.maintenance_url) == indexes.Maintained()


async def test_small_and_empty_generations_get_none(database: Database, shelf: Shelf, pool: Pool) -> None:
    small = await create_shelf(pool, shelf.org_id, "small", model=TableEmbedding())
    await fill(small, 40)
    await create_shelf(pool, shelf.org_id, "empty", model=TableEmbedding())
    done = await indexes.maintain(database.maintenance_url)
    assert done is not None
    assert [name.split("_")[2] for name in done.built] == [shelf.generation_id.hex]


async def test_a_generation_that_is_built_beside_gets_its_index_before_the_switch(
    database: Database, shelf: Shelf, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    await indexes.maintain(database.maintenance_url)
    built = await next_generation(shelf, model=TableEmbedding(name="wide", fingerprint="wide", dimensions=6))
    await fill(built, 60)
    await indexes.maintain(database.maintenance_url)
    assert len(names(owner)) == 2
    await built.serve()
    done = await indexes.maintain(database.maintenance_url)
    assert done is not None
    assert done.dropped == [f"kb_hnsw_{shelf.generation_id.hex}_50"]
    assert names(owner) == [f"kb_hnsw_{built.generation_id.hex}_60"]


async def test_a_deleted_bases_index_is_dropped(
    database: Database, shelf: Shelf, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    await indexes.maintain(database.maintenance_url)
    async with tenant(shelf.pool, shelf.org_id) as conn:
        await bases.delete(conn, org_id=shelf.org_id, knowledge_base_id=shelf.base_id)
    await indexes.maintain(database.maintenance_url)
    assert names(owner) == []


async def test_the_index_of_a_base_that_shrank_is_dropped(
    database: Database, shelf: Shelf, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    await indexes.maintain(database.maintenance_url)
    await fill(shelf, 30)  # below the limit, and above half of it
    await indexes.maintain(database.maintenance_url)
    assert len(names(owner)) == 1
    await fill(shelf, 20)
    await indexes.maintain(database.maintenance_url)
    assert names(owner) == []


async def test_much_change_builds_a_new_index_beside_the_old_one(
    database: Database, shelf: Shelf, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    await indexes.maintain(database.maintenance_url)
    await count_as_written(shelf, indexes.CHURN_CHUNKS)
    assert await indexes.maintain(database.maintenance_url) == indexes.Maintained()
    await count_as_written(shelf, 1)
    done = await indexes.maintain(database.maintenance_url)
    assert done is not None
    old, new = f"kb_hnsw_{shelf.generation_id.hex}_50", f"kb_hnsw_{shelf.generation_id.hex}_10051"
    assert (done.built, done.dropped) == ([new], [old])
    assert names(owner) == [new]


async def test_change_is_measured_against_the_size_as_well(
    database: Database, shelf: Shelf, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    await indexes.maintain(database.maintenance_url)
    owner.execute("UPDATE kb_generations SET chunk_count = 100000 WHERE id = %s", [shelf.generation_id])
    await count_as_written(shelf, 20_000)
    assert await indexes.maintain(database.maintenance_url) == indexes.Maintained()
    await count_as_written(shelf, 1)
    done = await indexes.maintain(database.maintenance_url)
    assert done is not None
    assert len(done.built) == 1


async def test_what_a_crashed_build_left_is_dropped_and_built_again(
    database: Database, shelf: Shelf, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    await indexes.maintain(database.maintenance_url)
    (name,) = names(owner)
    owner.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [name])
    done = await indexes.maintain(database.maintenance_url)
    assert done == indexes.Maintained(built=[str(name)], dropped=[str(name)], failed=[])
    assert [is_valid for _, is_valid, _ in owner.execute(INDEXES).fetchall()] == [True]


async def test_one_that_fails_does_not_stop_the_others(
    database: Database,
    shelf: Shelf,
    pool: Pool,
    owner: psycopg.Connection[tuple[object, ...]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first generation's vectors are not of the length that it says."""
    second = await create_shelf(pool, shelf.org_id, "second", model=TableEmbedding())
    await fill(second, 50)
    wrong = min(shelf.generation_id, second.generation_id)
    owner.execute("UPDATE kb_generations SET dimensions = 5 WHERE id = %s", [wrong])
    with caplog.at_level(logging.CRITICAL):
        done = await indexes.maintain(database.maintenance_url)
    assert done is not None
    assert done.failed == [f"kb_hnsw_{wrong.hex}_50"]
    assert len(done.built) == 1
    assert names(owner) == done.built


async def test_only_one_process_maintains_a_database(database: Database, shelf: Shelf) -> None:
    async with await AsyncConnection.connect(database.maintenance_url, autocommit=True) as connection:
        await connection.execute(indexes.LOCK)
        assert await indexes.maintain(database.maintenance_url) is None
    assert await indexes.maintain(database.maintenance_url) is not None


async def test_two_organizations_indexes_do_not_meet(
    database: Database, shelf: Shelf, pool: Pool, other_org_id: uuid.UUID
) -> None:
    other = await create_shelf(pool, other_org_id, "large", model=TableEmbedding())
    await fill(other, 50)
    done = await indexes.maintain(database.maintenance_url)
    assert done is not None
    assert {name.split("_")[2] for name in done.built} == {shelf.generation_id.hex, other.generation_id.hex}


@pytest.mark.parametrize("dimensions", [1, 2_001, 4_000])
async def test_any_dimension_up_to_4000_is_indexed_and_searched(
    database: Database, pool: Pool, org_id: uuid.UUID, owner: psycopg.Connection[tuple[object, ...]], dimensions: int
) -> None:
    model = TableEmbedding(dimensions=dimensions)
    shelf = await create_shelf(pool, org_id, "wide", model=model)
    await fill(shelf, 50)
    done = await indexes.maintain(database.maintenance_url)
    assert done is not None
    assert len(done.built) == 1
    searcher = Searcher(pool, Models(model))
    request = SearchRequest("anything", mode="vector", top_k=50)
    outcome = await searcher.search(org_id, names=["wide"], readable=None, request=request)
    assert len(outcome.results) == 50


async def test_numbers_beyond_a_halfvecs_range_are_indexed(
    database: Database, pool: Pool, org_id: uuid.UUID, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    model = TableEmbedding(dimensions=2, vectors={"east": [3e8, 0.0]})
    shelf = await create_shelf(pool, org_id, "huge", model=model)
    angles = [[1e9, 1e8 * step] for step in range(50)]
    ids = await shelf.add("a.md", [f"text {step}" for step in range(50)], angles)
    done = await indexes.maintain(database.maintenance_url)
    assert done is not None
    assert len(done.built) == 1
    searcher = Searcher(pool, Models(model))
    outcome = await searcher.search(
        org_id, names=["huge"], readable=None, request=SearchRequest("east", mode="vector", top_k=3)
    )
    assert [result.chunk_id for result in outcome.results] == ids[:3]


@pytest.mark.parametrize("version", ["0.8.1", "0.8.0"])
async def test_a_pgvector_with_known_faults_builds_all_the_same(
    database: Database, shelf: Shelf, owner: psycopg.Connection[tuple[object, ...]], version: str
) -> None:
    with pretended_pgvector(owner, version):
        done = await indexes.maintain(database.maintenance_url)
    assert done is not None
    assert len(done.built) == 1


async def test_a_pgvector_without_iterative_scans_is_refused(
    database: Database, shelf: Shelf, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    with pretended_pgvector(owner, "0.7.4"), pytest.raises(SchemaMismatch, match=r"0\.7\.4"):
        await indexes.maintain(database.maintenance_url)


@contextmanager
def pretended_pgvector(owner: psycopg.Connection[tuple[object, ...]], version: str) -> Iterator[None]:
    found = owner.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    set_version = "UPDATE pg_extension SET extversion = %s WHERE extname = 'vector'"
    owner.execute(set_version, [version])
    yield
    owner.execute(set_version, found)
