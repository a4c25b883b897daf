"""Cuts a region into the pieces that chunks are put together from: sentences, lines, rows, whole tables and code."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from bonito.knowledge.parsing.base import ParsedDocument, Table
from bonito.knowledge.regions import Block, Region, find_blocks
from bonito.knowledge.tokens import Tokenizer

if TYPE_CHECKING:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

# Short enough for several to make up an overlap, long enough to be counted quickly.
PIECE_CHARACTERS = 128
# The splitter takes quadratic time over text without boundaries, such as base64 or Japanese; over so little it is fast.
SLICE_CHARACTERS = 1_024
# The white space behind a piece may cost tokens too; of a long gap only so much is counted.
GAP_CHARACTERS = 8
# A chunk holds no more characters than this times its tokens: white space and overlong words can cost next to none.
CHARACTERS_PER_TOKEN = 16
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]」』）]*\Z")
SENTENCE_BREAK = re.compile(r"[.!?…][\"'”’»)\]]*\s+|[。！？][」』）]*")
BLANK_LINE, LINE_END, SENTENCE, NOTHING, BETTER_NOT = 3, 2, 1, 0, -1

Span = tuple[int, int]
Kind = Literal["text", "whole", "header", "row"]


@dataclass(frozen=True)
class Limits:
    """What a chunk may hold: tokens of its text, and characters; whichever is reached first."""

    tokens: int

    @property
    def characters(self) -> int:
        return self.tokens * CHARACTERS_PER_TOKEN


@dataclass(frozen=True)
class Header:
    """The lines of a table that every part repeats, with the line end behind them."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Piece:
    """text[start:end], without white space at its ends.

    Attributes:
        start: offset of the first character.
        end: offset behind the last one.
        kind: text; a whole table or code block; a table's header; a row or a part of one.
        tokens: about those of the piece with the gap behind it; what counts is counted when the chunk is whole.
        header: what a chunk that begins with this piece repeats in front of it; both fit together.
    """

    start: int
    end: int
    kind: Kind
    tokens: int
    header: Header | None = None


class Cutter:
    """Cuts the regions of one document for one tokenizer."""

    def __init__(self, document: ParsedDocument, tokenizer: Tokenizer, limits: Limits) -> None:
        """Prepare; `limits` are those of a chunk."""
        self._document, self._text = document, document.text
        self._tokenizer, self._limits = tokenizer, limits
        self._headers: dict[int, Header | None] = {}
        self._splitter = _splitter(is_markdown=document.is_markdown)
        self._plain_splitter = _splitter(is_markdown=False)

    def cut(self, region: Region) -> list[Piece]:
        """The region's pieces in order: every character that is not white space is in exactly one of them."""
        pieces: list[Piece] = []
        for block in find_blocks(self._document, region):
            if block.table is not None:
                pieces += self._cut_table(block, block.table)
            elif block.kind == "code":
                pieces += self._cut_code(block)
            else:
                pieces += self._weighed(self._spans(block.start, block.end, self._splitter), "text", None)
        return pieces

    def header_at(self, offset: int) -> Header | None:
        """What a chunk that begins at the offset has to repeat: the header of the table whose rows lie there."""
        tables = self._document.tables
        number = bisect_right(tables, offset, key=lambda table: table.header_end) - 1
        return self._header(tables[number]) if number >= 0 and offset < tables[number].end else None

    def _cut_code(self, block: Block) -> list[Piece]:
        whole = self._whole(block, None)
        return whole or self._weighed(self._spans(block.start, block.end, self._plain_splitter), "text", None)

    def _cut_table(self, block: Block, table: Table) -> list[Piece]:
        header = self._header(table)
        whole = self._whole(block, header if block.start >= table.header_end else None)
        if whole:
            return whole
        pieces: list[Piece] = []
        if block.start < table.header_end:
            lines = _strip(self._text, block.start, min(table.header_end, block.end))
            pieces += self._weighed([lines], "header", None)
        rows = list(_lines(self._text, max(block.start, table.header_end), block.end))
        return pieces + self._cut_rows(rows, header)

    def _cut_rows(self, rows: Sequence[Span], header: Header | None) -> list[Piece]:
        """A piece per row, with the header where both fit together; of a longer row several."""
        pieces: list[Piece] = []
        for (start, end), tokens in zip(rows, self._weigh(rows), strict=True):
            if self._fits(tokens, end - start, header):
                pieces.append(Piece(start, end, "row", tokens, header))
            else:
                # A header of more than half a chunk is not worth the many parts that a long row would come in.
                is_repeated = header is not None and header.tokens <= self._limits.tokens // 2
                spans = self._spans(start, end, self._plain_splitter)
                pieces += self._weighed(spans, "row", header if is_repeated else None)
        return pieces

    def _header(self, table: Table) -> Header | None:
        """What the parts of a table repeat; None where there is nothing, or too much to leave room for rows."""
        if table.start not in self._headers:
            text = self._text[table.start : table.header_end].strip() + "\n"
            header = None
            if text != "\n" and table.header_end < table.end and len(text) <= self._limits.characters * 3 // 4:
                header = Header(text, self._tokenizer.count([text])[0])
            is_short = header is not None and header.tokens <= self._limits.tokens * 3 // 4
            self._headers[table.start] = header if is_short else None
        return self._headers[table.start]

    def _whole(self, block: Block, header: Header | None) -> list[Piece]:
        """The block as one piece; nothing where it does not fit into a chunk, or is blank."""
        start, end = _strip(self._text, block.start, block.end)
        if start == end or end - start > self._limits.characters:
            return []
        tokens = self._tokenizer.count([self._text[start:end]])[0]
        return [Piece(start, end, "whole", tokens, header)] if self._fits(tokens, end - start, header) else []

    def _fits(self, tokens: int, characters: int, header: Header | None) -> bool:
        if header is not None:
            tokens, characters = tokens + header.tokens, characters + len(header.text)
        return tokens <= self._limits.tokens and characters <= self._limits.characters

    def _weighed(self, spans: Sequence[Span], kind: Kind, header: Header | None) -> list[Piece]:
        """Pieces with about their tokens; one with more than a chunk takes is halved until it fits."""
        pieces: list[Piece] = []
        for (start, end), tokens in zip(spans, self._weigh(spans), strict=True):
            if self._fits(tokens, end - start, header) or end - start == 1:
                pieces.append(Piece(start, end, kind, tokens, header))
            else:
                pieces += self._weighed(halves(self._text, start, end), kind, header)
        return pieces

    def _weigh(self, spans: Sequence[Span]) -> list[int]:
        """About the tokens of each span with the gap behind it."""
        texts = []
        for start, end in spans:
            gap = self._text[end : end + GAP_CHARACTERS]
            texts.append(self._text[start : end + len(gap) - len(gap.lstrip())])
        return self._tokenizer.weigh(texts)

    def _spans(self, start: int, end: int, splitter: TextSplitter | MarkdownSplitter) -> list[Span]:
        """Short lines together, long ones cut by the splitter; stripped, none blank."""
        slices = list(_slices(self._text, start, end))
        long = [self._text[first:last] for first, last in slices if last - first > PIECE_CHARACTERS]
        cut = iter(splitter.chunk_all_indices(long))
        spans: list[Span] = []
        for first, last in slices:
            parts = next(cut) if last - first > PIECE_CHARACTERS else [(0, self._text[first:last])]
            for offset, part in parts:
                bare = part.strip()
                if bare:
                    begin = first + offset + len(part) - len(part.lstrip())
                    spans.append((begin, begin + len(bare)))
        return spans


def strengths(text: str, region: Region, pieces: Sequence[Piece]) -> list[int]:
    """How well the boundary before each piece suits for one chunk to end and the next to begin."""
    found = [BLANK_LINE]
    for before, piece in pairwise(pieces):
        gap = text[before.end : min(piece.start, before.end + SLICE_CHARACTERS)]
        if piece.start == region.body or (before.kind == "header" and piece.kind in {"header", "row"}):
            found.append(BETTER_NOT)
        elif "\n" in gap:
            found.append(BLANK_LINE if gap.count("\n") > 1 else LINE_END)
        else:
            is_sentence = SENTENCE_END.search(text, max(before.start, before.end - 4), before.end)
            found.append(SENTENCE if is_sentence else NOTHING)
    return found


def halves(text: str, start: int, end: int) -> list[Span]:
    """Two spans, cut at white space near the middle where there is some; stripped, so of a blank half nothing."""
    middle, quarter = (start + end) // 2, (end - start) // 4
    blank = max(
        text.rfind(" ", middle - quarter, middle + quarter), text.rfind("\n", middle - quarter, middle + quarter)
    )
    middle = blank if blank > start else middle
    spans = [_strip(text, start, middle), _strip(text, middle, end)]
    return [(first, last) for first, last in spans if first < last]


def _slices(text: str, start: int, end: int) -> Iterator[Span]:
    """Lines, and of long ones sentences; short neighbours together, what is still long in parts for the splitter."""
    held: Span | None = None
    for line in _lines(text, start, end):
        for first, last in [line] if line[1] - line[0] <= PIECE_CHARACTERS else _sentences(text, *line):
            if held and last - held[0] <= PIECE_CHARACTERS and text.count("\n", held[1], first) < 2:
                held = held[0], last
            else:
                yield from _parts(text, *held) if held else ()
                held = first, last
    yield from _parts(text, *held) if held else ()


def _parts(text: str, start: int, end: int) -> Iterator[Span]:
    """Parts of SLICE_CHARACTERS at most, cut at spaces where there are some."""
    while end - start > SLICE_CHARACTERS:
        cut = text.rfind(" ", start + SLICE_CHARACTERS // 2, start + SLICE_CHARACTERS)
        cut = start + SLICE_CHARACTERS if cut < 0 else cut
        yield start, cut
        start = cut
    yield start, end


def _sentences(text: str, start: int, end: int) -> Iterator[Span]:
    for found in SENTENCE_BREAK.finditer(text, start, end):
        yield start, found.end()
        start = found.end()
    if start < end:
        yield start, end


def _lines(text: str, start: int, end: int) -> Iterator[Span]:
    """Every line that is not blank, stripped."""
    while start < end:
        line_end = text.find("\n", start, end)
        line_end = end if line_end < 0 else line_end
        first, last = _strip(text, start, line_end)
        if first < last:
            yield first, last
        start = line_end + 1


def _strip(text: str, start: int, end: int) -> Span:
    """The span without white space at its ends; of a blank one, its end twice."""
    part = text[start:end]
    blank = len(part) - len(part.lstrip())
    return start + blank, start + max(blank, len(part.rstrip()))


def _splitter(*, is_markdown: bool) -> TextSplitter | MarkdownSplitter:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    return (MarkdownSplitter if is_markdown else TextSplitter)(PIECE_CHARACTERS, trim=False)
