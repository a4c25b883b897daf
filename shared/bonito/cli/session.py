"""What every command shares: where the deployment is, how an answer is shown, and which exit status an error has."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bonito.errors import BonitoError

REFUSED = 1
PAGE_SIZE = 100
UNBOUNDED = 1_000_000  # columns of a stdout that is no terminal
# An upload of 50 MB over a slow line takes a while; a sync answers at once.
TIMEOUT = httpx.Timeout(300.0, connect=10.0)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout, and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
UrlOption = Annotated[str | None, typer.Option("--api-url", envvar="BONITO_API_URL", help="Where /api is.")]
KeyOption = Annotated[str | None, typer.Option("--api-key", envvar="BONITO_API_KEY", help="A personal token, bp-….")]


class CommandFailed(Exception):
    """A refusal or failure that the user sees as one line on stderr; exit status 1."""


@dataclass(frozen=True)
class Session:
    """One call of the command."""

    as_json: bool
    quiet: bool
    api_url: str
    api_key: str

    def get(self, path: str, **params: Any) -> Any:  # noqa: ANN401 - JSON
        """GET below /api; CommandFailed with the server's own sentence."""
        return self.request("GET", path, params={name: value for name, value in params.items() if value is not None})

    def request(self, method: str, path: str, **arguments: Any) -> Any:  # noqa: ANN401 - JSON, httpx' arguments
        """Call /api and return its JSON, None where the answer is empty; CommandFailed."""
        with self.client() as client:
            try:
                response = client.request(method, path, **arguments)
            except httpx.HTTPError as error:
                raise CommandFailed(unreachable(self.api_url, error)) from error
        if response.is_error:
            raise CommandFailed(refusal(response))
        return response.json() if response.content else None

    def client(self) -> httpx.Client:
        """A client bound to this deployment; the caller closes it."""
        if not self.api_key:
            raise CommandFailed(
                "No token: set BONITO_API_KEY or --api-key, or point BONITO_DATA_DIR to what `bonito up` keeps."
            )
        headers = {"authorization": f"Bearer {self.api_key}"}
        return httpx.Client(base_url=self.api_url, headers=headers, timeout=TIMEOUT, trust_env=False)

    def items(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        cursor: str | None = None
        while True:
            page = self.get(path, limit=PAGE_SIZE, cursor=cursor, **params)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def show(self, answer: object, text: Callable[[], object] | None = None) -> None:
        """Print the answer: as JSON where asked, else what `text` makes of it."""
        if self.as_json:
            sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
        elif not self.quiet and text is not None:
            console().print(text(), markup=False, highlight=False)

    def say(self, sentence: str) -> None:
        """A sentence for a person; nothing with --json or --quiet."""
        if not self.as_json and not self.quiet:
            console().print(sentence, markup=False, highlight=False)


def console() -> Console:
    """Plain text, without colour or spinner, and nothing cut off, where stdout is no terminal."""
    return Console() if sys.stdout.isatty() else Console(soft_wrap=True, width=UNBOUNDED)


def table(rows: Sequence[Mapping[str, Any]], *columns: str) -> Table:
    """The named members of each row, as a table."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        result.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        result.add_row(*(_cell(row.get(column)) for column in columns))
    return result


def fields(answer: Mapping[str, Any]) -> Table:
    """Every member of one object, a line each."""
    result = Table(box=None, pad_edge=False, show_header=False)
    result.add_column(style="bold")
    result.add_column(overflow="fold")
    for name, value in answer.items():
        result.add_row(name.replace("_", " "), _cell(value))
    return result


def refusal(response: httpx.Response) -> str:
    """The server's own sentence, from problem details or an OpenAI error, with the status where it has none."""
    try:
        body = response.json()
    except ValueError:
        return f"The server answered {response.status_code} {response.reason_phrase}."
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return str(body["error"].get("message"))
    if isinstance(body, dict) and body.get("detail"):
        return str(body["detail"])
    return f"The server answered {response.status_code} {response.reason_phrase}."


def unreachable(url: str, error: httpx.HTTPError) -> str:
    """Why nothing came back, and what to look at."""
    reason = str(error) or type(error).__name__
    return f"No answer from {url} ({reason}). Is `bonito up` running, and is BONITO_API_URL right?"


def command(
    app: typer.Typer, name: str, *, calls_api: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function whose first parameter is the session; the common options take its place.

    One that does not call /api has no options for where that is, and a session that could not call it.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)

        @functools.wraps(function)
        def run(
            *,
            as_json: bool,
            quiet: bool,
            api_url: str | None = None,
            api_key: str | None = None,
            **arguments: Any,
        ) -> None:
            known = saved_credentials() if calls_api else {}
            session = Session(
                as_json=as_json,
                quiet=quiet,
                api_url=(api_url or known.get("api_url") or "http://127.0.0.1:8000").rstrip("/"),
                api_key=api_key or known.get("personal_token") or "",
            )
            reporting_errors(function)(session, **arguments)

        common: dict[str, tuple[Any, object]] = {
            "as_json": (JsonOption, False),
            "quiet": (QuietOption, False),
        }
        if calls_api:
            common |= {"api_url": (UrlOption, None), "api_key": (KeyOption, None)}
        own = list(signature.parameters.values())[1:]
        added = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for option, (annotation, default) in common.items()
        ]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + added
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return app.command(name)(run)

    return register


def reporting_errors(function: Callable[..., None]) -> Callable[..., None]:
    """One line on stderr and exit status 1 for whatever Bonito refuses or fails at on purpose."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> None:
        try:
            function(*arguments, **named)
        except CommandFailed as error:
            failure = str(error)
        except BonitoError as error:
            failure = error.message
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `bonito kb export | head` is no failure
            return
        except OSError as error:
            failure = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        else:
            return
        sys.stderr.write(f"bonito: {plain(failure)}\n")
        raise typer.Exit(REFUSED)

    return run


def saved_credentials() -> dict[str, str]:
    """What `bonito up` keeps in its data directory; {} where there is none."""
    path = Path(os.environ.get("BONITO_DATA_DIR", ".bonito")) / "credentials.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def plain(text: str) -> str:
    """What came from elsewhere, a document's name or passage, without what would steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _cell(value: object) -> Text:
    """A value as it is: brackets in it are no markup."""
    if value is None:
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, (dict, list)):
        return Text(plain(json.dumps(value, ensure_ascii=False)) if value else "-")
    return Text(plain(str(value)))
