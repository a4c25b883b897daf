"""Builds a document's text block by block, noting where pages, sections and tables begin."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bonito.errors import DocumentTooLarge
from bonito.knowledge.parsing.base import PageStart, ParsedDocument, ParseLimits, SectionStart, Table
from bonito.knowledge.parsing.encoding import DecodedText

MAX_TITLE_CHARACTERS = 200  # of a heading inside a section path; the text keeps it whole
JOIN_EVERY = 50_000  # many small pieces cost more memory than one long string

# NUL is refused by Postgres, lone surrogates by UTF-8, escape sequences would reach terminals. Tab, line feed,
# vertical tab and form feed stay: they are white space.
UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with line feeds as its only line ends, without control characters and lone surrogates."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return UNWANTED.sub("", text)


def one_line(text: str) -> str:
    """The text on a single line: every run of white space, line ends too, becomes one space."""
    return " ".join(text.split())


class DocumentWriter:
    """Cleans what it is given before it counts, so that offsets are right by construction."""

    def __init__(self, limits: ParseLimits) -> None:
        self._max_characters = limits.max_text_characters
        self._chunks: list[str] = []
        self._pieces: list[str] = []
        self._length = 0
        self._pages: list[PageStart] = []
        self._sections: list[SectionStart] = []
        self._tables: list[Table] = []
        self._headings: list[tuple[int, str]] = []

    def block(self, text: str, *, gap: str = "\n\n") -> int | None:
        """Append a block after `gap` (nothing before the first); its offset, or None where it is blank."""
        text = clean(text).rstrip()
        if not text.strip():
            return None
        text = text.lstrip("\n")
        if self._length:
            self._append(gap)
        start = self._length
        self._append(text)
        return start

    def page(self, number: int, text: str) -> int | None:
        """Append the text of a page, counted from 1; its offset, or None where the page holds no text."""
        start = self.block(text.strip())
        if start is not None:
            self._pages.append(PageStart(start, number))
        return start

    def begin_page(self, number: int) -> None:
        """What is appended from now on lies on this page, counted from 1; something is."""
        self._pages.append(PageStart(self._length, number))

    def heading(self, level: int, title: str) -> None:
        """Append a heading as in Markdown and open its section; level 0 is the document's title."""
        title = one_line(clean(title))
        start = self.block(f"{'#' * min(max(level, 1), 6)} {title}") if title else None
        if start is not None:
            self.open_section(level, title, start)

    def open_section(self, level: int, title: str, offset: int) -> None:
        """A heading of this level stands at `offset`: it ends the sections of its level and of deeper ones."""
        while self._headings and self._headings[-1][0] >= level:
            self._headings.pop()
        self._headings.append((level, title))
        self.section(offset, [heading for _, heading in self._headings])

    def section(self, offset: int, path: Sequence[str]) -> None:
        """From `offset` on, the text lies below these headings, outermost first; any order of calls will do."""
        titles = (one_line(clean(title))[:MAX_TITLE_CHARACTERS].rstrip() for title in path)
        self._sections.append(SectionStart(offset, tuple(title for title in titles if title)))

    def lines(self, lines: Iterable[str], *, gap: str = "\n\n") -> None:
        """Append lines below each other; an empty one parts two blocks, a blank one at an end is dropped."""
        for line in lines:
            if not line:
                gap = "\n\n"
            elif self.block(line, gap=gap) is not None:
                gap = "\n"

    def table(self, lines: Iterable[str], *, header_lines: int, caption: str = "") -> None:
        """Append a table, one row a line; every part of it will repeat the caption and the first `header_lines`.

        Args:
            lines: at least `header_lines` of them, without line ends; taken one by one, so a generator will do.
            header_lines: >= 1, the line below a Markdown header included.
            caption: a sentence that belongs to the table; "" for none.
        """
        start = self.block(one_line(caption)) if caption else None
        header_end = 0
        for number, line in enumerate(lines):
            self._append("\n" if number or start is not None else "\n\n" if self._length else "")
            if number == header_lines:
                header_end = self._length
            start = self._length if start is None else start
            self._append(clean(line))
        if start is not None:
            self._tables.append(Table(start, header_end or self._length, self._length))

    def mark_table(self, table: Table) -> None:
        """Note a table inside text that is written already."""
        self._tables.append(table)

    def finish(
        self,
        file_type: str,
        *,
        is_markdown: bool = False,
        page_count: int | None = None,
        warnings: Sequence[str] = (),
        decoded: DecodedText | None = None,
    ) -> ParsedDocument:
        """The document as written so far; `decoded` adds what is known of its encoding."""
        text = "".join([*self._chunks, *self._pieces])
        self._chunks, self._pieces = [text], []
        return ParsedDocument(
            text=text,
            file_type=file_type,
            is_markdown=is_markdown,
            pages=tuple(self._pages),
            sections=_ascending(self._sections),
            tables=tuple(self._tables),
            page_count=page_count,
            warnings=(*(decoded.warnings if decoded else ()), *warnings),
            encoding=decoded.encoding if decoded else None,
            replaced_characters=decoded.replaced_characters if decoded else 0,
            encoding_confidence=decoded.confidence if decoded else None,
        )

    def _append(self, text: str) -> None:
        self._length += len(text)
        if self._length > self._max_characters:
            raise DocumentTooLarge(f"The document holds more than {self._max_characters:,} characters of text.")
        self._pieces.append(text)
        if len(self._pieces) >= JOIN_EVERY:
            self._chunks.append("".join(self._pieces))
            self._pieces.clear()


def _ascending(sections: Sequence[SectionStart]) -> tuple[SectionStart, ...]:
    """By offset; of several at one offset the last, which is the innermost."""
    by_offset = {section.offset: section for section in sections}
    return tuple(by_offset[offset] for offset in sorted(by_offset))
