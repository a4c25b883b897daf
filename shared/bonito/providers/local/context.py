"""Finds the numbered sources that augmentation wrote into a request's system message."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

CONTEXT = re.compile(r"^[ \t]*Context:[ \t]*", re.MULTILINE)
SOURCE = "(source: "
# A line that fences retrieved text: backticks, tildes, quotes, angle brackets, or a tag.
FENCE_LINE = re.compile(
    r"[ \t]*(?:`{3,}\w*|~{3,}\w*|\"{3,}|<{3,}[^<>\n]*|>{3,}[^<>\n]*|={3,}|-{3,}|</?[A-Za-z][\w -]*>)[ \t]*"
)


@dataclass(frozen=True)
class Block:
    """One source: the number that citations use, its text, and what names it (`pto.md, p.3`)."""

    number: int
    text: str
    source: str


def find_blocks(system_messages: Iterable[str]) -> list[Block] | None:
    """The sources of the first system message that holds a context; None when there is none at all."""
    for message in system_messages:
        found = CONTEXT.search(message)
        if found:
            return _blocks(message[found.end() :])
    return None


def _blocks(text: str) -> list[Block]:
    """Blocks `[1] text (source: …)`, in order.

    A document may hold lines that look like the next block's first: only the next number counts, and only after a line
    that names a source.
    """
    blocks: list[Block] = []
    start = re.search(r"^[ \t]*\[1\] ?", text, re.MULTILINE)
    while start:
        number = len(blocks) + 1
        following = re.compile(rf"^[ \t]*\[{number + 1}\] ?", re.MULTILINE)
        next_start = next((m for m in following.finditer(text, start.end()) if _source_end(text, m.start())), None)
        end = next_start.start() if next_start else len(text)
        block = _block(number, text[start.end() : end])
        if block:
            blocks.append(block)
        start = next_start
    return blocks


def _block(number: int, text: str) -> Block | None:
    """The text without its fences and its source; None when it names no source."""
    end = _source_end(text, len(text)) or _last_source_end(text)
    if not end:
        return None
    start = text.rindex(SOURCE, 0, end)
    return Block(number, _without_fences(text[:start]), text[start + len(SOURCE) : end - 1].strip())


def _source_end(text: str, end: int) -> int:
    """Where `(source: …)` ends just before a place, with nothing but fences and space between; 0 when it does not."""
    while end > 0:
        line_start = text.rfind("\n", 0, end - 1) + 1
        line = text[line_start:end].rstrip()
        if line and not FENCE_LINE.fullmatch(line):
            return line_start + len(line) if _ends_with_source(line) else 0
        end = line_start
    return 0


def _last_source_end(text: str) -> int:
    """The last block may be followed by further words: it ends at the last line that ends with a source."""
    end = len(text)
    while end > 0:
        line_start = text.rfind("\n", 0, end) + 1
        line = text[line_start:end].rstrip()
        if _ends_with_source(line):
            return line_start + len(line)
        end = line_start - 1
    return 0


def _ends_with_source(line: str) -> bool:
    return line.endswith(")") and SOURCE in line


def _without_fences(text: str) -> str:
    lines = text.strip("\n").split("\n")
    while lines and (not lines[0].strip() or FENCE_LINE.fullmatch(lines[0])):
        lines.pop(0)
    while lines and (not lines[-1].strip() or FENCE_LINE.fullmatch(lines[-1])):
        lines.pop()
    return "\n".join(lines).strip()
