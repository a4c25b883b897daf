"""Which sources a deployment reads: folders below its roots, links followed, never Bonito's own data (T9)."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from bonito.errors import InvalidRequest
from bonito.knowledge.bases import Source
from bonito.knowledge.sources import SourceConfig, SourcePolicy
from bonito.settings import Settings

CONFIG: TypeAdapter[SourceConfig] = TypeAdapter(SourceConfig)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "root" / "papers").mkdir(parents=True)
    (tmp_path / "data" / "uploads").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def policy(place: Path, *roots: str, cloud: str = "local") -> SourcePolicy:
    named = os.pathsep.join(str(place / root) for root in roots or ("root",))
    return SourcePolicy.of(Settings.model_validate({"data_dir": place / "data", "local_roots": named, "cloud": cloud}))


def admit(chosen: SourcePolicy, **config: str) -> Source:
    return chosen.admit(CONFIG.validate_python(config), knowledge_base_id=uuid4())


def test_a_folder_below_a_root_is_kept_with_its_links_followed(place: Path) -> None:
    (place / "root" / "link").symlink_to(place / "root" / "papers")

    source = admit(policy(place), type="local", path=str(place / "root" / "link" / ".." / "papers"))

    assert source.bucket == str((place / "root" / "papers").resolve())
    assert source.config == {"type": "local", "path": source.bucket}


def test_any_of_several_roots_will_do(place: Path) -> None:
    chosen = policy(place, "root", "elsewhere")

    assert admit(chosen, type="local", path=str(place / "elsewhere")).bucket == str((place / "elsewhere").resolve())


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/etc", id="outside"),
        pytest.param("/", id="everything"),
        pytest.param("{root}/..", id="above"),
        pytest.param("{root}/../elsewhere", id="outside-by-dots"),
        pytest.param("{root}2", id="a-name-that-begins-like-the-root"),
        pytest.param("{root}/escape", id="outside-by-link"),
        pytest.param("{root}/loop", id="a-loop-of-links"),
        pytest.param("{root}/missing", id="missing"),
        pytest.param("{root}/file.txt", id="a-file"),
        pytest.param("papers", id="relative"),
        pytest.param("~/papers", id="home"),
        pytest.param("{root}/" + "x" * 300, id="a-name-too-long"),
    ],
)
def test_a_folder_that_may_not_be_read_is_refused(place: Path, path: str) -> None:
    (place / "root" / "escape").symlink_to("/etc")
    (place / "root" / "loop").symlink_to(place / "root" / "loop")
    (place / "root" / "file.txt").write_text("no folder")
    (place / "root2").mkdir()

    with pytest.raises(InvalidRequest) as raised:
        admit(policy(place), type="local", path=path.replace("{root}", str(place / "root")))
    assert raised.value.param == "source.path"


def test_whether_a_folder_outside_of_the_roots_exists_is_not_told(place: Path) -> None:
    told = set()
    for path in (place / "elsewhere", place / "nowhere"):
        with pytest.raises(InvalidRequest) as raised:
            admit(policy(place), type="local", path=str(path))
        told.add(raised.value.message)
    assert len(told) == 1


@pytest.mark.parametrize("folder", ["data", "data/uploads", "."])
def test_bonitos_own_data_is_no_source_even_below_a_root(place: Path, folder: str) -> None:
    with pytest.raises(InvalidRequest, match="its own data"):
        admit(policy(place, "."), type="local", path=str(place / folder))


def test_a_root_within_the_data_directory_was_meant(place: Path) -> None:
    (place / "data" / "inbox").mkdir()

    assert admit(policy(place, "data/inbox"), type="local", path=str(place / "data" / "inbox")).type == "local"


def test_without_roots_no_folder_is_read(place: Path) -> None:
    chosen = SourcePolicy.of(Settings(data_dir=place / "data"))

    with pytest.raises(InvalidRequest, match="BONITO_LOCAL_ROOTS"):
        admit(chosen, type="local", path=str(place / "root"))
    assert admit(chosen, type="upload").type == "upload"


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_a_cloud_deployment_reads_no_folder_and_no_disk(place: Path, cloud: str) -> None:
    for config in ({"type": "local", "path": str(place / "root")}, {"type": "upload"}):
        with pytest.raises(InvalidRequest) as raised:
            admit(policy(place, cloud=cloud), **config)
        assert raised.value.param == "source.type"


CLOUD_SOURCES = pytest.mark.parametrize(
    ("config", "bucket"),
    [
        ({"type": "s3", "bucket": "Papers", "prefix": "hr/", "region": "eu-central-1"}, "Papers"),
        ({"type": "azure_blob", "account": "Example", "container": "papers", "prefix": "hr/"}, "example/papers"),
        ({"type": "gcs", "bucket": "papers", "prefix": "hr/"}, "papers"),
    ],
    ids=["s3", "azure_blob", "gcs"],
)


@CLOUD_SOURCES
@pytest.mark.parametrize("cloud", ["local", "aws", "azure", "gcp"])
def test_a_bucket_is_read_in_every_deployment_through_a_connection(
    place: Path, config: dict[str, str], bucket: str, cloud: str
) -> None:
    connection = uuid4()

    source = admit(policy(place, cloud=cloud), **config, connection=str(connection))

    assert (source.type, source.bucket, source.prefix) == (config["type"], bucket, "hr/")
    assert source.connection_id == connection
    assert source.config == config | {"connection": str(connection)}


@CLOUD_SOURCES
def test_a_bucket_without_a_connection_is_refused(place: Path, config: dict[str, str], bucket: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        admit(policy(place), **config)
    assert raised.value.param == "source.connection"


@CLOUD_SOURCES
@pytest.mark.parametrize("setting", ["upload_bucket", "deployment_buckets"])
def test_the_deployments_own_buckets_are_nobodys_source(
    place: Path, config: dict[str, str], bucket: str, setting: str
) -> None:
    own = bucket.upper() if setting == "upload_bucket" else f"other, {bucket.partition('/')[0]}"
    chosen = SourcePolicy.of(Settings.model_validate({"data_dir": place / "data", setting: own}))

    with pytest.raises(InvalidRequest, match="deployment's own"):
        admit(chosen, **config, connection=str(uuid4()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["..", ".", "papers", "root", "data", "elsewhere", "link", "up", "x", ""]), max_size=8))
def test_whatever_is_admitted_lies_below_the_root_and_outside_of_the_data(place: Path, parts: list[str]) -> None:
    for name, target in (("link", "elsewhere"), ("up", "data")):
        if not (place / "root" / name).is_symlink():
            (place / "root" / name).symlink_to(place / target)
    try:
        source = admit(policy(place), type="local", path="/".join([str(place / "root"), *parts]))
    except InvalidRequest:
        return
    admitted = Path(source.bucket)
    assert admitted.is_relative_to((place / "root").resolve())
    assert admitted == admitted.resolve()
