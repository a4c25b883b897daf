"""One call of a cloud's own HTTP interface, for the few that need no SDK: tokens, sessions, signatures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from bonito.errors import Overloaded, UpstreamError

TIMEOUT_S = 20.0
MAX_ANSWER_BYTES = 2**20
FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """What a service said, whether it did what was asked or refused."""

    status: int
    body: bytes

    @property
    def is_refusal(self) -> bool:
        """Whether the service did not do what was asked."""
        return self.status >= 400

    def json(self) -> Mapping[str, Any]:
        """The body's object; {} where it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


async def post(url: str, *, service: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """POST to an address that Bonito itself chose, and take the whole answer.

    Args:
        url: nothing in it is a customer's but what was checked to be a plain name.
        service: what a person calls it; stands in errors.
        headers: sent as they are.
        body: sent as it is.

    Raises:
        Overloaded: the service has no room now (429).
        UpstreamError: it does not answer, or fails.
    """
    return await call("POST", url, service=service, headers=headers, body=body)


async def call(method: str, url: str, *, service: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
    """As `post`, with any method."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.request(method, url, headers=dict(headers), data=body, allow_redirects=False) as response,
        ):
            answer = Answer(response.status, await response.content.read(MAX_ANSWER_BYTES))
            pause = response.headers.get("retry-after", "")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UpstreamError(f"{service} does not answer.") from error
    if answer.status == 429:
        raise Overloaded(f"{service} asks for a pause.", retry_after_s=float(pause) if pause.isdecimal() else None)
    if answer.status >= 500 or 300 <= answer.status < 400:
        raise UpstreamError(f"{service} failed ({answer.status}).")
    return answer


def form(**fields: str) -> bytes:
    """A body of `application/x-www-form-urlencoded`."""
    return urlencode(fields).encode()


def json_body(**fields: object) -> bytes:
    """A body of `application/json`."""
    return json.dumps(fields).encode()
