"""Edits of JSON text: what is not edited stays byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.gateway.splicing import MalformedJson, parse_object, prepended

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ODD = '\t{ "a" : 1e400,"b":[1.0 , 2],\n"c":{"\\u0061":"\\ud83d\\ude00"},  "d":12345678901234567890123 , "e" : -0.0 } '


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        pytest.param({}, ODD, id="nothing"),
        pytest.param({"z": None}, ODD, id="removing-what-is-not-there"),
        pytest.param({"a": None}, ODD.replace(' "a" : 1e400,', ""), id="removing-the-first"),
        pytest.param({"e": None}, ODD.replace(',  "d"', ',  "d"').replace(' , "e" : -0.0 }', " }"), id="the-last"),
        pytest.param({"b": "[]"}, ODD.replace("[1.0 , 2]", "[]"), id="replacing"),
        pytest.param({"z": "0"}, ODD.replace("-0.0 }", '-0.0 ,"z":0}'), id="adding"),
    ],
)
def test_everything_else_stays_as_it_was_written(edits: dict[str, str | None], expected: str) -> None:
    assert parse_object(ODD).edited(edits) == expected


@given(st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=5), JSON_VALUES, st.sampled_from([None, 1]))
def test_an_edit_does_what_it_says_and_no_more(members: dict[str, object], new: object, indent: int | None) -> None:
    text = json.dumps(members, indent=indent)
    name = next(iter(members), "x")

    replaced = json.loads(parse_object(text).edited({name: json.dumps(new)}))
    removed = json.loads(parse_object(text).edited({name: None}))

    assert replaced == members | {name: new}
    assert removed == {key: value for key, value in members.items() if key != name}


@given(st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=5))
def test_members_are_found_where_they_are(members: dict[str, object]) -> None:
    found = parse_object(json.dumps(members))

    assert {name: json.loads(found.source(name)) for name in found.members} == members


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "[]",
        "null",
        '"x"',
        "{",
        '{"a"',
        '{"a":',
        '{"a":}',
        '{"a":1',
        '{"a":1,}',
        '{"a":1}}',
        '{"a":1}{}',
        "{a:1}",
        "{'a':1}",
        '{"a":NaN}',
        '{"a":[-Infinity]}',
        '{"a":"\n"}',
        '{"a":01}',
        "\ufeff{}",
        pytest.param('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", id="deep"),
        '{"a":1,"a":2}',
        '{"a":1,"\\u0061":2}',
    ],
)
def test_what_is_no_single_object_is_refused(text: str) -> None:
    with pytest.raises(MalformedJson):
        parse_object(text)


def test_an_integer_of_ten_thousand_digits_passes() -> None:
    text = '{"a":' + "9" * 10_000 + ',"b":1}'

    assert parse_object(text).edited({"b": None}) == text.replace(',"b":1', "")


@pytest.mark.parametrize(
    ("array", "expected"), [("[]", "[0]"), ("[ \n]", "[0 \n]"), ("[1]", "[0,1]"), ("[ 1 ]", "[0, 1 ]")]
)
def test_an_item_is_put_in_front(array: str, expected: str) -> None:
    assert prepended(array, "0") == expected
