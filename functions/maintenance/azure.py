"""Maintenance on Azure: every ten minutes the indexes and partitions."""

from __future__ import annotations

import asyncio

import azure.functions as func

from bonito.assembly import maintenance

EVERY_TEN_MINUTES = "30 */10 * * * *"


def blueprint() -> func.Blueprint:
    """The functions of this unit, which share nothing with others."""
    doors = func.Blueprint()

    @doors.timer_trigger(arg_name="timer", schedule=EVERY_TEN_MINUTES)
    def maintain(timer: func.TimerRequest) -> None:
        """With the owner's rights, over a direct connection."""
        asyncio.run(maintenance.maintain_deployment())

    return doors
