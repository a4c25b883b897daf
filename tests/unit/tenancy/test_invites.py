"""An invite's token: what is not signed by this deployment is none (T1)."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.errors import NotFound
from bonito.tenancy import invites
from bonito.tenancy.invites import Claim

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
CLAIM = Claim(UUID(int=1), UUID(int=2), datetime(2030, 1, 1, tzinfo=UTC))


@given(
    st.builds(
        Claim,
        org_id=st.uuids(),
        invite_id=st.uuids(),
        expires_at=st.integers(0, 7_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    )
)
def test_what_was_signed_reads_back(claim: Claim) -> None:
    assert invites.read(invites.sign(claim, KEY), [OTHER_KEY, KEY]) == claim


def test_another_deployments_invite_is_refused() -> None:
    with pytest.raises(NotFound, match="not an invite of this deployment"):
        invites.read(invites.sign(CLAIM, OTHER_KEY), [KEY])


@given(position=st.integers(0, 10_000), letter=st.sampled_from("ABCabc019-_"))
def test_a_changed_token_is_refused(position: int, letter: str) -> None:
    token = invites.sign(CLAIM, KEY)
    at = position % len(token)
    changed = token[:at] + letter + token[at + 1 :]

    if changed != token:
        with pytest.raises(NotFound):
            invites.read(changed, [KEY])


@given(st.text(max_size=200))
def test_any_text_is_no_invite(text: str) -> None:
    for token in (text, invites.PREFIX + text):
        with pytest.raises(NotFound):
            invites.read(token, [KEY])


def test_an_organization_cannot_be_put_into_a_signed_token() -> None:
    mine = invites.sign(CLAIM, KEY)
    other = invites.sign(Claim(UUID(int=9), CLAIM.invite_id, CLAIM.expires_at), OTHER_KEY)

    with pytest.raises(NotFound):
        invites.read(other[:60] + mine[60:], [KEY])
