"""Sessions in customers' accounts, each of one organization through one version of one connection."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Literal, TypeVar
from uuid import UUID

from bonito.clouds.access import AwsAccess, TokenAccess
from bonito.clouds.identity import Issuer
from bonito.errors import AccessDenied, InvalidRequest
from bonito.tenancy.connections import (
    Connection,
    Credential,
    FederatedAws,
    FederatedAzure,
    FederatedCredential,
    FederatedGcp,
    RoleCredential,
    SecretCredential,
)
from bonito.tenancy.named_secrets import NamedSecrets

MAX_ENTRIES = 1000

Version = tuple[UUID, UUID, datetime]
Access = TypeVar("Access")


class Accesses:
    """Makes access out of connections; one per process.

    What is made is kept by organization, connection and its `updated_at`, so that no session ever serves another
    organization, nor one that a changed connection would not get.
    """

    def __init__(
        self,
        *,
        cloud: Literal["local", "aws", "azure", "gcp"],
        issuer: Issuer | None,
        secrets: NamedSecrets,
        own_aws: AwsAccess | None = None,
    ) -> None:
        """Call nothing yet.

        Args:
            cloud: where Bonito runs.
            issuer: signs Bonito's tokens; None: there is no federation.
            secrets: of the organizations.
            own_aws: the deployment's rights, for AssumeRole alone; None: the environment's, where Bonito runs on AWS.
        """
        self.issuer = issuer
        self._cloud, self._secrets, self._own_aws = cloud, secrets, own_aws
        self._aws: OrderedDict[Version, AwsAccess] = OrderedDict()
        self._tokens: OrderedDict[Version, TokenAccess] = OrderedDict()

    def check(self, credential: Credential) -> None:
        """Refuse a credential that this deployment cannot use; InvalidRequest says why."""
        if isinstance(credential, FederatedCredential) and self.issuer is None:
            raise InvalidRequest(
                "This deployment issues no tokens that a cloud could trust: its operator sets BONITO_PUBLIC_URL, and a "
                "key that signs.",
                param="credential.federated",
            )
        if isinstance(credential, RoleCredential) and self._cloud != "aws":
            raise InvalidRequest(
                "A role with an external id needs a deployment on AWS; use a federated role, or a secret.",
                param="credential.role_arn",
            )

    def aws(self, org_id: UUID, connection: Connection) -> AwsAccess:
        """Access of a connection to AWS; AccessDenied where this deployment cannot use its credential."""
        return _kept(
            self._aws, (org_id, connection.id, connection.updated_at), partial(self.new_aws, org_id, connection)
        )

    def tokens(self, org_id: UUID, connection: Connection) -> TokenAccess:
        """Access of a connection to Azure or Google Cloud; AccessDenied where its credential cannot be used here."""
        version = (org_id, connection.id, connection.updated_at)
        return _kept(self._tokens, version, partial(self.new_tokens, org_id, connection))

    def new_aws(self, org_id: UUID, connection: Connection) -> AwsAccess:
        """As `aws`, with nothing remembered."""
        from bonito.clouds.aws import access
        from bonito.clouds.aws.requests import OwnAccess

        credential = self._usable(connection)
        if isinstance(credential, SecretCredential):
            return access.StaticKeys(partial(self._secrets.read, org_id, credential.secret))
        if isinstance(credential, RoleCredential):
            return access.ExternalIdRole(
                credential.role_arn,
                external_id=credential.external_id or "",
                subject=str(org_id),
                own=self._own_aws or OwnAccess(),
            )
        if isinstance(credential.federated, FederatedAws):
            return access.FederatedRole(credential.federated.role_arn, issuer=self._issuer(), subject=str(org_id))
        raise _of_another_cloud()

    def new_tokens(self, org_id: UUID, connection: Connection) -> TokenAccess:
        """As `tokens`, with nothing remembered."""
        from bonito.clouds.azure import access as azure
        from bonito.clouds.gcp import access as gcp

        credential = self._usable(connection)
        if isinstance(credential, SecretCredential):
            read = partial(self._secrets.read, org_id, credential.secret)
            return gcp.ServiceAccountKey(read) if connection.cloud == "gcp" else azure.ClientSecret(read)
        if isinstance(credential, FederatedCredential):
            federated = credential.federated
            if isinstance(federated, FederatedAzure):
                return azure.FederatedApplication(
                    tenant_id=federated.tenant_id,
                    client_id=federated.client_id,
                    issuer=self._issuer(),
                    subject=str(org_id),
                )
            if isinstance(federated, FederatedGcp):
                return gcp.FederatedIdentity(
                    provider=federated.provider,
                    service_account=federated.service_account,
                    issuer=self._issuer(),
                    subject=str(org_id),
                )
        raise _of_another_cloud()

    def _usable(self, connection: Connection) -> Credential:
        """The credential, unless the deployment was moved or reconfigured since."""
        credential = connection.access
        try:
            self.check(credential)
        except InvalidRequest as error:
            raise AccessDenied(error.message) from error
        return credential

    def _issuer(self) -> Issuer:
        assert self.issuer is not None  # noqa: S101 - `check` refused
        return self.issuer


def _of_another_cloud() -> AccessDenied:
    return AccessDenied("The connection is of another cloud than what it is used for.")


def _kept(kept: OrderedDict[Version, Access], version: Version, make: Callable[[], Access]) -> Access:
    """What is kept of this version, or made now; the one that was not asked for longest leaves first."""
    found = kept.get(version)
    if found is None:
        found = kept[version] = make()
    kept.move_to_end(version)
    if len(kept) > MAX_ENTRIES:
        kept.popitem(last=False)
    return found
