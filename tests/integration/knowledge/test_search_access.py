"""What stands between an organization's chunks and everyone else; the indexes are used all the same (R6, R7)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from bonito.database.pool import Pool
from bonito.knowledge import indexes
from tests.integration.conftest import Database
from tests.integration.knowledge.shelves import Shelf, TableEmbedding, create_shelf

SEARCH = """
    SELECT content FROM search_knowledge_base(%(org)s, %(base)s, %(generation)s, %(mode)s, 'leave accrues',
                                              %(embedding)s::vector, '{}', 0, 10)
"""
SCANS = """
    SELECT indexrelname, idx_scan FROM pg_stat_user_indexes WHERE relname ~ '^kb_(index|chunks)' AND idx_scan > 0
"""
TABLE_SCANS = """
    SELECT relname, coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_user_tables
     WHERE relname ~ '^kb_(index|chunks)_p'
"""
PARTS = (
    "query_terms(%(org)s, %(generation)s, 'simple', 1, 'a')",
    "keyword_candidates(%(org)s, %(base)s, %(generation)s, '{1:1}/1000000000', '{1}', NULL, 1)",
    "vector_candidates(%(org)s, %(base)s, %(generation)s, 4, %(embedding)s::vector, NULL, 1, 1)",
    "served_revisions(%(org)s, %(generation)s)",
    "compared(%(org)s, '{}', 'vector', %(embedding)s::vector, NULL, 0, 1)",
)


@pytest.fixture
async def shelf(pool: Pool, org_id: uuid.UUID) -> Shelf:
    shelf = await create_shelf(pool, org_id, "handbook", model=TableEmbedding())
    await shelf.add("a.md", ["Leave accrues monthly.", "Something else."])
    return shelf


@contextmanager
def runtime(database: Database, org_id: uuid.UUID | None) -> Iterator[psycopg.Connection[Any]]:
    """The runtime's connection, in a transaction of an organization or of none."""
    with psycopg.connect(database.runtime_url) as connection:
        if org_id is not None:
            connection.execute("SELECT set_config('app.org_id', %s, true)", [str(org_id)])
        yield connection


def parameters(shelf: Shelf, mode: str = "hybrid") -> dict[str, Any]:
    keys = {"org": shelf.org_id, "base": shelf.base_id, "generation": shelf.generation_id}
    return keys | {"mode": mode, "embedding": None if mode == "keyword" else "[1,1,1,1]"}


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_the_organization_that_is_set_finds_its_chunks(database: Database, shelf: Shelf, mode: str) -> None:
    with runtime(database, shelf.org_id) as connection:
        assert ("Leave accrues monthly.",) in connection.execute(SEARCH, parameters(shelf, mode)).fetchall()


def test_without_an_organization_search_refuses(database: Database, shelf: Shelf) -> None:
    with runtime(database, None) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(SEARCH, parameters(shelf))


def test_asking_for_another_organization_than_the_one_set_is_refused(
    database: Database, shelf: Shelf, other_org_id: uuid.UUID
) -> None:
    with runtime(database, other_org_id) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(SEARCH, parameters(shelf))


def test_a_wrong_organization_sees_nothing_under_its_own_name(
    database: Database, shelf: Shelf, other_org_id: uuid.UUID
) -> None:
    with runtime(database, other_org_id) as connection, pytest.raises(psycopg.errors.NoDataFound):
        connection.execute(SEARCH, parameters(shelf) | {"org": other_org_id})


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.split("(")[0])
def test_the_runtime_calls_none_of_the_parts(database: Database, shelf: Shelf, part: str) -> None:
    with runtime(database, shelf.org_id) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(f"SELECT * FROM {part}", parameters(shelf))


def test_the_search_role_cannot_log_in_and_writes_nothing(database: Database) -> None:
    with psycopg.connect(database.superuser_url) as connection:
        role = connection.execute(
            "SELECT rolcanlogin, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = 'bonito_search'"
        ).fetchone()
        assert role == (False, False, False)
        writes = connection.execute(
            "SELECT relname, privilege_type FROM pg_class c, aclexplode(c.relacl) a "
            "WHERE a.grantee = 'bonito_search'::regrole AND a.privilege_type <> 'SELECT'"
        ).fetchall()
        assert writes == []


def test_search_functions_pin_their_path_and_are_closed_to_the_public(database: Database) -> None:
    with psycopg.connect(database.superuser_url) as connection:
        found = connection.execute(
            "SELECT proname, proconfig, provolatile, has_function_privilege('bonito_runtime', oid, 'EXECUTE') "
            "FROM pg_proc WHERE prosecdef AND proowner = 'bonito_search'::regrole"
        ).fetchall()
        public = connection.execute(
            "SELECT proname FROM pg_proc, aclexplode(proacl) a WHERE prosecdef AND a.grantee = 0"
        ).fetchall()
    assert [name for name, *_ in found] == ["search_knowledge_base"]
    for _, settings, volatility, is_callable in found:
        assert "search_path=pg_catalog, public, pg_temp" in settings
        assert volatility == "s"
        assert is_callable
    assert public == []


async def test_the_runtime_search_uses_its_indexes_in_one_partition(
    pool: Pool, database: Database, org_id: uuid.UUID, small_limit: int
) -> None:
    shelf = await create_shelf(pool, org_id, "large", model=TableEmbedding())
    for document in range(30):
        texts = [f"{'Leave accrues' if document == 7 else 'Paper folds'} {place}." for place in range(10)]
        await shelf.add(f"{document}.md", texts, [[1.0, document, place, 1.0] for place in range(10)])
    await indexes.maintain(database.maintenance_url)
    with psycopg.connect(database.superuser_url, autocommit=True) as owner:
        owner.execute("ANALYZE kb_index")
        row = owner.execute(
            "SELECT DISTINCT tableoid::regclass::text FROM kb_index WHERE org_id = %s", [org_id]
        ).fetchall()
        leaf = row[0][0]
        before, tables_before = dict(owner.execute(SCANS).fetchall()), dict(owner.execute(TABLE_SCANS).fetchall())
        with runtime(database, org_id) as connection:
            row = parameters(shelf) | {"mode": "hybrid"}
            assert len(connection.execute(SEARCH, row).fetchall()) == 10
            connection.execute("SELECT pg_stat_force_next_flush()")
            connection.commit()  # answered after the flush
        after, tables_after = dict(owner.execute(SCANS).fetchall()), dict(owner.execute(TABLE_SCANS).fetchall())
    used = {name for name, count in after.items() if count > before.get(name, 0)}
    assert f"kb_hnsw_{shelf.generation_id.hex}_300" in used
    assert f"{leaf}_terms_idx" in used
    touched = {name for name, count in tables_after.items() if count > tables_before.get(name, 0)}
    assert touched == {leaf, leaf.replace("kb_index", "kb_chunks")}
