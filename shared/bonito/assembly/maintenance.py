"""What is done with the owner's rights, from time to time: partitions in advance, and the indexes that are needed."""

from __future__ import annotations

import asyncio
import os
from typing import LiteralString

import psycopg

from bonito.errors import InvalidSettings
from bonito.knowledge import indexes
from bonito.settings import Settings

MAKE_PARTITIONS: LiteralString = "SELECT create_gateway_requests_partitions(3)"


async def maintain(url: str) -> None:
    """Make the coming months' partitions, and what indexes are missing.

    Args:
        url: a direct connection as a member of bonito_owner.

    Raises:
        Exception: what kept one of the two from being done; the other one is done all the same.
    """
    for outcome in await asyncio.gather(make_partitions(url), indexes.maintain(url), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def make_partitions(url: str) -> None:
    """Make the coming months' partitions of what is logged, where they are missing."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await conn.execute(MAKE_PARTITIONS)


async def maintain_deployment() -> None:
    """As `maintain`, for the database that BONITO_MAINTENANCE_DATABASE_URL names; InvalidSettings where none is."""
    settings = Settings.from_environ(os.environ)
    if settings.maintenance_database_url is None:
        raise InvalidSettings("BONITO_MAINTENANCE_DATABASE_URL is not set; maintenance needs the owner's rights.")
    await maintain(settings.maintenance_database_url.get_secret_value())
