"""Ingest on AWS: a batch of S3's notifications and of our own messages in, the ids of those that come again out."""

from __future__ import annotations

from collections.abc import Mapping

from bonito.assembly.functions import ingesting
from bonito.assembly.process import Process
from bonito.clouds.aws import doors
from bonito.clouds.aws.notifications import object_changes
from bonito.clouds.aws.queue import open_queue
from bonito.knowledge import ingestion
from bonito.knowledge.context import Ingestion
from bonito.knowledge.retries import next_pause

PROCESS = Process(lambda: ingesting(open_queue))


async def receive(context: Ingestion, body: Mapping[str, object]) -> None:
    """One message, whoever sent it."""
    await ingestion.receive(context, body, object_changes)


def handler(event: doors.SqsEvent, context: doors.LambdaContext) -> doors.BatchResponse:
    """SQS keeps the messages that are named, and deletes the others."""
    return doors.run_batch(event, context, PROCESS.run, receive, pause=next_pause)
