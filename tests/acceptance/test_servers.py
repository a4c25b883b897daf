"""Servers on a Postgres of one's own, set up word for word as docs/operations.md says, behind a transaction proxy."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import psycopg
import pytest

from bonito.local import postgres
from tests.acceptance import provider
from tests.acceptance.conftest import BONITO, ROOT, eventually
from tests.pgbouncer import proxied
from tests.stub_provider import StubProvider

DATABASE, BY_HAND = "bonito", "by_hand"
OWNER = "owner@example.com"
SECRET = "sk-canary-of-the-servers"


@dataclass
class Deployment:
    """Three processes on one database, and the environment that they share with the command."""

    folder: Path
    socket_dir: str
    environment: dict[str, str] = field(default_factory=dict)
    gateway: int = 0
    console: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def url(self, login: str, database: str = DATABASE) -> str:
        return f"postgresql://{login}@/{database}?host={self.socket_dir}"

    def run(self, *arguments: str, status: int = 0, stdin: str | None = None, **environment: str) -> str:
        """Run the command; stdout where it succeeds, else stderr."""
        done = subprocess.run(
            [str(BONITO), *arguments],
            capture_output=True,
            text=True,
            env=self.environment | environment,
            input=stdin,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, f"exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout if status == 0 else done.stderr

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        return json.loads(self.run(*arguments, "--json", stdin=stdin))

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(BONITO), *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
            )

    def wait_for(self, name: str, port: int) -> None:
        """Return once the server says that it is ready; its log is in the failure."""

        def state() -> str:
            ended = self.processes[name].poll() is not None
            return "ready" if answers(f"http://127.0.0.1:{port}/readyz") else self.logs() if ended else ""

        assert eventually(state, bool) == "ready"

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(300)
        finally:
            process.kill()

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


def documented_sql() -> list[str]:
    """The SQL of the operations page, block by block, with passwords."""
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.S)
    return [block.replace("'…'", "'correct horse'") for block in blocks]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def own_postgres() -> Iterator[str]:
    """A server that Bonito knows nothing of; the folder of its socket."""
    with (
        tempfile.TemporaryDirectory(prefix="bonito-own-", ignore_cleanup_errors=True) as folder,
        postgres.started(Path(folder) / "data") as socket_dir,
    ):
        yield socket_dir


def accepts(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    """The database, set up as documented and migrated; no server is running yet."""
    if shutil.which("pgbouncer") is None:
        pytest.skip("pgbouncer is not installed")
    first, second = documented_sql()
    with ExitStack() as stack:
        socket_dir = stack.enter_context(own_postgres())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bonito-servers-")))
        made = Deployment(folder, socket_dir)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BONITO_", "OPENAI_"))}
        made.environment = kept | {
            "BONITO_DATA_DIR": str(folder / "data"),
            "BONITO_MIGRATION_DATABASE_URL": made.url("bonito_migrator"),
            "BONITO_EGRESS_ALLOW": "127.0.0.0/8",
            "BONITO_ENCRYPTION_KEY": base64.b64encode(os.urandom(32)).decode(),
        }
        with psycopg.connect(made.url("postgres", "postgres"), autocommit=True) as administrator:
            administrator.execute(f"CREATE DATABASE {DATABASE}")
            administrator.execute(f"CREATE DATABASE {BY_HAND}")
        with psycopg.connect(made.url("postgres"), autocommit=True) as administrator:
            administrator.execute(first.encode())
        made.run("migrate")
        with psycopg.connect(made.url("postgres"), autocommit=True) as administrator:
            administrator.execute(second.encode())
        made.environment["BONITO_DATABASE_URL"] = stack.enter_context(
            proxied(socket_dir, database=DATABASE, login="bonito_app", server_connections=6)
        )
        made.environment["BONITO_MAINTENANCE_DATABASE_URL"] = made.url("bonito_maintainer")
        eventually(lambda: accepts(made.environment["BONITO_DATABASE_URL"]), bool)
        yield made


@pytest.fixture(scope="module")
def running(deployment: Deployment) -> Iterator[Deployment]:
    """Gateway, console and worker, with an organization whose token the command has."""
    owner = deployment.json("admin", "create-organization", "Example Ltd", "--owner-email", OWNER)
    deployment.gateway, deployment.console = free_port(), free_port()
    deployment.start("gateway", "serve", "gateway", "--port", str(deployment.gateway))
    deployment.start("console", "serve", "console", "--port", str(deployment.console))
    deployment.start("worker", "worker")
    deployment.environment["BONITO_API_URL"] = f"http://127.0.0.1:{deployment.console}"
    deployment.environment["BONITO_API_KEY"] = owner["personal_token"]
    try:
        for name, port in (("gateway", deployment.gateway), ("console", deployment.console)):
            deployment.wait_for(name, port)
        yield deployment
    finally:
        for process in deployment.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProvider]:
    with provider.running() as started:
        yield started


@pytest.mark.needs("psql")
def test_the_printed_sql_makes_the_same_schema_by_hand(deployment: Deployment) -> None:
    with psycopg.connect(deployment.url("postgres", BY_HAND), autocommit=True) as administrator:
        administrator.execute("CREATE EXTENSION vector")
        administrator.execute(f"GRANT CREATE ON DATABASE {BY_HAND} TO bonito_migrator")
        administrator.execute("GRANT USAGE, CREATE ON SCHEMA public TO bonito_migrator WITH GRANT OPTION")
    script = deployment.run("migrate", "--sql")
    command = ["psql", "-q", "-v", "ON_ERROR_STOP=1", deployment.url("bonito_migrator", BY_HAND)]
    applied = subprocess.run(command, input=script, capture_output=True, text=True, timeout=300, check=False)
    assert applied.returncode == 0, applied.stderr[-2000:]

    assert tables(deployment, BY_HAND) == tables(deployment, DATABASE)
    again = deployment.run("migrate", BONITO_MIGRATION_DATABASE_URL=deployment.url("bonito_migrator", BY_HAND))
    assert again.startswith("The schema is at")


def tables(deployment: Deployment, database: str) -> set[tuple[str, str, str]]:
    with psycopg.connect(deployment.url("postgres", database)) as connection:
        found = connection.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
        )
        return set(found.fetchall())


@pytest.mark.parametrize("command", [("serve", "gateway", "--port", "0"), ("worker",)], ids=["serve", "worker"])
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://postgres@/bonito?host={socket_dir}", "is a superuser"),
        ("postgresql://bonito_maintainer@/bonito?host={socket_dir}", "owns tables"),
        ("postgresql://bonito_app@/postgres?host={socket_dir}", "has no schema of Bonito"),
        ("postgresql://nobody:hunter2@/bonito?host={socket_dir}", 'role "nobody" does not exist'),
        ("hunter2", "BONITO_DATABASE_URL is no connection string"),
    ],
    ids=["superuser", "owner", "no-schema", "no-login", "no-url"],
)
def test_a_process_that_may_not_start_says_why_in_one_line(
    deployment: Deployment, command: tuple[str, ...], url: str, reason: str
) -> None:
    refused = deployment.run(*command, status=1, BONITO_DATABASE_URL=url.format(socket_dir=deployment.socket_dir))

    assert reason in refused
    assert "hunter2" not in refused
    assert refused.count("\n") == 1


def test_the_main_job_through_a_transaction_proxy(running: Deployment, stub: StubProvider) -> None:
    add = ("providers", "add", "stub", "--base-url", stub.base_url, "--api-key-stdin")
    running.json(*add, stdin=f"{SECRET}\n")
    files = running.folder / "files"
    files.mkdir()
    for number in range(12):
        (files / f"note-{number}.txt").write_text(f"Note {number}: the windlass{number} is greased on day {number}.")
    running.run("kb", "create", "notes", "--embedding-model", "stub/text-embedding-3-small")
    running.run("kb", "upload", "notes", str(files))
    eventually(
        lambda: [document["status"] for document in running.json("kb", "docs", "notes")],
        lambda statuses: statuses == ["ready"] * 12,
    )
    key = running.json("keys", "create", "application")["key"]

    with openai.OpenAI(base_url=f"http://127.0.0.1:{running.gateway}/v1", api_key=key, max_retries=0) as sdk:
        answer = sdk.chat.completions.create(
            model="stub/gpt-4o",
            messages=[{"role": "user", "content": "When is the windlass7 greased?"}],
            extra_body={"bonito": {"knowledge_base": "notes"}},
        )

    assert answer.choices[0].message.content == "Twenty days a year [1]."
    assert answer.model_extra["bonito"]["sources"][0]["document"] == "note-7.txt"  # type: ignore[index]
    assert "greased on day 7" in stub.received[-1].json()["messages"][0]["content"]
    asked = ("logs", "list", "--operation", "chat.completions")
    (logged,) = eventually(lambda: running.json(*asked), lambda rows: len(rows) == 1)
    assert (logged["status"], logged["input_tokens"]) == (200, 12)
    ingested = running.json("logs", "list", "--operation", "embeddings.ingest")
    assert len(ingested) >= 12
    assert {row["model_used"] for row in ingested} == {"stub/text-embedding-3-small"}


def test_a_tampered_row_of_the_audit_log_is_named(running: Deployment) -> None:
    for name in ("first", "second", "third"):
        running.run("keys", "create", name)
    intact = running.json("audit", "verify")
    with psycopg.connect(running.url("postgres")) as administrator:
        administrator.execute("UPDATE audit_log SET actor = 'system' WHERE sequence = 2")

    tampered = running.run("audit", "verify", status=1)

    assert intact["is_intact"]
    assert intact["entries"] > 2
    assert "entry 2" in tampered


def test_a_tier_is_set_by_the_operator_and_seen_by_the_owner(running: Deployment) -> None:
    def tier() -> object:
        headers = {"authorization": f"Bearer {running.environment['BONITO_API_KEY']}"}
        url = f"http://127.0.0.1:{running.console}/api/organization"
        return httpx.get(url, headers=headers, trust_env=False).json()["tier"]

    before = tier()
    running.json("admin", "set-tier", "example ltd", "free")
    lowered = tier()
    running.json("admin", "set-tier", "Example Ltd", "enterprise")

    assert (before, lowered, tier()) == ("enterprise", "free", "enterprise")
    assert "no organization named nobody" in running.run("admin", "set-tier", "nobody", "pro", status=1)


def test_sigterm_ends_each_process_well(running: Deployment) -> None:
    statuses = {name: running.stop(name) for name in ("gateway", "console", "worker")}

    assert statuses == {"gateway": 0, "console": 0, "worker": 0}
    assert "Traceback" not in running.logs()
    assert SECRET not in running.logs()


def test_a_server_of_several_processes_answers_and_ends(running: Deployment) -> None:
    port = free_port()
    running.start("gateways", "serve", "gateway", "--port", str(port), "--workers", "2")
    running.wait_for("gateways", port)

    assert running.stop("gateways") == 0
    assert not answers(f"http://127.0.0.1:{port}/healthz")
