"""Sync on AWS: every minute a schedule calls, and between that the queue brings syncs that are asked for."""

from __future__ import annotations

from datetime import UTC, datetime

from bonito.assembly.functions import ingesting
from bonito.assembly.process import Process
from bonito.clouds.aws import doors
from bonito.clouds.aws.queue import open_queue
from bonito.knowledge import sync, timer
from bonito.knowledge.context import Ingestion
from bonito.knowledge.retries import next_pause

PROCESS = Process(lambda: ingesting(open_queue))


async def look(context: Ingestion) -> None:
    """What is due by now."""
    await timer.tick(context, now=datetime.now(UTC))


def handler(event: doors.SqsEvent | doors.ScheduledEvent, context: doors.LambdaContext) -> doors.BatchResponse | None:
    """SQS keeps the messages that are named; a schedule's call that fails is tried again by Lambda."""
    if doors.is_batch(event):
        return doors.run_batch(event, context, PROCESS.run, sync.receive, pause=next_pause)
    doors.run_once(event, context, lambda: PROCESS.run(look))
    return None
