"""A running `bonito up` in a directory of its own, driven from outside only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

ROOT = Path(__file__).parents[2]
BONITO = Path(sys.executable).with_name("bonito")
START_S = 120.0
PATIENCE_S = 120.0  # how long a test waits for something to become true; no assertion on speed


@dataclass
class Bonito:
    """One data directory, and the process that serves it while it runs."""

    directory: Path
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    begin: int = 0  # where the log of the process that runs now begins
    said: str = ""  # what a fixture was answered, for the tests that share it

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "bonito.log"

    @property
    def credentials(self) -> dict[str, str]:
        stored: dict[str, str] = json.loads((self.data_dir / "credentials.json").read_text())
        return stored

    @property
    def clean_environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BONITO_", "OPENAI_"))}
        return kept | {"BONITO_DATA_DIR": str(self.data_dir)} | self.environment

    def start(self) -> Bonito:
        """Start the process and return once it says that it is ready."""
        self.launch()
        assert self.process is not None
        begin = self.begin
        deadline = time.monotonic() + START_S
        while "is ready" not in self.log.read_text()[begin:]:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"`bonito up` did not become ready:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)
        return self

    def launch(self) -> None:
        """Start the process, and do not wait for it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.begin = len(self.log.read_text()) if self.log.exists() else 0
        with self.log.open("a") as log:
            command = [str(BONITO), "up", "--port", "0", *self.arguments]
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.clean_environment,
                start_new_session=True,
            )

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C or another signal, and the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(300)
        self.process = None
        return status

    def kill(self) -> None:
        """`kill -9` of the process alone, as the kernel does when memory runs out."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(300)
        self.process = None

    def api(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.credentials['personal_token']}"}
        return httpx.Client(base_url=self.credentials["api_url"], headers=headers, timeout=60, trust_env=False)

    def cli(self, *arguments: str, status: int = 0, stdin: str | None = None) -> str:
        """Run the `bonito` command against this deployment and return its stdout."""
        done = subprocess.run(
            [str(BONITO), *arguments],
            capture_output=True,
            text=True,
            env=self.clean_environment,
            input=stdin,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, f"exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout if status == 0 else done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--json"))


def client(bonito: Bonito) -> openai.OpenAI:
    """The unmodified SDK, with the owner's gateway key."""
    known = bonito.credentials
    return openai.OpenAI(base_url=known["gateway_url"], api_key=known["gateway_key"], max_retries=0)


def eventually(describe: Callable[[], object], expected: Callable[[Any], bool]) -> Any:
    """Wait until the value is as expected and return it; the last value is in the failure."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        value = describe()
        if expected(value):
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"never came true; last seen: {value!r}")
        time.sleep(0.1)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bonito]:
    """`bonito up` as `make run` starts it, with the demo knowledge base ready; tests only read from it."""
    bonito = Bonito(tmp_path_factory.mktemp("demo")).start()
    wait_until_ready(bonito, "handbook", documents=7)
    yield bonito
    assert bonito.stop() == 0


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Bonito]:
    """A deployment of the test's own without the demo; the test starts it."""
    bonito = Bonito(tmp_path, arguments=("--no-demo",))
    yield bonito
    if bonito.process is not None:
        bonito.stop()


def wait_until_ready(bonito: Bonito, name: str, *, documents: int) -> None:
    """Wait until the knowledge base holds so many documents, each ready."""
    eventually(
        lambda: [document["status"] for document in bonito.json("kb", "docs", name)],
        lambda statuses: len(statuses) == documents and set(statuses) <= {"ready", "ready_with_warnings"},
    )
