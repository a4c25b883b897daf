"""Providers of an organization: rows with sealed credentials, and what becomes callable of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from bonito.database.pool import Pool, tenant
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.errors import (
    AddressNotAllowed,
    AlreadyExists,
    BonitoError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    Overloaded,
)
from bonito.providers import accounts
from bonito.providers.accounts import ProviderAccount, ProviderSettings
from bonito.providers.base import ProviderRequest
from bonito.providers.local.embedding import LocalEmbeddingModel
from bonito.providers.registry import ProviderRegistry
from bonito.tenancy.secrets import SecretBox
from tests import stub_provider
from tests.integration.conftest import Database
from tests.stub_provider import StubProvider
from tests.unit.providers.conftest import Serve
from tests.unit.providers.test_azure_openai import KEY as AZURE_KEY
from tests.unit.providers.test_azure_openai import Resource
from tests.unit.providers.test_vertex import key_file

BOX = SecretBox([bytes(32)])
KEY = "sk-canary-0123456789abcdefghij"


class Clock:
    """Time that passes when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def stub() -> AsyncIterator[StubProvider]:
    async with stub_provider.serving() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client() -> AsyncIterator[EgressClient]:
    async with EgressClient(EgressPolicy().with_loopback()) as opened:
        yield opened


@pytest.fixture
def registry(pool: Pool, client: EgressClient, clock: Clock) -> ProviderRegistry:
    return ProviderRegistry(pool, BOX, client, local_embedding=LocalEmbeddingModel(), clock=clock)


async def add(
    pool: Pool, org_id: UUID, settings: ProviderSettings, credential: dict[str, str] | None = None
) -> ProviderAccount:
    async with tenant(pool, org_id) as conn:
        return await accounts.create(
            conn,
            BOX,
            org_id=org_id,
            provider_id=uuid4(),
            secret_id=uuid4(),
            settings=settings,
            credential={"api_key": KEY} if credential is None else credential,
        )


async def change(
    pool: Pool, org_id: UUID, provider_id: UUID, settings: ProviderSettings, credential: dict[str, str] | None = None
) -> ProviderAccount:
    async with tenant(pool, org_id) as conn:
        return await accounts.update(
            conn,
            BOX,
            org_id=org_id,
            provider_id=provider_id,
            secret_id=uuid4(),
            settings=settings,
            credential=credential,
        )


async def credential_of(pool: Pool, org_id: UUID, account: ProviderAccount) -> Any:
    async with tenant(pool, org_id) as conn:
        return await accounts.open_credential(conn, BOX, org_id=org_id, account=account)


def count(database: Database, statement: str) -> Any:
    with psycopg.connect(database.superuser_url) as connection:
        return connection.execute(statement).fetchone()


def compatible(stub: StubProvider, name: str = "stub", **fields: Any) -> ProviderSettings:
    return ProviderSettings(name, "openai_compatible", stub.base_url, **fields)


async def test_a_credential_is_sealed_and_opens_for_its_provider(
    pool: Pool, org_id: UUID, stub: StubProvider, database: Database
) -> None:
    account = await add(pool, org_id, compatible(stub))

    assert await credential_of(pool, org_id, account) == {"api_key": KEY}
    assert KEY not in repr(account)
    dump = count(
        database, "SELECT string_agg(p::text, '') || (SELECT string_agg(s::text, '') FROM secrets s) FROM providers p"
    )
    assert KEY not in dump[0]
    assert KEY.encode().hex() not in dump[0]


async def test_a_name_is_taken_once_per_organization(
    pool: Pool, org_id: UUID, other_org_id: UUID, stub: StubProvider
) -> None:
    await add(pool, org_id, compatible(stub))
    await add(pool, other_org_id, compatible(stub))

    with pytest.raises(AlreadyExists) as refused:
        await add(pool, org_id, compatible(stub))
    assert refused.value.param == "name"


async def test_another_organization_cannot_see_change_or_remove_it(
    pool: Pool, org_id: UUID, other_org_id: UUID, stub: StubProvider
) -> None:
    account = await add(pool, org_id, compatible(stub))
    async with tenant(pool, other_org_id) as conn:
        with pytest.raises(NotFound):
            await accounts.get(conn, org_id=other_org_id, name_or_id=str(account.id))
        assert await accounts.list_all(conn, org_id=org_id) == []
        with pytest.raises(NotFound):
            await accounts.delete(conn, org_id=other_org_id, provider_id=account.id)
    with pytest.raises(NotFound):
        await change(pool, other_org_id, account.id, compatible(stub))


async def test_a_change_keeps_replaces_or_forgets_the_credential(
    pool: Pool, org_id: UUID, stub: StubProvider, database: Database
) -> None:
    account = await add(pool, org_id, compatible(stub))
    kept = await change(pool, org_id, account.id, compatible(stub, models=["a"]))
    assert (kept.models, await credential_of(pool, org_id, kept)) == (["a"], {"api_key": KEY})
    replaced = await change(pool, org_id, account.id, compatible(stub), {"api_key": "sk-new"})
    assert await credential_of(pool, org_id, replaced) == {"api_key": "sk-new"}
    forgotten = await change(pool, org_id, account.id, compatible(stub), {})

    assert await credential_of(pool, org_id, forgotten) == {}
    assert count(database, f"SELECT count(*) FROM secrets WHERE org_id = '{org_id}'") == (0,)


async def test_a_stored_credential_is_not_sent_to_another_address(pool: Pool, org_id: UUID, stub: StubProvider) -> None:
    account = await add(pool, org_id, compatible(stub))
    elsewhere = ProviderSettings("stub", "openai_compatible", "https://attacker.example/v1")

    with pytest.raises(InvalidRequest, match="credential again"):
        await change(pool, org_id, account.id, elsewhere)
    moved = await change(pool, org_id, account.id, elsewhere, {"api_key": "sk-other"})
    assert moved.base_url == "https://attacker.example/v1"


@pytest.mark.parametrize(
    "settings", [ProviderSettings("renamed", "openai_compatible"), ProviderSettings("stub", "openai")]
)
async def test_name_and_type_stay(pool: Pool, org_id: UUID, stub: StubProvider, settings: ProviderSettings) -> None:
    account = await add(pool, org_id, compatible(stub))

    with pytest.raises(InvalidRequest):
        await change(pool, org_id, account.id, settings)


async def test_removing_a_provider_removes_its_credential(
    pool: Pool, org_id: UUID, stub: StubProvider, database: Database
) -> None:
    account = await add(pool, org_id, compatible(stub))
    async with tenant(pool, org_id) as conn:
        await accounts.delete(conn, org_id=org_id, provider_id=account.id)

    assert count(database, f"SELECT count(*) FROM secrets WHERE org_id = '{org_id}'") == (0,)
    async with tenant(pool, org_id) as conn:
        with pytest.raises(NotFound):
            await accounts.get(conn, org_id=org_id, name_or_id="stub")


async def test_verifying_keeps_what_the_provider_lists(
    pool: Pool, org_id: UUID, stub: StubProvider, registry: ProviderRegistry
) -> None:
    account = await registry.verify(org_id, await add(pool, org_id, compatible(stub)))

    assert account.listed_models == list(stub_provider.MODELS)
    assert account.verified_at is not None
    assert account.verification_error is None
    assert stub.received[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_verifying_keeps_why_it_failed_and_the_last_list(
    pool: Pool, org_id: UUID, stub: StubProvider, registry: ProviderRegistry
) -> None:
    account = await registry.verify(org_id, await add(pool, org_id, compatible(stub)))
    async with tenant(pool, org_id) as conn:
        await accounts.set_verified(
            conn, org_id=org_id, account=account, is_verified=False, listed_models=None, error="It is down."
        )
        found = await accounts.get(conn, org_id=org_id, name_or_id="stub")

    assert (found.verified_at, found.verification_error) == (None, "It is down.")
    assert found.listed_models == list(stub_provider.MODELS)


async def test_a_changed_provider_is_not_marked_by_an_older_verification(
    pool: Pool, org_id: UUID, stub: StubProvider, registry: ProviderRegistry
) -> None:
    old = await add(pool, org_id, compatible(stub))
    await change(pool, org_id, old.id, compatible(stub, models=["a"]))
    await registry.verify(org_id, old)

    async with tenant(pool, org_id) as conn:
        found = await accounts.get(conn, org_id=org_id, name_or_id="stub")
    assert (found.verified_at, found.listed_models) == (None, None)


async def test_a_changed_credential_is_used_at_once_where_it_was_changed(
    pool: Pool, org_id: UUID, stub: StubProvider, registry: ProviderRegistry
) -> None:
    account = await add(pool, org_id, compatible(stub))
    await (await registry.provider(org_id, account)).models()
    changed = await change(pool, org_id, account.id, compatible(stub), {"api_key": "sk-new"})
    await (await registry.provider(org_id, changed)).models()

    assert [one.headers["authorization"] for one in stub.received] == [f"Bearer {KEY}", "Bearer sk-new"]


async def test_a_provider_is_made_once_per_state_of_its_row(
    pool: Pool, org_id: UUID, stub: StubProvider, registry: ProviderRegistry
) -> None:
    account = await add(pool, org_id, compatible(stub))

    assert await registry.provider(org_id, account) is await registry.provider(org_id, account)


async def test_a_model_that_nobody_listed_makes_the_providers_be_asked_once_a_minute(
    pool: Pool, org_id: UUID, stub: StubProvider, registry: ProviderRegistry, clock: Clock
) -> None:
    await registry.verify(org_id, await add(pool, org_id, compatible(stub)))
    providers = await registry.snapshot(org_id)
    for _ in range(3):
        with pytest.raises(ModelNotFound):
            await registry.deployment(providers, "pulled")
    assert len(stub.received) == 1
    stub.models = ["pulled"]
    clock.now += 61
    assert (await registry.deployment(providers, "pulled")).name == "stub/pulled"

    assert len(stub.received) == 2


async def test_of_too_many_providers_the_one_asked_longest_ago_is_asked_again(
    pool: Pool, org_id: UUID, stub: StubProvider, registry: ProviderRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonito.providers.registry.MAX_INSTANCES", 1)
    for name in ("first", "second"):
        await registry.verify(org_id, await add(pool, org_id, compatible(stub, name)))
    stub.received.clear()
    with pytest.raises(ModelNotFound):
        await registry.deployment(await registry.snapshot(org_id), "pulled")

    assert len(stub.received) == 1


async def test_auto_embeds_with_the_organizations_own_provider_only(
    pool: Pool, org_id: UUID, other_org_id: UUID, stub: StubProvider, registry: ProviderRegistry
) -> None:
    await registry.verify(org_id, await add(pool, org_id, compatible(stub)))

    model = await registry.embedding_model(org_id, "auto")
    assert model.name == "stub/text-embedding-3-small"
    assert await registry.embedding_model(org_id, "auto") is model
    with pytest.raises(ModelNotFound, match="bonito providers add"):
        await registry.embedding_model(other_org_id, "auto")


async def test_a_providers_limits_hold_for_each_of_its_embedding_models(
    pool: Pool, org_id: UUID, stub: StubProvider, registry: ProviderRegistry
) -> None:
    await add(pool, org_id, compatible(stub, requests_per_minute=1))
    model = await registry.embedding_model(org_id, "stub/one")
    await model.embed(["a"])
    with pytest.raises(Overloaded) as refused:
        await model.embed(["a"])
    await (await registry.embedding_model(org_id, "stub/another")).embed(["a"])

    assert (refused.value.retry_after_s or 0) > 60


async def test_auto_is_the_local_model_where_that_is_registered(
    pool: Pool, org_id: UUID, registry: ProviderRegistry
) -> None:
    account = await registry.verify(org_id, await add(pool, org_id, ProviderSettings("local", "local"), {}))

    assert account.listed_models == ["extractive", "all-minilm-l6-v2"]
    assert (await registry.embedding_model(org_id, "auto")).name == "local/all-minilm-l6-v2"
    with pytest.raises(ModelNotFound):
        await registry.embedding_model(org_id, "local/extractive")


async def test_local_models_are_refused_where_they_are_not_allowed(
    pool: Pool, org_id: UUID, client: EgressClient
) -> None:
    registry = ProviderRegistry(pool, BOX, client)
    account = await registry.verify(org_id, await add(pool, org_id, ProviderSettings("local", "local"), {}))

    assert account.verification_error is not None
    with pytest.raises(BonitoError):
        await registry.embedding_model(org_id, "local/all-minilm-l6-v2")


@pytest.mark.parametrize(
    ("settings", "error", "param"),
    [
        (ProviderSettings("x", "openai_compatible"), InvalidRequest, "base_url"),
        (ProviderSettings("x", "openai_compatible", "http://10.0.0.1/v1"), AddressNotAllowed, None),
        (ProviderSettings("x", "openai_compatible", "ftp://example.com"), AddressNotAllowed, None),
        (ProviderSettings("x", "anthropic"), InvalidRequest, "type"),
        (ProviderSettings("x", "bedrock", region="eu-central-1"), InvalidRequest, "credential"),
        (ProviderSettings("x", "bedrock", "https://aws.example"), InvalidRequest, "base_url"),
        (ProviderSettings("x", "vertex", region="europe-west4"), InvalidRequest, "credential"),
        (ProviderSettings("x", "azure_openai", "https://x.openai.azure.com"), InvalidRequest, "credential"),
        (ProviderSettings("x", "azure_openai", region="westeurope"), InvalidRequest, "region"),
        (ProviderSettings("x", "openai", vendor="openai"), InvalidRequest, "vendor"),
        (ProviderSettings("x", "local"), InvalidRequest, "name"),
        (ProviderSettings("local", "openai"), InvalidRequest, "name"),
        (ProviderSettings("x", "litellm", vendor="nobody"), InvalidRequest, None),
    ],
)
def test_settings_of_which_nothing_can_be_made_are_refused(
    registry: ProviderRegistry, settings: ProviderSettings, error: type[BonitoError], param: str | None
) -> None:
    with pytest.raises(error) as refused:
        registry.check(settings, {})

    if param is not None:
        assert refused.value.param == param


@pytest.mark.parametrize(
    "settings",
    [
        ProviderSettings("openai", "openai"),
        ProviderSettings("proxy", "openai", "https://eu.api.openai.com/v1"),
        ProviderSettings("anthropic", "litellm"),
        ProviderSettings("claude", "litellm", vendor="anthropic"),
    ],
)
def test_settings_of_every_supported_type_are_taken(registry: ProviderRegistry, settings: ProviderSettings) -> None:
    registry.check(settings, {"api_key": "sk-x"})


AWS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG"}


@pytest.mark.parametrize(
    ("settings", "credential", "param"),
    [
        (ProviderSettings("aws", "bedrock"), AWS, "region"),
        (ProviderSettings("aws", "bedrock", region="eu-central-1"), AWS | {"aws_access_key_id": "a b"}, "credential"),
        (ProviderSettings("aws", "bedrock", region="eu-central-1"), AWS | {"role": "x"}, "credential"),
        (ProviderSettings("gcp", "vertex", region="europe-west4"), {"service_account": "{}"}, "credential"),
        (ProviderSettings("az", "azure_openai", models=["embed"]), {"api_key": "x"}, "base_url"),
        (ProviderSettings("az", "azure_openai", "https://x.openai.azure.com"), {"api_key": "x"}, "models"),
    ],
)
def test_what_a_clouds_provider_lacks_is_named(
    registry: ProviderRegistry, settings: ProviderSettings, credential: dict[str, str], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        registry.check(settings, credential)

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("settings", "credential", "host"),
    [
        (ProviderSettings("aws", "bedrock", region="eu-central-1"), AWS, "bedrock.eu-central-1.amazonaws.com"),
        (
            ProviderSettings("aws", "bedrock", region="us-gov-west-1", models=["amazon.titan-embed-text-v2:0"]),
            AWS,
            "bedrock-runtime.us-gov-west-1.amazonaws.com",
        ),
        (
            ProviderSettings("gcp", "vertex", region="europe-west4"),
            {"service_account": key_file()},
            "oauth2.googleapis.com",
        ),
        (
            ProviderSettings("az", "azure_openai", "https://ours.openai.azure.com", models=["embed"]),
            {"api_key": "x"},
            "ours.openai.azure.com",
        ),
    ],
)
async def test_verifying_a_clouds_provider_calls_its_own_host(
    pool: Pool, org_id: UUID, settings: ProviderSettings, credential: dict[str, str], host: str
) -> None:
    asked: list[str] = []

    async def nowhere(name: str) -> list[str]:
        asked.append(name)
        raise OSError("there is no network here")

    async with EgressClient(EgressPolicy(), lookup=nowhere) as client:
        registry = ProviderRegistry(pool, BOX, client)
        account = await registry.verify(org_id, await add(pool, org_id, settings, credential))

    assert asked == [host]
    assert account.verified_at is None
    assert host in (account.verification_error or "")


async def test_an_azure_deployment_embeds_for_its_organization(
    pool: Pool, org_id: UUID, registry: ProviderRegistry, serve: Serve
) -> None:
    url = await serve(Resource().handle)
    settings = ProviderSettings("az", "azure_openai", url, models=["text-embedding-3-small"])
    account = await registry.verify(org_id, await add(pool, org_id, settings, {"api_key": AZURE_KEY}))
    model = await registry.embedding_model(org_id, "auto")

    assert account.verified_at is not None
    assert model.name == "az/text-embedding-3-small"
    assert len((await model.embed(["a"])).vectors[0]) == 1536


async def test_auto_is_never_a_local_model_that_this_process_does_not_serve(
    pool: Pool, org_id: UUID, client: EgressClient, registry: ProviderRegistry
) -> None:
    await registry.verify(org_id, await add(pool, org_id, ProviderSettings("local", "local"), {}))
    await add(pool, org_id, ProviderSettings("openai", "openai"))

    assert (await registry.embedding_model(org_id, "auto")).name == "local/all-minilm-l6-v2"
    server = ProviderRegistry(pool, BOX, client)
    assert (await server.embedding_model(org_id, "auto")).name == "openai/text-embedding-3-small"


async def test_a_litellm_provider_calls_through_its_adapter(
    pool: Pool, org_id: UUID, stub: StubProvider, registry: ProviderRegistry
) -> None:
    settings = ProviderSettings("mine", "litellm", stub.base_url, vendor="openai", models=["gpt-4o"])
    account = await add(pool, org_id, settings)
    provider = await registry.provider(org_id, account)
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
    response = await provider.call(ProviderRequest("chat.completions", body))

    answer = b"".join([piece async for piece in response.chunks()])
    assert b"Twenty days" in answer
    assert await provider.models() == ["gpt-4o"]
