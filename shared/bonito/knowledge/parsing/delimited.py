"""CSV and TSV: the dialect is found out, every record becomes one row of a table."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.knowledge.parsing.encoding import decode
from bonito.knowledge.parsing.tables import markdown_row, markdown_rule
from bonito.knowledge.parsing.wording import counted, listed
from bonito.knowledge.parsing.writer import DocumentWriter, clean

# Where two read equally well, the comma is the one that is a decimal sign or part of a sentence.
DELIMITERS = ("\t", ";", "|", ",")
NO_DELIMITER = "\x1f"  # one column: a character that cleaned text cannot hold
END = "\x1eend"  # likewise; a line after the last, which an unclosed quote swallows
SAMPLE_RECORDS = 200
SAMPLE_CHARACTERS = 256 * 1024
SEPARATOR_LINE = re.compile(r'"?sep=(?P<delimiter>[,;\t|:^~])"?\n', re.I)  # how Excel is told the delimiter


def parse(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a CSV file as one table; its first record is the header, which every chunk repeats.

    A line end inside quotes becomes a space. Records with more or fewer cells than the header are kept as
    they are and named in a warning, as is a quote that is never closed.
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
    if ragged:
        rows = f"{counted(len(ragged), 'row')} {'has' if len(ragged) == 1 else 'have'}"
        lines = "line" if len(ragged) == 1 else "lines"
        records.warnings.append(f"{rows} more or fewer cells than the header: {lines} {listed(ragged)}.")
    return writer.finish("csv", is_markdown=True, decoded=decoded, warnings=records.warnings)


def find_delimiter(sample: str) -> str:
    """The delimiter under which most records have the same number of cells, more than one.

    Not csv.Sniffer: it takes quotes for undoubled where the sample holds no doubled one, and its
    expressions take quadratic time on a long line.
    """
    shares = {delimiter: _share_of_usual_width(sample, delimiter) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=lambda delimiter: shares[delimiter])
    return best if shares[best] else NO_DELIMITER


def _share_of_usual_width(sample: str, delimiter: str) -> float:
    lines = sample.splitlines(keepends=True)
    records = csv.reader(lines[:-1] or lines, delimiter=delimiter, skipinitialspace=True)
    widths = Counter(len(record) for record in islice(records, SAMPLE_RECORDS) if record)
    width, count = widths.most_common(1)[0] if widths else (0, 0)
    return count / widths.total() if width > 1 else 0.0


class _Records:
    """The records of a text with the number of the line on which each begins; blank ones are left out."""

    def __init__(self, text: str, delimiter: str, *, start: int) -> None:
        self._text, self._delimiter, self._next = text, delimiter, start
        self._line = 1 if start == 0 else 2
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yield until the end; from a quote that is never closed on, quotes mean nothing."""
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            begin = self._next
            reader = csv.reader(self._lines(), delimiter=self._delimiter, skipinitialspace=True, quoting=quoting)
            first_line = self._line
            for record in reader:
                line, self._line = self._line, first_line + reader.line_num
                if record == [END]:
                    return
                if record and record[-1].endswith(END):
                    self._next, self._line = begin, line
                    self.warnings.append(f"A quote that is opened on line {line:,} is never closed.")
                    break
                begin = self._next
                if any(cell.strip() for cell in record):
                    yield line, record

    def _lines(self) -> Iterator[str]:
        while self._next < len(self._text):
            start = self._next
            self._next = self._text.find("\n", start) + 1 or len(self._text)
            yield self._text[start : self._next]
        yield END


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
