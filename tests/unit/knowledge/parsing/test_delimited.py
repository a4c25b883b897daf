from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.knowledge.parsing.base import ParsedDocument
from bonito.knowledge.parsing.delimited import find_delimiter
from tests.unit.knowledge.parsing.conftest import ParseBytes
from tests.unit.knowledge.parsing.properties import patient


def rows(document: ParsedDocument) -> list[str]:
    [table] = document.tables
    assert (table.start, table.end) == (0, len(document.text))
    return document.text[table.header_end :].split("\n")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(parse: ParseBytes, delimiter: str) -> None:
    document = parse(f"name{delimiter}note\nAnn{delimiter}a\nBob{delimiter}b\n", "a.csv")

    assert document.text == "| name | note |\n| --- | --- |\n| Ann | a |\n| Bob | b |"
    assert document.text[: document.tables[0].header_end] == "| name | note |\n| --- | --- |\n"


@pytest.mark.parametrize(
    ("sample", "delimiter"),
    [
        pytest.param("Preis;Ort\n1,5;Rom, Italien\n2,5;Bonn\n", ";", id="decimal-commas"),
        pytest.param("1,5;2,5\n3,5;4,5\n", ";", id="decimal-commas-without-header"),
        pytest.param('a,"x;y;z"\nb,"x;y;z"\n', ",", id="quoted-semicolons"),
        pytest.param("only\none\ncolumn\n", "\x1f", id="one-column"),
        pytest.param("note\nhello, you\nhi\n", "\x1f", id="one-column-with-a-comma"),
        pytest.param("a,b,c", ",", id="header-alone"),
    ],
)
def test_a_delimiter_is_what_cuts_most_rows_alike(sample: str, delimiter: str) -> None:
    assert find_delimiter(sample) == delimiter


def test_quotes_line_ends_and_bars_stay_inside_their_cell(parse: ParseBytes) -> None:
    document = parse('a,b\r\n"one\r\ntwo","say ""hi"" | x"\r\n "sp", y\r\n', "a.csv")

    assert rows(document) == ['| one two | say "hi" \\| x |', "| sp | y |"]
    assert document.warnings == ()


def test_a_late_doubled_quote_is_understood(parse: ParseBytes) -> None:
    text = "a,b\n" + '"x","y"\n' * 5000 + '"say ""hi""","z"\n'

    assert rows(parse(text, "a.csv"))[-1] == '| say "hi" | z |'


def test_excels_separator_line_decides_and_is_no_row(parse: ParseBytes) -> None:
    assert parse("sep=;\na;b,c\n1;2\n", "a.csv").text == "| a | b,c |\n| --- | --- |\n| 1 | 2 |"


def test_ragged_rows_are_kept_and_named(parse: ParseBytes) -> None:
    document = parse('a,b\n1\n"x\ny",2\n\n1,2,3\n4,5,,\n,,\n', "a.csv")

    assert rows(document) == ["| 1 |", "| x y | 2 |", "| 1 | 2 | 3 |", "| 4 | 5 |"]
    assert document.warnings == ("2 rows have more or fewer cells than the header: lines 2, 6.",)


def test_a_quote_that_is_never_closed_does_not_swallow_the_rest(parse: ParseBytes) -> None:
    document = parse('a,b\n"1","x"\n2,"open\n3,x\n4,5" tall\n', "a.csv")

    assert rows(document) == ["| 1 | x |", '| 2 | "open |', "| 3 | x |", '| 4 | 5" tall |']
    assert document.warnings == ("1 row has quotes that do not fit: line 3.",)


def test_a_quote_in_the_middle_of_a_cell_is_kept(parse: ParseBytes) -> None:
    document = parse('a,b\n"x"y,1\n2,5" pipe\n"ok, ok",3\n', "a.csv")

    assert rows(document) == ['| "x"y | 1 |', '| 2 | 5" pipe |', "| ok, ok | 3 |"]
    assert document.warnings == ("1 row has quotes that do not fit: line 2.",)


def test_a_huge_field_is_a_field(parse: ParseBytes) -> None:
    assert rows(parse(f"a,b\n{'x' * 300_000},y\n", "a.csv")) == [f"| {'x' * 300_000} | y |"]


def test_a_legacy_encoding_is_read(parse: ParseBytes) -> None:
    document = parse("Name;Straße\nJörg;Königsallee in Düsseldorf\n".encode("cp1252"), "a.csv")

    assert rows(document) == ["| Jörg | Königsallee in Düsseldorf |"]
    assert document.encoding == "windows-1252"


CELL = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).map(lambda cell: f"x{cell}x")


@patient
@given(st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=2, max_size=6)))
def test_what_a_writer_wrote_is_read_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]]
) -> None:
    from bonito.knowledge.parsing import delimited
    from bonito.knowledge.parsing.base import ParseLimits
    from bonito.knowledge.parsing.tables import markdown_row

    buffer = io.StringIO()
    csv.writer(buffer).writerows([[f"h{column}" for column in range(len(table[0]))], *table])
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_bytes(b"sep=,\n" + buffer.getvalue().encode())

    document = delimited.parse(path, ParseLimits())

    assert rows(document) == [markdown_row(row) for row in table]
