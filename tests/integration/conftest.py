"""A real Postgres with pgvector per test process, a fresh database per test module, organizations per test."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from bonito.database import migrate
from bonito.database.pool import Pool, open_pool
from bonito.local import postgres

TEMPLATE = "bonito_template"


@dataclass(frozen=True)
class Cluster:
    """A running Postgres; `url` is a superuser's, the logins are members of our roles."""

    socket_dir: str

    def url(self, database: str, login: str = "postgres") -> str:
        return f"postgresql://{login}@/{database}?host={self.socket_dir}"


@dataclass(frozen=True)
class Database:
    """One migrated database, by the login that uses it."""

    superuser_url: str
    migrator_url: str
    maintenance_url: str
    runtime_url: str


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with new_cluster() as running:
        with psycopg.connect(running.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(sql.SQL(postgres.CREATE_DATABASE).format(sql.Identifier(TEMPLATE)))
        migrate.migrate(running.url(TEMPLATE))
        migrate.create_login(running.url("postgres"), name="test_runtime", role="bonito_runtime")
        migrate.create_login(running.url("postgres"), name="test_maintenance", role="bonito_owner")
        migrate.create_login(running.url("postgres"), name="test_migrator", role="bonito_owner")
        yield running


@contextmanager
def new_cluster() -> Iterator[Cluster]:
    """A server of its own, where no role of ours exists yet."""
    with (
        tempfile.TemporaryDirectory(prefix="bonito-pg-", ignore_cleanup_errors=True) as folder,
        postgres.started(Path(folder) / "data") as socket_dir,
    ):
        yield Cluster(socket_dir)


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[Database]:
    name = f"t_{uuid.uuid4().hex}"
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
        yield Database(
            superuser_url=cluster.url(name),
            migrator_url=cluster.url(name, "test_migrator"),
            maintenance_url=cluster.url(name, "test_maintenance"),
            runtime_url=cluster.url(name, "test_runtime"),
        )
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    """The runtime's pool, as a function or a server has it."""
    opened = await open_pool(database.runtime_url, min_size=1, max_size=4)
    yield opened
    await opened.close()


@pytest.fixture
def org_id(database: Database) -> uuid.UUID:
    return make_organization(database)


@pytest.fixture
def other_org_id(database: Database) -> uuid.UUID:
    return make_organization(database)


def make_organization(database: Database) -> uuid.UUID:
    """Insert an organization as the owner does; the runtime may not."""
    new_id = uuid.uuid4()
    with psycopg.connect(database.superuser_url) as connection:
        connection.execute("INSERT INTO organizations (id, name) VALUES (%s, %s)", [new_id, f"org-{new_id}"])
    return new_id
