"""Types that are read where something further is installed: through the parser's child process, as in production.

Each test is skipped where its library or program is missing; the one on the advice always runs.
"""

from __future__ import annotations

import email.message
import importlib.util
import io
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bonito.errors import DocumentError, DocumentTooLarge, UnsupportedDocument
from bonito.knowledge.parsing import ocr, pandoc, programs, registry, unstructured_adapter
from bonito.knowledge.parsing.base import DEFAULT_LIMITS, ParsedDocument, ParseLimits
from bonito.knowledge.parsing.process import ParserProcess
from tests.unit.knowledge.parsing import samples

Write = Callable[[str, bytes], Path]

needs_unstructured = pytest.mark.skipif(
    not unstructured_adapter.is_installed(), reason="the extra `unstructured` is not installed"
)
needs_pandoc = pytest.mark.skipif(not pandoc.is_installed(), reason="pandoc is not installed")
needs_tesseract = pytest.mark.skipif(not ocr.is_installed(), reason="tesseract is not installed")

RTF = rb"{\rtf1\ansi{\b Leave policy}\par Thirty days of vac\'e4tion.\par}"
MAIL = email.message.EmailMessage()
MAIL["From"], MAIL["To"], MAIL["Subject"] = "Ada <ada@example.com>", "bob@example.com", "The harbour"
MAIL.set_content("Dear Bob,\n\nthe anchor was painted. It took three days.\n\nAda\n")
MAIL.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="bill.pdf")


async def read(path: Path, name: str, limits: ParseLimits = DEFAULT_LIMITS) -> ParsedDocument:
    async with ParserProcess() as parser:
        return await parser.parse(path, name=name, limits=limits)


def presentation(slides: int = 2) -> bytes:
    pptx = pytest.importorskip("pptx")
    made, buffer = pptx.Presentation(), io.BytesIO()
    for number in range(1, slides + 1):
        slide = made.slides.add_slide(made.slide_layouts[1])
        slide.shapes.title.text = f"Leave policy {number}"
        slide.placeholders[1].text = "Thirty days of vacation.\nCarry over"
        slide.notes_slide.notes_text_frame.text = f"Say hello on slide {number}."
    table = slide.shapes.add_table(2, 2, 0, 5_000_000, 3_000_000, 1_000_000).table
    for row, cells in enumerate([("City", "Hotel"), ("Berlin", "140")]):
        for column, cell in enumerate(cells):
            table.cell(row, column).text = cell
    made.save(buffer)
    return buffer.getvalue()


def workbook() -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    made, buffer = openpyxl.Workbook(), io.BytesIO()
    sheet = made.active
    sheet.title = "Rates"
    for row in [("City", "Hotel"), ("Berlin", 140), (None, None), ("Paris", 180.5)]:
        sheet.append(row)
    made.create_sheet("Notes").append(("Breakfast is included.",))
    made.create_sheet("Empty")
    made.save(buffer)
    return buffer.getvalue()


def message() -> bytes:
    """A mail of Outlook: a compound file (MS-CFB) of a root with property streams (MS-OXMSG)."""
    streams = {
        "__substg1.0_001A001F": "IPM.Note",
        "__substg1.0_0037001F": "The harbour",
        "__substg1.0_0C1A001F": "Ada",
        "__substg1.0_1000001F": "Dear Bob,\r\n\r\nthe anchor was painted. It took three days.\r\n",
        "__substg1.0_007D001F": "From: Ada <ada@example.com>\r\nTo: bob@example.com\r\nSubject: The harbour\r\n",
    }
    contents = {name: text.encode("utf-16-le") for name, text in streams.items()}
    properties = bytes(32) + b"".join(
        struct.pack("<IIII", int(name[-8:], 16), 6, len(content) + 2, 0) for name, content in contents.items()
    )
    return compound_file({"__properties_version1.0": properties, **contents})


def compound_file(streams: dict[str, bytes]) -> bytes:
    """Short streams side by side below the root, all in the mini stream: its sectors, the directory, two tables."""
    mini, links, entries = b"", list[int](), list[tuple[str, int, int]]()
    for name in sorted(streams, key=lambda each: (len(each), each)):
        start, count = len(mini) // 64, -(-len(streams[name]) // 64)
        entries.append((name, start, len(streams[name])))
        mini += streams[name].ljust(count * 64, b"\0")
        links += [*range(start + 1, start + count), LAST]
    records = [_entry("Root Entry", 5, 0, len(mini), child=1)]
    for number, (name, start, size) in enumerate(entries, start=1):
        records.append(_entry(name, 2, start, size, right=number + 1 if number < len(entries) else NONE))
    parts = [_padded(mini), _padded(b"".join(records)), _sector_table(links)]
    first, chain = [0], list[int]()
    for part in parts:
        first.append(first[-1] + len(part) // 512)
        chain += [*range(first[-2] + 1, first[-1]), LAST]
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH6x", 0x3E, 3, 0xFFFE, 9, 6)
    header += struct.pack("<9I", 0, 1, first[1], 0, 4096, first[2], 1, LAST, 0)
    header += struct.pack("<I", first[3]) + b"\xff" * 4 * 108
    return header + b"".join(parts) + _sector_table([*chain, TABLE])


LAST, TABLE, NONE = 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFF


def _padded(content: bytes) -> bytes:
    return content.ljust(-(-len(content) // 512) * 512, b"\0")


def _sector_table(links: list[int]) -> bytes:
    return b"".join(struct.pack("<I", link) for link in links).ljust(512, b"\xff")


def _entry(name: str, kind: int, start: int, size: int, *, child: int = 0xFFFFFFFF, right: int = 0xFFFFFFFF) -> bytes:
    encoded = name.encode("utf-16-le")
    packed = encoded.ljust(64, b"\0") + struct.pack("<HBB", len(encoded) + 2, kind, 1)
    return packed + struct.pack("<III", 0xFFFFFFFF, right, child) + bytes(36) + struct.pack("<IQ", start, size)


def book() -> bytes:
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
        '<rootfile full-path="a.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="i">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>T</dc:title><dc:language>en</dc:language>'
        '<dc:identifier id="i">x</dc:identifier></metadata><manifest>'
        '<item id="b" href="b.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="c" href="c.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="c"/><itemref idref="b"/></spine></package>'
    )

    def chapter(title: str, text: str) -> str:
        return f'<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>{title}</h1><p>{text}</p></body></html>'

    return samples.archive(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "a.opf": package,
            "b.xhtml": chapter("Ending", "The anchor was painted."),
            "c.xhtml": chapter("Beginning", "The harbour was quiet."),
        }
    )


def open_document() -> bytes:
    namespace = "urn:oasis:names:tc:opendocument:xmlns"
    names = f'xmlns:office="{namespace}:office:1.0" xmlns:text="{namespace}:text:1.0"'
    content = (
        f"<office:document-content {names}><office:body><office:text>"
        '<text:h text:outline-level="1">Leave policy</text:h><text:p>Thirty days of vacation.</text:p>'
        "</office:text></office:body></office:document-content>"
    )
    styles = (
        f"<office:document-styles {names}><office:font-face-decls/><office:styles/><office:automatic-styles/>"
        "<office:master-styles/></office:document-styles>"
    )
    return samples.archive(
        {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content, "styles.xml": styles}
    )


@needs_unstructured
async def test_a_presentation_has_a_page_and_a_section_per_slide(write: Write) -> None:
    document = await read(write("a", presentation()), "a.pptx")

    assert (document.file_type, document.page_count) == ("pptx", 2)
    at = document.text.index("Say hello on slide 2.")
    assert document.page_at(at) == 2
    assert document.section_at(at) == ("Leave policy 2",)
    assert document.page_at(document.text.index("Leave policy 1")) == 1
    assert document.section_at(document.text.rindex("Thirty days")) == ("Leave policy 2",)
    (table,) = document.tables
    assert document.text[table.start : table.end] == "| City | Hotel |\n| --- | --- |\n| Berlin | 140 |"
    assert "\nCarry over" in document.text, "a short line is no heading because it looks like one"
    assert "# Carry over" not in document.text


@needs_unstructured
async def test_a_workbook_has_a_section_and_a_table_per_sheet(write: Write) -> None:
    document = await read(write("a", workbook()), "rates.xlsx")

    assert document.file_type == "xlsx"
    tables = [document.text[table.start : table.end] for table in document.tables]
    assert tables[0].splitlines()[:3] == ["| City | Hotel |", "| --- | --- |", "| Berlin | 140 |"]
    assert tables[0].splitlines()[-1] == "| Paris | 180.5 |"
    assert "Breakfast is included." in tables[1]
    assert document.section_at(document.tables[0].start) == ("Rates",)
    assert document.section_at(document.tables[1].start) == ("Notes",)
    assert "nan" not in document.text.lower()


@needs_unstructured
async def test_a_mail_brings_its_subject_people_and_text_and_tells_of_attachments(write: Write) -> None:
    document = await read(write("a", MAIL.as_bytes()), "mail.eml")

    assert document.text.startswith("# The harbour\n\nFrom: Ada <ada@example.com>\nTo: bob@example.com\n\n")
    assert "the anchor was painted. It took three days." in document.text
    assert document.warnings == ("1 attachment of the mail is not read.",)


@needs_unstructured
async def test_a_mail_of_outlook_is_read_as_any_other(write: Write) -> None:
    document = await read(write("a", message()), "mail.msg")

    assert document.file_type == "msg"
    assert document.text.startswith("# The harbour\n\nFrom: Ada")
    assert "the anchor was painted. It took three days." in document.text


@needs_unstructured
@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.pptx", samples.archive({"ppt/presentation.xml": "<p/>"}), id="pptx"),
        pytest.param("a.xlsx", samples.archive({"xl/workbook.xml": "<w/>"}), id="xlsx"),
        pytest.param("a.msg", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), id="msg"),
    ],
)
async def test_what_is_broken_says_so(write: Write, name: str, content: bytes) -> None:
    with pytest.raises(DocumentError, match="broken"):
        await read(write("a", content), name)


@needs_unstructured
async def test_limits_hold_for_the_library_too(write: Write) -> None:
    slides = write("slides", presentation(3))
    with pytest.raises(DocumentTooLarge, match="more than 2 slides"):
        await read(slides, "a.pptx", ParseLimits(max_pages=2))
    with pytest.raises(DocumentTooLarge, match="characters of text"):
        await read(slides, "a.pptx", ParseLimits(max_text_characters=20))
    with pytest.raises(DocumentTooLarge, match="unpacks to more"):
        await read(slides, "a.pptx", ParseLimits(max_decompressed_bytes=1000))


@needs_unstructured
def test_nothing_is_fetched_and_no_model_is_loaded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    def refuse(*_: Any) -> None:
        raise AssertionError("the library calls out")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name, content in (("a.pptx", presentation()), ("a.xlsx", workbook()), ("a.eml", MAIL.as_bytes())):
        assert registry.parse(write(name, content), name=name, limits=DEFAULT_LIMITS).text

    assert "spacy" not in sys.modules


@needs_pandoc
@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        pytest.param("a.epub", book(), "# Beginning\n\nThe harbour was quiet.\n\n# Ending\n\nThe anchor", id="epub"),
        pytest.param("a.odt", open_document(), "# Leave policy\n\nThirty days of vacation.", id="odt"),
        pytest.param("a.rtf", RTF, "Thirty days of vacätion.", id="rtf"),
        pytest.param("a", RTF, "Leave policy", id="rtf-without-a-name"),
    ],
)
async def test_pandoc_reads_books_and_text_documents(write: Write, name: str, content: bytes, text: str) -> None:
    document = await read(write("a", content), name)

    assert text in document.text
    assert document.file_type in {"epub", "odt", "rtf"}


@needs_pandoc
async def test_a_book_that_is_broken_says_so(write: Write) -> None:
    with pytest.raises(DocumentError, match="broken"):
        await read(write("a", samples.archive({"META-INF/container.xml": "<x"})), "a.epub")


@needs_tesseract
@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="an image needs Pillow")
async def test_an_image_is_read_page_by_page(write: Write) -> None:
    from PIL import Image, ImageDraw, ImageFont

    def page(text: str) -> Image.Image:
        made = Image.new("L", (900, 200), 255)
        ImageDraw.Draw(made).text((40, 60), text, fill=0, font=ImageFont.load_default(48))
        return made

    buffer, tiff = io.BytesIO(), io.BytesIO()
    page("The harbour was quiet").save(buffer, "PNG")
    page("The first page").save(tiff, "TIFF", save_all=True, append_images=[page("Another page")])

    document = await read(write("a", buffer.getvalue()), "scan.png")
    pages = await read(write("b", tiff.getvalue()), "scan.tif")

    assert (document.file_type, document.text, document.page_count) == ("image", "The harbour was quiet", 1)
    assert pages.page_count == 2
    assert pages.page_at(pages.text.index("Another page")) == 2


@pytest.mark.parametrize(
    ("name", "content", "needs"),
    [
        pytest.param("a.pptx", samples.archive({"ppt/presentation.xml": ""}), "extra `unstructured`", id="pptx"),
        pytest.param("a.xlsx", samples.archive({"xl/workbook.xml": ""}), "extra `unstructured`", id="xlsx"),
        pytest.param("a.eml", MAIL.as_bytes(), "extra `unstructured`", id="eml"),
        pytest.param("a.msg", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "extra `unstructured`", id="msg"),
        pytest.param("a.epub", book(), "pandoc", id="epub"),
        pytest.param("a.odt", open_document(), "pandoc", id="odt"),
        pytest.param("a.rtf", RTF, "pandoc", id="rtf"),
        pytest.param("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "tesseract", id="image"),
    ],
)
def test_where_something_is_missing_the_error_says_what_to_install(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, needs: str
) -> None:
    monkeypatch.setattr(programs, "PATH", "")
    monkeypatch.setattr(unstructured_adapter, "LIBRARY", "no_such_library")

    with pytest.raises(UnsupportedDocument) as caught:
        registry.parse(write("a", content), name=name, limits=DEFAULT_LIMITS)

    assert f"can be read where {needs}" in caught.value.message.replace("bonito's ", "")
    assert "functions/ingest" in caught.value.message


def test_the_samples_are_what_they_claim() -> None:
    assert zipfile.is_zipfile(io.BytesIO(book()))
    assert message()[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
