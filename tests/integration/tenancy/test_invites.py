"""Invites: the one way into an organization for everybody but its first owner (T1)."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import NotFound, PermissionDenied, StateConflict
from bonito.tenancy import credentials, invites, tokens
from bonito.tenancy.invites import Claim, Invite, Joined
from bonito.tenancy.permissions import Role
from tests.integration.conftest import Database
from tests.integration.people import make_member

KEY = b"k" * 32


def new_email() -> str:
    return f"{uuid4()}@example.com"


async def invite(
    pool: Pool, org_id: UUID, email: str, *, role: Role = Role.MEMBER, by: Role = Role.ADMIN
) -> tuple[Invite, str]:
    async with tenant(pool, org_id) as conn:
        return await invites.create(
            conn, org_id=org_id, invite_id=uuid4(), email=email, role=role, signing_key=KEY, by=by
        )


async def accept(pool: Pool, token: str, email: str, name: str = "Ada") -> tuple[Joined, str]:
    credential = credentials.mint("bp-", secrets.token_bytes(32))
    joined = await invites.accept(
        pool,
        token=token,
        signing_keys=[KEY],
        email=email,
        name=name,
        user_id=uuid4(),
        token_id=uuid4(),
        credential=credential,
    )
    return joined, credential.text


async def test_the_invited_person_joins_with_the_invites_role(pool: Pool, org_id: UUID) -> None:
    email = new_email()
    _, token = await invite(pool, org_id, email.upper(), role=Role.VIEWER)

    joined, personal_token = await accept(pool, token, email)

    principal = await tokens.authenticate(pool, personal_token)
    assert joined == Joined(org_id, principal.user_id, Role.VIEWER)
    assert (principal.org_id, principal.role) == (org_id, Role.VIEWER)


async def test_an_invite_is_good_once(pool: Pool, org_id: UUID) -> None:
    email = new_email()
    _, token = await invite(pool, org_id, email)
    await accept(pool, token, email)

    with pytest.raises(StateConflict, match="accepted already"):
        await accept(pool, token, email)


async def test_of_acceptances_at_once_one_wins(pool: Pool, org_id: UUID) -> None:
    email = new_email()
    _, token = await invite(pool, org_id, email)

    outcomes = await asyncio.gather(*(accept(pool, token, email) for _ in range(8)), return_exceptions=True)

    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, StateConflict) for outcome in outcomes) == 7


async def test_one_person_joins_two_organizations_at_once(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    email = new_email()
    _, here = await invite(pool, org_id, email)
    _, there = await invite(pool, other_org_id, email)

    (mine, _), (other, _) = await asyncio.gather(accept(pool, here, email), accept(pool, there, email))

    assert mine.user_id == other.user_id
    assert {mine.org_id, other.org_id} == {org_id, other_org_id}


async def test_a_known_person_keeps_the_name_whatever_an_invite_says(
    pool: Pool, database: Database, org_id: UUID, other_org_id: UUID
) -> None:
    email = new_email()
    _, here = await invite(pool, org_id, email)
    await accept(pool, here, email, name="Ada")
    _, there = await invite(pool, other_org_id, email)

    await accept(pool, there, email, name="Somebody else")

    with psycopg.connect(database.superuser_url) as conn:
        assert conn.execute("SELECT name FROM users WHERE email = %s", [email]).fetchall() == [("Ada",)]


async def test_another_email_does_not_fit(pool: Pool, org_id: UUID) -> None:
    email = new_email()
    _, token = await invite(pool, org_id, email)

    with pytest.raises(NotFound):
        await accept(pool, token, new_email())
    await accept(pool, token, email)


async def test_a_withdrawn_invite_is_none(pool: Pool, org_id: UUID) -> None:
    email = new_email()
    made, token = await invite(pool, org_id, email)
    async with tenant(pool, org_id) as conn:
        assert await invites.delete(conn, org_id=org_id, invite_id=made.id) == email

    with pytest.raises(NotFound):
        await accept(pool, token, email)


async def test_an_accepted_invite_cannot_be_withdrawn(pool: Pool, org_id: UUID) -> None:
    email = new_email()
    made, token = await invite(pool, org_id, email)
    await accept(pool, token, email)

    async with tenant(pool, org_id) as conn:
        with pytest.raises(NotFound):
            await invites.delete(conn, org_id=org_id, invite_id=made.id)
        assert [found.accepted_at is not None for found in await invites.list_page(conn, org_id=org_id, limit=9)] == [
            True
        ]


async def test_inviting_again_withdraws_what_was_sent_before(pool: Pool, org_id: UUID) -> None:
    email = new_email()
    _, first = await invite(pool, org_id, email, role=Role.ADMIN)
    _, second = await invite(pool, org_id, email, role=Role.VIEWER)

    with pytest.raises(NotFound):
        await accept(pool, first, email)
    joined, _ = await accept(pool, second, email)
    assert joined.role is Role.VIEWER


async def test_an_expired_invite_is_refused(pool: Pool, database: Database, org_id: UUID) -> None:
    email = new_email()
    made, token = await invite(pool, org_id, email)
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE invites SET expires_at = now() WHERE id = %s", [made.id])

    with pytest.raises(StateConflict, match="expired"):
        await accept(pool, token, email)


async def test_a_member_is_not_invited_and_does_not_join_again(pool: Pool, database: Database, org_id: UUID) -> None:
    email = new_email()
    _, token = await invite(pool, org_id, email, role=Role.ADMIN)
    member = make_member(database, org_id, Role.VIEWER)
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE users SET email = %s WHERE id = %s", [email, member.user_id])

    with pytest.raises(StateConflict, match="member already"):
        await accept(pool, token, email)
    with pytest.raises(StateConflict, match="member already"):
        await invite(pool, org_id, email)
    assert (await tokens.authenticate(pool, member.token)).role is Role.VIEWER


async def test_nobody_invites_somebody_who_would_be_more(pool: Pool, org_id: UUID) -> None:
    with pytest.raises(PermissionDenied, match="cannot invite somebody as owner"):
        await invite(pool, org_id, new_email(), role=Role.OWNER, by=Role.ADMIN)
    await invite(pool, org_id, new_email(), role=Role.OWNER, by=Role.OWNER)


async def test_a_token_that_is_signed_but_was_never_sent_opens_nothing(pool: Pool, org_id: UUID) -> None:
    email = new_email()
    made, _ = await invite(pool, org_id, email)
    forged = invites.sign(Claim(org_id, made.id, datetime.now(UTC) + timedelta(days=9999)), KEY)

    with pytest.raises(NotFound):
        await accept(pool, forged, email)


async def test_a_token_of_another_deployment_is_refused(pool: Pool, org_id: UUID) -> None:
    email = new_email()
    made, _ = await invite(pool, org_id, email)

    with pytest.raises(NotFound):
        await accept(pool, invites.sign(Claim(org_id, made.id, made.expires_at), b"o" * 32), email)


async def test_another_organizations_invite_is_not_there(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    made, _ = await invite(pool, org_id, new_email())

    async with tenant(pool, other_org_id) as conn:
        assert await invites.list_page(conn, org_id=org_id, limit=10) == []
        with pytest.raises(NotFound):
            await invites.delete(conn, org_id=org_id, invite_id=made.id)
