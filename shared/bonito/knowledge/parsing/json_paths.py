"""JSON and JSON Lines: one line per scalar, led by its path, as in `employees[3].name: Ann`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from pathlib import Path

from bonito.errors import DocumentError
from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.knowledge.parsing.encoding import DecodedText, decode
from bonito.knowledge.parsing.writer import DocumentWriter, clean, one_line

MAX_DEPTH = 200
BLOCK_DEPTH = 2  # items of lists up to this depth stand apart from each other, as paragraphs do

STRINGS = JSONDecoder(strict=False)  # a raw line end inside a string is wrong, but harmless
WHITE = re.compile(r"[ \t\n\r]*")
# Numbers stay as they are written: no float loses digits of a large one.
SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null|NaN|-?Infinity")
PLAIN_KEY = re.compile(r"[^\s.\[\]\"':]+")


def parse(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read one JSON value; a file with one value per line is read as JSON Lines.

    It is read in one pass without building the value: keys that occur twice are kept, numbers keep all
    their digits. DocumentError names line and column of what is no JSON.
    """
    decoded = decode(path.read_bytes())
    try:
        return _document(decoded, limits, lines=False)
    except _AnotherValue:
        return _document(decoded, limits, lines=True)


def parse_lines(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read values on lines of their own, numbered from `[0]`; blank lines do not count."""
    return _document(decode(path.read_bytes()), limits, lines=True)


class _AnotherValue(Exception):
    """A second value begins on a new line where one was expected."""


@dataclass
class _Container:
    """An open object or array: the path to it, and how many items of it were seen."""

    path: str
    is_array: bool
    count: int = 0
    has_blocks: bool = False


def _document(decoded: DecodedText, limits: ParseLimits, *, lines: bool) -> ParsedDocument:
    writer = DocumentWriter(limits)
    try:
        writer.lines(_all_lines(clean(decoded.text), lines))
    except JSONDecodeError as error:
        where = f"line {error.lineno:,}, column {error.colno:,}"
        raise DocumentError(f"This is not valid JSON: {error.msg} ({where}).") from error
    return writer.finish("jsonl" if lines else "json", decoded=decoded)


def _all_lines(text: str, lines: bool) -> Iterator[str]:
    reader = _Reader(text)
    number = 0
    while not reader.at_end():
        if number:
            reader.expect_new_line(alone=not lines)
        yield ""
        yield from reader.value(f"[{number}]" if lines else "")
        number += 1


class _Reader:
    """Walks over JSON text from left to right, with a stack of its own instead of recursion."""

    def __init__(self, text: str) -> None:
        self._text, self._position = text, 0
        self._last_end = 0

    def at_end(self) -> bool:
        """Whether only white space is left; moves over it."""
        self._last_end = self._position
        return self._peek() == ""

    def expect_new_line(self, *, alone: bool) -> None:
        """Between two values there is a line end; where one value stands alone, a second is another kind of file."""
        if "\n" not in self._text[self._last_end : self._position]:
            raise self._error("Extra data after the value")
        if alone:
            raise _AnotherValue

    def value(self, path: str) -> Iterator[str]:
        """Read one value and yield its lines; an empty line goes around each item that stands apart."""
        stack: list[_Container] = []
        line = self._open(path, stack)
        while True:
            if line is not None:
                yield line
            if not stack:
                return
            top = stack[-1]
            if self._closes(top):
                stack.pop()
                line = "" if top.has_blocks else None
                continue
            path = self._next_path(top)
            top.count += 1
            if top.is_array and len(stack) <= BLOCK_DEPTH and self._peek() in ("{", "["):
                top.has_blocks = True
                yield ""
            line = self._open(path, stack)

    def _open(self, path: str, stack: list[_Container]) -> str | None:
        """Read a scalar or an empty container whole, giving its line, or enter a container, giving None."""
        start = self._peek()
        if start == '"':
            string, self._position = STRINGS.raw_decode(self._text, self._position)
            return _line(path, one_line(clean(string)) or '""')
        if start in ("{", "["):
            self._position += 1
            if self._peek() == ("]" if start == "[" else "}"):
                self._position += 1
                return _line(path, "[]" if start == "[" else "{}")
            if len(stack) == MAX_DEPTH:
                raise DocumentError(f"The JSON is nested deeper than {MAX_DEPTH} levels.")
            stack.append(_Container(path, is_array=start == "["))
            return None
        scalar = SCALAR.match(self._text, self._position)
        if scalar is None:
            raise self._error("A value is expected" if start else "The file ends inside a value")
        self._position = scalar.end()
        return _line(path, scalar.group())

    def _closes(self, container: _Container) -> bool:
        """Move over the container's end or the comma before its next item."""
        sign = self._peek()
        if container.count and sign == ("]" if container.is_array else "}"):
            self._position += 1
            return True
        if container.count:
            if sign != ",":
                raise self._error("A comma or a closing bracket is expected" if sign else "The file ends too early")
            self._position += 1
        return False

    def _next_path(self, container: _Container) -> str:
        if container.is_array:
            return f"{container.path}[{container.count}]"
        if self._peek() != '"':
            raise self._error("A key in double quotes is expected")
        key, self._position = STRINGS.raw_decode(self._text, self._position)
        if self._peek() != ":":
            raise self._error("A colon is expected after the key")
        self._position += 1
        key = one_line(clean(key))
        if not PLAIN_KEY.fullmatch(key):
            return f"{container.path}[{json.dumps(key, ensure_ascii=False)}]"
        return f"{container.path}.{key}" if container.path else key

    def _peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        white = WHITE.match(self._text, self._position)
        self._position = white.end() if white else self._position
        return self._text[self._position : self._position + 1]

    def _error(self, message: str) -> JSONDecodeError:
        return JSONDecodeError(message, self._text, self._position)


def _line(path: str, scalar: str) -> str:
    return f"{path}: {scalar}" if path else scalar
