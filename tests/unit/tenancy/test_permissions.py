"""Roles and permissions: each role has everything of the one below it, and nothing is allowed unless it is listed."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from bonito.errors import PermissionDenied
from bonito.tenancy.permissions import ALLOWED, Permission, Role, is_allowed, require

DOCS = Path(__file__).parents[3] / "docs" / "security.md"


def test_every_role_has_more_than_the_one_below_it() -> None:
    for lower, higher in pairwise(Role):
        assert ALLOWED[lower] < ALLOWED[higher]
        assert higher.covers(lower)
        assert not lower.covers(higher)


def test_every_permission_is_somebodys() -> None:
    assert ALLOWED[Role.OWNER] == set(Permission)


@pytest.mark.parametrize("permission", [p for p in Permission if p.endswith(("manage", "delete"))])
def test_a_member_manages_and_deletes_nothing(permission: Permission) -> None:
    assert not is_allowed(Role.MEMBER, permission)


@pytest.mark.parametrize("permission", [p for p in Permission if p.endswith(("write", "sync", "manage", "delete"))])
def test_a_viewer_changes_nothing(permission: Permission) -> None:
    assert not is_allowed(Role.VIEWER, permission)


def test_what_no_role_lists_is_denied_to_the_owner_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALLOWED, Role.OWNER, frozenset())

    with pytest.raises(PermissionDenied, match="does not exist"):
        require(Role.OWNER, Permission.OWNERS_MANAGE)


def test_a_refusal_names_the_least_role_that_would_do() -> None:
    with pytest.raises(PermissionDenied, match=r"role admin or higher \(keys:manage\); the token acts as viewer"):
        require(Role.VIEWER, Permission.KEYS_MANAGE)


def test_the_docs_list_every_permission_and_who_has_it() -> None:
    text = DOCS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+:\w+)` \| [^|]+ \|((?: (?:yes)? ?\|){4})$", text, re.MULTILINE)

    documented = {name: [cell.strip() == "yes" for cell in cells.split("|")[:4]] for name, cells in rows}
    assert documented == {str(permission): [is_allowed(role, permission) for role in Role] for permission in Permission}
