"""What the gateway knows of one organization while it serves a request of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from bonito.providers.registry import OrganizationProviders, ProviderRegistry


@dataclass(frozen=True)
class GatewayConfig:
    """An immutable snapshot of one organization, at most ten seconds old: one request sees one from end to end."""

    providers: OrganizationProviders

    @property
    def org_id(self) -> UUID:
        """Whose it is."""
        return self.providers.org_id


class GatewayConfigs(Protocol):
    """Finds the snapshot: from Postgres here, from the control plane in a customer's own network."""

    async def config(self, org_id: UUID) -> GatewayConfig:
        """The organization's snapshot, from memory or read now."""
        ...


class StoredConfigs:
    """GatewayConfigs from Postgres."""

    def __init__(self, registry: ProviderRegistry) -> None:
        self._registry = registry

    async def config(self, org_id: UUID) -> GatewayConfig:
        return GatewayConfig(await self._registry.snapshot(org_id))
