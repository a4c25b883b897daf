"""Embed on Google Cloud: a task names a batch of chunks, and they get their vectors."""

from __future__ import annotations

from collections.abc import Mapping

import flask
import functions_framework

from bonito.assembly.functions import ingesting
from bonito.assembly.process import Process
from bonito.clouds.gcp import doors
from bonito.clouds.gcp.queue import open_queue
from bonito.knowledge import vectors
from bonito.knowledge.context import Ingestion
from bonito.knowledge.messages import EmbedMessage

PROCESS = Process(lambda: ingesting(open_queue))


async def receive(context: Ingestion, body: Mapping[str, object]) -> None:
    """One batch."""
    await vectors.embed(context, EmbedMessage.from_json(body))


@functions_framework.http
def embed(request: flask.Request) -> doors.Answer:
    """The queue sends the message again unless the answer is 2xx."""
    return doors.answer(request, PROCESS.run, receive)
