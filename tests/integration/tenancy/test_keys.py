"""Gateway keys: made, found, rotated with an overlap, revoked."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import AlreadyExists, AuthenticationFailed, InvalidRequest, NotFound, StateConflict
from bonito.tenancy import credentials, keys
from bonito.tenancy.keys import Key
from tests.integration.conftest import Database


async def make_key(
    pool: Pool,
    org_id: UUID,
    *,
    name: str | None = None,
    knowledge_base_ids: list[UUID] | None = None,
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    credential = credentials.mint("bn-", secrets.token_bytes(32))
    async with tenant(pool, org_id) as conn:
        key = await keys.create(
            conn,
            org_id=org_id,
            key_id=uuid4(),
            name=name or f"key-{uuid4()}",
            credential=credential,
            knowledge_base_ids=knowledge_base_ids,
            expires_at=expires_at,
        )
    return key, credential.text


async def rotate(pool: Pool, org_id: UUID, key_id: UUID, overlap: timedelta = timedelta(hours=1)) -> tuple[Key, str]:
    credential = credentials.mint("bn-", secrets.token_bytes(32))
    async with tenant(pool, org_id) as conn:
        key = await keys.rotate(
            conn, org_id=org_id, key_id=key_id, successor_id=uuid4(), credential=credential, overlap=overlap
        )
    return key, credential.text


async def test_a_key_authenticates_its_application(pool: Pool, org_id: UUID) -> None:
    readable = [uuid4(), uuid4()]
    everything, everything_text = await make_key(pool, org_id)
    some, some_text = await make_key(pool, org_id, knowledge_base_ids=readable)
    nothing, nothing_text = await make_key(pool, org_id, knowledge_base_ids=[])

    for key, text, expected in [
        (everything, everything_text, None),
        (some, some_text, frozenset(readable)),
        (nothing, nothing_text, frozenset()),
    ]:
        assert await keys.authenticate(pool, text) == keys.Principal(org_id, key.id, expected, None)
        assert key.key_prefix == text[:12]


async def test_the_key_itself_is_in_no_row(pool: Pool, database: Database, org_id: UUID) -> None:
    _, text = await make_key(pool, org_id)

    with psycopg.connect(database.superuser_url) as conn:
        rows = conn.execute("SELECT k::text FROM gateway_keys k WHERE org_id = %s", [org_id]).fetchall()

    assert rows
    assert all(text[12:] not in row for (row,) in rows)


@pytest.mark.parametrize("presented", ["", "bn-", "bn-" + "A" * 43, "bn-" + "é" * 43, "x" * 100_000])
async def test_an_unknown_key_is_refused(pool: Pool, presented: str) -> None:
    with pytest.raises(AuthenticationFailed, match="unknown, expired or revoked"):
        await keys.authenticate(pool, presented)


async def test_a_revoked_key_is_refused_and_frees_its_name(pool: Pool, org_id: UUID) -> None:
    key, text = await make_key(pool, org_id, name="bot")

    async with tenant(pool, org_id) as conn:
        assert await keys.revoke(conn, org_id=org_id, key_id=key.id) == "bot"

    with pytest.raises(AuthenticationFailed):
        await keys.authenticate(pool, text)
    async with tenant(pool, org_id) as conn:
        with pytest.raises(NotFound):
            await keys.revoke(conn, org_id=org_id, key_id=key.id)
    await make_key(pool, org_id, name="bot")


async def test_an_expired_key_is_refused(pool: Pool, database: Database, org_id: UUID) -> None:
    key, text = await make_key(pool, org_id, expires_at=datetime.now(UTC) + timedelta(hours=1))
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("UPDATE gateway_keys SET expires_at = now() - interval '1 s' WHERE id = %s", [key.id])

    with pytest.raises(AuthenticationFailed):
        await keys.authenticate(pool, text)
    with pytest.raises(StateConflict, match="ended"):
        await rotate(pool, org_id, key.id)


async def test_an_end_in_the_past_is_refused(pool: Pool, org_id: UUID) -> None:
    with pytest.raises(InvalidRequest, match="future"):
        await make_key(pool, org_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))


async def test_a_name_is_taken_whatever_the_case_of_its_letters(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    await make_key(pool, org_id, name="Bot")

    with pytest.raises(AlreadyExists):
        await make_key(pool, org_id, name="bot")
    await make_key(pool, other_org_id, name="bot")


async def test_a_rotated_key_lives_on_for_the_overlap_and_its_successor_inherits(pool: Pool, org_id: UUID) -> None:
    readable = [uuid4()]
    lifetime = timedelta(days=30)
    old, old_text = await make_key(
        pool, org_id, name="bot", knowledge_base_ids=readable, expires_at=datetime.now(UTC) + lifetime
    )

    new, new_text = await rotate(pool, org_id, old.id, timedelta(hours=2))

    former = await keys.authenticate(pool, old_text)
    present = await keys.authenticate(pool, new_text)
    assert former.expires_at is not None
    assert former.expires_at <= datetime.now(UTC) + timedelta(hours=2)
    assert present.knowledge_base_ids == frozenset(readable)
    assert (new.name, new.expires_at is not None and new.expires_at > former.expires_at) == ("bot", True)


async def test_an_overlap_does_not_lengthen_a_keys_life(pool: Pool, org_id: UUID) -> None:
    end = datetime.now(UTC) + timedelta(minutes=5)
    old, old_text = await make_key(pool, org_id, expires_at=end)

    await rotate(pool, org_id, old.id, timedelta(days=1))

    assert (await keys.authenticate(pool, old_text)).expires_at == end


async def test_without_an_overlap_the_old_key_ends_at_once(pool: Pool, org_id: UUID) -> None:
    old, old_text = await make_key(pool, org_id)

    _, new_text = await rotate(pool, org_id, old.id, timedelta())

    with pytest.raises(AuthenticationFailed):
        await keys.authenticate(pool, old_text)
    await keys.authenticate(pool, new_text)


async def test_of_two_rotations_at_once_one_wins(pool: Pool, org_id: UUID) -> None:
    old, _ = await make_key(pool, org_id, name="bot")

    outcomes = await asyncio.gather(*(rotate(pool, org_id, old.id) for _ in range(4)), return_exceptions=True)

    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, StateConflict) for outcome in outcomes) == 3


async def test_a_key_of_another_organization_is_not_there(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    key, text = await make_key(pool, org_id)

    async with tenant(pool, other_org_id) as conn:
        assert await keys.list_page(conn, org_id=org_id, limit=10) == []
        with pytest.raises(NotFound):
            await keys.revoke(conn, org_id=org_id, key_id=key.id)
    with pytest.raises(NotFound):
        await rotate(pool, other_org_id, key.id)
    await keys.authenticate(pool, text)
