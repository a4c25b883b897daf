from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

import bonito
from bonito.errors import DocumentError, DocumentTooLarge, UnsupportedDocument
from bonito.knowledge.parsing.base import MIB, PageStart, ParsedDocument, ParseLimits, SectionStart, Table
from bonito.knowledge.parsing.process import ParserProcess
from tests.unit.knowledge.parsing.samples import pdf, word

HOSTILE = "tests.unit.knowledge.parsing.hostile_child"
ROOMY = ParseLimits(max_memory_bytes=256 * MIB, max_text_characters=100_000)
HASTY = ParseLimits(max_seconds=0.5)

Behave = Callable[..., Coroutine[Any, Any, ParsedDocument]]


@pytest.fixture
async def hostile() -> AsyncIterator[ParserProcess]:
    async with ParserProcess(entry=HOSTILE) as parser:
        yield parser


@pytest.fixture
def behave(hostile: ParserProcess, tmp_path: Path) -> Behave:
    """Parse a document that makes its parser do what it says."""
    return lambda behaviour, limits=ROOMY: parse_saying(hostile, tmp_path, behaviour, limits)


async def parse_saying(parser: ParserProcess, folder: Path, behaviour: str, limits: ParseLimits) -> ParsedDocument:
    path = folder / behaviour
    path.write_text(behaviour)
    return await parser.parse(path, name=path.name, limits=limits)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def child_pid(parser: ParserProcess) -> int | None:
    """The process id of the child that waits or works; None where there is none."""
    return parser._child.process.pid if parser._child else None


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_documents_of_all_kinds_are_parsed_by_one_child(tmp_path: Path) -> None:
    contents = {
        "a.pdf": pdf([["Hello"]]),
        "a.docx": word("<w:p><w:r><w:t>Hello</w:t></w:r></w:p>"),
        "a.txt": b"Hello",
        "a.md": b"Hello",
        "a.html": b"<p>Hello",
        "a.csv": b"Hello",
        "a.json": b'"Hello"',
        "a.jsonl": b'"Hello"',
    }
    async with ParserProcess() as parser:
        pids = set()
        for name, content in contents.items():
            path = tmp_path / name
            path.write_bytes(content)
            document = await parser.parse(path, name=name)
            assert "Hello" in document.text
            assert document.file_type == name[2:]
            pids.add(child_pid(parser))
    assert len(pids) == 1


async def test_a_document_arrives_as_it_was_made(behave: Behave) -> None:
    assert await behave("whole") == ParsedDocument(
        text="# Ä\n\n| a |\n| 1 |\n\n😀",
        file_type="pdf",
        is_markdown=True,
        pages=(PageStart(0, 1), PageStart(18, 3)),
        sections=(SectionStart(0, ("Ä",)), SectionStart(18, ("Ä", "\u2028"))),
        tables=(Table(5, 11, 16),),
        page_count=3,
        warnings=("w",),
        encoding="utf-8",
        replaced_characters=2,
        encoding_confidence=0.5,
    )


async def test_limits_arrive_as_they_were_given(behave: Behave) -> None:
    assert (await behave("limits")).text == str(ROOMY)


@pytest.mark.parametrize(
    ("behaviour", "kind", "says"),
    [
        ("broken", DocumentError, "It is broken."),
        ("unsupported", UnsupportedDocument, "It is unsupported."),
        ("too-large", DocumentTooLarge, "It is too large."),
        ("loop", DocumentTooLarge, "takes more than 0.5 seconds"),
        ("sleep", DocumentTooLarge, "takes more than 0.5 seconds"),
        ("allocate", DocumentTooLarge, "takes more than 256 MiB of memory"),
        ("grow", DocumentTooLarge, "takes more than 256 MiB of memory"),
        ("recurse", DocumentTooLarge, "nested too deeply"),
        ("segfault", DocumentError, "made the parser crash"),
        ("abort", DocumentError, "made the parser crash"),
        ("exit", DocumentError, "made the parser crash"),
        ("exit-cleanly", DocumentError, "made the parser crash"),
        ("unexpected", DocumentError, "broken in a way that the parser cannot read"),
        ("write", DocumentError, "broken in a way"),
        ("open-files", DocumentError, "broken in a way"),
        ("offset-beyond", DocumentError, "answer nonsense"),
        ("offset-before", DocumentError, "answer nonsense"),
        ("offset-falls", DocumentError, "answer nonsense"),
        ("wrong-type", DocumentError, "answer nonsense"),
        ("nul", DocumentError, "answer nonsense"),
        ("surrogate", DocumentError, "broken in a way"),
        ("much-text", DocumentError, "answer nonsense"),
        ("many-sections", DocumentTooLarge, "too many headings, pages and tables"),
    ],
)
async def test_whatever_a_document_does_the_next_one_is_parsed(
    behave: Behave, behaviour: str, kind: type[DocumentError], says: str
) -> None:
    with pytest.raises(DocumentError, match=says) as caught:
        await behave(behaviour, HASTY if behaviour in ("loop", "sleep") else ROOMY)

    assert caught.type is kind
    assert (await behave("next")).text == "next"


async def test_an_unexpected_error_is_logged_without_the_documents_content(
    behave: Behave, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DocumentError):
        await behave("unexpected")

    assert "KeyError in hostile_child.py:" in caplog.text
    assert "secret" not in caplog.text


async def test_what_libraries_print_is_no_answer(behave: Behave) -> None:
    assert (await behave("noise")).text == "quiet"


async def test_the_child_has_an_empty_environment(behave: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONITO_ENCRYPTION_KEY", "very secret")

    assert (await behave("initial-environment")).text == "b''"
    assert "secret" not in (await behave("environment")).text
    assert "secret" not in (await behave("arguments")).text


async def test_documents_are_parsed_one_at_a_time_whoever_asks(behave: Behave) -> None:
    documents = await asyncio.gather(*(behave("pid") for _ in range(5)))

    assert len({document.text for document in documents}) == 1


async def test_a_child_that_is_killed_in_the_middle_fails_its_document_alone(
    hostile: ParserProcess, behave: Behave
) -> None:
    parsing = asyncio.create_task(behave("sleep", ParseLimits()))
    await until(lambda: child_pid(hostile) is not None)
    os.kill(child_pid(hostile) or 0, signal.SIGKILL)

    with pytest.raises(DocumentError, match="ended by the operating system"):
        await parsing
    assert (await behave("next")).text == "next"


async def test_a_child_that_is_killed_between_documents_fails_none(hostile: ParserProcess, behave: Behave) -> None:
    first = int((await behave("pid")).text)
    os.kill(first, signal.SIGKILL)

    assert int((await behave("pid")).text) != first


async def test_a_document_is_not_blamed_for_what_another_left_behind(hostile: ParserProcess, behave: Behave) -> None:
    await behave("first")
    parsing = asyncio.create_task(behave("sleep", ParseLimits()))
    first = child_pid(hostile) or 0
    await asyncio.sleep(0.05)
    os.kill(first, signal.SIGSEGV)
    await until(lambda: child_pid(hostile) not in (None, first))
    os.kill(child_pid(hostile) or 0, signal.SIGSEGV)

    with pytest.raises(DocumentError, match="made the parser crash"):
        await parsing


async def test_a_cancelled_call_ends_its_child(hostile: ParserProcess, behave: Behave) -> None:
    parsing = asyncio.create_task(behave("loop", ParseLimits()))
    await until(lambda: child_pid(hostile) is not None)
    pid = child_pid(hostile) or 0
    parsing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await parsing
    await until(lambda: is_gone(pid))
    assert (await behave("next")).text == "next"


async def test_a_call_cancelled_while_it_waits_harms_nobody(hostile: ParserProcess, behave: Behave) -> None:
    calls = [behave("loop", HASTY), behave("second"), behave("third")]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await until(lambda: child_pid(hostile) is not None)
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(result) for result in results] == [DocumentTooLarge, asyncio.CancelledError, ParsedDocument]


async def test_signals_to_the_group_do_not_fail_the_document(hostile: ParserProcess, behave: Behave) -> None:
    await behave("first")
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child_pid(hostile) or 0, number)

    assert int((await behave("pid")).text) == child_pid(hostile)
    assert os.getpgid(child_pid(hostile) or 0) != os.getpgid(0)


async def test_a_child_is_replaced_after_so_many_documents(tmp_path: Path) -> None:
    async with ParserProcess(entry=HOSTILE, recycle_after=2) as parser:
        pids = [(await parse_saying(parser, tmp_path, "pid", ROOMY)).text for _ in range(5)]

    assert [pids[0] == pids[1], pids[1] == pids[2], pids[2] == pids[3], pids[3] == pids[4]] == [
        True,
        False,
        True,
        False,
    ]


async def test_a_child_that_has_grown_is_replaced(tmp_path: Path) -> None:
    async with ParserProcess(entry=HOSTILE, recycle_above_bytes=160 * MIB) as parser:
        pids = {(await parse_saying(parser, tmp_path, "leak", ParseLimits())).text for _ in range(6)}

    assert 2 <= len(pids) <= 4


async def test_closing_ends_the_child_and_whoever_waits_for_it(tmp_path: Path) -> None:
    parser = ParserProcess(entry=HOSTILE)
    parsing = asyncio.create_task(parse_saying(parser, tmp_path, "sleep", ParseLimits()))
    await until(lambda: child_pid(parser) is not None)
    pid = child_pid(parser) or 0
    await parser.aclose()

    with pytest.raises(RuntimeError, match="closed"):
        await parsing
    await until(lambda: is_gone(pid))
    with pytest.raises(RuntimeError, match="closed"):
        await parse_saying(parser, tmp_path, "pid", ROOMY)
    await parser.aclose()


async def test_a_child_that_does_not_start_is_not_the_documents_fault(tmp_path: Path) -> None:
    async with ParserProcess(entry="no.such.module") as parser:
        with pytest.raises(RuntimeError, match="No module named 'no'"):
            await parse_saying(parser, tmp_path, "pid", ROOMY)


async def test_a_child_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    async with ParserProcess(entry=HOSTILE, start_seconds=0) as parser:
        with pytest.raises(RuntimeError, match="does not start"):
            await parse_saying(parser, tmp_path, "pid", ROOMY)
        assert child_pid(parser) is None


def test_the_child_dies_with_its_parent_in_the_middle_of_a_document(tmp_path: Path) -> None:
    (tmp_path / "loop").write_text("loop")
    script = f"""
import asyncio, sys
from pathlib import Path
from typing import Any
from bonito.knowledge.parsing.process import ParserProcess

async def main():
    parser = ParserProcess(entry="{HOSTILE}")
    task = asyncio.create_task(parser.parse(Path("{tmp_path}/loop"), name="loop"))
    while parser._child is None:
        await asyncio.sleep(0.01)
    print(parser._child.process.pid, flush=True)
    await task

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4]
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()

    asyncio.run(until(lambda: is_gone(pid)))


def test_the_library_runs_from_a_zip_package(tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    source = Path(bonito.__file__).parent
    with zipfile.ZipFile(package, "w") as file:
        for path in source.rglob("*.py"):
            file.write(path, Path("bonito") / path.relative_to(source))
    (tmp_path / "a.txt").write_text("Hello")
    installed = next(entry for entry in sys.path if entry.endswith("site-packages"))
    script = f"""
import sys
sys.path[:0] = ["{package}", "{installed}"]
import asyncio
from pathlib import Path
from typing import Any
from bonito.knowledge.parsing import process

async def main():
    async with process.ParserProcess() as parser:
        print(process.__file__, (await parser.parse(Path("{tmp_path}/a.txt"), name="a.txt")).text)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True)

    assert (done.stdout, done.stderr) == (f"{package}/bonito/knowledge/parsing/process.py Hello\n", "")


async def refused(path: Path, limits: ParseLimits) -> str:
    async with ParserProcess() as parser:
        with pytest.raises(DocumentTooLarge) as caught:
            await parser.parse(path, name=path.name, limits=limits)
        healthy = path.with_name("healthy.txt")
        healthy.write_text("fine")
        assert (await parser.parse(healthy, name="healthy.txt")).text == "fine"
    return caught.value.message


async def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("word/document.xml", "w") as entry:
        for _ in range(600):
            entry.write(bytes(2**20))

    assert path.stat().st_size < MIB
    assert "unpacks to more than 500 MiB" in await refused(path, ParseLimits())


async def test_a_page_whose_tree_takes_hours_to_build_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "deep.html"
    path.write_text("<div>" * 300_000)

    assert "takes more than 1 seconds" in await refused(path, ParseLimits(max_seconds=1))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("page", "<!-- x -->" * 5_000 + "y", id="comments-and-no-page"),
        pytest.param("page.html", "<main>" * 25_000 + "y", id="mains-in-mains"),
        pytest.param("page.html", "<table><tr><td>" * 40_000 + "y", id="tables-in-tables"),
    ],
)
async def test_a_page_takes_time_by_its_size_however_it_nests(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)

    # About a second each; with every comment, main or table looked at once for each of the others, minutes or for ever.
    async with ParserProcess() as parser:
        document = await parser.parse(path, name=name, limits=ParseLimits(max_seconds=30))

    assert document.text.endswith("y")


async def test_a_document_that_needs_more_memory_than_allowed_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "wide.docx"
    path.write_bytes(word("<w:p>" + "<w:r><w:t>x</w:t></w:r>" * 1_000_000 + "</w:p>"))

    assert "takes more than 64 MiB of memory" in await refused(path, ParseLimits(max_memory_bytes=64 * MIB))
