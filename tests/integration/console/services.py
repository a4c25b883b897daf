"""The services of a console under test: a real pool, and doubles for what lies outside of the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from bonito.console.services import Services
from bonito.database.pool import Pool
from bonito.errors import ModelNotFound
from bonito.providers.base import EmbeddingModel
from bonito.settings import Settings
from bonito.tenancy.secrets import SecretBox


class ListQueue:
    """A queue that remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, object]]] = []

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        self.sent.append((queue, message))


class NoModels:
    """An organization without any provider."""

    async def embedding_model(self, org_id: UUID, name: str) -> EmbeddingModel:
        raise ModelNotFound(f"There is no model {name}.")


def make_services(pool: Pool) -> Services:
    return Services(
        settings=Settings(), pool=pool, secret_box=SecretBox([bytes(32)]), queue=ListQueue(), models=NoModels()
    )
