"""Embed on Azure: a message of the queue `embed` in; a batch of chunks gets its vectors."""

from __future__ import annotations

from collections.abc import Mapping

import azure.functions as func

from bonito.assembly.process import Process
from bonito.clouds.azure.doors import work_off
from bonito.knowledge import vectors
from bonito.knowledge.context import Ingestion
from bonito.knowledge.messages import EmbedMessage
from bonito.knowledge.retries import next_pause


def blueprint(process: Process[Ingestion]) -> func.Blueprint:
    """The functions of this unit, over what their process shares."""
    doors = func.Blueprint()

    @doors.queue_trigger(arg_name="message", queue_name="%BONITO_EMBED_QUEUE%", connection="AzureWebJobsStorage")
    def embed(message: func.QueueMessage) -> None:
        """Embed one batch."""

        async def step(context: Ingestion) -> None:
            async def fill(body: Mapping[str, object]) -> None:
                await vectors.embed(context, EmbedMessage.from_json(body))

            await work_off(context.queue, "embed", message, fill, pause=next_pause)

        process.run(step)

    return doors
