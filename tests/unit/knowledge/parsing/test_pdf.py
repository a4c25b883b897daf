from __future__ import annotations

import re

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption

from bonito.errors import DocumentError, DocumentTooLarge
from bonito.knowledge.parsing.base import ParsedDocument
from tests.unit.knowledge.parsing.conftest import ParseBytes
from tests.unit.knowledge.parsing.samples import pdf

TEN_PAGES = [[f"Page {number} speaks of leave."] for number in range(1, 11)]


def starts(document: ParsedDocument) -> list[tuple[str, tuple[str, ...]]]:
    return [(document.text[section.offset :][:10], section.path) for section in document.sections]


def test_every_character_knows_its_page(parse: ParseBytes) -> None:
    document = parse(pdf(TEN_PAGES), "a.pdf")

    assert document.page_count == 10
    assert [page.number for page in document.pages] == list(range(1, 11))
    for number in range(1, 11):
        start = document.text.index(f"Page {number} ")
        assert document.page_at(start) == number
        assert document.page_at(start + len("Page speaks of leave.")) == number
    assert document.warnings == ()


def test_pages_without_text_are_counted_in_one_warning_and_keep_their_numbers(parse: ParseBytes) -> None:
    pages = [[] if number in (3, 7) else lines for number, lines in enumerate(TEN_PAGES, start=1)]
    document = parse(pdf(pages), "a.pdf")

    assert document.warnings == ("2 of 10 pages hold no text (scans?): 3, 7.",)
    assert document.page_count == 10
    assert document.page_at(document.text.index("Page 8 ")) == 8


def test_a_scan_is_a_document_without_text_and_a_warning(parse: ParseBytes) -> None:
    document = parse(pdf([[]]), "a.pdf")

    assert (document.text, document.pages, document.page_count) == ("", (), 1)
    assert document.warnings == ("1 of 1 page holds no text (scans?): 1.",)


def test_the_outline_gives_the_sections_where_their_titles_stand(parse: ParseBytes) -> None:
    pages = [
        ["Handbook", "as for leave, see below", "1.1  LEAVE", "Thirty days."],
        ["more of it", "Sick pay", "Full."],
        ["no title here"],
    ]
    outline = [(1, "Handbook", 0), (1, "Leave", 1), (2, "Sick pay", 1), (3, "Annex", 0)]
    document = parse(pdf(pages, outline=outline), "a.pdf")

    assert starts(document) == [
        ("Handbook\na", ("Handbook",)),
        ("1.1 LEAVE\n", ("Handbook", "Leave")),
        ("Sick pay\nF", ("Handbook", "Sick pay")),
        ("no title h", ("Annex",)),
    ]
    assert document.section_at(document.text.index("more of it")) == ("Handbook", "Leave")


def test_without_an_outline_there_are_no_sections(parse: ParseBytes) -> None:
    assert parse(pdf(TEN_PAGES), "a.pdf").sections == ()


def test_hyphens_at_line_ends_are_removed_where_a_program_put_them(parse: ParseBytes) -> None:
    hyphenated = ["The handbook ex-", "plains the bene-", "fits of full-", "time work. A full-time worker", "reads it."]
    document = parse(pdf([hyphenated, ["Only one full-", "time word here."]]), "a.pdf")

    assert "explains the benefits of full-time work." in " ".join(document.text.split())
    assert "Only one full-time word" in " ".join(document.text.split())


def test_what_was_filled_into_a_form_is_text(parse: ParseBytes) -> None:
    document = parse(pdf([["Request for leave"]], fields={"name": "Ann Example", "days": "twelve"}), "a.pdf")

    assert "Request for leave" in document.text
    assert "Ann Example" in document.text
    assert "twelve" in document.text


def test_a_pdf_with_a_password_is_an_error_that_says_so(parse: ParseBytes) -> None:
    with pytest.raises(DocumentError, match="protected with a password"):
        parse(pdf(TEN_PAGES, encrypt=StandardEncryption("user", "owner")), "a.pdf")


def test_a_pdf_that_only_forbids_printing_is_read(parse: ParseBytes) -> None:
    document = parse(pdf(TEN_PAGES, encrypt=StandardEncryption("", "owner", canPrint=0)), "a.pdf")

    assert "Page 10 speaks" in document.text


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.6, 0.9])
def test_a_truncated_pdf_is_an_error_that_says_so(parse: ParseBytes, kept: float) -> None:
    content = pdf(TEN_PAGES)

    with pytest.raises(DocumentError, match="broken or truncated"):
        parse(content[: int(len(content) * kept)], "a.pdf")


def test_a_page_that_cannot_be_read_is_a_warning(parse: ParseBytes) -> None:
    content = pdf(TEN_PAGES)
    third = re.search(rb"/Kids \[ \d+ 0 R \d+ 0 R (\d+) 0 R", content)
    assert third
    begin = content.index(b"\n%s 0 obj\n<<" % third[1])
    # The third page's object is no page any more; its length stays, so that the file's table still fits.
    broken = content[:begin] + content[begin:].replace(b"<<", b"[[", 1)

    document = parse(broken, "a.pdf")

    assert document.warnings == ("1 of 10 pages could not be read: 3.",)
    assert document.page_count == 10
    assert document.page_at(document.text.index("Page 4 ")) == 4


def test_more_pages_than_the_limit_are_refused(parse: ParseBytes) -> None:
    with pytest.raises(DocumentTooLarge, match="has 10 pages; at most 9 are read"):
        parse(pdf(TEN_PAGES), "a.pdf", max_pages=9)


def test_an_outline_in_a_circle_ends(parse: ParseBytes) -> None:
    content = pdf([["A", "B"]], outline=[(1, "A", 0), (1, "B", 0)])
    first = re.search(rb"/First (\d+) 0 R", content)
    assert first
    circle = re.sub(rb"/Prev \d+ 0 R", b"/Next %s 0 R" % first[1], content)
    assert circle != content

    assert [section.path for section in parse(circle, "a.pdf").sections] == [("A",), ("B",)]
