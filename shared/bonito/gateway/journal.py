"""What is known of a request while it runs; in the end, its row of gateway_requests."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote
from uuid import UUID

from bonito.gateway import estimation
from bonito.gateway.citations import Attempt, RouteTaken
from bonito.gateway.requests import GatewayRequest
from bonito.gateway.retrieval import Retrieval
from bonito.metering.usage import Operation, UsageRecord
from bonito.providers.base import Usage
from bonito.providers.deployments import Deployment
from bonito.tenancy.keys import Principal

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a caller that hung up


@dataclass
class Journal:
    """One request's facts, filled in by the stages as they go.

    Attributes:
        arrived: of `time.perf_counter`.
        timings_ms: by stage, in the order in which they ended.
        streamed_chunks: how many pieces of an answer the provider has sent.
        answer: a whole answer, as the provider sent it.
    """

    operation: Operation
    request_id: str
    row_id: UUID
    arrived_at: datetime
    arrived: float
    principal: Principal | None = None
    request: GatewayRequest | None = None
    retrieval: Retrieval | None = None
    deployment: Deployment | None = None
    attempts: list[Attempt] = field(default_factory=list)
    usage: Usage | None = None
    streamed_chunks: int = 0
    answer: bytes = b""
    first_token_ms: int | None = None
    status: int = 200
    error_code: str | None = None
    is_recorded: bool = False
    timings_ms: dict[str, float] = field(default_factory=dict)
    _stage_began: float = 0.0

    def begin(self) -> None:
        """A stage begins."""
        self._stage_began = time.perf_counter()

    def ended(self, stage: str) -> None:
        """The stage has ended."""
        self.timings_ms[stage] = (time.perf_counter() - self._stage_began) * 1000

    def elapsed_ms(self) -> int:
        """Since the request arrived."""
        return round((time.perf_counter() - self.arrived) * 1000)

    def attempted(self, outcome: str) -> None:
        """A provider was called, and that is how it ended."""
        assert self.deployment is not None  # noqa: S101 - the stage before the call found it
        latency_ms = round((time.perf_counter() - self._stage_began) * 1000)
        self.attempts.append(Attempt(self.deployment.name, outcome, latency_ms))

    def failed(self, status: int, code: str) -> None:
        """The request ends with an error."""
        self.status, self.error_code = status, code

    @property
    def route(self) -> RouteTaken:
        """The way that the request took."""
        assert self.deployment is not None  # noqa: S101 - the stage before the call found it
        return RouteTaken(self.deployment.account.name, self.deployment.model, tuple(self.attempts))

    def inference_cost_nano_usd(self, usage: Usage | None) -> int | None:
        """What the provider's answer costs: nothing on this machine; elsewhere embeddings alone have known prices."""
        if self.deployment is None:
            return None
        if self.operation == "embeddings":
            return self.deployment.cost_nano_usd(usage.input_tokens if usage else None)
        return 0 if self.deployment.is_free else None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the answer's head tells of the way so far."""
        timing = ", ".join(f"{stage};dur={ms:.2f}" for stage, ms in self.timings_ms.items())
        headers = [(b"server-timing", timing.encode())] if timing else []
        if self.deployment is not None:
            model, provider = quote(self.deployment.model, safe="/:@"), self.deployment.account.name
            headers.append((b"x-bonito-route", f"model={model}; provider={provider}".encode()))
        return headers

    def record(self) -> UsageRecord | None:
        """The row; None for a caller that was not recognised."""
        if self.principal is None:
            return None
        request, retrieval = self.request, self.retrieval
        usage, is_estimated = self._usage()
        return UsageRecord(
            org_id=self.principal.org_id,
            id=self.row_id,
            created_at=self.arrived_at,
            request_id=self.request_id,
            key_id=self.principal.key_id,
            operation=self.operation,
            model_requested=request.model if request else "",
            is_stream=bool(request and request.is_stream),
            status=self.status,
            latency_ms=self.elapsed_ms(),
            model_used=self.deployment.name if self.deployment else None,
            provider=self.deployment.account.name if self.deployment else None,
            error_code=self.error_code,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            is_estimated=is_estimated,
            inference_cost_nano_usd=self.inference_cost_nano_usd(usage) if self.attempts else None,
            retrieval_cost_nano_usd=retrieval.cost_nano_usd if retrieval else None,
            first_token_ms=self.first_token_ms,
            retrieval_latency_ms=retrieval.latency_ms if retrieval else None,
            retrieval_status=retrieval.status if retrieval else None,
            knowledge_base_ids=retrieval.knowledge_base_ids if retrieval else (),
        )

    def _usage(self) -> tuple[Usage, bool]:
        """The tokens, and whether they are estimated: where a provider took the call and did not report them."""
        if self.usage is not None and self.usage != Usage():
            return self.usage, False
        was_taken = bool(self.attempts) and self.attempts[-1].outcome in ("ok", "cancelled")
        if self.request is None or not was_taken:
            return Usage(), False
        read = estimation.input_tokens(self.request, self.retrieval)
        if self.operation == "embeddings":
            return Usage(read), True
        # A streamed chunk holds about one token.
        return Usage(read, self.streamed_chunks or estimation.output_tokens(self.answer)), True
