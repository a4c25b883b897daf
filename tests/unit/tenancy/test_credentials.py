"""Bearer credentials: their shape, and what of them is kept."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.tenancy import credentials


@given(entropy=st.binary(min_size=32, max_size=32), kind=st.sampled_from(["bn-", "bp-"]))
def test_a_credential_is_recognised_and_carries_all_its_random_bits(entropy: bytes, kind: credentials.Kind) -> None:
    made = credentials.mint(kind, entropy)

    assert credentials.is_well_formed(kind, made.text)
    assert made.hash == hashlib.sha256(made.text.encode()).digest()
    assert made.prefix == made.text[:12]
    assert len(made.text) == 3 + 43


@given(st.text())
def test_any_other_text_is_no_credential(text: str) -> None:
    assert not credentials.is_well_formed("bn-", text)


def test_one_kind_is_not_taken_for_the_other() -> None:
    assert not credentials.is_well_formed("bn-", credentials.mint("bp-", bytes(32)).text)


def test_too_few_random_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        credentials.mint("bn-", bytes(16))


def test_a_credential_does_not_print_itself() -> None:
    made = credentials.mint("bn-", bytes(32))

    assert made.text not in repr(made)
