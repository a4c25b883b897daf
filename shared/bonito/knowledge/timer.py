"""What the platform's one timer does, every minute or as often as it is called: schedules, lost events, lost work."""

from __future__ import annotations

from datetime import datetime, timedelta

from bonito.knowledge import schedule, sweeper
from bonito.knowledge.context import Ingestion

# In a row, while there is much to sweep.
SWEEPS, MANY = 20, 100


async def tick(context: Ingestion, *, now: datetime, unlisted: timedelta) -> None:
    """Do what is due; any number of timers may tick at once.

    Args:
        context: what ingestion works with.
        now: aware; schedules are compared with it.
        unlisted: after how long without a listing a source in a cloud is compared with its documents.
    """
    await schedule.send_due(context, now=now)
    await schedule.send_unlisted(context, older_than=unlisted)
    for _ in range(SWEEPS):
        if max((await sweeper.sweep(context)).values(), default=0) < MANY:
            break
