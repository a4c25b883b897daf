"""`bonito kb …`: knowledge bases and their documents."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.progress import Progress

from bonito.cli import uploading
from bonito.cli.connections import id_of
from bonito.cli.session import CommandFailed, Session, command, console, fields, refusal, table, unreachable
from bonito.clouds.local import is_ignored

app = typer.Typer(no_args_is_help=True, help="Knowledge bases: create, fill, search, export.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the knowledge base.")]
FILES_PER_UPLOAD = 20
POLL_S = 0.5
PASSAGE_SHOWN = 160


@command(app, "list")
def list_bases(session: Session) -> None:
    """List the knowledge bases of the organization."""
    bases = list(session.items("/api/knowledge-bases"))
    session.show(bases, lambda: table(bases, "name", "status", "document_count", "chunk_count", "last_synced_at", "id"))


@command(app, "create")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, dots, dashes; unique in the organization.")],
    source: Annotated[str, typer.Option(help="upload, local, s3, azure_blob or gcs.")] = "upload",
    path: Annotated[Path | None, typer.Option(help="local: the folder to follow.")] = None,
    bucket: Annotated[str | None, typer.Option(help="s3, gcs: the bucket.")] = None,
    container: Annotated[str | None, typer.Option(help="azure_blob: the container.")] = None,
    account: Annotated[str | None, typer.Option(help="azure_blob: the storage account.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only objects below this prefix.")] = None,
    region: Annotated[str | None, typer.Option(help="s3: the bucket's region.")] = None,
    connection: Annotated[str | None, typer.Option(help="Name or id of the connection that may read it.")] = None,
    description: Annotated[str | None, typer.Option(help="What is in it.")] = None,
    chunk_size: Annotated[int | None, typer.Option(help="Tokens per chunk at most.")] = None,
    chunk_overlap: Annotated[int | None, typer.Option(help="Tokens that neighbouring chunks share.")] = None,
    embedding_model: Annotated[str | None, typer.Option(help="auto, or provider/model.")] = None,
    language: Annotated[str | None, typer.Option(help="auto, or a text search configuration of Postgres.")] = None,
    sync_schedule: Annotated[str | None, typer.Option(help="A cron expression.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Of the schedule, as Europe/Berlin; UTC without.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object about the knowledge base.")] = None,
) -> None:
    """Create a knowledge base over a source."""
    folder = str(path.resolve()) if path else None
    described = {
        "type": source, "path": folder, "bucket": bucket, "container": container, "account": account,
        "prefix": prefix, "region": region, "connection": id_of(session, connection) if connection else None,
    }  # fmt: skip
    body = {
        "name": name, "description": description, "source": _given(described), "chunk_size": chunk_size,
        "chunk_overlap": chunk_overlap,
        "embedding_model": embedding_model, "language": language, "sync_schedule": sync_schedule,
        "sync_timezone": timezone, "metadata": None if metadata is None else _object(metadata),
    }  # fmt: skip
    answer = session.request("POST", "/api/knowledge-bases", json=_given(body))
    session.show(answer, lambda: fields(answer))


@command(app, "info")
def info(session: Session, name: NameArgument) -> None:
    """Show a knowledge base and what is in force for it."""
    answer = session.get(f"/api/knowledge-bases/{name}")
    session.show(answer, lambda: fields(answer))


@command(app, "stats")
def stats(session: Session, name: NameArgument) -> None:
    """Count its documents by status, chunks, tokens and bytes."""
    answer = session.get(f"/api/knowledge-bases/{name}/stats")
    session.show(answer, lambda: fields(answer))


@command(app, "delete")
def delete(
    session: Session, name: NameArgument, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete a knowledge base with all its chunks; the source's own files stay, uploads go."""
    if not yes and not sys.stdin.isatty():
        raise CommandFailed(f"Nothing was deleted: nobody can be asked here, so say --yes to delete {name}.")
    if not yes and not typer.confirm(f"Delete {name} and all its chunks?"):
        raise CommandFailed("Nothing was deleted.")
    session.request("DELETE", f"/api/knowledge-bases/{name}")
    session.show({"deleted": name}, lambda: f"Deleted {name}.")


@command(app, "docs")
def docs(
    session: Session,
    name: NameArgument,
    status: Annotated[
        str | None, typer.Option(help="pending, processing, ready, ready_with_warnings or error.")
    ] = None,
) -> None:
    """List its documents with their status and, where one failed, why."""
    documents = list(session.items(f"/api/knowledge-bases/{name}/documents", status=status))
    session.show(
        documents,
        lambda: table(documents, "name", "status", "chunk_count", "page_count", "size", "error", "warnings", "id"),
    )


@command(app, "upload")
def upload(
    session: Session,
    name: NameArgument,
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE…|DIR", exists=True, help="Files, or folders with all below them.")
    ],
    metadata: Annotated[str | None, typer.Option(help="A JSON object for every one of these documents.")] = None,
) -> None:
    """Upload files into a knowledge base with source `upload`."""
    files = list(_files_below(paths))
    if not files:
        raise CommandFailed("There is no file below the given paths.")
    described, uploaded = uploading.parse_metadata(metadata), list[dict[str, Any]]()
    with _progress(session, len(files)) as advance:
        for start in range(0, len(files), FILES_PER_UPLOAD):
            batch = files[start : start + FILES_PER_UPLOAD]
            uploaded += uploading.upload(session, name, batch, metadata=described, advance=advance)
    session.show(uploaded, lambda: table(uploaded, "name", "status", "size", "id"))


@command(app, "sync")
def sync(
    session: Session,
    name: NameArgument,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the sync has ended; status 1 if it failed.")
    ] = False,
) -> None:
    """Compare a knowledge base with its source, now."""
    answer = session.request("POST", f"/api/knowledge-bases/{name}/sync", json={})
    if wait:
        answer = _wait_for_sync(session, name)
    session.show(answer, lambda: fields(answer))
    if wait and answer["status"] == "error":
        raise CommandFailed(f"The sync of {name} failed.")


@command(app, "retry")
def retry(
    session: Session,
    name: NameArgument,
    failed: Annotated[bool, typer.Option("--failed", help="Those too that failed, or wait after a failure.")] = False,
) -> None:
    """Compare a knowledge base with its source again, and send to work what is new or changed, or failed."""
    answer = session.request("POST", f"/api/knowledge-bases/{name}/sync", json={"retry_failed": failed})
    session.show(answer, lambda: fields(answer))
    if failed or session.as_json or session.quiet:
        return
    if count := session.get(f"/api/knowledge-bases/{name}/stats")["documents"].get("error", 0):
        session.say(f"Documents that failed: {count}. With --failed they are tried again too.")


@command(app, "syncs")
def syncs(session: Session, name: NameArgument) -> None:
    """List the syncs of a knowledge base, the newest first, and what each found."""
    found = list(session.items(f"/api/knowledge-bases/{name}/syncs"))
    shown = (
        "started_at",
        "trigger",
        "status",
        "files_added",
        "files_changed",
        "files_removed",
        "files_failed",
        "error",
    )
    session.show(found, lambda: table(found, *shown))


@command(app, "webhook")
def webhook(
    session: Session,
    name: NameArgument,
    remove: Annotated[bool, typer.Option("--remove", help="Take the webhook away.")] = False,
) -> None:
    """Make a knowledge base's webhook, or give it another secret; shows the address and the secret, this once."""
    path = f"/api/knowledge-bases/{name}/webhook"
    answer = session.request("DELETE" if remove else "POST", path)
    session.show(answer, lambda: fields(answer) if answer else "The webhook is gone.")


@command(app, "search")
def search(
    session: Session,
    name: NameArgument,
    query: Annotated[str, typer.Argument(help="A question, or words.")],
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=100, help="Results at most.")] = 5,
    mode: Annotated[str, typer.Option(help="hybrid, vector or keyword.")] = "hybrid",
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score, 0 to 1.")] = 0.0,
    filter_: Annotated[
        str | None, typer.Option("--filter", help="A JSON object that a document's metadata must contain.")
    ] = None,
) -> None:
    """Search a knowledge base; shows what a question would find."""
    body = {"query": query, "top_k": top_k, "mode": mode, "min_score": min_score, "filter": _object(filter_)}
    answer = session.request("POST", f"/api/knowledge-bases/{name}/search", json=body)
    rows = [
        result | {"score": f"{result['score']:.3f}", "passage": " ".join(result["content"].split())[:PASSAGE_SHOWN]}
        for result in answer["results"]
    ]
    session.show(
        answer,
        lambda: table(rows, "score", "document_name", "page", "section", "passage") if rows else "Nothing found.",
    )


@command(app, "export")
def export(session: Session, name: NameArgument) -> None:
    """Write documents, chunks and vectors to stdout, a JSON object a line."""
    with session.client() as client:
        try:
            with client.stream("GET", f"/api/knowledge-bases/{name}/export") as response:
                if response.is_error:
                    response.read()
                    raise CommandFailed(refusal(response))
                for piece in response.iter_bytes():
                    sys.stdout.buffer.write(piece)
        except httpx.HTTPError as error:
            raise CommandFailed(unreachable(session.api_url, error)) from error
    sys.stdout.flush()


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise typer.BadParameter(f"{text} is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{text} is not a JSON object.")
    return value


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _files_below(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Each file with its name in the knowledge base: below a folder, the path relative to it.

    Below a folder, what editors and systems leave beside documents is passed over, as in a watched folder.
    """
    for path in paths:
        if path.is_file():
            yield path, path.name
            continue
        for file in sorted(path.rglob("*")):
            relative = file.relative_to(path)
            if file.is_file() and not is_ignored(relative.as_posix()):
                yield file, relative.as_posix()


@contextlib.contextmanager
def _progress(session: Session, total: int) -> Iterator[Any]:
    """A bar on a terminal, nothing elsewhere."""
    if session.as_json or session.quiet or not sys.stdout.isatty():
        yield lambda _: None
        return
    with Progress(console=console(), transient=True) as bar:
        task = bar.add_task("Uploading", total=total)
        yield lambda count: bar.advance(task, count)


def _wait_for_sync(session: Session, name: str) -> dict[str, Any]:
    with _progress(session, 100) as advance:
        shown = 0.0
        while True:
            status: dict[str, Any] = session.get(f"/api/knowledge-bases/{name}/sync-status")
            advance(status["progress_percentage"] - shown)
            shown = status["progress_percentage"]
            if status["finished_at"] is not None:
                return status
            time.sleep(POLL_S)
