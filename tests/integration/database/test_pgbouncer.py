"""Everything works behind a proxy that hands every transaction to another server connection, and nothing leaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from bonito.database.pool import Pool, lookup, open_pool, tenant
from bonito.tenancy import audit
from tests import pgbouncer
from tests.integration.conftest import Cluster, Database, make_organization

pytestmark = pytest.mark.needs("pgbouncer")

SERVER_CONNECTIONS = 2


@pytest.fixture(scope="module")
def proxy_url(cluster: Cluster, database: Database) -> Iterator[str]:
    """The runtime's URL through a PgBouncer with two connections to the server."""
    name = str(conninfo_to_dict(database.runtime_url)["dbname"])
    with pgbouncer.proxied(
        cluster.socket_dir, database=name, login="test_runtime", server_connections=SERVER_CONNECTIONS
    ) as url:
        yield url


@pytest.fixture
async def proxied(proxy_url: str) -> AsyncIterator[Pool]:
    """As many client connections as callers, so that they fight for the two of the server."""
    pool = await open_pool(proxy_url, min_size=1, max_size=16, timeout_s=30, max_waiting=1000)
    yield pool
    await pool.close()


async def test_many_tenants_at_once_each_see_their_own(proxied: Pool, database: Database) -> None:
    organizations = [make_organization(database) for _ in range(12)]
    servers: set[int] = set()

    async def work(org_id: UUID, fails: bool) -> None:
        async with tenant(proxied, org_id) as conn:
            row = await (
                await conn.execute("SELECT id, pg_backend_pid(), pg_sleep(0.001) FROM organizations")
            ).fetchall()
            assert [found for found, _, _ in row] == [org_id]
            servers.add(row[0][1])
            await asyncio.sleep(0)
            again = await (await conn.execute("SELECT id, pg_backend_pid() FROM organizations")).fetchall()
            assert again == [(org_id, row[0][1])]
            if fails:
                raise LookupError("rolled back")

    outcomes = await asyncio.gather(
        *(work(org_id, number % 3 == 0) for number in range(25) for org_id in organizations), return_exceptions=True
    )

    assert {type(outcome) for outcome in outcomes} == {type(None), LookupError}
    assert len(servers) == SERVER_CONNECTIONS


async def test_no_setting_outlives_its_transaction(proxied: Pool, org_id: UUID) -> None:
    settings = (
        "SELECT coalesce(current_setting('app.org_id', true), ''), current_setting('plan_cache_mode'),"
        " current_setting('statement_timeout')"
    )

    async def use(fails: bool) -> None:
        async with tenant(proxied, org_id) as conn:
            row = await (await conn.execute(settings)).fetchone()
            assert row == (str(org_id), "force_custom_plan", "30s")
            if fails:
                await conn.execute("SELECT 1 / 0")

    async def look() -> tuple[str, str, str]:
        async with lookup(proxied) as conn:
            row = await (await conn.execute(settings)).fetchone()
            assert row is not None
            return row  # type: ignore[return-value]  # three texts

    seen = await asyncio.gather(
        *(use(number % 4 == 0) if number % 2 else look() for number in range(60)), return_exceptions=True
    )

    assert {row for row in seen if isinstance(row, tuple)} == {("", "auto", "0")}


async def test_a_statement_that_is_repeated_is_not_prepared(proxied: Pool, org_id: UUID) -> None:
    """A prepared statement would live on one server connection, and be missing on the next."""

    async def ask(number: int) -> int:
        async with tenant(proxied, org_id) as conn:
            row = await (await conn.execute("SELECT %(number)s::integer + 1", {"number": number})).fetchone()
            assert row is not None
            return int(row[0])

    assert await asyncio.gather(*(ask(number) for number in range(200))) == list(range(1, 201))
    async with lookup(proxied) as conn:
        assert await (await conn.execute("SELECT name FROM pg_prepared_statements")).fetchall() == []


async def test_a_batch_and_a_cursor_on_the_server_work(proxied: Pool, org_id: UUID) -> None:
    async with tenant(proxied, org_id) as conn, conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO connections (org_id, id, name, cloud, credential) VALUES (%s, %s, %s, 'aws', '{}')",
            [(org_id, uuid4(), f"account {number}") for number in range(200)],
        )
    await asyncio.gather(
        *(audit.append(proxied, org_id, audit.Entry("system", "a.b", str(n), {}, "r")) for n in range(20))
    )

    async with tenant(proxied, org_id) as conn:
        found = await audit.verify(conn, org_id=org_id)
        count = await (await conn.execute("SELECT count(*) FROM connections")).fetchone()

    assert (found.is_intact, found.head.sequence, count) == (True, 20, (200,))


async def test_a_connection_that_the_proxy_drops_is_replaced(proxied: Pool, database: Database, org_id: UUID) -> None:
    with psycopg.connect(database.superuser_url, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'test_runtime' AND datname = current_database()"
        )
    failures = 0
    for _ in range(SERVER_CONNECTIONS + 2):
        try:
            async with tenant(proxied, org_id) as runtime:
                await runtime.execute("SELECT 1")
        except psycopg.OperationalError:
            failures += 1

    async with tenant(proxied, org_id) as runtime:
        assert await (await runtime.execute("SELECT id FROM organizations")).fetchall() == [(org_id,)]
    assert failures <= SERVER_CONNECTIONS
