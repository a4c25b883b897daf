"""Programs beside Python that the parser process runs on a document: under its limits, and never longer than itself."""

from __future__ import annotations

import ctypes
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

from bonito.errors import DocumentError, DocumentTooLarge
from bonito.knowledge.parsing.base import ParseLimits

# The parser process has an empty environment.
PATH = "/usr/local/bin:/usr/bin:/bin"
PR_SET_PDEATHSIG = 1  # prctl(2)


def find(name: str) -> str | None:
    """Where the program lies; None where it is not installed."""
    return shutil.which(name, path=PATH) if PATH else None


def output_of(command: Sequence[str], limits: ParseLimits) -> bytes:
    """What the program writes to its stdout.

    Memory, CPU time, files and processes are bounded by what the parser process bounds for itself: limits are
    inherited. No file can be written.

    Raises:
        DocumentError: it ended with an error.
        DocumentTooLarge: it wrote more than a document's text may have.
    """
    most = 4 * limits.max_text_characters
    with subprocess.Popen(  # noqa: S603 - a program that we found ourselves, and no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": PATH, "LANG": "C.UTF-8", "OMP_THREAD_LIMIT": "1"},
        cwd="/",
        preexec_fn=_end_with_parent,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe
        written = process.stdout.read(most + 1)
        if len(written) > most:
            process.kill()
    if len(written) > most:
        raise DocumentTooLarge(f"The document holds more than {limits.max_text_characters:,} characters of text.")
    if process.returncode != 0:
        raise DocumentError("The document is broken, or of a kind of its type that cannot be read.")
    return written


def _end_with_parent() -> None:
    """The parent is killed when its time is up; elsewhere than on Linux the limit of CPU time has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
