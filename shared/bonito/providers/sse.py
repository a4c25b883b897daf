"""Server-sent events, as they are written."""

from __future__ import annotations

DONE = b"data: [DONE]\n\n"


def encode(data: bytes) -> bytes:
    """One event of JSON, which holds no line ends."""
    return b"data: " + data + b"\n\n"
