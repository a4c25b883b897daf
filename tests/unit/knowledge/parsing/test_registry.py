from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest

from bonito.errors import DocumentError, DocumentTooLarge, UnsupportedDocument
from bonito.knowledge.parsing.registry import TYPES, FileType, detect
from tests.unit.knowledge.parsing import samples
from tests.unit.knowledge.parsing.conftest import ParseBytes

Write = Callable[[str, bytes], Path]
PDF = samples.pdf([["Hello"]])
WORD = samples.word(samples.paragraph("Hello"))
HTML = b"<!DOCTYPE html><p>Hello"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"


@pytest.mark.parametrize(
    ("name", "content", "file_type"),
    [
        pytest.param("a.pdf", PDF, "pdf", id="pdf"),
        pytest.param("a.txt", PDF, "pdf", id="pdf-named-txt"),
        pytest.param("a", PDF, "pdf", id="pdf-without-suffix"),
        pytest.param("a.bak", PDF, "pdf", id="pdf-named-bak"),
        pytest.param("a.pdf", b"\n" * 900 + PDF, "pdf", id="pdf-behind-rubbish"),
        pytest.param("A.PDF", PDF, "pdf", id="upper-case"),
        pytest.param("a.docx", WORD, "docx", id="docx"),
        pytest.param("a.zip", WORD, "docx", id="docx-named-zip"),
        pytest.param("a.docm", WORD, "docx", id="docm"),
        pytest.param("a.txt", b"Hello", "txt", id="txt"),
        pytest.param("README", b"Hello", "txt", id="text-without-suffix"),
        pytest.param("Minutes 2024.05", b"Hello", "txt", id="number-is-no-suffix"),
        pytest.param("page", HTML, "html", id="html-without-suffix"),
        pytest.param("page", b"<!-- x -->\n<HTML><p>", "html", id="html-behind-a-comment"),
        pytest.param("a.txt", HTML, "txt", id="html-named-txt"),
        pytest.param("a.txt", b"The mark %PDF-1.7 begins a PDF.", "txt", id="text-about-pdf"),
        pytest.param("a.txt", b"MZ-80 and GIF89a are names.", "txt", id="text-like-a-program"),
        pytest.param("a.txt", codecs.BOM_UTF16_LE + "Hello".encode("utf-16-le"), "txt", id="utf16-with-mark"),
        pytest.param("a.txt", "Hello world".encode("utf-16-le"), "txt", id="utf16-without-mark"),
        pytest.param("a.markdown", b"# Hello", "md", id="markdown"),
        pytest.param("a.htm", HTML, "html", id="htm"),
        pytest.param("a.tsv", b"a\tb", "csv", id="tsv"),
        pytest.param("a.json", b"{}", "json", id="json"),
        pytest.param("a.ndjson", b"{}", "jsonl", id="ndjson"),
        pytest.param("x/y.z/a.json", b"{}", "json", id="path"),
        pytest.param("empty.md", b"", "md", id="empty"),
    ],
)
def test_a_type_is_told_by_content_and_name(write: Write, name: str, content: bytes, file_type: str) -> None:
    assert detect(name, write("file", content)) == file_type


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        pytest.param("a.txt", b"\x7fELF\2\1\1\0\0", "looks like a Linux program, although it is named .txt", id="elf"),
        pytest.param("a.txt", b"MZ\x90\0\3\0\0", "looks like a Windows program", id="exe"),
        pytest.param("a.pdf", PNG, "looks like a PNG image, although it is named .pdf", id="png"),
        pytest.param("photo.png", PNG, "looks like a PNG image. Accepted", id="png-by-its-name"),
        pytest.param("a.docx", samples.archive({"xl/workbook.xml": ""}), "an Excel workbook", id="xlsx"),
        pytest.param("a.pptx", samples.archive({"ppt/presentation.xml": ""}), "a PowerPoint presentation", id="pptx"),
        pytest.param("a.zip", samples.archive({"a.txt": ""}), "looks like a ZIP archive", id="zip"),
        pytest.param("a.txt", WORD[: len(WORD) // 2], "looks like a broken ZIP archive", id="half-a-zip"),
        pytest.param("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "before 2007", id="old-office"),
        pytest.param(
            "a.docx",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le"),
            "an Office document with a password",
            id="encrypted-docx",
        ),
        pytest.param("a.rtf", b"{\\rtf1 Hello}", "an RTF document", id="rtf"),
        pytest.param("a.txt", b"Hello\0world", "a binary file", id="zero-byte"),
        pytest.param("a.txt", bytes(range(1, 32)) * 3, "a binary file", id="control-characters"),
        pytest.param("a.pdf", b"Hello", "looks like plain text, although it is named .pdf", id="text-named-pdf"),
        pytest.param("a.docx", HTML, "looks like an HTML page, although it is named .docx", id="html-named-docx"),
        pytest.param("a.yaml", b"a: b", "Files named .yaml are not read", id="other-text"),
        pytest.param("a.xyz", b"", "Files named .xyz are not read", id="empty-other"),
    ],
)
def test_anything_else_is_an_error_that_says_what_it_is_and_what_is_accepted(
    write: Write, name: str, content: bytes, says: str
) -> None:
    with pytest.raises(UnsupportedDocument) as caught:
        detect(name, write("file", content))

    assert says in caught.value.message
    assert "Accepted are PDF, DOCX, TXT, MD, HTML, CSV, JSON and JSON Lines." in caught.value.message


def test_half_a_word_document_is_broken_and_not_unsupported(write: Write) -> None:
    with pytest.raises(DocumentError, match="broken") as caught:
        detect("a.docx", write("file", WORD[: len(WORD) // 2]))

    assert caught.type is DocumentError


def test_a_file_that_is_gone_is_an_error_on_the_document(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be opened"):
        detect("a.txt", tmp_path / "gone")


@pytest.mark.parametrize("file_type", TYPES, ids=lambda file_type: file_type.name)
def test_an_empty_file_is_a_document_without_text_and_a_warning(parse: ParseBytes, file_type: FileType) -> None:
    document = parse(b"", f"a{file_type.suffixes[0]}")

    assert (document.text, document.warnings) == ("", ("The file is empty.",))
    assert document.file_type == file_type.name


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", " \n\n "), ("a.md", "\n"), ("a.csv", ";;\n"), ("a.html", "<script>1</script>")]
)
def test_a_document_without_text_says_so(parse: ParseBytes, name: str, content: str) -> None:
    document = parse(content, name)

    assert (document.text, document.warnings) == ("", ("The document holds no text.",))


def test_a_file_above_the_size_limit_is_refused_unread(parse: ParseBytes) -> None:
    with pytest.raises(DocumentTooLarge, match=r"has 2\.0 MiB; at most 1\.0 MiB"):
        parse(b"x" * 2**21, "a.txt", max_bytes=2**20)


def test_more_text_than_the_limit_is_refused(parse: ParseBytes) -> None:
    with pytest.raises(DocumentTooLarge, match="more than 100 characters"):
        parse("x" * 101, "a.txt", max_text_characters=100)


def test_plain_text_keeps_its_lines_and_knows_its_encoding(parse: ParseBytes) -> None:
    document = parse("\ufeffOne\r\nTwo\rThree\x00\x1b[31m\n\n", "a.txt")

    assert document.text == "One\nTwo\nThree[31m"
    assert (document.encoding, document.encoding_confidence) == ("utf-8", 1.0)
    assert (document.is_markdown, document.pages, document.sections, document.page_count) == (False, (), (), None)


def test_replaced_characters_are_counted_on_the_document(parse: ParseBytes) -> None:
    document = parse("Grüße äöü".encode() * 3 + b"\xff", "a.txt")

    assert document.replaced_characters == 1
    assert document.warnings == ("1 character is not valid utf-8 and could not be read.",)
