"""Requests to AWS that are signed here (Signature Version 4), for services whose SDK would cost more than the call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bonito.clouds.access import AwsAccess, AwsCredentials
from bonito.clouds.calling import Answer, post
from bonito.errors import AccessDenied

OWN_RIGHTS = "this deployment's own AWS role"


class OwnAccess:
    """The rights of the function or server itself, as AWS gives them to it; never for a customer's source (T9)."""

    def __init__(self) -> None:
        self._found: Any = None

    async def credentials(self) -> AwsCredentials:
        """As the environment, the container or the machine has them; AccessDenied where there are none."""
        import asyncio

        return await asyncio.to_thread(self._frozen)

    def _frozen(self) -> AwsCredentials:
        from botocore.session import get_session

        if self._found is None:
            self._found = get_session().get_credentials()
        if self._found is None:
            raise AccessDenied("This deployment has no AWS role of its own.")
        frozen = self._found.get_frozen_credentials()  # renewed by botocore where they expire
        return AwsCredentials(frozen.access_key, frozen.secret_key, frozen.token)


async def signed_post(
    url: str, *, service: str, region: str, access: AwsAccess, headers: Mapping[str, str], body: bytes
) -> Answer:
    """POST with a signature of these credentials.

    Args:
        url: of the service's endpoint.
        service: its name in signatures, as `sts` and `kms`.
        region: the endpoint's.
        access: whose call it is.
        headers: signed and sent.
        body: signed and sent.

    Raises:
        AccessDenied: there are no credentials.
        UpstreamError, Overloaded: as `calling.post`.
    """
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    held = await access.credentials()
    request = AWSRequest(method="POST", url=url, headers=dict(headers), data=body)
    credentials = Credentials(held.access_key_id, held.secret_access_key, held.session_token)
    SigV4Auth(credentials, service, region).add_auth(request)
    return await post(url, service=f"AWS {service.upper()}", headers=dict(request.headers.items()), body=body)
