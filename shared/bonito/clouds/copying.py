"""The one way in which a document's bytes come to this machine: streamed to a file, never more than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from pathlib import Path

from bonito.errors import DocumentTooLarge

MIB = 2**20


async def copy_capped(chunks: AsyncIterable[bytes], into: Path, *, max_bytes: int) -> int:
    """Write a stream to a file.

    Args:
        chunks: the bytes, in pieces of any size.
        into: the file; made or overwritten. On an error it holds what came before.
        max_bytes: as many are allowed.

    Returns:
        How many bytes were written.

    Raises:
        DocumentTooLarge: more than `max_bytes` came; no more than that were written.
    """
    written = 0
    # Opened and closed here and not in a thread, where a cancellation would lose it.
    with into.open("wb") as file:
        async for chunk in chunks:
            if written + len(chunk) > max_bytes:
                raise too_large(max_bytes)
            await asyncio.to_thread(file.write, chunk)
            written += len(chunk)
    return written


def too_large(max_bytes: int, size: int | None = None) -> DocumentTooLarge:
    """The error for an object that has more bytes than are read, `size` where that is known."""
    has = f"{size / MIB:,.1f}" if size is not None else f"more than {max_bytes / MIB:,.1f}"
    return DocumentTooLarge(f"The file has {has} MiB; at most {max_bytes / MIB:,.1f} MiB are read.")
