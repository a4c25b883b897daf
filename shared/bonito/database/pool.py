"""Connections to Postgres, and the one short transaction of an organization that every unit of work is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from bonito.database import versions
from bonito.database.migrate import READ_PGVECTOR, check_schema
from bonito.errors import Overloaded, UnsafeDatabaseRole

Pool = AsyncConnectionPool[AsyncConnection[Any]]
Connection = AsyncConnection[Any]

# A generic plan ignores partial indexes (629 ms against 0.5 ms for a vector search), so plans are made for the values
# at hand. No statement of the runtime has a reason to run for longer than half a minute.
SET_TENANT: LiteralString = """
    SELECT set_config('app.org_id', %(org_id)s, true),
           set_config('plan_cache_mode', 'force_custom_plan', true),
           set_config('statement_timeout', '30s', true)
"""

# Membership in whatever way: what is not inherited can be had with SET ROLE, or granted to oneself.
CHECK_ROLE: LiteralString = """
    SELECT rolsuper,
           EXISTS (SELECT FROM pg_roles r WHERE r.rolbypassrls AND pg_has_role(r.oid, 'MEMBER')),
           EXISTS (SELECT FROM pg_class c
                    WHERE c.relnamespace = 'public'::regnamespace AND pg_has_role(c.relowner, 'MEMBER')),
           has_schema_privilege('public', 'CREATE'),
           EXISTS (SELECT FROM pg_roles r
                    WHERE (r.rolsuper OR r.rolname IN ('bonito_owner', 'bonito_lookup', 'bonito_search'))
                      AND pg_has_role(r.oid, 'MEMBER'))
      FROM pg_roles WHERE rolname = current_user
"""


async def open_pool(
    url: str, *, min_size: int = 1, max_size: int = 4, timeout_s: float = 5.0, max_waiting: int = 64
) -> Pool:
    """Open a pool whose connections keep no session state, so that it works behind a transaction-pooling proxy.

    Args:
        url: the runtime role's.
        min_size: connections kept open.
        max_size: connections at most; functions are many, so each has few.
        timeout_s: how long a caller waits for a connection before Overloaded.
        max_waiting: callers that may wait at once.

    Raises:
        UnsafeDatabaseRole: the login owns tables, may create some, or is not bound by row-level security.
        SchemaMismatch: the schema is not this code's, or Postgres or pgvector is too old.
    """
    pool: Pool = AsyncConnectionPool(
        url,
        min_size=min_size,
        max_size=max_size,
        timeout=timeout_s,
        max_waiting=max_waiting,
        configure=_configure,
        open=False,
    )
    await pool.open(wait=True, timeout=timeout_s)
    try:
        async with pool.connection() as connection:
            await check_schema(connection)
            await check_role(connection)
            await _check_versions(connection)
    except BaseException:
        await pool.close()
        raise
    return pool


async def _check_versions(connection: Connection) -> None:
    """Refuse what is too old, and warn of what has known faults."""
    versions.check_postgres(connection.info.server_version)
    row = await (await connection.execute(READ_PGVECTOR)).fetchone()
    versions.check_pgvector(row[0] if row else "0")


async def check_role(connection: Connection) -> None:
    """Refuse a login that row-level security does not hold; UnsafeDatabaseRole names what is wrong."""
    row = await (await connection.execute(CHECK_ROLE)).fetchone()
    assert row is not None  # noqa: S101 - current_user always exists
    faults = (
        "is a superuser",
        "may bypass row-level security",
        "owns tables",
        "may create tables",
        "is a member of a role that may do more",
    )
    found = [fault for fault, is_so in zip(faults, row, strict=True) if is_so]
    if found:
        raise UnsafeDatabaseRole(
            f"The login of BONITO_DATABASE_URL {' and '.join(found)}. Use one that is only a member of bonito_runtime "
            "(docs/operations.md)."
        )


@asynccontextmanager
async def tenant(pool: Pool, org_id: UUID) -> AsyncIterator[Connection]:
    """One short transaction of one organization; committed at the end, rolled back on an exception.

    Row-level security shows only this organization's rows. Never hold it across a model call.

    Raises:
        Overloaded: no connection became free in time.
    """
    async with lookup(pool) as connection:
        async with connection.pipeline():  # BEGIN and the settings travel together
            await connection.execute(SET_TENANT, {"org_id": str(org_id)})
        yield connection


@asynccontextmanager
async def lookup(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction without an organization: for the resolver functions only, every table looks empty."""
    try:
        connection = await pool.getconn()
    except (PoolTimeout, TooManyRequests) as error:
        raise Overloaded("Too many requests wait for the database; try again shortly.", retry_after_s=1.0) from error
    try:
        async with connection:  # commits or rolls back; a pool's connection is not closed by this
            yield connection
    finally:
        await pool.putconn(connection)


async def _configure(connection: Connection) -> None:
    from pgvector.psycopg import register_vector_async

    connection.prepare_threshold = None  # a proxy may hand the next transaction to another server
    await register_vector_async(connection)
    await connection.commit()
