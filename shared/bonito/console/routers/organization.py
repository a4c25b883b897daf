"""GET /api/organization."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from bonito.console.permissions import Call, requires
from bonito.console.routing import api_router
from bonito.knowledge import limits
from bonito.tenancy import organizations
from bonito.tenancy.permissions import Permission, Role
from bonito.tenancy.tiers import TIERS, Tier

router = api_router("/organization", "organization")


class Limits(BaseModel):
    """What the tier allows; null is without a limit."""

    knowledge_bases: int | None
    documents: int | None = Field(description="In all knowledge bases together; those in an error do not count.")
    chunks: int | None
    schedules: bool = Field(description="Whether a source may be synced by the clock.")
    webhooks: bool = Field(description="Whether a source may be synced by a webhook.")
    custom_embedding_models: bool = Field(description="Whether a knowledge base may name its embedding model.")


class Usage(BaseModel):
    """What there is of what tiers limit: what is served, and what is being read."""

    knowledge_bases: int
    documents: int
    chunks: int


class Organization(BaseModel):
    """The caller's organization, and what the caller is in it."""

    id: UUID
    name: str
    role: Role
    tier: Tier
    limits: Limits
    usage: Usage
    created_at: datetime


@router.get("")
async def get_organization(call: Annotated[Call, requires(Permission.ORGANIZATION_READ)]) -> Organization:
    """The organization that the token acts in."""
    async with call.transaction() as conn:
        found = await organizations.get(conn, org_id=call.org_id)
        used = await limits.usage(conn, org_id=call.org_id)
    return Organization(
        id=found.id,
        name=found.name,
        role=call.principal.role,
        tier=found.tier,
        limits=Limits.model_validate(TIERS[found.tier], from_attributes=True),
        usage=Usage.model_validate(used, from_attributes=True),
        created_at=found.created_at,
    )
