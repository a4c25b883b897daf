"""A function under Google's own framework, in a process of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.emulators.processes import free_port, listening

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Function:
    """A running one; `pid` is that of gunicorn's master, which starts a new worker for one that ended."""

    url: str
    pid: int

    def kill(self) -> None:
        """End whatever runs in it as an instance ends that is out of memory: at once."""
        workers = psutil.Process(self.pid).children()
        assert workers
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()


@contextmanager
def function(source: Path, target: str, *, folder: Path, env: Mapping[str, str]) -> Iterator[Function]:
    """Its log lies in `folder`."""
    port = free_port()
    command = [sys.executable, "-m", "functions_framework", "--source", str(source), "--target", target]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    named = {"PYTHONPATH": str(ROOT), **env}
    log = folder / f"{target}.log"
    # As a host may end it: at any moment, with all its children.
    with listening(command, port, log=log, env=named, cwd=folder, stop=signal.SIGKILL) as process:
        yield Function(f"http://127.0.0.1:{port}", process.pid)
