"""moto as a server on the loopback: S3, SQS and Secrets Manager over HTTP, as AWS's SDKs speak to them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from bonito.clouds.access import AwsCredentials

REGION, ACCOUNT = "us-east-1", "123456789012"


class StaticAccess:
    """A session that every emulator accepts."""

    async def credentials(self) -> AwsCredentials:
        return AwsCredentials("testing", "testing", "session")


@contextmanager
def serving() -> Iterator[str]:
    """The server's address; its state begins empty."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
