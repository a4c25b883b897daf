"""AWS sessions, against a server that plays STS as its reference documents it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from bonito.clouds.access import AwsCredentials
from bonito.clouds.aws.access import ExternalIdRole, FederatedRole, StaticKeys
from bonito.errors import AccessDenied, Overloaded, UpstreamError
from tests.unit.clouds.playing import ISSUER_URL, ORGANIZATION, Asked, claims_of, issuer, playing

ROLE = "arn:aws:iam::123456789012:role/bonito/reader"
EXTERNAL_ID = "bonito-3f0c"
END = datetime(2036, 5, 1, 12, tzinfo=UTC)


def session(asked: Asked) -> web.Response:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html"""
    action = asked.form["Action"]
    body = f"""<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
      <{action}Result>
        <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/reader/x</Arn>
          <AssumedRoleId>AROACLKWSDQRAOEXAMPLE:x</AssumedRoleId></AssumedRoleUser>
        <Credentials><SessionToken>the-session</SessionToken><SecretAccessKey>the-secret</SecretAccessKey>
          <Expiration>{END.strftime("%Y-%m-%dT%H:%M:%SZ")}</Expiration><AccessKeyId>ASIAEXAMPLE</AccessKeyId>
        </Credentials>
      </{action}Result></{action}Response>"""
    return web.Response(body=body, content_type="text/xml")


def refusal(code: str, status: int = 403) -> web.Response:
    body = f"""<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
      <Code>{code}</Code><Message>canary of the upstream</Message></Error><RequestId>r</RequestId></ErrorResponse>"""
    return web.Response(body=body, status=status, content_type="text/xml")


class Sts:
    """Opens for one subject or external id; `is_open` plays a trust policy without that condition."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.is_open = is_open
        self.keys: dict[str, object] = {}

    async def __call__(self, asked: Asked) -> web.Response:
        fields = asked.form
        if fields["Action"] == "AssumeRole":
            return session(asked) if self.is_open or fields["ExternalId"] == EXTERNAL_ID else refusal("AccessDenied")
        claims = claims_of(fields["WebIdentityToken"], await issuer().jwks())
        if (claims["iss"], claims["aud"]) != (ISSUER_URL, "sts.amazonaws.com"):
            return refusal("InvalidIdentityToken", 400)
        return session(asked) if self.is_open or claims["sub"] == ORGANIZATION else refusal("AccessDenied")


def federated(url: str, clock: Callable[[], datetime] = lambda: END - timedelta(hours=1)) -> FederatedRole:
    return FederatedRole(ROLE, issuer=issuer(), subject=ORGANIZATION, endpoint_url=url, clock=clock)


class Own:
    async def credentials(self) -> AwsCredentials:
        return AwsCredentials("AKIAOWN", "own-secret", "own-session")


def by_external_id(url: str) -> ExternalIdRole:
    return ExternalIdRole(ROLE, external_id=EXTERNAL_ID, subject=ORGANIZATION, own=Own(), endpoint_url=url)


async def test_a_federated_role_opens_with_a_token_of_the_organization() -> None:
    async with playing(Sts()) as cloud:
        held = await federated(cloud.url).credentials()

    assert held == AwsCredentials("ASIAEXAMPLE", "the-secret", "the-session", END)
    assert "the-secret" not in repr(held)
    assert cloud.asked[0].form["RoleArn"] == ROLE
    assert cloud.asked[0].form["RoleSessionName"] == f"bonito-{ORGANIZATION}"
    assert "authorization" not in {name.lower() for name in cloud.asked[0].headers}


async def test_many_callers_make_one_session_and_one_trial_by_a_stranger() -> None:
    async with playing(Sts()) as cloud:
        access = federated(cloud.url)
        await asyncio.gather(*(access.credentials() for _ in range(30)))
        await access.credentials()
        jwks = await issuer().jwks()

    subjects = [claims_of(asked.form["WebIdentityToken"], jwks)["sub"] for asked in cloud.asked]
    assert len(subjects) == 2
    assert subjects[0] == ORGANIZATION != subjects[1]


async def test_a_renewed_session_is_not_tried_by_a_stranger_again() -> None:
    now = [END - timedelta(hours=1)]
    async with playing(Sts()) as cloud:
        access = federated(cloud.url, clock=lambda: now[0])
        await access.credentials()
        now[0] = END - timedelta(minutes=5)
        await access.credentials()

    assert len(cloud.asked) == 3


async def test_a_role_that_lets_in_every_organization_is_not_used() -> None:
    async with playing(Sts(is_open=True)) as cloud:
        with pytest.raises(AccessDenied, match=f'"bonito.example.com:sub" is {ORGANIZATION}'):
            await federated(cloud.url).credentials()


async def test_a_role_that_takes_any_external_id_is_not_used() -> None:
    async with playing(Sts(is_open=True)) as cloud:
        with pytest.raises(AccessDenied, match=f'"sts:ExternalId" is {EXTERNAL_ID}'):
            await by_external_id(cloud.url).credentials()


async def test_a_role_opens_with_its_external_id_and_the_deployments_own_signature() -> None:
    async with playing(Sts()) as cloud:
        held = await by_external_id(cloud.url).credentials()

    assert held.session_token == "the-session"
    headers = {name.lower(): value for name, value in cloud.asked[0].headers.items()}
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAOWN/")
    assert "/us-east-1/sts/aws4_request" in headers["authorization"]
    assert headers["x-amz-security-token"] == "own-session"
    assert b"own-secret" not in cloud.asked[0].body


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("AccessDenied", "must allow sts:AssumeRoleWithWebIdentity"),
        ("InvalidIdentityToken", f"IAM identity provider for {ISSUER_URL}"),
        ("ValidationError", "ValidationError"),
    ],
)
async def test_each_refusal_says_what_the_account_lacks(code: str, says: str) -> None:
    async with playing(lambda asked: refusal(code)) as cloud:
        with pytest.raises(AccessDenied, match=says) as refused:
            await federated(cloud.url).credentials()

    assert "canary" not in refused.value.message


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda asked: refusal("IDPCommunicationError", 400), UpstreamError),
        (lambda asked: refusal("Throttling", 400), Overloaded),
        (lambda asked: web.Response(status=503), UpstreamError),
        (lambda asked: web.Response(text="no xml"), UpstreamError),
        (lambda asked: web.Response(text="<a/>"), UpstreamError),
        (lambda asked: web.Response(status=302, headers={"location": "http://127.0.0.1:9/"}), UpstreamError),
    ],
    ids=["aws-cannot-reach-us", "throttled", "failing", "no-xml", "no-session", "redirect"],
)
async def test_what_may_pass_is_no_refusal(answer: Callable[[Asked], web.Response], kind: type[UpstreamError]) -> None:
    async with playing(answer) as cloud:
        with pytest.raises(UpstreamError) as failed:
            await federated(cloud.url).credentials()

    assert type(failed.value) is kind


async def test_a_trial_that_could_not_be_made_counts_as_failed() -> None:
    answers = [session, lambda asked: web.Response(status=500)]
    async with playing(lambda asked: answers.pop(0)(asked)) as cloud:
        with pytest.raises(UpstreamError):
            await federated(cloud.url).credentials()


async def test_an_endpoint_that_is_away_is_no_refusal() -> None:
    with pytest.raises(UpstreamError, match="AWS STS does not answer") as failed:
        await federated("http://127.0.0.1:9/").credentials()
    assert not isinstance(failed.value, AccessDenied)


@pytest.mark.parametrize("arn", ["", "arn:aws:iam::1:role/x", "arn:aws:iam::123456789012:user/x", f"{ROLE}\n"])
def test_what_is_no_role_is_refused(arn: str) -> None:
    with pytest.raises(AccessDenied):
        FederatedRole(arn, issuer=issuer(), subject=ORGANIZATION)


async def test_static_keys_are_read_from_their_secret() -> None:
    secret = {"access_key_id": "AKIA", "secret_access_key": "s"}

    async def read(*, fresh: bool = False) -> str:
        return json.dumps(secret)

    assert await StaticKeys(read).credentials() == AwsCredentials("AKIA", "s")


@pytest.mark.parametrize("value", ["", "[]", "{}", '{"access_key_id": "AKIA"}', "canary"])
async def test_a_secret_that_holds_no_keys_is_refused_without_being_shown(value: str) -> None:
    async def read(*, fresh: bool = False) -> str:
        return value

    with pytest.raises(AccessDenied, match="access_key_id and secret_access_key") as refused:
        await StaticKeys(read).credentials()
    assert "canary" not in refused.value.message
