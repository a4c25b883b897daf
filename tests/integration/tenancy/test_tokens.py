"""Personal tokens: who holds one, and that none is ever more than the one that made it (T3)."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import AuthenticationFailed, InvalidRequest, NotFound, PermissionDenied
from bonito.tenancy import credentials, members, tokens
from bonito.tenancy.permissions import Role
from bonito.tenancy.tokens import Principal
from tests.integration.conftest import Database
from tests.integration.people import make_member

SOON = timedelta(hours=1)


async def make_token(
    pool: Pool, maker: Principal, *, role: Role | None = None, expires_at: datetime | None = None
) -> str:
    credential = credentials.mint("bp-", secrets.token_bytes(32))
    async with tenant(pool, maker.org_id) as conn:
        await tokens.create(
            conn,
            maker=maker,
            token_id=uuid4(),
            name="ci",
            credential=credential,
            role=role,
            expires_at=expires_at,
        )
    return credential.text


async def test_a_token_authenticates_its_holder(pool: Pool, database: Database, org_id: UUID) -> None:
    member = make_member(database, org_id, Role.ADMIN)

    principal = await tokens.authenticate(pool, member.token)

    assert principal == Principal(org_id, member.user_id, member.token_id, Role.ADMIN)


async def test_a_token_acts_with_the_lesser_of_its_role_and_the_members(
    pool: Pool, database: Database, org_id: UUID
) -> None:
    make_member(database, org_id, Role.OWNER)
    member = make_member(database, org_id, Role.ADMIN)
    maker = await tokens.authenticate(pool, member.token)
    viewer = await make_token(pool, maker, role=Role.VIEWER)

    assert (await tokens.authenticate(pool, viewer)).role is Role.VIEWER

    async with tenant(pool, org_id) as conn:
        await members.set_role(conn, org_id=org_id, user_id=member.user_id, role=Role.MEMBER, by=Role.OWNER)
    assert (await tokens.authenticate(pool, viewer)).role is Role.VIEWER
    assert (await tokens.authenticate(pool, member.token)).role is Role.MEMBER


async def test_a_token_cannot_make_one_that_may_do_more(pool: Pool, database: Database, org_id: UUID) -> None:
    owner = await tokens.authenticate(pool, make_member(database, org_id, Role.OWNER).token)
    viewer = await tokens.authenticate(pool, await make_token(pool, owner, role=Role.VIEWER))

    with pytest.raises(PermissionDenied, match="acts as viewer cannot make one that acts as owner"):
        await make_token(pool, viewer, role=Role.OWNER)
    again = await tokens.authenticate(pool, await make_token(pool, viewer))
    assert again.role is Role.VIEWER


async def test_a_token_cannot_make_one_that_outlives_it(pool: Pool, database: Database, org_id: UUID) -> None:
    owner = await tokens.authenticate(pool, make_member(database, org_id, Role.OWNER).token)
    end = datetime.now(UTC) + SOON
    short = await tokens.authenticate(pool, await make_token(pool, owner, expires_at=end))

    with pytest.raises(PermissionDenied, match="outlives"):
        await make_token(pool, short, expires_at=end + SOON)
    inherited = await tokens.authenticate(pool, await make_token(pool, short))
    assert inherited.expires_at == end


async def test_an_end_in_the_past_is_refused(pool: Pool, database: Database, org_id: UUID) -> None:
    owner = await tokens.authenticate(pool, make_member(database, org_id, Role.OWNER).token)

    with pytest.raises(InvalidRequest, match="future"):
        await make_token(pool, owner, expires_at=datetime.now(UTC) - SOON)


async def test_a_revoked_expired_or_removed_holder_is_nobody(pool: Pool, database: Database, org_id: UUID) -> None:
    make_member(database, org_id, Role.OWNER)
    member = make_member(database, org_id, Role.MEMBER)
    gone = make_member(database, org_id, Role.MEMBER)
    principal = await tokens.authenticate(pool, member.token)
    expiring = await make_token(pool, principal, expires_at=datetime.now(UTC) + timedelta(milliseconds=30))

    async with tenant(pool, org_id) as conn:
        await tokens.revoke(conn, org_id=org_id, user_id=member.user_id, token_id=member.token_id)
        await members.remove(conn, org_id=org_id, user_id=gone.user_id, by=Role.OWNER)
        await conn.execute("SELECT pg_sleep(0.05)")

    for token in (member.token, gone.token, expiring):
        with pytest.raises(AuthenticationFailed):
            await tokens.authenticate(pool, token)


async def test_only_ones_own_token_is_revoked_and_only_once(pool: Pool, database: Database, org_id: UUID) -> None:
    mine, yours = make_member(database, org_id, Role.MEMBER), make_member(database, org_id, Role.MEMBER)

    async with tenant(pool, org_id) as conn:
        with pytest.raises(NotFound):
            await tokens.revoke(conn, org_id=org_id, user_id=mine.user_id, token_id=yours.token_id)
        await tokens.revoke(conn, org_id=org_id, user_id=mine.user_id, token_id=mine.token_id)
        with pytest.raises(NotFound):
            await tokens.revoke(conn, org_id=org_id, user_id=mine.user_id, token_id=mine.token_id)


async def test_a_person_lists_only_the_persons_own(pool: Pool, database: Database, org_id: UUID) -> None:
    mine, yours = make_member(database, org_id, Role.MEMBER), make_member(database, org_id, Role.MEMBER)
    principal = await tokens.authenticate(pool, mine.token)
    for _ in range(3):
        await make_token(pool, principal)

    async with tenant(pool, org_id) as conn:
        first = await tokens.list_page(conn, org_id=org_id, user_id=mine.user_id, limit=2)
        after = (first[-1].created_at, first[-1].id)
        rest = await tokens.list_page(conn, org_id=org_id, user_id=mine.user_id, limit=10, after=after)

    found = [token.id for token in [*first, *rest]]
    assert len(found) == len(set(found)) == 4
    assert yours.token_id not in found
