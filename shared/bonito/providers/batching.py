"""Divides texts into the calls that an embedding model takes, by their number and by their tokens together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bonito.providers.base import EmbeddingModel

BYTES_PER_TOKEN = 4  # of English


def estimated_tokens(texts: Sequence[str]) -> int:
    """About how many tokens a model will read, for where nobody has counted."""
    return sum(len(text.encode(errors="replace")) // BYTES_PER_TOKEN + 1 for text in texts)


def calls(model: EmbeddingModel, texts: Sequence[str], tokens: Sequence[int] | None = None) -> Iterator[slice]:
    """Runs of neighbours that go in one call each; a text above the model's bound goes alone.

    Args:
        model: whose `max_batch` and `max_batch_tokens` hold.
        texts: in order.
        tokens: of each text, rather too many than too few; None takes its bytes, of which a token has at least one.
    """
    sizes = [len(text.encode(errors="replace")) for text in texts] if tokens is None else tokens
    start = size = 0
    for index, of_text in enumerate(sizes):
        if index - start == model.max_batch or (index > start and size + of_text > model.max_batch_tokens):
            yield slice(start, index)
            start, size = index, 0
        size += of_text
    if start < len(sizes):
        yield slice(start, len(sizes))
