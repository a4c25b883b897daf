"""/api/invites: how people join the organization."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

from pydantic import BaseModel, Field, StringConstraints

from bonito.console.fields import Body, Email, Whole
from bonito.console.pagination import DEFAULT_LIMIT, Limit, Page, TimeCursor, cursor_of, page_of, place_of
from bonito.console.permissions import Call, OpenCall, open_to_all, requires
from bonito.console.problems import responses
from bonito.console.routing import api_router
from bonito.tenancy import credentials, invites
from bonito.tenancy.permissions import Permission, Role

router = api_router("/invites", "invites")


class NewInvite(Body):
    """Whom to invite."""

    email: Email
    role: Role = Role.MEMBER
    expires_in_hours: Whole = Field(default=24 * 7, ge=1, le=24 * 30)


class Invite(BaseModel):
    """An invite, without its token."""

    id: UUID
    email: str
    role: Role
    invited_by: UUID | None = Field(description="The member who invited.")
    expires_at: datetime
    accepted_at: datetime | None
    created_at: datetime


class CreatedInvite(Invite):
    """A new invite with its token."""

    token: str = Field(description="For the invited person alone; shown this once.")


class Acceptance(Body):
    """What the invited person sends."""

    token: str = Field(max_length=500, description="The invite's token, `bi-…`.")
    email: Email = Field(description="The email that was invited.")
    name: Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


class Joined(BaseModel):
    """A new membership with its first personal token."""

    organization_id: UUID
    user_id: UUID
    role: Role
    personal_token: str = Field(description="The first personal token, shown this once.")


@router.post("", status_code=201, responses=responses(409))
async def create_invite(
    body: NewInvite, call: Annotated[Call, requires(Permission.INVITES_MANAGE, audit="invite.create")]
) -> CreatedInvite:
    """Invite somebody, at most to one's own role; an earlier open invite for the same email is withdrawn."""
    async with call.transaction() as conn:
        created, token = await invites.create(
            conn,
            org_id=call.org_id,
            invite_id=uuid4(),
            email=body.email,
            role=body.role,
            signing_key=call.services.secret_box.signing_keys(invites.SIGNING_PURPOSE)[0],
            by=call.principal.role,
            invited_by=call.principal.user_id,
            lifetime=timedelta(hours=body.expires_in_hours),
        )
    call.note(f"invite:{created.id}", email=created.email, role=created.role)
    return CreatedInvite(**_shown(created).model_dump(), token=token)


@router.get("")
async def list_invites(
    call: Annotated[Call, requires(Permission.INVITES_MANAGE)], limit: Limit = DEFAULT_LIMIT, cursor: TimeCursor = None
) -> Page[Invite]:
    """All invites that were not withdrawn, the oldest first."""
    async with call.transaction() as conn:
        rows = await invites.list_page(conn, org_id=call.org_id, limit=limit + 1, after=place_of(cursor))
    return page_of(rows, limit=limit, show=_shown, cursor=lambda row: cursor_of(row.created_at, row.id))


@router.delete("/{invite_id:uuid}", status_code=204)
async def withdraw_invite(
    invite_id: UUID, call: Annotated[Call, requires(Permission.INVITES_MANAGE, audit="invite.withdraw")]
) -> None:
    """Withdraw an invite that nobody has accepted."""
    async with call.transaction() as conn:
        email = await invites.delete(conn, org_id=call.org_id, invite_id=invite_id)
    call.note(f"invite:{invite_id}", email=email)


@router.post("/accept", status_code=201, responses=responses(404, 409))
async def accept_invite(body: Acceptance, call: Annotated[OpenCall, open_to_all(audit="invite.accept")]) -> Joined:
    """Join through an invite; its signature is the authority, so no token is needed."""
    credential = credentials.mint("bp-", secrets.token_bytes(credentials.ENTROPY_BYTES))
    joined = await invites.accept(
        call.services.pool,
        token=body.token,
        signing_keys=call.services.secret_box.signing_keys(invites.SIGNING_PURPOSE),
        email=body.email,
        name=body.name,
        user_id=uuid4(),
        token_id=uuid4(),
        credential=credential,
    )
    call.identify(joined.org_id, f"user:{joined.user_id}")
    call.note(f"user:{joined.user_id}", role=joined.role)
    return Joined(
        organization_id=joined.org_id, user_id=joined.user_id, role=joined.role, personal_token=credential.text
    )


def _shown(invite: invites.Invite) -> Invite:
    return Invite.model_validate(invite, from_attributes=True)
