"""The common part of every command: options, credentials, refusals, and text that steers no terminal."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from bonito.cli import session as under_test
from bonito.cli.session import CommandFailed, Session, command
from bonito.errors import InvalidSettings

KNOWN = {"api_url": "http://127.0.0.1:4000/", "personal_token": "bp-known", "gateway_key": "bn-known"}


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("BONITO_API_URL", "BONITO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BONITO_DATA_DIR", str(tmp_path))
    return tmp_path


def run(*arguments: str, fails_with: Exception | None = None) -> Result:
    """Run a command of two parameters that shows its session."""
    app = typer.Typer()

    @command(app, "look")
    def look(session: Session, name: str, count: int = 1) -> None:
        """Look."""
        if fails_with is not None:
            raise fails_with
        session.show([session.api_url, session.api_key, name, count], lambda: f"[bold]{name}[/bold]")

    @command(app, "other")
    def other(session: Session) -> None:
        """Make it a group of commands."""

    return CliRunner().invoke(app, ["look", *arguments])


def test_a_command_has_its_own_options_and_the_common_ones(data_dir: Path) -> None:
    shown = run("x", "--count", "3", "--json", "--api-url", "http://elsewhere/", "--api-key", "bp-given")

    assert json.loads(shown.stdout) == ["http://elsewhere", "bp-given", "x", 3]


def test_the_session_is_no_option(data_dir: Path) -> None:
    assert run("x", "--session", "y").exit_code == 2


def test_credentials_come_from_the_data_directory(data_dir: Path) -> None:
    (data_dir / "credentials.json").write_text(json.dumps(KNOWN))

    assert json.loads(run("x", "--json").stdout) == ["http://127.0.0.1:4000", "bp-known", "x", 1]


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"'])
def test_a_broken_credentials_file_is_none(data_dir: Path, content: str) -> None:
    (data_dir / "credentials.json").write_text(content)

    assert json.loads(run("x", "--json").stdout) == ["http://127.0.0.1:8000", "", "x", 1]


def test_the_environment_wins_over_the_data_directory(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data_dir / "credentials.json").write_text(json.dumps(KNOWN))
    monkeypatch.setenv("BONITO_API_KEY", "bp-environment")

    assert json.loads(run("x", "--json").stdout)[1] == "bp-environment"


def test_text_is_shown_as_it_is_and_quiet_shows_none(data_dir: Path) -> None:
    assert run("x").stdout == "[bold]x[/bold]\n"
    assert run("x", "--quiet").stdout == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CommandFailed("No."), "bonito: No.\n"),
        (InvalidSettings("BONITO_X is not a setting"), "bonito: BONITO_X is not a setting\n"),
        (PermissionError(13, "Permission denied", "/secret.txt"), "bonito: /secret.txt: Permission denied\n"),
        (CommandFailed("two\nlines \x1b[31mred"), "bonito: two lines  [31mred\n"),
    ],
    ids=["failed", "refused", "file", "control-characters"],
)
def test_what_fails_on_purpose_is_one_line_and_status_1(data_dir: Path, error: Exception, line: str) -> None:
    failed = run("x", fails_with=error)

    assert (failed.exit_code, failed.stdout, failed.stderr) == (1, "", line)


def test_what_fails_by_mistake_is_not_hidden(data_dir: Path) -> None:
    failed = run("x", fails_with=ZeroDivisionError())

    assert isinstance(failed.exception, ZeroDivisionError)


def test_no_token_is_told_before_anything_is_called() -> None:
    with pytest.raises(CommandFailed, match="BONITO_API_KEY"):
        Session(as_json=False, quiet=False, api_url="http://127.0.0.1:9", api_key="").get("/api/keys")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"detail": "There is no such base.", "title": "Not found"}', "There is no such base."),
        (b'{"error": {"message": "No such model.", "code": "model_not_found"}}', "No such model."),
        (b'{"title": "Not found"}', "The server answered 404 Not Found."),
        (b"[]", "The server answered 404 Not Found."),
        (b"<html>", "The server answered 404 Not Found."),
        (b"", "The server answered 404 Not Found."),
    ],
)
def test_a_refusal_is_the_servers_own_sentence(body: bytes, sentence: str) -> None:
    assert under_test.refusal(httpx.Response(404, content=body)) == sentence


def test_cells_show_values_as_they_are() -> None:
    table = under_test.table([{"a": "[red]x[/]\x1b[0m\n", "b": None, "c": True, "d": {"k": "ü"}, "e": []}], *"abcdef")

    assert [str(next(iter(column.cells))) for column in table.columns] == [
        "[red]x[/] [0m ",
        "-",
        "yes",
        '{"k": "ü"}',
        "-",
        "-",
    ]
