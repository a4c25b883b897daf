"""The parts of a Word document and safe ways to read their XML."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from bonito.errors import DocumentError
from bonito.knowledge.parsing.archive import BoundedArchive, BoundedStream

if TYPE_CHECKING:
    from lxml.etree import XMLSyntaxError
    from lxml.etree import _Element as Element

PACKAGE_RELATIONSHIPS = "_rels/.rels"
# The last words of the relationship types, which ISO strict and Microsoft's transitional files have in common.
MAIN_PART = "/officeDocument"
SIDE_PARTS = ("styles", "numbering", "footnotes", "endnotes")
# No entities, no network, no document type definition; nesting and text nodes bounded by libxml2 (256; 10 MB).
SAFE_PARSING = {
    "resolve_entities": False,
    "load_dtd": False,
    "no_network": True,
    "huge_tree": False,
    "remove_comments": True,
    "remove_pis": True,
}


@dataclass(frozen=True)
class Parts:
    """Where the pieces of a document lie in its container; those it lacks are missing from `side`."""

    main: str
    side: dict[str, str]


@lru_cache(maxsize=4096)
def local(tag: object) -> str:
    """An element's or attribute's name without its namespace: strict and transitional files differ only there.

    "" for what is no element: an entity that a document type definition declares stays unresolved.
    """
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Element | None, name: str) -> str | None:
    """An attribute by its local name; None where there is no such attribute or no element."""
    if element is None:
        return None
    return next((value for key, value in element.attrib.items() if local(key) == name), None)


def child(element: Element | None, name: str) -> Element | None:
    """The first child of that local name."""
    if element is None:
        return None
    return next((found for found in element if local(found.tag) == name), None)


def value(element: Element | None, *names: str) -> str | None:
    """The `val` of the descendant reached through these children."""
    for name in names:
        element = child(element, name)
    return attribute(element, "val")


def is_on(element: Element | None, name: str) -> bool:
    """Whether a switch such as `vanish` is set: present, and not said to be false."""
    switch = child(element, name)
    return switch is not None and attribute(switch, "val") not in ("0", "false", "off")


def find_parts(archive: BoundedArchive) -> Parts:
    """Follow the container's relationships; DocumentError where there is no main part."""
    main = next(iter(_targets(archive, PACKAGE_RELATIONSHIPS, base="", wanted=MAIN_PART)), "word/document.xml")
    if main not in archive:
        raise DocumentError("The Word document is broken: its main part is missing.")
    folder, name = posixpath.split(main)
    relationships = posixpath.join(folder, "_rels", f"{name}.rels")
    side = {}
    for part in SIDE_PARTS:
        target = next(iter(_targets(archive, relationships, base=folder, wanted=f"/{part}")), None)
        if target is not None and target in archive:
            side[part] = target
    return Parts(main, side)


def read_tree(archive: BoundedArchive, name: str) -> Element:
    """A small part as a tree; DocumentError where it is no XML."""
    from lxml import etree

    parser = etree.XMLParser(**SAFE_PARSING)
    with archive.open(name) as stream:
        try:
            while data := stream.read():
                parser.feed(data)
            return parser.close()
        except etree.XMLSyntaxError as error:
            raise _translated(error) from error


def read_blocks(stream: BoundedStream, names: frozenset[str]) -> Iterator[Element]:
    """The body's children of these local names, one at a time, forgotten after use: memory follows the largest.

    Raises:
        DocumentError: no well-formed XML.
    """
    from lxml import etree

    events = etree.iterparse(stream, events=("end",), tag=[f"{{*}}{name}" for name in names], **SAFE_PARSING)
    try:
        for _, element in events:
            parent = element.getparent()
            if parent is None or local(parent.tag) != "body":
                continue
            yield element
            element.clear()
            while element.getprevious() is not None:
                del parent[0]
    except etree.XMLSyntaxError as error:
        raise _translated(error) from error


def _targets(archive: BoundedArchive, relationships: str, *, base: str, wanted: str) -> Iterator[str]:
    if relationships not in archive:
        return
    for relationship in read_tree(archive, relationships):
        kind, target = relationship.get("Type", ""), relationship.get("Target", "")
        if kind.endswith(wanted) and relationship.get("TargetMode") != "External":
            yield posixpath.normpath(posixpath.join(base, target)) if target[:1] != "/" else target[1:]


def _translated(error: XMLSyntaxError) -> DocumentError | MemoryError:
    """libxml2 reports that it ran out of memory as if the XML were wrong."""
    from lxml.etree import ErrorTypes

    if error.code == ErrorTypes.ERR_NO_MEMORY:
        return MemoryError()
    return DocumentError("The Word document is broken: its XML cannot be read.")
