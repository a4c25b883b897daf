"""The one table of document types: what they are called, how they are told apart, who parses them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bonito.errors import DocumentError, DocumentTooLarge, UnsupportedDocument
from bonito.knowledge.parsing import delimited, json_paths, markdown, pdf, plain, signatures, web, word
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
    if what:
        raise UnsupportedDocument(f"The file looks like {what}{_despite(named, suffix)}. {ACCEPTED}")
    if named and named.is_text:
        return named.name
    if named:
        what = "an HTML page" if HTML_START.match(head) else "plain text"
        raise UnsupportedDocument(f"The file looks like {what}{_despite(named, suffix)}. {ACCEPTED}")
    if SUFFIX.fullmatch(suffix):
        raise UnsupportedDocument(f"Files named {suffix} are not read. {ACCEPTED}")
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
    file_type = BY_NAME[detect(name, path)]
    if size == 0:
        return ParsedDocument(text="", file_type=file_type.name, warnings=("The file is empty.",))
    document = file_type.parse(path, limits)
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
    if what:
        raise UnsupportedDocument(f"The file looks like {what}{_despite(named, suffix)}. {ACCEPTED}")
    return "docx"


def _despite(named: FileType | None, suffix: str) -> str:
    return f", although it is named {suffix}" if named else ""
