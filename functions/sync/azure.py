"""Sync on Azure: a message of the queue `sync` in; every minute the schedules that are due, and what got stuck."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import azure.functions as func

from bonito.assembly.process import Process
from bonito.clouds.azure.doors import work_off
from bonito.knowledge import sync
from bonito.knowledge import timer as timers
from bonito.knowledge.context import Ingestion
from bonito.knowledge.retries import next_pause

EVERY_MINUTE = "0 * * * * *"


def blueprint(process: Process[Ingestion]) -> func.Blueprint:
    """The functions of this unit, over what their process shares."""
    doors = func.Blueprint()

    @doors.queue_trigger(arg_name="message", queue_name="%BONITO_SYNC_QUEUE%", connection="AzureWebJobsStorage")
    def list_source(message: func.QueueMessage) -> None:
        """Compare one source with its documents."""

        async def step(context: Ingestion) -> None:
            await work_off(context.queue, "sync", message, partial(sync.receive, context), pause=next_pause)

        process.run(step)

    @doors.timer_trigger(arg_name="timer", schedule=EVERY_MINUTE)
    def tick(timer: func.TimerRequest) -> None:
        """Ask for the syncs that are due, and take up what got stuck."""
        process.run(partial(timers.tick, now=datetime.now(UTC)))

    return doors
