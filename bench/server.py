"""The Postgres of a benchmark: the embedded one as `bonito up` has it, in a directory of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bonito.local import postgres
from bonito.local.postgres import DatabaseUrls


@dataclass(frozen=True)
class Server:
    """A migrated database by its logins, and the server's process."""

    urls: DatabaseUrls
    pid: int


@contextmanager
def running() -> Iterator[Server]:
    """Start it with nothing changed; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="bonito-bench-", ignore_cleanup_errors=True) as folder:
        directory = Path(folder) / "postgres"
        with postgres.running(directory) as urls:
            yield Server(urls, int((directory / "postmaster.pid").read_text().partition("\n")[0]))
