"""The runtime's pool: who may open it, and what a tenant's transaction shows."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest

from bonito.database.pool import Pool, lookup, open_pool, tenant
from bonito.errors import UnsafeDatabaseRole
from tests.integration.conftest import Database


@pytest.mark.parametrize("login", ["superuser_url", "maintenance_url"])
async def test_a_login_that_row_level_security_does_not_hold_is_refused(database: Database, login: str) -> None:
    with pytest.raises(UnsafeDatabaseRole, match="owns tables"):
        await open_pool(getattr(database, login))


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
