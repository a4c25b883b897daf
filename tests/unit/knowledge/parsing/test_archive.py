from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from bonito.errors import DocumentError, DocumentTooLarge
from bonito.knowledge.parsing.archive import BoundedArchive
from bonito.knowledge.parsing.base import ParseLimits
from tests.unit.knowledge.parsing.samples import archive

Write = Callable[[str, bytes], Path]


def read_all(opened: BoundedArchive, name: str) -> bytes:
    with opened.open(name) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


def test_entries_are_read(write: Write) -> None:
    with BoundedArchive(write("a.zip", archive({"a": "x" * 5000, "b": ""})), ParseLimits()) as opened:
        assert "a" in opened
        assert "c" not in opened
        assert read_all(opened, "a") == b"x" * 5000
        assert read_all(opened, "b") == b""


def test_the_declared_sizes_are_added_up_before_anything_is_read(write: Write) -> None:
    path = write("a.zip", archive({str(number): "x" * 1000 for number in range(11)}))

    with pytest.raises(DocumentTooLarge):
        BoundedArchive(path, ParseLimits(max_decompressed_bytes=10_000))


def test_reading_the_same_entry_again_and_again_spends_the_same_budget(write: Write) -> None:
    path = write("a.zip", archive({"a": "x" * 6000}))

    with BoundedArchive(path, ParseLimits(max_decompressed_bytes=10_000)) as opened:
        read_all(opened, "a")
        with pytest.raises(DocumentTooLarge):
            read_all(opened, "a")


def test_an_entry_that_declares_less_than_it_holds_is_broken(write: Write) -> None:
    content = archive({"a": "x" * 100_000})
    lying = content.replace(struct.pack("<I", 100_000), struct.pack("<I", 10))
    assert lying != content

    with (
        BoundedArchive(write("a.zip", lying), ParseLimits()) as opened,
        pytest.raises(DocumentError, match="cannot be unpacked"),
    ):
        read_all(opened, "a")


def test_countless_entries_are_refused(write: Write) -> None:
    path = write("a.zip", archive({str(number): "" for number in range(20_001)}))

    with pytest.raises(DocumentTooLarge, match="20,000 parts"):
        BoundedArchive(path, ParseLimits())


@pytest.mark.parametrize("cut", [10, 60, -30])
def test_a_truncated_archive_is_broken(write: Write, cut: int) -> None:
    with pytest.raises(DocumentError, match="broken, truncated or encrypted"):
        BoundedArchive(write("a.zip", archive({"a": "x" * 1000})[:cut]), ParseLimits())


def test_a_damaged_entry_is_broken(write: Write) -> None:
    content = bytearray(archive({"a": "".join(map(str, range(1000)))}))
    content[100:140] = bytes(40)

    with (
        BoundedArchive(write("a.zip", bytes(content)), ParseLimits()) as opened,
        pytest.raises(DocumentError, match="cannot be unpacked"),
    ):
        read_all(opened, "a")


def test_an_encrypted_entry_cannot_be_unpacked(write: Write) -> None:
    content = bytearray(archive({"a": "x"}))
    content[6] |= 1  # "general purpose bit flag" of the local header
    content[content.index(b"PK\x01\x02") + 8] |= 1

    with (
        BoundedArchive(write("a.zip", bytes(content)), ParseLimits()) as opened,
        pytest.raises(DocumentError, match="encrypted"),
    ):
        read_all(opened, "a")
