"""What every parser answers: one text, and what lies where in it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


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
        file_type: pdf, docx, txt, md, html, csv, json or jsonl.
        is_markdown: the text has Markdown structure that a chunker may use.
        pages: ascending offsets; () where the type has no pages.
        sections: ascending offsets; () where the document has no headings.
        tables: ascending, not overlapping.
        page_count: pages in the file, also those without text; None where the type has none.
        warnings: sentences for a person: pages without text, bytes replaced.
        encoding: the text encoding that was found; None for types that carry none.
        replaced_characters: how many could not be decoded and stand as U+FFFD.
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

    def page_at(self, offset: int) -> int | None:
        """The page on which the character at `offset` lies; None where the type has no pages."""
        position = bisect_right(self.pages, offset, key=lambda page: page.offset) - 1
        return self.pages[position].number if position >= 0 else None

    def section_at(self, offset: int) -> tuple[str, ...]:
        """The headings above the character at `offset`, outermost first."""
        position = bisect_right(self.sections, offset, key=lambda section: section.offset) - 1
        return self.sections[position].path if position >= 0 else ()
