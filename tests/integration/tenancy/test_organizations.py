"""Organizations: made with their first owner by who may migrate, by nobody else (T1)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import AlreadyExists, InvalidRequest, NotFound
from bonito.tenancy import audit, members, organizations, tokens
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database


@pytest.mark.parametrize("login", ["migrator_url", "superuser_url"])
async def test_a_new_organization_has_an_owner_with_a_token(pool: Pool, database: Database, login: str) -> None:
    name, email = f"Acme {uuid4()}", f"{uuid4()}@Example.com"

    created = organizations.create_organization(getattr(database, login), name=name, owner_email=email)

    principal = await tokens.authenticate(pool, created.token)
    async with tenant(pool, created.org_id) as conn:
        found = await organizations.get(conn, org_id=created.org_id)
        owners = await members.list_page(conn, org_id=created.org_id, limit=10)
        entries = await audit.list_page(conn, org_id=created.org_id, limit=10)
    assert (principal.org_id, principal.user_id, principal.role) == (created.org_id, created.user_id, Role.OWNER)
    assert found.name == name
    assert [(owner.user_id, owner.email) for owner in owners] == [(created.user_id, email.lower())]
    assert [(entry.actor, entry.action) for entry in entries] == [("system", "organization.create")]
    assert created.token not in repr(created)


async def test_a_person_may_own_several_organizations(database: Database) -> None:
    email = f"{uuid4()}@example.com"

    first = organizations.create_organization(database.migrator_url, name=f"a {uuid4()}", owner_email=email)
    second = organizations.create_organization(database.migrator_url, name=f"b {uuid4()}", owner_email=email)

    assert first.user_id == second.user_id
    assert first.org_id != second.org_id


async def test_a_name_is_taken_once_also_at_once(database: Database) -> None:
    name = f"Acme {uuid4()}"

    def create(number: int) -> bool:
        email = f"{uuid4()}@example.com"
        try:
            organizations.create_organization(
                database.migrator_url, name=name.upper() if number % 2 else name, owner_email=email
            )
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(create, range(8))) == 1


@pytest.mark.parametrize("name", ["", " acme", "acme ", "a\nb", "a\0b", "x" * 256])
def test_a_name_that_cannot_be_shown_is_refused(database: Database, name: str) -> None:
    with pytest.raises(InvalidRequest, match="printable"):
        organizations.create_organization(database.migrator_url, name=name, owner_email="ada@example.com")


@pytest.mark.parametrize("email", ["", "ada", "@example.com", "ada@", "a b@example.com", "ada@example.com\n"])
def test_what_is_no_email_is_refused(database: Database, email: str) -> None:
    with pytest.raises(InvalidRequest, match="email"):
        organizations.create_organization(database.migrator_url, name=f"{uuid4()}", owner_email=email)


def test_the_runtime_makes_no_organization(database: Database) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        organizations.create_organization(database.runtime_url, name=f"{uuid4()}", owner_email=f"{uuid4()}@example.com")


async def test_another_organization_is_not_there(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    async with tenant(pool, other_org_id) as conn:
        with pytest.raises(NotFound):
            await organizations.get(conn, org_id=org_id)


async def test_a_tier_is_set_by_who_may_migrate_and_noted(pool: Pool, database: Database) -> None:
    name = f"Acme {uuid4()}"
    created = organizations.create_organization(
        database.migrator_url, name=name, owner_email=f"{uuid4()}@example.com", tier="free"
    )

    changed = organizations.set_tier(database.migrator_url, name=name.upper(), tier="pro")

    async with tenant(pool, created.org_id) as conn:
        found = await organizations.get(conn, org_id=created.org_id)
        newest, first = await audit.list_page(conn, org_id=created.org_id, limit=10)
    assert (changed, found.tier) == (created.org_id, "pro")
    assert (first.details["tier"], newest.action) == ("free", "organization.set_tier")
    assert newest.details == {"before": "free", "tier": "pro"}


async def test_the_runtime_cannot_set_a_tier(pool: Pool, org_id: UUID) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with tenant(pool, org_id) as conn:
            await conn.execute("UPDATE organizations SET tier = 'scale'")


async def test_an_unknown_organization_has_no_tier(database: Database) -> None:
    with pytest.raises(NotFound):
        organizations.set_tier(database.migrator_url, name=f"nobody {uuid4()}", tier="pro")
