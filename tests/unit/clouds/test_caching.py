"""Secrets are asked for once in a while, and again when somebody was refused with them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bonito.clouds.caching import CachedSecrets
from bonito.errors import AccessDenied


class Rotating:
    """Answers with another value each time."""

    def __init__(self) -> None:
        self.asked = 0

    async def read(self, reference: str) -> str:
        self.asked += 1
        if reference == "forbidden":
            raise AccessDenied("The secret may not be read.")
        return f"{reference}-{self.asked}"


async def test_a_secret_is_read_once_for_as_long_as_it_is_kept() -> None:
    now, rotating = [1000.0], Rotating()
    secrets = CachedSecrets(rotating, keep=timedelta(seconds=60), clock=lambda: now[0])

    assert await secrets.read("a") == await secrets.read("a") == "a-1"
    now[0] += 59.9
    assert await secrets.read("a") == "a-1"
    now[0] += 0.2
    assert await secrets.read("a") == "a-2"


async def test_a_forgotten_secret_is_read_again() -> None:
    secrets = CachedSecrets(Rotating())
    await secrets.read("a")

    secrets.forget("a")
    secrets.forget("never read")

    assert await secrets.read("a") == "a-2"


async def test_a_refusal_is_not_remembered() -> None:
    rotating = Rotating()
    secrets = CachedSecrets(rotating)

    for _ in range(2):
        with pytest.raises(AccessDenied):
            await secrets.read("forbidden")
    assert rotating.asked == 2
