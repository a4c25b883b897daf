"""Tables as Markdown: spans filled in, one row a line, header first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bonito.errors import DocumentTooLarge
from bonito.knowledge.parsing.writer import DocumentWriter, one_line

MAX_COLUMN_SPAN = 1_000  # HTML's own bounds (Living Standard, "4.9.11 Attributes common to td and th elements")
MAX_ROW_SPAN = 65_534
MAX_CELLS = 2_000_000


@dataclass(frozen=True)
class Cell:
    """A cell as it stands in the source, over one or more columns and rows."""

    text: str
    column_span: int = 1
    row_span: int = 1


def markdown_row(cells: Sequence[str]) -> str:
    """One row on one line: `| a | b |`."""
    escaped = (one_line(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def markdown_rule(columns: int) -> str:
    """The line below the first header row."""
    return "|" + " --- |" * columns


def write_table(
    writer: DocumentWriter, rows: Sequence[Sequence[Cell]], *, header_rows: int = 1, caption: str = ""
) -> None:
    """Append a table to the document; one without any text is left out.

    Args:
        writer: the document.
        rows: cells as in the source; a row may be shorter or longer than others.
        header_rows: how many of them are headings; at least the first counts as one: Markdown knows no table without.
        caption: a sentence that belongs to the table; "" for none.
    """
    header_rows = max(1, min(header_rows, len(rows)))
    grid = [row for row in _filled(rows, header_rows) if row]
    if not any(cell.strip() for row in grid for cell in row):
        return
    columns = max(len(row) for row in grid)
    header_lines = min(header_rows, len(grid)) + 1
    writer.table(_lines(grid, columns), header_lines=header_lines, caption=caption)


def _lines(grid: Sequence[Sequence[str]], columns: int) -> Iterator[str]:
    for number, row in enumerate(grid):
        yield markdown_row([*row, *[""] * (columns - len(row))])
        if number == 0:
            yield markdown_rule(columns)


def _filled(rows: Sequence[Sequence[Cell]], header_rows: int) -> Iterator[list[str]]:
    """Rows without spans.

    What spans rows stands in each, so that a row tells all it means when the table is split; what spans
    columns stands in each only in the header, where it groups them, and once elsewhere.
    """
    hanging: dict[int, tuple[int, str]] = {}  # column → rows left, text
    budget = MAX_CELLS
    for number, row in enumerate(rows):
        line: list[str] = []
        for cell in row:
            _take_hanging(line, hanging)
            span = min(max(cell.column_span, 1), MAX_COLUMN_SPAN)
            below = min(cell.row_span, MAX_ROW_SPAN, len(rows) - number) - 1
            for part in range(span):
                text = cell.text if part == 0 or number < header_rows else ""
                if below > 0:
                    hanging[len(line)] = (below, text)
                line.append(text)
        while hanging and max(hanging) >= len(line):
            _take_hanging(line, hanging)
            if hanging and max(hanging) > len(line):
                line.append("")
        budget -= len(line)
        if budget < 0:
            raise DocumentTooLarge(f"A table has more than {MAX_CELLS:,} cells.")
        yield line


def _take_hanging(line: list[str], hanging: dict[int, tuple[int, str]]) -> None:
    while len(line) in hanging:
        column = len(line)
        left, text = hanging[column]
        if left > 1:
            hanging[column] = (left - 1, text)
        else:
            del hanging[column]
        line.append(text)
