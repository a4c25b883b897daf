from __future__ import annotations

import io
import socket

import docx
import pytest

from bonito.errors import DocumentError, DocumentTooLarge
from bonito.knowledge.parsing.base import ParsedDocument
from tests.unit.knowledge.parsing.conftest import ParseBytes
from tests.unit.knowledge.parsing.samples import STRICT_W, paragraph, table, word


def saved(document: docx.document.Document) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def style(style_id: str, name: str, properties: str = "", *, based_on: str = "", attributes: str = "") -> str:
    based = f'<w:basedOn w:val="{based_on}"/>' if based_on else ""
    return (
        f'<w:style w:type="paragraph" w:styleId="{style_id}" {attributes}><w:name w:val="{name}"/>{based}'
        f"<w:pPr>{properties}</w:pPr></w:style>"
    )


def level(depth: int, number_format: str, text: str, *, start: int = 1, extra: str = "") -> str:
    return (
        f'<w:lvl w:ilvl="{depth}"><w:start w:val="{start}"/><w:numFmt w:val="{number_format}"/>'
        f'<w:lvlText w:val="{text}"/>{extra}</w:lvl>'
    )


def numbered(list_id: int, depth: int = 0) -> str:
    return f'<w:numPr><w:ilvl w:val="{depth}"/><w:numId w:val="{list_id}"/></w:numPr>'


def styled(style_id: str) -> str:
    return f'<w:pStyle w:val="{style_id}"/>'


def sections(document: ParsedDocument) -> list[tuple[str, ...]]:
    return [section.path for section in document.sections]


def test_a_document_is_read_in_its_order(parse: ParseBytes) -> None:
    source = docx.Document()
    source.add_heading("Handbook", 0)
    source.add_heading("Leave", 1)
    source.add_paragraph("You get ").add_run("thirty").bold = True
    source.add_paragraph("sick pay", style="List Bullet")
    source.add_paragraph("from day one", style="List Bullet 2")
    for name in ("ask", "go"):
        source.add_paragraph(name, style="List Number")
    source.add_paragraph("Table 1: Days", style="Caption")
    grid = source.add_table(2, 2)
    for index, text in enumerate(["Name", "Days", "Ann", "12"]):
        grid.cell(index // 2, index % 2).text = text
    source.add_heading("Accrual", 2)
    source.add_paragraph("Monthly.")
    source.sections[0].header.paragraphs[0].text = "CONFIDENTIAL"
    source.sections[0].footer.paragraphs[0].text = "page 1"

    document = parse(saved(source), "a.docx")

    assert document.text == (
        "# Handbook\n\n# Leave\n\nYou get thirty\n\n- sick pay\n  - from day one\n1. ask\n2. go\n\n"
        "Table 1: Days\n| Name | Days |\n| --- | --- |\n| Ann | 12 |\n\n## Accrual\n\nMonthly."
    )
    assert sections(document) == [("Handbook",), ("Handbook", "Leave"), ("Handbook", "Leave", "Accrual")]
    [found] = document.tables
    assert document.text[found.start : found.header_end] == "Table 1: Days\n| Name | Days |\n| --- | --- |\n"
    assert (document.is_markdown, document.pages, document.page_count) == (True, (), None)


@pytest.mark.parametrize(
    ("styles", "properties", "path"),
    [
        pytest.param("", '<w:outlineLvl w:val="1"/>', ("x",), id="outline-level-on-the-paragraph"),
        pytest.param(
            style("H", "x", '<w:outlineLvl w:val="0"/>'), styled("H"), ("x",), id="outline-level-of-the-style"
        ),
        pytest.param(style("berschrift1", "heading 1"), styled("berschrift1"), ("x",), id="german-word"),
        pytest.param(style("H", "Überschrift 2"), styled("H"), ("x",), id="german-name"),
        pytest.param(style("H", "Titre 1"), styled("H"), ("x",), id="french-name"),
        pytest.param(
            style("H", "heading 1") + style("Mine", "Mine", based_on="H"), styled("Mine"), ("x",), id="inherited"
        ),
        pytest.param(style("H", "Title"), styled("H"), ("x",), id="title"),
        pytest.param(style("H", "heading 1"), styled("H") + '<w:outlineLvl w:val="9"/>', (), id="said-to-be-body-text"),
        pytest.param(style("A", "A", based_on="B") + style("B", "B", based_on="A"), styled("A"), (), id="circle"),
        pytest.param(style("T", "Heading of nothing"), styled("T"), (), id="only-a-similar-name"),
        pytest.param("", styled("Unknown"), (), id="unknown-style"),
        pytest.param(
            style("N", "Normal", '<w:outlineLvl w:val="0"/>', attributes='w:default="1"'),
            "",
            ("x",),
            id="default-style",
        ),
    ],
)
def test_headings_are_told_by_level_in_any_language(
    parse: ParseBytes, styles: str, properties: str, path: tuple[str, ...]
) -> None:
    document = parse(word(paragraph("x", properties), styles=styles), "a.docx")

    assert document.section_at(len(document.text) - 1) == path


def test_numbers_are_counted_and_written_as_word_prints_them(parse: ParseBytes) -> None:
    numbering = (
        '<w:abstractNum w:abstractNumId="0">'
        + level(0, "decimal", "%1.")
        + level(1, "lowerLetter", "%2)")
        + level(2, "upperRoman", "%1.%3", start=4)
        + level(3, "none", "")
        + '</w:abstractNum><w:abstractNum w:abstractNumId="1">'
        + level(0, "bullet", "\uf0b7")
        + '</w:abstractNum><w:num w:numId="5"><w:abstractNumId w:val="0"/></w:num>'
        '<w:num w:numId="6"><w:abstractNumId w:val="0"/><w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/>'
        '</w:lvlOverride></w:num><w:num w:numId="7"><w:abstractNumId w:val="1"/></w:num>'
    )
    items = [(5, 0), (5, 1), (5, 1), (5, 0), (5, 1), (5, 2), (5, 2), (6, 0), (6, 0), (7, 0), (5, 3), (99, 0), (0, 0)]
    body = "".join(paragraph("x", numbered(list_id, depth)) for list_id, depth in items)

    assert parse(word(body, numbering=numbering), "a.docx").text.split("\n\n") == [
        "1. x\n  a) x\n  b) x\n2. x\n  a) x\n    2.IV x\n    2.V x\n7. x\n8. x\n- x",
        "x",
        "x",
        "x",
    ]


def test_a_numbered_heading_carries_its_number(parse: ParseBytes) -> None:
    numbering = (
        '<w:abstractNum w:abstractNumId="0">'
        + level(0, "decimal", "%1", extra='<w:pStyle w:val="H1"/>')
        + level(1, "decimal", "%1.%2", extra='<w:pStyle w:val="H2"/>')
        + '</w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
    )
    number = '<w:numPr><w:numId w:val="1"/></w:numPr>'
    styles = style("H1", "heading 1", number) + style("H2", "heading 2", number)
    body = paragraph("Leave", styled("H1")) + paragraph("Days", styled("H2")) + paragraph("Pay", styled("H2"))

    document = parse(word(body, styles=styles, numbering=numbering), "a.docx")

    assert sections(document) == [("1 Leave",), ("1 Leave", "1.1 Days"), ("1 Leave", "1.2 Pay")]


def test_footnotes_and_endnotes_stand_behind_what_refers_to_them(parse: ParseBytes) -> None:
    notes = (
        f'<w:footnote w:id="-1" w:type="separator">{paragraph("---")}</w:footnote>'
        f'<w:footnote w:id="7">{paragraph("from 2024")}{paragraph("on")}</w:footnote>'
        f'<w:footnote w:id="8">{paragraph("in the table")}</w:footnote>'
    )
    reference = '<w:p><w:r><w:t>Leave</w:t><w:footnoteReference w:id="{}"/><w:t> is fine.</w:t></w:r></w:p>'
    body = reference.format(7) + paragraph("next") + table(["a", "b"], [reference.format(8), "c"])
    body += '<w:p><w:r><w:t>End</w:t><w:endnoteReference w:id="1"/><w:footnoteReference w:id="404"/></w:r></w:p>'
    content = word(body, footnotes=notes, endnotes=f'<w:endnote w:id="1">{paragraph("source")}</w:endnote>')

    assert parse(content, "a.docx").text == (
        "Leave[^1] is fine.\n\n[^1]: from 2024 on\n\nnext\n\n"
        "| a | b |\n| --- | --- |\n| Leave[^2] is fine. | c |\n\n[^2]: in the table\n\nEnd[^e1]\n\n[^e1]: source"
    )


def test_merged_and_nested_cells_are_filled_in(parse: ParseBytes) -> None:
    def merged(text: str, properties: str) -> str:
        return f"<w:tcPr>{properties}</w:tcPr>{paragraph(text)}"

    nested = paragraph("outer") + table(["a", "b"], ["c", "d"])
    body = table(
        ["Name", merged("2024", '<w:gridSpan w:val="2"/>')],
        [merged("Ann", '<w:vMerge w:val="restart"/>'), "1", nested],
        [merged("", "<w:vMerge/>"), "2", "x|y"],
    )

    assert parse(word(body), "a.docx").text.split("\n") == [
        "| Name | 2024 | 2024 |",
        "| --- | --- | --- |",
        "| Ann | 1 | outer a, b; c, d |",
        "| Ann | 2 | x\\|y |",
    ]


def test_header_rows_of_a_table_are_repeated_rows_and_deleted_rows_are_gone(parse: ParseBytes) -> None:
    def row(text: str, properties: str = "") -> str:
        return f"<w:tr><w:trPr>{properties}</w:trPr><w:tc>{paragraph(text)}</w:tc><w:tc>{paragraph('z')}</w:tc></w:tr>"

    head = "<w:tblHeader/>"
    body = f"<w:tbl>{row('h1', head)}{row('h2', head)}{row('gone', '<w:del/>')}{row('x')}</w:tbl>"
    document = parse(word(body), "a.docx")
    [found] = document.tables

    assert document.text[found.start : found.header_end] == "| h1 | z |\n| --- | --- |\n| h2 | z |\n"
    assert document.text[found.header_end : found.end] == "| x | z |"


def test_a_table_of_one_cell_is_a_frame_around_text(parse: ParseBytes) -> None:
    document = parse(word(table([paragraph("a", '<w:outlineLvl w:val="0"/>') + paragraph("b")])), "a.docx")

    assert (document.text, document.tables) == ("# a\n\nb", ())


@pytest.mark.parametrize(
    ("run", "text"),
    [
        pytest.param("<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t></w:r>", "a b", id="tab"),
        pytest.param("<w:r><w:t>a</w:t><w:br/><w:t>b</w:t></w:r>", "a\nb", id="line-break"),
        pytest.param("<w:r><w:t>a</w:t><w:noBreakHyphen/><w:t>b</w:t></w:r>", "a-b", id="hyphen"),
        pytest.param("<w:r><w:t>a</w:t><w:softHyphen/><w:t>b</w:t></w:r>", "ab", id="soft-hyphen"),
        pytest.param("<w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink>", "link", id="link"),
        pytest.param(
            "<w:ins><w:r><w:t>new</w:t></w:r></w:ins><w:del><w:r><w:delText>x</w:delText></w:r></w:del>",
            "new",
            id="tracked",
        ),
        pytest.param("<w:moveFrom><w:r><w:t>x</w:t></w:r></w:moveFrom><w:r><w:t>a</w:t></w:r>", "a", id="moved-away"),
        pytest.param("<w:r><w:rPr><w:vanish/></w:rPr><w:t>x</w:t></w:r><w:r><w:t>a</w:t></w:r>", "a", id="hidden"),
        pytest.param('<w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t>a</w:t></w:r>', "a", id="not-hidden"),
        pytest.param("<w:sdt><w:sdtContent><w:r><w:t>a</w:t></w:r></w:sdtContent></w:sdt>", "a", id="control"),
        pytest.param("<w:r><w:instrText>PAGE</w:instrText></w:r><w:r><w:t>4</w:t></w:r>", "4", id="field"),
        pytest.param(
            '<w:r><w:sym w:font="x" w:char="00B0"/><w:sym w:font="Wingdings" w:char="F0FC"/></w:r>', "°", id="symbol"
        ),
        pytest.param(
            "<w:r><w:ruby><w:rt><w:r><w:t>x</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>漢</w:t></w:r></w:rubyBase></w:ruby></w:r>",
            "漢",
            id="ruby",
        ),
    ],
)
def test_runs_are_read_as_they_are_shown(parse: ParseBytes, run: str, text: str) -> None:
    assert parse(word(f"<w:p>{run}</w:p>"), "a.docx").text == text


def test_text_boxes_are_read_once_and_behind_their_paragraph(parse: ParseBytes) -> None:
    compatible = "http://schemas.openxmlformats.org/markup-compatibility/2006"
    box = f"<w:txbxContent>{paragraph('boxed')}</w:txbxContent>"
    body = (
        f'<w:p><w:r><w:t>around</w:t><mc:AlternateContent xmlns:mc="{compatible}"><mc:Choice>{box}</mc:Choice>'
        f"<mc:Fallback>{box}</mc:Fallback></mc:AlternateContent></w:r></w:p>"
    )

    assert parse(word(body), "a.docx").text == "around\n\nboxed"


def test_wrappers_around_blocks_are_looked_into(parse: ParseBytes) -> None:
    body = f"<w:sdt><w:sdtContent>{paragraph('a')}{table(['b', 'c'])}</w:sdtContent></w:sdt>"
    body += f"<w:ins>{paragraph('d')}</w:ins><w:moveFrom>{paragraph('no')}</w:moveFrom>"

    assert parse(word(body), "a.docx").text == "a\n\n| b | c |\n| --- | --- |\n\nd"


def test_the_table_of_contents_is_left_out(parse: ParseBytes) -> None:
    styles = style("TOC1", "toc 1") + style("H", "heading 1")
    body = paragraph("Leave\t3", styled("TOC1")) + paragraph("Leave", styled("H"))

    assert parse(word(body, styles=styles), "a.docx").text == "# Leave"


def test_a_caption_without_a_table_is_a_paragraph(parse: ParseBytes) -> None:
    styles = style("Caption", "caption")
    body = paragraph("Figure 1", styled("Caption")) + paragraph("x") + paragraph("Last", styled("Caption"))

    assert parse(word(body, styles=styles), "a.docx").text == "Figure 1\n\nx\n\nLast"


@pytest.mark.parametrize("main", ["word/document.xml", "word/document2.xml"])
def test_the_main_part_is_found_by_relationship(parse: ParseBytes, main: str) -> None:
    assert parse(word(paragraph("x"), main=main), "a.docx").text == "x"


def test_a_document_in_the_strict_dialect_is_read(parse: ParseBytes) -> None:
    content = word(paragraph("x", '<w:outlineLvl w:val="0"/>'), namespace=STRICT_W)

    assert parse(content, "a.docx").text == "# x"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(word("<w:p>"), id="open-element"),
        pytest.param(word("<w:p/>" * 3 + "\x01"), id="control-character"),
        pytest.param(word("<w:p>" + "<w:r>" * 300 + "</w:r>" * 300 + "</w:p>"), id="too-deep"),
    ],
)
def test_broken_xml_is_an_error_that_says_so(parse: ParseBytes, content: bytes) -> None:
    with pytest.raises(DocumentError, match="broken"):
        parse(content, "a.docx")


def test_entities_are_not_expanded(parse: ParseBytes) -> None:
    content = word(paragraph("a &x; b"), prolog='<!DOCTYPE d [<!ENTITY x "expanded">]>')

    assert parse(content, "a.docx").text == "a"


def test_an_entity_bomb_is_refused(parse: ParseBytes) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha" * 10}">' for n in range(10))

    with pytest.raises(DocumentError, match="broken"):
        parse(word(paragraph("a &e9; b"), prolog=f"<!DOCTYPE d [{entities}]>"), "a.docx")


def test_external_entities_are_not_read(parse: ParseBytes) -> None:
    content = word(paragraph("a &x; b"), prolog='<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>')

    assert "root" not in parse(content, "a.docx").text


def test_what_unpacks_to_more_than_the_limit_is_refused_unread(parse: ParseBytes) -> None:
    bomb = word(paragraph("x" * 2**22))
    assert len(bomb) < 2**15

    with pytest.raises(DocumentTooLarge, match="unpacks to more than 1 MiB"):
        parse(bomb, "a.docx", max_decompressed_bytes=2**20)


def test_nothing_is_fetched_from_the_network(parse: ParseBytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        prolog = f'<!DOCTYPE d SYSTEM "{address}a.dtd" [<!ENTITY % p SYSTEM "{address}b"> %p;]>'
        body = f'{paragraph("a")}<w:altChunk xmlns:r="{address}" r:id="r1"/><w:attachedTemplate w:val="{address}"/>'

        assert parse(word(body, prolog=prolog), "a.docx").text == "a"
        with pytest.raises(BlockingIOError):
            server.accept()
