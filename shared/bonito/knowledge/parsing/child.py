"""The process in which documents are parsed: limits on itself, requests from its stdin, answers to its stdout."""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bonito.errors import DocumentError, DocumentTooLarge
from bonito.knowledge.parsing import frames
from bonito.knowledge.parsing.base import MIB, ParsedDocument, ParseLimits

PR_SET_PDEATHSIG = 1  # prctl(2)
MAX_OPEN_FILES = 64
LEFT_HALF_DONE: dict[str, object] = {"recycle": True}  # what libraries hold after such an end is not to be built on

Parse = Callable[[Path, str, ParseLimits], ParsedDocument]


def main() -> None:
    """Serve the parsers of the registry until the parent closes the pipe."""
    from bonito.knowledge.parsing import registry

    serve(lambda path, name, limits: registry.parse(path, name=name, limits=limits))


def serve(parse: Parse) -> None:
    """Answer requests one by one until stdin ends.

    Each answer is a JSON frame, `document` or `error`, and behind a `document` a frame with its text. What
    libraries print goes nowhere, so it cannot be taken for an answer.

    Args:
        parse: called with path, name and limits; DocumentError is an answer, anything else is answered as one.
    """
    requests, answers = sys.stdin.buffer, _take_stdout()
    _die_with_parent(int(sys.argv[-1]))
    _restrain()
    frames.write_frame(answers, frames.message({"ready": True}))
    while (request := frames.read_frame(requests)) is not None:
        content, text = _answer(parse, json.loads(request))
        frames.write_frame(answers, frames.message(content | {"resident_bytes": _resident_bytes()}))
        if text is not None:
            frames.write_frame(answers, text)


def _answer(parse: Parse, request: dict[str, object]) -> tuple[dict[str, object], bytes | None]:
    limits = ParseLimits(**request["limits"])  # type: ignore[arg-type]  # our own parent wrote it
    _limit(limits)
    try:
        content, text = frames.document_frames(parse(Path(str(request["path"])), str(request["name"]), limits))
    except DocumentError as error:
        return _error(error), None
    except RecursionError:
        return _error(DocumentTooLarge("The document is nested too deeply.")), None
    except MemoryError:
        _lift_memory_limit()  # even this answer needs some
        message = f"Reading the document takes more than {limits.max_memory_bytes // MIB:,} MiB of memory."
        return _error(DocumentTooLarge(message)) | LEFT_HALF_DONE, None
    except Exception as error:  # noqa: BLE001 - the entry point: one document must not end the others
        unknown = DocumentError("The document is broken in a way that the parser cannot read.")
        return _error(unknown) | {"cause": _cause(error)} | LEFT_HALF_DONE, None
    return {"document": content}, text


def _error(error: DocumentError) -> dict[str, object]:
    return {"error": {"code": error.code, "message": error.message}}


def _cause(error: Exception) -> str:
    """Where it failed, for the log; without the exception's message, which may hold the document's content."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"


def _take_stdout() -> BinaryIO:
    """Keep the pipe behind stdout for answers alone; what anybody prints from now on goes nowhere."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return answers


def _die_with_parent(parent: int) -> None:
    """End when the parent does, also in the middle of a document; elsewhere than on Linux, after it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(0)


def _restrain() -> None:
    """What holds for every document: no core dumps, no files written, few open; the parent alone decides on the end."""
    # Ctrl-C and a service's stop reach the whole group; they must not fail the document that is being read.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        resource.setrlimit(kind, (most, most))


def _limit(limits: ParseLimits) -> None:
    """Memory and CPU time for one document, on top of what the process has used for others."""
    if sys.platform == "linux":  # macOS reserves terabytes of addresses at once, and keeps no such limit
        _set_soft_limit(resource.RLIMIT_AS, _address_space_bytes() + limits.max_memory_bytes)
    # The kernel kills with SIGXCPU; the parent's clock is usually first, this one holds when the parent hangs.
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _set_soft_limit(resource.RLIMIT_CPU, math.ceil(used + limits.max_seconds) + 1)


def _lift_memory_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _set_soft_limit(kind: int, value: int) -> None:
    """Within the hard limit that this process was born with, which only root could raise again."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _address_space_bytes() -> int:
    return _pages(0) * resource.getpagesize()


def _resident_bytes() -> int:
    return _pages(1) * resource.getpagesize()


def _pages(column: int) -> int:
    """A number of /proc/self/statm: size, resident; 0 where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[column])
    except OSError:
        return 0
