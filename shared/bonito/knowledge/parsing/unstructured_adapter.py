"""PPTX, XLSX, EML and MSG through the library `unstructured`, where it is installed.

Nothing of it leaves this machine: its telemetry is off before it is imported, and the language model that it would
fetch at the first use, to guess which lines are titles, is never asked: what a heading is, the document says itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from bonito.errors import DocumentError, DocumentTooLarge
from bonito.knowledge.parsing.archive import BoundedArchive
from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.knowledge.parsing.tables import Cell, write_table
from bonito.knowledge.parsing.wording import counted
from bonito.knowledge.parsing.writer import DocumentWriter

LIBRARY = "unstructured"
# https://github.com/Unstructured-IO/unstructured#analytics; the last one keeps an advertisement out of the log.
QUIET = {"DO_NOT_TRACK": "true", "SCARF_NO_ANALYTICS": "true", "UNSTRUCTURED_DISABLE_NOTICE": "1"}
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
WORD = re.compile(r"\w+|[^\w\s]")
# Elements that stand for nothing in the text.
PASSED_OVER = frozenset({"PageBreak", "Image", "PageNumber"})


def is_installed() -> bool:
    """Whether these types can be read here; nothing is imported."""
    return importlib.util.find_spec(LIBRARY) is not None


def parse_pptx(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a presentation: a page per slide, its title as the heading, its notes at its end."""
    with BoundedArchive(path, limits):  # refuses what unpacks to too much, as far as the archive says
        elements = _elements("pptx", "partition_pptx", path, include_slide_notes=False)
        notes = _notes(path)
    if len(notes) > limits.max_pages:
        raise DocumentTooLarge(f"The presentation has more than {limits.max_pages:,} slides.")
    on_slide: dict[int, list[Any]] = {}
    for element in elements:
        on_slide.setdefault(element.metadata.page_number, []).append(element)
    writer = DocumentWriter(limits)
    for number, note in enumerate(notes, start=1):
        if number in on_slide or note.strip():
            writer.begin_page(number)
        for element in on_slide.get(number, []):
            _write(writer, element, is_heading=_is_title(element) and element.metadata.category_depth == 0)
        writer.block(note)
    return writer.finish("pptx", is_markdown=True, page_count=len(notes))


def _notes(path: Path) -> list[str]:
    """Of each slide, '' where it has none. The library would put them before it, below the title of the one before."""
    slides = importlib.import_module("pptx").Presentation(str(path)).slides
    frames = [slide.notes_slide.notes_text_frame if slide.has_notes_slide else None for slide in slides]
    return [frame.text if frame is not None else "" for frame in frames]


def parse_xlsx(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a workbook: a section per sheet, with its cells as one table whose first row is the header."""
    with BoundedArchive(path, limits):
        elements = _elements("xlsx", "partition_xlsx", path, find_subtable=False)
    writer, sheet = DocumentWriter(limits), None
    for element in elements:
        if element.metadata.page_name != sheet:
            sheet = element.metadata.page_name
            writer.heading(1, sheet or "")
        _write(writer, element, is_heading=False)
    return writer.finish("xlsx", is_markdown=True)


def parse_eml(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a mail as mail programs save it: subject, sender and recipients, and the text."""
    import email
    import email.policy

    with path.open("rb") as file:
        message = email.message_from_binary_file(file, policy=email.policy.default)
    attachments = sum(1 for _ in message.iter_attachments()) if message.is_multipart() else 0
    return _mail("eml", _elements("email", "partition_email", path), attachments, limits)


def parse_msg(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a mail as Outlook saves it."""
    elements = _elements("msg", "partition_msg", path)
    message = importlib.import_module("oxmsg").Message.load(str(path))
    return _mail("msg", elements, len(message.attachments), limits)


def _mail(file_type: str, elements: Sequence[Any], attachments: int, limits: ParseLimits) -> ParsedDocument:
    writer = DocumentWriter(limits)
    if elements:
        metadata = elements[0].metadata
        writer.heading(1, metadata.subject or "")
        people = (("From", metadata.sent_from), ("To", metadata.sent_to), ("Cc", metadata.cc_recipient))
        writer.lines([f"{name}: {', '.join(who)}" for name, who in people if who])
    for element in elements:
        _write(writer, element, is_heading=False)
    warnings = (
        [f"{counted(attachments, 'attachment')} of the mail {_are(attachments)} not read."] if attachments else []
    )
    return writer.finish(file_type, is_markdown=True, warnings=warnings)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _elements(module: str, function: str, path: Path, **options: object) -> list[Any]:
    """What the library finds in the document, in its order."""
    partition = _partitioner(module, function)
    try:
        with _without_temporary_files():
            # No language is guessed, which would ask another model.
            elements: list[Any] = partition(filename=str(path), languages=[""], **options)
    except (MemoryError, RecursionError, DocumentError):
        raise
    except Exception as error:  # the library raises whatever its own libraries do
        raise DocumentError("The document is broken, or protected with a password: it cannot be read.") from error
    return [element for element in elements if type(element).__name__ not in PASSED_OVER]


@contextmanager
def _without_temporary_files() -> Iterator[None]:
    """The library only compares names with the temporary folder's; to find that, Python would try to write a file."""
    before, tempfile.tempdir = tempfile.tempdir, "/nonexistent"
    try:
        yield
    finally:
        tempfile.tempdir = before


def _partitioner(module: str, function: str) -> Callable[..., list[Any]]:
    os.environ.update(QUIET)
    sys.modules.setdefault(f"{LIBRARY}.nlp.tokenize", _tokenize())
    found: Callable[..., list[Any]] = getattr(importlib.import_module(f"{LIBRARY}.partition.{module}"), function)
    return found


def _tokenize() -> ModuleType:
    """In place of the library's own module, which loads spaCy and fetches a model: sentences and words, no grammar."""
    module = ModuleType(f"{LIBRARY}.nlp.tokenize")
    functions: dict[str, Callable[[str], list[Any]]] = {
        "sent_tokenize": lambda text: SENTENCE_END.split(str(text)),
        "word_tokenize": lambda text: WORD.findall(str(text)),
        "pos_tag": lambda text: [(word, "") for word in WORD.findall(str(text))],
    }
    for name, function in functions.items():
        setattr(module, name, function)
    return module


def _is_title(element: Any) -> bool:  # noqa: ANN401 - the library is not there when types are checked
    return type(element).__name__ == "Title"


def _write(writer: DocumentWriter, element: Any, *, is_heading: bool) -> None:  # noqa: ANN401
    if is_heading:
        writer.heading(2, element.text)
    elif element.metadata.text_as_html:
        write_table(writer, _rows(element.metadata.text_as_html))
    elif type(element).__name__ == "ListItem":
        writer.block(f"- {element.text}", gap="\n")
    else:
        writer.block(element.text)


def _rows(html: str) -> list[list[Cell]]:
    from lxml import html as parser

    rows: Iterable[Any] = parser.fragment_fromstring(html).iter("tr")
    return [[Cell(" ".join(cell.itertext())) for cell in row.iter("td", "th")] for row in rows]
