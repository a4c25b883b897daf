"""Images: tesseract reads what is written on them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from bonito.errors import DocumentError, DocumentTooLarge
from bonito.knowledge.parsing import programs
from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.knowledge.parsing.writer import DocumentWriter

PROGRAM = "tesseract"
# Finds how a page is turned, and is no language.
ORIENTATION = "osd"


def is_installed() -> bool:
    """Whether images can be read here."""
    return programs.find(PROGRAM) is not None


def parse(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read an image in the languages that are installed with tesseract; a TIFF may have several pages."""
    program = programs.find(PROGRAM)
    if program is None:
        raise DocumentError(f"Images are not read: {PROGRAM} is not installed any more.")
    command = [program, str(path), "stdout", "-l", _languages(program, limits)]
    pages = programs.output_of(command, limits).decode("utf-8", errors="replace").removesuffix("\f").split("\f")
    if len(pages) > limits.max_pages:
        raise DocumentTooLarge(f"The image has {len(pages):,} pages; at most {limits.max_pages:,} are read.")
    writer = DocumentWriter(limits)
    for number, text in enumerate(pages, start=1):
        writer.page(number, text)
    return writer.finish("image", page_count=len(pages))


@lru_cache(maxsize=1)
def _languages(program: str, limits: ParseLimits) -> str:
    """All of them, as the program wants to be told."""
    listed = programs.output_of([program, "--list-langs"], limits).decode().splitlines()[1:]
    return "+".join(language for language in listed if language != ORIENTATION) or "eng"
