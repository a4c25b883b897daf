from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.errors import DocumentError
from bonito.knowledge.parsing import json_paths
from bonito.knowledge.parsing.base import ParseLimits
from tests.unit.knowledge.parsing.conftest import ParseBytes
from tests.unit.knowledge.parsing.properties import patient


def test_every_scalar_is_a_line_with_its_path(parse: ParseBytes) -> None:
    document = parse(
        '{"company": {"name": "Acme"}, "employees": [{"name": "Ann", "tags": ["x"]}, {"name": "Bob"}]}', "a.json"
    )

    assert document.text == (
        "company.name: Acme\n\nemployees[0].name: Ann\nemployees[0].tags[0]: x\n\nemployees[1].name: Bob"
    )
    assert document.file_type == "json"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param('{"a.b": 1}', '["a.b"]: 1', id="dot-in-key"),
        pytest.param('{"first name": 1}', '["first name"]: 1', id="space-in-key"),
        pytest.param('{"": 1}', '[""]: 1', id="empty-key"),
        pytest.param('{"straße": 1}', "straße: 1", id="unicode-key"),
        pytest.param('{"a": {"b\\"c": 1}}', 'a["b\\"c"]: 1', id="quote-in-key"),
        pytest.param('{"a": 12345678901234567890.10}', "a: 12345678901234567890.10", id="all-digits"),
        pytest.param('{"a": ' + "9" * 5000 + "}", "a: " + "9" * 5000, id="more-digits-than-python-converts"),
        pytest.param('{"a": -1.5E+300}', "a: -1.5E+300", id="exponent"),
        pytest.param('{"a": NaN}', "a: NaN", id="nan"),
        pytest.param('{"a": -Infinity}', "a: -Infinity", id="infinity"),
        pytest.param('{"a": null}', "a: null", id="null"),
        pytest.param('{"a": []}', "a: []", id="empty-list"),
        pytest.param('{"a": { } }', "a: {}", id="empty-object"),
        pytest.param('{"a": ""}', 'a: ""', id="empty-string"),
        pytest.param('{"a": "x\\n\\ty"}', "a: x y", id="line-end"),
        pytest.param('{"a": "x\ty"}', "a: x y", id="raw-tab"),
        pytest.param('{"a": "\\u0000\\ud800x\\ud83d\\ude00"}', "a: x😀", id="nul-and-surrogates"),
        pytest.param('{"a": 1, "a": 2}', "a: 1\na: 2", id="same-key-twice"),
        pytest.param('"alone"', "alone", id="scalar"),
        pytest.param("[[1]]", "[0][0]: 1", id="lists"),
        pytest.param("\ufeff{}", "{}", id="byte-order-mark"),
    ],
)
def test_nothing_is_lost_or_reshaped(parse: ParseBytes, text: str, line: str) -> None:
    assert parse(text, "a.json").text == line


def test_json_lines_are_numbered_and_blank_lines_do_not_count(parse: ParseBytes) -> None:
    document = parse('{"a": 1}\n\n{"a": [2]}\r\n3\n', "a.jsonl")

    assert document.text == "[0].a: 1\n\n[1].a[0]: 2\n\n[2]: 3"
    assert document.file_type == "jsonl"


def test_json_lines_under_the_name_of_json_are_json_lines(parse: ParseBytes) -> None:
    document = parse('{"a": 1}\n{"a": 2}\n', "a.json")

    assert (document.text, document.file_type) == ("[0].a: 1\n\n[1].a: 2", "jsonl")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", '{"a": 1,\n "b": tru}', "A value is expected (line 2, column 7)"),
        ("a.json", '{"a" 1}', "A colon is expected after the key (line 1, column 6)"),
        ("a.json", "{a: 1}", "A key in double quotes is expected (line 1, column 2)"),
        ("a.json", '{"a": 1,}', "A key in double quotes is expected (line 1, column 9)"),
        ("a.json", "[1 2]", "A comma or a closing bracket is expected (line 1, column 4)"),
        ("a.json", "[1", "The file ends too early (line 1, column 3)"),
        ("a.json", '{"a":', "The file ends inside a value (line 1, column 6)"),
        ("a.json", '["x', "Unterminated string starting at (line 1, column 2)"),
        ("a.json", '["\\x"]', "Invalid \\escape (line 1, column 3)"),
        ("a.json", "{} {}", "Extra data after the value (line 1, column 4)"),
        ("a.json", "[1}", "A comma or a closing bracket is expected (line 1, column 3)"),
        ("a.json", "hello", "A value is expected (line 1, column 1)"),
        ("a.jsonl", '{"a": 1}\n{"a": }\n', "A value is expected (line 2, column 7)"),
    ],
)
def test_what_is_no_json_is_an_error_with_its_place(parse: ParseBytes, name: str, text: str, says: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(text, name)

    assert says in caught.value.message


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_endless_nesting_is_refused(parse: ParseBytes, opening: str) -> None:
    with pytest.raises(DocumentError, match="nested deeper than 200 levels"):
        parse(opening * 100_000, "a.json")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def count_leaves(value: object) -> int:
    if isinstance(value, list | dict) and value:
        return sum(map(count_leaves, value if isinstance(value, list) else value.values()))
    return 1


@patient
@given(VALUES, st.sampled_from([None, 2]))
def test_every_leaf_of_any_value_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, value: object, indent: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    path.write_text(json.dumps(value, indent=indent), encoding="utf-8")

    text = json_paths.parse(path, ParseLimits()).text

    assert len([line for line in text.split("\n") if line]) == count_leaves(value)


@patient
@given(st.floats(allow_nan=False))
def test_numbers_read_back_are_the_same(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    path = tmp_path_factory.getbasetemp() / "number.json"
    path.write_text(json.dumps([number]), encoding="utf-8")

    read = float(json_paths.parse(path, ParseLimits()).text.removeprefix("[0]: "))

    assert read == number
    assert math.copysign(1, read) == math.copysign(1, number)


def test_a_file_of_white_space_is_a_document_without_text(tmp_path: Path) -> None:
    path = tmp_path / "white.json"
    path.write_text(" \n")

    assert json_paths.parse(path, ParseLimits()).text == ""
