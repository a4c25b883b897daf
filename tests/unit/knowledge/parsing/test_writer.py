from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.errors import DocumentTooLarge
from bonito.knowledge.parsing.base import PageStart, ParseLimits, SectionStart, Table
from bonito.knowledge.parsing.writer import DocumentWriter, clean, one_line
from tests.unit.knowledge.parsing.properties import patient


@patient
@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_cleaned_text_can_be_stored_whatever_came_in(text: str) -> None:
    cleaned = clean(text)

    assert "\0" not in cleaned
    assert "\r" not in cleaned
    assert "\x1b" not in cleaned
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert clean(cleaned) == cleaned


@patient
@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(clean(text)).splitlines()) <= 1


def test_blocks_are_parted_by_a_blank_line_and_blank_ones_left_out() -> None:
    writer = DocumentWriter(ParseLimits())

    assert writer.block("\n\none\n") == 0
    assert writer.block(" \n ") is None
    assert writer.block("two") == 5
    assert writer.finish("txt").text == "one\n\ntwo"


def test_offsets_count_what_is_left_after_cleaning() -> None:
    writer = DocumentWriter(ParseLimits())
    writer.page(1, "a\0b\r\nc\ud800")
    writer.page(2, "d")

    document = writer.finish("pdf")

    assert document.text == "ab\nc\n\nd"
    assert document.pages == (PageStart(0, 1), PageStart(6, 2))
    assert [document.page_at(offset) for offset in (0, 5, 6)] == [1, 1, 2]


def test_a_heading_ends_the_sections_of_its_level_and_below() -> None:
    writer = DocumentWriter(ParseLimits())
    for level, title in [(1, "A"), (3, "B"), (2, "C"), (1, "D")]:
        writer.heading(level, title)

    document = writer.finish("html")

    assert document.text == "# A\n\n### B\n\n## C\n\n# D"
    assert [section.path for section in document.sections] == [("A",), ("A", "B"), ("A", "C"), ("D",)]


def test_of_several_sections_at_one_place_the_last_counts() -> None:
    writer = DocumentWriter(ParseLimits())
    writer.block("text of a page")
    for offset, path in [(5, ("A", "late")), (0, ("A",)), (0, ("A", "B"))]:
        writer.section(offset, path)

    assert writer.finish("pdf").sections == (SectionStart(0, ("A", "B")), SectionStart(5, ("A", "late")))


def test_section_titles_are_cut_and_the_text_is_not() -> None:
    writer = DocumentWriter(ParseLimits())
    writer.heading(1, "x" * 1000)

    document = writer.finish("html")

    assert len(document.sections[0].path[0]) == 200
    assert len(document.text) == 1002


def test_a_table_knows_its_caption_header_and_rows() -> None:
    writer = DocumentWriter(ParseLimits())
    writer.block("before")
    writer.table(["| h |", "| --- |", "| 1 |", "| 2 |"], header_lines=2, caption="Table\n1")
    writer.block("after")

    document = writer.finish("html")
    [table] = document.tables

    assert document.text[table.start : table.header_end] == "Table 1\n| h |\n| --- |\n"
    assert document.text[table.header_end : table.end] == "| 1 |\n| 2 |"


def test_a_table_of_a_header_alone_has_no_rows() -> None:
    writer = DocumentWriter(ParseLimits())
    writer.table(["| h |", "| --- |"], header_lines=2)

    assert writer.finish("csv").tables == (Table(0, 13, 13),)


@pytest.mark.parametrize("pieces", [["x" * 11], ["x" * 4, "y" * 6]])
def test_more_text_than_the_limit_is_refused(pieces: list[str]) -> None:
    writer = DocumentWriter(ParseLimits(max_text_characters=10))

    with pytest.raises(DocumentTooLarge, match="more than 10 characters"):
        for piece in pieces:
            writer.block(piece)


def test_many_small_pieces_come_out_in_order() -> None:
    writer = DocumentWriter(ParseLimits())
    writer.lines(str(number) for number in range(60_000))

    assert writer.finish("json").text == "\n".join(map(str, range(60_000)))
