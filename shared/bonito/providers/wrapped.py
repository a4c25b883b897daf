"""An embedding model around another one, for what is to happen before and after its calls."""

from __future__ import annotations

from collections.abc import Sequence

from bonito.providers.base import EmbeddingModel, EmbeddingResult, Purpose


class WrappedEmbeddingModel:
    """EmbeddingModel that is in everything what another one is; whoever derives from it adds to `embed`."""

    def __init__(self, model: EmbeddingModel) -> None:
        self.name, self.dimensions, self.fingerprint = model.name, model.dimensions, model.fingerprint
        self.max_input_tokens, self.max_batch = model.max_input_tokens, model.max_batch
        self.max_batch_tokens, self.max_parallel = model.max_batch_tokens, model.max_parallel
        self.price_nano_usd = model.price_nano_usd
        self._model = model

    async def embed(self, texts: Sequence[str], *, purpose: Purpose = "document") -> EmbeddingResult:
        """As the other one, whose first answer may tell its dimensions."""
        result = await self._model.embed(texts, purpose=purpose)
        self.dimensions = self._model.dimensions
        return result
