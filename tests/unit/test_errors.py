"""The error tree: one code per meaning, both shapes, and a line in the docs for each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bonito.console.problems
import bonito.console.routing
from bonito import errors
from bonito.errors import BonitoError

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"


def classes_below(root: type[BonitoError]) -> Iterator[type[BonitoError]]:
    for child in root.__subclasses__():
        yield child
        yield from classes_below(child)


PUBLIC = [BonitoError, *(found for found in classes_below(BonitoError) if found.__module__ == errors.__name__)]
documented = re.findall(r"^\| `(\w+)` \| (\d+|—) \| (yes|no) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in PUBLIC]

    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_an_error_outside_of_the_tree_brings_no_code_of_its_own() -> None:
    """What adapts an error to a framework keeps the code of the error it adapts."""
    adapted = set(classes_below(BonitoError)) - set(PUBLIC)

    assert {bonito.console.problems.ValidationProblem, bonito.console.routing.BodyTooLarge} <= adapted
    assert all("code" not in vars(found) for found in adapted)


def test_the_docs_list_exactly_the_codes_that_exist() -> None:
    assert sorted(code for code, _, _ in documented) == sorted(error.code for error in PUBLIC)


@pytest.mark.parametrize("error_class", PUBLIC, ids=lambda found: found.__name__)
def test_an_error_is_rendered_in_both_shapes_as_documented(error_class: type[BonitoError]) -> None:
    error = error_class("Something is so.", param="field")

    openai = errors.openai_body(error)["error"]
    problem = errors.problem_details(error)

    assert openai == {
        "message": "Something is so.",
        "type": error_class.openai_type,
        "param": "field",
        "code": error_class.code,
    }
    assert problem["status"] == error_class.status
    assert (problem["code"], problem["detail"], problem["param"]) == (error_class.code, "Something is so.", "field")
    assert (error_class.code, str(error_class.status), "yes" if error_class.retryable else "no") in documented


@pytest.mark.parametrize("error_class", PUBLIC, ids=lambda found: found.__name__)
def test_a_status_says_whose_fault_it_is(error_class: type[BonitoError]) -> None:
    is_callers = issubclass(
        error_class, errors.CallerError | errors.StateConflict | errors.LimitReached | errors.DocumentError
    )

    assert (400 <= error_class.status < 500) is is_callers
    assert 400 <= error_class.status < 600
