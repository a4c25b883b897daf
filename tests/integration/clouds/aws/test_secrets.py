"""Secrets Manager, as moto plays it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from bonito.clouds.aws.clients import open_client
from bonito.clouds.aws.secrets import SecretsManager
from bonito.errors import AccessDenied, BonitoError, InvalidRequest, NotFound, Overloaded, UpstreamError
from tests.emulators.moto import REGION, StaticAccess


@pytest.fixture
async def manager(aws_url: str) -> AsyncIterator[Any]:
    opening = open_client("secretsmanager", access=StaticAccess(), region=REGION, endpoint_url=aws_url)
    async with opening as client:
        yield client


@pytest.fixture
def secrets(aws_url: str) -> SecretsManager:
    return SecretsManager(access=None, endpoint_url=aws_url)


async def test_a_secret_is_read_by_name_and_by_arn(manager: Any, secrets: SecretsManager) -> None:
    made = await manager.create_secret(Name="bonito/key", SecretString="s3cret")

    assert await secrets.read("bonito/key") == "s3cret"
    assert await secrets.read(made["ARN"]) == "s3cret"
    await manager.put_secret_value(SecretId="bonito/key", SecretString="rotated")
    assert await secrets.read("bonito/key") == "rotated"


async def test_what_is_no_secret_is_said(manager: Any, secrets: SecretsManager) -> None:
    await manager.create_secret(Name="bonito/binary", SecretBinary=b"\x00\x01")
    await manager.create_secret(Name="bonito/deleted", SecretString="x")
    await manager.delete_secret(SecretId="bonito/deleted")

    for reference in ("bonito/none", "bonito/deleted"):
        with pytest.raises(NotFound):
            await secrets.read(reference)
    with pytest.raises(UpstreamError, match="no text"):
        await secrets.read("bonito/binary")
    for reference in ("", "arn:aws:s3:::bucket"):
        with pytest.raises(InvalidRequest):
            await secrets.read(reference)


@pytest.mark.parametrize(
    ("status", "code", "message", "error", "says"),
    [
        (400, "AccessDeniedException", "no identity-based policy", AccessDenied, "secretsmanager:GetSecretValue"),
        (400, "AccessDeniedException", "Access to KMS is not allowed", AccessDenied, "kms:Decrypt"),
        (400, "DecryptionFailure", "", AccessDenied, "kms:Decrypt"),
        (400, "UnrecognizedClientException", "", AccessDenied, "credentials"),
        (400, "ThrottlingException", "", Overloaded, "fewer requests"),
        (500, "InternalServiceError", "", UpstreamError, "answered 500"),
    ],
)
async def test_each_refusal_is_told_for_what_it_is(
    status: int, code: str, message: str, error: type[BonitoError], says: str
) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"__type": code, "message": message}, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        with pytest.raises(error, match=says):
            await SecretsManager(access=StaticAccess(), endpoint_url=url).read("name")
    finally:
        await runner.cleanup()


async def test_nobody_at_the_address_is_an_upstream_failure() -> None:
    with pytest.raises(UpstreamError, match="did not answer"):
        await SecretsManager(access=None, endpoint_url="http://127.0.0.1:9").read("name")
