"""Documents made in the tests: each function gives a file's bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence

from reportlab.lib import pdfencrypt
from reportlab.pdfgen.canvas import Canvas

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STRICT_W = "http://purl.oclc.org/ooxml/wordprocessingml/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MAIN_RELATIONSHIP = f"{OFFICE}/officeDocument"


def pdf(
    pages: Iterable[Sequence[str]],
    *,
    outline: Iterable[tuple[int, str, int]] = (),
    encrypt: pdfencrypt.StandardEncryption | None = None,
    fields: Mapping[str, str] | None = None,
) -> bytes:
    """A PDF with these lines on its pages; an outline of (page from 1, title, depth from 0); form fields on page 1."""
    buffer = io.BytesIO()
    canvas = Canvas(buffer, encrypt=encrypt)
    entries = list(outline)
    for number, lines in enumerate(pages, start=1):
        for page, title, depth in entries:
            if page == number:
                canvas.bookmarkPage(title)
                canvas.addOutlineEntry(title, title, depth)
        for row, line in enumerate(lines):
            canvas.drawString(50, 800 - 15 * row, line)
        for row, (name, value) in enumerate((fields or {}).items() if number == 1 else ()):
            canvas.acroForm.textfield(name=name, value=value, x=50, y=300 - 40 * row, width=300)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def archive(entries: Mapping[str, str | bytes]) -> bytes:
    """A ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def word(body: str, *, main: str = "word/document.xml", namespace: str = W, prolog: str = "", **side: str) -> bytes:
    """A Word file around the XML of a body; `side` gives the content of styles, numbering, footnotes, endnotes."""
    folder, _, name = main.rpartition("/")
    links = "".join(f'<Relationship Id="r{part}" Type="{OFFICE}/{part}" Target="{part}.xml"/>' for part in side)
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{package}">'
        f'<Relationship Id="r1" Type="{MAIN_RELATIONSHIP}" Target="{main}"/></Relationships>',
        f"{folder}/_rels/{name}.rels": f'<Relationships xmlns="{package}">{links}</Relationships>',
        main: f'{prolog}<w:document xmlns:w="{namespace}"><w:body>{body}</w:body></w:document>',
    }
    roots = {"styles": "styles", "numbering": "numbering", "footnotes": "footnotes", "endnotes": "endnotes"}
    for part, content in side.items():
        parts[f"{folder}/{part}.xml"] = f'<w:{roots[part]} xmlns:w="{namespace}">{content}</w:{roots[part]}>'
    return archive(parts)


def paragraph(text: str, properties: str = "") -> str:
    """The XML of a paragraph."""
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def table(*rows: Sequence[str]) -> str:
    """The XML of a table; a cell is text or, with a `<`, the XML inside `tc`."""
    cells = ("".join(f"<w:tc>{cell if '<' in cell else paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"
