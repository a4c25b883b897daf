"""Name resolution that returns only addresses that were checked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address

from aiohttp.abc import AbstractResolver, ResolveResult

from bonito.egress.policy import EgressPolicy

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""A host name to its IP addresses as text; OSError when it has none."""


async def system_lookup(host: str) -> Sequence[str]:
    """Ask the operating system, in a thread; OSError (socket.gaierror) when the name is not known."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A zone is kept, so that the check sees it; IPv6 answers have one in the fourth field.
    texts = (f"{info[4][0]}%{info[4][3]}" if len(info[4]) > 3 and info[4][3] else str(info[4][0]) for info in found)
    return list(dict.fromkeys(texts))


class GuardedResolver(AbstractResolver):
    """Resolves a host once and hands the connector exactly the addresses that the policy checked."""

    def __init__(self, policy: EgressPolicy, lookup: Lookup) -> None:
        self._policy, self._lookup = policy, lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        checked = self._policy.check(host, await self._lookup(host))
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in checked
        ]

    async def close(self) -> None:
        """Nothing is held."""
