"""One request to a vendor's JSON API and its whole answer, through the egress guard."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bonito.egress import client as egress
from bonito.errors import ProviderFailed

if TYPE_CHECKING:
    from bonito.egress.policy import Target

MAX_ANSWER_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Answer:
    """What came back; the names of the headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the vendor did what it was asked."""
        return 200 <= self.status < 300

    def json(self, provider: str) -> dict[str, Any]:
        """The body as an object; ProviderFailed names the provider where it is none."""
        try:
            parsed = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ProviderFailed(f"The provider {provider} answered with no JSON.") from error
        if not isinstance(parsed, dict):
            raise ProviderFailed(f"The provider {provider} answered with no JSON object.")
        return parsed


async def exchange(
    client: egress.EgressClient,
    method: str,
    target: Target,
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    timeout_s: float,
) -> Answer:
    """Send and read to the end, whatever the status; ProviderFailed, ProviderTimeout, AddressNotAllowed."""
    async with client.request(method, target, headers=headers, body=body, timeout_s=timeout_s) as response:
        answered = await egress.read(response, max_bytes=MAX_ANSWER_BYTES, idle_timeout_s=timeout_s)
        lowered = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, lowered, answered)


def vector_of(numbers: object, provider: str) -> array[float]:
    """A vector out of a JSON list of numbers; ProviderFailed where it is none."""
    try:
        vector = array("f", numbers if isinstance(numbers, list) else ())
    except (TypeError, OverflowError) as error:
        raise ProviderFailed(f"The provider {provider} answered with no embeddings.") from error
    if not vector:
        raise ProviderFailed(f"The provider {provider} answered with no embeddings.")
    return vector
