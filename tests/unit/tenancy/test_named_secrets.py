"""References to secrets: of one organization each, whatever names others choose."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.errors import AccessDenied, NotFound, UpstreamError
from bonito.tenancy.named_secrets import NamedSecrets

ORG = UUID("6f1e1f0e-8a3c-4f0b-9b1e-0d5f3f1f2a10")


class Store:
    """Secrets by reference, and how often they were read."""

    def __init__(self, **secrets: str) -> None:
        self.secrets, self.read_at, self.is_away = secrets, list[str](), False

    async def read(self, reference: str) -> str:
        self.read_at.append(reference)
        if self.is_away:
            raise UpstreamError("away")
        if reference not in self.secrets:
            raise NotFound("no such secret")
        return self.secrets[reference]


@pytest.mark.parametrize(
    ("cloud", "prefix", "reference"),
    [
        ("local", "", f"bonito/{ORG}/key"),
        ("aws", "prod/bonito/", f"prod/bonito/{ORG}/key"),
        ("azure", "", f"bonito-{ORG}-key"),
        ("gcp", "b-", f"b-{ORG}-key"),
    ],
)
async def test_a_reference_is_as_its_store_allows(cloud: str, prefix: str, reference: str) -> None:
    store = Store(**{reference: "value"})

    assert await NamedSecrets(store, cloud=cloud, prefix=prefix).read(ORG, "key") == "value"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "-a", "a b", "a\n", "a" * 64, f"{ORG}/key"])
async def test_what_is_no_name_never_reaches_the_store(name: str) -> None:
    store = Store()

    with pytest.raises(AccessDenied):
        await NamedSecrets(store).read(ORG, name)
    assert store.read_at == []


@given(st.uuids(), st.uuids(), st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True), st.data())
def test_no_name_of_one_organization_means_anothers_secret(
    one: UUID, other: UUID, name: str, data: st.DataObject
) -> None:
    for cloud in ("local", "aws", "azure", "gcp"):
        secrets = NamedSecrets(Store(), cloud=cloud)  # type: ignore[arg-type]
        chosen = data.draw(st.one_of(st.just(name), st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)))
        is_same = secrets.reference(one, name) == secrets.reference(other, chosen)
        assert is_same is ((one, name) == (other, chosen))


async def test_a_value_is_remembered_until_it_is_asked_for_afresh() -> None:
    reference = f"bonito/{ORG}/key"
    store = Store(**{reference: "old"})
    secrets = NamedSecrets(store)
    read = [await secrets.read(ORG, "key")]
    store.secrets[reference] = "new"
    read += [await secrets.read(ORG, "key"), await secrets.read(ORG, "key", fresh=True)]

    assert read == ["old", "old", "new"]
    assert len(store.read_at) == 2


async def test_a_store_that_is_away_is_no_missing_secret() -> None:
    store = Store()
    store.is_away = True

    with pytest.raises(UpstreamError) as failed:
        await NamedSecrets(store).read(uuid4(), "key")
    assert not isinstance(failed.value, AccessDenied)
