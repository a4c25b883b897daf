"""What every parser answers: one text, and what lies where in it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MIB = 2**20


@dataclass(frozen=True)
class ParseLimits:
    """What one document may cost; above any of it, it ends as DocumentTooLarge.

    Attributes:
        max_bytes: size of the file.
        max_pages: pages of a PDF.
        max_seconds: wall-clock time, and as much CPU time.
        max_memory_bytes: address space on top of what the parser process holds before it starts.
        max_decompressed_bytes: of all entries of an archive (DOCX) together.
        max_text_characters: of the text that comes out; Python characters, at most 4 bytes each in UTF-8.
    """

    max_bytes: int = 50 * MIB
    max_pages: int = 5_000
    max_seconds: float = 120.0
    max_memory_bytes: int = 1024 * MIB
    max_decompressed_bytes: int = 500 * MIB
    max_text_characters: int = 100_000_000


DEFAULT_LIMITS = ParseLimits()


@dataclass(frozen=True)
class PageStart:
    """From `offset` (characters into the text) on, the text lies on page `number`, counted from 1."""

    offset: int
    number: int


@dataclass(frozen=True)
class SectionStart:
    """From `offset` on, the text belongs to the headings `path`, outermost first; () is no section."""

    offset: int
    path: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """text[start:end] is a table, one row a line; text[start:header_end] are the lines that every part repeats."""

    start: int
    header_end: int
    end: int


@dataclass(frozen=True)
class ParsedDocument:
    """A document's text and the map over it; all offsets are Python string indices into `text`.

    Attributes:
        text: blocks separated by blank lines; headings are written as in Markdown (`## Leave`) where
            `is_markdown`; a table's rows are Markdown table rows (`| a | b |`).
        file_type: pdf, docx, txt, md, html, csv, json or jsonl; where they are read, pptx, xlsx, eml, msg, epub, odt,
            rtf and image.
        is_markdown: the text has Markdown structure that a chunker may use.
        pages: ascending offsets; () where the type has no pages.
        sections: ascending offsets; () where the document has no headings.
        tables: ascending, not overlapping.
        page_count: pages in the file, also those without text; None where the type has none.
        warnings: sentences for a person: pages without text, bytes replaced.
        encoding: the text encoding that was found; None for types that carry none.
        replaced_characters: how many could not be decoded and stand as U+FFFD.
        encoding_confidence: 0 to 1; 1 where the file says its encoding or is valid UTF-8, less where it was guessed.
    """

    text: str
    file_type: str
    is_markdown: bool = False
    pages: tuple[PageStart, ...] = ()
    sections: tuple[SectionStart, ...] = ()
    tables: tuple[Table, ...] = ()
    page_count: int | None = None
    warnings: tuple[str, ...] = field(default=())
    encoding: str | None = None
    replaced_characters: int = 0
    encoding_confidence: float | None = None

    def page_at(self, offset: int) -> int | None:
        """The page on which the character at `offset` lies; None where the type has no pages."""
        position = bisect_right(self.pages, offset, key=lambda page: page.offset) - 1
        return self.pages[position].number if position >= 0 else None

    def section_at(self, offset: int) -> tuple[str, ...]:
        """The headings above the character at `offset`, outermost first."""
        position = bisect_right(self.sections, offset, key=lambda section: section.offset) - 1
        return self.sections[position].path if position >= 0 else ()


Parser = Callable[[Path, ParseLimits], ParsedDocument]
"""Reads one file of one type; raises DocumentError with a sentence for a person, and nothing else."""
