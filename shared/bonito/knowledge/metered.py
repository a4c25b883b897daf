"""What each call of an embedding model used, noted for the usage records of ingestion."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

from bonito.catalogue.embedding_models import cost_nano_usd
from bonito.errors import BonitoError, Overloaded
from bonito.metering.usage import UsageRecord
from bonito.providers.base import EmbeddingModel, EmbeddingResult, Purpose, Usage
from bonito.providers.batching import estimated_tokens
from bonito.providers.wrapped import WrappedEmbeddingModel

SUCCESS = 200


class MeteredEmbeddingModel(WrappedEmbeddingModel):
    """EmbeddingModel that leaves a record of every call in `records`, for its caller to write and remove.

    A call that failed has one too, without tokens and cost. One for which there was no room was not made. The latency
    includes the wait for the model's turn.
    """

    def __init__(self, model: EmbeddingModel, *, org_id: UUID, knowledge_base_id: UUID, revision_id: UUID) -> None:
        """Wrap the model that a revision is embedded with; the revision's id becomes that of the requests."""
        super().__init__(model)
        self.records: list[UsageRecord] = []
        self._org_id = org_id
        self._knowledge_base_id, self._revision_id = knowledge_base_id, revision_id

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        """As the model's own."""
        began_at, started = datetime.now(UTC), time.perf_counter()
        try:
            result = await super().embed(texts, purpose=purpose)
        except Overloaded:
            raise
        except BonitoError as error:
            self._note(began_at, started, status=error.status, error_code=error.code)
            raise
        is_estimated = result.usage.input_tokens is None
        usage = Usage(estimated_tokens(texts)) if is_estimated else result.usage
        self._note(began_at, started, usage=usage, is_estimated=is_estimated)
        return result

    def _note(
        self,
        began_at: datetime,
        started: float,
        *,
        status: int = SUCCESS,
        error_code: str | None = None,
        usage: Usage | None = None,
        is_estimated: bool = False,
    ) -> None:
        tokens = None if usage is None else usage.input_tokens
        self.records.append(
            UsageRecord(
                org_id=self._org_id,
                id=uuid4(),
                created_at=began_at,
                request_id=str(self._revision_id),
                key_id=None,
                operation="embeddings.ingest",
                model_requested=self.name,
                is_stream=False,
                status=status,
                latency_ms=round(1000 * (time.perf_counter() - started)),
                model_used=self.name,
                provider=self.name.partition("/")[0],
                error_code=error_code,
                input_tokens=tokens,
                is_estimated=is_estimated,
                inference_cost_nano_usd=None if usage is None else cost_nano_usd(self.price_nano_usd, tokens),
                knowledge_base_ids=(self._knowledge_base_id,),
            )
        )
