from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.providers.local.words import count_tokens, terms, token_pieces


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Days", "day"),
        ("policies", "POLICY"),
        ("leased", "leasing"),
        ("lease", "leases"),
        ("services", "service"),
        ("employees", "employee"),
        ("Montréal", "montreal"),
        ("STRASSE", "Straße"),
        ("ﬁre", "fire"),
        ("Ｅ２Ｅ", "e2e"),
    ],
)
def test_forms_of_one_word_are_one_term(one: str, other: str) -> None:
    assert terms(one) == terms(other)


@pytest.mark.parametrize(
    ("one", "other"), [("need", "ne"), ("bus", "bu"), ("class", "clas"), ("1st", "1"), ("이름", "이")]
)
def test_different_words_stay_different(one: str, other: str) -> None:
    assert terms(one) != terms(other)


def test_scripts_without_spaces_are_pairs_of_characters() -> None:
    assert terms("年假二十") == ["年假", "假二", "二十"]
    assert terms("年 a b") == ["年"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("  \n", 0), ("a", 1), ("a b.", 3), ("employees", 2), ("ü" * 4, 2), ("x" * 80, 10), ("😀", 1)],
)
def test_tokens_are_counted_by_words_marks_and_length(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


@given(st.text(max_size=300))
def test_pieces_are_the_whole_text_but_for_space_at_its_end(text: str) -> None:
    pieces = token_pieces(text)

    assert "".join(piece for piece, _ in pieces) == text.rstrip()
    assert all(tokens >= 1 for _, tokens in pieces)
