"""The one table of document types: what they are called, how they are told apart, who parses them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bonito.errors import DocumentError, DocumentTooLarge, UnsupportedDocument
from bonito.knowledge.parsing import (
    delimited,
    json_paths,
    markdown,
    ocr,
    pandoc,
    pdf,
    plain,
    signatures,
    unstructured_adapter,
    web,
    word,
)
from bonito.knowledge.parsing.base import MIB, ParsedDocument, ParseLimits, Parser


@dataclass(frozen=True)
class FileType:
    """One kind of document.

    Attributes:
        name: as stored with documents: pdf, docx, …
        label: as written to people.
        suffixes: of file names, lower case, with the dot.
        parse: its parser.
        is_text: its content is plain text, so that only the name tells it from the others of that kind.
    """

    name: str
    label: str
    suffixes: tuple[str, ...]
    parse: Parser
    is_text: bool = True


TYPES = (
    FileType("pdf", "PDF", (".pdf",), pdf.parse, is_text=False),
    FileType("docx", "DOCX", (".docx", ".docm", ".dotx", ".dotm"), word.parse, is_text=False),
    FileType("txt", "TXT", (".txt", ".text"), plain.parse),
    FileType("md", "MD", (".md", ".markdown", ".mdown", ".mkd"), markdown.parse),
    FileType("html", "HTML", (".html", ".htm", ".xhtml"), web.parse),
    FileType("csv", "CSV", (".csv", ".tsv", ".tab"), delimited.parse),
    FileType("json", "JSON", (".json",), json_paths.parse),
    FileType("jsonl", "JSON Lines", (".jsonl", ".ndjson"), json_paths.parse_lines),
)


@dataclass(frozen=True)
class OptionalType:
    """A kind of document that is read where something further is installed.

    Attributes:
        name: as stored with documents.
        label: as written to people, in the plural.
        what: as `signatures` describes such content; () where it describes none of it.
        suffixes: without one of which the content alone does not say enough; () where it does.
        parse: its parser.
        is_installed: whether what it needs is there.
        needs: what to install.
    """

    name: str
    label: str
    what: tuple[str, ...]
    suffixes: tuple[str, ...]
    parse: Parser
    is_installed: Callable[[], bool]
    needs: str


_ADAPTER, _EXTRA = unstructured_adapter, "bonito's extra `unstructured`"
_IMAGES = ("a PNG image", "a JPEG image", "a TIFF image", "a WebP image", "a GIF image")
OPTIONAL_TYPES = (
    OptionalType("pptx", "PPTX", (signatures.PRESENTATION,), (), _ADAPTER.parse_pptx, _ADAPTER.is_installed, _EXTRA),
    OptionalType("xlsx", "XLSX", (signatures.WORKBOOK,), (), _ADAPTER.parse_xlsx, _ADAPTER.is_installed, _EXTRA),
    OptionalType("eml", "EML", (), (".eml",), _ADAPTER.parse_eml, _ADAPTER.is_installed, _EXTRA),
    OptionalType(
        "msg", "MSG", (signatures.OLE_DOCUMENT,), (".msg",), _ADAPTER.parse_msg, _ADAPTER.is_installed, _EXTRA
    ),
    OptionalType("epub", "EPUB", (signatures.BOOK,), (), pandoc.parse_epub, pandoc.is_installed, pandoc.PROGRAM),
    OptionalType(
        "odt", "ODT", (signatures.OPEN_DOCUMENT,), (".odt",), pandoc.parse_odt, pandoc.is_installed, pandoc.PROGRAM
    ),
    OptionalType("rtf", "RTF", (signatures.RICH_TEXT,), (), pandoc.parse_rtf, pandoc.is_installed, pandoc.PROGRAM),
    OptionalType("image", "Images", _IMAGES, (), ocr.parse, ocr.is_installed, ocr.PROGRAM),
)
SHIPPED = "the container image of functions/ingest has it"

PARSERS = {file_type.name: file_type.parse for file_type in (*TYPES, *OPTIONAL_TYPES)}
BY_NAME = {file_type.name: file_type for file_type in TYPES}
BY_SUFFIX = {suffix: file_type for file_type in TYPES for suffix in file_type.suffixes}
ACCEPTED = f"Accepted are {', '.join(file_type.label for file_type in TYPES[:-1])} and {TYPES[-1].label}."

# "Minutes 2024.05" and ".env" have no suffix that says a type.
SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,9}")
# A comment ends at its first end: were it tried with each later one too, a hundred comments would take for ever.
HTML_START = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?><!--.*?-->\s*)*+<(?:!doctype\s+html|html)[\s>]", re.I | re.S)


def detect(name: str, path: Path) -> str:
    """The type of a document, by its content first and its name second.

    PDF and DOCX are what their bytes say, under any name; among the kinds of text the name decides, and
    text without a suffix is HTML where it begins as such, otherwise plain text.

    Args:
        name: the document's name or key, whose suffix counts.
        path: where its bytes lie now.

    Raises:
        UnsupportedDocument: none of our types; the message says what the file looks like and what is accepted.
        DocumentError: the file cannot be opened, or is a broken container.
    """
    suffix = PurePosixPath(name).suffix.lower()
    named = BY_SUFFIX.get(suffix)
    head = signatures.read_head(path)
    if signatures.is_pdf(head, anywhere=named is not None and not named.is_text):
        return "pdf"
    if signatures.is_zip(head):
        return _detect_in_zip(path, suffix)
    if not head and named:
        return named.name
    what = signatures.describe_binary(head)
    optional = _optional(what, suffix)
    if optional is not None and optional.is_installed():
        return optional.name
    if what:
        raise UnsupportedDocument(f"The file looks like {what}{_despite(named, suffix)}. {ACCEPTED}{_advice(optional)}")
    if named and named.is_text:
        return named.name
    if named:
        what = "an HTML page" if HTML_START.match(head) else "plain text"
        raise UnsupportedDocument(f"The file looks like {what}{_despite(named, suffix)}. {ACCEPTED}")
    if SUFFIX.fullmatch(suffix):
        raise UnsupportedDocument(f"Files named {suffix} are not read. {ACCEPTED}{_advice(optional)}")
    return "html" if HTML_START.match(head) else "txt"


def parse(path: Path, *, name: str, limits: ParseLimits) -> ParsedDocument:
    """Parse a document of any known type in this process; `ParserProcess` is the safe way to do it.

    Args:
        path: where its bytes lie.
        name: its name, for the suffix.
        limits: those of bytes, pages, decompressed size and text are kept here, time and memory only by ParserProcess.

    Raises:
        UnsupportedDocument: no parser for this content.
        DocumentTooLarge: above a limit.
        DocumentError: broken, encrypted or otherwise unreadable.
    """
    size = _size(path)
    if size > limits.max_bytes:
        raise DocumentTooLarge(
            f"The file has {size / MIB:,.1f} MiB; at most {limits.max_bytes / MIB:,.1f} MiB are read."
        )
    file_type = detect(name, path)
    if size == 0:
        return ParsedDocument(text="", file_type=file_type, warnings=("The file is empty.",))
    document = PARSERS[file_type](path, limits)
    if not document.text.strip() and not document.warnings:
        return dataclasses.replace(document, warnings=("The document holds no text.",))
    return document


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DocumentError("The file cannot be opened.") from error


def _detect_in_zip(path: Path, suffix: str) -> str:
    named = BY_SUFFIX.get(suffix)
    try:
        what = signatures.describe_zip(path)
    except DocumentTooLarge:
        raise
    except DocumentError:
        if named and named.name == "docx":
            raise
        what = "a broken ZIP archive"
    optional = _optional(what, suffix)
    if optional is not None and optional.is_installed():
        return optional.name
    if what:
        raise UnsupportedDocument(f"The file looks like {what}{_despite(named, suffix)}. {ACCEPTED}{_advice(optional)}")
    return "docx"


def _optional(what: str | None, suffix: str) -> OptionalType | None:
    """The optional type of a content, or of a text with such a name."""
    for file_type in OPTIONAL_TYPES:
        has_content = what in file_type.what if file_type.what else what is None
        if has_content and (not file_type.suffixes or suffix in file_type.suffixes):
            return file_type
    return None


def _advice(optional: OptionalType | None) -> str:
    if optional is None:
        return ""
    return f" {optional.label} can be read where {optional.needs} is installed; {SHIPPED}."


def _despite(named: FileType | None, suffix: str) -> str:
    return f", although it is named {suffix}" if named else ""
