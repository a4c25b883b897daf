"""Tickets of uploads: nobody makes or changes one, and each ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.errors import NotFound
from bonito.knowledge.upload_tickets import Ticket, issue, read
from bonito.tenancy.secrets import SecretBox

NOW = datetime(2026, 5, 1, tzinfo=UTC)
BOX = SecretBox([bytes(32)])
TICKET = Ticket(UUID(int=1), UUID(int=2), 3, NOW + timedelta(hours=1))


def test_a_ticket_reads_as_it_was_issued() -> None:
    assert read(BOX, issue(BOX, TICKET), now=NOW) == TICKET


def test_a_ticket_of_the_key_before_still_opens() -> None:
    new = SecretBox([b"1" * 32, bytes(32)])

    assert read(new, issue(BOX, TICKET), now=NOW) == TICKET
    with pytest.raises(NotFound):
        read(BOX, issue(new, TICKET), now=NOW)


def test_a_ticket_ends() -> None:
    with pytest.raises(NotFound):
        read(BOX, issue(BOX, TICKET), now=TICKET.expires_at)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=63))
def test_a_ticket_with_another_character_opens_nothing(place: int, shift: int) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    text = issue(BOX, TICKET)
    # The last characters of payload and signature carry bits that mean nothing.
    places = [index for index, character in enumerate(text) if character != "." and index not in {55, len(text) - 1}]
    index = places[place % len(places)]
    other = alphabet[(alphabet.index(text[index]) + shift) % len(alphabet)]

    with pytest.raises(NotFound):
        read(BOX, text[:index] + other + text[index + 1 :], now=NOW)


@given(st.text(max_size=120))
def test_any_text_is_no_ticket(text: str) -> None:
    with pytest.raises(NotFound):
        read(BOX, text, now=NOW)
