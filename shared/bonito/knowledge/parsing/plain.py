"""Plain text: decoded and cleaned, otherwise as it is."""

from __future__ import annotations

from pathlib import Path

from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.knowledge.parsing.encoding import decode
from bonito.knowledge.parsing.writer import DocumentWriter


def parse(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a text file; never fails on bytes, but counts what it could not decode."""
    decoded = decode(path.read_bytes())
    writer = DocumentWriter(limits)
    writer.block(decoded.text)
    return writer.finish("txt", decoded=decoded)
