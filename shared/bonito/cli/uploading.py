"""Bringing files into a knowledge base: addresses first, then the files to wherever they lead, then the documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from bonito.cli.session import TIMEOUT, CommandFailed, Session, refusal, unreachable

PIECE_BYTES = 2**20


def upload(
    session: Session,
    name: str,
    files: Sequence[tuple[Path, str]],
    *,
    metadata: dict[str, Any] | None,
    advance: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Bring some files in one upload.

    Args:
        session: of the command.
        name: of the knowledge base.
        files: each with its name there.
        metadata: for every one of them; None leaves what known documents have.
        advance: told whenever a file is there.

    Returns:
        The documents, in the files' order.

    Raises:
        CommandFailed: something was refused; nothing of these files became a document.
    """
    path = f"/api/knowledge-bases/{name}/uploads"
    described = [_described(file, shown, metadata) for file, shown in files]
    begun = session.request("POST", path, json={"files": described})
    # A client of its own: the token is for this API, not for a cloud's store.
    with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
        for (file, _), address in zip(files, begun["files"], strict=True):
            if address["url"] is not None:
                _put(client, file, address)
            advance(1)
    items: list[dict[str, Any]] = session.request("POST", f"{path}/{begun['id']}/complete")["items"]
    return items


def parse_metadata(text: str | None) -> dict[str, Any] | None:
    """The JSON object of an option; CommandFailed."""
    if text is None:
        return None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise CommandFailed(f"The metadata is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise CommandFailed("The metadata is not a JSON object.")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is none")


def _described(file: Path, shown: str, metadata: dict[str, Any] | None) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as opened:
        while piece := opened.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    described = {"name": shown, "size": size, "sha256": digest.hexdigest()}
    return described | ({"metadata": metadata} if metadata is not None else {})


def _put(client: httpx.Client, file: Path, address: dict[str, Any]) -> None:
    # With its length, since stores take no chunked bodies.
    headers = {"content-length": str(file.stat().st_size)} | address["headers"]
    try:
        with file.open("rb") as opened:
            response = client.put(address["url"], content=opened, headers=headers)
    except httpx.HTTPError as error:
        raise CommandFailed(unreachable(address["url"].partition("?")[0], error)) from error
    if response.is_error:
        raise CommandFailed(f"{file.name}: {refusal(response)}")
