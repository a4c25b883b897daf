"""The services of a console under test: a real pool, and doubles for what lies outside of the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from bonito.console.services import Services
from bonito.database.pool import Pool
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.knowledge.buckets import Buckets
from bonito.knowledge.search import Searcher
from bonito.knowledge.upload_places import UploadFolders
from bonito.metering.sinks import ImmediateUsageSink
from bonito.providers.registry import ProviderRegistry
from bonito.settings import Settings
from bonito.tenancy.accesses import Accesses
from bonito.tenancy.named_secrets import NamedSecrets, StoredSecrets
from bonito.tenancy.secrets import SecretBox
from tests.integration.knowledge.served import HashModels
from tests.unit.clouds.playing import issuer


class ListQueue:
    """A queue that remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, object]]] = []

    async def send(self, queue: str, message: Mapping[str, object], *, delay: timedelta = timedelta()) -> None:
        self.sent.append((queue, message))


async def no_names(host: str) -> Sequence[str]:
    raise OSError(f"no test asks for {host}")


def loopback_client() -> EgressClient:
    """Reaches this machine and nothing else."""
    return EgressClient(EgressPolicy().with_loopback(), lookup=no_names)


def make_accesses(pool: Pool, box: SecretBox, *, has_issuer: bool = True) -> Accesses:
    """With an issuer that no cloud reaches, and secrets in the database."""
    secrets = NamedSecrets(StoredSecrets(pool, box))
    return Accesses(cloud="local", issuer=issuer() if has_issuer else None, secrets=secrets)


def make_services(pool: Pool, data_dir: Path | None = None, client: EgressClient | None = None) -> Services:
    """Without a data directory nothing may be uploaded; without a client no provider may be called."""
    box = SecretBox([bytes(32)])
    accesses = make_accesses(pool, box)
    return Services(
        settings=Settings(data_dir=data_dir or Path("/nowhere")),
        pool=pool,
        secret_box=box,
        queue=ListQueue(),
        models=HashModels(),
        registry=ProviderRegistry(pool, box, client or loopback_client()),
        searcher=Searcher(pool, HashModels()),
        usage=ImmediateUsageSink(pool),
        accesses=accesses,
        buckets=Buckets(accesses),
        uploads=UploadFolders((data_dir or Path("/nowhere")) / "uploads", box),
    )
