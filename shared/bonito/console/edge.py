"""What surrounds every call of /api: its id, the audit row of a change, security headers, and the last resort."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from uuid import UUID, uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bonito.console.permissions import AuditNote
from bonito.console.problems import as_bonito_error, render
from bonito.console.services import Services
from bonito.tenancy import audit

logger = logging.getLogger(__name__)

WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# A body that was not understood attempted nothing, so it is no news for the audit log.
NOT_UNDERSTOOD = frozenset({400, 401, 405, 413, 415, 422})

SECURITY_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Edge:
    """The outermost middleware.

    The answer to a change is held until its audit row is committed, in a transaction of its own: so the row neither
    vanishes with a change that was rolled back, nor holds up one that was not. Where the row cannot be written, the
    answer is a 5xx, though the change may stand: a change without a trace must not look like success.
    """

    def __init__(self, app: ASGIApp, services: Services, new_id: Callable[[], UUID] = uuid4) -> None:
        self._app, self._services, self._new_id = app, services, new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get("x-request-id", "")
        request_id = sent_id if WELL_FORMED_ID.fullmatch(sent_id) else self._new_id().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start" and not started:
                await self._record(state.pop("audit", None), message["status"], request_id)
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if started:
                raise
            await render(request_id, as_bonito_error(error, request_id))(scope, receive, send_with_headers)

    async def _record(self, note: AuditNote | None, status: int, request_id: str) -> None:
        if note is None or note.org_id is None or status in NOT_UNDERSTOOD:
            return
        outcome = "succeeded" if status < 400 else "refused" if status < 500 else "failed"
        entry = audit.Entry(
            actor=note.actor,
            action=note.action,
            target=note.target,
            details=note.details | {"outcome": outcome, "status": status},
            request_id=request_id,
        )
        await audit.append(self._services.pool, note.org_id, entry)
