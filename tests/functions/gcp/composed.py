"""The doors with what a test puts into them: queues and a bucket on the loopback, with an access that needs no Google.

The framework loads this file as it loads those of `functions/`; the steps and the edge are theirs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from uuid import UUID

import flask
import functions_framework
from cloudevents.http import CloudEvent

from bonito.assembly.functions import ingesting
from bonito.assembly.process import Process
from bonito.clouds.base import ObjectStore
from bonito.clouds.gcp import doors
from bonito.clouds.gcp.queue import open_queue
from bonito.clouds.gcp.store import GcsStore
from bonito.knowledge import sync as sync_source
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.context import Ingestion
from functions.embed import gcp as embedding
from functions.ingest import gcp as ingestion
from functions.sync import gcp as syncs
from tests.emulators.google import StaticAccess

TASKS_URL, STORAGE_URL = os.environ["BONITO_TEST_TASKS_URL"], os.environ["BONITO_TEST_STORAGE_URL"]


class Buckets:
    """Stores: the bucket that a base names, on the test's storage server."""

    async def store(self, org_id: UUID, base: KnowledgeBase) -> ObjectStore:
        return GcsStore(base.source_bucket, access=StaticAccess(), endpoint_url=STORAGE_URL)

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        """These bases have no uploads."""


@asynccontextmanager
async def ingesting_buckets() -> AsyncIterator[Ingestion]:
    opened = partial(open_queue, access=StaticAccess(), tasks_url=TASKS_URL, pubsub_url=TASKS_URL)
    async with ingesting(opened) as context:
        yield replace(context, stores=Buckets())


PROCESS = Process(ingesting_buckets)


@functions_framework.cloud_event
def notified(event: CloudEvent) -> None:
    doors.handle(event, PROCESS.run, ingestion.receive)


@functions_framework.http
def ingest(request: flask.Request) -> doors.Answer:
    return doors.answer(request, PROCESS.run, ingestion.receive)


@functions_framework.http
def embed(request: flask.Request) -> doors.Answer:
    return doors.answer(request, PROCESS.run, embedding.receive)


@functions_framework.http
def sync(request: flask.Request) -> doors.Answer:
    return doors.answer(request, PROCESS.run, sync_source.receive)


@functions_framework.http
def tick(request: flask.Request) -> doors.Answer:
    return doors.called(lambda: PROCESS.run(syncs.look))
