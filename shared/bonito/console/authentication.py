"""Who calls: the personal token in the Authorization header."""

from __future__ import annotations

from fastapi import Request
from fastapi.security import HTTPBearer

from bonito.database.pool import Pool
from bonito.errors import AuthenticationFailed
from bonito.tenancy import tokens

# Describes the header in OpenAPI; `principal` reads it.
BEARER = HTTPBearer(
    scheme_name="personal token",
    description="A personal token, `bp-…`: `POST /api/tokens` makes one.",
    auto_error=False,
)


async def principal(request: Request, pool: Pool) -> tokens.Principal:
    """The holder of the presented token; AuthenticationFailed."""
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise AuthenticationFailed("A personal token is needed: `Authorization: Bearer bp-…`.")
    return await tokens.authenticate(pool, presented.strip())
