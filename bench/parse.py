"""Parsing: pages per CPU second and peak memory of a fresh process, per type of document.

A page of a type without pages is 3,000 characters of its text. CPU time and memory include loading the type's
library; memory is that of the whole process. The aim: >= 200 PDF pages per CPU second within 150 MB.

    .venv/bin/python -m bench.parse [--json]
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import bench

PDF_PAGES = 300
PARAGRAPHS = 2_500  # of the other types: about as much text
CHARACTERS_PER_PAGE = 3_000
ROUND_TRIPS = 90  # fewer than a child lives for
SENTENCES = (
    "Employees accrue two and a half days of paid leave for each full month of service.",
    "A request is made in the portal at least fourteen days ahead; the manager answers within three working days.",
    "Unused days may be carried over until the thirty-first of March, but not more than ten of them.",
    "Sick pay is granted from the first day; a certificate is needed from the fourth (see section 4.2).",
    "Travel expenses are refunded on presentation of receipts: rail in second class, flights in economy.",
    "Équipement personnel, naïve assumptions and the café on Königstraße 12 are mentioned here for their letters.",
    "The budget of 1,250,000 € covers 37 positions, 4 of which are vacant since 2024-11-01.",
    "Whoever works from home ensures that documents, devices and conversations are kept from third parties.",
)


def run() -> dict[str, object]:
    """Measure every type, each in a process of its own: figures by type name."""
    makers: dict[str, Callable[[random.Random], bytes]] = {
        "pdf": make_pdf,
        "docx": make_docx,
        "txt": make_text,
        "md": make_markdown,
        "html": make_html,
        "csv": make_csv,
        "json": make_json,
        "jsonl": make_json_lines,
    }
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for file_type, make in makers.items():
            path = Path(folder) / f"document.{file_type}"
            path.write_bytes(make(random.Random(7)))
            command = [sys.executable, "-m", "bench.parse", "--measure", str(path)]
            figures[file_type] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        figures["process"] = asyncio.run(measure_process(Path(folder)))
    return figures


async def measure_process(folder: Path) -> dict[str, object]:
    """What the child process adds: its start with the first document, then the way there and back for a short one."""
    from bonito.knowledge.parsing.process import ParserProcess

    path = folder / "short.txt"
    path.write_text(SENTENCES[0], encoding="utf-8")
    async with ParserProcess() as parser:
        begin = time.perf_counter()
        await parser.parse(path, name=path.name)
        started = time.perf_counter()
        for _ in range(ROUND_TRIPS):
            await parser.parse(path, name=path.name)
        ended = time.perf_counter()
    return {
        "start_ms": round((started - begin) * 1000, 1),
        "round_trip_ms": round((ended - started) * 1000 / ROUND_TRIPS, 2),
    }


def measure(path: Path) -> dict[str, object]:
    """Parse one document in this process, which must be fresh."""
    from bonito.knowledge.parsing import registry
    from bonito.knowledge.parsing.base import ParseLimits

    begin = time.process_time()
    document = registry.parse(path, name=path.name, limits=ParseLimits())
    cpu_s = time.process_time() - begin
    pages = document.page_count or len(document.text) / CHARACTERS_PER_PAGE
    return {
        "pages_per_cpu_second": round(pages / cpu_s, 1),
        "peak_memory_mb": round(peak_memory_bytes() / 1e6, 1),
        "pages": round(pages),
        "characters": len(document.text),
        "file_bytes": path.stat().st_size,
        "cpu_s": round(cpu_s, 3),
    }


def peak_memory_bytes() -> int:
    """Of this process's own memory; getrusage would also count its parent's from before exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def paragraph(chance: random.Random) -> str:
    """Four to nine sentences."""
    return " ".join(chance.choices(SENTENCES, k=chance.randint(4, 9)))


def make_pdf(chance: random.Random) -> bytes:
    """Flowing text with an outline, and a table now and then."""
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Table

    styles = getSampleStyleSheet()

    class Outlined(SimpleDocTemplate):  # type: ignore[misc]  # reportlab has no types
        def afterFlowable(self, flowable: object) -> None:
            if isinstance(flowable, Paragraph) and flowable.style.name == "Heading2":
                title = flowable.getPlainText()
                self.canv.bookmarkPage(title)
                self.canv.addOutlineEntry(title, title, 0)

    story = []
    for number in range(1, PDF_PAGES + 1):
        story.append(Paragraph(f"Section {number}: leave and pay", styles["Heading2"]))
        story += [Paragraph(paragraph(chance)[:700], styles["BodyText"]) for _ in range(5)]
        if number % 5 == 0:
            story.append(Table([[f"cell {row}.{column}" for column in range(4)] for row in range(6)]))
        story.append(PageBreak())
    buffer = io.BytesIO()
    Outlined(buffer).build(story)
    return buffer.getvalue()


def make_docx(chance: random.Random) -> bytes:
    """Headings, lists and tables, the body ten times over: building all of it takes minutes."""
    import docx

    document = docx.Document()
    for number in range(PARAGRAPHS // 10):
        if number % 10 == 0:
            document.add_heading(f"Section {number}", level=2)
        document.add_paragraph(paragraph(chance), style="List Number" if number % 4 == 0 else None)
        if number % 25 == 0:
            table = document.add_table(5, 3)
            for row in table.rows:
                for cell in row.cells:
                    cell.text = "cell of a table"
    buffer = io.BytesIO()
    document.save(buffer)
    with zipfile.ZipFile(buffer) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    head, _, rest = parts["word/document.xml"].partition(b"<w:body>")
    body, _, tail = rest.rpartition(b"<w:sectPr")
    parts["word/document.xml"] = head + b"<w:body>" + body * 10 + b"<w:sectPr" + tail
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in parts.items():
            target.writestr(name, content)
    return result.getvalue()


def make_text(chance: random.Random) -> bytes:
    """Paragraphs in UTF-8."""
    return "\n\n".join(paragraph(chance) for _ in range(PARAGRAPHS)).encode()


def make_markdown(chance: random.Random) -> bytes:
    """Headings, paragraphs, lists and tables."""
    table = "| Name | Days | Note |\n|---|---|---|\n" + "| Ann | 12 | carried over |\n" * 8
    blocks = []
    for number in range(PARAGRAPHS):
        blocks += [f"## Section {number}"] if number % 5 == 0 else []
        blocks += [table.rstrip()] if number % 25 == 0 else []
        blocks.append(("- " if number % 7 == 0 else "") + paragraph(chance))
    return "\n\n".join(blocks).encode()


def make_html(chance: random.Random) -> bytes:
    """A page with navigation, headings, paragraphs with inline markup, and tables."""
    table = "<table><tr><th>Name<th>Days</tr>" + "<tr><td>Ann</td><td>12</td></tr>" * 8 + "</table>"
    blocks = []
    for number in range(PARAGRAPHS):
        blocks += [f"<h2>Section {number}</h2>"] if number % 5 == 0 else []
        blocks += [table] if number % 25 == 0 else []
        blocks.append(
            f"<p>{paragraph(chance).replace('leave', '<b>leave</b>').replace('days', '<a href=x>days</a>')}</p>"
        )
    menu = "<nav>" + "<a href=x>menu</a>" * 50 + "</nav>"
    return f"<!doctype html><meta charset=utf-8><body>{menu}<main>{''.join(blocks)}</main><script>x()</script>".encode()


def make_csv(chance: random.Random) -> bytes:
    """Short columns and one of sentences, some with line ends inside."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=";")
    writer.writerow(["id", "name", "amount", "note"])
    for number in range(PARAGRAPHS * 4):
        writer.writerow([number, f"Employee {number}", f"{number / 7:.2f}", "\n".join(chance.choices(SENTENCES, k=2))])
    return buffer.getvalue().encode()


def records(chance: random.Random) -> list[dict[str, object]]:
    """Employees with nested values."""
    return [
        {"id": number, "name": f"Employee {number}", "pay": number * 1.5, "tags": ["a", "b"], "note": {"text": note}}
        for number, note in enumerate(chance.choices(SENTENCES, k=PARAGRAPHS * 4))
    ]


def make_json(chance: random.Random) -> bytes:
    """One indented array in an object."""
    return json.dumps({"employees": records(chance)}, ensure_ascii=False, indent=2).encode()


def make_json_lines(chance: random.Random) -> bytes:
    """A record per line."""
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records(chance)).encode()


def main() -> None:
    """Print the figures; `--measure PATH` is what each type's own process is asked."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        bench.show(run, __doc__)


if __name__ == "__main__":
    main()
