from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.providers.local.context import Block
from bonito.providers.local.quoting import MAX_QUOTE_CHARS, best_quotes

LEAVE = Block(
    1,
    "# Leave\n\nFull-time employees receive 25 vacation days per calendar year. After five years of service, full-time"
    " employees receive 28 vacation days per calendar year.\n\nUp to five unused vacation days may be carried over into"
    " the next year; they expire on 31 March.",
    "handbook.pdf, p.3",
)
TRAVEL = Block(
    2,
    "# Daily allowance\n\nThe daily allowance covers meals and small expenses.\n\n"
    "| Country | Full day |\n| --- | --- |\n| Japan | 58 euros |\n| Norway | 75 euros |",
    "travel.docx",
)
BENEFITS = Block(3, "benefits[0].name: Bicycle leasing\nbenefits[0].note: Up to 4,000 euros over 36 months.", "b.json")
GERMAN = Block(4, "Jeder Beschäftigte hat Anspruch auf 30 Urlaubstage. Fahrräder können geleast werden.", "de.md")
CHINESE = Block(5, "员工每年享有二十五天年假。办公室位于上海。", "zh.md")
OFFICES = Block(6, "| City | Desks |\n| --- | --- |\n| Montréal | 60 |\n| Osaka | 45 |", "offices.csv")
BLOCKS = [LEAVE, TRAVEL, BENEFITS, GERMAN, CHINESE, OFFICES]


@pytest.mark.parametrize(
    ("question", "words", "number"),
    [
        ("How many vacation days do I get after five years of service?", "28 vacation days", 1),
        ("How much is the daily allowance for Norway?", "Norway; Full day: 75 euros", 2),
        ("Can I lease a bicycle?", "4,000 euros", 3),
        ("Until when can I carry over vacation?", "31 March", 1),
        ("Wie viele Urlaubstage habe ich?", "30 Urlaubstage", 4),
        ("Kann ich ein Fahrrad leasen?", "Fahrräder", 4),
        ("年假有多少天？", "二十五天年假", 5),
        ("how many desks in MONTREAL", "Montréal; Desks: 60", 6),
    ],
)
def test_the_sentence_that_answers_is_quoted_with_its_source(question: str, words: str, number: int) -> None:
    quotes = best_quotes(question, BLOCKS)

    assert any(words in quote.text and quote.block.number == number for quote in quotes)
    assert len(quotes) <= 3


@pytest.mark.parametrize(
    "question",
    ["What is the capital of France?", "Who won the world cup in 1998?", "Wer ist das?", "Is it so?", "", "?!", "🍕"],
)
def test_a_question_that_shares_nothing_with_the_sources_is_not_answered(question: str) -> None:
    assert best_quotes(question, BLOCKS) == []


def test_no_sources_no_quotes() -> None:
    assert best_quotes("vacation", []) == []
    assert best_quotes("vacation", [Block(1, "---\n\n***", "x")]) == []


def test_a_sentence_that_two_overlapping_sources_hold_is_quoted_once_from_the_first() -> None:
    twice = [Block(1, "The quay is closed.", "a"), Block(2, "The quay is closed. Boats leave.", "b")]

    assert [(quote.text, quote.block.number) for quote in best_quotes("Is the quay closed?", twice)] == [
        ("The quay is closed.", 1)
    ]


def test_of_equal_sentences_the_one_of_the_better_source_comes_first() -> None:
    quotes = best_quotes("quay opening", [Block(1, "The quay is old.", "a"), Block(2, "A quay is new.", "b")])

    assert [quote.block.number for quote in quotes] == [1, 2]


def test_a_very_long_sentence_is_cut() -> None:
    [quote] = best_quotes("quay", [Block(1, "The quay " + "and so on " * 200, "a")])

    assert len(quote.text) == MAX_QUOTE_CHARS
    assert quote.text.endswith("…")


@given(st.text(max_size=80), st.lists(st.text(max_size=200), max_size=4))
def test_quotes_are_words_of_their_source(question: str, contents: list[str]) -> None:
    blocks = [Block(number, text, "s") for number, text in enumerate(contents, start=1)]

    for quote in best_quotes(question, blocks):
        assert {char for char in quote.text if char.isalnum()} <= set(quote.block.text)
        assert quote.score > 0


@pytest.mark.timeout(200)
def test_a_question_and_sources_of_any_length_are_compared_in_little_time() -> None:
    words = " ".join(f"prefix{number}" for number in range(20_000))

    assert len(best_quotes(words, [Block(1, words.replace(" ", ". Prefix"), "a")])) <= 3
