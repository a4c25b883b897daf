"""Puts a process together out of its settings: every part is made once, and closed in the reverse order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from bonito.assembly.identity import issuer_of
from bonito.assembly.secret_stores import named_secrets
from bonito.assembly.stores import CloudStores, LocalStores
from bonito.assembly.upload_places import places_of
from bonito.clouds.base import MessageQueue
from bonito.database.pool import Pool, open_pool
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.errors import InvalidSettings
from bonito.knowledge.buckets import Buckets
from bonito.knowledge.context import Ingestion
from bonito.knowledge.direct_uploads import UploadPlaces
from bonito.knowledge.parsing.base import DEFAULT_LIMITS
from bonito.knowledge.parsing.process import ParserProcess
from bonito.knowledge.search import Searcher
from bonito.metering.sinks import PostgresUsageSink
from bonito.providers.local.embedding import LocalEmbeddingModel
from bonito.providers.registry import ProviderRegistry
from bonito.settings import Settings
from bonito.tenancy import secrets
from bonito.tenancy.accesses import Accesses
from bonito.tenancy.secrets import SecretBox


@dataclass(frozen=True)
class Parts:
    """What servers and workers are made of.

    Attributes:
        settings: of this process.
        pool: the runtime's connections.
        box: seals and opens secrets.
        registry: the organizations' providers and embedding models.
        queue: to the next step of ingestion.
        searcher: over knowledge bases.
        usage: takes a record of each request.
        embedding: the local model; None where this process serves no local models.
        accesses: to customers' cloud accounts.
        uploads: where uploaded files lie.
        buckets: customers', opened through their connections.
    """

    settings: Settings
    pool: Pool
    box: SecretBox
    registry: ProviderRegistry
    queue: MessageQueue
    searcher: Searcher
    usage: PostgresUsageSink
    embedding: LocalEmbeddingModel | None
    accesses: Accesses
    uploads: UploadPlaces
    buckets: Buckets

    def ingestion(self, parser: ParserProcess) -> Ingestion:
        """What the steps of ingestion work with."""
        return Ingestion(
            pool=self.pool,
            stores=CloudStores(
                self.settings,
                self.pool,
                buckets=self.buckets,
                uploads=self.uploads,
                local=LocalStores(self.settings),
            ),
            queue=self.queue,
            models=self.registry,
            parser=parser,
            limits=replace(DEFAULT_LIMITS, max_bytes=self.settings.max_object_bytes),
        )


@asynccontextmanager
async def assembled(
    settings: Settings, runtime_url: str, queue: MessageQueue, *, is_laptop: bool
) -> AsyncIterator[Parts]:
    """Make the parts.

    Args:
        settings: of this process.
        runtime_url: the login of the runtime role.
        queue: open, and the caller's to close.
        is_laptop: this is `bonito up`: models of this process may be used, and providers on loopback reached.

    Raises:
        SchemaMismatch, UnsafeDatabaseRole: the database is not ready for this code.
        InvalidSettings: no or an unreadable encryption key, or an unreadable egress rule.
    """
    policy = EgressPolicy.from_text(settings.egress_allow)
    box = _box(settings, may_make_key=is_laptop)
    async with AsyncExitStack() as stack:
        pool = await open_pool(runtime_url, max_size=settings.database_pool_size)
        stack.push_async_callback(pool.close)
        client = EgressClient(policy.with_loopback() if is_laptop else policy)
        stack.push_async_callback(client.aclose)
        embedding = LocalEmbeddingModel() if is_laptop else None
        if embedding is not None:
            stack.callback(embedding.close)
        registry = ProviderRegistry(pool, box, client, local_embedding=embedding)
        accesses = Accesses(
            cloud=settings.cloud,
            issuer=issuer_of(settings, may_make_key=is_laptop),
            secrets=named_secrets(settings, pool, box),
        )
        places = places_of(settings, box)
        usage = PostgresUsageSink(pool)
        stack.push_async_callback(usage.aclose)
        yield Parts(
            settings,
            pool,
            box,
            registry,
            queue,
            Searcher(pool, registry),
            usage,
            embedding,
            accesses,
            places,
            Buckets(accesses),
        )


def _box(settings: Settings, *, may_make_key: bool) -> SecretBox:
    """The keyring; several processes of one deployment must share it, so only a laptop's makes one."""
    if settings.encryption_key is None and not may_make_key and not (settings.data_dir / secrets.KEY_FILE).exists():
        raise InvalidSettings("BONITO_ENCRYPTION_KEY is not set; all processes of a deployment need the same one.")
    return secrets.open_box(settings)
