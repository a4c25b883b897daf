"""Maintenance on Google Cloud: called by Cloud Scheduler, with the owner's rights."""

from __future__ import annotations

import asyncio

import flask
import functions_framework

from bonito.assembly.maintenance import maintain_deployment
from bonito.clouds.gcp import doors


@functions_framework.http
def maintain(request: flask.Request) -> doors.Answer:
    """Cloud Scheduler tries again, as it is configured, unless the answer is 2xx."""
    return doors.called(lambda: asyncio.run(maintain_deployment()))
