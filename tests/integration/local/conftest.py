"""A transaction-pooling proxy before the database of a test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.integration.conftest import Cluster, Database

CONFIGURATION = """
[databases]
{database} = host={socket_dir} dbname={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 3
"""


@pytest.fixture
def proxy_url(cluster: Cluster, database: Database) -> Iterator[str]:
    """The runtime's address through PgBouncer, with three connections to the server for everybody."""
    name = str(conninfo_to_dict(database.runtime_url)["dbname"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="bonito-pgbouncer-"))
    folder.chmod(0o755)
    (folder / "users.txt").write_text('"test_runtime" ""\n')
    (folder / "pgbouncer.ini").write_text(
        CONFIGURATION.format(database=name, socket_dir=cluster.socket_dir, port=port, folder=folder)
    )
    owner = os.stat(cluster.socket_dir).st_uid  # PgBouncer refuses to be root
    user = (owner or "nobody") if os.getuid() == 0 else None
    process = subprocess.Popen(["pgbouncer", "--quiet", str(folder / "pgbouncer.ini")], user=user)
    try:
        url = f"postgresql://test_runtime@127.0.0.1:{port}/{name}"
        _wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("PgBouncer does not answer") from error
            time.sleep(0.05)
        else:
            return
