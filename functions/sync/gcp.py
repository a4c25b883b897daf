"""Sync on Google Cloud: `sync` works off the queue's messages, `tick` is called by Cloud Scheduler every minute."""

from __future__ import annotations

from datetime import UTC, datetime

import flask
import functions_framework

from bonito.assembly.functions import ingesting
from bonito.assembly.process import Process
from bonito.clouds.gcp import doors
from bonito.clouds.gcp.queue import open_queue
from bonito.knowledge import sync as syncs
from bonito.knowledge import timer
from bonito.knowledge.context import Ingestion

PROCESS = Process(lambda: ingesting(open_queue))


async def look(context: Ingestion) -> None:
    """What is due by now."""
    await timer.tick(context, now=datetime.now(UTC))


@functions_framework.http
def sync(request: flask.Request) -> doors.Answer:
    """The queue sends the message again unless the answer is 2xx."""
    return doors.answer(request, PROCESS.run, syncs.receive)


@functions_framework.http
def tick(request: flask.Request) -> doors.Answer:
    """Cloud Scheduler tries again, as it is configured, unless the answer is 2xx."""
    return doors.called(lambda: PROCESS.run(look))
