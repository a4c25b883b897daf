"""Azurite, Microsoft's emulator of Azure Storage, as a process on loopback: blobs and queues, in memory."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bonito.clouds.azure.credentials import AccountKey

FOLDER = Path(__file__).parent / "azurite"
# Published with Azurite: the one account of an emulator.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
LISTENING = re.compile(r"Azurite (Blob|Queue|Table) service is successfully listening at (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class Azurite:
    """A running emulator."""

    blob_url: str
    queue_url: str
    access: AccountKey

    @property
    def connection_string(self) -> str:
        endpoints = f"BlobEndpoint={self.blob_url};QueueEndpoint={self.queue_url};"
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};{endpoints}"


@contextmanager
def running() -> Iterator[Azurite]:
    """Start it on ports of its own; a visible skip where it is not installed."""
    program = FOLDER / "node_modules" / ".bin" / "azurite"
    if not program.exists():
        pytest.skip("Azurite is not installed; `make test` installs it where there is npm")
    options = [
        "--inMemoryPersistence",
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--disableProductStyleUrl",
        "--silent",
    ]
    ports = ["--blobPort", "0", "--queuePort", "0", "--tablePort", "0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([program, *options, *ports], cwd=folder, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            yield Azurite(**_addresses(process), access=AccountKey(ACCOUNT, KEY))
        finally:
            process.terminate()
            process.communicate()


def _addresses(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read what it prints until all three services listen."""
    assert process.stdout is not None
    found: dict[str, str] = {}
    for line in process.stdout:
        if match := LISTENING.search(line):
            found[match[1]] = f"{match[2]}/{ACCOUNT}"
        if len(found) == 3:
            return {"blob_url": found["Blob"], "queue_url": found["Queue"]}
    raise AssertionError(f"Azurite ended while it started: {process.wait()}")
