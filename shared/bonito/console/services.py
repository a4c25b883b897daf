"""What the routes work with, made once per process by whoever starts it."""

from __future__ import annotations

from dataclasses import dataclass

from bonito.clouds.base import MessageQueue
from bonito.database.pool import Pool
from bonito.knowledge.buckets import Buckets
from bonito.knowledge.direct_uploads import UploadPlaces
from bonito.knowledge.search import Searcher
from bonito.metering.usage import UsageSink
from bonito.providers.base import EmbeddingModels
from bonito.providers.registry import ProviderRegistry
from bonito.settings import Settings
from bonito.tenancy.accesses import Accesses
from bonito.tenancy.secrets import SecretBox


@dataclass(frozen=True)
class Services:
    """The parts that routes share; a new part is a new field, named and typed by what the routes need of it."""

    settings: Settings
    pool: Pool
    secret_box: SecretBox
    queue: MessageQueue
    models: EmbeddingModels
    registry: ProviderRegistry
    searcher: Searcher
    usage: UsageSink
    accesses: Accesses
    uploads: UploadPlaces
    buckets: Buckets
