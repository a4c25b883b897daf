"""Static keys of a customer's account: read by reference, and read anew where the account does not take them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from bonito.errors import AccessDenied

Session = TypeVar("Session")


class ReadSecret(Protocol):
    """Reads one secret of one organization."""

    async def __call__(self, *, fresh: bool = False) -> str:
        """Its value, which may be some minutes old unless `fresh`; AccessDenied, UpstreamError."""
        ...


async def used(read: ReadSecret, use: Callable[[str], Awaitable[Session]]) -> Session:
    """What `use` makes of the secret; once more with its present value, where that was changed and the old one refused.

    Raises:
        AccessDenied: the account does not take the present value, or there is none.
        UpstreamError: the secret store or the account does not answer.
    """
    value = await read()
    try:
        return await use(value)
    except AccessDenied:
        fresh = await read(fresh=True)
        if fresh == value:
            raise
        return await use(fresh)
