"""CSV and TSV: the dialect is found out, every record becomes one row of a table."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.knowledge.parsing.encoding import decode
from bonito.knowledge.parsing.tables import markdown_row, markdown_rule
from bonito.knowledge.parsing.wording import listed
from bonito.knowledge.parsing.writer import DocumentWriter, clean

# Where two read equally well, the comma is the one that is a decimal sign or part of a sentence.
DELIMITERS = ("\t", ";", "|", ",")
NO_DELIMITER = "\x1f"  # one column: a character that cleaned text cannot hold
SAMPLE_RECORDS = 200
SAMPLE_CHARACTERS = 256 * 1024
SEPARATOR_LINE = re.compile(r'"?sep=(?P<delimiter>[,;\t|:^~])"?\n', re.I)  # how Excel is told the delimiter


def parse(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a CSV file as one table; its first record is the header, which every chunk repeats.

    A line end inside quotes becomes a space. Records with more or fewer cells than the header are kept as
    they are and named in a warning, and so are quotes that do not fit.
    """
    csv.field_size_limit(2**31 - 1)  # the writer keeps the limit, over all fields
    decoded = decode(path.read_bytes())
    text = clean(decoded.text)
    writer = DocumentWriter(limits)
    separator = SEPARATOR_LINE.match(text)
    delimiter = separator["delimiter"] if separator else find_delimiter(text[:SAMPLE_CHARACTERS])
    records = _Records(text, delimiter, start=separator.end() if separator else 0)
    ragged: list[int] = []
    writer.table(_rows(records, ragged), header_lines=2)
    warnings = _warnings(records.wrong_quotes, "quotes that do not fit")
    warnings += _warnings(ragged, "more or fewer cells than the header")
    return writer.finish("csv", is_markdown=True, decoded=decoded, warnings=warnings)


def find_delimiter(sample: str) -> str:
    """The delimiter under which most records have the same number of cells, more than one, and no quote is cut.

    Not csv.Sniffer: it takes quotes for undoubled where the sample holds no doubled one, and its
    expressions take quadratic time on a long line.
    """
    shares = {delimiter: _share_of_usual_width(sample, delimiter) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=lambda delimiter: shares[delimiter])
    return best if shares[best] else NO_DELIMITER


def _share_of_usual_width(sample: str, delimiter: str) -> float:
    lines = sample.splitlines(keepends=True)
    records = csv.reader(lines[:-1] or lines, delimiter=delimiter, skipinitialspace=True)
    widths = Counter(
        -1 if any(cell.count('"') % 2 for cell in record) else len(record)
        for record in islice(records, SAMPLE_RECORDS)
        if record
    )
    width, count = widths.most_common(1)[0] if widths else (0, 0)
    return count / widths.total() if width > 1 else 0.0


class _Records:
    """The records of a text with the number of the line on which each begins; blank ones are left out.

    A line whose quotes do not fit is cut at its delimiters alone, and reading goes on behind it: one quote
    that is never closed must not swallow the rest.
    """

    def __init__(self, text: str, delimiter: str, *, start: int) -> None:
        self._text, self._delimiter = text, delimiter
        self._next, self._line = start, text.count("\n", 0, start) + 1
        self.wrong_quotes: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        reader = self._reader()
        while True:
            start, line = self._next, self._line
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error:
                self.wrong_quotes.append(line)
                self._next, self._line = start, line
                record = next(self._reader(csv.QUOTE_NONE))
                reader = self._reader()
            if any(cell.strip() for cell in record):
                yield line, record

    def _reader(self, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL) -> Iterator[list[str]]:
        """Records from the next line on."""
        return csv.reader(self._lines(), delimiter=self._delimiter, quoting=quoting, skipinitialspace=True, strict=True)

    def _lines(self) -> Iterator[str]:
        while self._next < len(self._text):
            start = self._next
            self._next = self._text.find("\n", start) + 1 or len(self._text)
            self._line += 1
            yield self._text[start : self._next]


def _rows(records: _Records, ragged: list[int]) -> Iterator[str]:
    """The table's lines; the numbers of the lines whose width differs from the header's end up in `ragged`."""
    width = 0
    for line, record in records:
        while len(record) > max(width, 1) and not record[-1].strip():
            record.pop()
        yield markdown_row(record)
        if not width:
            width = len(record)
            yield markdown_rule(width)
        elif len(record) != width:
            ragged.append(line)


def _warnings(lines: Sequence[int], what: str) -> list[str]:
    if not lines:
        return []
    rows, on = ("row has", "line") if len(lines) == 1 else ("rows have", "lines")
    return [f"{len(lines):,} {rows} {what}: {on} {listed(lines)}."]
