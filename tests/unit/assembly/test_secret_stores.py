"""Where each deployment's secrets are, and what an operator has to say for it."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import pytest

from bonito.assembly.secret_stores import named_secrets
from bonito.errors import AccessDenied
from bonito.settings import Settings
from bonito.tenancy.secrets import SecretBox

ORG = UUID("6f1e1f0e-8a3c-4f0b-9b1e-0d5f3f1f2a10")


def secrets_of(cloud: str, prefix: str = "") -> Any:
    settings = Settings.model_validate({"cloud": cloud, "secret_prefix": prefix})
    return named_secrets(settings, cast("Any", None), SecretBox([bytes(32)]))


@pytest.mark.parametrize(
    ("cloud", "prefix", "reference"),
    [
        ("local", "", f"bonito/{ORG}/k"),
        ("aws", "", f"bonito/{ORG}/k"),
        ("azure", "https://example.vault.azure.net/secrets/bonito-", f"bonito-{ORG}-k"),
        ("gcp", "projects/p/secrets/bonito-", f"projects/p/secrets/bonito-{ORG}-k"),
    ],
)
def test_a_reference_is_one_of_the_clouds_store(cloud: str, prefix: str, reference: str) -> None:
    assert secrets_of(cloud, prefix).reference(ORG, "k") == reference


@pytest.mark.parametrize("cloud", ["azure", "gcp"])
async def test_a_deployment_that_does_not_say_where_secrets_are_says_so(cloud: str) -> None:
    with pytest.raises(AccessDenied, match="BONITO_SECRET_PREFIX"):
        await secrets_of(cloud).read(ORG, "k")
