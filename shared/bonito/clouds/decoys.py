"""The test that a customer's account lets in this organization alone (docs/decisions/0007-access-without-keys.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import uuid4

from bonito.errors import AccessDenied


async def refuse_if_open(enter: Callable[[str], Awaitable[object]], *, mistake: str) -> None:
    """Try to enter as a stranger, and refuse an account that lets him in: anybody here could have named it.

    Args:
        enter: enters under a subject or an external id; AccessDenied where the account refuses.
        mistake: what is wrong with an account that does not, and how to mend it; a sentence.

    Raises:
        AccessDenied: the account is open.
        UpstreamError: it did not answer, so it is not known.
    """
    try:
        await enter(str(uuid4()))
    except AccessDenied:
        return
    raise AccessDenied(mistake)
