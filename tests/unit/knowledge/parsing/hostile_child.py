"""The entry of a child whose parser does what the document says; what a hostile document might make a real one do."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from bonito.errors import DocumentError, DocumentTooLarge, UnsupportedDocument
from bonito.knowledge.parsing import child
from bonito.knowledge.parsing.base import PageStart, ParsedDocument, ParseLimits, SectionStart, Table

LEAKED: list[bytes] = []


def main() -> None:
    child.serve(misbehave)


def misbehave(path: Path, name: str, limits: ParseLimits) -> ParsedDocument:
    behaviour = path.read_text()
    text = BEHAVIOURS[behaviour](limits) if behaviour in BEHAVIOURS else behaviour
    return text if isinstance(text, ParsedDocument) else ParsedDocument(text=str(text), file_type="txt")


def loop(limits: ParseLimits) -> None:
    while True:
        pass


def grow(limits: ParseLimits) -> None:
    pieces: list[object] = []
    while True:
        pieces = [pieces, bytes(1000)]


def leak(limits: ParseLimits) -> int:
    LEAKED.append(b"x" * 2**26)
    return os.getpid()


def write_file(limits: ParseLimits) -> str:
    with Path(f"/tmp/written-by-{os.getpid()}").open("w") as file:
        file.write("x")
    return "written"


def open_files(limits: ParseLimits) -> int:
    return len([os.open("/dev/null", os.O_RDONLY) for _ in range(1000)])


def make_noise(limits: ParseLimits) -> str:
    for _ in range(1000):
        sys.stdout.write("noise" * 100)
        os.write(1, b"\x00\x00\x00\x00\x00\x00\x00\x02{}" * 100)
        os.write(2, b"noise" * 100)
    return "quiet"


def raise_(error: Exception) -> None:
    raise error


def recurse(limits: ParseLimits) -> None:
    recurse(limits)


BEHAVIOURS = {
    "loop": loop,
    "sleep": lambda limits: time.sleep(600),
    "allocate": lambda limits: len(bytearray(2 * 2**30)),
    "grow": grow,
    "leak": leak,
    "segfault": lambda limits: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": lambda limits: os.abort(),
    "exit": lambda limits: os._exit(3),
    "exit-cleanly": lambda limits: os._exit(0),
    "recurse": recurse,
    "unexpected": lambda limits: raise_(KeyError("a secret of the document")),
    "broken": lambda limits: raise_(DocumentError("It is broken.")),
    "unsupported": lambda limits: raise_(UnsupportedDocument("It is unsupported.")),
    "too-large": lambda limits: raise_(DocumentTooLarge("It is too large.")),
    "noise": make_noise,
    "environment": lambda limits: dict(os.environ),
    "initial-environment": lambda limits: repr(Path("/proc/self/environ").read_bytes()),
    "arguments": lambda limits: " ".join(sys.argv),
    "pid": lambda limits: os.getpid(),
    "limits": lambda limits: limits,
    "write": write_file,
    "open-files": open_files,
    "whole": lambda limits: ParsedDocument(
        text="# Ä\n\n| a |\n| 1 |\n\n😀",
        file_type="pdf",
        is_markdown=True,
        pages=(PageStart(0, 1), PageStart(18, 3)),
        sections=(SectionStart(0, ("Ä",)), SectionStart(18, ("Ä", "\u2028"))),
        tables=(Table(5, 11, 16),),
        page_count=3,
        warnings=("w",),
        encoding="utf-8",
        replaced_characters=2,
        encoding_confidence=0.5,
    ),
    "offset-beyond": lambda limits: ParsedDocument(text="x", file_type="txt", pages=(PageStart(2, 1),)),
    "offset-before": lambda limits: ParsedDocument(text="x", file_type="txt", pages=(PageStart(-1, 1),)),
    "offset-falls": lambda limits: ParsedDocument(text="xyz", file_type="txt", tables=(Table(1, 0, 2),)),
    "wrong-type": lambda limits: ParsedDocument(text="x", file_type=7),  # type: ignore[arg-type]
    "nul": lambda limits: ParsedDocument(text="\0", file_type="txt"),
    "surrogate": lambda limits: ParsedDocument(text="\ud800", file_type="txt"),
    "much-text": lambda limits: "x" * (4 * limits.max_text_characters + 1),
    "many-sections": lambda limits: ParsedDocument(
        text="x", file_type="txt", sections=tuple(SectionStart(0, ("x" * 100,)) for _ in range(200_000))
    ),
}
