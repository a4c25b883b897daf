"""Markdown: the text stays as it is; a real parser says where headings and tables are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits, Table
from bonito.knowledge.parsing.encoding import decode
from bonito.knowledge.parsing.writer import DocumentWriter, clean, one_line

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# YAML or TOML between fences on the first line: a Markdown parser would read its end as a heading's underline.
FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\n(?=[ \t]*[\w\"'-]+[ \t]*[:=])(?:.*\n)*?(?:\1|\.\.\.)[ \t]*(?:\n|$)")
# The parser takes a hundred times its text in memory (measured: 2 MB → 220 MB), so it sees a part at a time.
PART_CHARACTERS = 200_000


def parse(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a Markdown file; headings inside code fences, comments and front matter are none."""
    decoded = decode(path.read_bytes())
    text = clean(decoded.text).lstrip("\n").rstrip()
    writer = DocumentWriter(limits)
    writer.block(text)
    front_matter = FRONT_MATTER.match(text)
    for part in _parts(text, start=front_matter.end() if front_matter else 0):
        _note_headings(part, writer)
        _note_tables(part, writer)
    return writer.finish("md", is_markdown=True, decoded=decoded)


@dataclass(frozen=True)
class _Part:
    """Whole blocks of a document.

    Attributes:
        tokens: with line numbers relative to the part.
        line_starts: offsets into the document; one more than there are lines.
    """

    tokens: Sequence[Token]
    line_starts: Sequence[int]


def _parts(text: str, *, start: int) -> Iterator[_Part]:
    """Parse a part, keep all its blocks but the last, which may go on, and begin the next part with that one."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table").disable("inline")
    size = PART_CHARACTERS
    while start < len(text):
        end = text.find("\n", start + size) + 1 or len(text)
        tokens = parser.parse(text[start:end])
        line_starts = [start, *(start + line_end.end() for line_end in re.finditer("\n", text[start:end])), end]
        if end < len(text):
            last = max(
                (index for index, token in enumerate(tokens) if token.level == 0 and token.nesting >= 0), default=0
            )
            if last == 0:  # one block alone: it may be longer than the part
                size *= 2
                continue
            end = line_starts[_lines(tokens[last])[0]]
            tokens = tokens[:last]
        yield _Part(tokens, line_starts)
        start, size = end, PART_CHARACTERS


def _note_headings(part: _Part, writer: DocumentWriter) -> None:
    for index, token in enumerate(part.tokens):
        if token.type == "heading_open" and token.level == 0:  # not inside a quotation or a list
            title = _plain(part.tokens[index + 1].content)
            writer.open_section(int(token.tag[1]), title, part.line_starts[_lines(token)[0]])


def _note_tables(part: _Part, writer: DocumentWriter) -> None:
    for token in part.tokens:
        if token.type == "table_open":
            first, after = _lines(token)
            starts = part.line_starts
            # The rule below the header is the second line; the line end before `after` is not of the table.
            end = starts[after] - 1 if after < len(starts) - 1 else starts[-1]
            writer.mark_table(Table(starts[first], min(starts[first + 2], end), end))


def _lines(token: Token) -> tuple[int, int]:
    """First line of a block and the first behind it; block tokens always know them."""
    first, after = token.map or (0, 0)
    return first, after


def _plain(source: str) -> str:
    """A heading without its marks: emphasis, code, links."""
    pieces = []
    for child in _inline_parser().parseInline(source)[0].children or ():
        pieces.append(" " if child.type == "softbreak" else "" if child.type == "html_inline" else child.content)
    return one_line("".join(pieces))


@cache
def _inline_parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")
