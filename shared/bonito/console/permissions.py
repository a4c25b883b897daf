"""The gate of every route: the permission that it needs and the audit action that it is, declared beside it.

    @router.delete("/{key_id}", status_code=204)
    async def revoke_key(
        key_id: UUID, call: Annotated[Call, requires(Permission.KEYS_MANAGE, audit="key.revoke")]
    ) -> None:
        async with call.transaction() as conn:
            ...

A route without a gate does not start (`routing.ApiRoute`), and one that changes something names its audit action.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials

from bonito.console import authentication
from bonito.console.services import Services
from bonito.database.pool import Connection, tenant
from bonito.tenancy.permissions import Permission, require
from bonito.tenancy.tokens import Principal

MAX_JSON_BYTES = 2**20
MAX_TARGET_CHARACTERS = 500


@dataclass
class AuditNote:
    """What the audit log will tell of this call; the route adds to it while it works. Never a secret."""

    action: str
    target: str
    org_id: UUID | None = None
    actor: str = "anonymous"
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenCall:
    """A call that needs no token: what the route works with."""

    services: Services
    request_id: str
    audit: AuditNote | None

    def note(self, target: str, **details: object) -> None:
        """Tell the audit log what was changed: `key:<id>` and plain JSON values, no secret among them."""
        assert self.audit is not None, "a route that notes a change declares its audit action"  # noqa: S101
        self.audit.target = target
        self.audit.details.update(details)

    def identify(self, org_id: UUID, actor: str) -> None:
        """Tell the audit log whose call it turned out to be."""
        assert self.audit is not None, "a route that notes a change declares its audit action"  # noqa: S101
        self.audit.org_id, self.audit.actor = org_id, actor


@dataclass(frozen=True)
class Call(OpenCall):
    """A call of a known person with the permission that the route declares."""

    principal: Principal

    @property
    def org_id(self) -> UUID:
        """The organization that the call is about; the only one that its transactions see."""
        return self.principal.org_id

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        """One short transaction of the caller's organization."""
        return tenant(self.services.pool, self.org_id)


@dataclass(frozen=True)
class OpenGate:
    """Lets everyone through; only for what is listed in the tests as open."""

    audit: str | None = None
    max_body_bytes: int = MAX_JSON_BYTES

    async def open(self, request: Request) -> OpenCall:
        """Make the route's call, before its body is read."""
        note = self._note(request)
        return OpenCall(request.app.state.services, request.state.request_id, note)

    async def __call__(self, request: Request) -> OpenCall:
        """The dependency: what `open` made."""
        call = request.state.call
        assert isinstance(call, OpenCall)  # noqa: S101 - ApiRoute opened the gate
        return call

    def _note(self, request: Request) -> AuditNote | None:
        if self.audit is None:
            return None
        request.state.audit = AuditNote(action=self.audit, target=_path_of(request))
        return request.state.audit  # type: ignore[no-any-return]  # a state's attributes are untyped


@dataclass(frozen=True)
class Gate:
    """Lets holders of a personal token through whose role has the permission."""

    permission: Permission
    audit: str | None = None
    max_body_bytes: int = MAX_JSON_BYTES

    async def open(self, request: Request) -> Call:
        """Authenticate and authorize, before the body is read; AuthenticationFailed, PermissionDenied."""
        services: Services = request.app.state.services
        principal = await authentication.principal(request, services.pool)
        note = None
        if self.audit is not None:
            note = AuditNote(self.audit, _path_of(request), principal.org_id, f"user:{principal.user_id}")
            note.details["token_id"] = str(principal.token_id)
            request.state.audit = note
        require(principal.role, self.permission)
        return Call(services, request.state.request_id, note, principal)

    async def __call__(
        self,
        request: Request,
        _described: Annotated[HTTPAuthorizationCredentials | None, Security(authentication.BEARER)],
    ) -> Call:
        """The dependency: what `open` made."""
        call = request.state.call
        assert isinstance(call, Call)  # noqa: S101 - ApiRoute opened the gate
        return call


def _path_of(request: Request) -> str:
    """What a refused change was about, as far as it was told; Postgres keeps no NUL character."""
    return request.url.path[:MAX_TARGET_CHARACTERS].replace("\0", "\ufffd")


def requires(permission: Permission, *, audit: str | None = None, max_body_bytes: int = MAX_JSON_BYTES) -> Any:  # noqa: ANN401 - what Depends answers
    """Declare what a route needs; `audit` names the change that it makes, `max_body_bytes` bounds its body."""
    return Depends(Gate(permission, audit, max_body_bytes))


def open_to_all(*, audit: str | None = None, max_body_bytes: int = MAX_JSON_BYTES) -> Any:  # noqa: ANN401 - what Depends answers
    """Declare that a route needs no token; the tests list these."""
    return Depends(OpenGate(audit, max_body_bytes))
