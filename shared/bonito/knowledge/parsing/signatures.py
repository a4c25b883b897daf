"""What a file's first bytes say it is, whatever its name."""

from __future__ import annotations

import re
from pathlib import Path

from bonito.errors import DocumentError
from bonito.knowledge.parsing.archive import BoundedArchive
from bonito.knowledge.parsing.base import ParseLimits
from bonito.knowledge.parsing.encoding import has_byte_order_mark, wide_codec

HEAD_BYTES = 64 * 1024
PDF_WITHIN_BYTES = 1024  # where Acrobat, and pdfium, look for the mark
ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")

# (offset, bytes, what a person calls it). Only what people really drop into folders.
SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (8, b"WEBP", "a WebP image"),
    (8, b"WAVE", "a WAV sound file"),
    (8, b"AVI ", "an AVI video"),
    (4, b"ftyp", "an MP4, HEIC or similar media file"),
    (0, b"ID3", "an MP3 sound file"),
    (0, b"OggS", "an Ogg media file"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (0, b"\x7fELF", "a Linux program"),
    (0, b"MZ", "a Windows program"),
    (0, b"\xcf\xfa\xed\xfe", "a macOS program"),
    (0, b"\xca\xfe\xba\xbe", "a Java class or macOS program"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"SQLite format 3\x00", "a SQLite database"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"wOFF", "a font"),
    (0, b"wOF2", "a font"),
)
RICH_TEXT = "an RTF document"
TEXT_SIGNATURES = ((b"{\\rtf", RICH_TEXT), (b"%!PS", "a PostScript file"))
OLE_MARK = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
OLE_DOCUMENT = "an Office document of before 2007 (DOC, XLS, PPT) or one with a password"
WORKBOOK, PRESENTATION = "an Excel workbook (XLSX)", "a PowerPoint presentation (PPTX)"
BOOK, OPEN_DOCUMENT = "an EPUB book", "an OpenDocument file"
ZIP_CONTENTS = (
    ("xl/workbook.xml", WORKBOOK),
    ("xl/workbook.bin", "an Excel workbook (XLSB)"),
    ("ppt/presentation.xml", PRESENTATION),
    ("META-INF/container.xml", BOOK),
    ("META-INF/MANIFEST.MF", "a Java archive"),
    ("content.xml", OPEN_DOCUMENT),
    ("AndroidManifest.xml", "an Android app"),
)
WORD_PART = re.compile(r"word/document[0-9]*\.xml")  # Microsoft 365 also writes document2.xml


def is_pdf(head: bytes, *, anywhere: bool) -> bool:
    """Whether the PDF mark stands at the start or, with `anywhere`, in the first KiB."""
    if anywhere:
        return b"%PDF-" in head[:PDF_WITHIN_BYTES]
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"%PDF-")


def is_zip(head: bytes) -> bool:
    """Whether it begins as a ZIP container does, which DOCX is one of."""
    return head.startswith(ZIP_MARKS)


def describe_zip(path: Path) -> str | None:
    """What the container holds; None for a Word document. DocumentError where it cannot be opened."""
    with BoundedArchive(path, ParseLimits()) as archive:
        if any(map(WORD_PART.fullmatch, archive.names)):
            return None
        return next((what for part, what in ZIP_CONTENTS if part in archive), "a ZIP archive")


def describe_binary(head: bytes) -> str | None:
    """What the file is, where it is not text; None for text in any encoding."""
    binary = _is_binary(head)
    for offset, mark, what in SIGNATURES:
        # A text may begin with MZ or ID3; a program or a sound file never looks like text.
        if head.startswith(mark, offset) and (binary or not mark.isascii()):
            return what
    for mark, what in TEXT_SIGNATURES:
        if head.startswith(mark):
            return what
    if head.startswith(OLE_MARK):
        if "EncryptedPackage".encode("utf-16-le") in head:
            return "an Office document with a password"
        return OLE_DOCUMENT
    return "a binary file" if binary else None


def _is_binary(head: bytes) -> bool:
    """Tab, line ends, form feed and ISO-2022-JP's escape are text; other control characters are rare in it."""
    if has_byte_order_mark(head) or wide_codec(head[:4096]):
        return False
    controls = sum(head.count(code) for code in range(0x20) if code not in b"\t\n\v\f\r\x1b")
    return b"\0" in head or controls > len(head) / 10


def read_head(path: Path) -> bytes:
    """The first bytes of a file; DocumentError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise DocumentError("The file cannot be opened.") from error
