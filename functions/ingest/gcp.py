"""Ingest on Google Cloud: a change in a bucket, or our own message about a document, is worked off.

`notified` is for triggers of Eventarc, `ingest` for the queue of Cloud Tasks and for pushes of Pub/Sub.
"""

from __future__ import annotations

from collections.abc import Mapping

import flask
import functions_framework
from cloudevents.http import CloudEvent

from bonito.assembly.functions import ingesting
from bonito.assembly.process import Process
from bonito.clouds.gcp import doors
from bonito.clouds.gcp.notifications import object_changes
from bonito.clouds.gcp.queue import open_queue
from bonito.knowledge import ingestion
from bonito.knowledge.context import Ingestion

PROCESS = Process(lambda: ingesting(open_queue))


async def receive(context: Ingestion, body: Mapping[str, object]) -> None:
    """One message, whoever sent it."""
    await ingestion.receive(context, body, object_changes)


@functions_framework.cloud_event
def notified(event: CloudEvent) -> None:
    """Eventarc sends the event again unless this returns."""
    doors.handle(event, PROCESS.run, receive)


@functions_framework.http
def ingest(request: flask.Request) -> doors.Answer:
    """The queue sends the message again unless the answer is 2xx."""
    return doors.answer(request, PROCESS.run, receive)
