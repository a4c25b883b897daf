from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.providers.local.sentences import Unit, split_sentences, split_units


def texts(text: str) -> list[str]:
    return [unit.text for unit in split_units(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It costs 3.50 euros. Or 1,000.", ["It costs 3.50 euros.", "Or 1,000."]),
        ("Dr. Smith and Mr. J. R. Jones met. They left.", ["Dr. Smith and Mr. J. R. Jones met.", "They left."]),
        ("Snacks, e.g. Nuts, are free. See p. 5 and Fig. 3.", ["Snacks, e.g. Nuts, are free.", "See p. 5 and Fig. 3."]),
        ("Bring cups, plates etc. They are free.", ["Bring cups, plates etc.", "They are free."]),
        ("Meet behind building C. The quay is next.", ["Meet behind building C.", "The quay is next."]),
        ("Open from 9 a.m. to 5 p.m. daily.", ["Open from 9 a.m. to 5 p.m. daily."]),
        ("Siehe Abs. 3 und z.B. Nr. 7. Danach gilt Satz 2.", ["Siehe Abs. 3 und z.B. Nr. 7.", "Danach gilt Satz 2."]),
        (
            "He said “Stop.” Then he left. (It was late.) Yes.",
            ["He said “Stop.”", "Then he left.", "(It was late.)", "Yes."],
        ),
        ("Wait... Really?", ["Wait...", "Really?"]),
        ("第一条。第二条！终", ["第一条。", "第二条！", "终"]),
        ("", []),
        ("   ", []),
    ],
)
def test_running_text_is_cut_at_the_ends_of_sentences(text: str, sentences: list[str]) -> None:
    assert list(split_sentences(text)) == sentences


def test_wrapped_lines_are_one_paragraph() -> None:
    text = (
        "Full-time employees receive 25 vacation days per calendar year. After five\n"
        "years they receive 28 vacation\ndays."
    )

    assert texts(text) == [
        "Full-time employees receive 25 vacation days per calendar year.",
        "After five years they receive 28 vacation days.",
    ]


def test_a_row_of_a_table_is_told_with_its_headers_names() -> None:
    table = "| Country | Full day |  |\n| --- | :-: | --- |\n| Norway | 75 euros | x\\|y |\n| Japan |  |  |"

    assert texts(table) == ["Country: Norway; Full day: 75 euros; x|y", "Country: Japan"]


def test_rows_without_a_header_are_told_as_they_are() -> None:
    assert texts("| Norway | 75 euros |\n| Japan | 58 euros |") == ["Norway; 75 euros", "Japan; 58 euros"]


def test_list_items_stand_alone_under_what_introduces_them() -> None:
    text = "# Leave\n\nThese are free:\n- coffee and tea\n- fruit,\n  on Mondays\n2. water. Cold, too."

    assert split_units(text) == [
        Unit("These are free:", "Leave"),
        Unit("coffee and tea", "Leave These are free:"),
        Unit("fruit, on Mondays", "Leave These are free:"),
        Unit("water.", "Leave These are free:"),
        Unit("Cold, too.", "Leave These are free:"),
    ]


@pytest.mark.parametrize(
    "heading", ["## Daily allowance ##\n", "Daily allowance\n===\n", "Daily allowance\n", "Daily allowance\n\n"]
)
def test_headings_are_no_units_but_the_context_of_what_follows(heading: str) -> None:
    sentence = "The daily allowance covers meals and small expenses on every day of a trip."

    assert split_units(heading + sentence) == [Unit(sentence, "Daily allowance")]


def test_lines_of_one_object_are_one_unit() -> None:
    text = (
        "company: Aldermoor\nbenefits[0].name: Pension\nbenefits[0].pays: 9 %\nbenefits[1].name: Bicycle\n"
        "benefits[1].note: 36 months\nhealth.dental.percent: 80"
    )

    assert split_units(text) == [
        Unit("company: Aldermoor", ""),
        Unit("name: Pension; pays: 9 %", "benefits[0]"),
        Unit("name: Bicycle; note: 36 months", "benefits[1]"),
        Unit("percent: 80", "health.dental"),
    ]


def test_a_large_object_is_several_units() -> None:
    lines = [f"item.key{number}: {'x' * 50}" for number in range(40)]

    units = split_units("\n".join(lines))

    assert len(units) > 3
    assert all(len(unit.text) < 600 for unit in units)
    assert sum(unit.text.count("key") for unit in units) == 40


def test_short_lines_in_a_row_are_units_of_their_own() -> None:
    assert texts("Leeds 0113 496 0001\nPorto 022 496 0002\nOsaka 06 4960 0003") == [
        "Leeds 0113 496 0001",
        "Porto 022 496 0002",
        "Osaka 06 4960 0003",
    ]


def test_lines_of_code_are_no_prose() -> None:
    assert texts("```sh\n# no heading\nrun --fast\n```\nDone with it.") == [
        "# no heading",
        "run --fast",
        "Done with it.",
    ]


@given(st.text(alphabet=st.sampled_from("aB1 .!?\n|-#:[]*`。\t"), max_size=200))
def test_any_text_is_cut_without_inventing_words(text: str) -> None:
    letters = {char for char in text if char.isalnum()}

    for unit in split_units(text):
        assert "\n" not in unit.text
        assert {char for char in unit.text if char.isalnum()} <= letters


HOSTILE = [".", "a", "a.", "| ", " ", "# ", "a.b: c\n", "a b\n", "- x\n", "?!", "a[1]", "-", "|-", "`", "a b. C"]


@pytest.mark.parametrize(
    "text",
    [unit * (200_000 // len(unit)) for unit in HOSTILE],
    ids=map(repr, HOSTILE),
)
@pytest.mark.timeout(200)
def test_hostile_texts_are_cut_in_linear_time(text: str) -> None:
    split_units(text)
