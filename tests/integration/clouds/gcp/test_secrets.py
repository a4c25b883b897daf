"""Secret Manager's values and refusals, over HTTP."""

from __future__ import annotations

import base64

import google_crc32c
import pytest

from bonito.clouds.gcp.secrets import SecretManager
from bonito.errors import AccessDenied, InvalidRequest, NotFound, UpstreamError
from tests.emulators.google import Answer, Google, StaticAccess, answering

NAME = "projects/acme-1/secrets/openai_key"


def holding(value: bytes, *, checksum: int | None = None) -> Answer:
    found = google_crc32c.value(value) if checksum is None else checksum  # type: ignore[no-untyped-call]
    payload = {"data": base64.b64encode(value).decode(), "dataCrc32c": str(found)}
    return answering({"name": f"{NAME}/versions/3", "payload": payload})


def refusing(status: int, word: str) -> Answer:
    from aiohttp import web

    body = {"error": {"code": status, "message": f"Permission on {NAME}", "status": word}}
    return lambda request: web.json_response(body, status=status)


@pytest.fixture
def secrets(server: Google) -> SecretManager:
    return SecretManager(access=StaticAccess(), endpoint_url=server.url)


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        (NAME, f"/v1/{NAME}/versions/latest:access"),
        (f"{NAME}/versions/7", f"/v1/{NAME}/versions/7:access"),
        (
            "projects/p/locations/europe-west3/secrets/s",
            "/v1/projects/p/locations/europe-west3/secrets/s/versions/latest:access",
        ),
    ],
)
async def test_a_reference_is_read(server: Google, secrets: SecretManager, reference: str, path: str) -> None:
    server.says(holding("schlüssel".encode()))

    assert await secrets.read(reference) == "schlüssel"
    request, _ = server.received[0]
    assert request.path == path
    assert request.headers["authorization"] == "Bearer token-of-the-connection"


@pytest.mark.parametrize(
    "reference", ["", "openai_key", f"{NAME}/versions/7/..", f"{NAME}?x=1", "projects/p/secrets/a b"]
)
async def test_what_is_no_reference_is_refused_unasked(server: Google, secrets: SecretManager, reference: str) -> None:
    with pytest.raises(InvalidRequest):
        await secrets.read(reference)
    assert server.received == []


@pytest.mark.parametrize(
    ("answer", "expected", "sentence"),
    [
        (refusing(404, "NOT_FOUND"), NotFound, "no such secret"),
        (refusing(403, "PERMISSION_DENIED"), AccessDenied, "secretmanager.versions.access"),
        (refusing(400, "FAILED_PRECONDITION"), AccessDenied, "disabled or destroyed"),
        (refusing(503, "UNAVAILABLE"), UpstreamError, "out of order"),
        (holding(b"value", checksum=1), UpstreamError, "damaged"),
        (holding(b"\xff"), UpstreamError, "no text"),
        (answering({}), UpstreamError, "no text"),
    ],
)
async def test_every_refusal_has_its_own_sentence(
    server: Google, secrets: SecretManager, answer: Answer, expected: type[Exception], sentence: str
) -> None:
    server.says(answer)

    with pytest.raises(expected, match=sentence) as refused:
        await secrets.read(NAME)
    assert NAME not in str(refused.value)
