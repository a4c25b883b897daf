"""Text and vectors like those of real documents, from a seed.

Calibrated on 10,000 chunks of technical documentation: some 80 different lexemes in a chunk of 280 words, of which
half occur once; and on their all-MiniLM-L6-v2 vectors: mean cosine 0.15, 60 % of the variance in 50 dimensions, best
cosine of a question on the topic 0.7 and of one beside it 0.3, local dimension 16 and 70.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSIONS = 384
VOCABULARY = 40_000
SUBJECTS = 40  # per topic
STOP_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "a",
    "in",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "or",
]
SYLLABLES = [
    f"{first}{rest}" for first in [*"bcdfgklmnprstvz", "ch", "st", "tr", "pl"] for rest in [*"aeiou", "ai", "or"]
]


class Corpus:
    """Topics, each with its own words and its own place among the vectors; chunks and questions about them."""

    def __init__(self, topics: int, *, seed: int = 7) -> None:
        """Draw the words and the directions that everything is made of."""
        self.topics = topics
        self._random = np.random.default_rng(seed)
        self.words = self._words()
        self._word_cdf = np.cumsum(_zipf(VOCABULARY, 4))
        self._topic_words = self._random.integers(300, VOCABULARY, (topics, 800))
        self._topic_cdf = np.cumsum(_zipf(800, 5))
        self._spectrum = (np.arange(DIMENSIONS) + 4.0) ** -0.5
        self._rotation = np.linalg.qr(self._random.normal(size=(DIMENSIONS, DIMENSIONS)))[0]
        self._common = self._directions(1, 0.35)
        self._topics = self._directions(topics, 0.55)
        self._subjects = self._directions(topics * SUBJECTS, 0.5).reshape(topics, SUBJECTS, DIMENSIONS)

    def text(self, topic: int) -> str:
        """A chunk of some 280 words: a third stop words, the rest from the few that this chunk is about."""
        count = int(np.clip(self._random.normal(280, 50), 40, 400))
        about = self._word_ids(topic, 150)
        chosen = about[np.searchsorted(np.cumsum(_zipf(len(about), 6)), self._random.random(count))]
        words = self.words[chosen].astype(object)
        is_stop = self._random.random(count) < 0.35
        words[is_stop] = self._random.choice(STOP_WORDS, int(is_stop.sum()))
        return " ".join(words)

    def vectors(self, topics: NDArray[np.int64]) -> NDArray[np.float32]:
        """A chunk's vector per given topic."""
        return self._vectors(topics, 0.55)

    def questions_on(self, topics: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of questions that chunks of these topics answer."""
        return self._vectors(topics, 0.45)

    def questions_off(self, count: int) -> NDArray[np.float32]:
        """Vectors of questions about something that no topic holds."""
        return _unit(0.3 * self._common + self._directions(count, 1.0)).astype(np.float32)

    def _vectors(self, topics: NDArray[np.int64], noise: float) -> NDArray[np.float32]:
        subjects = self._subjects[topics, self._random.integers(0, SUBJECTS, len(topics))]
        own = self._directions(len(topics), noise)
        return _unit(self._common + self._topics[topics] + subjects + own).astype(np.float32)

    def _word_ids(self, topic: int, count: int) -> NDArray[np.int64]:
        general = np.searchsorted(self._word_cdf, self._random.random(count))
        own = self._topic_words[topic][np.searchsorted(self._topic_cdf, self._random.random(count))]
        return np.where(self._random.random(count) < 0.25, own, general)

    def _directions(self, count: int, length: float) -> NDArray[np.float64]:
        drawn = (self._random.normal(size=(count, DIMENSIONS)) * self._spectrum) @ self._rotation.T
        return length * drawn / np.sqrt((self._spectrum**2).sum())

    def _words(self) -> NDArray[np.str_]:
        drawn = self._random.integers(0, len(SYLLABLES), (2 * VOCABULARY, 4))
        lengths = self._random.integers(2, 5, len(drawn))
        words = ("".join(SYLLABLES[i] for i in row[:length]) for row, length in zip(drawn, lengths, strict=True))
        return np.array(list(dict.fromkeys(words))[:VOCABULARY])


def _zipf(count: int, shift: int) -> NDArray[np.float64]:
    weights = 1 / (np.arange(count) + float(shift))
    return weights / weights.sum()


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
