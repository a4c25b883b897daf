"""A function under Google's own framework, in a process of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.emulators.processes import free_port, listening

ROOT = Path(__file__).parents[2]


@contextmanager
def function(source: Path, target: str, *, folder: Path, env: Mapping[str, str]) -> Iterator[str]:
    """Its address; its log lies in `folder`."""
    port = free_port()
    command = [sys.executable, "-m", "functions_framework", "--source", str(source), "--target", target]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    named = {"PYTHONPATH": str(ROOT), **env}
    log = folder / f"{target}.log"
    # As a host may end it: at any moment, with all its children.
    with listening(command, port, log=log, env=named, cwd=folder, stop=signal.SIGKILL):
        yield f"http://127.0.0.1:{port}"
