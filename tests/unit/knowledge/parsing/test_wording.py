from __future__ import annotations

import pytest

from bonito.knowledge.parsing.wording import counted, listed


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        pytest.param([], "", id="none"),
        pytest.param([3, 7], "3, 7", id="apart"),
        pytest.param([1, 2, 3, 9], "1–3, 9", id="run"),
        pytest.param(range(1, 61, 2), "1, 3, 5, 7, 9, 11, 13, 15, 17, 19, …", id="too-many"),
    ],
)
def test_numbers_are_listed_for_people(numbers: list[int], sentence: str) -> None:
    assert listed(numbers) == sentence


def test_nouns_follow_their_count() -> None:
    assert [counted(count, "page") for count in (0, 1, 1200)] == ["0 pages", "1 page", "1,200 pages"]
