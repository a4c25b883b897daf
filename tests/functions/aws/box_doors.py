"""The doors of ingest, embed and sync on AWS, with the buckets of the box as the organizations' sources.

All of them is what `functions/*/aws.py` have, but for where a source's rights come from: here everybody may read.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

from bonito.assembly.functions import ingesting
from bonito.assembly.process import Process
from bonito.clouds.aws import doors
from bonito.clouds.aws.queue import open_queue
from bonito.clouds.aws.store import S3Store
from bonito.clouds.base import ObjectStore
from bonito.knowledge import sync as sync_source
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.context import Ingestion
from bonito.knowledge.retries import next_pause
from functions.embed import aws as embedding
from functions.ingest import aws as ingestion
from functions.sync import aws as syncing
from tests.emulators.moto import REGION, StaticAccess


class Buckets:
    """Stores over the buckets that bases name."""

    async def store(self, org_id: UUID, base: KnowledgeBase) -> ObjectStore:
        url = os.environ["AWS_ENDPOINT_URL"]
        return S3Store(base.source_bucket, access=StaticAccess(), region=REGION, endpoint_url=url)

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        pass


@asynccontextmanager
async def making() -> AsyncIterator[Ingestion]:
    async with ingesting(open_queue) as context:
        yield replace(context, stores=Buckets())


PROCESS = Process(making)


def ingest(event: doors.SqsEvent, context: doors.LambdaContext) -> doors.BatchResponse:
    return doors.run_batch(event, context, PROCESS.run, ingestion.receive, pause=next_pause)


def embed(event: doors.SqsEvent, context: doors.LambdaContext) -> doors.BatchResponse:
    return doors.run_batch(event, context, PROCESS.run, embedding.receive, pause=next_pause)


def sync(event: doors.SqsEvent, context: doors.LambdaContext) -> doors.BatchResponse | None:
    if doors.is_batch(event):
        return doors.run_batch(event, context, PROCESS.run, sync_source.receive, pause=next_pause)
    doors.run_once(event, context, lambda: PROCESS.run(syncing.look))
    return None
