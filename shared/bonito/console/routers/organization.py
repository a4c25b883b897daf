"""GET /api/organization."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel

from bonito.console.permissions import Call, requires
from bonito.console.routing import api_router
from bonito.tenancy import organizations
from bonito.tenancy.permissions import Permission, Role

router = api_router("/organization", "organization")


class Organization(BaseModel):
    """The caller's organization, and what the caller is in it."""

    id: UUID
    name: str
    role: Role
    created_at: datetime


@router.get("")
async def get_organization(call: Annotated[Call, requires(Permission.ORGANIZATION_READ)]) -> Organization:
    """The organization that the token acts in."""
    async with call.transaction() as conn:
        found = await organizations.get(conn, org_id=call.org_id)
    return Organization(id=found.id, name=found.name, role=call.principal.role, created_at=found.created_at)
