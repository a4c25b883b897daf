"""What an installation lacks to read a cloud's buckets is said in a sentence, whoever opens one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from bonito.clouds.base import ObjectStore
from bonito.errors import UpstreamError
from bonito.knowledge import buckets
from bonito.knowledge.buckets import Buckets

ACCESS = cast("Any", None)  # nothing is asked before a store is used
OPENED: dict[str, Callable[[], ObjectStore]] = {
    "aws": lambda: Buckets(ACCESS).on_aws(ACCESS, "papers", region=None),
    "azure": lambda: Buckets(ACCESS).elsewhere("azure", ACCESS, "ours/papers"),
    "gcp": lambda: Buckets(ACCESS).elsewhere("gcp", ACCESS, "papers"),
}


@pytest.mark.parametrize("cloud", OPENED)
def test_a_cloud_whose_extra_is_installed_is_read(cloud: str) -> None:
    assert OPENED[cloud]() is not None


@pytest.mark.parametrize("cloud", OPENED)
@pytest.mark.parametrize("missing", ["surely_not_installed", "surely_not_installed.either"])
def test_one_whose_extra_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, cloud: str, missing: str) -> None:
    monkeypatch.setitem(buckets.NEEDED, cloud, missing)  # type: ignore[misc]

    with pytest.raises(UpstreamError, match=rf"bonito\[{cloud}\]"):
        OPENED[cloud]()
