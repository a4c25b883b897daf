"""A `bonito up` of a benchmark's own: a process on a port and in a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

BONITO = Path(sys.executable).with_name("bonito")


@contextmanager
def running(data_dir: Path, arguments: Sequence[str] = ()) -> Iterator[tuple[httpx.Client, float]]:
    """Start it; a client of /api as the owner, and the seconds until it said that it is ready. Stopped at the end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BONITO_", "OPENAI_"))}
    begun = time.perf_counter()
    with subprocess.Popen(
        [str(BONITO), "up", "--port", "0", "--data-dir", str(data_dir), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "is ready" in line:
                    break
            else:
                raise RuntimeError("`bonito up` ended before it was ready")
            ready_s = time.perf_counter() - begun
            known = json.loads((data_dir / "credentials.json").read_text())
            headers = {"authorization": f"Bearer {known['personal_token']}"}
            with httpx.Client(base_url=known["api_url"], headers=headers, trust_env=False, timeout=60) as client:
                yield client, ready_s
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
