"""Brings a database to this code's schema, and tells whether it is there."""

from __future__ import annotations

import io
from importlib import resources
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg import sql

from bonito.database import versions
from bonito.database.roles import ACT_AS_OWNER
from bonito.errors import SchemaMismatch

if TYPE_CHECKING:
    from alembic.config import Config

# The newest revision in migrations/versions; a test holds the two together. Not read from there: functions ship without
# Alembic.
SCHEMA_VERSION = 8

# One migration at a time per database; any constant of our own does.
LOCK: LiteralString = "SELECT pg_advisory_lock(4207849484)"

READ_PGVECTOR: LiteralString = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"

FIND_LOGIN: LiteralString = "SELECT FROM pg_roles WHERE rolname = %s"
CREATE_LOGIN = sql.SQL("CREATE ROLE {} LOGIN NOBYPASSRLS")
SET_PASSWORD = sql.SQL("ALTER ROLE {} PASSWORD {}")
GRANT = sql.SQL("GRANT {} TO {}")

READ_VERSION: LiteralString = """
    SELECT (SELECT max(version_num::integer) FROM alembic_version), (SELECT compatible_from FROM schema_compatibility)
"""


def migrate(url: str) -> None:
    """Create the roles and run every missing revision; does nothing on a current database.

    Args:
        url: a login that owns the database or may create roles, extensions and tables in it.

    Raises:
        SchemaMismatch: Postgres or pgvector is too old.
    """
    import sqlalchemy as sa
    from alembic import command

    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        driver_connection = connection.connection.driver_connection
        assert isinstance(driver_connection, psycopg.Connection)  # noqa: S101 - the creator above made it
        versions.check_postgres(driver_connection.info.server_version)
        driver_connection.execute(LOCK)
        driver_connection.execute(_roles_script().encode())
        installed = driver_connection.execute(READ_PGVECTOR).fetchone()
        versions.check_pgvector(installed[0] if installed else "0")
        driver_connection.execute(ACT_AS_OWNER)
        driver_connection.commit()
        config = _alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def ensure_current(url: str) -> None:
    """Migrate unless the schema is this code's: importing Alembic costs half a second, and most starts need none."""
    if not is_current(url):
        migrate(url)


def render() -> str:
    """The whole migration as one SQL script, for those who review or run it by hand."""
    from alembic import command

    output = io.StringIO()
    output.write(_roles_script() + "\n")
    command.upgrade(_alembic_config(output), "head", sql=True)
    return output.getvalue()


def is_current(url: str) -> bool:
    """Whether the database has exactly this code's schema; False also where it has none."""
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            row = connection.execute(READ_VERSION).fetchone()
        except psycopg.errors.UndefinedTable:
            return False
    return row is not None and row[0] == SCHEMA_VERSION


def create_login(url: str, *, name: str, role: LiteralString, password: str | None = None) -> None:
    """Make a login that is a member of one of our roles, where it is missing."""
    with psycopg.connect(url, autocommit=True) as connection:
        known = connection.execute(FIND_LOGIN, [name]).fetchone()
        identifier = sql.Identifier(name)
        if known is None:
            connection.execute(CREATE_LOGIN.format(identifier))
        if password is not None:
            connection.execute(SET_PASSWORD.format(identifier, sql.Literal(password)))
        connection.execute(GRANT.format(sql.Identifier(role), identifier))


async def check_schema(connection: psycopg.AsyncConnection[object]) -> None:
    """Refuse a schema that this code cannot run on.

    Raises:
        SchemaMismatch: none yet, older than the code, or newer and no longer compatible with it.
    """
    try:
        cursor = await connection.execute(READ_VERSION)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
        raise SchemaMismatch("The database has no schema of Bonito; run `bonito migrate`.") from None
    row = await cursor.fetchone()
    version, compatible_from = row if isinstance(row, tuple) else (None, None)
    if version is None or version < SCHEMA_VERSION:
        raise SchemaMismatch(
            f"The database's schema is at {version}, this code needs {SCHEMA_VERSION}; run `bonito migrate`."
        )
    if version > SCHEMA_VERSION and compatible_from > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"The database's schema {version} supports code from {compatible_from} on; this is {SCHEMA_VERSION}: "
            "upgrade it."
        )


def _roles_script() -> str:
    return resources.files("bonito.database").joinpath("roles.sql").read_text(encoding="utf-8")


def _alembic_config(output: io.StringIO | None = None) -> Config:
    from alembic.config import Config

    config = Config(output_buffer=output) if output else Config()
    config.set_main_option(
        "script_location", str(resources.files("bonito.database").joinpath("migrations")).replace("%", "%%")
    )
    config.set_main_option("path_separator", "os")
    return config
