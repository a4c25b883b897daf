"""What parent and child say to each other over pipes: frames, each its length and then that many bytes."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from typing import BinaryIO

from bonito.errors import DocumentTooLarge
from bonito.knowledge.parsing.base import ParsedDocument

LENGTH = struct.Struct(">Q")
# Of the frame with everything but the text: some 300,000 headings, pages and tables.
MAX_MAP_BYTES = 16 * 2**20


def write_frame(stream: BinaryIO, payload: bytes) -> None:
    """Send one frame."""
    stream.write(LENGTH.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def read_frame(stream: BinaryIO) -> bytes | None:
    """Receive one frame; None where the other side has closed the pipe."""
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(header)
    payload = stream.read(length)
    return payload if len(payload) == length else None


def message(content: Mapping[str, object]) -> bytes:
    """A JSON frame's payload. JSON, because unpickling would run what a hostile document made the child send."""
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def document_frames(document: ParsedDocument) -> tuple[dict[str, object], bytes]:
    """A document as its map and its text in UTF-8: one JSON string of megabytes would be escaped and copied in vain.

    Raises:
        DocumentTooLarge: the map of pages, sections and tables is beyond what the parent reads.
    """
    content: dict[str, object] = {
        field.name: getattr(document, field.name)
        for field in dataclasses.fields(document)
        if field.name not in ("text", "pages", "sections", "tables")
    }
    content["pages"] = [(page.offset, page.number) for page in document.pages]
    content["sections"] = [(section.offset, section.path) for section in document.sections]
    content["tables"] = [(table.start, table.header_end, table.end) for table in document.tables]
    if len(message(content)) > MAX_MAP_BYTES - 1024:
        raise DocumentTooLarge("The document has too many headings, pages and tables.")
    return content, document.text.encode("utf-8")
