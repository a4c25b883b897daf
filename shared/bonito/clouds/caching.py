"""Secrets that are read once for a while, whichever cloud keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from bonito.clouds.base import SecretStore

KEEP = timedelta(minutes=5)


class CachedSecrets:
    """SecretStore that remembers what another one answered.

    Whoever is refused with a secret (401) forgets it and reads it again: it may have been rotated.
    """

    def __init__(
        self, secrets: SecretStore, *, keep: timedelta = KEEP, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the store to ask, how long its answers hold, and a clock in seconds."""
        self._secrets, self._keep_s, self._clock = secrets, keep.total_seconds(), clock
        self._known: dict[str, tuple[float, str]] = {}

    async def read(self, reference: str) -> str:
        """The secret's value, no older than is kept; raises as the store does, and errors are not remembered."""
        known = self._known.get(reference)
        if known is not None and self._clock() - known[0] < self._keep_s:
            return known[1]
        value = await self._secrets.read(reference)
        self._known[reference] = (self._clock(), value)
        return value

    def forget(self, reference: str) -> None:
        """Have the next reader ask the store."""
        self._known.pop(reference, None)
