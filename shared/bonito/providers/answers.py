"""Answers that are made in this process, in the shape of a provider's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Literal

ContentType = Literal["application/json", "text/event-stream"]


class GeneratedResponse:
    """ProviderResponse over a generator; closing it early closes the generator, and so whatever that one holds."""

    def __init__(
        self,
        content_type: ContentType,
        pieces: AsyncGenerator[bytes, None],
        *,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """Wrap a generator; `on_close` lets go of what it would hold even if it never began."""
        self.status = 200
        self.content_type: str = content_type
        self._pieces, self._on_close = pieces, on_close

    def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece."""
        return self._pieces

    async def aclose(self) -> None:
        """End the generator where it stands."""
        if self._on_close is not None:
            self._on_close()
        await self._pieces.aclose()


async def whole(body: bytes) -> AsyncGenerator[bytes, None]:
    """A body that is there already."""
    yield body
