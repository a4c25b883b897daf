from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.knowledge.parsing import frames
from tests.unit.knowledge.parsing.properties import patient


@patient
@given(st.lists(st.binary(max_size=20), max_size=5))
def test_frames_are_read_as_they_were_written(payloads: list[bytes]) -> None:
    stream = io.BytesIO()
    for payload in payloads:
        frames.write_frame(stream, payload)
    stream.seek(0)

    assert list(iter(lambda: frames.read_frame(stream), None)) == payloads


@pytest.mark.parametrize("cut", [0, 3, 8, 10])
def test_a_frame_that_breaks_off_is_none(cut: int) -> None:
    stream = io.BytesIO()
    frames.write_frame(stream, b"hello")

    assert frames.read_frame(io.BytesIO(stream.getvalue()[:cut])) is None
