"""A cloud's HTTP interface on loopback: it answers what the test says, and keeps what it was asked."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from bonito.clouds.identity import Issuer, LocalSigner

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ISSUER_URL = "https://bonito.example.com"
ORGANIZATION = "6f1e1f0e-8a3c-4f0b-9b1e-0d5f3f1f2a10"


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), strict_parsing=True))

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


Play = Callable[[Asked], web.Response | Awaitable[web.Response]]


@dataclass
class Cloud:
    """A running server."""

    url: str
    asked: list[Asked] = field(default_factory=list)


@asynccontextmanager
async def playing(play: Play) -> AsyncIterator[Cloud]:
    """Serve until the block ends."""

    async def handle(request: web.Request) -> web.Response:
        asked = Asked(request.method, request.path_qs, request.headers, await request.read())
        cloud.asked.append(asked)
        answer = play(asked)
        return answer if isinstance(answer, web.Response) else await answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    cloud = Cloud(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield cloud
    finally:
        await runner.cleanup()


def issuer() -> Issuer:
    return Issuer(ISSUER_URL, [LocalSigner(KEY)])


def claims_of(token: str, jwks: Mapping[str, Any]) -> dict[str, Any]:
    """What a token says, after its signature was checked with the published keys as RFC 7515 and 7517 describe them."""
    head, body, signature = token.split(".")
    header = json.loads(decoded(head))
    assert header["alg"] == "RS256"
    (jwk,) = [key for key in jwks["keys"] if key["kid"] == header["kid"]]
    number = {name: int.from_bytes(decoded(jwk[name]), "big") for name in ("n", "e")}
    public = rsa.RSAPublicNumbers(number["e"], number["n"]).public_key()
    public.verify(decoded(signature), f"{head}.{body}".encode(), PKCS1v15(), SHA256())
    claims: dict[str, Any] = json.loads(decoded(body))
    return claims


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
