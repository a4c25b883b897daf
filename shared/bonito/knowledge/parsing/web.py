"""HTML: the main content as Markdown, without scripts, navigation and what is hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.knowledge.parsing.encoding import decode
from bonito.knowledge.parsing.tables import Cell, write_table
from bonito.knowledge.parsing.writer import DocumentWriter, clean, one_line

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

DECLARED_WITHIN_BYTES = 4096  # browsers look at the first 1,024; some generators put more before it
META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)
XML_ENCODING = re.compile(rb"""<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w.:-]{1,40})""", re.I)

# What a reader of the page does not read: code, controls, media, and the way around the site.
SKIPPED = frozenset(
    [
        *("head", "title", "script", "style", "noscript", "template", "nav", "aside", "menu", "dialog"),
        *("iframe", "object", "embed", "svg", "canvas", "audio", "video", "map"),
        *("button", "input", "select", "textarea", "datalist"),
        *("rt", "rp", "annotation", "annotation-xml"),
    ]
)
SKIPPED_ROLES = frozenset(
    {"navigation", "banner", "contentinfo", "complementary", "search", "menu", "menubar", "dialog"}
)
FRAMES = frozenset({"header", "footer"})  # of the page; inside its content they belong to that
MAIN = "main, [role=main]"
CONTENT = frozenset({"main", "article", "section"})
HEADINGS = {f"h{level}": level for level in range(1, 7)}
BLOCKS = frozenset(
    [
        *("html", "body", "main", "article", "section", "header", "footer", "search", "address", "hgroup", "div", "p"),
        *("blockquote", "center", "hr", "figure", "figcaption", "details", "summary", "form", "fieldset", "legend"),
        *("ul", "ol", "li", "dl", "dt", "dd"),
        *("table", "caption", "thead", "tbody", "tfoot", "tr", "td", "th"),
    ]
)
HIDING_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
MARKUP_SPACE = re.compile(r"[ \t\n\f\r]+")
MAX_INDENT = 10  # levels of a list that are told apart; each costs two spaces a line, and nesting has no bound
LINE_SIGNS = " ¶§#"  # the link to itself that generators put behind a heading


def parse(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read an HTML page as a browser's parser does: whatever the markup, there is a tree.

    Where the page has a `main`, only that is read; otherwise the body without its header and footer. The
    title is the first heading where the content has no `h1` of its own.
    """
    return parse_page(path.read_bytes(), limits)


def parse_page(data: bytes, limits: ParseLimits) -> ParsedDocument:
    """The same, of a page in memory."""
    from selectolax.lexbor import LexborHTMLParser

    decoded = decode(data, declared=declared_encoding(data))
    page = LexborHTMLParser(clean(decoded.text))
    writer = DocumentWriter(limits)
    roots = _roots(page)
    title = page.css_first("title")
    has_heading = any(root.css_first("h1") for root in roots)
    reader = _Reader(writer, title="" if has_heading or title is None else title.text())
    for root in roots:
        reader.read(root)
    return writer.finish("html", is_markdown=True, decoded=decoded)


def declared_encoding(data: bytes) -> str | None:
    """The label in the page's meta element or XML declaration; None where it says nothing."""
    head = data[:DECLARED_WITHIN_BYTES]
    match = XML_ENCODING.match(head.lstrip()) or META_CHARSET.search(head)
    return match.group(1).decode("ascii") if match else None


def _roots(page: LexborHTMLParser) -> list[LexborNode]:
    """The outermost `main` elements that show any text; without one, the body."""
    root = page.body or page.root
    if root is None:
        return []
    mains = list(_mains(root)) if page.css_first(MAIN) else []
    return mains or [root]


def _mains(root: LexborNode) -> Iterator[LexborNode]:
    """In one walk: asking each for those inside of it takes quadratic time over nested ones."""
    for node, begins, walk in _walk(root):
        if begins and node.is_element_node and (node.tag == "main" or node.attributes.get("role") == "main"):
            walk.descends = False
            if not _is_hidden(node) and node.text(strip=True):
                yield node


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return bool(attributes) and (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or (attributes.get("role") or "").lower() in SKIPPED_ROLES
        or bool(HIDING_STYLE.search(attributes.get("style") or ""))
    )


@dataclass
class _List:
    """An open list; `number` is the next item's, None where items have bullets."""

    number: int | None


class _Reader:
    """Walks over a page's nodes in order and writes blocks; without recursion, since pages may nest at will."""

    def __init__(self, writer: DocumentWriter, *, title: str) -> None:
        self._writer, self._title = writer, title
        self._pieces: list[str] = []
        self._heading = 0
        self._lists: list[_List] = []
        self._marker = ""
        self._gap = "\n\n"
        self._content_depth = 0

    def read(self, root: LexborNode) -> None:
        """Write everything below the root."""
        self._content_depth = int(root.tag != "body")
        for node, begins, walk in _walk(root):
            if node.is_text_node:
                self._pieces.append(MARKUP_SPACE.sub(" ", node.text_content or ""))
            elif begins:
                walk.descends = self._enter(node, node.tag or "")
            else:
                self._leave(node.tag or "")
        self._flush()

    def _enter(self, node: LexborNode, tag: str) -> bool:
        """Whether the node's children are to be read."""
        if tag in SKIPPED or _is_hidden(node) or (tag in FRAMES and not self._content_depth):
            return False
        self._content_depth += tag in CONTENT
        if tag == "br":
            self._pieces.append("\n")
        elif tag == "img":
            self._pieces.append(f" {node.attributes.get('alt') or ''} ")
        elif tag in BLOCKS or tag in HEADINGS or tag == "pre":
            self._flush()
            return self._enter_block(node, tag)
        return True

    def _enter_block(self, node: LexborNode, tag: str) -> bool:
        if tag in HEADINGS:
            self._heading = HEADINGS[tag]
        elif tag in ("ul", "ol"):
            self._lists.append(_List(_number(node, "start", 1) if tag == "ol" else None))
        elif tag == "li" and self._lists:
            items = self._lists[-1]
            if items.number is not None:
                items.number = _number(node, "value", items.number)
                self._marker = f"{items.number}. "
                items.number += 1
            else:
                self._marker = "- "
        elif tag == "pre":
            self._write_code(node.text())
            return False
        elif tag == "table" and _is_data(node):
            self._write_table(node)
            return False
        return True

    def _leave(self, tag: str) -> None:
        self._content_depth -= tag in CONTENT
        if tag in HEADINGS:
            title, self._pieces, self._heading = one_line("".join(self._pieces)).rstrip(LINE_SIGNS), [], 0
            if title:
                self._begin()
                self._writer.heading(HEADINGS[tag], title)
        elif tag in BLOCKS:
            self._flush()
            if tag in ("ul", "ol") and self._lists:
                self._lists.pop()
                self._marker = ""
                self._gap = "\n" if self._lists else "\n\n"

    def _flush(self) -> None:
        """Write the text that was collected as one block: a paragraph, or a list item with its marker."""
        if self._heading:
            self._pieces.append(" ")
            return
        lines = [line for line in map(one_line, "".join(self._pieces).split("\n")) if line]
        self._pieces = []
        if not lines:
            return
        self._begin()
        indent = "  " * min(len(self._lists) - 1, MAX_INDENT)
        hanging = "" if not self._lists else indent + "  "
        first = indent + self._marker if self._marker else hanging
        self._writer.block(first + ("\n" + hanging).join(lines), gap=self._gap)
        self._marker, self._gap = "", "\n" if self._lists else "\n\n"

    def _begin(self) -> None:
        """Before the first block: the page's title."""
        if self._title:
            self._writer.heading(0, self._title)
            self._title = ""

    def _write_code(self, code: str) -> None:
        code = code.strip("\n")
        if code.strip():
            self._begin()
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
            self._writer.block(f"{fence}\n{code}\n{fence}")

    def _write_table(self, table: LexborNode) -> None:
        rows: list[list[Cell]] = []
        header_rows = 0
        caption = ""
        for part in _children(table):
            if part.tag == "caption":
                caption = _text(part)
            for row in _children(part):
                if row.tag != "tr" or _is_hidden(row):
                    continue
                cells = [cell for cell in _children(row) if cell.tag in ("td", "th")]
                is_header = part.tag == "thead" or all(cell.tag == "th" for cell in cells)
                header_rows += is_header and header_rows == len(rows)
                rows.append([_cell(cell) for cell in cells])
        self._begin()
        write_table(self._writer, rows, header_rows=header_rows, caption=caption)


@dataclass
class _Walk:
    """The reader's answer to the node it was just given."""

    descends: bool = True


def _walk(root: LexborNode) -> Iterator[tuple[LexborNode, bool, _Walk]]:
    """Every node below and with the root in document order, elements once more at their end (False)."""
    walk = _Walk()
    open_nodes: list[LexborNode] = []
    node: LexborNode | None = root
    while node is not None:
        walk.descends = True
        yield node, True, walk
        child = node.child if walk.descends and node.is_element_node else None
        if child is not None:
            open_nodes.append(node)
            node = child
            continue
        if node.is_element_node and walk.descends:
            yield node, False, walk
        while open_nodes and node.next is None:
            node = open_nodes.pop()
            yield node, False, walk
        node = node.next if open_nodes else None


def _is_data(table: LexborNode) -> bool:
    """A table of data, not one that only places things on the page."""
    if table.attributes.get("role") in ("presentation", "none"):
        return False
    if _holds_a_table(table):
        return False
    cells = table.css("td, th")
    return len(cells) > 1 and (table.css_first("th") is not None or table.css_first("h1, h2, h3, h4") is None)


def _holds_a_table(table: LexborNode) -> bool:
    """A walk that ends at the first one inside: a list of them all takes quadratic time over nested ones."""
    return any(begins and node.tag == "table" and node.mem_id != table.mem_id for node, begins, _ in _walk(table))


def _children(node: LexborNode) -> Iterator[LexborNode]:
    child = node.child
    while child is not None:
        if child.is_element_node:
            yield child
        child = child.next


def _cell(node: LexborNode) -> Cell:
    return Cell(_text(node), _number(node, "colspan", 1), _number(node, "rowspan", 1))


def _text(root: LexborNode) -> str:
    """All visible text below a node on one line."""
    pieces = []
    for node, begins, walk in _walk(root):
        tag = node.tag or ""
        if node.is_text_node:
            pieces.append(node.text_content or "")
        elif begins and (tag in SKIPPED or _is_hidden(node)):
            walk.descends = False
        elif tag == "li" and begins:
            pieces.append(" - ")
        elif tag == "img" and begins:
            pieces.append(f" {node.attributes.get('alt') or ''} ")
        elif tag in BLOCKS or tag in HEADINGS or tag == "br":
            pieces.append(" ")
    return one_line("".join(pieces))


def _number(node: LexborNode, attribute: str, default: int) -> int:
    match = re.match(r"\s*(-?[0-9]{1,6})", node.attributes.get(attribute) or "")
    return int(match.group(1)) if match else default
