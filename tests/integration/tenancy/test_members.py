"""Members: roles change under rules, and an organization is never without an owner."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import NotFound, PermissionDenied, StateConflict
from bonito.tenancy import invites, members
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.people import make_member


async def set_role(pool: Pool, org_id: UUID, user_id: UUID, role: Role, by: Role = Role.OWNER) -> members.Member:
    async with tenant(pool, org_id) as conn:
        return await members.set_role(conn, org_id=org_id, user_id=user_id, role=role, by=by)


async def remove(pool: Pool, org_id: UUID, user_id: UUID, by: Role = Role.OWNER) -> None:
    async with tenant(pool, org_id) as conn:
        await members.remove(conn, org_id=org_id, user_id=user_id, by=by)


async def roles(pool: Pool, org_id: UUID) -> dict[UUID, Role]:
    async with tenant(pool, org_id) as conn:
        return {member.user_id: member.role for member in await members.list_page(conn, org_id=org_id, limit=100)}


async def test_a_member_gets_another_role(pool: Pool, database: Database, org_id: UUID) -> None:
    member = make_member(database, org_id, Role.VIEWER)

    changed = await set_role(pool, org_id, member.user_id, Role.ADMIN, by=Role.ADMIN)

    assert (changed.role, changed.email) == (Role.ADMIN, member.email)
    assert (await roles(pool, org_id))[member.user_id] is Role.ADMIN


async def test_the_last_owner_stays(pool: Pool, database: Database, org_id: UUID) -> None:
    owner = make_member(database, org_id, Role.OWNER)
    make_member(database, org_id, Role.ADMIN)

    with pytest.raises(StateConflict, match="last owner"):
        await set_role(pool, org_id, owner.user_id, Role.ADMIN)
    with pytest.raises(StateConflict, match="last owner"):
        await remove(pool, org_id, owner.user_id)
    await set_role(pool, org_id, owner.user_id, Role.OWNER)


async def test_of_owners_who_all_step_down_at_once_one_stays(pool: Pool, database: Database, org_id: UUID) -> None:
    owners = [make_member(database, org_id, Role.OWNER) for _ in range(4)]

    outcomes = await asyncio.gather(
        *(set_role(pool, org_id, owner.user_id, Role.VIEWER) for owner in owners[:2]),
        *(remove(pool, org_id, owner.user_id) for owner in owners[2:]),
        return_exceptions=True,
    )

    assert sum(isinstance(outcome, StateConflict) for outcome in outcomes) == 1
    assert list((await roles(pool, org_id)).values()).count(Role.OWNER) == 1


async def test_an_administrator_neither_makes_nor_touches_an_owner(
    pool: Pool, database: Database, org_id: UUID
) -> None:
    owner, admin = make_member(database, org_id, Role.OWNER), make_member(database, org_id, Role.ADMIN)
    make_member(database, org_id, Role.OWNER)

    for attempt in (
        set_role(pool, org_id, admin.user_id, Role.OWNER, by=Role.ADMIN),
        set_role(pool, org_id, owner.user_id, Role.VIEWER, by=Role.ADMIN),
        remove(pool, org_id, owner.user_id, by=Role.ADMIN),
    ):
        with pytest.raises(PermissionDenied, match="Only an owner"):
            await attempt
    assert (await roles(pool, org_id))[admin.user_id] is Role.ADMIN


async def test_who_is_removed_or_lowered_cannot_come_back_through_an_own_invite(
    pool: Pool, database: Database, org_id: UUID
) -> None:
    make_member(database, org_id, Role.OWNER)
    removed, lowered = make_member(database, org_id, Role.ADMIN), make_member(database, org_id, Role.ADMIN)
    async with tenant(pool, org_id) as conn:
        for member in (removed, lowered):
            await invites.create(
                conn,
                org_id=org_id,
                invite_id=uuid4(),
                email=f"backdoor-{member.user_id}@example.com",
                role=Role.ADMIN,
                signing_key=bytes(32),
                by=Role.ADMIN,
                invited_by=member.user_id,
                lifetime=timedelta(days=1),
            )

    await remove(pool, org_id, removed.user_id)
    await set_role(pool, org_id, lowered.user_id, Role.MEMBER)

    async with tenant(pool, org_id) as conn:
        assert await invites.list_page(conn, org_id=org_id, limit=10) == []


async def test_a_member_of_another_organization_is_not_there(
    pool: Pool, database: Database, org_id: UUID, other_org_id: UUID
) -> None:
    member = make_member(database, org_id, Role.MEMBER)

    with pytest.raises(NotFound):
        await remove(pool, other_org_id, member.user_id)
    with pytest.raises(NotFound):
        await set_role(pool, other_org_id, member.user_id, Role.VIEWER)
    async with tenant(pool, other_org_id) as conn:
        assert await members.list_page(conn, org_id=org_id, limit=10) == []


async def test_members_are_listed_in_pages(pool: Pool, database: Database, org_id: UUID) -> None:
    expected = [make_member(database, org_id, Role.MEMBER).user_id for _ in range(5)]

    found: list[UUID] = []
    after = None
    async with tenant(pool, org_id) as conn:
        while page := await members.list_page(conn, org_id=org_id, limit=2, after=after):
            found += [member.user_id for member in page]
            after = (page[-1].created_at, page[-1].user_id)

    assert found == expected
