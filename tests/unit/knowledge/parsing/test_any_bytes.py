"""Whatever bytes lie under whatever name: a document that keeps its promises, or an error for a person."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import docx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.errors import DocumentError
from bonito.knowledge.parsing import registry
from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from tests.unit.knowledge.parsing.properties import patient
from tests.unit.knowledge.parsing.samples import pdf, word

SUFFIXES = sorted(registry.BY_SUFFIX)
MARKDOWN = "# A\n\ntext\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n## B\n\n```\n# c\n```\n"
HTML = "<main><h1>A</h1><p>x<table><tr><th>a<th>b<tr><td rowspan=2>1<td>2<tr><td>3</table><ul><li>y</ul><pre>z</pre>"
CSV = 'a;b;c\n1;"x\ny";3\n4;5\n'
JSON = '{"a": [1, {"b": null}], "c": "\\u0000\\ud800x"}'


def built_docx() -> bytes:
    source = docx.Document()
    source.add_heading("A", 1)
    source.add_paragraph("x", style="List Number")
    source.add_table(2, 2).cell(0, 0).text = "y"
    buffer = io.BytesIO()
    source.save(buffer)
    return buffer.getvalue()


SAMPLES = {
    ".pdf": pdf([["A", "text"], [], ["B"]], outline=[(1, "A", 0), (3, "B", 1)], fields={"f": "v"}),
    ".docx": built_docx(),
    ".docm": word("<w:p><w:r><w:t>x</w:t></w:r></w:p>"),
    ".md": MARKDOWN.encode(),
    ".html": HTML.encode(),
    ".csv": CSV.encode(),
    ".json": JSON.encode(),
    ".jsonl": f"{JSON}\n{JSON}\n".encode(),
    ".txt": "Grüße\r\n".encode("utf-16"),
}


def check(document: ParsedDocument) -> None:
    length = len(document.text)
    assert "\0" not in document.text
    assert document.text.encode("utf-8").decode("utf-8") == document.text
    for starts in (document.pages, document.sections):
        offsets = [start.offset for start in starts]
        assert all(0 <= offset < length for offset in offsets)
        assert all(one < other for one, other in pairwise(offsets))
    numbers = [page.number for page in document.pages]
    assert numbers == sorted(set(numbers))
    assert all(1 <= number <= (document.page_count or 0) for number in numbers)
    for table in document.tables:
        assert 0 <= table.start < table.header_end <= table.end <= length
        rows = document.text[table.header_end : table.end]
        assert all("|" in row or document.file_type == "md" for row in rows.split("\n") if rows)
    assert all(one.end <= other.start for one, other in pairwise(document.tables))
    assert document.text.strip() or document.warnings
    assert all(title and len(title.splitlines()) == 1 for section in document.sections for title in section.path)


def check_sentence(message: str) -> None:
    assert message[0].isupper()
    assert message[-1] == "."


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "file"


def parse_or_refuse(path: Path, suffix: str, content: bytes) -> None:
    path.write_bytes(content)
    try:
        document = registry.parse(path, name=f"a{suffix}", limits=ParseLimits(max_text_characters=200_000))
    except DocumentError as error:
        check_sentence(error.message)
    else:
        check(document)


@patient
@given(st.sampled_from(SUFFIXES), st.binary(max_size=400))
def test_any_bytes_under_any_name(path: Path, suffix: str, content: bytes) -> None:
    parse_or_refuse(path, suffix, content)


@patient
@given(st.sampled_from(SUFFIXES), st.text(st.characters(exclude_categories=("Cs",)), max_size=400))
def test_any_text_under_any_name(path: Path, suffix: str, content: str) -> None:
    parse_or_refuse(path, suffix, content.encode())


@patient
@given(
    st.sampled_from(sorted(SAMPLES)),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=8), st.integers(0, 40)), max_size=4),
    st.floats(0.5, 1),
)
def test_documents_with_bytes_exchanged_lost_and_cut_off(
    path: Path, suffix: str, edits: list[tuple[float, bytes, int]], kept: float
) -> None:
    content = SAMPLES[suffix]
    for place, inserted, lost in edits:
        at = int(place * len(content))
        content = content[:at] + inserted + content[at + lost :]
    parse_or_refuse(path, suffix, content[: int(kept * len(content)) + 1])


PIECES = {
    ".md": ["# A", "## ", "|a|b|", "|-|-|", "|1|", "```", "---", "> ", "- ", "\n", "\n\n", "x", "<p>", "    "],
    ".html": [
        *("<h1>", "</h1>", "<table>", "<tr>", "<td colspan=3 rowspan=2>", "<th>", "</table>", "<li>", "<ol start=-1>"),
        *("<pre>", "</pre>", "<main>", "</main>", "<p hidden>", "x", "&#13;", "&#x2028;", "<nav>", "<title>t</title>"),
    ],
    ".csv": ['"', ";", ",", "\n", "x", "\r\n", "|", "\u2028", '""', "sep=;\n"],
    ".json": ["{", "}", "[", "]", ",", ":", '"a"', '"\\n"', "1", "null", "\n", " "],
}


@patient
@given(st.sampled_from(sorted(PIECES)).flatmap(lambda s: st.tuples(st.just(s), st.lists(st.sampled_from(PIECES[s])))))
def test_any_order_of_a_types_own_signs(path: Path, case: tuple[str, list[str]]) -> None:
    parse_or_refuse(path, case[0], "".join(case[1]).encode())
