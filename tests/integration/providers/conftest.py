from __future__ import annotations

from tests.unit.providers.conftest import client, serve

__all__ = ["client", "serve"]
