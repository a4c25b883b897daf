"""The audit log: ordered, chained, and no row changes, goes or comes unnoticed (O2)."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bonito.database.pool import Pool, open_pool, tenant
from bonito.tenancy import audit
from bonito.tenancy.audit import Entry, Head, Verification
from tests.integration.conftest import Database, make_organization


def entry(number: int, /, **details: Any) -> Entry:
    return Entry(
        actor="user:1", action="key.create", target=f"key:{number}", details=details, request_id=f"request-{number}"
    )


async def fill(pool: Pool, org_id: UUID, count: int) -> None:
    for number in range(1, count + 1):
        await audit.append(pool, org_id, entry(number, outcome="succeeded", number=number))


async def verify(pool: Pool, org_id: UUID, noted: Head | None = None) -> Verification:
    async with tenant(pool, org_id) as conn:
        return await audit.verify(conn, org_id=org_id, noted=noted)


def tamper(database: Database, statement: str, org_id: UUID) -> None:
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute(statement, {"org_id": org_id})  # type: ignore[arg-type]  # a test's own statement


async def test_an_untouched_log_is_intact(pool: Pool, org_id: UUID) -> None:
    assert await verify(pool, org_id) == Verification(Head(0, audit.hashlib.sha256(str(org_id).encode()).digest()))

    await fill(pool, org_id, 5)

    found = await verify(pool, org_id)
    assert (found.is_intact, found.head.sequence) == (True, 5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30),
    details=st.dictionaries(
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8),
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
        max_size=4,
    ),
)
def test_whatever_an_entry_holds_python_and_postgres_hash_alike(
    database: Database, text: str, details: dict[str, Any]
) -> None:
    org_id = make_organization(database)

    async def append_and_verify() -> Verification:
        pool = await open_pool(database.runtime_url)
        try:
            await audit.append(pool, org_id, Entry(text, text, text, details, text))
            return await verify(pool, org_id)
        finally:
            await pool.close()

    assert asyncio.run(append_and_verify()).is_intact


@pytest.mark.parametrize(
    ("statement", "sequence", "reason"),
    [
        pytest.param(
            """UPDATE audit_log SET details = '{"outcome": "refused"}' WHERE org_id = %(org_id)s AND sequence = 3""",
            3,
            "was changed",
            id="changed-details",
        ),
        pytest.param(
            "UPDATE audit_log SET actor = 'user:2' WHERE org_id = %(org_id)s AND sequence = 1",
            1,
            "was changed",
            id="changed-first",
        ),
        pytest.param(
            "UPDATE audit_log SET at = at + interval '1 microsecond' WHERE org_id = %(org_id)s AND sequence = 5",
            5,
            "was changed",
            id="changed-time-of-the-last",
        ),
        pytest.param(
            "UPDATE audit_log SET actor = 'use', action = 'r:1key.create' WHERE org_id = %(org_id)s AND sequence = 2",
            2,
            "was changed",
            id="a-character-moved-between-fields",
        ),
        pytest.param(
            "DELETE FROM audit_log WHERE org_id = %(org_id)s AND sequence = 3", 4, "after 2 is missing", id="removed"
        ),
        pytest.param(
            "DELETE FROM audit_log WHERE org_id = %(org_id)s AND sequence = 1",
            2,
            "after 0 is missing",
            id="removed-first",
        ),
        pytest.param(
            """DELETE FROM audit_log WHERE org_id = current_setting('test.org')::uuid AND sequence = 3;
            UPDATE audit_log SET sequence = 3 WHERE org_id = current_setting('test.org')::uuid AND sequence = 4;
            UPDATE audit_log SET sequence = 4 WHERE org_id = current_setting('test.org')::uuid AND sequence = 5""",
            3,
            "does not follow",
            id="removed-and-renumbered",
        ),
        pytest.param(
            "DELETE FROM audit_log WHERE org_id = %(org_id)s AND sequence >= 4", 4, "rows end at 3", id="cut-off-tail"
        ),
        pytest.param("DELETE FROM audit_log WHERE org_id = %(org_id)s", 1, "rows end at 0", id="emptied"),
        pytest.param("DELETE FROM audit_heads WHERE org_id = %(org_id)s", 5, "end is missing", id="forgotten-head"),
        pytest.param(
            """INSERT INTO audit_log
            SELECT org_id, 6, at, actor, action, target, details, request_id, hash,
                   audit_hash(hash, org_id, 6, at, actor, action, target, details, request_id)
              FROM audit_log WHERE org_id = %(org_id)s AND sequence = 5""",
            6,
            "rows end at 6",
            id="inserted-at-the-end-with-a-right-hash",
        ),
        pytest.param(
            """UPDATE audit_log SET sequence = 99 WHERE org_id = current_setting('test.org')::uuid AND sequence = 2;
            UPDATE audit_log SET sequence = 2 WHERE org_id = current_setting('test.org')::uuid AND sequence = 3;
            UPDATE audit_log SET sequence = 3 WHERE org_id = current_setting('test.org')::uuid AND sequence = 99""",
            2,
            "does not follow",
            id="reordered",
        ),
    ],
)
async def test_tampering_is_found_at_the_first_row_at_fault(
    pool: Pool, database: Database, org_id: UUID, statement: str, sequence: int, reason: str
) -> None:
    await fill(pool, org_id, 5)
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("SELECT set_config('test.org', %s, true)", [str(org_id)])
        if "test.org" in statement:
            conn.execute(statement)  # type: ignore[arg-type]  # a test's own statement
        else:
            conn.execute(statement, {"org_id": org_id})  # type: ignore[arg-type]  # a test's own statement

    found = await verify(pool, org_id)

    assert not found.is_intact
    assert found.fault_sequence == sequence
    assert reason in (found.fault or "")


async def test_a_chain_that_was_written_anew_shows_only_against_a_head_that_was_noted(
    pool: Pool, database: Database, org_id: UUID
) -> None:
    await fill(pool, org_id, 5)
    noted = (await verify(pool, org_id)).head
    tamper(database, "DELETE FROM audit_log WHERE org_id = %(org_id)s", org_id)
    tamper(database, "DELETE FROM audit_heads WHERE org_id = %(org_id)s", org_id)
    await fill(pool, org_id, 3)
    shorter = await verify(pool, org_id, noted)
    assert (await verify(pool, org_id)).is_intact

    await fill(pool, org_id, 3)
    longer = await verify(pool, org_id, noted)

    assert "noted earlier" in (shorter.fault or "")
    assert (longer.fault_sequence, longer.is_intact) == (5, False)


async def test_a_noted_head_proves_what_has_grown_since(pool: Pool, org_id: UUID) -> None:
    await fill(pool, org_id, 3)
    noted = (await verify(pool, org_id)).head
    await fill(pool, org_id, 3)

    assert (await verify(pool, org_id, noted)).is_intact


async def test_a_cut_off_tail_stays_visible_after_later_entries(pool: Pool, database: Database, org_id: UUID) -> None:
    await fill(pool, org_id, 5)
    tamper(database, "DELETE FROM audit_log WHERE org_id = %(org_id)s AND sequence > 3", org_id)
    await fill(pool, org_id, 2)

    found = await verify(pool, org_id)

    assert (found.fault_sequence, found.fault) == (6, "The row after 3 is missing.")


async def test_entries_at_once_make_one_chain_without_gaps(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    await asyncio.gather(
        *(audit.append(pool, org, entry(number)) for number in range(20) for org in (org_id, other_org_id))
    )

    for org in (org_id, other_org_id):
        found = await verify(pool, org)
        assert (found.is_intact, found.head.sequence) == (True, 20)


async def test_a_log_longer_than_a_batch_is_verified_to_its_end(pool: Pool, database: Database, org_id: UUID) -> None:
    await fill(pool, org_id, 1)
    with psycopg.connect(database.superuser_url) as conn:
        conn.execute("SELECT set_config('app.org_id', %s, true)", [str(org_id)])
        conn.execute(
            "SELECT append_audit(%s, 'system', 'a.b', n::text, '{}', 'r') FROM generate_series(1, 1200) n", [org_id]
        )
    assert (await verify(pool, org_id)).head.sequence == 1201

    tamper(database, "UPDATE audit_log SET target = '' WHERE org_id = %(org_id)s AND sequence = 1100", org_id)

    assert (await verify(pool, org_id)).fault_sequence == 1100


async def test_an_entry_stays_when_the_request_that_wrote_it_is_rolled_back(pool: Pool, org_id: UUID) -> None:
    with pytest.raises(RuntimeError, match="the request failed"):
        async with tenant(pool, org_id) as conn:
            await conn.execute("SELECT 1")
            await audit.append(pool, org_id, entry(1))
            raise RuntimeError("the request failed")

    assert (await verify(pool, org_id)).head.sequence == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'x'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log SELECT * FROM audit_log",
        "UPDATE audit_heads SET sequence = 0",
        "DELETE FROM audit_heads",
    ],
)
async def test_the_runtime_can_only_append(pool: Pool, org_id: UUID, statement: str) -> None:
    await fill(pool, org_id, 1)

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with tenant(pool, org_id) as conn:
            await conn.execute(statement)  # type: ignore[arg-type]  # a test's own statement


async def test_nobody_appends_for_another_organization(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not the one that is set"):
        async with tenant(pool, org_id) as conn:
            await conn.execute("SELECT append_audit(%s, 'a', 'a.b', 't', '{}', 'r')", [other_org_id])


async def test_the_newest_entries_come_first_in_pages(pool: Pool, org_id: UUID, other_org_id: UUID) -> None:
    await fill(pool, org_id, 5)

    async with tenant(pool, org_id) as conn:
        first = await audit.list_page(conn, org_id=org_id, limit=2)
        rest = await audit.list_page(conn, org_id=org_id, limit=10, before=first[-1].sequence)
    async with tenant(pool, other_org_id) as conn:
        assert await audit.list_page(conn, org_id=org_id, limit=10) == []
    assert [row.sequence for row in [*first, *rest]] == [5, 4, 3, 2, 1]
    assert rest[-1].details == {"outcome": "succeeded", "number": 1}
