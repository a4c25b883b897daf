"""/.well-known: by which customers' clouds know this deployment's tokens (docs/decisions/0007)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from bonito.clouds.identity import DISCOVERY_PATH, JWKS_PATH, Issuer
from bonito.console.permissions import OpenCall, open_to_all
from bonito.console.problems import responses
from bonito.console.routing import ApiRoute
from bonito.errors import NotFound

router = APIRouter(tags=["identity"], route_class=ApiRoute, redirect_slashes=False)

# The clouds ask again whenever they need a key that they have not seen.
CACHE = "public, max-age=3600"


class Discovery(BaseModel):
    """OpenID Connect Discovery 1.0, for an issuer that only vouches for machines."""

    issuer: str
    jwks_uri: str
    response_types_supported: list[str]
    subject_types_supported: list[str]
    id_token_signing_alg_values_supported: list[str]
    scopes_supported: list[str]
    claims_supported: list[str]


class Jwk(BaseModel):
    """A public RSA key (RFC 7517)."""

    kty: str
    use: str
    alg: str
    kid: str
    n: str
    e: str


class Jwks(BaseModel):
    """The keys that sign, the newest first."""

    keys: list[Jwk] = Field(description="Public halves alone.")


@router.get(DISCOVERY_PATH, operation_id="get_openid_configuration", responses=responses(404))
async def get_openid_configuration(call: Annotated[OpenCall, open_to_all()], response: Response) -> Discovery:
    """Who issues this deployment's tokens, and where the keys are that verify them."""
    response.headers["cache-control"] = CACHE
    return Discovery(**_issuer(call).discovery())


@router.get(JWKS_PATH, operation_id="get_jwks", responses=responses(404, 502))
async def get_jwks(call: Annotated[OpenCall, open_to_all()], response: Response) -> Jwks:
    """The public keys that verify this deployment's tokens."""
    response.headers["cache-control"] = CACHE
    return Jwks(**await _issuer(call).jwks())


def _issuer(call: OpenCall) -> Issuer:
    issuer = call.services.accesses.issuer
    if issuer is None:
        raise NotFound("This deployment issues no tokens: BONITO_PUBLIC_URL or the key that signs is not set.")
    return issuer
