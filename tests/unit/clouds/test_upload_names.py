"""Names of uploaded files: whatever a client sends, what is kept lies below the store and says the same again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.clouds.local import MAX_KEY_BYTES, MAX_NAME_BYTES, clean_key, is_ignored
from bonito.errors import InvalidRequest

names = st.text() | st.lists(
    st.sampled_from(["..", ".", "", "a", "b.md", "~", "C:", "...", "ä", "a\u0308", " ", "%2e%2e", "\\..", ".git"]),
    max_size=6,
).map("/".join)


@given(names)
def test_a_kept_name_lies_below_the_store(name: str) -> None:
    try:
        key = clean_key(name)
    except InvalidRequest:
        return
    store = Path("/store")
    assert (store / key).is_relative_to(store)
    assert ".." not in Path(key).parts
    assert not key.startswith("/")
    assert str(Path(key)) == key
    assert "\\" not in key
    assert all(ord(character) >= 0x20 for character in key)
    assert len(key.encode()) <= MAX_KEY_BYTES
    assert all(len(part.encode()) <= MAX_NAME_BYTES for part in Path(key).parts)
    assert not is_ignored(key)


@given(names)
def test_a_kept_name_is_kept_as_it_is(name: str) -> None:
    try:
        key = clean_key(name)
    except InvalidRequest:
        return
    assert clean_key(key) == key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        pytest.param("a.md", "a.md", id="plain"),
        pytest.param("sub/second + 100% café.md", "sub/second + 100% café.md", id="any-character"),
        pytest.param("cafe\u0301.md", "café.md", id="composed"),
        pytest.param("a\\b.md", "a/b.md", id="backslash"),
        pytest.param("/etc/passwd", "etc/passwd", id="absolute"),
        pytest.param("a//./b.md", "a/b.md", id="empty-parts"),
        pytest.param("%2e%2e/a.md", "%2e%2e/a.md", id="not-decoded"),
    ],
)
def test_names_that_may_be(name: str, key: str) -> None:
    assert clean_key(name) == key


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        ".",
        "..",
        "../a",
        "a/../b",
        "..\\a",
        "a\n.md",
        "a\0",
        "\x7f",
        ".git/config",
        "a/.env",
        "\ud800",
        "x" * 256,
    ],
    ids=ascii,
)
def test_names_that_may_not_be(name: str) -> None:
    with pytest.raises(InvalidRequest):
        clean_key(name)
