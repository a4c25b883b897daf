from __future__ import annotations

import pytest

from bonito.knowledge.parsing.web import declared_encoding
from tests.unit.knowledge.parsing.conftest import ParseBytes


def test_only_the_main_content_is_read(parse: ParseBytes) -> None:
    document = parse(
        """<!doctype html><head><title>T</title><style>s{}</style><script>s()</script></head><body>
        <header>top</header><nav>menu</nav><div role=navigation>menu</div>
        <main><h1>Leave</h1><p>Thirty days.</p><aside>side</aside><noscript>ns</noscript>
        <form><button>go</button><input value=in></form><svg><text>v</text></svg><template><p>t</p></template></main>
        <footer>bottom</footer><script>s()</script>""",
        "a.html",
    )

    assert document.text == "# Leave\n\nThirty days."


def test_without_a_main_element_the_body_is_read_without_its_frame(parse: ParseBytes) -> None:
    document = parse(
        "<body><header>top</header><article><header><h1>A</h1></header><p>x</p><footer>by me</footer></article>"
        "<footer>bottom</footer></body>",
        "a.html",
    )

    assert document.text == "# A\n\nx\n\nby me"


@pytest.mark.parametrize(
    "hidden",
    ["<p hidden>no</p>", "<p style='display: none'>no</p>", "<div aria-hidden=true><p>no</p></div>", "<!-- no -->"],
)
def test_what_is_hidden_is_not_read(parse: ParseBytes, hidden: str) -> None:
    assert parse(f"<p>yes</p>{hidden}", "a.html").text == "yes"


def test_of_several_mains_the_hidden_ones_do_not_count(parse: ParseBytes) -> None:
    assert parse("<main hidden>a</main><main>b<main>c</main></main><p>d</p>", "a.html").text == "b\n\nc"


def test_headings_become_sections(parse: ParseBytes) -> None:
    document = parse("<h1>A <a>¶</a></h1><p>x</p><h3><div>B</div><div>b</div></h3><p>y<h2>C</h2>z", "a.html")

    assert document.text == "# A\n\nx\n\n### B b\n\ny\n\n## C\n\nz"
    assert [document.section_at(document.text.index(letter)) for letter in "xyz"] == [("A",), ("A", "B b"), ("A", "C")]


def test_the_title_heads_a_page_without_a_heading_of_the_first_level(parse: ParseBytes) -> None:
    assert parse("<title>T &amp; t</title><h2>B</h2>x", "a.html").sections[-1].path == ("T & t", "B")
    assert parse("<title>T</title><h1>A</h1>x", "a.html").text == "# A\n\nx"
    assert parse("<title>T</title><div id=app></div>", "a.html").text == ""


def test_lists_keep_their_marks_and_nesting(parse: ParseBytes) -> None:
    document = parse(
        "<p>before<ul><li>a<ul><li>b<li>c</ul><li><p>d<p>e</ul><ol start=3><li>f<li value=7>g<li>h</ol>after",
        "a.html",
    )

    assert document.text == "before\n\n- a\n  - b\n  - c\n- d\n  e\n\n3. f\n7. g\n8. h\n\nafter"


def test_levels_of_a_list_beyond_the_tenth_are_not_indented_further(parse: ParseBytes) -> None:
    document = parse("<ul><li>x" * 2_000, "a.html")

    assert document.text.splitlines()[8:12] == [" " * 16 + "- x", " " * 18 + "- x", " " * 20 + "- x", " " * 20 + "- x"]
    assert len(document.text) < 2_000 * len(" " * 20 + "- x\n")


def test_inline_markup_joins_and_blocks_part(parse: ParseBytes) -> None:
    document = parse(
        "<p>one <b>bo</b>ld&nbsp;\n word<br>next <img alt='a chart'> x<div>two</div>three<hr>four", "a.html"
    )

    assert document.text == "one bold word\nnext a chart x\n\ntwo\n\nthree\n\nfour"


def test_code_is_kept_with_its_white_space(parse: ParseBytes) -> None:
    document = parse("<pre><code>def f():\n    return '```'\n</code></pre>", "a.html")

    assert document.text == "````\ndef f():\n    return '```'\n````"


def test_tables_become_tables(parse: ParseBytes) -> None:
    document = parse(
        """<table><caption>Days</caption>
        <thead><tr><th rowspan=2>Name<th colspan=2>2024<tr><th>Q1<th>Q2</thead>
        <tr><td>Ann<td>1|2<td><ul><li>x<li>y</ul><tr><td>Bob<td hidden>3<td>4</table>""",
        "a.html",
    )
    [table] = document.tables

    assert document.text[table.start : table.header_end].splitlines() == [
        "Days",
        "| Name | 2024 | 2024 |",
        "| --- | --- | --- |",
        "| Name | Q1 | Q2 |",
    ]
    assert document.text[table.header_end : table.end] == "| Ann | 1\\|2 | - x - y |\n| Bob |  | 4 |"


def test_tables_for_layout_are_read_as_what_they_hold(parse: ParseBytes) -> None:
    document = parse(
        "<table><tr><td><h1>A</h1><p>x<td><table><tr><th>a<th>b<tr><td>1<td>2</table></table>"
        "<table role=presentation><tr><td>p<td>q</table><table><tr><td>one</table>",
        "a.html",
    )

    assert document.text == "# A\n\nx\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\np\n\nq\n\none"


@pytest.mark.parametrize(
    ("head", "label"),
    [
        pytest.param(b"<meta charset=koi8-r>", "koi8-r", id="charset"),
        pytest.param(
            b'<META http-equiv="Content-Type" content="text/html; charset=Shift_JIS">', "Shift_JIS", id="http"
        ),
        pytest.param(b'<?xml version="1.0" encoding="iso-8859-2"?><html>', "iso-8859-2", id="xml"),
        pytest.param(b"<p>charset=koi8-r", None, id="none"),
    ],
)
def test_the_page_declares_its_encoding(head: bytes, label: str | None) -> None:
    assert declared_encoding(head) == label


@pytest.mark.parametrize(
    ("page", "encoding"),
    [
        pytest.param(b"\xef\xbb\xbf<meta charset=koi8-r><p>" + "ж".encode(), "utf-8", id="mark-before-meta"),
        pytest.param(b"<meta charset=koi8-r><p>" + "ж".encode("koi8_r"), "koi8-r", id="meta"),
        pytest.param("<p>ж".encode(), "utf-8", id="utf8"),
        pytest.param("<p>Сотрудники получают тридцать дней отпуска, ж".encode("cp1251"), "windows-1251", id="guess"),
    ],
)
def test_the_encoding_is_taken_from_mark_meta_or_guess(parse: ParseBytes, page: bytes, encoding: str) -> None:
    document = parse(page, "a.html")

    assert document.text.endswith("ж")
    assert document.encoding == encoding


@pytest.mark.parametrize("tag", ["div", "ul><li", "b", "table><tr><td", "main"])
def test_deep_nesting_needs_no_recursion(parse: ParseBytes, tag: str) -> None:
    assert parse(f"<{tag}>" * 1500 + "deep", "a.html").text.endswith("deep")
