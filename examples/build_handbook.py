"""Writes the two binary files of the demo handbook, the same bytes each time: `.venv/bin/python examples/build_handbook.py`."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path

HANDBOOK = Path(__file__).parent / "handbook"
WRITTEN_AT = datetime(2026, 1, 5, tzinfo=UTC)

# (bookmark level, heading, paragraphs, table); one entry a page.
Page = tuple[int, str, list[str], list[list[str]]]
PAGES: list[Page] = [
    (0, "Welcome", [
        "Aldermoor Instruments builds measuring instruments for water works, ports and weather services. The company was founded in Leeds in "
        "1987 and has 930 employees in six offices.",
        "This handbook holds for all employees from 1 January 2026. Where local law is better for you, local law holds.",
    ], []),
    (0, "Working hours", [
        "A full-time week has 37.5 hours. Core time, during which everybody can be reached, is from 10:00 to 15:00 local time.",
        "Employees may work from home up to three days a week. Teams agree on one common day in the office.",
        "Overtime is ordered by the team lead and is given back as time off within three months. Overtime that could not be taken as time off is "
        "paid with a supplement of 25 percent.",
    ], []),
    (0, "Leave", [
        "Full-time employees receive 25 vacation days per calendar year. After five years of service, full-time employees receive 28 vacation days "
        "per calendar year.",
        "Up to five unused vacation days may be carried over into the next year; they expire on 31 March.",
    ], [
        ["Years of service", "Vacation days", "Carry-over"],
        ["0 to 4", "25", "5"],
        ["5 to 9", "28", "5"],
        ["10 and more", "30", "8"],
    ]),
    (1, "Sick leave", [
        "Tell your team lead before 9:30 when you are ill. A doctor's note is needed from the fourth day of illness on.",
        "Sick pay is the full salary for the first 13 weeks and 80 percent of it for the 13 weeks after that.",
    ], []),
    (1, "Parental leave", [
        "Each parent receives 20 weeks of parental leave at full pay, whether by birth or by adoption. It may be taken in up to three parts until the "
        "child's second birthday.",
        "Parents who return may work 80 percent of their hours at 90 percent of their pay for the first six months.",
    ], []),
    (0, "Expenses", [
        "Expenses are claimed in the payroll portal within 60 days. Receipts are required for every amount above 10 euros.",
        "The company reimburses mileage for a private car at 0.38 euros per kilometre. Fines are never reimbursed.",
    ], [
        ["Expense", "Limit", "Approved by"],
        ["Team dinner", "45 euros a person", "team lead"],
        ["Home office chair", "350 euros every five years", "team lead"],
        ["Software", "200 euros a year", "head of IT"],
    ]),
    (0, "Leaving the company", [
        "The notice period is one month during the first two years of service and three months after that.",
        "Laptops, hardware keys and access cards are returned on the last working day. A written reference is issued within two weeks.",
    ], []),
]  # fmt: skip

# (heading level, heading, paragraphs)
SECTIONS = [
    (1, "Booking a trip", [
        "All business trips are booked through the travel portal, at least ten days ahead. Trips outside Europe need the approval of the "
        "department head.",
        "Trains are preferred over flights wherever the train takes less than six hours. Flights of more than seven hours may be booked in premium economy.",
    ]),
    (1, "Hotels", [
        "A hotel costs at most 160 euros a night, breakfast included, and at most 240 euros in London, Zurich, New York and Tokyo.",
    ]),
    (2, "Private accommodation", [
        "Whoever stays with friends or family receives 30 euros a night for a gift, without a receipt.",
    ]),
    (1, "Daily allowance", [
        "The daily allowance covers meals and small expenses. On the days of departure and return, half of it is paid.",
    ]),
]  # fmt: skip
ALLOWANCES = [
    ["Country", "Full day", "Half day"],
    ["Germany", "32 euros", "16 euros"],
    ["Japan", "58 euros", "29 euros"],
    ["Norway", "75 euros", "37.50 euros"],
    ["Portugal", "36 euros", "18 euros"],
    ["United States", "66 euros", "33 euros"],
]
FOOTNOTE = "Travel insurance policy number AL-2291 of Northgate Mutual; the emergency line is +44 20 7946 0170."


def handbook_pdf() -> bytes:
    """Seven pages with bookmarks and two tables."""
    from reportlab.lib import colors
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Flowable, PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table

    class Bookmark(Flowable):
        """An entry of the outline, where it stands."""

        def __init__(self, title: str, level: int) -> None:
            super().__init__()
            self.title, self.level = title, level

        def wrap(self, *_: float) -> tuple[float, float]:
            return 0, 0

        def draw(self) -> None:
            self.canv.bookmarkPage(self.title)
            self.canv.addOutlineEntry(self.title, self.title, self.level)

    styles = getSampleStyleSheet()
    story: list[Flowable] = []
    for number, (level, title, paragraphs, table) in enumerate(PAGES):
        story += [PageBreak()] if number else [Paragraph("Employee handbook", styles["Title"])]
        story += [Bookmark(title, level), Paragraph(title, styles["Heading1" if level == 0 else "Heading2"])]
        for text in paragraphs:
            story += [Paragraph(text, styles["BodyText"]), Spacer(1, 6)]
        if table:
            story.append(Table(table, style=[("GRID", (0, 0), (-1, -1), 0.5, colors.grey)], hAlign="LEFT"))
    output = io.BytesIO()
    SimpleDocTemplate(
        output, pagesize=A4, title="Employee handbook", author="Aldermoor Instruments", invariant=1
    ).build(story)
    return output.getvalue()


def travel_docx() -> bytes:
    """Headings on two levels, a table, a list and a footnote."""
    import docx

    document = docx.Document()
    document.core_properties.title = "Travel policy"
    document.core_properties.created = document.core_properties.modified = WRITTEN_AT
    document.add_heading("Travel policy", 0)
    for level, title, paragraphs in SECTIONS:
        document.add_heading(title, level)
        for text in paragraphs:
            document.add_paragraph(text)
    table = document.add_table(rows=0, cols=3, style="Table Grid")
    for row in ALLOWANCES:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text
    document.add_heading("Before you leave", 1)
    for text in (
        "Register the trip with the travel desk.",
        "Save the emergency number in your phone.",
        "Check that your passport is valid for six more months.",
    ):
        document.add_paragraph(text, style="List Bullet")
    paragraph = document.add_paragraph("Every traveller is insured from door to door.")
    output = io.BytesIO()
    document.save(output)
    return _same_bytes(_with_footnote(output.getvalue(), paragraph.text))


def _with_footnote(package: bytes, paragraph_text: str) -> bytes:
    """python-docx writes no footnotes: add the part, its relationship and its type, and a reference in the paragraph."""
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    part = (
        f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?><w:footnotes xmlns:w="{word}"><w:footnote w:id="2"><w:p><w:r><w:t>'
        f"{FOOTNOTE}</w:t></w:r></w:p></w:footnote></w:footnotes>"
    )
    changes = {
        "[Content_Types].xml": (
            "</Types>",
            '<Override PartName="/word/footnotes.xml" '
            'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"/></Types>',
        ),
        "word/_rels/document.xml.rels": (
            "</Relationships>",
            '<Relationship Id="rIdFootnotes" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes" '
            'Target="footnotes.xml"/></Relationships>',
        ),
        "word/document.xml": (
            f"{paragraph_text}</w:t></w:r>",
            f'{paragraph_text}</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r>',
        ),
    }
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(package)) as source, zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name).decode() if name in changes else source.read(name)
            target.writestr(name, content.replace(*changes[name]) if isinstance(content, str) else content)
        target.writestr("word/footnotes.xml", part)
    return output.getvalue()


def _same_bytes(package: bytes) -> bytes:
    """A zip file carries the time of writing; fix it."""
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(package)) as source, zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(zipfile.ZipInfo(name, WRITTEN_AT.timetuple()[:6]), source.read(name), zipfile.ZIP_DEFLATED)
    return output.getvalue()


if __name__ == "__main__":
    (HANDBOOK / "employee-handbook.pdf").write_bytes(handbook_pdf())
    (HANDBOOK / "travel-policy.docx").write_bytes(travel_docx())
