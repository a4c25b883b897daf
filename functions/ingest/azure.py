"""Ingest on Azure: a message of the queue `ingest` in, ours or Event Grid's; its document becomes chunks."""

from __future__ import annotations

from functools import partial

import azure.functions as func

from bonito.assembly.process import Process
from bonito.clouds.azure.doors import work_off
from bonito.clouds.azure.notifications import object_changes
from bonito.knowledge.context import Ingestion
from bonito.knowledge.ingestion import receive
from bonito.knowledge.retries import next_pause


def blueprint(process: Process[Ingestion]) -> func.Blueprint:
    """The functions of this unit, over what their process shares."""
    doors = func.Blueprint()

    @doors.queue_trigger(arg_name="message", queue_name="%BONITO_INGEST_QUEUE%", connection="AzureWebJobsStorage")
    def ingest(message: func.QueueMessage) -> None:
        """Look at what a notification or another step names."""

        async def step(context: Ingestion) -> None:
            look = partial(receive, context, changes_of=object_changes)
            await work_off(context.queue, "ingest", message, look, pause=next_pause)

        process.run(step)

    return doors
