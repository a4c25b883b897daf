"""Word documents (DOCX): headings, lists, tables and footnotes in the order in which they are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bonito.knowledge.parsing.archive import BoundedArchive
from bonito.knowledge.parsing.base import ParsedDocument, ParseLimits
from bonito.knowledge.parsing.tables import Cell, write_table
from bonito.knowledge.parsing.word_styles import Numbering, Styles
from bonito.knowledge.parsing.word_xml import (
    Parts,
    attribute,
    child,
    find_parts,
    is_on,
    local,
    read_blocks,
    read_tree,
    value,
)
from bonito.knowledge.parsing.writer import DocumentWriter, one_line

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MAX_CAPTION_CHARACTERS = 300
# Around blocks: content controls, custom XML, tracked insertions. Tracked deletions are not in the text any more.
WRAPPERS = frozenset({"sdt", "sdtContent", "customXml", "ins", "moveTo", "smartTag"})
BLOCKS = frozenset({"p", "tbl", "sdt", "customXml", "ins", "moveTo"})
NOTES = {"footnoteReference": ("footnotes", ""), "endnoteReference": ("endnotes", "e")}
SIGNS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
NOT_TEXT = frozenset({"pPr", "rPr", "sdtPr", "sdtEndPr", "instrText", "delText", "del", "moveFrom", "Fallback", "rt"})


def parse(path: Path, limits: ParseLimits) -> ParsedDocument:
    """Read a Word document; page headers and footers, comments and tracked deletions are left out.

    Word decides on pages only when it prints, so there is no page map. A table of contents is left out:
    it repeats the headings. Notes stand behind the paragraph or table that refers to them.

    Raises:
        DocumentError: not a Word document inside, or broken.
        DocumentTooLarge: more decompressed bytes, cells or text than the limits allow.
    """
    with BoundedArchive(path, limits) as archive:
        parts = find_parts(archive)
        writer = DocumentWriter(limits)
        body = _Body(writer, archive, parts)
        with archive.open(parts.main) as stream:
            for block in read_blocks(stream, BLOCKS):
                body.write(block)
        body.flush_caption()
        return writer.finish("docx", is_markdown=True)


@dataclass
class _Text:
    """What a paragraph holds: its text, the notes it refers to, and the text boxes anchored in it."""

    pieces: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)

    def lines(self) -> str:
        """The text with its line breaks, each line without surplus spaces."""
        return "\n".join(line for line in map(one_line, "".join(self.pieces).split("\n")) if line)


class _Body:
    """Writes blocks in document order, keeping what one block means for the next: list counters, notes, a caption."""

    def __init__(self, writer: DocumentWriter, archive: BoundedArchive, parts: Parts) -> None:
        def side(name: str) -> Element | None:
            return read_tree(archive, parts.side[name]) if name in parts.side else None

        self._writer = writer
        self._styles = Styles(side("styles"))
        self._numbering = Numbering(side("numbering"), self._styles)
        self._notes = {name: _notes_by_id(side(name)) for name in ("footnotes", "endnotes")}
        self._note_counts = {"footnotes": 0, "endnotes": 0}
        self._caption = ""
        self._in_list = False

    def write(self, block: Element) -> None:
        """Write a paragraph, a table, or what a wrapper around them holds."""
        kind = local(block.tag)
        if kind == "p":
            self._write_paragraph(block)
        elif kind == "tbl":
            self._write_table(block)
        elif kind in WRAPPERS:
            for inner in block:
                self.write(inner)

    def flush_caption(self) -> None:
        """Write the caption that waits for its table as a paragraph: no table came."""
        caption, self._caption = self._caption, ""
        self._writer.block(caption)

    def _write_paragraph(self, paragraph: Element) -> None:
        properties = child(paragraph, "pPr")
        if self._styles.is_contents(properties):
            return
        self.flush_caption()
        text = self._read(paragraph)
        item = self._numbering.next_item(properties)
        level = self._styles.heading_level(properties)
        lines = text.lines()
        if lines and level is not None:
            self._writer.heading(level, f"{item.mark} {lines}" if item else lines)
        elif lines and item:
            indent = "  " * item.depth
            marked = f"{indent}{item.mark} " + lines.replace("\n", f"\n{indent}  ")
            self._writer.block(marked, gap="\n" if self._in_list else "\n\n")
        elif len(lines) <= MAX_CAPTION_CHARACTERS and self._styles.is_caption(properties):
            self._caption = lines
        else:
            self._writer.block(lines)
        self._in_list = bool(lines and item and level is None)
        for box in text.boxes:
            for block in box:
                self.write(block)
        self._write_notes(text.notes)

    def _write_table(self, table: Element) -> None:
        rows = list(_inside(table, "tr"))
        self._in_list = False
        if len(rows) == 1 and len(only := list(_inside(rows[0], "tc"))) == 1:
            self.flush_caption()
            for block in only[0]:  # a frame around text, not a table
                self.write(block)
            return
        notes: list[tuple[str, str]] = []
        above: dict[int, str] = {}
        cells = [self._cells(row, above, notes) for row in rows]
        headings = [is_on(child(row, "trPr"), "tblHeader") for row in rows]
        header_rows = headings.index(False) if False in headings else 1
        caption, self._caption = self._caption, ""
        write_table(self._writer, cells, header_rows=header_rows, caption=caption)
        self._write_notes(notes)

    def _cells(self, row: Element, above: dict[int, str], notes: list[tuple[str, str]]) -> list[Cell]:
        """A row's cells; one that continues the cell above it, by `vMerge`, repeats its text from `above`."""
        before = min(_count(value(child(row, "trPr"), "gridBefore"), 0), 100)
        cells = [Cell("")] * before
        column = before
        for element in _inside(row, "tc"):
            properties = child(element, "tcPr")
            span = _count(value(properties, "gridSpan"), 1)
            merge = child(properties, "vMerge")
            if merge is not None and attribute(merge, "val") != "restart":
                text = above.get(column, "")
            else:
                text = self._cell_text(element, notes)
            above[column] = text
            cells.append(Cell(text, column_span=span))
            column += span
        return cells

    def _cell_text(self, cell: Element, notes: list[tuple[str, str]]) -> str:
        """A cell on one line; a table inside it as its rows, `a, b; c, d`."""
        pieces: list[str] = []
        for block in cell:
            kind = local(block.tag)
            if kind == "p":
                text = self._read(block)
                item = self._numbering.next_item(child(block, "pPr"))
                pieces.append(f"{item.mark} {text.lines()}" if item else text.lines())
                pieces += [self._cell_text(box, notes) for box in text.boxes]
                notes += text.notes
            elif kind == "tbl":
                inner = ([self._cell_text(tc, notes) for tc in _inside(row, "tc")] for row in _inside(block, "tr"))
                pieces.append("; ".join(", ".join(filter(None, row)) for row in inner))
            elif kind in WRAPPERS:
                pieces.append(self._cell_text(block, notes))
        return " ".join(filter(None, map(one_line, pieces)))

    def _read(self, paragraph: Element) -> _Text:
        text = _Text()
        self._collect(paragraph, text)
        return text

    def _collect(self, element: Element, text: _Text) -> None:
        for node in element:
            kind = local(node.tag)
            if kind in NOT_TEXT or (kind == "r" and is_on(child(node, "rPr"), "vanish")):
                continue
            if kind == "t":
                text.pieces.append(node.text or "")
            elif kind in SIGNS:
                text.pieces.append(SIGNS[kind])
            elif kind == "sym":
                text.pieces.append(_symbol(attribute(node, "char") or ""))
            elif kind in NOTES:
                self._refer(node, kind, text)
            elif kind == "txbxContent":
                text.boxes.append(node)
            else:
                self._collect(node, text)

    def _refer(self, reference: Element, kind: str, text: _Text) -> None:
        """Put a mark where the paragraph refers to a note, and keep the note for behind it."""
        part, prefix = NOTES[kind]
        note = self._notes[part].pop(attribute(reference, "id") or "", None)
        if note is not None:
            self._note_counts[part] += 1
            label = f"{prefix}{self._note_counts[part]}"
            text.pieces.append(f"[^{label}]")
            text.notes.append((label, self._cell_text(note, [])))

    def _write_notes(self, notes: list[tuple[str, str]]) -> None:
        for label, note in notes:
            self._writer.block(f"[^{label}]: {note}")
            self._in_list = False


def _notes_by_id(tree: Element | None) -> dict[str, Element]:
    """The notes that people wrote; those with a type are Word's own separators."""
    notes = tree if tree is not None else ()
    return {attribute(note, "id") or "": note for note in notes if attribute(note, "type") in (None, "normal")}


def _inside(element: Element, name: str) -> Iterator[Element]:
    """The children of a local name, also those in wrappers, without rows that were deleted under tracking."""
    for node in element:
        kind = local(node.tag)
        if kind == name and not (name == "tr" and child(child(node, "trPr"), "del") is not None):
            yield node
        elif kind in WRAPPERS:
            yield from _inside(node, name)


def _count(text: str | None, default: int) -> int:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,5}", text) else default


def _symbol(code: str) -> str:
    """A character that a run takes from a symbol font; fonts' private codes mean nothing outside of them."""
    number = int(code, 16) if re.fullmatch("[0-9A-Fa-f]{1,6}", code) else 0
    is_character = 0x20 <= number <= 0x10FFFF and not 0xD800 <= number <= 0xF8FF
    return chr(number) if is_character else ""
