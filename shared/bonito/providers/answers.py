"""Answers that are made in this process, in the shape of a provider's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Literal

ContentType = Literal["application/json", "text/event-stream"]


class GeneratedResponse:
    """ProviderResponse over a generator; closing it early closes the generator, and so whatever that one holds."""

    def __init__(self, content_type: ContentType, pieces: AsyncGenerator[bytes, None]) -> None:
        self.status = 200
        self.content_type: str = content_type
        self._pieces = pieces

    def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece."""
        return self._pieces

    async def aclose(self) -> None:
        """End the generator where it stands."""
        await self._pieces.aclose()


async def whole(body: bytes) -> AsyncGenerator[bytes, None]:
    """A body that is there already."""
    yield body
