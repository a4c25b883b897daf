"""What is done with the owner's rights, from time to time: partitions in advance, and the indexes that are needed."""

from __future__ import annotations

import os
from datetime import datetime

import psycopg

from bonito.errors import InvalidSettings
from bonito.knowledge import indexes, schedule, sweeper
from bonito.knowledge.context import Ingestion
from bonito.settings import Settings

ROUNDS = 20  # of sweeping in one call, while there is much to sweep
MANY = 100

MAKE_PARTITIONS = "SELECT create_gateway_requests_partitions(3)"


async def tick(context: Ingestion, *, now: datetime) -> None:
    """Every minute: ask for the syncs that are due, take up lost work, remove what nobody is served any more."""
    await schedule.send_due(context, now=now)
    for _ in range(ROUNDS):
        if max((await sweeper.sweep(context)).values(), default=0) < MANY:
            break


async def maintain(url: str) -> None:
    """Make the coming months' partitions, then what indexes are missing.

    Args:
        url: a direct connection as a member of bonito_owner.
    """
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await conn.execute(MAKE_PARTITIONS)
    await indexes.maintain(url)


async def maintain_deployment() -> None:
    """As `maintain`, for the database that BONITO_MAINTENANCE_DATABASE_URL names; InvalidSettings where none is."""
    settings = Settings.from_environ(os.environ)
    if settings.maintenance_database_url is None:
        raise InvalidSettings("BONITO_MAINTENANCE_DATABASE_URL is not set; maintenance needs the owner's rights.")
    await maintain(settings.maintenance_database_url.get_secret_value())
