"""Clients of AWS's services: made for one piece of work, with one session's rights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from bonito.clouds.access import AwsAccess

if TYPE_CHECKING:
    from ssl import SSLContext

    from aiobotocore.client import AioBaseClient
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

Service = Literal["s3", "secretsmanager", "sqs"]

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 20
TRIES = 3


@asynccontextmanager
async def open_client(
    service: Service, *, access: AwsAccess | None, region: str | None = None, endpoint_url: str | None = None
) -> AsyncIterator[AioBaseClient]:
    """A client for some minutes: what `access` gave it does not grow longer.

    Making one takes 150 ms of the processor the first time in a process, then 11 ms.

    Args:
        service: as AWS names it.
        access: a session in a customer's account; None: the rights of this process itself.
        region: where the resource lies; None: where this process runs.
        endpoint_url: instead of AWS's own.
    """
    keys: dict[str, str | None] = {}
    if access is not None:
        credentials = await access.credentials()
        keys = {
            "aws_access_key_id": credentials.access_key_id,
            "aws_secret_access_key": credentials.secret_access_key,
            "aws_session_token": credentials.session_token,
        }
    making = _session().create_client(
        service, region_name=region, endpoint_url=endpoint_url, config=_config(service), **keys
    )
    async with making as client:
        yield client


@cache
def _session() -> AioSession:
    from aiobotocore.session import AioSession

    return AioSession()


@cache
def _config(service: Service) -> AioConfig:
    """Checksums only where we ask for them: S3 sends that of an encrypted object to those alone who may write it."""
    from aiobotocore.config import AioConfig

    return AioConfig(
        signature_version="s3v4" if service == "s3" else "v4",  # signed addresses would be of the old kind
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_appid="bonito",
        http_session_cls=_http_session(),
    )


@cache
def _http_session() -> type:
    from aiobotocore.httpsession import AIOHTTPSession

    class Session(AIOHTTPSession):  # type: ignore[misc]
        """Reads the list of authorities once per process: every client would for itself, for 17 ms."""

        contexts: ClassVar[dict[object, SSLContext]] = {}

        def _build_verify_context(self) -> SSLContext:
            if self._verify not in self.contexts:
                self.contexts[self._verify] = super()._build_verify_context()
            return self.contexts[self._verify]

    return Session
