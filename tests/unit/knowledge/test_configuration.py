"""What a knowledge base may be set to: right fields are kept, wrong ones named, whatever is absent has its default."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bonito.errors import InvalidRequest
from bonito.knowledge.configuration import NewKnowledgeBase
from bonito.knowledge.metadata import check_metadata

UPLOAD: dict[str, Any] = {"name": "hr-docs", "source": {"type": "upload"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"name": "HR"}, "name", id="upper-case"),
        pytest.param({"name": ""}, "name", id="no-name"),
        pytest.param({"name": "a" * 64}, "name", id="long-name"),
        pytest.param({"name": "a\n"}, "name", id="line-feed-in-name"),
        pytest.param({"name": "a\u0000"}, "name", id="nul-in-name"),
        pytest.param({"name": "\ud800"}, "name", id="half-pair-as-name"),
        pytest.param({"name": None}, "name", id="null-name"),
        pytest.param({"name": 7}, "name", id="number-as-name"),
        pytest.param({"source": {"type": "ftp"}}, "source", id="unknown-source"),
        pytest.param({"source": {}}, "source", id="no-type"),
        pytest.param({"source": "upload"}, "source", id="source-no-object"),
        pytest.param({"source": {"type": "upload", "secret": "x"}}, "source.upload.secret", id="credential"),
        pytest.param({"source": {"type": "s3"}}, "source.s3.bucket", id="no-bucket"),
        pytest.param({"source": {"type": "local", "path": ""}}, "source.local.path", id="no-path"),
        pytest.param({"source": {"type": "local", "path": "/a\nb"}}, "source.local.path", id="line-feed-in-path"),
        pytest.param({"chunk_size": 15}, "chunk_size", id="small-chunks"),
        pytest.param({"chunk_size": 8193}, "chunk_size", id="large-chunks"),
        pytest.param({"chunk_size": 100.5}, "chunk_size", id="half-a-token"),
        pytest.param({"chunk_size": "512"}, "chunk_size", id="text-as-size"),
        pytest.param({"chunk_size": True}, "chunk_size", id="true-as-size"),
        pytest.param({"chunk_overlap": -1}, "chunk_overlap", id="negative-overlap"),
        pytest.param({"language": "English!"}, "language", id="odd-language"),
        pytest.param({"sync_timezone": "a b"}, "sync_timezone", id="odd-zone"),
        pytest.param({"metadata": []}, "metadata", id="list-as-metadata"),
        pytest.param({"description": "x" * 4001}, "description", id="long-description"),
        pytest.param({"description": "\u0000"}, "description", id="nul-in-description"),
        pytest.param({"description": "\ud800"}, "description", id="half-pair-in-description"),
        pytest.param({"embedding_model": ""}, "embedding_model", id="no-model"),
        pytest.param({"embedding_model": "\ud800"}, "embedding_model", id="half-pair-as-model"),
        pytest.param({"owner": "me"}, "owner", id="unknown-field"),
    ],
)
def test_what_is_not_as_described_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError) as raised:
        NewKnowledgeBase.model_validate(UPLOAD | fields)

    assert {".".join(map(str, error["loc"])) for error in raised.value.errors()} == {param}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"name": "6f1c3a52-9d6b-4c5e-8f0e-0d8a4f2b7c11"}, "name", id="uuid-as-name"),
        pytest.param({"chunk_size": 100, "chunk_overlap": 100}, "chunk_overlap", id="overlap-as-large"),
        pytest.param({"sync_schedule": "every hour"}, "sync_schedule", id="no-cron"),
        pytest.param({"sync_schedule": "* * * * * *"}, "sync_schedule", id="six-fields"),
        pytest.param({"sync_schedule": "@hourly"}, "sync_schedule", id="an-alias"),
        pytest.param({"sync_schedule": "61 * * * *"}, "sync_schedule", id="minute-61"),
        pytest.param({"sync_schedule": "* * * * 9"}, "sync_schedule", id="day-9"),
        pytest.param({"sync_schedule": "*/0 * * * *"}, "sync_schedule", id="step-0"),
        pytest.param({"sync_schedule": "0 0 31 2 *"}, "sync_schedule", id="never"),
        pytest.param({"sync_schedule": ""}, "sync_schedule", id="empty-cron"),
        pytest.param({"sync_timezone": "Mars/Olympus"}, "sync_timezone", id="unknown-zone"),
        pytest.param({"sync_timezone": "Europe"}, "sync_timezone", id="folder-as-zone"),
        pytest.param({"sync_timezone": "/etc/passwd"}, "sync_timezone", id="path-as-zone"),
        pytest.param({"metadata": {"a": "x" * 20_000}}, "metadata", id="large-metadata"),
        pytest.param({"metadata": {"a": "ü" * 8_190}}, "metadata", id="large-in-bytes"),
        pytest.param({"metadata": {"a": float("nan")}}, "metadata", id="nan"),
        pytest.param({"metadata": {"a": float("inf")}}, "metadata", id="infinity"),
        pytest.param({"metadata": {"a": ["\ud800"]}}, "metadata", id="half-pair"),
        pytest.param({"metadata": {"a": [{"\u0000": 1}]}}, "metadata", id="nul-in-a-key"),
        pytest.param({"metadata": {"a": "\u0000"}}, "metadata", id="nul"),
        pytest.param({"metadata": {"a": {"b": [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}}}, "metadata", id="deep-metadata"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        NewKnowledgeBase.model_validate(UPLOAD | fields)

    assert raised.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"chunk_size": 8192, "chunk_overlap": 0},
        {"chunk_size": 100.0},
        {"language": "simple"},
        {"sync_schedule": "*/15 8-18 * * mon-fri", "sync_timezone": "America/Argentina/Buenos_Aires"},
        {"sync_schedule": "0 0 29 2 *"},
        {"metadata": {"tags": ["a", "ü", "\\u0000 in words"], "n": 1.5, "none": None}},
        {"embedding_model": "openai/text-embedding-3-small"},
        {"source": {"type": "s3", "bucket": "b", "prefix": "ä/ö", "region": "eu-central-1"}},
    ],
    ids=str,
)
def test_right_fields_are_kept(fields: dict[str, Any]) -> None:
    kept = NewKnowledgeBase.model_validate(UPLOAD | fields).model_dump(exclude_unset=True)

    assert {name: kept[name] for name in fields} == fields


@pytest.mark.parametrize(("size", "overlap"), [(512, 50), (256, 50), (200, 50), (128, 32), (16, 4)])
def test_a_small_chunk_has_a_small_overlap_where_none_is_asked_for(size: int, overlap: int) -> None:
    options = NewKnowledgeBase.model_validate(UPLOAD | {"chunk_size": size}).options()

    assert (options.chunk_size, options.chunk_overlap) == (size, overlap)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=30,
)


@given(st.dictionaries(st.text(), json_values))
def test_metadata_is_kept_as_it_is_or_refused(value: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        assert check_metadata(value) is value
