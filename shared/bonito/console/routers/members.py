"""/api/members: the people of the organization and their roles."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel

from bonito.console.fields import Body
from bonito.console.pagination import DEFAULT_LIMIT, Limit, Page, TimeCursor, cursor_of, page_of, place_of
from bonito.console.permissions import Call, requires
from bonito.console.problems import responses
from bonito.console.routing import api_router
from bonito.tenancy import members
from bonito.tenancy.permissions import Permission, Role

router = api_router("/members", "members")


class Member(BaseModel):
    """A person with a role."""

    user_id: UUID
    email: str
    name: str
    role: Role
    created_at: datetime


class NewRole(Body):
    """The role that a member gets."""

    role: Role


@router.get("")
async def list_members(
    call: Annotated[Call, requires(Permission.MEMBERS_READ)], limit: Limit = DEFAULT_LIMIT, cursor: TimeCursor = None
) -> Page[Member]:
    """All members, the first to join first."""
    async with call.transaction() as conn:
        rows = await members.list_page(conn, org_id=call.org_id, limit=limit + 1, after=place_of(cursor))
    return page_of(rows, limit=limit, show=_shown, cursor=lambda row: cursor_of(row.created_at, row.user_id))


@router.patch("/{user_id}", responses=responses(409))
async def set_member_role(
    user_id: UUID, body: NewRole, call: Annotated[Call, requires(Permission.MEMBERS_MANAGE, audit="member.set_role")]
) -> Member:
    """Give a member another role; only an owner makes or changes an owner, and the last owner stays one."""
    async with call.transaction() as conn:
        changed = await members.set_role(
            conn, org_id=call.org_id, user_id=user_id, role=body.role, by=call.principal.role
        )
    call.note(f"user:{user_id}", role=changed.role)
    return _shown(changed)


@router.delete("/{user_id}", status_code=204, responses=responses(409))
async def remove_member(
    user_id: UUID, call: Annotated[Call, requires(Permission.MEMBERS_MANAGE, audit="member.remove")]
) -> None:
    """Take a member out, with all of the member's personal tokens and open invites."""
    async with call.transaction() as conn:
        await members.remove(conn, org_id=call.org_id, user_id=user_id, by=call.principal.role)
    call.note(f"user:{user_id}")


def _shown(member: members.Member) -> Member:
    return Member.model_validate(member, from_attributes=True)
