"""Trying a connection out: does the account give a session?"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from bonito.errors import BonitoError
from bonito.tenancy.accesses import Accesses
from bonito.tenancy.connections import Connection, FederatedAws, FederatedAzure, FederatedCredential

STORAGE_SCOPES = {
    "azure": "https://storage.azure.com/.default",
    "gcp": "https://www.googleapis.com/auth/devstorage.read_only",
}


@dataclass(frozen=True)
class Tried:
    """What came of it; `error` says why there was no session."""

    error: str | None = None

    @property
    def is_verified(self) -> bool:
        """Whether there was one."""
        return self.error is None


async def verify(accesses: Accesses, org_id: UUID, connection: Connection) -> Tried:
    """Obtain a session that nobody has used; what the cloud says is an answer, not an error."""
    try:
        if connection.cloud == "aws":
            await accesses.new_aws(org_id, connection).credentials()
        else:
            await accesses.new_tokens(org_id, connection).token(STORAGE_SCOPES[connection.cloud])
    except BonitoError as error:
        return Tried(error=error.message)
    return Tried()


def audience(credential: FederatedCredential) -> str:
    """Whom Bonito's tokens for this credential are addressed to."""
    from bonito.clouds.aws import access as aws
    from bonito.clouds.azure import access as azure
    from bonito.clouds.gcp import access as gcp

    federated = credential.federated
    if isinstance(federated, FederatedAws):
        return aws.AUDIENCE
    return azure.AUDIENCE if isinstance(federated, FederatedAzure) else gcp.audience_of(federated.provider)
