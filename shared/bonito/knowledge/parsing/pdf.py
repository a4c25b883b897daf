"""PDF, page by page through pdfium: text with its pages, sections from the outline."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from bonito.errors import DocumentError, DocumentTooLarge
from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.knowledge.parsing.wording import counted, listed
from bonito.knowledge.parsing.writer import MAX_TITLE_CHARACTERS, DocumentWriter, clean, one_line

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

MAX_OUTLINE_ENTRIES = 20_000
MAX_OUTLINE_DEPTH = 8
# Above this share of lines that end in a hyphen, a page was hyphenated by a program, not by its author.
HYPHENATED_SHARE = 0.03

HYPHEN_MARK = re.compile("[\x02\ufffe]")  # pdfium's for a hyphen that ended a line; it draws the lines together there
LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\xa0": " ", "\xad": None}
)


def parse(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a PDF's text layer; scans hold none and are counted, not read.

    One page is open at a time, so that memory follows the largest page and not the document. A page that
    pdfium cannot open becomes a warning; when it can open none, that is an error.

    Raises:
        DocumentError: password, no PDF inside, no readable page.
        DocumentTooLarge: more pages or text than the limits allow.
    """
    with closing(_open(path)) as document:
        page_count = len(document)
        if page_count > limits.max_pages:
            raise DocumentTooLarge(f"The PDF has {page_count:,} pages; at most {limits.max_pages:,} are read.")
        if page_count == 0:
            raise DocumentError("The PDF is broken: it holds no pages.")
        outline = _outline(document)
        writer = DocumentWriter(limits)
        blank, broken = [], []
        for number in range(1, page_count + 1):
            text = _page_text(document, number)
            start = writer.page(number, text) if text else None
            if text is None:
                broken.append(number)
            elif start is None:
                blank.append(number)
            else:
                _write_sections(writer, outline[number], start=start, text=text)
    if len(broken) == page_count:
        raise DocumentError("The PDF is broken: none of its pages can be read.")
    return writer.finish("pdf", page_count=page_count, warnings=_warnings(blank, broken, page_count))


def _open(path: Path) -> PdfDocument:
    import pypdfium2
    from pypdfium2 import raw

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise DocumentError("The PDF is protected with a password; save a copy without one.") from error
        if error.err_code == raw.FPDF_ERR_SECURITY:
            raise DocumentError("The PDF is encrypted in a way that cannot be read.") from error
        raise DocumentError("The PDF is broken or truncated: it cannot be opened.") from error
    with suppress(pypdfium2.PdfiumError):
        document.init_forms()  # does nothing without a form; what people typed into its fields is text as well
    return document


def _page_text(document: PdfDocument, number: int) -> str | None:
    """The page's text, cleaned; "" where it has none, None where pdfium cannot read the page."""
    import pypdfium2

    try:
        with closing(_page(document, number)) as page, closing(page.get_textpage()) as text_page:
            # Not get_text_range, which knows no character beyond U+FFFF.
            text = text_page.get_text_bounded()
    except pypdfium2.PdfiumError:
        return None
    return clean(_without_line_end_hyphens(text.translate(LIGATURES))).strip()


def _page(document: PdfDocument, number: int) -> PdfPage:
    from pypdfium2 import PdfiumError

    page = document[number - 1]
    if page.formenv:
        with suppress(PdfiumError):
            page.flatten()  # the fields' values become content, which a newly opened page shows
        page.close()
        page = document[number - 1]
    return page


def _without_line_end_hyphens(text: str) -> str:
    """Draw words together that were hyphenated at a line's end, but not those that carry a hyphen anyway."""
    marks = len(HYPHEN_MARK.findall(text))
    is_hyphenated = marks > 1 and marks > HYPHENATED_SHARE * (text.count("\n") + marks)

    def join(mark: re.Match[str]) -> str:
        before = text[max(mark.start() - 40, 0) : mark.start()].rpartition(" ")[2]
        after = text[mark.end() : mark.end() + 40].partition(" ")[0]
        belongs = f"{before}-{after}" in text
        return "" if is_hyphenated and not belongs and before[-1:].islower() and after[:1].islower() else "-"

    return HYPHEN_MARK.sub(join, text) if marks else text


def _outline(document: PdfDocument) -> defaultdict[int, list[tuple[str, ...]]]:
    """Per page, counted from 1, the paths of the bookmarks that lead to it, in the outline's order."""
    outline: defaultdict[int, list[tuple[str, ...]]] = defaultdict(list)
    path: list[str] = []
    for bookmark in islice(document.get_toc(max_depth=MAX_OUTLINE_DEPTH), MAX_OUTLINE_ENTRIES):
        try:
            title = one_line(clean(bookmark.get_title()))[:MAX_TITLE_CHARACTERS]
        except UnicodeDecodeError:
            title = ""
        path = [*path[: bookmark.level], title]
        destination = bookmark.get_dest()
        page = destination.get_index() if destination else None
        if page is not None and title:
            outline[page + 1].append(tuple(path))
    return outline


def _write_sections(writer: DocumentWriter, paths: Sequence[tuple[str, ...]], *, start: int, text: str) -> None:
    """Begin each section where its title stands on the page, or at the page's start where it does not."""
    position = 0
    for path in paths:
        found = _find_title(path[-1], text, position)
        position = position if found is None else found
        writer.section(start + (found or 0), path)


def _find_title(title: str, text: str, position: int) -> int | None:
    """Where the title stands in the text from `position` on: rather at a line's start, a number before it allowed."""
    words = r"\s+".join(re.escape(word) for word in title.split())
    match = re.compile(rf"^[\d.\s]{{0,12}}{words}", re.M | re.I).search(text, position)
    match = match or re.compile(words, re.I).search(text, position)
    return match.start() if match else None


def _warnings(blank: Sequence[int], broken: Sequence[int], page_count: int) -> list[str]:
    warnings = []
    of = f"of {counted(page_count, 'page')}"
    if blank:
        holds = "holds" if len(blank) == 1 else "hold"
        warnings.append(f"{len(blank):,} {of} {holds} no text (scans?): {listed(blank)}.")
    if broken:
        warnings.append(f"{len(broken):,} {of} could not be read: {listed(broken)}.")
    return warnings
