"""Counts tokens as embedding models do; vocabularies come with packages or with this one, never from the network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Protocol

from bonito.providers.local import model_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Vocabulary

# Both without [CLS] and [SEP], of which the model reads one each beside the text.
MINILM = "all-minilm-l6-v2"
MINILM_TEXT_TOKENS = 254
CL100K = "cl100k_base"
# platform.openai.com/docs/guides/embeddings: all embedding models read 8,191 tokens with cl100k_base.
OPENAI_MODELS = frozenset({"text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"})
OPENAI_TEXT_TOKENS = 8_191
ESTIMATE = "estimate"
ESTIMATE_TEXT_TOKENS = 8_190

# How many characters are tokenized at once: some 100 bytes for each token live that long.
COUNTED_CHARACTERS = 256 * 1024
REMEMBERED_WORDS = 50_000
REMEMBERED_CHARACTERS = 40
WHITE_SPACE = re.compile(r"[^\S ]+|  +")
PUNCTUATION_RUN = re.compile(r"[!-/:-@\[-`{-~]{2,}")


class Tokenizer(Protocol):
    """Counts as one model does.

    Attributes:
        name: stable; `tokenizer_for` takes it too.
        max_text_tokens: most tokens of a text that the model reads, those that it adds itself not counted.
    """

    name: str
    max_text_tokens: int

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, without special ones; UnicodeEncodeError for a lone surrogate."""
        ...

    def weigh(self, texts: Sequence[str]) -> list[int]:
        """About as many, rather more than fewer, in a tenth of the time: for deciding what to count."""
        ...


class VocabularyTokenizer:
    """Tokenizer over a vocabulary, exact."""

    def __init__(self, name: str, vocabulary: Vocabulary, *, max_text_tokens: int, has_white_space: bool) -> None:
        """Take a vocabulary that neither truncates nor pads; some have tokens for line ends and tabs, some none."""
        self.name, self.max_text_tokens = name, max_text_tokens
        self._vocabulary, self._has_white_space = vocabulary, has_white_space
        self._words: dict[str, int] = {}

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        counts: list[int] = []
        for batch in _batches(texts):
            encodings = self._vocabulary.encode_batch_fast(batch, add_special_tokens=False)
            counts += [len(encoding) for encoding in encodings]
        return counts

    def weigh(self, texts: Sequence[str]) -> list[int]:
        """The tokens of the words, each counted once and remembered, and of white space that is more than a space."""
        weights: list[int] = []
        for batch in _batches(texts):
            divided = [text.split() for text in batch]
            known = {word: self._words.get(word) for words in divided for word in words}
            new = [word for word, tokens in known.items() if tokens is None]
            counts = dict(zip(new, self.count([f" {word}" for word in new]), strict=True))
            self._remember(counts)
            tokens = {word: counts[word] if count is None else count for word, count in known.items()}
            weights += [sum(map(tokens.__getitem__, words)) for words in divided]
        if self._has_white_space:
            weights = [weight + len(WHITE_SPACE.findall(text)) for weight, text in zip(weights, texts, strict=True)]
        return weights

    def _remember(self, counts: Mapping[str, int]) -> None:
        if len(self._words) > REMEMBERED_WORDS:
            self._words = {}  # not cleared: another thread may be reading
        self._words.update((word, count) for word, count in counts.items() if len(word) <= REMEMBERED_CHARACTERS)


class EstimatingTokenizer:
    """Tokenizer for models whose vocabulary is not known: counts too many rather than too few.

    Half as many again as cl100k_base finds, and one for each character of punctuation that follows another, since
    many vocabularies have no tokens for runs of them. Against BERT's English vocabulary that was too many for prose
    (by half), source code, tables, JSON, base64, German, Japanese and Arabic; only in Russian, for which that
    vocabulary has single letters, BERT counted more (by a sixth).
    """

    name = ESTIMATE
    max_text_tokens = ESTIMATE_TEXT_TOKENS

    def __init__(self, exact: Tokenizer) -> None:
        """Estimate from the counts of another tokenizer, cl100k_base."""
        self._exact = exact

    def count(self, texts: Sequence[str]) -> list[int]:
        """The most tokens that each text is likely to have."""
        counts = self._exact.count(texts)
        return [(3 * count + 1) // 2 + _extra(text) for text, count in zip(texts, counts, strict=True)]

    def weigh(self, texts: Sequence[str]) -> list[int]:
        """About the same."""
        weights = self._exact.weigh(texts)
        return [(3 * weight + 1) // 2 + _extra(text) for text, weight in zip(texts, weights, strict=True)]


def tokenizer_for(model: str) -> Tokenizer:
    """The tokenizer of an embedding model, `provider/model` or `model`, or of that name itself.

    The local model's is read from its package, and only there: a model of that name elsewhere may be another one.
    OpenAI's models are known by their names, at any provider. Every other model is estimated; the limit of such a
    model is not known here either, so a generation's chunk size must be capped by EmbeddingModel.max_input_tokens.

    Raises:
        ModelNotFound: the local model's package is missing, or not the pinned one.
    """
    if model in {MINILM, f"local/{MINILM}"}:
        return _minilm()
    if model == CL100K or model.rpartition("/")[2] in OPENAI_MODELS:
        return _cl100k()
    return _estimate()


@cache
def _minilm() -> VocabularyTokenizer:
    from tokenizers import Tokenizer as Vocabulary

    vocabulary = Vocabulary.from_str(model_files.read_tokenizer())
    vocabulary.no_truncation()
    vocabulary.no_padding()
    return VocabularyTokenizer(MINILM, vocabulary, max_text_tokens=MINILM_TEXT_TOKENS, has_white_space=False)


@cache
def _cl100k() -> VocabularyTokenizer:
    import gzip

    from tokenizers import Tokenizer as Vocabulary

    packed = resources.files("bonito.knowledge").joinpath("vocabularies", f"{CL100K}.json.gz").read_bytes()
    vocabulary = Vocabulary.from_str(gzip.decompress(packed).decode())
    return VocabularyTokenizer(CL100K, vocabulary, max_text_tokens=OPENAI_TEXT_TOKENS, has_white_space=True)


@cache
def _estimate() -> EstimatingTokenizer:
    return EstimatingTokenizer(_cl100k())


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Runs of neighbours of some COUNTED_CHARACTERS together."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= COUNTED_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _extra(text: str) -> int:
    return sum(len(run) - 1 for run in PUNCTUATION_RUN.findall(text))
