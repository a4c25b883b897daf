"""Word's styles and numbering: which paragraphs are headings, which are list items, and the marks before them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bonito.knowledge.parsing.word_xml import attribute, child, local, value

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MAX_BASED_ON = 20  # styles build on each other; a circle must end
BODY_TEXT = 9  # the outline level that means no heading
# Word stores "heading 1" in every language; other programs write what their user sees.
HEADING_NAME = re.compile(
    r"(?:heading|überschrift|titre|título|titolo|kop|rubrik|overskrift|otsikko|nagłówek|nadpis|заголовок|başlık|見出し|标题|標題)"
    r"\s*([1-9])",
    re.I,
)
# Word's built-in styles for nested lists are lists of their own, of one level each.
NESTED_NAME = re.compile(r"list (?:bullet|number) ([2-9])", re.I)
TITLE_NAMES = frozenset({"title", "titel"})
CONTENTS_NAME = re.compile(r"(?:toc|contents) ?[1-9]|table of figures", re.I)
ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl")),
    *((10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
MAX_SPELLED = 1_000  # beyond, letters and Roman numbers are written as digits


@dataclass(frozen=True)
class Style:
    """What a paragraph style says itself; None where it leaves it to the style that it builds on."""

    style_id: str
    name: str
    based_on: str | None
    outline_level: int | None
    number_id: str | None
    number_level: int | None


@dataclass(frozen=True)
class Item:
    """A numbered or bulleted paragraph: its depth from 0, and its mark as printed (`-` for any bullet)."""

    depth: int
    mark: str


class Styles:
    """The paragraph styles of a document."""

    def __init__(self, tree: Element | None) -> None:
        self._styles: dict[str, Style] = {}
        self._default: str | None = None
        for element in tree if tree is not None else ():
            style_id = attribute(element, "styleId")
            if local(element.tag) == "style" and style_id and attribute(element, "type") == "paragraph":
                self._styles[style_id] = _style(style_id, element)
                if attribute(element, "default") in ("1", "true", "on"):
                    self._default = style_id

    def chain(self, properties: Element | None) -> Iterator[Style]:
        """The style that a paragraph's properties name, then those that it builds on."""
        style_id = value(properties, "pStyle") or self._default
        for _ in range(MAX_BASED_ON):
            style = self._styles.get(style_id or "")
            if style is None:
                return
            yield style
            style_id = style.based_on

    def find(self, style_id: str) -> Style | None:
        """A style by its id."""
        return self._styles.get(style_id)

    def heading_level(self, properties: Element | None) -> int | None:
        """1 to 9 for a heading, 0 for the document's title, None for any other paragraph."""
        level = _integer(value(properties, "outlineLvl"))
        if level is not None:
            return level + 1 if level < BODY_TEXT else None
        for style in self.chain(properties):
            if style.outline_level is not None:
                return style.outline_level + 1 if style.outline_level < BODY_TEXT else None
            match = HEADING_NAME.fullmatch(style.name)
            if match:
                return int(match.group(1))
            if style.name.lower() in TITLE_NAMES:
                return 0
        return None

    def is_contents(self, properties: Element | None) -> bool:
        """Whether the paragraph is a line of the table of contents, which repeats the headings."""
        return any(CONTENTS_NAME.fullmatch(style.name) for style in self.chain(properties))

    def is_caption(self, properties: Element | None) -> bool:
        """Whether the paragraph is the caption of a table or picture."""
        return any(style.name.lower() == "caption" for style in self.chain(properties))


@dataclass(frozen=True)
class _Level:
    start: int
    number_format: str
    text: str


@dataclass
class _Numbers:
    """One kind of list and how far it has counted; several lists may share it."""

    levels: dict[int, _Level] = field(default_factory=dict)
    level_of_style: dict[str, int] = field(default_factory=dict)
    style_link: str | None = None
    counters: dict[int, int] = field(default_factory=dict)


class Numbering:
    """Counts the document's lists, in the order in which its paragraphs are asked for."""

    def __init__(self, tree: Element | None, styles: Styles) -> None:
        self._styles = styles
        self._kinds: dict[str, _Numbers] = {}
        self._lists: dict[str, tuple[str, dict[int, int]]] = {}
        for element in tree if tree is not None else ():
            if local(element.tag) == "abstractNum":
                self._kinds[attribute(element, "abstractNumId") or ""] = _numbers(element)
            elif local(element.tag) == "num":
                starts = {
                    _integer(attribute(override, "ilvl")) or 0: start
                    for override in element
                    if (start := _integer(value(override, "startOverride"))) is not None
                }
                self._lists[attribute(element, "numId") or ""] = (value(element, "abstractNumId") or "", starts)

    def next_item(self, properties: Element | None) -> Item | None:
        """Count the paragraph with these properties; None where it is in no list or has no visible mark."""
        own = child(properties, "numPr")
        chain = list(self._styles.chain(properties))
        list_id = value(own, "numId") or next((style.number_id for style in chain if style.number_id), None)
        if list_id is None or list_id not in self._lists:
            return None
        numbers = self._find(list_id)
        if numbers is None:
            return None
        level = _integer(value(own, "ilvl"))
        if level is None:
            by_style = (numbers.level_of_style.get(style.style_id, style.number_level) for style in chain)
            level = next((found for found in by_style if found is not None), 0)
        item = self._count(list_id, numbers, level)
        nested = next((match for style in chain if (match := NESTED_NAME.fullmatch(style.name))), None)
        return replace(item, depth=int(nested.group(1)) - 1) if item and nested and level == 0 else item

    def _find(self, list_id: str) -> _Numbers | None:
        numbers = self._kinds.get(self._lists[list_id][0])
        if numbers is not None and not numbers.levels and numbers.style_link:
            style = self._styles.find(numbers.style_link)
            linked = self._lists.get(style.number_id or "") if style else None
            return self._kinds.get(linked[0]) if linked else None
        return numbers

    def _count(self, list_id: str, numbers: _Numbers, depth: int) -> Item | None:
        level = numbers.levels.get(depth)
        if level is None:
            return None
        counters = numbers.counters
        restart = self._lists[list_id][1].pop(depth, None)  # once: the list's first item starts it anew
        start = level.start if restart is None else restart
        counters[depth] = start if restart is not None or depth not in counters else counters[depth] + 1
        for deeper in [other for other in counters if other > depth]:
            del counters[deeper]
        if level.number_format == "bullet":
            return Item(depth, "-")

        def spell(match: re.Match[str]) -> str:
            other = int(match.group(1)) - 1
            shown = numbers.levels.get(other, level)
            return _spell(counters.get(other, shown.start), shown.number_format)

        mark = re.sub("%([1-9])", spell, level.text).strip()
        return Item(depth, mark) if mark else None


def _style(style_id: str, element: Element) -> Style:
    properties = child(element, "pPr")
    numbers = child(properties, "numPr")
    return Style(
        style_id=style_id,
        name=(value(element, "name") or style_id).strip(),
        based_on=value(element, "basedOn"),
        outline_level=_integer(value(properties, "outlineLvl")),
        number_id=value(numbers, "numId"),
        number_level=_integer(value(numbers, "ilvl")),
    )


def _numbers(element: Element) -> _Numbers:
    numbers = _Numbers(style_link=value(element, "numStyleLink"))
    for level in element:
        depth = _integer(attribute(level, "ilvl"))
        if local(level.tag) != "lvl" or depth is None:
            continue
        start = _integer(value(level, "start"))
        text = value(level, "lvlText") or ""
        numbers.levels[depth] = _Level(1 if start is None else start, value(level, "numFmt") or "decimal", text)
        style_id = value(level, "pStyle")
        if style_id:
            numbers.level_of_style[style_id] = depth
    return numbers


def _spell(number: int, number_format: str) -> str:
    if number_format == "none":
        return ""
    if number_format == "decimalZero":
        return f"{number:02}"
    if not 0 < number <= MAX_SPELLED:
        return str(number)
    if number_format in ("lowerLetter", "upperLetter"):
        # After z Word goes on with aa, bb, cc.
        letters = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
        return letters.upper() if number_format == "upperLetter" else letters
    if number_format in ("lowerRoman", "upperRoman"):
        roman = ""
        for worth, sign in ROMAN:
            roman += sign * (number // worth)
            number %= worth
        return roman.upper() if number_format == "upperRoman" else roman
    return str(number)


def _integer(text: str | None) -> int | None:
    """A small number from an attribute; None where it is none."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,6}", text) else None
