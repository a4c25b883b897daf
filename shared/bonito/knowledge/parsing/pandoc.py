"""EPUB, ODT and RTF: pandoc makes HTML of them, and that is read like any other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from bonito.errors import DocumentError
from bonito.knowledge.parsing import programs, web
from bonito.knowledge.parsing.archive import BoundedArchive
from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits

PROGRAM = "pandoc"

Format = Literal["epub", "odt", "rtf"]


def is_installed() -> bool:
    """Whether these types can be read here."""
    return programs.find(PROGRAM) is not None


def parse_epub(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a book: its chapters in their order, headings as sections."""
    with BoundedArchive(path, limits):  # refuses what unpacks to too much, as far as the archive says
        return _parse(path, "epub", limits)


def parse_odt(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a text document of LibreOffice and others."""
    with BoundedArchive(path, limits):
        return _parse(path, "odt", limits)


def parse_rtf(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a text in Rich Text Format."""
    return _parse(path, "rtf", limits)


def _parse(path: Path, format_: Format, limits: ParseLimits) -> ParsedDocument:
    program = programs.find(PROGRAM)
    if program is None:
        raise DocumentError(f"{format_.upper()} is not read: {PROGRAM} is not installed any more.")
    # --sandbox: what the document names is neither read nor fetched.
    command = [program, "--from", format_, "--to", "html", "--sandbox", "--wrap", "none", str(path)]
    page = programs.output_of(command, limits)
    return dataclasses.replace(web.parse_page(page, limits), file_type=format_, encoding=None, encoding_confidence=None)
