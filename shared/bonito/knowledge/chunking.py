"""Divides a document's text into chunks: what is embedded, searched and cited.

A chunk lies in one section and on one page, so that a citation is right for all of its text. Inside, it ends where the
text suits best: between paragraphs rather than lines, rather than sentences, rather than words. Tables and code stay
whole where they fit; of a longer table, every part repeats the header.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from bonito.errors import DocumentError
from bonito.knowledge.parsing.base import ParsedDocument
from bonito.knowledge.pieces import NOTHING, SENTENCE, Cutter, Header, Limits, Piece, halves, strengths
from bonito.knowledge.regions import Region, find_regions
from bonito.knowledge.tokens import Tokenizer

DEFAULT_SIZE = 512
DEFAULT_OVERLAP = 50
MIN_SIZE = 16  # one character of any script fits, beside a header too
# How much of a chunk one step of strength (a line end over a sentence's, a blank line over a line end) is worth.
WORTH_OF_STRENGTH = 0.2
COUNTED_AT_ONCE = 1_000


@dataclass(frozen=True)
class Chunk:
    """A span of a document's text.

    Attributes:
        index: position among the document's chunks, from 0.
        content: prefix + text[start:end]; neither begins nor ends with white space.
        prefix: the header of the table whose rows the chunk begins with, repeated, its line end included; "" otherwise.
        token_count: of the content, as the embedding model counts, without special tokens.
        page: on which the span lies, from 1; None where the type has no pages. A heading counts with its text.
        section: the headings above the span's text, outermost first; one that the span begins with is among them.
        start: offset of the first character in the document's text; grows from chunk to chunk.
        end: offset behind the last one; grows from chunk to chunk.
    """

    index: int
    content: str
    prefix: str
    token_count: int
    page: int | None
    section: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Draft:
    """A chunk in the making; tokens is None until its content was counted as a whole."""

    region: Region
    start: int
    end: int
    header: Header | None
    tokens: int | None = None


def chunk(
    document: ParsedDocument, *, tokenizer: Tokenizer, size: int = DEFAULT_SIZE, overlap: int = DEFAULT_OVERLAP
) -> list[Chunk]:
    """Divide a document; the same input gives the same chunks.

    Args:
        document: every character of its text that is not white space ends up in a chunk.
        tokenizer: the embedding model's.
        size: most tokens of a chunk, >= 16, or what the model reads, if that is less. A chunk also holds no more than
            16 characters for each of them, which only white space and very long words reach.
        overlap: most tokens that a chunk repeats from the end of the one before, >= 0, in whole sentences where some
            fit; half of the size at most, and never across a page, a section or into a table.

    Returns:
        The chunks in the order of the text; none for a text of white space.

    Raises:
        ValueError: size or overlap out of bounds; a programming error.
        DocumentError: the text holds lone surrogates, which nothing could store or send.
    """
    if size < MIN_SIZE or overlap < 0:
        raise ValueError(f"size starts at {MIN_SIZE} and overlap at 0, got {size} and {overlap}")
    _check_encodable(document.text)
    limits = Limits(min(size, tokenizer.max_text_tokens))
    cutter = Cutter(document, tokenizer, limits)
    drafts: list[Draft] = []
    for region in find_regions(document):
        drafts += _pack(document.text, region, cutter.cut(region), limits, min(overlap, limits.tokens // 2))
    settled = _settle(document.text, drafts, cutter, tokenizer, limits)
    return [_chunk(document, index, draft) for index, draft in enumerate(settled)]


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DocumentError("The document's text holds characters that are no valid Unicode.") from error


def _pack(text: str, region: Region, pieces: Sequence[Piece], limits: Limits, overlap: int) -> Iterator[Draft]:
    """Put the region's pieces together, as many at a time as fit."""
    marks = strengths(text, region, pieces)
    sums = [0, *accumulate(piece.tokens for piece in pieces)]
    first = 0
    while first < len(pieces):
        last = _fill(pieces, sums, first, limits)
        if last < len(pieces):
            last = _best_end(marks, sums, first, last, limits)
        yield Draft(region, pieces[first].start, pieces[last - 1].end, pieces[first].header)
        first = last if last == len(pieces) else _next_start(pieces, marks, sums, first, last, limits, overlap)


def _fill(pieces: Sequence[Piece], sums: Sequence[int], first: int, limits: Limits) -> int:
    """One behind the last piece that fits into a chunk from `first` on; at least that one is taken."""
    header = pieces[first].header
    tokens = limits.tokens - (header.tokens if header else 0)
    characters = limits.characters - (len(header.text) if header else 0)
    by_tokens = bisect_right(sums, sums[first] + tokens) - 1
    by_characters = bisect_right(pieces, pieces[first].start + characters, key=lambda piece: piece.end)
    return max(first + 1, min(by_tokens, by_characters))


def _best_end(marks: Sequence[int], sums: Sequence[int], first: int, last: int, limits: Limits) -> int:
    """Where to end a chunk of up to the pieces before `last`: full, but for a better boundary down to half as full."""
    fullest = sums[last] - sums[first]
    best, best_worth = last, float("-inf")
    for end in range(last, first, -1):
        tokens = sums[end] - sums[first]
        if tokens < fullest / 2:
            break
        worth = tokens / limits.tokens + WORTH_OF_STRENGTH * marks[end]
        if worth > best_worth:
            best, best_worth = end, worth
    return best


def _next_start(
    pieces: Sequence[Piece],
    marks: Sequence[int],
    sums: Sequence[int],
    first: int,
    last: int,
    limits: Limits,
    overlap: int,
) -> int:
    """The piece that the chunk behind `last` begins with: behind `first`, and early enough to repeat some text."""
    if pieces[last].kind == "row":
        return last
    tokens = min(overlap, limits.tokens - pieces[last].tokens)
    sentence = word = last
    for start in range(last - 1, first, -1):
        is_too_long = pieces[last].end - pieces[start].start > limits.characters
        if pieces[start].kind != "text" or sums[last] - sums[start] > tokens or is_too_long:
            break
        if marks[start] >= SENTENCE:
            sentence = start
        elif marks[start] == NOTHING:
            word = start
    return sentence if sentence < last else word


def _settle(text: str, drafts: Sequence[Draft], cutter: Cutter, tokenizer: Tokenizer, limits: Limits) -> list[Draft]:
    """Count every content as a whole; what has more tokens than its pieces had, and now too many, is halved."""
    settled = list(drafts)
    while any(draft.tokens is None for draft in settled):
        counted: list[Draft] = []
        for draft in _counted(text, settled, tokenizer):
            if (draft.tokens or 0) <= limits.tokens or (draft.end - draft.start == 1 and draft.header is None):
                counted.append(draft)
            else:
                counted += _split(text, draft, cutter)
        settled = _in_order(text, counted, cutter)
    return settled


def _counted(text: str, drafts: Sequence[Draft], tokenizer: Tokenizer) -> Iterator[Draft]:
    for first in range(0, len(drafts), COUNTED_AT_ONCE):
        batch = drafts[first : first + COUNTED_AT_ONCE]
        counts = iter(tokenizer.count([_content(text, draft) for draft in batch if draft.tokens is None]))
        for draft in batch:
            yield replace(draft, tokens=next(counts)) if draft.tokens is None else draft


def _split(text: str, draft: Draft, cutter: Cutter) -> Iterator[Draft]:
    if draft.end - draft.start == 1:
        yield replace(draft, header=None, tokens=None)
        return
    for start, end in halves(text, draft.start, draft.end):
        yield Draft(draft.region, start, end, draft.header if start == draft.start else cutter.header_at(start))


def _in_order(text: str, drafts: Sequence[Draft], cutter: Cutter) -> list[Draft]:
    """Mend what splitting did to overlaps: every draft begins and ends behind the one before."""
    ordered: list[Draft] = []
    for draft in drafts:
        if ordered and draft.end <= ordered[-1].end:
            continue  # the half of one that began with an overlap
        if ordered and draft.start <= ordered[-1].start:
            start = draft.end - len(text[ordered[-1].end : draft.end].lstrip())
            draft = Draft(draft.region, start, draft.end, cutter.header_at(start))
        ordered.append(draft)
    return ordered


def _content(text: str, draft: Draft) -> str:
    return (draft.header.text if draft.header else "") + text[draft.start : draft.end]


def _chunk(document: ParsedDocument, index: int, draft: Draft) -> Chunk:
    is_heading_first = draft.start < draft.region.body < draft.end
    place = draft.region.body if is_heading_first else draft.start
    return Chunk(
        index=index,
        content=_content(document.text, draft),
        prefix=draft.header.text if draft.header else "",
        token_count=draft.tokens or 0,
        page=document.page_at(place),
        section=document.section_at(place),
        start=draft.start,
        end=draft.end,
    )
