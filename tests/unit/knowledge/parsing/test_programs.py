"""Programs that the parser runs: output is bounded, a failure is the document's, and none outlives its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bonito.errors import DocumentError, DocumentTooLarge
from bonito.knowledge.parsing import programs
from bonito.knowledge.parsing.base import DEFAULT_LIMITS, ParseLimits

ROOT = Path(__file__).parents[4]
PATIENCE_S = 30.0


def test_the_output_is_answered() -> None:
    assert programs.output_of(["/bin/sh", "-c", "printf hello"], DEFAULT_LIMITS) == b"hello"


def test_endless_output_is_cut_off_and_the_program_ended() -> None:
    with pytest.raises(DocumentTooLarge, match="100 characters of text"):
        programs.output_of(["/bin/sh", "-c", "while :; do echo text; done"], ParseLimits(max_text_characters=100))


def test_a_failure_is_the_documents() -> None:
    with pytest.raises(DocumentError, match="broken"):
        programs.output_of(["/bin/sh", "-c", "exit 3"], DEFAULT_LIMITS)


def test_nothing_of_our_environment_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONITO_ENCRYPTION_KEY", "secret")

    assert b"secret" not in programs.output_of(["/bin/sh", "-c", "set"], DEFAULT_LIMITS)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit of CPU time ends it")
def test_a_program_ends_with_the_process_that_runs_it(tmp_path: Path) -> None:
    said = tmp_path / "pid"
    code = (
        "from bonito.knowledge.parsing import programs, base\n"
        f"programs.output_of(['/bin/sh', '-c', 'echo $$ > {said}; exec sleep 600'], base.DEFAULT_LIMITS)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + PATIENCE_S
    while not (said.exists() and said.read_text().strip()):
        assert time.monotonic() < deadline, "the program was not started"
        time.sleep(0.02)
    program = int(said.read_text())

    parent.kill()
    parent.wait()

    while is_running(program):
        assert time.monotonic() < deadline, "the program lives on"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
