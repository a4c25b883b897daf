from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.knowledge.parsing import markdown
from bonito.knowledge.parsing.base import ParsedDocument
from tests.unit.knowledge.parsing.conftest import ParseBytes
from tests.unit.knowledge.parsing.properties import patient


def headings(document: ParsedDocument) -> list[tuple[str, tuple[str, ...]]]:
    return [(document.text[section.offset :].split("\n")[0], section.path) for section in document.sections]


def test_headings_open_sections_where_they_stand(parse: ParseBytes) -> None:
    document = parse("intro\n\n# A *b* `c`\ntext\n\n### B [link](x)\n\nSet\next\n---\n\n# D #\n", "a.md")

    assert headings(document) == [
        ("# A *b* `c`", ("A b c",)),
        ("### B [link](x)", ("A b c", "B link")),
        ("Set", ("A b c", "Set ext")),
        ("# D #", ("D",)),
    ]
    assert document.section_at(0) == ()
    assert document.is_markdown


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("```sh\n# comment\n```", id="fence"),
        pytest.param("~~~\n```\n# x\n~~~", id="fence-in-fence"),
        pytest.param("    # indented", id="indented-code"),
        pytest.param("<!--\n# x\n-->", id="comment"),
        pytest.param("> # quoted", id="quotation"),
        pytest.param("- # listed", id="list"),
        pytest.param("#hashtag", id="no-space"),
        pytest.param("\\# escaped", id="escaped"),
        pytest.param("---\ntitle: x\n---", id="front-matter"),
        pytest.param("---\ntitle: x\nlist:\n- a\n\n# remark\n---\ntext", id="front-matter-with-a-remark"),
        pytest.param('+++\ntitle = "x"\n+++', id="toml"),
    ],
)
def test_what_is_no_heading_opens_no_section(parse: ParseBytes, text: str) -> None:
    document = parse(text, "a.md")

    assert document.sections == ()
    assert document.text == text


def test_a_rule_at_the_start_is_no_front_matter(parse: ParseBytes) -> None:
    assert [path for _, path in headings(parse("---\n\n# A\n\n---\n\n# B", "a.md"))] == [("A",), ("B",)]


def test_tables_are_found_and_the_text_stays_as_it_is(parse: ParseBytes) -> None:
    text = "before\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |\n\nafter\n\nx | y\n--|--\n1 | 2"
    document = parse(text.replace("\n", "\r\n"), "a.md")

    assert document.text == text
    parts = [(text[t.start : t.header_end], text[t.header_end : t.end]) for t in document.tables]
    assert parts == [("| a | b |\n|---|:-:|\n", "| 1 | 2 |\n| 3 | 4 |"), ("x | y\n--|--\n", "1 | 2")]


def test_a_table_in_a_list_is_a_table_and_one_in_a_fence_is_none(parse: ParseBytes) -> None:
    document = parse("- item\n\n  | a |\n  |---|\n  | 1 |\n\n```\n| a |\n|---|\n```", "a.md")
    [table] = document.tables

    assert document.text[table.start : table.end] == "  | a |\n  |---|\n  | 1 |"


def test_a_long_document_is_read_in_parts_alike(parse: ParseBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    block = "## Part {0}\n\ntext\n\n```\n# no\n\n# no\n```\n\n| a |\n|---|\n| {0} |\n\n- x\n\n  y\n\nSet {0}\n===\n"
    text = "\n".join(block.format(number) for number in range(200))
    whole = parse(text, "a.md")

    for size in (1, 50, 777):
        monkeypatch.setattr(markdown, "PART_CHARACTERS", size)
        assert parse(text, "a.md") == whole
    assert len(whole.sections) == 400
    assert len(whole.tables) == 200


LINES = [
    "# A",
    "## B",
    "```",
    "text",
    "",
    "---",
    "===",
    "| a | b |",
    "|---|---|",
    "| 1 | 2 |",
    "- x",
    "  y",
    "> q",
    "<div>",
]


@patient
@given(st.lists(st.sampled_from(LINES), max_size=25), st.integers(1, 40))
def test_reading_in_parts_finds_what_reading_at_once_finds(lines: list[str], size: int) -> None:
    def positions(part_characters: int) -> list[tuple[str, int]]:
        saved, markdown.PART_CHARACTERS = markdown.PART_CHARACTERS, part_characters
        try:
            parts = list(markdown._parts(text, start=0))
        finally:
            markdown.PART_CHARACTERS = saved
        return [(t.type, p.line_starts[t.map[0]]) for p in parts for t in p.tokens if t.map and t.level == 0]

    text = "\n".join(lines)
    assert positions(size) == positions(100_000)
