"""Tokens of a customer's Google Cloud project: by workload identity federation, or with a service account's key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from bonito.clouds.access import BearerToken
from bonito.clouds.calling import FORM, JSON, Answer, form, json_body, post
from bonito.clouds.decoys import refuse_if_open
from bonito.clouds.identity import Issuer, LocalSigner, private_key, signed
from bonito.clouds.renewing import RenewingTokens, utc_now
from bonito.clouds.secret_values import ReadSecret, used
from bonito.errors import AccessDenied, InvalidSettings, UpstreamError

STS = "https://sts.googleapis.com"
IAM_CREDENTIALS = "https://iamcredentials.googleapis.com"
OAUTH = "https://oauth2.googleapis.com"
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
SESSION_S = 3600
GRANT_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANT_JWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TYPE_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
TYPE_JWT = "urn:ietf:params:oauth:token-type:jwt"

PROVIDER = re.compile(
    r"projects/[0-9]{1,20}/locations/global/workloadIdentityPools/[a-z0-9-]{4,32}/providers/[a-z0-9-]{4,32}"
)
SERVICE_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}@[a-z0-9.:-]{1,100}\.gserviceaccount\.com")


class FederatedIdentity:
    """TokenAccess through a workload identity pool that trusts Bonito, with or without a service account behind it."""

    def __init__(
        self,
        *,
        provider: str,
        service_account: str | None,
        issuer: Issuer,
        subject: str,
        sts_url: str = STS,
        iam_credentials_url: str = IAM_CREDENTIALS,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Obtain nothing yet.

        Args:
            provider: of the pool, as `projects/1/locations/global/workloadIdentityPools/p/providers/bonito`.
            service_account: the email of the account that is acted as; None: the pool's own principal has the rights.
            issuer: makes the tokens.
            subject: the organization; `google.subject` is mapped from it.
            sts_url: of Google's token service.
            iam_credentials_url: of Google's service for acting as a service account.
            clock: this moment.
        """
        self._provider, self._service_account = provider, service_account
        self._issuer, self._subject, self._clock = issuer, subject, clock
        self._sts, self._iam = sts_url, iam_credentials_url
        self._tokens = RenewingTokens(self._obtain, clock=clock)
        self._is_closed = False

    async def token(self, scope: str) -> BearerToken:
        """A token for the scope; AccessDenied says what the pool or the service account lacks, or has too much."""
        return await self._tokens.get(scope)

    async def _obtain(self, scope: str) -> BearerToken:
        if self._service_account is None:
            # What such a token opens is decided where it is used, so a stranger's would tell nothing here.
            return await self._exchange(self._subject, scope)
        token = await self._act(self._service_account, self._subject, scope)
        if not self._is_closed:
            await refuse_if_open(
                partial(self._act, self._service_account, scope=scope),
                mistake=f"The service account {self._service_account} lets in every organization of this deployment: "
                "grant roles/iam.workloadIdentityUser to the principal of the subject "
                f"{self._subject} alone, not to the whole pool.",
            )
            self._is_closed = True
        return token

    async def _exchange(self, subject: str, scope: str) -> BearerToken:
        began = self._clock()
        body = form(
            grant_type=GRANT_EXCHANGE,
            audience=f"//iam.googleapis.com/{self._provider}",
            scope=scope,
            requested_token_type=TYPE_ACCESS_TOKEN,
            subject_token=await self._issuer.token(subject=subject, audience=audience_of(self._provider)),
            subject_token_type=TYPE_JWT,
        )
        answer = await post(f"{self._sts}/v1/token", service="Google's token service", headers=FORM, body=body)
        if answer.is_refusal:
            raise AccessDenied(
                f"Google Cloud did not take Bonito's token ({_oauth_reason(answer)}): the pool's provider "
                f"{self._provider} needs the issuer {self._issuer.url}, its default audience, the mapping "
                f"google.subject = assertion.sub, and no condition that leaves out the subject {self._subject}."
            )
        return _token(answer, began)

    async def _act(self, service_account: str, subject: str, scope: str) -> BearerToken:
        federated = await self._exchange(subject, CLOUD_PLATFORM)
        url = f"{self._iam}/v1/projects/-/serviceAccounts/{service_account}:generateAccessToken"
        headers = JSON | {"authorization": f"Bearer {federated.token}"}
        body = json_body(scope=[scope], lifetime=f"{SESSION_S}s")
        answer = await post(url, service="Google's IAM", headers=headers, body=body)
        if answer.is_refusal:
            raise AccessDenied(
                f"Google Cloud does not let Bonito act as {service_account}: it must exist, and grant "
                f"roles/iam.workloadIdentityUser to the principal of the subject {self._subject} in the pool of "
                f"{self._provider}."
            )
        said = answer.json()
        try:
            return BearerToken(str(said["accessToken"]), datetime.fromisoformat(str(said["expireTime"])))
        except (KeyError, ValueError) as error:
            raise UpstreamError("Google's IAM answered with something that is no token.") from error


class ServiceAccountKey:
    """TokenAccess with a service account's key, as Google hands it out in JSON."""

    def __init__(
        self,
        read: ReadSecret,
        *,
        oauth_url: str = OAUTH,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Read nothing yet.

        Args:
            read: the key file's text.
            oauth_url: of Google's token service; what the key itself names is not asked.
            clock: this moment.
        """
        self._read, self._url, self._clock = read, f"{oauth_url}/token", clock
        self._tokens = RenewingTokens(self._obtain, clock=clock)

    async def token(self, scope: str) -> BearerToken:
        """A token for the scope; AccessDenied says why there is none."""
        return await self._tokens.get(scope)

    async def _obtain(self, scope: str) -> BearerToken:
        return await used(self._read, partial(self._exchange, scope))

    async def _exchange(self, scope: str, value: str) -> BearerToken:
        began = self._clock()
        email, key_id, signer = _parts(value)
        now = int(began.timestamp())
        claims = {"iss": email, "scope": scope, "aud": f"{OAUTH}/token", "iat": now, "exp": now + SESSION_S}
        body = form(grant_type=GRANT_JWT, assertion=await signed(signer, claims, key_id=key_id))
        answer = await post(self._url, service="Google's token service", headers=FORM, body=body)
        if answer.is_refusal:
            raise AccessDenied(f"Google Cloud did not take the key of {email} ({_oauth_reason(answer)}).")
        return _token(answer, began)


def audience_of(provider: str) -> str:
    """The audience that a pool's provider takes where nothing else was set up."""
    return f"https://iam.googleapis.com/{provider}"


def _parts(value: str) -> tuple[str, str, LocalSigner]:
    try:
        held: dict[str, Any] = json.loads(value)
        email, key_id = str(held["client_email"]), str(held["private_key_id"])
        return email, key_id, LocalSigner(private_key(str(held["private_key"]), source="The secret"))
    except (ValueError, KeyError, TypeError, InvalidSettings):
        raise AccessDenied(
            "The secret is no key of a service account as Google hands it out in JSON, as a Google Cloud connection "
            "needs it."
        ) from None


def _token(answer: Answer, began: datetime) -> BearerToken:
    said = answer.json()
    try:
        return BearerToken(str(said["access_token"]), began + timedelta(seconds=float(said["expires_in"])))
    except (KeyError, ValueError, TypeError) as error:
        raise UpstreamError("Google's token service answered with something that is no token.") from error


def _oauth_reason(answer: Answer) -> str:
    return str(answer.json().get("error", answer.status))[:100]
