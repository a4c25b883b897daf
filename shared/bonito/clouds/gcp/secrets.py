"""Secrets in Secret Manager, read by reference."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

from bonito.clouds.access import TokenAccess
from bonito.clouds.gcp.api import Api, Refused
from bonito.clouds.gcp.downloads import new_crc32c
from bonito.errors import AccessDenied, InvalidRequest, NotFound, UpstreamError

ENDPOINT = "https://secretmanager.googleapis.com"
LATEST = "latest"
# Of one region, secrets have a location: https://cloud.google.com/secret-manager/regional-secrets/access-regional-secret
REFERENCE = re.compile(
    r"projects/[a-z0-9:.-]+(?:/locations/(?P<location>[a-z0-9-]+))?/secrets/[A-Za-z0-9_-]+(?:/versions/(?P<version>[A-Za-z0-9_-]+))?"
)


class SecretManager:
    """SecretStore over Secret Manager; a reference is `projects/P/secrets/S`, with `/versions/V` for a certain one."""

    def __init__(self, *, access: TokenAccess, endpoint_url: str | None = None) -> None:
        self._access, self._endpoint_url = access, endpoint_url

    async def read(self, reference: str) -> str:
        """The secret's present value, or that of the version which the reference names.

        Raises:
            InvalidRequest: the reference is none of Secret Manager's.
            NotFound: no such secret or version.
            AccessDenied: it may not be read, or the version is disabled or destroyed.
            UpstreamError: Secret Manager does not answer, or answers with something damaged.
        """
        found = REFERENCE.fullmatch(reference)
        if found is None:
            raise InvalidRequest(
                "A secret is named as projects/PROJECT/secrets/NAME, with /versions/VERSION if need be."
            )
        name = reference if found["version"] else f"{reference}/versions/{LATEST}"
        api = Api("Secret Manager", self._endpoint(found["location"]), access=self._access)
        async with api.session() as session:
            try:
                answer = await session.call("GET", f"/v1/{quote(name)}:access")
            except Refused as refused:
                raise _explained(refused) from refused
        return _value(answer.get("payload", {}))

    def _endpoint(self, location: str | None) -> str:
        if self._endpoint_url is not None:
            return self._endpoint_url
        return f"https://secretmanager.{location}.rep.googleapis.com" if location else ENDPOINT


def _explained(refused: Refused) -> NotFound | AccessDenied | UpstreamError:
    if refused.status == 404:
        return NotFound("There is no such secret in Secret Manager, or no such version of it.")
    if refused.status in {401, 403}:
        return AccessDenied("The secret may not be read: secretmanager.versions.access is missing on it.")
    if refused.reason == "FAILED_PRECONDITION":
        return AccessDenied("The secret's version is disabled or destroyed in Secret Manager.")
    return UpstreamError(f"Secret Manager refused the call ({refused.status}).")


def _value(payload: dict[str, str]) -> str:
    try:
        content = base64.b64decode(payload["data"], validate=True)
        checksum = new_crc32c()
        checksum.update(content)
        if payload.get("dataCrc32c") not in {None, str(int.from_bytes(checksum.digest(), "big"))}:
            raise UpstreamError("The secret arrived damaged.")
        return content.decode()
    except (KeyError, ValueError):
        raise UpstreamError("The secret is no text.") from None
