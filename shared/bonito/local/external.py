"""A database of one's own: whether it can be worked with, told in one line before anything is started."""

from __future__ import annotations

import psycopg

from bonito.database.migrate import check_schema
from bonito.database.pool import check_role
from bonito.errors import InvalidSettings

CONNECT_TIMEOUT_S = 10


def check_reachable(variable: str, url: str) -> None:
    """Connect once with what a variable holds; InvalidSettings says why that fails, without a password."""
    try:
        psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S).close()
    except psycopg.OperationalError as error:
        raise InvalidSettings(f"{variable}: {_first_line(error)}") from error
    except psycopg.ProgrammingError:
        raise InvalidSettings(f"{variable} is no connection string of Postgres.") from None  # it quotes the string


async def check_ready(url: str) -> None:
    """Refuse a schema that is not this code's and a login that may do too much, before there is a pool.

    Raises:
        SchemaMismatch, UnsafeDatabaseRole: as the pool would, which needs the schema's types to be opened.
    """
    async with await psycopg.AsyncConnection.connect(url, prepare_threshold=None) as connection:
        await check_schema(connection)
        await check_role(connection)


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
