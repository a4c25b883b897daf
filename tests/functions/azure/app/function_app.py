"""The function app of a deployment, but that every account it reads is Azurite's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import azure.functions as func

from bonito.assembly.functions import ingesting
from bonito.assembly.process import Process
from bonito.clouds.azure.queue import open_queue
from bonito.clouds.azure.store import BlobStore
from bonito.clouds.base import ObjectStore
from bonito.knowledge.bases import KnowledgeBase
from bonito.knowledge.context import Ingestion
from functions.embed import azure as embed
from functions.ingest import azure as ingest
from functions.maintenance import azure as maintenance
from functions.sync import azure as sync
from tests.emulators.azurite import ACCOUNT, KEY, AccountKey


class Containers:
    """Stores over the emulator's account."""

    async def store(self, org_id: UUID, base: KnowledgeBase) -> ObjectStore:
        account, _, container = base.source_bucket.partition("/")
        url = os.environ["BONITO_TEST_BLOB_URL"]
        return BlobStore(account, container, access=AccountKey(ACCOUNT, KEY), endpoint_url=url)

    async def discard(self, org_id: UUID, knowledge_base_id: UUID) -> None:
        raise AssertionError("nothing was uploaded")


@asynccontextmanager
async def over_azurite() -> AsyncIterator[Ingestion]:
    async with ingesting(open_queue) as context:
        yield replace(context, stores=Containers())


app = func.FunctionApp()
process = Process(over_azurite)
for unit in (ingest, embed, sync):
    app.register_functions(unit.blueprint(process))
app.register_functions(maintenance.blueprint())
