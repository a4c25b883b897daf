"""A folder as companies have them: two hundred files, a few of them broken."""

from __future__ import annotations

from tests.acceptance.conftest import Bonito, eventually

BROKEN = {
    "broken.pdf": b"%PDF-1.7\nthis is no PDF",
    "archive.docx": b"PK\x03\x04 truncated",
    "bad.json": b'{"open": ',
    "picture.txt": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "program.exe": b"MZ\x90\x00" + bytes(300),
}


def test_two_hundred_files_of_which_five_are_broken(empty: Bonito) -> None:
    folder = empty.directory / "archive"
    folder.mkdir(parents=True)
    for number in range(195):
        (folder / f"note-{number:03}.txt").write_text(f"Note {number}: valve number {number} was replaced and tested.")
    for name, content in BROKEN.items():
        (folder / name).write_bytes(content)
    empty.arguments = ("--no-demo", "--watch", str(folder))
    empty.start()

    documents = eventually(
        lambda: empty.json("kb", "docs", "archive"),
        lambda seen: len(seen) == 200 and not {"pending", "processing"} & {document["status"] for document in seen},
    )

    failed = {document["name"]: document["error"] for document in documents if document["status"] == "error"}
    assert sum(document["status"] == "ready" for document in documents) == 195
    assert set(failed) == set(BROKEN)
    assert all(len(message) > 20 for message in failed.values())
    status = empty.json("kb", "info", "archive")
    assert status["status"] == "ready"
