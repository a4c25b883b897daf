"""Maintenance on AWS: called by a schedule, with the owner's rights."""

from __future__ import annotations

import asyncio

from bonito.assembly.maintenance import maintain_deployment
from bonito.clouds.aws import doors


def handler(event: doors.ScheduledEvent, context: doors.LambdaContext) -> None:
    """A call that fails is tried again by Lambda."""
    doors.run_once(event, context, lambda: asyncio.run(maintain_deployment()))
