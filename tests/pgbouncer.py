"""PgBouncer in transaction mode before a test's database: each transaction may meet another server connection."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 120.0

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
default_pool_size = {server_connections}
max_client_conn = 200
logfile = {folder}/pgbouncer.log
"""


@contextmanager
def proxied(socket_dir: str, *, database: str, login: str, server_connections: int) -> Iterator[str]:
    """The URL of a login through a proxy with so many connections to the server for everybody.

    The proxy answers when this returns, unless the database or the login is still to be made.
    """
    owner = os.stat(socket_dir)  # whoever may reach the socket; PgBouncer refuses to be root
    identity = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.getuid() == 0 else {}
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="bonito-pgbouncer-"))
    folder.chmod(0o777)
    (folder / "users.txt").write_text(f'"{login}" ""\n')
    configuration = CONFIGURATION.format(
        database=database, socket_dir=socket_dir, port=port, folder=folder, server_connections=server_connections
    )
    (folder / "pgbouncer.ini").write_text(configuration)
    process = subprocess.Popen(
        ["pgbouncer", "--quiet", str(folder / "pgbouncer.ini")],
        stderr=subprocess.DEVNULL,
        **identity,  # type: ignore[call-overload]
    )
    try:
        _wait_for(port, process, folder / "pgbouncer.log")
        yield f"postgresql://{login}@127.0.0.1:{port}/{database}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Its own console takes connections before any database does."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text() if log.exists() else "(no log)"
                raise AssertionError(f"PgBouncer does not answer:\n{said}") from error
            time.sleep(0.05)
