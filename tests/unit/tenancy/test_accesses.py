"""Which access a connection gives, and that no session serves another organization or version (T9)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from bonito.clouds.aws.access import ExternalIdRole, FederatedRole, StaticKeys
from bonito.clouds.azure.access import ClientSecret, FederatedApplication
from bonito.clouds.gcp.access import FederatedIdentity, ServiceAccountKey
from bonito.errors import AccessDenied, NotFound
from bonito.tenancy import accesses as module
from bonito.tenancy.accesses import Accesses
from bonito.tenancy.connections import Connection
from bonito.tenancy.named_secrets import NamedSecrets
from tests.unit.clouds.playing import issuer

ORG, OTHER = uuid4(), uuid4()
NOW = datetime(2026, 5, 1, tzinfo=UTC)
ROLE = "arn:aws:iam::123456789012:role/reader"
TENANT = "11111111-2222-3333-4444-555555555555"
PROVIDER = "projects/1/locations/global/workloadIdentityPools/pool/providers/bonito"


class Nowhere:
    async def read(self, reference: str) -> str:
        raise NotFound(reference)


def connection(cloud: Any, **credential: Any) -> Connection:
    return Connection(UUID(int=7), "c", cloud, credential, ["papers"], NOW, NOW)


def accesses(cloud: Any = "aws", *, has_issuer: bool = True) -> Accesses:
    return Accesses(cloud=cloud, issuer=issuer() if has_issuer else None, secrets=NamedSecrets(Nowhere()))


@pytest.mark.parametrize(
    ("made_of", "kind"),
    [
        (connection("aws", role_arn=ROLE, external_id="x"), ExternalIdRole),
        (connection("aws", federated={"role_arn": ROLE}), FederatedRole),
        (connection("aws", secret="k"), StaticKeys),
    ],
    ids=["role", "federated", "secret"],
)
def test_each_credential_of_aws_has_its_access(made_of: Connection, kind: type) -> None:
    assert isinstance(accesses().aws(ORG, made_of), kind)


@pytest.mark.parametrize(
    ("made_of", "kind"),
    [
        (connection("azure", federated={"tenant_id": TENANT, "client_id": TENANT}), FederatedApplication),
        (connection("azure", secret="k"), ClientSecret),
        (connection("gcp", federated={"provider": PROVIDER}), FederatedIdentity),
        (connection("gcp", secret="k"), ServiceAccountKey),
    ],
    ids=["azure-federated", "azure-secret", "gcp-federated", "gcp-secret"],
)
@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp", "local"])
def test_the_others_are_reached_from_every_cloud(made_of: Connection, kind: type, cloud: str) -> None:
    assert isinstance(accesses(cloud).tokens(ORG, made_of), kind)


def test_sessions_are_kept_by_organization_connection_and_version() -> None:
    kept, of = accesses(), connection("aws", federated={"role_arn": ROLE})
    changed = replace(of, updated_at=NOW + timedelta(microseconds=1))
    another = replace(of, id=uuid4())

    made = [kept.aws(ORG, of), kept.aws(OTHER, of), kept.aws(ORG, changed), kept.aws(ORG, another)]

    assert len({id(access) for access in made}) == 4
    assert kept.aws(ORG, of) is made[0]
    assert kept.new_aws(ORG, of) is not made[0]


def test_what_was_not_asked_for_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    kept, of = accesses(), [replace(connection("azure", secret="k"), id=uuid4()) for _ in range(3)]
    first, second = kept.tokens(ORG, of[0]), kept.tokens(ORG, of[1])
    kept.tokens(ORG, of[0])
    kept.tokens(ORG, of[2])

    assert kept.tokens(ORG, of[0]) is first
    assert kept.tokens(ORG, of[1]) is not second


@pytest.mark.parametrize(
    ("where", "made_of", "says"),
    [
        (accesses("gcp"), connection("aws", role_arn=ROLE, external_id="x"), "needs a deployment on AWS"),
        (accesses(has_issuer=False), connection("aws", federated={"role_arn": ROLE}), "BONITO_PUBLIC_URL"),
    ],
    ids=["a-role-away-from-aws", "no-issuer"],
)
def test_a_credential_that_the_deployment_can_no_longer_use_is_said_to_be_so(
    where: Accesses, made_of: Connection, says: str
) -> None:
    with pytest.raises(AccessDenied, match=says):
        where.aws(ORG, made_of)


async def test_a_missing_secret_names_where_it_is_expected() -> None:
    with pytest.raises(AccessDenied, match=f"bonito/{ORG}/k"):
        await accesses().aws(ORG, connection("aws", secret="k")).credentials()
