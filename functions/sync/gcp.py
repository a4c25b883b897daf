"""Sync on Google Cloud: `sync` works off the queue's messages, `tick` is called by Cloud Scheduler every minute."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import flask
import functions_framework

from bonito.assembly.functions import ingesting
from bonito.assembly.process import Process
from bonito.clouds.gcp import doors
from bonito.clouds.gcp.queue import open_queue
from bonito.knowledge import schedule, sweeper
from bonito.knowledge import sync as syncs
from bonito.knowledge.context import Ingestion
from bonito.knowledge.messages import SyncMessage

PROCESS = Process(lambda: ingesting(open_queue))


async def receive(context: Ingestion, body: Mapping[str, object]) -> None:
    """One sync."""
    asked = SyncMessage.from_json(body)
    await syncs.sync(context, asked.org_id, asked.knowledge_base_id, retry_failed=asked.retry_failed)


async def look(context: Ingestion) -> None:
    """What is due now: the knowledge bases' own schedules, and whatever was lost or is to go."""
    await schedule.send_due(context, now=datetime.now(UTC))
    await sweeper.sweep(context)


@functions_framework.http
def sync(request: flask.Request) -> doors.Answer:
    """The queue sends the message again unless the answer is 2xx."""
    return doors.answer(request, PROCESS.run, receive)


@functions_framework.http
def tick(request: flask.Request) -> doors.Answer:
    """Cloud Scheduler tries again, as it is configured, unless the answer is 2xx."""
    return doors.called(lambda: PROCESS.run(look))
