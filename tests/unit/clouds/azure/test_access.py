"""Azure tokens, against a server that plays Microsoft Entra as its reference documents it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from bonito.clouds.azure.access import ClientSecret, FederatedApplication
from bonito.errors import AccessDenied, Overloaded, UpstreamError
from tests.unit.clouds.playing import ISSUER_URL, ORGANIZATION, Asked, claims_of, issuer, playing

TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
SCOPE = "https://storage.azure.com/.default"
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def token(text: str = "the-token") -> web.Response:
    """https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow"""
    return web.json_response({"token_type": "Bearer", "expires_in": 3599, "access_token": text})


def refusal(code: int, status: int = 401) -> web.Response:
    said = {"error": "invalid_client", "error_description": f"AADSTS{code}: canary", "error_codes": [code]}
    return web.json_response(said, status=status)


async def entra(asked: Asked) -> web.Response:
    """A tenant whose app registration has one federated credential."""
    fields = asked.form
    claims = claims_of(fields["client_assertion"], await issuer().jwks())
    known = {"iss": ISSUER_URL, "sub": ORGANIZATION, "aud": "api://AzureADTokenExchange"}
    if asked.path != f"/{TENANT}/oauth2/v2.0/token":
        return refusal(90002, 400)
    return token() if {name: claims[name] for name in known} == known else refusal(70021)


def federated(url: str, *, subject: str = ORGANIZATION, tenant_id: str = TENANT) -> FederatedApplication:
    return FederatedApplication(
        tenant_id=tenant_id,
        client_id=CLIENT,
        issuer=issuer(),
        subject=subject,
        authority_url=url,
        clock=lambda: NOW,
    )


async def test_a_federated_credential_opens_with_a_token_of_the_organization() -> None:
    async with playing(entra) as cloud:
        held = await federated(cloud.url).token(SCOPE)

    assert (held.token, held.expires_at) == ("the-token", NOW + timedelta(seconds=3599))
    assert "the-token" not in repr(held)
    fields = cloud.asked[0].form
    assert (fields["grant_type"], fields["client_id"], fields["scope"]) == ("client_credentials", CLIENT, SCOPE)
    assert fields["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert "client_secret" not in fields


async def test_many_callers_make_one_token_for_each_scope() -> None:
    async with playing(entra) as cloud:
        access = federated(cloud.url)
        await asyncio.gather(*(access.token(scope) for scope in ("a/.default", "b/.default") for _ in range(20)))

    assert sorted(asked.form["scope"] for asked in cloud.asked) == ["a/.default", "b/.default"]


async def test_another_organization_is_not_let_in_and_told_what_would_be_needed() -> None:
    other = "00000000-0000-4000-8000-000000000001"
    async with playing(entra) as cloud:
        with pytest.raises(AccessDenied) as refused:
            await federated(cloud.url, subject=other).token(SCOPE)

    for needed in (CLIENT, ISSUER_URL, other, "api://AzureADTokenExchange"):
        assert needed in refused.value.message
    assert "canary" not in refused.value.message


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (700213, "federated credential"),
        (90002, f"no directory {TENANT}"),
        (700016, f"no app registration {CLIENT}"),
        (53003, "AADSTS53003"),
    ],
)
async def test_each_refusal_says_what_the_tenant_lacks(code: int, says: str) -> None:
    async with playing(lambda asked: refusal(code)) as cloud:
        with pytest.raises(AccessDenied, match=says):
            await federated(cloud.url).token(SCOPE)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda: web.Response(status=429, headers={"retry-after": "7"}), Overloaded),
        (lambda: web.Response(status=503), UpstreamError),
        (lambda: refusal(50196, 400), UpstreamError),
        (lambda: web.json_response({"access_token": "x"}), UpstreamError),
        (lambda: web.Response(text="[]"), UpstreamError),
    ],
    ids=["throttled", "failing", "busy", "no-lifetime", "no-token"],
)
async def test_what_may_pass_is_no_refusal(answer: Any, kind: type[UpstreamError]) -> None:
    async with playing(lambda asked: answer()) as cloud:
        with pytest.raises(UpstreamError) as failed:
            await federated(cloud.url).token(SCOPE)

    assert type(failed.value) is kind
    assert failed.value.retry_after_s == (7 if kind is Overloaded else None)


@pytest.mark.parametrize("tenant_id", ["", "common", f"{TENANT}/../x", f"{TENANT}\n"])
def test_a_tenant_is_an_id_and_nothing_else(tenant_id: str) -> None:
    with pytest.raises(AccessDenied):
        federated("http://127.0.0.1:9", tenant_id=tenant_id)


async def test_a_secret_that_was_changed_is_read_again() -> None:
    def play(asked: Asked) -> web.Response:
        return token() if asked.form["client_secret"] == "new" else refusal(7000215)

    async def read(*, fresh: bool = False) -> str:
        return json.dumps({"tenant_id": TENANT, "client_id": CLIENT, "client_secret": "new" if fresh else "old"})

    async with playing(play) as cloud:
        held = await ClientSecret(read, authority_url=cloud.url, clock=lambda: NOW).token(SCOPE)

    assert held.token == "the-token"
    assert [asked.form["client_secret"] for asked in cloud.asked] == ["old", "new"]


async def test_a_secret_that_stays_wrong_is_tried_once() -> None:
    async def read(*, fresh: bool = False) -> str:
        return json.dumps({"tenant_id": TENANT, "client_id": CLIENT, "client_secret": "canary"})

    async with playing(lambda asked: refusal(7000215)) as cloud:
        with pytest.raises(AccessDenied, match="did not take the client secret") as refused:
            await ClientSecret(read, authority_url=cloud.url).token(SCOPE)

    assert "canary" not in refused.value.message
    assert len(cloud.asked) == 1


@pytest.mark.parametrize("value", ["", "[]", '{"tenant_id": "x"}', "canary"])
async def test_a_secret_of_another_shape_is_refused_without_being_shown(value: str) -> None:
    async def read(*, fresh: bool = False) -> str:
        return value

    with pytest.raises(AccessDenied, match="tenant_id, client_id and client_secret") as refused:
        await ClientSecret(read).token(SCOPE)
    assert "canary" not in refused.value.message
