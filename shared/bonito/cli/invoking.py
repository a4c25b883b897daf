"""`bonito invoke`: a function's door, called here as its cloud calls it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bonito.cli.session import Session

CLOUDS = ("aws", "azure", "gcp")


def invoke(
    session: Session,
    door: Annotated[str, typer.Argument(help="A door's module, such as functions.ingest.aws.")],
    event: Annotated[
        Path, typer.Option(help="A file with the event in JSON; events/ has one of each kind.", exists=True)
    ],
) -> None:
    """Run a function's door on an event, with the BONITO_* variables of this shell; its answer is printed."""
    cloud = door.rpartition(".")[2]
    if cloud not in CLOUDS:
        raise typer.BadParameter(f"a door ends in one of {', '.join(CLOUDS)}", param_hint="DOOR")
    try:
        body = json.loads(event.read_text())
    except ValueError as error:
        raise typer.BadParameter(f"the file is no JSON ({error})", param_hint="--event") from None
    if not isinstance(body, dict):
        raise typer.BadParameter("the file holds no JSON object", param_hint="--event")
    sys.path.insert(0, str(Path.cwd()))  # functions/ lies beside the library, and is not installed
    try:
        module = importlib.import_module(door)
        calling = importlib.import_module(f"bonito.clouds.{cloud}.invoking")
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{error.name} is not here", param_hint="DOOR") from None
    answer = calling.invoke(module, body)
    session.show(answer, lambda: json.dumps(answer, indent=2, default=str))
