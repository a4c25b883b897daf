"""A wrong organization sees and changes nothing: in any table, through any repository function or resolver (T2, T8)."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import secrets as randomness
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

import bonito.knowledge
import bonito.tenancy
from bonito.database.pool import Pool, lookup, tenant
from bonito.errors import BonitoError
from bonito.knowledge import bases, generations
from bonito.tenancy import audit, credentials, invites, keys, secrets
from bonito.tenancy.permissions import Role
from bonito.tenancy.secrets import SecretBox
from tests.integration.conftest import Database
from tests.integration.knowledge.served import create_base, serve, vector_of
from tests.integration.people import make_member

CANARY = "canary-7b1f"
BOX = SecretBox([bytes(32)])

# Rows that nothing above makes; whoever adds a table adds one here.
FURTHER_ROWS = """
    INSERT INTO connections (org_id, id, name, cloud, credential) VALUES (%(org_id)s, %(id)s, %(canary)s, 'aws', '{}');
    INSERT INTO providers (org_id, id, name, type, connection_id)
    VALUES (%(org_id)s, %(id)s, %(canary)s, 'openai', %(id)s);
    INSERT INTO embedding_turns (org_id, provider_id, model) VALUES (%(org_id)s, %(id)s, %(canary)s);
    INSERT INTO kb_syncs (org_id, id, knowledge_base_id, status, error_message)
    VALUES (%(org_id)s, %(id)s, %(base_id)s, 'failed', %(canary)s);
    INSERT INTO sync_webhooks (org_id, id, knowledge_base_id, secret_id)
    VALUES (%(org_id)s, %(id)s, %(base_id)s, %(secret_id)s);
    INSERT INTO sync_webhook_deliveries (org_id, webhook_id, delivery_id)
    VALUES (%(org_id)s, %(id)s, %(canary)s);
    INSERT INTO kb_uploads (org_id, id, knowledge_base_id, files, expires_at)
    VALUES (%(org_id)s, %(id)s, %(base_id)s, jsonb_build_array(%(canary)s), now() + interval '1 hour');
    INSERT INTO kb_batches (org_id, revision_id, first_index, last_index)
    SELECT org_id, id, 0, 0 FROM kb_revisions WHERE org_id = %(org_id)s;
    INSERT INTO kb_terms (org_id, generation_id, term, document_frequency)
    VALUES (%(org_id)s, %(generation_id)s, 7, 1);
    INSERT INTO gateway_requests (org_id, id, created_at, request_id, operation, model_requested, is_stream, status,
                                  latency_ms)
    VALUES (%(org_id)s, %(id)s, now(), %(canary)s, 'chat.completions', %(canary)s, false, 200, 1)
"""


NAMES = {
    name: uuid4()
    for name in (
        *("id", "user_id", "token_id", "key_id", "invite_id", "secret_id"),
        *("base_id", "knowledge_base_id", "generation_id", "document_id", "revision_id"),
    )
}


@dataclass(frozen=True)
class World:
    """An organization with a row in every table, and the ids of its things."""

    org_id: UUID
    ids: dict[str, UUID]


@pytest.fixture
async def world(pool: Pool, database: Database, org_id: UUID) -> World:
    member = make_member(database, org_id, Role.OWNER)
    ids = {"user_id": member.user_id, "token_id": member.token_id, "id": uuid4()}
    ids |= {name: uuid4() for name in ("key_id", "invite_id", "secret_id")}
    async with tenant(pool, org_id) as conn:
        await keys.create(
            conn,
            org_id=org_id,
            key_id=ids["key_id"],
            name=CANARY,
            credential=credentials.mint("bn-", randomness.token_bytes(32)),
        )
        await invites.create(
            conn,
            org_id=org_id,
            invite_id=ids["invite_id"],
            email=f"{CANARY}@example.com",
            role=Role.VIEWER,
            signing_key=bytes(32),
            by=Role.OWNER,
        )
        await secrets.put(
            conn, BOX, org_id=org_id, secret_id=ids["secret_id"], purpose=CANARY, plaintext=CANARY.encode()
        )
    await audit.append(pool, org_id, audit.Entry(CANARY, "a.b", CANARY, {}, CANARY))
    base = await create_base(pool, org_id, CANARY)
    ids["document_id"] = await serve(pool, org_id, base, f"{CANARY}.md", [CANARY, f"{CANARY} again"])
    ids["knowledge_base_id"] = ids["base_id"] = base.id
    async with tenant(pool, org_id) as conn:
        open_ones = await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=base.id)
        ids["generation_id"] = open_ones[0].id
    with psycopg.connect(database.superuser_url, cursor_factory=psycopg.ClientCursor) as conn:
        conn.execute(FURTHER_ROWS, ids | {"org_id": org_id, "canary": CANARY})
        row = conn.execute("SELECT id FROM kb_revisions WHERE org_id = %s", [org_id]).fetchone()
        assert row is not None
        ids["revision_id"] = row[0]
    assert set(ids) == set(NAMES)
    return World(org_id, ids)


def tenant_tables(database: Database) -> list[tuple[str, str, bool]]:
    """Name, the column that says whose a row is, and whether it is a partition."""
    with psycopg.connect(database.superuser_url) as conn:
        return conn.execute(
            "SELECT c.relname, CASE c.relname WHEN 'organizations' THEN 'id' ELSE 'org_id' END, c.relispartition"
            " FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
            " AND (c.relname = 'organizations' OR EXISTS (SELECT FROM pg_attribute a"
            " WHERE a.attrelid = c.oid AND a.attname = 'org_id'))"
        ).fetchall()


def rows_of(database: Database, org_id: UUID) -> dict[str, list[str]]:
    """Everything that an organization has, by table."""
    found = {}
    with psycopg.connect(database.superuser_url) as conn:
        for table, column, is_partition in tenant_tables(database):
            if not is_partition:
                query = sql.SQL("SELECT t::text FROM {} t WHERE {} = %s ORDER BY 1").format(
                    sql.Identifier(table), sql.Identifier(column)
                )
                found[table] = [text for (text,) in conn.execute(query, [org_id]).fetchall()]
    return found


async def test_the_world_has_a_row_in_every_table(database: Database, world: World) -> None:
    """Or the tests below would show nothing about it."""
    assert [table for table, rows in rows_of(database, world.org_id).items() if not rows] == []


async def test_no_table_shows_or_yields_another_organizations_rows(
    pool: Pool, database: Database, world: World, other_org_id: UUID
) -> None:
    before = rows_of(database, world.org_id)
    for table, column, is_partition in tenant_tables(database):
        names = {"table": sql.Identifier(table), "column": sql.Identifier(column)}
        statements = [
            "SELECT 1 FROM {table} WHERE {column} = %(org_id)s",
            "UPDATE {table} SET {column} = {column} WHERE {column} = %(org_id)s RETURNING 1",
            "DELETE FROM {table} WHERE {column} = %(org_id)s RETURNING 1",
        ]
        for statement in statements:
            query = sql.SQL(statement).format(**names)  # type: ignore[arg-type]  # listed above
            for seen in (other_org_id, None):
                answer = await attempt(pool, seen, query, {"org_id": world.org_id})
                if is_partition:
                    assert isinstance(answer, psycopg.errors.InsufficientPrivilege), f"{table}: {answer}"
                else:
                    assert isinstance(answer, psycopg.errors.InsufficientPrivilege) or answer == [], table
    assert rows_of(database, world.org_id) == before


async def test_no_row_can_be_put_into_another_organization(
    pool: Pool, database: Database, world: World, other_org_id: UUID
) -> None:
    before = rows_of(database, world.org_id)
    for table, column, is_partition in tenant_tables(database):
        names = {"table": sql.Identifier(table), "column": sql.Identifier(column)}
        with psycopg.connect(database.superuser_url) as conn:
            query = sql.SQL("SELECT to_jsonb(t) FROM {table} t WHERE {column} = %s").format(**names)
            row = conn.execute(query, [world.org_id]).fetchone()
        if is_partition or row is None:
            continue
        insert = sql.SQL("INSERT INTO {table} SELECT * FROM jsonb_populate_record(NULL::{table}, %(row)s)")
        answer = await attempt(pool, other_org_id, insert.format(**names), {"row": json.dumps(row[0])})

        assert isinstance(answer, psycopg.errors.InsufficientPrivilege), f"{table}: {answer!r}"
    assert rows_of(database, world.org_id) == before


async def attempt(pool: Pool, org_id: UUID | None, query: sql.Composed, row: dict[str, Any]) -> Any:
    try:
        async with tenant(pool, org_id) if org_id else lookup(pool) as conn:
            return await (await conn.execute(query, row)).fetchall()
    except psycopg.Error as error:
        return error


def modules_below(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


def repository_functions() -> list[Callable[..., Any]]:
    """Every function that works on a connection for an organization."""
    found = []
    for module in [*modules_below(bonito.tenancy), *modules_below(bonito.knowledge)]:
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction):
            parameters = inspect.signature(function).parameters
            if (
                not name.startswith("_")
                and function.__module__ == module.__name__
                and {"conn", "org_id"} <= {*parameters}
            ):
                found.append(function)
    return found


def arguments(function: Callable[..., Any], world: World) -> dict[str, Any] | None:
    """Those of the organization's own things by the parameters' names; None where a parameter has no such value."""
    values: dict[str, Any] = dict(world.ids) | {
        "name_or_id": CANARY,
        "limit": 10,
        "box": BOX,
        "purpose": CANARY,
        "plaintext": b"x",
        "role": Role.VIEWER,
        "by": Role.OWNER,
        "email": f"{CANARY}@example.com",
        "signing_key": bytes(32),
        "name": f"{CANARY}-2",
        "successor_id": uuid4(),
        "credential": credentials.mint("bn-", randomness.token_bytes(32)),
        "metadata": {"stolen": True},
        "query": CANARY,
        "path": f"{CANARY}.md",
        "file_path": f"{CANARY}.md",
        "lease": timedelta(minutes=1),
    }
    chosen = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in {"conn", "org_id"}:
            continue
        if name in values:
            chosen[name] = values[name]
        elif parameter.default is inspect.Parameter.empty:
            return None
    return chosen


# The others take what only their callers have; their tables' policies hold all the same.
CALLED = [function for function in repository_functions() if arguments(function, World(uuid4(), NAMES)) is not None]


@pytest.mark.parametrize("function", CALLED, ids=lambda f: f"{f.__module__}.{f.__name__}")
async def test_a_repository_function_yields_nothing_of_another_organization(
    pool: Pool, database: Database, world: World, other_org_id: UUID, function: Callable[..., Any]
) -> None:
    """Neither where another organization is set, nor where another is asked for: each of the two walls holds alone."""
    chosen = arguments(function, world)
    assert chosen is not None
    before = rows_of(database, world.org_id)

    for seen, asked in ((other_org_id, world.org_id), (world.org_id, other_org_id)):
        try:
            async with tenant(pool, seen) as conn:
                result = await function(**chosen, conn=conn, org_id=asked)
        except (BonitoError, psycopg.Error, AssertionError, ValueError):
            continue  # refused, as what is not there
        assert CANARY not in repr(result)
    assert rows_of(database, world.org_id) == before


def test_many_repository_functions_are_called() -> None:
    assert len(CALLED) >= 25
    assert {"get", "list_page", "create", "delete", "revoke", "rotate", "remove"} <= {f.__name__ for f in CALLED}


async def test_a_resolver_tells_nothing_without_the_right_secret(pool: Pool, world: World) -> None:
    async with lookup(pool) as conn:
        for function in ("find_gateway_key", "find_personal_token"):
            query = sql.SQL("SELECT * FROM {}(%s)").format(sql.Identifier(function))
            assert await (await conn.execute(query, [bytes(32)])).fetchall() == []


async def test_an_invite_is_not_accepted_for_another_organization_than_its_own(
    pool: Pool, database: Database, world: World, other_org_id: UUID
) -> None:
    with psycopg.connect(database.superuser_url) as conn:
        row = conn.execute("SELECT token_hash, email FROM invites WHERE org_id = %s", [world.org_id]).fetchone()
    assert row is not None
    async with lookup(pool) as runtime:
        runtime.row_factory = dict_row  # type: ignore[assignment]
        answer = await (
            await runtime.execute(
                "SELECT outcome FROM accept_invite(%s, %s, %s, '', %s, %s, %s, 'bp-')",
                [row[0], other_org_id, row[1], uuid4(), uuid4(), bytes(32)],
            )
        ).fetchone()
        runtime.row_factory = psycopg.rows.tuple_row

    assert answer == {"outcome": "unknown"}


async def test_a_search_for_another_organization_than_the_one_that_is_set_is_an_error(
    pool: Pool, world: World, other_org_id: UUID
) -> None:
    """Not an empty answer: whoever asks so has a fault that must not pass as "nothing found"."""
    call = (
        "SELECT * FROM search_knowledge_base(%s, %s, %s, 'hybrid', %s, %s::vector, '{}', 0.0, 10)",
        [world.org_id, world.ids["base_id"], world.ids["generation_id"], CANARY, str(list(vector_of(CANARY)))],
    )
    for seen in (other_org_id, None):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with tenant(pool, seen) if seen else lookup(pool) as conn:
                await conn.execute(*call)
    async with tenant(pool, world.org_id) as conn:
        assert await (await conn.execute(*call)).fetchall() != []


async def test_a_base_of_one_organization_and_the_id_of_another_find_nothing(
    pool: Pool, world: World, other_org_id: UUID
) -> None:
    async with tenant(pool, other_org_id) as conn:
        assert await bases.list_page(conn, org_id=other_org_id, limit=10) == []
        for name in (CANARY, str(world.ids["base_id"])):
            with pytest.raises(BonitoError):
                await bases.get(conn, org_id=other_org_id, name_or_id=name)
