"""Divides a document where no chunk may reach across: at its pages and sections; and a region into blocks."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal

from bonito.knowledge.parsing.base import ParsedDocument, Table

MAX_HEADING_CHARACTERS = 2_000
MAX_TITLE_CHARACTERS = 100
NOT_BLANK = re.compile(r"\S")
FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*$", re.MULTILINE)
HEADING_MARK = re.compile(r" {0,3}#")
UNDERLINE = re.compile(r"\n {0,3}(?:=+|-+)[ \t]*(?=\n|\Z)")


@dataclass(frozen=True)
class Region:
    """text[start:end] is one section's part on one page, with the empty headings right above it.

    Attributes:
        start: of the first heading, or of the text.
        end: where the next region starts, or the text ends.
        body: where the text below the headings starts: its page and section are those of every chunk that starts
            before it. The last heading's offset where there is no text.
    """

    start: int
    end: int
    body: int


@dataclass(frozen=True)
class Block:
    """text[start:end] is prose, the code between two fences with both, or as much of `table` as lies in a region."""

    kind: Literal["prose", "code", "table"]
    start: int
    end: int
    table: Table | None = None


def find_regions(document: ParsedDocument) -> list[Region]:
    """Divide at every page and section, so that what a citation says holds for the whole chunk.

    A heading without text joins what follows it, be that a subsection or the next page, but not below another of the
    outermost headings. So does a title: one short line above the first heading, on the same page. A region of white
    space is left out.
    """
    text = document.text
    starts = {page.offset for page in document.pages} | {section.offset for section in document.sections}
    bounds = sorted({0, len(text), *(start for start in starts if 0 < start < len(text))})
    regions: list[Region] = []
    held: int | None = None
    parts = [(start, end) for start, end in pairwise(bounds) if not text[start:end].isspace()]
    for number, (start, end) in enumerate(parts):
        body = _skip_blank(text, _heading_end(document, start))
        first = start if held is None else held
        held = None
        following = parts[number + 1][0] if number + 1 < len(parts) else None
        if following is not None and _joins(document, start, end, following, is_empty=body >= end):
            held = first
        else:
            regions.append(Region(first, end, body if body < end else start))
    return regions


def find_blocks(document: ParsedDocument, region: Region) -> Iterator[Block]:
    """The region's blocks in order; together they are the region."""
    position = region.start
    first = bisect_right(document.tables, region.start, key=lambda table: table.end)
    for table in islice(document.tables, first, None):
        if table.start >= region.end:
            break
        start, end = max(table.start, position), min(table.end, region.end)
        if start < end:
            yield from _prose_and_code(document, position, start)
            yield Block("table", start, end, table)
            position = end
    yield from _prose_and_code(document, position, region.end)


def _prose_and_code(document: ParsedDocument, start: int, end: int) -> Iterator[Block]:
    for opening, closing in _fenced(document.text, start, end) if document.is_markdown else ():
        if start < opening:
            yield Block("prose", start, opening)
        yield Block("code", opening, closing)
        start = closing
    if start < end:
        yield Block("prose", start, end)


def _fenced(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where code between fences starts and ends; a fence that nothing closes is none."""
    opening: re.Match[str] | None = None
    for fence in FENCE.finditer(text, start, end):
        if opening is None:
            opening = fence
        elif fence["fence"].startswith(opening["fence"]) and fence[0].strip() == fence["fence"]:
            yield opening.start(), fence.end()
            opening = None


def _heading_end(document: ParsedDocument, offset: int) -> int:
    """Where the heading that stands at the offset ends; the offset itself where none does."""
    number = bisect_right(document.sections, offset, key=lambda section: section.offset) - 1
    if number < 0 or document.sections[number].offset != offset:
        return offset
    text, path = document.text, document.sections[number].path
    start = _skip_blank(text, offset)
    end = text.find("\n", start, start + MAX_HEADING_CHARACTERS)
    end = min(len(text), start + MAX_HEADING_CHARACTERS) if end < 0 else end
    underline = UNDERLINE.match(text, end)
    if underline and document.is_markdown:
        return underline.end()
    is_heading = bool(path and path[-1] in text[start:end]) or HEADING_MARK.match(text, start, end) is not None
    return end if is_heading else offset


def _skip_blank(text: str, offset: int) -> int:
    """The next offset of a character that is not white space, or the text's end."""
    found = NOT_BLANK.search(text, offset)
    return found.start() if found else len(text)


def _joins(document: ParsedDocument, start: int, end: int, following: int, *, is_empty: bool) -> bool:
    """Whether text[start:end] is an empty heading or a title that belongs to what follows it."""
    if is_empty:
        return document.section_at(start)[:1] == document.section_at(following)[:1]
    is_above_headings = not document.section_at(start) and bool(document.section_at(following))
    if not is_above_headings or document.page_at(start) != document.page_at(following):
        return False
    line = document.text[start:end].strip()
    return len(line) <= MAX_TITLE_CHARACTERS and "\n" not in line
