"""Partitions by month: what came before its partition is brought home, and keeps no other from being made."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.integration.conftest import Database

INSERT = """
    INSERT INTO gateway_requests (org_id, id, created_at, request_id, operation, model_requested, is_stream, status,
                                  latency_ms)
    VALUES (%s, %s, now() + make_interval(months => %s), 'r', 'chat.completions', 'm', false, 200, 1)
"""
BY_PARTITION = "SELECT tableoid::regclass::text, count(*) FROM gateway_requests WHERE org_id = %s GROUP BY 1"
MAKE = "SELECT create_gateway_requests_partitions(%s)"


def log(database: Database, org_id: UUID, *months: int) -> None:
    """A request in each of these months from now, logged as a gateway does it."""
    with psycopg.connect(database.runtime_url) as runtime:
        runtime.execute("SELECT set_config('app.org_id', %s, true)", [str(org_id)])
        for month in months:
            runtime.execute(INSERT, [org_id, uuid4(), month])


def make(database: Database, months: int) -> int:
    with psycopg.connect(database.maintenance_url) as maintainer:
        found = maintainer.execute(MAKE, [months]).fetchone()
    assert found is not None
    return int(found[0])


def test_rows_without_a_partition_are_brought_home(database: Database, org_id: UUID) -> None:
    """Of months ahead of those that are kept, and of one that nobody maintained in its time."""
    log(database, org_id, -7, 6, 6, 9)
    with psycopg.connect(database.superuser_url, autocommit=True) as owner:
        assert owner.execute(BY_PARTITION, [org_id]).fetchall() == [("gateway_requests_default", 4)]

        assert make(database, 6) == 5, "three months ahead, one long past and one far off"

        assert sorted(count for _, count in owner.execute(BY_PARTITION, [org_id]).fetchall()) == [1, 1, 2]
        assert owner.execute("SELECT count(*) FROM gateway_requests_default").fetchone() == (0,)
    assert make(database, 6) == 0
    log(database, org_id, -7, 6, 9)
    assert make(database, 6) == 0


def test_what_is_logged_while_a_partition_is_made_finds_its_place(database: Database, org_id: UUID) -> None:
    log(database, org_id, 12)
    with psycopg.connect(database.maintenance_url) as maintainer, ThreadPoolExecutor() as threads:
        maintainer.execute(MAKE, [3])
        logging = threads.submit(log, database, org_id, 12)
        with psycopg.connect(database.superuser_url, autocommit=True) as owner:
            while not logging.done() and not owner.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
                time.sleep(0.01)
            maintainer.commit()
            logging.result()
            ((leaf, count),) = owner.execute(BY_PARTITION, [org_id]).fetchall()

    assert (leaf != "gateway_requests_default", count) == (True, 2)


def test_a_partition_that_is_made_late_is_as_closed_as_the_others(database: Database, org_id: UUID) -> None:
    log(database, org_id, 20)
    make(database, 3)

    with psycopg.connect(database.superuser_url, autocommit=True) as owner:
        ((leaf, _),) = owner.execute(BY_PARTITION, [org_id]).fetchall()
        shape = """
            SELECT relrowsecurity, relforcerowsecurity, relispartition, pg_get_userbyid(relowner), relacl IS NULL,
                   (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid),
                   (SELECT count(*) FROM pg_index WHERE indrelid = c.oid)
              FROM pg_class c WHERE oid = %s::regclass
        """
        assert owner.execute(shape, [leaf]).fetchone() == (True, True, True, "bonito_owner", True, 2, 1)
    with psycopg.connect(database.runtime_url) as runtime, pytest.raises(psycopg.errors.InsufficientPrivilege):
        runtime.execute(f"SELECT FROM {leaf}")  # type: ignore[arg-type]
