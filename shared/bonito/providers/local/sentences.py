"""Cuts a text of any layout into the units that can be quoted: sentences, list items, rows, records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bonito.providers.local.words import FUNCTION_WORDS

MAX_HEADING_CHARS = 60
MAX_RECORD_CHARS = 400

LIST_ITEM = re.compile(r"\s*(?:[-*+•–·]|\(?\d{1,3}[.)]|\(?[a-zA-Z][)])\s+(?=\S)")
TABLE_ROW = re.compile(r"\s*\|.*\|\s*")
TABLE_RULE = re.compile(r"\s*\|(?:\s*:?-+:?\s*\|)+\s*")
HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(?=\S)")
UNDERLINE = re.compile(r"\s*(?:={3,}|-{3,})\s*")
CODE_FENCE = re.compile(r"\s*(?:`{3,}|~{3,})\w*\s*")
# A line of a record as the JSON parser writes it: a path, a colon, a value.
RECORD_LINE = re.compile(r"\s*((?:[\w$-]+(?:\[\d+\])*\.)*[\w$-]+(?:\[\d+\])*): (.*)")
# Where a sentence may end: a mark, what closes behind it, and space; CJK marks need no space. Nothing here backtracks.
SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s++|[。！？]++[”’」』）]*+\s*+")
_TITLES = "dr jr lt mr mrs ms prof sr st"
_LATIN = "a.m al approx ca cf e.g et etc i.e p.m v vs"
_ENGLISH = "art co corp dept ext fig figs inc ltd max min no nos p par pp s sec sect u.k u.s vol"
_GERMAN = "abs bzw d.h i.d.r nr pos resp str tel u.a usw vgl z.b zb"
_MONTHS = "jan feb mar apr jun jul aug sep sept oct okt nov dec dez"
TITLES = frozenset(_TITLES.split())
ABBREVIATIONS = TITLES.union(_LATIN.split(), _ENGLISH.split(), _GERMAN.split(), _MONTHS.split())


@dataclass(frozen=True)
class Unit:
    """Something that can be quoted by itself.

    Attributes:
        text: on one line; a table's row carries its header's names.
        context: the words that it stands under: headings, a list's introduction.
    """

    text: str
    context: str = ""


@dataclass
class _Layout:
    """What has been read of the lines so far."""

    units: list[Unit] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    introduction: str = ""
    paragraph: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    has_rule: bool = False
    record: dict[str, str] = field(default_factory=dict)
    record_path: str = ""
    record_chars: int = 0

    def add(self, text: str, context: str = "") -> None:
        text = " ".join(text.split())
        if any(char.isalnum() for char in text):
            self.units.append(Unit(text, " ".join(filter(None, (*self.headings[-2:], context)))))

    def end_paragraph(self) -> None:
        text = " ".join(line.strip() for line in self.paragraph)
        self.paragraph = []
        is_item = bool(LIST_ITEM.match(text))
        text = LIST_ITEM.sub("", text, count=1) if is_item else text
        for sentence in split_sentences(text):
            self.add(sentence, self.introduction if is_item else "")
        if text and not is_item:
            self.introduction = text if text.endswith(":") else ""

    def end_table(self) -> None:
        header, rows = (self.table[0], self.table[1:]) if self.has_rule and self.table else ([], self.table)
        for row in rows:
            cells = [
                f"{header[index]}: {cell}" if index < len(header) and header[index] else cell
                for index, cell in enumerate(row)
                if cell
            ]
            self.add("; ".join(cells))
        self.table, self.has_rule = [], False

    def end_record(self) -> None:
        if self.record:
            self.add("; ".join(f"{key}: {value}" for key, value in self.record.items()), self.record_path)
        self.record, self.record_path, self.record_chars = {}, "", 0

    def end_all(self) -> None:
        self.end_paragraph()
        self.end_table()
        self.end_record()


def split_units(text: str) -> list[Unit]:
    """All units of a text, in its order."""
    layout = _Layout()
    lines = text.splitlines()
    is_code = False
    for index, line in enumerate(lines):
        if CODE_FENCE.fullmatch(line):
            is_code = not is_code
            layout.end_all()
        elif is_code:
            layout.add(line)
        else:
            _read_line(layout, lines, index)
    layout.end_all()
    return layout.units


def _read_line(layout: _Layout, lines: Sequence[str], index: int) -> None:
    line = lines[index]
    record = RECORD_LINE.fullmatch(line)
    if not line.strip():
        layout.end_all()
    elif TABLE_ROW.fullmatch(line):
        _read_row(layout, line)
    elif record and _is_record(record[1], lines, index):
        _read_record(layout, record[1], record[2])
    elif UNDERLINE.fullmatch(line):
        layout.end_all()
    elif heading := _heading(lines, index):
        layout.end_all()
        layout.headings.append(heading)
        layout.introduction = ""
    else:
        layout.end_table()
        layout.end_record()
        if LIST_ITEM.match(line) or _stands_alone(lines, index):
            layout.end_paragraph()
        layout.paragraph.append(line)


def _read_row(layout: _Layout, line: str) -> None:
    layout.end_paragraph()
    layout.end_record()
    if TABLE_RULE.fullmatch(line):
        layout.has_rule = len(layout.table) == 1 or layout.has_rule
        return
    cells = re.split(r"(?<!\\)\|", line.strip()[1:-1])
    layout.table.append([cell.strip().replace("\\|", "|") for cell in cells])


def _read_record(layout: _Layout, path: str, value: str) -> None:
    """Lines of one object are one unit: its name and what is said of it belong together."""
    layout.end_paragraph()
    layout.end_table()
    parent, _, key = path.rpartition(".")
    is_full = layout.record_chars + len(value) > MAX_RECORD_CHARS
    if layout.record and (parent != layout.record_path or key in layout.record or is_full):
        layout.end_record()
    layout.record_path = parent
    layout.record[key] = value.strip()
    layout.record_chars += len(key) + len(value)


def _is_record(path: str, lines: Sequence[str], index: int) -> bool:
    """A path with dots or brackets, or one of several `key: value` lines in a row."""
    if "." in path or "[" in path:
        return True
    near = (lines[at] for at in (index - 1, index + 1) if 0 <= at < len(lines))
    return any(RECORD_LINE.fullmatch(line) for line in near)


def _heading(lines: Sequence[str], index: int) -> str:
    """The heading that a line is: marked, underlined, or short and unfinished before a line that is not; "" else."""
    marked = HEADING.match(lines[index])
    if marked:
        return lines[index][marked.end() :].rstrip(" \t#")
    if LIST_ITEM.match(lines[index]):
        return ""
    following = lines[index + 1] if index + 1 < len(lines) else ""
    if UNDERLINE.fullmatch(following) and len(lines[index]) <= 2 * MAX_HEADING_CHARS:
        return lines[index].strip()
    rest = (line for line in lines[index + 1 : index + 3] if line.strip())
    next_line = next(rest, "")
    if _looks_short(lines, index) and next_line and not _is_short(next_line) and not TABLE_ROW.fullmatch(next_line):
        return lines[index].strip()
    return ""


def _stands_alone(lines: Sequence[str], index: int) -> bool:
    """Whether a line begins something new: short lines in a row are no paragraph."""
    return _looks_short(lines, index) or (index > 0 and _looks_short(lines, index - 1))


def _looks_short(lines: Sequence[str], index: int) -> bool:
    """A short line without an end, which is not the last line of a wrapped paragraph."""
    before = lines[index - 1].rstrip() if index else ""
    is_start = not before or before[-1] in ".!?:;|" or _is_short(before)
    return is_start and _is_short(lines[index])


def _is_short(line: str) -> bool:
    line = line.strip()
    return len(line) <= MAX_HEADING_CHARS and line[-1:] not in ".!?:;,。！？" and not line[:1].islower()


def split_sentences(text: str) -> Iterator[str]:
    """Sentences of running text; abbreviations, initials and numbers do not end one."""
    start = 0
    for found in SENTENCE_END.finditer(text):
        if _ends_sentence(text, start, found):
            yield text[start : found.end()].strip()
            start = found.end()
    if text[start:].strip():
        yield text[start:].strip()


def _ends_sentence(text: str, start: int, found: re.Match[str]) -> bool:
    if found[0][0] in "。！？!?":
        return True
    following = text[found.end() : found.end() + 20]
    if not following or following[0].islower():
        return not following
    last_word = (text[start : found.start()].rsplit(maxsplit=1) or [""])[-1].lstrip("(\"'“‘«[")
    word, next_word = last_word.casefold(), following.split()[0]
    is_initial = len(word) == 1 and word.isalpha() and last_word.isupper()
    if found[0].startswith("..") or not (is_initial or word in ABBREVIATIONS):
        return True
    # "building C. The …", "cups etc. They …": a sentence begins; "J. A. Smith", "Dr. May": it does not.
    return word not in TITLES and len(next_word) > 1 and next_word.casefold() in FUNCTION_WORDS
