"""What the platform's one timer does, every minute or as often as it is called: schedules, lost events, lost work."""

from __future__ import annotations

from datetime import datetime, timedelta

from bonito.knowledge import schedule, sweeper
from bonito.knowledge.context import Ingestion

# A notification that got lost is made up for after so long at the latest. Listing costs: ten million objects are ten
# thousand requests, 0.05 US dollars at S3's price, so four times a day are 6 dollars a month.
# https://aws.amazon.com/s3/pricing/ ("PUT, COPY, POST, LIST requests")
UNLISTED = timedelta(hours=6)
# In a row, while there is much to sweep.
SWEEPS, MANY = 20, 100


async def tick(context: Ingestion, *, now: datetime) -> None:
    """Do what is due; any number of timers may tick at once.

    Args:
        context: what ingestion works with.
        now: aware; schedules are compared with it.
    """
    await schedule.send_due(context, now=now)
    await schedule.send_unlisted(context, older_than=UNLISTED)
    for _ in range(SWEEPS):
        if max((await sweeper.sweep(context)).values(), default=0) < MANY:
            break
