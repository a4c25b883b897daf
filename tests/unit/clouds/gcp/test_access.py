"""Google Cloud tokens, against a server that plays its token service and IAM as their references document them."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bonito.clouds.gcp.access import FederatedIdentity, ServiceAccountKey
from bonito.clouds.identity import PublicKey
from bonito.errors import AccessDenied, UpstreamError
from tests.unit.clouds.playing import ISSUER_URL, KEY, ORGANIZATION, Asked, claims_of, issuer, playing

PROVIDER = "projects/1234567/locations/global/workloadIdentityPools/partners/providers/bonito"
ACCOUNT = "reader@example-project.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
NOW = datetime(2026, 5, 1, tzinfo=UTC)
END = NOW + timedelta(hours=1)


class Google:
    """A pool that trusts Bonito, and a service account that one subject may act as.

    https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token
    https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken
    """

    def __init__(self, *, is_open: bool = False) -> None:
        self.is_open = is_open

    async def __call__(self, asked: Asked) -> web.Response:
        if asked.path == "/v1/token":
            return await self._exchange(asked)
        assert asked.path == f"/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
        subject = asked.headers["Authorization"].removeprefix("Bearer federated ")
        if not self.is_open and subject != ORGANIZATION:
            said = {"error": {"code": 403, "message": "canary", "status": "PERMISSION_DENIED"}}
            return web.json_response(said, status=403)
        return web.json_response({"accessToken": "acted", "expireTime": END.strftime("%Y-%m-%dT%H:%M:%SZ")})

    async def _exchange(self, asked: Asked) -> web.Response:
        fields = asked.form
        claims = claims_of(fields["subject_token"], await issuer().jwks())
        if fields["audience"] != f"//iam.googleapis.com/{PROVIDER}":
            return web.json_response({"error": "invalid_target", "error_description": "canary"}, status=400)
        assert (claims["iss"], claims["aud"]) == (ISSUER_URL, f"https://iam.googleapis.com/{PROVIDER}")
        said = {"access_token": f"federated {claims['sub']}", "expires_in": 3599, "token_type": "Bearer"}
        return web.json_response(said)


def federated(url: str, *, account: str | None = ACCOUNT, provider: str = PROVIDER) -> FederatedIdentity:
    return FederatedIdentity(
        provider=provider,
        service_account=account,
        issuer=issuer(),
        subject=ORGANIZATION,
        sts_url=url,
        iam_credentials_url=url,
        clock=lambda: NOW,
    )


async def test_a_pool_gives_its_own_principals_token() -> None:
    async with playing(Google()) as cloud:
        held = await federated(cloud.url, account=None).token(SCOPE)

    assert (held.token, held.expires_at) == (f"federated {ORGANIZATION}", NOW + timedelta(seconds=3599))
    (asked,) = cloud.asked
    assert asked.form["scope"] == SCOPE
    assert asked.form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
    assert asked.form["subject_token_type"] == "urn:ietf:params:oauth:token-type:jwt"


async def test_a_service_account_is_acted_as_with_the_scope_that_was_asked_for() -> None:
    async with playing(Google()) as cloud:
        held = await federated(cloud.url).token(SCOPE)

    assert (held.token, held.expires_at) == ("acted", END)
    exchanged, acted = cloud.asked[:2]
    assert exchanged.form["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert acted.json == {"scope": [SCOPE], "lifetime": "3600s"}


async def test_many_callers_make_one_token_and_one_trial_by_a_stranger() -> None:
    async with playing(Google()) as cloud:
        access = federated(cloud.url)
        await asyncio.gather(*(access.token(SCOPE) for _ in range(20)))

    assert len(cloud.asked) == 4


async def test_a_service_account_that_lets_in_every_organization_is_not_used() -> None:
    async with playing(Google(is_open=True)) as cloud:
        with pytest.raises(AccessDenied, match=f"the subject {ORGANIZATION} alone"):
            await federated(cloud.url).token(SCOPE)


async def test_a_pool_that_does_not_take_the_token_is_told_apart_from_an_account_that_does_not() -> None:
    other = PROVIDER.replace("partners", "others")
    async with playing(Google()) as cloud:
        with pytest.raises(AccessDenied, match=r"invalid_target.*google\.subject = assertion\.sub") as by_pool:
            await federated(cloud.url, provider=other).token(SCOPE)
    async with playing(Google()) as cloud:
        stranger = FederatedIdentity(
            provider=PROVIDER,
            service_account=ACCOUNT,
            issuer=issuer(),
            subject="somebody-else",
            sts_url=cloud.url,
            iam_credentials_url=cloud.url,
        )
        with pytest.raises(AccessDenied, match=r"roles/iam\.workloadIdentityUser") as by_account:
            await stranger.token(SCOPE)

    assert "canary" not in by_pool.value.message + by_account.value.message


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"access_token": "x", "expires_in": "soon"}'])
async def test_an_answer_that_is_no_token_may_pass(body: str) -> None:
    async with playing(lambda asked: web.Response(text=body)) as cloud:
        with pytest.raises(UpstreamError) as failed:
            await federated(cloud.url, account=None).token(SCOPE)
    assert not isinstance(failed.value, AccessDenied)


def key_file(**members: str) -> str:
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    key = {
        "type": "service_account",
        "client_email": ACCOUNT,
        "private_key_id": PublicKey.of(KEY.public_key()).key_id,
        "private_key": pem,
        "token_uri": "http://169.254.169.254/token",
    }
    return json.dumps(key | members)


async def test_a_service_accounts_key_signs_for_google_alone_whatever_it_names_itself() -> None:
    async def read(*, fresh: bool = False) -> str:
        return key_file()

    def play(asked: Asked) -> web.Response:
        return web.json_response({"access_token": "by-key", "expires_in": 3599, "token_type": "Bearer"})

    async with playing(play) as cloud:
        held = await ServiceAccountKey(read, oauth_url=cloud.url, clock=lambda: NOW).token(SCOPE)

    (asked,) = cloud.asked
    claims = claims_of(asked.form["assertion"], await issuer().jwks())
    assert held.token == "by-key"
    assert (claims["iss"], claims["scope"]) == (ACCOUNT, SCOPE)
    assert claims["aud"] == "https://oauth2.googleapis.com/token"
    assert claims["exp"] - claims["iat"] == 3600


async def test_a_key_that_was_replaced_is_read_again() -> None:
    async def read(*, fresh: bool = False) -> str:
        return key_file(client_email=f"{'new' if fresh else 'old'}@p.iam.gserviceaccount.com")

    async def play(asked: Asked) -> web.Response:
        email = claims_of(asked.form["assertion"], await issuer().jwks())["iss"]
        if email.startswith("old"):
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": "by-new-key", "expires_in": 3599})

    async with playing(play) as cloud:
        assert (await ServiceAccountKey(read, oauth_url=cloud.url).token(SCOPE)).token == "by-new-key"


@pytest.mark.parametrize("value", ["", "[]", "{}", key_file(private_key="canary")])
async def test_a_secret_that_is_no_key_is_refused_without_being_shown(value: str) -> None:
    async def read(*, fresh: bool = False) -> str:
        return value

    with pytest.raises(AccessDenied, match="no key of a service account") as refused:
        await ServiceAccountKey(read).token(SCOPE)
    assert "canary" not in refused.value.message
