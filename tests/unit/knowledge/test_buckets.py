"""What an installation lacks to read a cloud's buckets is said in a sentence."""

from __future__ import annotations

import pytest

from bonito.errors import UpstreamError
from bonito.knowledge import buckets
from bonito.tenancy.connections import Cloud


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_a_cloud_whose_extra_is_installed_is_read(cloud: Cloud) -> None:
    buckets.check_installed(cloud)


@pytest.mark.parametrize("missing", ["surely_not_installed", "surely_not_installed.either"])
def test_one_whose_extra_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(buckets.NEEDED, "azure", missing)

    with pytest.raises(UpstreamError, match=r"bonito\[azure\]"):
        buckets.check_installed("azure")
