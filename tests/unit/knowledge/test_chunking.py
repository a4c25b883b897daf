"""Chunks: never above the limit, nothing lost, offsets exact, page and section right, tables with their header."""

from __future__ import annotations

import base64
import random
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bonito.errors import DocumentError
from bonito.knowledge.chunking import Chunk, chunk
from bonito.knowledge.parsing.base import PageStart, ParsedDocument, SectionStart, Table
from bonito.knowledge.pieces import CHARACTERS_PER_TOKEN
from bonito.knowledge.tokens import Tokenizer, tokenizer_for

MINILM = tokenizer_for("local/all-minilm-l6-v2")
CL100K = tokenizer_for("openai/text-embedding-3-small")
TOKENIZERS = {"minilm": MINILM, "cl100k": CL100K, "estimate": tokenizer_for("vllm/unheard-of")}

NASTY = [
    "aGVsbG8gd29ybGQ" * 300,
    "漢字仮名交じり文を東京都で読みます。" * 30,
    "한국어 문장은 여기에 있습니다. " * 30,
    "👩‍👩‍👧🇩🇪🏴󠁧󠁢󠁥󠁮󠁧󠁿" * 40,
    "a" + "\u0301\u0327" * 200,
    "\u202eמימין לשמאל\u202c " * 20,
    "\r\n\r\n \t\x0b\x0c\x1c\x85\u2028\u2029\u3000",
    "\x00\x01\x7f\ufeff\ufffd\U0010ffff",
    "\u200b\u200d\u2060" * 50,
    " " * 5_000,
    "\n" * 5_000,
    "word " * 200,
    "Ein Satz. Noch einer! Und? " * 40,
    "-" * 400 + "|=|=|" * 50,
    "[CLS] [SEP] <|endoftext|>",
    "```\ncode\n\n\nmore\n```",
    "~~~\nnever closed",
    "# no heading of the map\n\ntext",
    "| a | b |\n| --- | --- |",
]
WORDS = st.lists(st.sampled_from(["leave", "days", "Überstunden", "x", "3.14", "e.g.", "—"]), min_size=1, max_size=80)
TEXTS = st.one_of(st.text(max_size=400), st.sampled_from(NASTY), WORDS.map(" ".join))
LINES = TEXTS.map(lambda text: " ".join(text.split())[:400] or "x")
TABLES = st.tuples(st.lists(LINES, min_size=1, max_size=2), st.lists(LINES, max_size=12))
BLOCKS = st.one_of(
    TEXTS.map(lambda text: ("text", text)),
    st.tuples(st.integers(1, 4), LINES).map(lambda heading: ("heading", heading)),
    TABLES.map(lambda table: ("table", table)),
    st.just(("page", None)),
)


class Written:
    """A document put together block by block, and for every character what it belongs to."""

    def __init__(self, *, is_markdown: bool) -> None:
        self.text = ""
        self.is_markdown = is_markdown
        self.pages: list[PageStart] = []
        self.sections: list[SectionStart] = []
        self.tables: list[Table] = []
        self.headings: list[tuple[int, int]] = []
        self._path: list[tuple[int, str]] = []

    def add(self, kind: str, value: object) -> None:
        start = len(self.text)
        if kind == "page":
            self.pages.append(PageStart(start, len(self.pages) + 1))
        elif kind == "heading":
            level, title = value
            self._path = [(above, name) for above, name in self._path if above < level] + [(level, title)]
            self.text += f"{'#' * level} {title}"
            self.sections.append(SectionStart(start, tuple(name for _, name in self._path)))
            self.headings.append((start, len(self.text)))
        elif kind == "table":
            header, rows = value
            self.text += "\n".join(header)
            header_end = len(self.text) + (1 if rows else 0)
            self.text += "".join(f"\n{row}" for row in rows)
            self.tables.append(Table(start, header_end, len(self.text)))
        else:
            self.text += str(value)
        self.text += "\n\n"

    def parsed(self) -> ParsedDocument:
        pages = {page.offset: page for page in self.pages}
        return ParsedDocument(
            text=self.text,
            file_type="md" if self.is_markdown else "txt",
            is_markdown=self.is_markdown,
            pages=tuple(pages[offset] for offset in sorted(pages)),
            sections=tuple(self.sections),
            tables=tuple(self.tables),
        )


@st.composite
def documents(draw: st.DrawFn) -> Written:
    written = Written(is_markdown=draw(st.booleans()))
    for kind, value in draw(st.lists(BLOCKS, max_size=12)):
        written.add(kind, value)
    return written


def check_limit(chunks: list[Chunk], tokenizer: Tokenizer, size: int) -> None:
    limit = min(size, tokenizer.max_text_tokens)
    counts = tokenizer.count([piece.content for piece in chunks])
    assert [piece.token_count for piece in chunks] == counts
    assert max(counts, default=0) <= limit
    assert max((len(piece.content) for piece in chunks), default=0) <= limit * CHARACTERS_PER_TOKEN


def check_spans(chunks: list[Chunk], text: str) -> None:
    assert [piece.index for piece in chunks] == list(range(len(chunks)))
    covered = 0
    for piece in chunks:
        assert piece.content == piece.prefix + text[piece.start : piece.end]
        assert text[piece.start : piece.end] == text[piece.start : piece.end].strip() != ""
        assert text[covered : piece.start].strip() == ""
        covered = max(covered, piece.end)
    assert text[covered:].strip() == ""
    for before, after in pairwise(chunks):
        assert before.start < after.start
        assert before.end < after.end


def is_title(offset: int, document: ParsedDocument) -> bool:
    """Whether the character lies in a short line above the first heading, nothing else between two page marks."""
    if document.section_at(offset) or not document.sections:
        return False
    starts = sorted({0, *(mark.offset for mark in (*document.pages, *document.sections))})
    number = bisect_right(starts, offset)
    line = document.text[starts[number - 1] : starts[number]].strip()
    return starts[number] == document.sections[0].offset and len(line) <= 100 and "\n" not in line


def check_places(chunks: list[Chunk], written: Written, document: ParsedDocument) -> None:
    heading_of = [start for start, _ in written.headings]
    for piece in chunks:
        offsets = [offset for offset in range(piece.start, piece.end) if not document.text[offset].isspace()]
        body = []
        for offset in offsets:
            number = bisect_right(heading_of, offset) - 1
            is_heading = number >= 0 and offset < written.headings[number][1]
            if not is_heading and not is_title(offset, document):
                body.append(offset)
        places = {(document.page_at(offset), document.section_at(offset)) for offset in body or offsets}
        assert (piece.page, piece.section) in places
        assert not body or len(places) == 1
        assert len({document.section_at(offset)[:1] for offset in offsets if not is_title(offset, document)}) <= 1


def check_headers(chunks: list[Chunk], document: ParsedDocument, tokenizer: Tokenizer, size: int) -> None:
    limit = min(size, tokenizer.max_text_tokens)
    for piece in chunks:
        table = next((table for table in document.tables if table.header_end <= piece.start < table.end), None)
        header = "" if table is None else document.text[table.start : table.header_end].strip()
        if header and tokenizer.count([header + "\n"])[0] <= limit // 2 and len(header) < limit * 8:
            assert piece.prefix == header + "\n"
        if piece.prefix:
            assert piece.prefix == header + "\n"


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(written=documents(), size=st.sampled_from([16, 17, 40, 128, 254, 512, 3000]), overlap=st.integers(0, 80))
def test_every_rule_holds_for_any_document(tokenizer: Tokenizer, written: Written, size: int, overlap: int) -> None:
    document = written.parsed()

    chunks = chunk(document, tokenizer=tokenizer, size=size, overlap=overlap)

    check_limit(chunks, tokenizer, size)
    check_spans(chunks, document.text)
    check_places(chunks, written, document)
    check_headers(chunks, document, tokenizer, size)
    assert chunk(document, tokenizer=tokenizer, size=size, overlap=overlap) == chunks


def chunked(text: str, **given: object) -> list[Chunk]:
    size, overlap = given.pop("size", 254), given.pop("overlap", 0)
    tokenizer = given.pop("tokenizer", MINILM)
    document = ParsedDocument(**{"text": text, "file_type": "txt", **given})
    return chunk(document, tokenizer=tokenizer, size=size, overlap=overlap)


def written(*blocks: tuple[str, object]) -> ParsedDocument:
    document = Written(is_markdown=True)
    for kind, value in blocks:
        document.add(kind, value)
    return document.parsed()


def table(*, rows: int, header: str = "| Name | Start |\n| --- | --- |") -> tuple[str, object]:
    return "table", (header.split("\n"), [f"| Employee {number} | {1990 + number} |" for number in range(rows)])


PARAGRAPH = "Unused days expire on 31 March of the following year, and no payment is made in lieu. " * 3


@pytest.mark.parametrize("text", ["", " ", "\n\n\t \r\n", "\u3000\u2028\x1c\x85", " " * 100_000])
def test_white_space_alone_has_no_chunks(text: str) -> None:
    assert chunked(text) == []
    assert chunked(text, pages=(PageStart(0, 1),), sections=(SectionStart(0, ("A",)),), is_markdown=True) == []


def test_a_short_text_is_one_chunk_without_the_white_space_around_it() -> None:
    (only,) = chunked("\n\n  Thirty days.\n\n- of leave\n\n")

    assert (only.content, only.start, only.end) == ("Thirty days.\n\n- of leave", 4, 28)
    assert (only.page, only.section, only.prefix, only.token_count) == (None, (), "", 6)


def test_the_local_model_reads_every_chunk_whole_with_its_special_tokens() -> None:
    chunks = chunked(PARAGRAPH * 40, size=512)

    assert 230 < max(piece.token_count for piece in chunks) <= 254


def test_chunks_are_well_filled_and_end_between_sentences_or_paragraphs() -> None:
    chunks = chunked("\n\n".join([PARAGRAPH.strip()] * 40), size=512, tokenizer=CL100K)

    assert all(piece.content.endswith("in lieu.") for piece in chunks)
    assert all(piece.token_count > 0.7 * 512 for piece in chunks[:-1])


def test_a_chunk_repeats_whole_sentences_of_the_one_before_up_to_the_overlap() -> None:
    text = " ".join(f"Rule {number} says that days expire in month {number}." for number in range(200))

    chunks = chunked(text, size=128, overlap=50)

    for before, after in pairwise(chunks):
        repeated = text[after.start : before.end]
        assert repeated.startswith("Rule ")
        assert repeated.endswith(".")
        assert 0 < MINILM.count([repeated])[0] <= 50


def test_an_overlap_above_half_a_chunk_is_halved() -> None:
    chunks = chunked("one two three four five six seven. " * 60, size=64, overlap=60)

    for before, after in pairwise(chunks):
        assert before.end - after.start <= (after.end - after.start) // 2 + 40


def test_no_chunk_reaches_across_pages_and_each_says_its_own() -> None:
    document = written(*[("page", None), ("text", "Fact of this page."), ("page", None), ("text", PARAGRAPH)] * 3)

    chunks = chunk(document, tokenizer=MINILM)

    assert [piece.page for piece in chunks] == [1, 2, 3, 4, 5, 6]
    assert all(document.page_at(piece.start) == document.page_at(piece.end - 1) == piece.page for piece in chunks)


def test_text_before_the_first_page_mark_has_no_page() -> None:
    chunks = chunked("Cover.\n\nText.", pages=(PageStart(8, 1),))

    assert [(piece.content, piece.page) for piece in chunks] == [("Cover.", None), ("Text.", 1)]


def test_every_section_begins_a_chunk_with_its_heading() -> None:
    document = written(
        ("heading", (1, "Handbook")),
        ("text", "Valid from 2025."),
        ("heading", (2, "Leave")),
        ("text", "Thirty days."),
        ("heading", (2, "Pay")),
        ("text", "On the 25th."),
    )

    chunks = chunk(document, tokenizer=MINILM)

    assert [(piece.content, piece.section) for piece in chunks] == [
        ("# Handbook\n\nValid from 2025.", ("Handbook",)),
        ("## Leave\n\nThirty days.", ("Handbook", "Leave")),
        ("## Pay\n\nOn the 25th.", ("Handbook", "Pay")),
    ]


def test_a_heading_without_text_stays_with_what_follows_it_and_the_chunk_says_where_the_text_is() -> None:
    document = written(
        ("page", None),
        ("heading", (1, "Handbook")),
        ("heading", (2, "Leave")),
        ("page", None),
        ("text", "Thirty days."),
        ("heading", (1, "Glossary")),
        ("heading", (1, "Index")),
        ("text", "A to Z."),
    )

    chunks = chunk(document, tokenizer=MINILM)

    assert [(piece.content, piece.page, piece.section) for piece in chunks] == [
        ("# Handbook\n\n## Leave\n\n\n\nThirty days.", 2, ("Handbook", "Leave")),
        ("# Glossary", 2, ("Glossary",)),
        ("# Index\n\nA to Z.", 2, ("Index",)),
    ]


def test_a_title_above_the_first_heading_is_no_chunk_of_its_own() -> None:
    text = "Employee handbook\n\nWelcome\nWe make instruments.\n\nLeave\nThirty days."
    sections = tuple(SectionStart(text.index(title), (title,)) for title in ("Welcome", "Leave"))

    chunks = chunked(text, sections=sections, pages=(PageStart(0, 1),))

    assert [(piece.content, piece.section) for piece in chunks] == [
        ("Employee handbook\n\nWelcome\nWe make instruments.", ("Welcome",)),
        ("Leave\nThirty days.", ("Leave",)),
    ]


def test_text_above_the_first_heading_is_a_chunk_without_a_section() -> None:
    text = "Employee handbook\nValid from 2025.\n\nLeave\nThirty days."

    chunks = chunked(text, sections=(SectionStart(text.index("Leave"), ("Leave",)),))

    assert [piece.section for piece in chunks] == [(), ("Leave",)]


def test_a_heading_underlined_as_in_markdown_counts_as_one() -> None:
    text = "*Leave*\n=======\n\nAccrual\n-------\n\nTwo days."
    sections = (SectionStart(0, ("Leave",)), SectionStart(17, ("Leave", "Accrual")))

    (only,) = chunked(text, sections=sections, is_markdown=True)

    assert (only.content, only.section) == (text, ("Leave", "Accrual"))


def test_a_table_that_fits_is_whole_even_when_it_must_wait_for_the_next_chunk() -> None:
    document = written(("text", PARAGRAPH * 3), table(rows=12))

    chunks = chunk(document, tokenizer=MINILM, size=200)

    whole = document.text[document.tables[0].start : document.tables[0].end]
    assert [whole in piece.content for piece in chunks] == [False, True]


def test_a_longer_table_is_divided_between_rows_and_every_part_has_the_header() -> None:
    header = "Salaries by year\n| Name | Start |\n| --- | --- |"
    document = written(("text", "The table:"), table(rows=80, header=header), ("text", "After it."))

    chunks = chunk(document, tokenizer=MINILM, size=128)

    assert chunks[0].content.startswith(f"The table:\n\n{header}\n| Employee 0 |")
    assert len(chunks) == 5
    for piece in chunks[1:]:
        assert piece.prefix == header + "\n"
        assert piece.content.startswith(f"{header}\n| Employee ")
    rows = "\n".join(document.text[piece.start : piece.end] for piece in chunks)
    assert [rows.count(f"| Employee {number} |") for number in range(80)] == [1] * 80
    assert chunks[-1].content.endswith("After it.")


def test_a_table_over_two_pages_has_its_header_on_both() -> None:
    document = written(("page", None), table(rows=6))
    middle = document.text.index("| Employee 3 |")
    document = ParsedDocument(
        text=document.text, file_type="pdf", tables=document.tables, pages=(PageStart(0, 1), PageStart(middle, 2))
    )

    first, second = chunk(document, tokenizer=MINILM)

    assert (first.page, first.prefix) == (1, "")
    assert (second.page, second.prefix) == (2, "| Name | Start |\n| --- | --- |\n")
    assert second.content.startswith("| Name | Start |\n| --- | --- |\n| Employee 3 |")


def test_a_row_above_the_limit_is_divided_with_the_header_on_every_part() -> None:
    header = ["| Name | Notes |", "| --- | --- |"]
    document = written(("table", (header, ["| Ada | short |", f"| Bob | {'long notes ' * 200} |", "| Cy | x |"])))

    chunks = chunk(document, tokenizer=MINILM, size=64)

    assert len(chunks) > 5
    assert all(piece.content.startswith("| Name | Notes |\n| --- | --- |\n") for piece in chunks)


def test_a_header_above_the_limit_is_divided_and_not_repeated() -> None:
    header = "| " + " | ".join(f"column {number}" for number in range(200)) + " |"
    document = written(("table", ([header], ["| 1 | 2 |"] * 3)))

    chunks = chunk(document, tokenizer=MINILM, size=64)

    assert max(piece.token_count for piece in chunks) <= 64
    assert all(piece.prefix == "" for piece in chunks)
    assert chunks[-1].content.endswith("| 1 | 2 |")


def test_code_between_fences_stays_whole_where_it_fits() -> None:
    code = "```python\n" + "\n\n".join(f"def rule_{number}():\n    return {number}" for number in range(6)) + "\n```"
    document = written(("text", PARAGRAPH * 2), ("text", code), ("text", PARAGRAPH))

    chunks = chunk(document, tokenizer=MINILM, size=160)

    assert sum(code in piece.content for piece in chunks) == 1


def test_code_above_the_limit_is_divided_between_lines() -> None:
    code = "```\n" + "\n".join(f"rule {number} = {number}" for number in range(300)) + "\n```"

    chunks = chunked(code, is_markdown=True, size=64)

    assert all(piece.content.splitlines()[0] in code.splitlines() for piece in chunks)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(base64.b64encode(random.Random(1).randbytes(30_000)).decode(), id="base64"),
        pytest.param("漢字仮名交じり文を東京都" * 2_000, id="japanese without stops"),
        pytest.param("🇩🇪👩‍👩‍👧" * 2_000, id="emoji"),
        pytest.param("a" + "\u0301" * 20_000, id="one letter with 20,000 accents"),
        pytest.param("word" + " " * 200_000 + "word", id="a gap of 200,000 spaces"),
        pytest.param("line\n" * 20_000, id="20,000 short lines"),
    ],
)
@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_text_without_boundaries_is_divided_all_the_same(
    tokenizer: Tokenizer, text: str, record_property: Callable[[str, object], None]
) -> None:
    chunks = chunked(text, tokenizer=tokenizer, size=512, overlap=50)

    record_property("chunks", len(chunks))
    check_limit(chunks, tokenizer, 512)
    check_spans(chunks, text)


def test_megabytes_without_a_line_end_are_divided() -> None:
    text = ("The notice period is one month to the end of a calendar month for every employee " * 20_000)[:1_500_000]

    chunks = chunked(text, overlap=50)

    check_limit(chunks, MINILM, 254)
    check_spans(chunks, text)


def test_a_literal_special_token_changes_no_limit() -> None:
    chunks = chunked("[SEP][CLS] <|endoftext|> " * 500, size=64)

    check_limit(chunks, MINILM, 64)


@pytest.mark.parametrize(("size", "overlap"), [(15, 0), (0, 0), (-1, 0), (64, -1)])
def test_a_size_or_overlap_out_of_bounds_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="size starts at 16"):
        chunked("text", size=size, overlap=overlap)


def test_text_that_is_no_unicode_ends_as_an_error_on_the_document() -> None:
    with pytest.raises(DocumentError, match="no valid Unicode"):
        chunked("lone \ud800 surrogate")
