"""Parsing in a child process: a hostile document can end the child, never the worker."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ConfigDict, ValidationError

import bonito
from bonito.errors import DocumentError, DocumentTooLarge, UnsupportedDocument
from bonito.knowledge.parsing import frames
from bonito.knowledge.parsing.base import (
    DEFAULT_LIMITS,
    MIB,
    PageStart,
    ParsedDocument,
    ParseLimits,
    SectionStart,
    Table,
)

logger = logging.getLogger(__name__)

ENTRY = "bonito.knowledge.parsing.child"
# -I -S: nothing from the environment, the working directory or site-packages' start-up files; where to import from is
# told instead, which holds for an editable install, a ZIP package and a cloud's layers alike. -B: it writes nothing.
FLAGS = ("-I", "-S", "-B", "-X", "utf8")
BOOTSTRAP = (
    "import sys, json, importlib; sys.path[:] = json.loads(sys.argv[1]); importlib.import_module(sys.argv[2]).main()"
)
MAX_UTF8_BYTES = 4  # of a character
ERRORS = {error.code: error for error in (DocumentError, UnsupportedDocument, DocumentTooLarge)}
CLOSED = "The parser process is closed."
BROKEN_ANSWER = "The document made the parser answer nonsense; it is broken or hostile."


class ParserProcess:
    """Parses documents one at a time in one child process, and replaces it when it is worn out or ended.

    The child starts with the first document, with an empty environment and limits of memory, CPU time, open
    and written files. It dies with the thread that runs the event loop; use it from one loop only.
    """

    def __init__(
        self,
        *,
        entry: str = ENTRY,
        recycle_after: int = 100,
        recycle_above_bytes: int = 256 * MIB,
        start_seconds: float = 60.0,
    ) -> None:
        """Nothing is started yet.

        Args:
            entry: the module whose `main` the child runs; it ends in `child.serve`.
            recycle_after: documents per child, >= 1: what a library leaks stays bounded.
            recycle_above_bytes: resident memory with which a child may go on to the next document.
            start_seconds: within which a child must have started.
        """
        self._entry, self._start_seconds = entry, start_seconds
        self._recycle_after, self._recycle_above_bytes = recycle_after, recycle_above_bytes
        self._lock = asyncio.Lock()
        self._child: _Child | None = None
        self._is_closed = False

    async def __aenter__(self) -> ParserProcess:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the child, also in the middle of a document; whoever waits for that gets a RuntimeError."""
        self._is_closed = True
        if self._child:
            self._child.process.kill()
        async with self._lock:
            await self._discard()

    async def parse(self, path: Path, *, name: str, limits: ParseLimits = DEFAULT_LIMITS) -> ParsedDocument:
        """Parse one document; further calls wait for their turn. Cancelling the call ends the child.

        Args:
            path: where its bytes lie.
            name: its name, whose suffix counts.
            limits: the clock starts when the document's turn has come.

        Raises:
            UnsupportedDocument: no parser for this content.
            DocumentTooLarge: above a limit.
            DocumentError: broken, encrypted, or it made the parser crash.
            RuntimeError: the child does not start, or this object is closed; nothing is wrong with the document.
        """
        async with self._lock:
            try:
                answer, text = await self._ask(path, name, limits)
            except _ChildDied as death:
                if death.is_fresh:
                    raise _blame(death.exit_code, limits) from death
                # It may have died between two documents, or of what another one left behind: once more, in a new one.
                answer, text = await self._ask_again(path, name, limits)
        if answer.error:
            if answer.cause:
                logger.warning("A document could not be parsed: %s", answer.cause)
            raise ERRORS.get(answer.error.code, DocumentError)(answer.error.message)
        return await asyncio.to_thread(_document, answer.document, text)

    async def _ask_again(self, path: Path, name: str, limits: ParseLimits) -> tuple[_Answer, bytes]:
        try:
            return await self._ask(path, name, limits)
        except _ChildDied as death:
            raise _blame(death.exit_code, limits) from death

    async def _ask(self, path: Path, name: str, limits: ParseLimits) -> tuple[_Answer, bytes]:
        """One document to one child, which lives on only if it answered and is not worn out."""
        child = await self._ready_child()
        is_fresh = child.documents == 0
        keep = False
        try:
            async with asyncio.timeout(limits.max_seconds):
                answer, text = await child.ask(path, name, limits)
            child.documents += 1
            keep = not self._is_worn_out(child, answer)
        except TimeoutError as error:
            raise DocumentTooLarge(_too_slow(limits)) from error
        except (EOFError, BrokenPipeError) as error:
            exit_code = await child.stop()
            if self._is_closed:
                raise RuntimeError(CLOSED) from error
            raise _ChildDied(exit_code, is_fresh=is_fresh) from error
        except ValidationError as error:
            raise DocumentError(BROKEN_ANSWER) from error
        finally:
            if not keep:
                await self._discard()
        return answer, text

    async def _ready_child(self) -> _Child:
        if self._is_closed:
            raise RuntimeError(CLOSED)
        if self._child and self._child.has_ended:  # killed while it had nothing to do
            await self._discard()
        if self._child is None:
            self._child = await _Child.start(self._entry, self._start_seconds)
        return self._child

    def _is_worn_out(self, child: _Child, answer: _Answer) -> bool:
        return (
            answer.recycle
            or child.documents >= self._recycle_after
            or answer.resident_bytes > self._recycle_above_bytes
        )

    async def _discard(self) -> None:
        child, self._child = self._child, None
        if child:
            await child.stop()


class _ChildDied(Exception):
    """The child ended in the middle of a document; `is_fresh` where that was its first."""

    def __init__(self, exit_code: int, *, is_fresh: bool) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code, self.is_fresh = exit_code, is_fresh


def _blame(exit_code: int, limits: ParseLimits) -> DocumentError:
    """What to tell a person of a document that ended its child; a negative exit code is a signal."""
    if exit_code == -signal.SIGXCPU:
        return DocumentTooLarge(_too_slow(limits))
    if exit_code == -signal.SIGKILL:
        return DocumentError(
            "Reading the document was ended by the operating system, most likely because it took too much memory."
        )
    logger.warning("The parser process died in the middle of a document, exit code %d", exit_code)
    return DocumentError(
        "The document made the parser crash: it is broken, "
        f"or takes more than {limits.max_memory_bytes // MIB:,} MiB of memory to read."
    )


def _too_slow(limits: ParseLimits) -> str:
    return f"Reading the document takes more than {limits.max_seconds:g} seconds."


class _Map(BaseModel):
    """Everything of a document but its text, as the child says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    file_type: str
    is_markdown: bool
    pages: list[tuple[int, int]]
    sections: list[tuple[int, list[str]]]
    tables: list[tuple[int, int, int]]
    page_count: int | None
    warnings: list[str]
    encoding: str | None
    replaced_characters: int
    encoding_confidence: float | None


class _Failure(BaseModel):
    code: str
    message: str


class _Answer(BaseModel):
    """A hostile document may have taken the child over: what it says is checked like any input."""

    resident_bytes: int
    document: _Map | None = None
    error: _Failure | None = None
    cause: str | None = None
    recycle: bool = False


@dataclass
class _Child:
    """A running child: requests go to a pipe, answers come from another."""

    process: subprocess.Popen[bytes]
    requests: int
    answers: asyncio.StreamReader
    transport: asyncio.ReadTransport
    documents: int = 0

    @classmethod
    async def start(cls, entry: str, within_seconds: float) -> _Child:
        """Start a child and wait until it is ready; RuntimeError with what it said where it does not get there."""
        with tempfile.TemporaryFile() as said:
            process, requests, answers = _spawn(entry, said.fileno())
            reader = asyncio.StreamReader()
            try:
                transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                    lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(answers, "rb", buffering=0)
                )
            except BaseException:
                os.close(requests)
                process.kill()
                process.wait()
                raise
            child = cls(process, requests, reader, transport)
            is_ready = False
            try:
                async with asyncio.timeout(within_seconds):
                    is_ready = bool(await child.receive(frames.MAX_MAP_BYTES))
            except (TimeoutError, EOFError) as error:
                said.seek(0)
                complaint = said.read()[-2000:].decode("utf-8", errors="replace").strip()
                raise RuntimeError(f"The parser process does not start. {complaint}") from error
            finally:
                if not is_ready:
                    await child.stop()
            return child

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    async def ask(self, path: Path, name: str, limits: ParseLimits) -> tuple[_Answer, bytes]:
        """Have one document parsed: the answer, and the text where there is one; EOFError when the child dies of it."""
        # A pipe holds 64 KiB and the child waits for just this, so it never blocks.
        os.write(self.requests, _request(path, name, limits))
        answer = _Answer.model_validate_json(await self.receive(frames.MAX_MAP_BYTES))
        if answer.document is None:
            return answer, b""
        return answer, await self.receive(MAX_UTF8_BYTES * limits.max_text_characters)

    async def receive(self, max_bytes: int) -> bytes:
        """One frame; EOFError where the child is gone, DocumentError where it announces more than agreed."""
        (length,) = frames.LENGTH.unpack(await self.answers.readexactly(frames.LENGTH.size))
        if length > max_bytes:
            raise DocumentError(BROKEN_ANSWER)
        return await self.answers.readexactly(length)

    async def stop(self) -> int:
        """Let go of the pipes, end the process and wait for it; its exit code, minus the signal where one ended it."""
        if self.requests >= 0:
            os.close(self.requests)
            self.requests = -1
        self.transport.close()
        self.process.kill()  # of one that is dying already, the exit code stays what it was
        return await asyncio.to_thread(self.process.wait)


def _spawn(entry: str, stderr: int) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start a child: the process, the descriptor for requests to it, and that for its answers.

    Popen and not asyncio's own: there, killing a process that has just ended loses its exit code.
    """
    request_end, requests = os.pipe()
    answers, answer_end = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, *FLAGS, "-c", BOOTSTRAP, json.dumps(_import_path()), entry, str(os.getpid())],
            stdin=request_end,
            stdout=answer_end,
            stderr=stderr,
            env={},
            cwd="/",
            start_new_session=True,  # a Ctrl-C for this process is not one for the document
        )
    except BaseException:
        os.close(requests)
        os.close(answers)
        raise
    finally:
        os.close(request_end)
        os.close(answer_end)
    return process, requests, answers


def _request(path: Path, name: str, limits: ParseLimits) -> bytes:
    payload = frames.message({"path": str(path.absolute()), "name": name, "limits": dataclasses.asdict(limits)})
    return frames.LENGTH.pack(len(payload)) + payload


def _import_path() -> list[str]:
    """Where this process imports from, as absolute paths, and where this library lies in any case."""
    library = str(Path(bonito.__file__).resolve().parents[1])
    path = [str(Path(entry).absolute()) for entry in sys.path]
    return path if library in path else [*path, library]


def _document(content: _Map | None, text_bytes: bytes) -> ParsedDocument:
    """The document that the child describes; DocumentError where the description does not fit the text."""
    try:
        text = text_bytes.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(BROKEN_ANSWER) from error
    if content is None or "\0" in text or not _fits(content, len(text)):
        raise DocumentError(BROKEN_ANSWER)
    return ParsedDocument(
        text=text,
        file_type=content.file_type,
        is_markdown=content.is_markdown,
        pages=tuple(PageStart(offset, number) for offset, number in content.pages),
        sections=tuple(SectionStart(offset, tuple(path)) for offset, path in content.sections),
        tables=tuple(Table(start, header_end, end) for start, header_end, end in content.tables),
        page_count=content.page_count,
        warnings=tuple(content.warnings),
        encoding=content.encoding,
        replaced_characters=content.replaced_characters,
        encoding_confidence=content.encoding_confidence,
    )


def _fits(content: _Map, length: int) -> bool:
    """Whether all offsets ascend and lie within the text."""
    tables = [offset for table in content.tables for offset in table]
    starts = ([offset for offset, _ in content.pages], [offset for offset, _ in content.sections])
    return all(
        offsets == sorted(offsets) and (not offsets or (offsets[0] >= 0 and offsets[-1] <= length))
        for offsets in (tables, *starts)
    )
