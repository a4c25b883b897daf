from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.errors import DocumentTooLarge
from bonito.knowledge.parsing import tables
from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.knowledge.parsing.tables import Cell, markdown_row, write_table
from bonito.knowledge.parsing.writer import DocumentWriter
from tests.unit.knowledge.parsing.properties import patient

CELLS = st.builds(Cell, st.text(max_size=5), st.integers(-1, 4), st.integers(-1, 4))


def written(rows: list[list[Cell]], *, header_rows: int = 1) -> ParsedDocument:
    writer = DocumentWriter(ParseLimits())
    write_table(writer, rows, header_rows=header_rows)
    return writer.finish("html", is_markdown=True)


def test_a_cell_is_one_line_with_its_bars_escaped() -> None:
    assert markdown_row(["a\nb", "c|d", ""]) == "| a b | c\\|d |  |"


def test_what_spans_rows_stands_in_each_of_them() -> None:
    rows = [[Cell("name"), Cell("day")], [Cell("Ann", row_span=2), Cell("1")], [Cell("2")]]

    assert written(rows).text.splitlines()[2:] == ["| Ann | 1 |", "| Ann | 2 |"]


def test_what_spans_columns_stands_in_each_of_the_header_and_once_elsewhere() -> None:
    rows = [[Cell("2024", column_span=2)], [Cell("total", column_span=2)], [Cell("a"), Cell("b")]]

    assert written(rows).text.splitlines() == ["| 2024 | 2024 |", "| --- | --- |", "| total |  |", "| a | b |"]


def test_further_header_rows_follow_the_rule_and_are_repeated_with_it() -> None:
    document = written([[Cell("a")], [Cell("b")], [Cell("1")]], header_rows=2)
    [table] = document.tables

    assert document.text[table.start : table.header_end] == "| a |\n| --- |\n| b |\n"


def test_a_table_without_text_is_left_out() -> None:
    assert written([[Cell(" ")], [Cell("")], []]).text == ""


def test_a_span_beyond_the_last_row_ends_there() -> None:
    assert written([[Cell("h")], [Cell("a", row_span=60_000)]]).text.splitlines()[2:] == ["| a |"]


def test_a_table_of_endless_columns_is_refused() -> None:
    rows = [[Cell("x", column_span=10**6)] for _ in range(tables.MAX_CELLS // tables.MAX_COLUMN_SPAN + 1)]

    with pytest.raises(DocumentTooLarge, match="cells"):
        written(rows)


@patient
@given(st.lists(st.lists(CELLS, max_size=5), max_size=6), st.integers(0, 7))
def test_every_row_has_a_cell_for_every_column(rows: list[list[Cell]], header_rows: int) -> None:
    document = written(rows, header_rows=header_rows)

    for table in document.tables:
        lines = document.text[table.start : table.end].split("\n")
        widths = {line.replace("\\|", "").count("|") for line in lines}
        assert len(widths) == 1
        assert table.start <= table.header_end <= table.end == len(document.text)
