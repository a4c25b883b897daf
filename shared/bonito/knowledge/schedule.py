"""Which syncs are due: by a knowledge base's own schedule, and for sources that nobody notifies us of."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import LiteralString
from zoneinfo import ZoneInfo

from bonito.clouds.base import StoreType
from bonito.database.pool import lookup, tenant
from bonito.knowledge.context import Ingestion, send_all
from bonito.knowledge.messages import SyncMessage
from bonito.tenancy import tiers
from bonito.tenancy.tiers import TIERS

logger = logging.getLogger(__name__)

FIND_DUE: LiteralString = "SELECT * FROM find_due_schedules()"
FIND_SOURCES: LiteralString = "SELECT org_id, knowledge_base_id FROM find_sources(%(provider)s)"

# Of several who tick at once, the one that moves the time sends the message.
SET_NEXT: LiteralString = """
    UPDATE knowledge_bases SET next_sync_at = %(next)s
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s AND next_sync_at IS NOT DISTINCT FROM %(seen)s
       AND deleted_at IS NULL
"""


# Sources in one call; the next call comes a minute later.
UNLISTED = 100
FIND_UNLISTED: LiteralString = "SELECT * FROM find_unlisted(%(age)s, %(limit)s)"
TAKE_UNLISTED: LiteralString = """
    UPDATE knowledge_bases SET listed_at = now()
     WHERE org_id = %(org_id)s AND id = %(knowledge_base_id)s AND listed_at IS NOT DISTINCT FROM %(seen)s
       AND deleted_at IS NULL
"""


async def send_due(context: Ingestion, *, now: datetime) -> int:
    """Ask for a sync of every base whose schedule is due; how many.

    A schedule that was missed, however often, is made up for once. A base whose schedule is new gets its next time.
    The schedules of an organization whose tier allows none any more rest.
    """
    async with lookup(context.pool) as conn:
        due = await (await conn.execute(FIND_DUE)).fetchall()
    sent = 0
    for org_id, knowledge_base_id, expression, timezone, seen in due:
        try:
            upcoming = next_time(expression, timezone, after=now)
        except (ValueError, KeyError, OSError):  # checked when it was set; time zones come and go
            logger.warning("The schedule of knowledge base %s cannot be read.", knowledge_base_id)
            continue
        row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id, "seen": seen, "next": upcoming}
        async with tenant(context.pool, org_id) as conn:
            is_allowed = TIERS[await tiers.tier_of(conn, org_id=org_id)].schedules
            is_ours = (await conn.execute(SET_NEXT, row)).rowcount == 1
        if is_ours and is_allowed and seen is not None:
            await send_all(context.queue, [SyncMessage(org_id, knowledge_base_id, trigger="schedule")])
            sent += 1
    return sent


async def send_reconcile(context: Ingestion, *, provider: StoreType) -> int:
    """Ask for a sync of every base whose source is of this type; how many."""
    async with lookup(context.pool) as conn:
        found = await (await conn.execute(FIND_SOURCES, {"provider": provider})).fetchall()
    messages = [SyncMessage(org_id, base_id, trigger="reconcile") for org_id, base_id in found]
    await send_all(context.queue, messages)
    return len(messages)


async def send_unlisted(context: Ingestion, *, older_than: timedelta) -> int:
    """Ask for a sync of sources in a cloud that nobody listed for so long; how many, a bounded number in one call.

    A notification can be lost on its way, and then nothing but a listing finds what changed.
    """
    async with lookup(context.pool) as conn:
        row = {"age": older_than, "limit": UNLISTED}
        found = await (await conn.execute(FIND_UNLISTED, row)).fetchall()
    sent = 0
    for org_id, knowledge_base_id, seen in found:
        row = {"org_id": org_id, "knowledge_base_id": knowledge_base_id, "seen": seen}
        async with tenant(context.pool, org_id) as conn:
            is_ours = (await conn.execute(TAKE_UNLISTED, row)).rowcount == 1
        if is_ours:
            await send_all(context.queue, [SyncMessage(org_id, knowledge_base_id, trigger="reconcile")])
            sent += 1
    return sent


def next_time(expression: str, timezone: str, *, after: datetime) -> datetime:
    """The first moment after `after` (aware) that fits a cron expression read in an IANA time zone.

    A time of day that the clock's change skips comes at the moment of the change; one that it repeats comes once,
    unless the expression is for every hour.
    """
    from croniter import croniter

    zone = ZoneInfo(timezone)
    moments = croniter(expression, after.astimezone(zone))
    moment: datetime = moments.get_next(datetime)
    is_for_every_hour = expression.split()[1].startswith("*")
    while moment.astimezone(zone).fold and not is_for_every_hour:
        moment = moments.get_next(datetime)
    return moment
