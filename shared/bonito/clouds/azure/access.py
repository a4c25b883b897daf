"""Tokens of a customer's Azure tenant: by Bonito's own tokens as a federated credential, or with a client secret."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from bonito.clouds.access import BearerToken
from bonito.clouds.calling import FORM, Answer, form, post
from bonito.clouds.identity import Issuer
from bonito.clouds.renewing import RenewingTokens, utc_now
from bonito.clouds.secret_values import ReadSecret, used
from bonito.errors import AccessDenied, UpstreamError

AUDIENCE = "api://AzureADTokenExchange"
AUTHORITY = "https://login.microsoftonline.com"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

# https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes
NO_FEDERATED_CREDENTIAL = frozenset({70021, 700211, 700212, 700213, 700222, 700223, 700236, 700238})
NO_APPLICATION = frozenset({700016, 7000229})
NO_TENANT = frozenset({90002, 900023})
WRONG_SECRET = frozenset({7000215, 7000222})
BUSY = frozenset({50196, 90033})


class FederatedApplication:
    """TokenAccess of an app registration that has Bonito's issuer and the organization as a federated credential.

    Azure compares issuer, subject and audience with the credential exactly, so nobody else's token opens it.
    """

    def __init__(
        self,
        *,
        tenant_id: str,
        client_id: str,
        issuer: Issuer,
        subject: str,
        authority_url: str = AUTHORITY,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Obtain nothing yet.

        Args:
            tenant_id: the customer's directory.
            client_id: the app registration's.
            issuer: makes the tokens.
            subject: the organization, as the federated credential names it.
            authority_url: of Microsoft's token service.
            clock: this moment.
        """
        self._client_id, self._issuer, self._subject, self._clock = client_id, issuer, subject, clock
        self._tenant_id, self._url = tenant_id, _token_url(authority_url, tenant_id)
        self._tokens = RenewingTokens(self._obtain, clock=clock)

    async def token(self, scope: str) -> BearerToken:
        """A token for the scope; AccessDenied says what the app registration lacks."""
        return await self._tokens.get(scope)

    async def _obtain(self, scope: str) -> BearerToken:
        began = self._clock()
        body = form(
            grant_type="client_credentials",
            client_id=self._client_id,
            scope=scope,
            client_assertion_type=ASSERTION_TYPE,
            client_assertion=await self._issuer.token(subject=self._subject, audience=AUDIENCE),
        )
        answer = await post(self._url, service="Microsoft Entra", headers=FORM, body=body)
        if not answer.is_refusal:
            return _token(answer, began)
        if _codes(answer) & NO_FEDERATED_CREDENTIAL:
            raise AccessDenied(
                f"Azure did not take Bonito's token: the app registration {self._client_id} needs a federated "
                f"credential with the issuer {self._issuer.url}, the subject {self._subject} and the audience "
                f"{AUDIENCE}."
            )
        raise _refusal(answer, tenant_id=self._tenant_id, client_id=self._client_id)


class ClientSecret:
    """TokenAccess with a secret `{"tenant_id", "client_id", "client_secret"}`."""

    def __init__(
        self,
        read: ReadSecret,
        *,
        authority_url: str = AUTHORITY,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Read nothing yet.

        Args:
            read: the secret.
            authority_url: of Microsoft's token service.
            clock: this moment.
        """
        self._read, self._authority, self._clock = read, authority_url, clock
        self._tokens = RenewingTokens(self._obtain, clock=clock)

    async def token(self, scope: str) -> BearerToken:
        """A token for the scope; AccessDenied says why there is none."""
        return await self._tokens.get(scope)

    async def _obtain(self, scope: str) -> BearerToken:
        return await used(self._read, partial(self._exchange, scope))

    async def _exchange(self, scope: str, value: str) -> BearerToken:
        began = self._clock()
        tenant_id, client_id, client_secret = _parts(value)
        body = form(grant_type="client_credentials", client_id=client_id, scope=scope, client_secret=client_secret)
        answer = await post(_token_url(self._authority, tenant_id), service="Microsoft Entra", headers=FORM, body=body)
        if not answer.is_refusal:
            return _token(answer, began)
        if _codes(answer) & WRONG_SECRET:
            raise AccessDenied(f"Azure did not take the client secret of the app registration {client_id}.")
        raise _refusal(answer, tenant_id=tenant_id, client_id=client_id)


def _token_url(authority_url: str, tenant_id: str) -> str:
    if not GUID.fullmatch(tenant_id):
        raise AccessDenied("The connection's tenant_id is no id of a directory.")
    return f"{authority_url}/{tenant_id}/oauth2/v2.0/token"


def _parts(value: str) -> tuple[str, str, str]:
    try:
        held: dict[str, Any] = json.loads(value)
        return str(held["tenant_id"]), str(held["client_id"]), str(held["client_secret"])
    except (ValueError, KeyError, TypeError):
        raise AccessDenied(
            "The secret is no JSON object with tenant_id, client_id and client_secret, as an Azure connection needs it."
        ) from None


def _token(answer: Answer, began: datetime) -> BearerToken:
    said = answer.json()
    try:
        return BearerToken(str(said["access_token"]), began + timedelta(seconds=float(said["expires_in"])))
    except (KeyError, ValueError, TypeError) as error:
        raise UpstreamError("Microsoft Entra answered with something that is no token.") from error


def _codes(answer: Answer) -> frozenset[int]:
    codes = answer.json().get("error_codes")
    return frozenset(code for code in codes if isinstance(code, int)) if isinstance(codes, list) else frozenset()


def _refusal(answer: Answer, *, tenant_id: str, client_id: str) -> UpstreamError:
    codes = _codes(answer)
    if codes & BUSY:
        return UpstreamError("Microsoft Entra has no room now.")
    if codes & NO_TENANT:
        return AccessDenied(f"Azure knows no directory {tenant_id}.")
    if codes & NO_APPLICATION:
        return AccessDenied(
            f"The directory {tenant_id} knows no app registration {client_id}, or has no service principal for it."
        )
    reason = ", ".join(f"AADSTS{code}" for code in sorted(codes)) or str(answer.json().get("error", "no reason"))[:100]
    return AccessDenied(f"Azure refused a token for the app registration {client_id} ({reason}).")
