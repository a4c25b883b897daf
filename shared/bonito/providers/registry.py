"""Makes an organization's providers and embedding models callable, and keeps what was made between requests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from bonito.database.pool import Pool, tenant
from bonito.database.snapshots import Snapshots
from bonito.errors import BonitoError, ModelNotFound
from bonito.providers import accounts, construction, deployments
from bonito.providers.accounts import ProviderAccount, ProviderSettings
from bonito.providers.base import Embedder, EmbeddingModel, Provider
from bonito.providers.construction import LOCAL
from bonito.providers.deployments import AUTO, Deployment
from bonito.providers.turns import PacedEmbeddingModel, RateLimits, Turns
from bonito.tenancy.secrets import SecretBox

if TYPE_CHECKING:
    from bonito.egress.client import EgressClient

ASKABLE_TYPES = ("openai", "openai_compatible")  # their lists change, and are theirs to tell at any time
MAX_INSTANCES = 10_000
LISTING_MAX_AGE_S = 60.0
LISTING_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class OrganizationProviders:
    """One organization's providers as they were a moment ago; a request sees one snapshot from end to end."""

    org_id: UUID
    accounts: tuple[ProviderAccount, ...]


@dataclass(frozen=True)
class _Instance:
    """What was made of a row, and of which state of it."""

    updated_at: datetime
    provider: Provider


class ProviderRegistry:
    """EmbeddingModels and the gateway's providers, of any organization, each under its own credentials alone (I17)."""

    def __init__(
        self,
        pool: Pool,
        box: SecretBox,
        client: EgressClient,
        *,
        local_embedding: EmbeddingModel | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make nothing yet.

        Args:
            pool: of the runtime's role.
            box: opens the credentials.
            client: the guard that all requests go through.
            local_embedding: of a process that may embed and answer itself (`bonito up`); None refuses `local`.
            clock: seconds, never going back.
        """
        self._pool, self._box, self._client, self._clock = pool, box, client, clock
        self._local_embedding = local_embedding
        self._snapshots: Snapshots[UUID, OrganizationProviders] = Snapshots(self._load, clock=clock)
        self._instances: dict[tuple[UUID, UUID], _Instance] = {}
        self._embeddings: dict[tuple[UUID, UUID, str], tuple[datetime, EmbeddingModel]] = {}
        self._listed_at: dict[tuple[UUID, UUID], float] = {}

    async def snapshot(self, org_id: UUID) -> OrganizationProviders:
        """The organization's providers, at most ten seconds old."""
        found = await self._snapshots.get(org_id)
        return found or OrganizationProviders(org_id, ())

    def forget(self, org_id: UUID) -> None:
        """Read the organization's providers anew: for the process that has just changed them."""
        self._snapshots.forget(org_id)

    async def deployment(self, providers: OrganizationProviders, name: str) -> Deployment:
        """Whom a model's name means; where no provider is known to have it, they are asked what they have by now.

        Raises:
            ModelNotFound, InvalidRequest: as `deployments.resolve`.
        """
        try:
            return deployments.resolve(providers.accounts, name)
        except ModelNotFound:
            fresh = await self.with_fresh_listings(providers)
            if fresh is providers:
                raise
            return deployments.resolve(fresh.accounts, name)

    async def provider(self, org_id: UUID, account: ProviderAccount) -> Provider:
        """What calls this provider; made once per state of its row.

        Raises:
            InvalidRequest, AddressNotAllowed: nothing callable can be made of the row here.
            UnreadableSecret: its credential does not open.
        """
        key = (org_id, account.id)
        instance = self._instances.get(key)
        if instance is None or instance.updated_at != account.updated_at:
            async with tenant(self._pool, org_id) as conn:
                credential = await accounts.open_credential(conn, self._box, org_id=org_id, account=account)
            instance = _Instance(account.updated_at, self._make(_settings_of(account), credential))
            self._instances.pop(key, None)
            self._instances[key] = instance
            if len(self._instances) > MAX_INSTANCES:
                del self._instances[next(iter(self._instances))]
        return instance.provider

    async def embedding_model(self, org_id: UUID, name: str) -> EmbeddingModel:
        """The model of that name, or for `auto` the organization's cheapest known one; ModelNotFound."""
        providers = await self.snapshot(org_id)
        if name == AUTO:
            deployment = deployments.choose_embedding(
                [account for account in providers.accounts if account.type != LOCAL or self._local_embedding]
            )
        else:
            deployment = await self.deployment(providers, name)
        key = (org_id, deployment.account.id, deployment.model)
        updated_at, model = self._embeddings.get(key, (None, None))
        if model is None or updated_at != deployment.account.updated_at:
            model = await self._make_embedding(org_id, deployment)
            self._embeddings[key] = (deployment.account.updated_at, model)
            if len(self._embeddings) > MAX_INSTANCES:
                del self._embeddings[next(iter(self._embeddings))]
        return model

    def check(self, settings: ProviderSettings, credential: Mapping[str, str]) -> None:
        """Refuse settings of which no provider can be made here; nothing is called.

        Raises:
            InvalidRequest: a type that is not supported, or a field that is missing or wrong.
            AddressNotAllowed: the base URL is not one that requests may go to.
        """
        self._make(settings, credential)

    async def verify(self, org_id: UUID, account: ProviderAccount) -> ProviderAccount:
        """Call the provider for its models, and keep what it told: the list, or why it refused.

        LiteLLM lists what it knows of a vendor without asking anybody, which proves nothing about the credential: such
        a provider gets its list and stays unverified.
        """
        listed, problem = None, None
        self._asked((org_id, account.id))
        try:
            provider = await self.provider(org_id, account)
            listed = await provider.models()
        except BonitoError as error:
            problem = error.message
        async with tenant(self._pool, org_id) as conn:
            kept = await accounts.set_verified(
                conn,
                org_id=org_id,
                account=account,
                is_verified=problem is None and account.type != "litellm",
                listed_models=listed,
                error=problem,
            )
        self.forget(org_id)
        return kept or account

    async def with_fresh_listings(self, providers: OrganizationProviders) -> OrganizationProviders:
        """The same providers after asking those what they have whose answer is older than a minute.

        The same object comes back where there was nobody to ask. A provider that does not answer keeps its last list.
        """
        org_id, now = providers.org_id, self._clock()
        stale = [
            account
            for account in providers.accounts
            if account.models is None
            and account.type in ASKABLE_TYPES
            and self._listed_at.get((org_id, account.id), -LISTING_MAX_AGE_S) <= now - LISTING_MAX_AGE_S
        ]
        if not stale:
            return providers
        for account in stale:  # nobody else asks them meanwhile
            self._asked((org_id, account.id))
        await asyncio.gather(*(self._listed_again(org_id, account) for account in stale))
        return await self.snapshot(org_id)

    def _asked(self, key: tuple[UUID, UUID]) -> None:
        """A provider is asked for its models at this moment; of too many, the longest ago is forgotten."""
        self._listed_at.pop(key, None)
        self._listed_at[key] = self._clock()
        if len(self._listed_at) > MAX_INSTANCES:
            del self._listed_at[next(iter(self._listed_at))]

    async def _listed_again(self, org_id: UUID, account: ProviderAccount) -> None:
        """Ask a provider what it has; one that is too slow keeps its last list."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTING_TIMEOUT_S):
                await self.verify(org_id, account)

    async def _load(self, org_id: UUID) -> OrganizationProviders:
        async with tenant(self._pool, org_id) as conn:
            rows = await accounts.list_all(conn, org_id=org_id)
        return OrganizationProviders(org_id, tuple(rows))

    async def _make_embedding(self, org_id: UUID, deployment: Deployment) -> EmbeddingModel:
        if deployment.account.type == LOCAL:
            return self._local_model(deployment)
        provider = await self.provider(org_id, deployment.account)
        if isinstance(provider, Embedder):
            model = provider.embedding_model(deployment.model)
        else:
            model = self._in_openais_dialect(provider, deployment)
        account = deployment.account
        limits = RateLimits(account.requests_per_minute, account.tokens_per_minute)
        turns = Turns(self._pool, org_id=org_id, provider_id=account.id, model=deployment.model, limits=limits)
        return PacedEmbeddingModel(model, turns)

    def _in_openais_dialect(self, provider: Provider, deployment: Deployment) -> EmbeddingModel:
        from bonito.providers.litellm_adapter import LiteLLMProvider
        from bonito.providers.openai_http import OpenAIEmbeddingModel, OpenAIProvider

        if not isinstance(provider, OpenAIProvider | LiteLLMProvider):
            raise ModelNotFound(f"{deployment.name} cannot embed.", param="embedding_model")
        facts = deployment.facts
        return OpenAIEmbeddingModel(
            provider,
            deployment.model,
            max_input_tokens=facts.max_input_tokens,
            price_nano_usd=facts.price_nano_usd,
        )

    def _local_model(self, deployment: Deployment) -> EmbeddingModel:
        if self._local_embedding is None:
            raise ModelNotFound(f"{deployment.name} is not served by this process.", param="embedding_model")
        if deployment.name != self._local_embedding.name:
            raise ModelNotFound(f"{deployment.name} embeds nothing.", param="embedding_model")
        return self._local_embedding

    def _make(self, settings: ProviderSettings, credential: Mapping[str, str]) -> Provider:
        return construction.make(self._client, settings, credential, local_embedding=self._local_embedding)


def _settings_of(account: ProviderAccount) -> ProviderSettings:
    return ProviderSettings(
        name=account.name,
        type=account.type,
        base_url=account.base_url,
        region=account.region,
        vendor=account.vendor,
        models=account.models,
    )
