"""Picks the units of the sources that answer a question best, by the words they share."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bonito.providers.local.context import Block
from bonito.providers.local.sentences import Unit, split_units
from bonito.providers.local.words import FUNCTION_WORDS, UNSPACED, terms

MAX_QUOTES = 3
MAX_QUOTE_CHARS = 600
MAX_QUESTION_TERMS = 64
MIN_SCORE = 0.25  # share of the question's weight that a quote must hold
MIN_SHARE_OF_BEST = 0.75
CONTEXT_WEIGHT = 0.5  # of a word that stands only in the heading above
PREFIX_WEIGHT = 0.7  # of a word that shares its beginning: accrue and accrual
MIN_PREFIX, MIN_PREFIX_SHARE = 5, 0.7
MIN_WEIGHT = 0.25  # of a word that every unit holds
UNKNOWN_PAIR_SHARE = 0.3  # half of the pairs of characters reach over the end of a word
FIRST_BLOCK_BONUS = 0.1  # the sources come best first
LONG_UNIT_CHARS = 300


@dataclass(frozen=True)
class Quote:
    """What is said, and the block that says it; score in 0…1 and a little above for the first sources."""

    text: str
    block: Block
    score: float


@dataclass(frozen=True)
class _Candidate:
    unit: Unit
    block: Block
    own: frozenset[str]
    context: frozenset[str]


def best_quotes(question: str, blocks: Sequence[Block]) -> list[Quote]:
    """Up to three quotes, best first; none when no unit shares enough with the question."""
    asked = list(dict.fromkeys(terms(question)))
    asked = [term for term in asked if term not in FUNCTION_WORDS][:MAX_QUESTION_TERMS]
    candidates = _candidates(blocks)
    if not asked or not candidates:
        return []
    frequency = Counter(term for candidate in candidates for term in candidate.own)
    matches = {term: _matches(term, _by_prefix(frequency)) for term in asked}
    weights = {term: _weight(term, matches[term], frequency, len(candidates)) for term in asked}
    quotes = [_scored(candidate, matches, weights) for candidate in candidates]
    quotes.sort(key=lambda quote: -quote.score)
    return _distinct([quote for quote in quotes if quote.score >= max(MIN_SCORE, MIN_SHARE_OF_BEST * quotes[0].score)])


def _candidates(blocks: Iterable[Block]) -> list[_Candidate]:
    """All units, each once: overlapping chunks repeat sentences."""
    seen: set[str] = set()
    found: list[_Candidate] = []
    for block in blocks:
        for unit in split_units(block.text):
            if unit.text not in seen:
                seen.add(unit.text)
                own = frozenset(terms(unit.text))
                found.append(_Candidate(unit, block, own, frozenset(terms(unit.context)) - own))
    return found


def _by_prefix(words: Iterable[str]) -> Mapping[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for word in words:
        found[word[:MIN_PREFIX]].append(word)
    return found


def _matches(term: str, vocabulary: Mapping[str, list[str]]) -> dict[str, float]:
    """The words of the sources that mean this term, with how surely: itself 1, a shared beginning less."""
    found = {term: 1.0}
    if len(term) >= MIN_PREFIX and term.isalpha():
        for word in vocabulary.get(term[:MIN_PREFIX], ()):
            shared = next(
                (at for at, (a, b) in enumerate(zip(term, word, strict=False)) if a != b), min(len(term), len(word))
            )
            is_whole = shared == min(len(term), len(word))
            if word != term and (is_whole or shared >= MIN_PREFIX_SHARE * max(len(term), len(word))):
                found[word] = PREFIX_WEIGHT
    return found


def _weight(term: str, matches: Mapping[str, float], frequency: Mapping[str, int], count: int) -> float:
    """BM25's inverse document frequency over the units, above a floor; a word that none holds weighs as if one did."""
    held = sum(frequency.get(word, 0) for word in matches)
    weight = MIN_WEIGHT + math.log1p((max(count - held, 0) + 0.5) / (max(held, 1) + 0.5))
    return weight if held or not UNSPACED.match(term) else UNKNOWN_PAIR_SHARE * weight


def _scored(candidate: _Candidate, matches: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]) -> Quote:
    score = 0.0
    for term, words in matches.items():
        own = max((sure for word, sure in words.items() if word in candidate.own), default=0.0)
        above = max((sure for word, sure in words.items() if word in candidate.context), default=0.0)
        score += weights[term] * max(own, CONTEXT_WEIGHT * above)
    score /= sum(weights.values())
    score *= 1 + FIRST_BLOCK_BONUS / candidate.block.number
    score /= 1 + max(0, len(candidate.unit.text) - LONG_UNIT_CHARS) / (4 * LONG_UNIT_CHARS)
    text = candidate.unit.text
    return Quote(text if len(text) <= MAX_QUOTE_CHARS else text[: MAX_QUOTE_CHARS - 1] + "…", candidate.block, score)


def _distinct(quotes: Sequence[Quote]) -> list[Quote]:
    """The best ones, without any that another one holds already."""
    kept: list[Quote] = []
    for quote in quotes:
        if len(kept) == MAX_QUOTES:
            break
        if not any(quote.text in other.text or other.text in quote.text for other in kept):
            kept.append(quote)
    return kept
