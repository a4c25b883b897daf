"""The runtime's pool: who may open it, and what a tenant's transaction shows."""

from __future__ import annotations

from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.database.pool import Pool, lookup, open_pool, tenant
from bonito.errors import UnsafeDatabaseRole
from tests.integration.conftest import Database


@pytest.mark.parametrize("login", ["superuser_url", "maintenance_url"])
async def test_a_login_that_row_level_security_does_not_hold_is_refused(database: Database, login: str) -> None:
    with pytest.raises(UnsafeDatabaseRole, match="owns tables"):
        await open_pool(getattr(database, login))


@pytest.mark.parametrize(
    ("grant", "fault"),
    [
        pytest.param("GRANT bonito_owner TO {} WITH INHERIT FALSE, SET TRUE", "owns tables", id="may become the owner"),
        pytest.param("GRANT bonito_owner TO {} WITH INHERIT FALSE, SET FALSE, ADMIN TRUE", "owns tables", id="grants"),
        pytest.param("GRANT bonito_search TO {}", "may do more", id="searches everywhere"),
        pytest.param("GRANT bonito_lookup TO {} WITH INHERIT FALSE, SET TRUE", "may do more", id="may look up"),
        pytest.param("GRANT postgres TO {} WITH INHERIT FALSE, SET TRUE", "may do more", id="may become a superuser"),
        pytest.param("ALTER ROLE {} BYPASSRLS", "may bypass", id="bypasses"),
    ],
)
async def test_a_login_that_could_do_more_is_refused(database: Database, grant: str, fault: str) -> None:
    name = f"sneaky_{uuid4().hex}"
    with psycopg.connect(database.superuser_url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN")
        owner.execute(f"GRANT bonito_runtime TO {name}")
        owner.execute(grant.format(name))
        try:
            with pytest.raises(UnsafeDatabaseRole, match=fault):
                await open_pool(database.runtime_url.replace("test_runtime", name))
        finally:
            owner.execute(f"DROP ROLE {name}")


async def test_a_tenant_sees_its_own_organization_only(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    async with tenant(pool, org_id) as connection:
        rows = await (await connection.execute("SELECT id FROM organizations")).fetchall()

    assert rows == [(org_id,)]


async def test_without_an_organization_there_is_no_row(pool: Pool, org_id: UUID) -> None:
    async with tenant(pool, org_id):
        pass
    async with lookup(pool) as connection:
        rows = await (await connection.execute("SELECT id FROM organizations")).fetchall()

    assert rows == []


async def test_a_failed_unit_of_work_leaves_nothing(pool: Pool, org_id: UUID) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with tenant(pool, org_id) as connection:
            await connection.execute("SELECT append_audit(%s, 'system', 'a.b', 't', '{}', 'r')", [org_id])
            await connection.execute("INSERT INTO organizations VALUES (gen_random_uuid(), 'x')")
    async with tenant(pool, org_id) as connection:
        rows = await (await connection.execute("SELECT sequence FROM audit_log")).fetchall()

    assert rows == []
