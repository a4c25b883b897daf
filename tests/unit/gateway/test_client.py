"""One exchange with a caller: the body's bounds, and what a hang-up does to the work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from bonito.errors import PayloadTooLarge
from bonito.gateway.client import MAX_DISCARDED_BYTES, Client, ClientDisconnected

DISCONNECT = {"type": "http.disconnect"}


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


class Connection:
    """A server's side of ASGI: messages that come, then silence until `hang_up`."""

    def __init__(self, *messages: dict[str, Any], headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.messages, self.sent = list(messages), list[Any]()
        self.left = asyncio.Event()
        self.client = Client({"type": "http", "headers": headers}, self.receive, self.send)

    async def receive(self) -> Any:
        if self.messages:
            return self.messages.pop(0)
        await self.left.wait()
        return DISCONNECT

    async def send(self, message: Any) -> None:
        self.sent.append(message)


async def test_a_body_comes_in_pieces() -> None:
    connection = Connection(part(b"ab", more=True), part(b"", more=True), part(b"c"))

    assert await connection.client.read_body(max_bytes=3) == b"abc"


async def test_a_body_above_the_limit_is_read_on_so_that_the_client_sees_the_refusal() -> None:
    connection = Connection(part(b"ab", more=True), part(b"cd", more=True), part(b"e"))

    with pytest.raises(PayloadTooLarge, match="3 bytes"):
        await connection.client.read_body(max_bytes=3)
    assert connection.messages == []


async def test_a_body_without_end_is_not_read_for_ever() -> None:
    piece = bytes(2**20)
    connection = Connection(*[part(piece, more=True) for _ in range(200)])

    with pytest.raises(PayloadTooLarge):
        await connection.client.read_body(max_bytes=3)
    assert len(connection.messages) >= 200 - MAX_DISCARDED_BYTES // len(piece) - 1


async def test_a_declared_length_above_the_limit_is_refused_unread_when_the_client_waits() -> None:
    headers = [(b"content-length", b"10"), (b"expect", b"100-continue")]
    connection = Connection(part(b"0123456789"), headers=headers)

    with pytest.raises(PayloadTooLarge):
        await connection.client.read_body(max_bytes=3)
    assert len(connection.messages) == 1


@pytest.mark.parametrize("length", [b"-1", b"1e9", b"\xb2", b""])
async def test_a_length_that_is_no_number_decides_nothing(length: bytes) -> None:
    connection = Connection(part(b"abc"), headers=[(b"content-length", length)])

    assert await connection.client.read_body(max_bytes=3) == b"abc"


async def test_a_caller_who_leaves_while_sending_is_gone() -> None:
    connection = Connection(part(b"ab", more=True), DISCONNECT)

    with pytest.raises(ClientDisconnected):
        await connection.client.read_body(max_bytes=3)


async def test_a_hang_up_cancels_the_work_and_nothing_else() -> None:
    connection = Connection()
    stages: list[str] = []

    async def serve() -> None:
        try:
            async with connection.client.watched():
                try:
                    connection.left.set()
                    await asyncio.Event().wait()
                finally:
                    stages.append("cleaned up")
        except ClientDisconnected:
            await asyncio.sleep(0)  # the task itself is not cancelled any more
            stages.append("told")

    task = asyncio.create_task(serve())
    await task

    assert stages == ["cleaned up", "told"]
    assert task.cancelling() == 0


async def test_whoever_cancels_the_task_besides_still_cancels_it() -> None:
    connection = Connection()

    async def serve() -> None:
        async with connection.client.watched():
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    connection.left.set()
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_the_last_byte_a_hang_up_does_not_matter() -> None:
    connection = Connection()
    async with connection.client.watched():
        await connection.client.start(200, [])
        await connection.client.write(b"a")
        await connection.client.end(b"b")
        connection.left.set()
        await asyncio.sleep(0.01)

    assert [message.get("body") for message in connection.sent] == [None, b"a", b"b"]


async def test_an_error_of_the_work_stays_what_it_is() -> None:
    connection = Connection()

    with pytest.raises(KeyError):
        async with connection.client.watched():
            raise KeyError("x")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"x-request-id", b"abc.1:2_3-4")], "abc.1:2_3-4"),
        ([(b"x-request-id", b"a"), (b"x-request-id", b"b")], None),
        ([(b"x-request-id", b"a b")], None),
        ([], None),
    ],
)
def test_a_request_has_an_id(headers: list[tuple[bytes, bytes]], expected: str | None) -> None:
    found = Connection(headers=headers).client.request_id

    assert found == expected if expected else len(found) == 32


def test_headers_are_read_or_forwarded_and_all_others_ignored() -> None:
    client = Connection(
        headers=[
            (b"authorization", b"Bearer x"),
            (b"x-bonito-knowledge-base", b"a"),
            (b"x-bonito-knowledge-base", b"b"),
            (b"openai-beta", b"y"),
            (b"cookie", b"z"),
        ]
    ).client

    assert client.headers == {"authorization": "Bearer x", "x-bonito-knowledge-base": "a,b"}
    assert client.forwarded_headers == {"openai-beta": "y"}
