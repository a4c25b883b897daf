"""A visible skip for a missing tool; an error where the run demands the tool."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import settings

# Two cores that other tests use too: an example that takes long is no failure.
settings.register_profile("bonito", deadline=None)
settings.load_profile("bonito")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(tool): skipped where the program is missing, unless BONITO_TEST_REQUIRE names it"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    required = set(os.environ.get("BONITO_TEST_REQUIRE", "").split(","))
    for marker in item.iter_markers("needs"):
        tool = marker.args[0]
        if shutil.which(tool) is None:
            (pytest.fail if tool in required else pytest.skip)(f"{tool} is not installed")
