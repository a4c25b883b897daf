"""The services of a console under test: a real pool, and doubles for what lies outside of the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from bonito.console.services import Services
from bonito.database.pool import Pool
from bonito.knowledge.search import Searcher
from bonito.settings import Settings
from bonito.tenancy.secrets import SecretBox
from tests.integration.knowledge.served import HashModels


class ListQueue:
    """A queue that remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, object]]] = []

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        self.sent.append((queue, message))


def make_services(pool: Pool, data_dir: Path | None = None) -> Services:
    """Without a data directory nothing may be uploaded."""
    return Services(
        settings=Settings(data_dir=data_dir or Path("/nowhere")),
        pool=pool,
        secret_box=SecretBox([bytes(32)]),
        queue=ListQueue(),
        models=HashModels(),
        searcher=Searcher(pool, HashModels()),
    )
