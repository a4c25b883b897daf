"""Reads server-sent events from raw bytes, as a caller of a stream does."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_EVENT_BYTES = 2**20
LINE_END = re.compile(rb"\r\n|\r|\n")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Event:
    """One dispatched event.

    Attributes:
        data: the `data` lines joined by newlines; bytes that are no UTF-8 are replaced.
        event: its type, `message` where the stream names none.
        event_id: the stream's last `id` so far, empty where there was none.
    """

    data: str
    event: str = "message"
    event_id: str = ""


class EventReader:
    """Turns the pieces of a stream into events, as the HTML standard reads them; it never holds the bytes back.

    Any split of a stream into pieces gives the same events. An event above `max_event_bytes` is left out and counted in
    `oversized`; what is kept in memory stays below twice that.
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.oversized = 0
        self._max_event_bytes = max_event_bytes
        self._line: list[bytes] = []  # the pieces of a line that has not ended
        self._data: list[bytes] = []
        self._event, self._event_id = b"", b""
        self._event_bytes = 0
        self._ended_in_cr = False
        self._is_first_line = True

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes."""
        if self._ended_in_cr and piece.startswith(b"\n"):
            piece, self._ended_in_cr = piece[1:], False
        if not piece:
            return []
        self._ended_in_cr = piece.endswith(b"\r")
        *ended, rest = LINE_END.split(piece)
        events: list[Event] = []
        for part in ended:
            self._extend_line(part)
            event = self._end_line()
            if event is not None:
                events.append(event)
        self._extend_line(rest)
        return events

    def finish(self) -> list[Event]:
        """The last event of a stream that ended without the empty line after it, as some servers do."""
        event = self._end_line()
        if event is None:
            event = self._dispatch()
        return [] if event is None else [event]

    def _extend_line(self, part: bytes) -> None:
        """Keep a part of a line, as long as its event is not too large."""
        if not part:
            return
        self._event_bytes += len(part)
        if self._event_bytes > self._max_event_bytes:
            # One byte stays: a line that is not empty must not look like the empty one that ends an event.
            self._line, self._data = [b":"], []
        else:
            self._line.append(part)

    def _end_line(self) -> Event | None:
        line = self._line[0] if len(self._line) == 1 else b"".join(self._line)
        self._line = []
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        if self._event_bytes > self._max_event_bytes:
            return None
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
            self._event_id = value
        return None

    def _dispatch(self) -> Event | None:
        data, event, is_oversized = self._data, self._event, self._event_bytes > self._max_event_bytes
        self._data, self._event, self._event_bytes = [], b"", 0
        self.oversized += is_oversized
        if is_oversized or not data:
            return None
        return Event(
            b"\n".join(data).decode(errors="replace"),
            event.decode(errors="replace") or "message",
            self._event_id.decode(errors="replace"),
        )
