"""Secrets in the database: sealed, bound to their row, re-sealed by a rotation (T4)."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.database.pool import Pool, tenant
from bonito.errors import NotFound, UnreadableSecret
from bonito.tenancy import secrets
from bonito.tenancy.secrets import SecretBox
from tests.integration.conftest import Database, make_organization

OLD, NEW = b"o" * 32, b"n" * 32
CANARY = b"sk-canary-5f1d"


async def put(pool: Pool, box: SecretBox, org_id: UUID, plaintext: bytes = CANARY, *, purpose: str = "p") -> UUID:
    secret_id = uuid4()
    async with tenant(pool, org_id) as conn:
        await secrets.put(conn, box, org_id=org_id, secret_id=secret_id, purpose=purpose, plaintext=plaintext)
    return secret_id


async def read(pool: Pool, box: SecretBox, org_id: UUID, secret_id: UUID, *, purpose: str = "p") -> bytes:
    async with tenant(pool, org_id) as conn:
        return await secrets.open_(conn, box, org_id=org_id, secret_id=secret_id, purpose=purpose)


async def test_a_secret_reads_back_and_lies_sealed(pool: Pool, database: Database, org_id: UUID) -> None:
    box = SecretBox([NEW])

    secret_id = await put(pool, box, org_id)

    assert await read(pool, box, org_id, secret_id) == CANARY
    with psycopg.connect(database.superuser_url) as conn:
        row = conn.execute("SELECT s::text, ciphertext FROM secrets s WHERE id = %s", [secret_id]).fetchone()
    assert row is not None
    assert CANARY not in row[1]
    assert CANARY.hex() not in row[0]


async def test_a_secret_is_replaced_forgotten_and_kept_to_its_purpose(pool: Pool, org_id: UUID) -> None:
    box = SecretBox([NEW])
    secret_id = await put(pool, box, org_id)

    async with tenant(pool, org_id) as conn:
        await secrets.put(conn, box, org_id=org_id, secret_id=secret_id, purpose="p", plaintext=b"second")
        assert await secrets.open_(conn, box, org_id=org_id, secret_id=secret_id, purpose="p") == b"second"
        with pytest.raises(NotFound):
            await secrets.open_(conn, box, org_id=org_id, secret_id=secret_id, purpose="q")
        with pytest.raises(ValueError, match="another purpose"):
            await secrets.put(conn, box, org_id=org_id, secret_id=secret_id, purpose="q", plaintext=b"third")
        await secrets.delete(conn, org_id=org_id, secret_id=secret_id)
        await secrets.delete(conn, org_id=org_id, secret_id=secret_id)
        with pytest.raises(NotFound):
            await secrets.open_(conn, box, org_id=org_id, secret_id=secret_id, purpose="p")


async def test_a_ciphertext_copied_into_another_row_does_not_open(
    pool: Pool, database: Database, org_id: UUID, other_org_id: UUID
) -> None:
    box = SecretBox([NEW])
    mine, theirs = await put(pool, box, org_id), await put(pool, box, other_org_id, b"sk-theirs")
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute(
            "UPDATE secrets SET nonce = s.nonce, ciphertext = s.ciphertext"
            " FROM (SELECT * FROM secrets WHERE id = %s) s WHERE secrets.id = %s",
            [theirs, mine],
        )

    with pytest.raises(UnreadableSecret):
        await read(pool, box, org_id, mine)


async def test_a_rotation_seals_every_secret_under_the_newest_key(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    old_box, both = SecretBox([OLD]), SecretBox([NEW, OLD])
    mine = [await put(pool, old_box, org_id, f"sk-{n}".encode()) for n in range(5)]
    theirs = await put(pool, old_box, other_org_id)

    async with tenant(pool, org_id) as conn:
        assert await secrets.rotate(conn, both, org_id=org_id) == 5
        assert await secrets.rotate(conn, both, org_id=org_id) == 0

    opened = [await read(pool, SecretBox([NEW]), org_id, secret_id) for secret_id in mine]
    assert opened == [f"sk-{n}".encode() for n in range(5)]
    assert await read(pool, old_box, other_org_id, theirs) == CANARY


async def test_a_rotation_that_lacks_a_key_changes_nothing(pool: Pool, org_id: UUID) -> None:
    readable, lost = await put(pool, SecretBox([OLD]), org_id), await put(pool, SecretBox([b"l" * 32]), org_id)

    with pytest.raises(UnreadableSecret):
        async with tenant(pool, org_id) as conn:
            await secrets.rotate(conn, SecretBox([NEW, OLD]), org_id=org_id)

    assert await read(pool, SecretBox([OLD]), org_id, readable) == CANARY
    assert await read(pool, SecretBox([b"l" * 32]), org_id, lost) == CANARY


async def test_rotations_at_once_leave_every_secret_readable(pool: Pool, org_id: UUID) -> None:
    both = SecretBox([NEW, OLD])
    kept = [await put(pool, SecretBox([OLD]), org_id) for _ in range(10)]

    async def rotate() -> int:
        async with tenant(pool, org_id) as conn:
            return await secrets.rotate(conn, both, org_id=org_id)

    assert sum(await asyncio.gather(*(rotate() for _ in range(4)))) == 10
    for secret_id in kept:
        assert await read(pool, SecretBox([NEW]), org_id, secret_id) == CANARY


async def test_every_organization_is_rotated_and_a_second_run_does_nothing(
    pool: Pool, database: Database, org_id: UUID, other_org_id: UUID
) -> None:
    both = SecretBox([b"newest".ljust(32), NEW, OLD, b"l" * 32])
    mine, theirs = await put(pool, SecretBox([OLD]), org_id), await put(pool, SecretBox([NEW]), other_org_id)
    lost_org_id = make_organization(database)
    await put(pool, SecretBox([b"x" * 32]), lost_org_id)

    first = await secrets.rotate_everywhere(database.migrator_url, both)
    second = await secrets.rotate_everywhere(database.migrator_url, both)

    assert first.resealed >= 2
    assert second.resealed == 0
    assert lost_org_id in second.left_behind
    assert not {org_id, other_org_id} & set(second.left_behind)

    newest = SecretBox([b"newest".ljust(32)])
    assert await read(pool, newest, org_id, mine) == CANARY
    assert await read(pool, newest, other_org_id, theirs) == CANARY


async def test_another_organizations_secret_is_not_there(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    box = SecretBox([NEW])
    secret_id = await put(pool, box, org_id)

    async with tenant(pool, other_org_id) as conn:
        with pytest.raises(NotFound):
            await secrets.open_(conn, box, org_id=org_id, secret_id=secret_id, purpose="p")
        await secrets.delete(conn, org_id=org_id, secret_id=secret_id)

    assert await read(pool, box, org_id, secret_id) == CANARY
