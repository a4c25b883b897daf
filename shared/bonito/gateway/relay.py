"""Passes a provider's answer on as it comes, and adds the one key that is ours."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from bonito.errors import BonitoError, ProviderFailed, RateLimited
from bonito.gateway.splicing import parse_object
from bonito.metering.usage import Operation
from bonito.providers.base import Usage
from bonito.providers.sse import DONE, encode

MAX_EVENT_BYTES = 32 * 2**20  # an image in base64 may be one event
MAX_TOKENS = 2**31 - 1
# Answers above this are not parsed: millions of numbers would hold the loop. Their usage is looked for at the end.
MAX_PARSED_BYTES = 2 * 2**20
TAIL_BYTES = 4096

LINE_END = re.compile(rb"\r\n|\n|\r")
# Two ends of lines. A CR that nothing follows yet may be half of a CRLF, except where lines end with CR alone.
EVENT_END = re.compile(rb"(?:\r\n|\n)(?:\r\n|\n|\r(?=[^\n]))|\r(?:\r\n|\r(?!\n))")
# An event with none of these is passed on unread. A quote inside of a JSON string is escaped, so text never matches.
NEEDS_READING = re.compile(rb'"finish_reason"\s*:\s*"|"usage"\s*:\s*\{|"error"\s*:|\[DONE\]')
USAGE_AT_END = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})[^{}\[\]]*\}\s*\Z')
NO_OBJECT = "The provider's answer is no JSON object."
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

BonitoKey = Callable[[Usage | None], bytes]
"""Makes the value of the `bonito` key, from what the provider reported; None before that."""


def with_bonito(payload: bytes, key: bytes) -> bytes:
    """A JSON object with one more member, and otherwise as it came.

    Raises:
        ProviderFailed: it cannot be taken apart.
    """
    if b'"bonito"' in payload:  # perhaps the provider is a Bonito too: ours is the one that counts
        try:
            return parse_object(payload.decode()).edited({"bonito": key.decode()}).encode()
        except ValueError as error:
            raise ProviderFailed(NO_OBJECT) from error
    end = payload.rindex(b"}")
    comma = b"" if payload[:end].rstrip().endswith(b"{") else b","
    return b"".join((payload[:end], comma, b'"bonito":', key, payload[end:]))


def usage_of(body: bytes) -> Usage:
    """What a whole answer says that it used.

    Raises:
        ProviderFailed: it is no JSON object.
    """
    if len(body) > MAX_PARSED_BYTES:
        if body[:64].lstrip()[:1] != b"{" or body[-64:].rstrip()[-1:] != b"}":
            raise ProviderFailed(NO_OBJECT)
        found = USAGE_AT_END.search(body, len(body) - TAIL_BYTES)
        return reported_usage({"usage": orjson.loads(found[1])}) if found else Usage()
    try:
        parsed = _parse_leniently(body)
    except (ValueError, RecursionError) as error:
        raise ProviderFailed(NO_OBJECT) from error
    if not isinstance(parsed, dict):
        raise ProviderFailed(NO_OBJECT)
    return reported_usage(parsed)


def reported_usage(answer: Mapping[str, Any]) -> Usage:
    """The tokens of an answer or a chunk; None where they are not told or make no sense."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    return Usage(_tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens")))


class StreamRelay:
    """Reads a stream of chunks as it passes: bytes in, the same bytes out, but for what api.md promises.

    Before the first chunk comes one of ours, with the role alone and the sources, where there was a retrieval. The last
    chunk with a `finish_reason` waits for the usage behind it, and carries the `bonito` key. Usage that the caller did
    not ask for is left out.

    Attributes:
        usage: what the provider reported; None before it did.
        chunks: how many have passed.
        failure: the provider ended the stream with an error; nothing after it is read.
    """

    def __init__(self, operation: Operation, *, opening: bytes | None, closing: BonitoKey, shows_usage: bool) -> None:
        """Begin.

        Args:
            operation: chat.completions or completions.
            opening: the `bonito` value of the first chunk; None for no chunk of ours.
            closing: makes the `bonito` value of the last one.
            shows_usage: the caller asked for the chunk that holds the usage.
        """
        self.usage: Usage | None = None
        self.chunks = 0
        self.failure: BonitoError | None = None
        self._operation, self._closing, self._shows_usage = operation, closing, shows_usage
        self._opening = opening
        self._has_role_to_drop = opening is not None and operation == "chat.completions"
        self._rest = bytearray()  # of an event that has not ended
        self._held: list[bytes] = []  # the last chunk that finishes a choice, and what came behind it
        self._is_finished = self._is_done = self._has_begun = False

    def feed(self, piece: bytes) -> bytes:
        """What to send now; ProviderFailed for an event without end."""
        block = self._whole_events(piece)
        if self._is_plain(block):
            self.chunks += block.count(b"data:")
            return block
        return b"".join(out for event in _events(block) for out in self._read(event))

    def finish(self) -> bytes:
        """What is still to be sent when the provider's stream has ended; sets `failure` where it ended too early."""
        out = [*self._read(bytes(self._rest) + b"\n\n")] if self._rest.strip() else []
        self._rest.clear()
        if self.failure is None and not self._is_done:
            out += self._release(is_last=True)
            if self._is_finished:
                out.append(DONE)
            else:
                self.failure = ProviderFailed("The provider's stream ended before its answer was complete.")
        return b"".join(out)

    def _whole_events(self, piece: bytes) -> bytes:
        """The events that the piece completes; its rest waits. Nearly always the piece is exactly that."""
        if not self._rest and piece.endswith(b"\n\n"):
            return piece
        known = len(self._rest)
        self._rest += piece
        cut = max((found.end() for found in EVENT_END.finditer(self._rest, max(0, known - 3))), default=0)
        block = bytes(self._rest[:cut])
        del self._rest[:cut]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ProviderFailed(f"The provider sent an event above {MAX_EVENT_BYTES} bytes.")
        return block

    def _is_plain(self, block: bytes) -> bool:
        """Whether nothing in these events concerns us, which is so for nearly all of them."""
        is_waiting = bool(self._held) or self._opening is not None or self._has_role_to_drop or not self._has_begun
        return not is_waiting and self.failure is None and NEEDS_READING.search(block) is None

    def _read(self, event: bytes) -> Iterator[bytes]:
        """Look at one event, and yield what becomes of it."""
        if self.failure is not None:
            return
        if not self._has_begun:
            self._has_begun = True
            event = event.removeprefix(BYTE_ORDER_MARK)
        payload = _payload(event)
        if payload is None:
            yield event
        elif payload == b"[DONE]":
            self._is_done = True
            yield from self._release(is_last=True)
            yield event
        else:
            chunk = _chunk(payload)
            if chunk is None:
                self._held.append(event) if self._held else (yield event)
            else:
                yield from self._read_chunk(event, payload, chunk)

    def _read_chunk(self, event: bytes, payload: bytes, chunk: dict[str, Any]) -> Iterator[bytes]:
        if chunk.get("error"):
            self.failure = _error_of(chunk["error"])
            return
        choices = [choice for choice in chunk.get("choices") or () if isinstance(choice, dict)]
        usage = reported_usage(chunk)
        if usage != Usage():
            self.usage = usage
        if self._opening is not None:
            yield encode(self._opening_chunk(chunk, self._opening))
            self._opening = None
        if not choices:
            if chunk.get("usage") is None or self._shows_usage:
                self._held.append(event) if self._held else (yield event)
            return
        self.chunks += 1
        yield from self._release(is_last=False)
        if self._has_role_to_drop and _drop_role(choices):
            self._has_role_to_drop = False
            payload = orjson.dumps(chunk)
            event = encode(payload)
        if any(choice.get("finish_reason") for choice in choices):
            self._is_finished = True
            self._held.append(event)
        else:
            yield event

    def _release(self, *, is_last: bool) -> Iterator[bytes]:
        """What was held, with the `bonito` key where it was indeed the last."""
        held, self._held = self._held, []
        if held and is_last:
            payload = _payload(held[0]) or b"{}"
            held[0] = encode(with_bonito(payload, self._closing(self.usage)).replace(b"\n", b" "))
        yield from held

    def _opening_chunk(self, first: Mapping[str, Any], key: bytes) -> bytes:
        """A chunk of ours that looks like the provider's own: it has its id, and only tells the role."""
        is_chat = self._operation == "chat.completions"
        start = {"delta": {"role": "assistant"}} if is_chat else {"text": ""}
        chunk = {
            "id": first.get("id") or "bonito",
            "object": "chat.completion.chunk" if is_chat else "text_completion",
            "created": first.get("created") or 0,
            "model": first.get("model") or "",
            "choices": [{"index": 0, **start, "logprobs": None, "finish_reason": None}],
        }
        return with_bonito(orjson.dumps(chunk), key)


def _events(block: bytes) -> Iterator[bytes]:
    start = 0
    for found in EVENT_END.finditer(block):
        yield block[start : found.end()]
        start = found.end()
    if start < len(block):
        yield block[start:]


def _payload(event: bytes) -> bytes | None:
    """The data of an event; None for comments and events without any."""
    lines = [line[5:].removeprefix(b" ") for line in LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def _chunk(payload: bytes) -> dict[str, Any] | None:
    """The chunk; None for what is no JSON object, which passes unread."""
    try:
        chunk = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return chunk if isinstance(chunk, dict) else None


def _drop_role(choices: list[dict[str, Any]]) -> bool:
    """Take the role out of the first choice's delta: ours has told it, and SDKs put strings of one name together."""
    for choice in choices:
        delta = choice.get("delta")
        if choice.get("index", 0) == 0 and isinstance(delta, dict) and delta.pop("role", None) is not None:
            return True
    return False


def _error_of(error: object) -> BonitoError:
    """A provider's error inside of a stream, typed; its own words stay away, since they may hold anything."""
    code = error.get("code") if isinstance(error, dict) else None
    kind = error.get("type") if isinstance(error, dict) else None
    if code in (429, "429", "rate_limit_exceeded") or kind == "rate_limit_error":
        return RateLimited("The provider limits the rate of requests.")
    return ProviderFailed("The provider ended its answer with an error.")


def _parse_leniently(body: bytes) -> object:
    """What is paid for is passed on, also with the NaN that servers in Python write; ValueError, RecursionError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body)


def _tokens(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS else None
