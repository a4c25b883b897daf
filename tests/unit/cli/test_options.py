"""Every command has the common options, and what it was given reaches /api as it is documented there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bonito.cli.app import app

# They run until they are stopped, and log to stderr.
SERVERS = {"serve gateway", "serve console", "worker"}
# They work on the database or the data directory, or ask /v1.
WITHOUT_API = SERVERS | {
    "up",
    "migrate",
    "admin create-organization",
    "admin rotate-secrets",
    "admin set-tier",
    "chat",
    "invoke",
}


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Typer's own kind of click's commands, by what is typed."""
    if not hasattr(group, "commands"):
        yield name, group
        return
    for part, each in group.commands.items():
        yield from commands(each, f"{name} {part}".strip())


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_the_common_options(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}

    assert {"--json", "--quiet"} & options == (set() if name in SERVERS else {"--json", "--quiet"})
    assert {"--api-url", "--api-key"} & options == (set() if name in WITHOUT_API else {"--api-url", "--api-key"})


def test_the_exceptions_are_commands() -> None:
    assert set(COMMANDS) > WITHOUT_API


@pytest.fixture
def api() -> Iterator[tuple[str, list[Any]]]:
    """An /api on the loopback that answers an empty object, and remembers what it was sent."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"documents": {"error": 2}})

        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._answer({"path": self.path})

        def _answer(self, answer: object) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("arguments", "stdin", "body"),
    [
        (
            "providers add bedrock --type litellm --region eu-central-1 --credential aws_access_key_id "
            "--credential aws_secret_access_key --credential profile=main",
            "AKIA\nsecret\n",
            {
                "name": "bedrock", "type": "litellm", "region": "eu-central-1",
                "credential": {"aws_access_key_id": "AKIA", "aws_secret_access_key": "secret", "profile": "main"},
            },
        ),
        (
            "providers add claude --type litellm --vendor anthropic --api-key-stdin",
            "sk-1\n",
            {"name": "claude", "type": "litellm", "vendor": "anthropic", "credential": {"api_key": "sk-1"}},
        ),
        ("providers add open", "", {"name": "open", "type": "openai_compatible"}),
        ("keys create app", "", {"name": "app"}),
        (
            "keys create app --knowledge-base hr --knowledge-base legal",
            "",
            {"name": "app", "knowledge_bases": ["hr", "legal"]},
        ),
        ("keys rotate 7", "", {}),
        ("keys rotate 7 --overlap 0", "", {"overlap_hours": 0}),
        (
            'kb create hr --sync-schedule @daily --timezone Europe/Berlin --metadata {"team":"hr"}',
            "",
            {
                "name": "hr", "source": {"type": "upload"}, "sync_schedule": "@daily",
                "sync_timezone": "Europe/Berlin", "metadata": {"team": "hr"},
            },
        ),
        ("kb retry hr", "", {"retry_failed": False}),
        ("kb retry hr --failed", "", {"retry_failed": True}),
    ],
)  # fmt: skip
def test_options_reach_the_api(api: tuple[str, list[Any]], arguments: str, stdin: str, body: dict[str, Any]) -> None:
    url, received = api

    done = CliRunner().invoke(app, [*arguments.split(), "--api-url", url, "--api-key", "bp-x"], input=stdin)

    assert done.exit_code == 0, done.output
    assert received == [body]


def test_a_retry_tells_of_what_it_left_out(api: tuple[str, list[Any]]) -> None:
    common = ["--api-url", api[0], "--api-key", "bp-x"]

    assert "--failed" in CliRunner().invoke(app, ["kb", "retry", "hr", *common]).stdout
    assert "--failed" not in CliRunner().invoke(app, ["kb", "retry", "hr", "--failed", *common]).stdout


@pytest.mark.parametrize("field", ["=x", "token=", "token"])
def test_a_field_of_a_credential_has_a_name_and_a_value(field: str) -> None:
    refused = CliRunner().invoke(app, ["providers", "add", "x", "--credential", field, "--api-key", "bp-x"])

    assert refused.exit_code == 2
    assert "credential" in refused.stderr


def test_the_migration_is_sql_in_text_and_in_json() -> None:
    text = CliRunner().invoke(app, ["migrate", "--sql"]).stdout
    answer = json.loads(CliRunner().invoke(app, ["migrate", "--sql", "--json"]).stdout)

    assert "CREATE TABLE kb_documents" in text
    assert answer == {"sql": text}
