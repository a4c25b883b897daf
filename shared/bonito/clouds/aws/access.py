"""Sessions in a customer's AWS account: by Bonito's own tokens, by a role with an external id, or with static keys."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import datetime
from typing import Any

from bonito.clouds.access import AwsAccess, AwsCredentials
from bonito.clouds.aws.requests import signed_post
from bonito.clouds.calling import FORM, Answer, form, post
from bonito.clouds.decoys import refuse_if_open
from bonito.clouds.identity import Issuer
from bonito.clouds.renewing import Renewing, utc_now
from bonito.clouds.secret_values import ReadSecret
from bonito.errors import AccessDenied, Overloaded, UpstreamError

AUDIENCE = "sts.amazonaws.com"
API_VERSION = "2011-06-15"
# The most that a session has whose caller is itself a role's session, as every function is:
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
SESSION_S = 3600
ROLE_ARN = re.compile(r"arn:(aws|aws-cn|aws-us-gov):iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)
# A session of a regional endpoint works in every region; one of the global endpoint not in those that were opted into.
STS_REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
SUFFIXES = {"aws-cn": "amazonaws.com.cn"}
# What AWS answers for now, and differently later.
PASSING = frozenset({"IDPCommunicationError", "InternalFailure", "ServiceUnavailable", "RequestTimeout"})
THROTTLED = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded"})


class FederatedRole:
    """AwsAccess to a role that trusts Bonito as an identity provider (AssumeRoleWithWebIdentity)."""

    def __init__(
        self,
        role_arn: str,
        *,
        issuer: Issuer,
        subject: str,
        endpoint_url: str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Obtain nothing yet.

        Args:
            role_arn: the role.
            issuer: makes the tokens.
            subject: the organization, as the role's trust policy names it.
            endpoint_url: of STS; None: AWS' own.
            clock: this moment.
        """
        self._role_arn, self._issuer, self._subject = role_arn, issuer, subject
        self._endpoint = endpoint_url or _endpoint(role_arn)
        self._session = Renewing(self._obtain, clock=clock)
        self._is_closed = False

    async def credentials(self) -> AwsCredentials:
        """A session of the role; AccessDenied says what its trust policy lacks, or has too much."""
        return await self._session.get()

    async def _obtain(self) -> AwsCredentials:
        session = await self._enter(self._subject)
        if not self._is_closed:
            await refuse_if_open(
                self._enter,
                mistake=f"The role {self._role_arn} lets in every organization of this deployment: its trust policy "
                f'needs the condition that "{_host(self._issuer)}:sub" is {self._subject}.',
            )
            self._is_closed = True
        return session

    async def _enter(self, subject: str) -> AwsCredentials:
        body = form(
            Action="AssumeRoleWithWebIdentity",
            Version=API_VERSION,
            RoleArn=self._role_arn,
            RoleSessionName=f"bonito-{subject}",
            DurationSeconds=str(SESSION_S),
            WebIdentityToken=await self._issuer.token(subject=subject, audience=AUDIENCE),
        )
        answer = await post(self._endpoint, service="AWS STS", headers=FORM, body=body)
        if answer.is_refusal:
            raise self._refusal(_error_code(answer))
        return _credentials(answer)

    def _refusal(self, code: str) -> UpstreamError:
        if code == "InvalidIdentityToken":
            return AccessDenied(
                f"AWS did not take Bonito's token: the account of {self._role_arn} needs an IAM identity provider for "
                f"{self._issuer.url} with the audience {AUDIENCE}, and AWS must reach that address."
            )
        if code == "AccessDenied":
            host = _host(self._issuer)
            return AccessDenied(
                f"AWS does not let Bonito into the role {self._role_arn}: its trust policy must allow "
                f"sts:AssumeRoleWithWebIdentity to the identity provider {host}, with the conditions that "
                f'"{host}:aud" is {AUDIENCE} and "{host}:sub" is {self._subject}.'
            )
        return _other_refusal(code, self._role_arn)


class ExternalIdRole:
    """AwsAccess to a role that trusts this deployment's own role under an external id (AssumeRole)."""

    def __init__(
        self,
        role_arn: str,
        *,
        external_id: str,
        subject: str,
        own: AwsAccess,
        endpoint_url: str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Obtain nothing yet.

        Args:
            role_arn: the role.
            external_id: made by Bonito for one connection.
            subject: the organization; names the session in the customer's own log.
            own: the deployment's rights; they are used for this one call and nothing else.
            endpoint_url: of STS; None: AWS' own.
            clock: this moment.
        """
        self._role_arn, self._external_id, self._subject, self._own = role_arn, external_id, subject, own
        self._region = STS_REGIONS[_partition(role_arn)]
        self._endpoint = endpoint_url or _endpoint(role_arn)
        self._session = Renewing(self._obtain, clock=clock)
        self._is_closed = False

    async def credentials(self) -> AwsCredentials:
        """A session of the role; AccessDenied says what its trust policy lacks, or has too much."""
        return await self._session.get()

    async def _obtain(self) -> AwsCredentials:
        session = await self._enter(self._external_id)
        if not self._is_closed:
            await refuse_if_open(
                self._enter,
                mistake=f"The role {self._role_arn} takes any external id: its trust policy needs the condition that "
                f'"sts:ExternalId" is {self._external_id}.',
            )
            self._is_closed = True
        return session

    async def _enter(self, external_id: str) -> AwsCredentials:
        body = form(
            Action="AssumeRole",
            Version=API_VERSION,
            RoleArn=self._role_arn,
            RoleSessionName=f"bonito-{self._subject}",
            DurationSeconds=str(SESSION_S),
            ExternalId=external_id,
        )
        answer = await signed_post(
            self._endpoint, service="sts", region=self._region, access=self._own, headers=FORM, body=body
        )
        if not answer.is_refusal:
            return _credentials(answer)
        code = _error_code(answer)
        if code == "AccessDenied":
            raise AccessDenied(
                f"AWS does not let Bonito into the role {self._role_arn}: its trust policy must allow sts:AssumeRole "
                f'to this deployment\'s role, with the condition that "sts:ExternalId" is {self._external_id}.'
            )
        raise _other_refusal(code, self._role_arn)


class StaticKeys:
    """AwsAccess with the keys of a secret: `{"access_key_id", "secret_access_key"}`, perhaps with `session_token`."""

    def __init__(self, read: ReadSecret, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Read nothing yet."""
        self._read = read
        self._session = Renewing(self._obtain, clock=clock)

    async def credentials(self) -> AwsCredentials:
        """The keys, looked up anew every few minutes; AccessDenied where the secret holds none."""
        return await self._session.get()

    async def _obtain(self) -> AwsCredentials:
        try:
            held: dict[str, Any] = json.loads(await self._read(fresh=True))
            keys = str(held["access_key_id"]), str(held["secret_access_key"])
        except (ValueError, KeyError, TypeError):
            raise AccessDenied(
                "The secret is no JSON object with access_key_id and secret_access_key, as an AWS connection needs it."
            ) from None
        token = held.get("session_token")
        return AwsCredentials(*keys, session_token=str(token) if token else None)


def _partition(role_arn: str) -> str:
    matched = ROLE_ARN.fullmatch(role_arn)
    if matched is None:
        raise AccessDenied("The connection's role is no ARN of an IAM role.")
    return matched[1]


def _endpoint(role_arn: str) -> str:
    partition = _partition(role_arn)
    return f"https://sts.{STS_REGIONS[partition]}.{SUFFIXES.get(partition, 'amazonaws.com')}/"


def _host(issuer: Issuer) -> str:
    """What IAM calls the provider: its address without the scheme."""
    return issuer.url.partition("://")[2]


def _credentials(answer: Answer) -> AwsCredentials:
    found = {element.tag.rpartition("}")[2]: element.text or "" for element in _xml(answer).iter()}
    try:
        return AwsCredentials(
            access_key_id=found["AccessKeyId"],
            secret_access_key=found["SecretAccessKey"],
            session_token=found["SessionToken"],
            expires_at=datetime.fromisoformat(found["Expiration"]),
        )
    except (KeyError, ValueError) as error:
        raise UpstreamError("AWS STS answered with something that is no session.") from error


def _error_code(answer: Answer) -> str:
    return next((element.text or "" for element in _xml(answer).iter() if element.tag.endswith("Code")), "")


def _xml(answer: Answer) -> ET.Element:
    try:
        return ET.fromstring(answer.body)  # noqa: S314 - from AWS itself, and expat bounds what entities expand to
    except ET.ParseError as error:
        raise UpstreamError("AWS STS answered with something that is no XML.") from error


def _other_refusal(code: str, role_arn: str) -> UpstreamError:
    if code in THROTTLED:
        return Overloaded("AWS STS asks for a pause.")
    if code in PASSING:
        return UpstreamError("AWS STS could not reach what it needs; it is tried again.")
    return AccessDenied(f"AWS refused a session of the role {role_arn} ({code or 'without a reason'}).")
