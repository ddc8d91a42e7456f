"""Batch jobs open files in the data folders and nowhere else: each way out, beside its honest twin."""

from __future__ import annotations

from pathlib import Path

import pytest

from fogline_server.batch.places import Places
from fogline_shared.errors import InvalidInput


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("state/data", "state/keys", "more"):
        (tmp_path / name).mkdir(parents=True)
    also = f"{tmp_path},s3://bucket/batch"
    return Places.of(tmp_path / "state/data", also, private=tmp_path / "state")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("in.parquet", "{root}/state/data/in.parquet"),
        ("june/in.parquet", "{root}/state/data/june/in.parquet"),
        ("{root}/state/data/in.parquet", "{root}/state/data/in.parquet"),
        ("{root}/more/in.parquet", "{root}/more/in.parquet"),
        ("file://{root}/more/in.parquet", "{root}/more/in.parquet"),
        ("./in..parquet", "{root}/state/data/in..parquet"),
        ("s3://bucket/batch/in.parquet", "s3://bucket/batch/in.parquet"),
    ],
)
def test_what_lies_in_the_data_folders_may_be_used(places: Places, tmp_path: Path, given: str, meant: str) -> None:
    assert places.opened(given.format(root=tmp_path)) == meant.format(root=tmp_path)


@pytest.mark.parametrize(
    "given",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "local:///etc/passwd",
        "file://local:///etc/passwd",
        "../keys/admin.key",
        "june/../../keys/admin.key",
        "{root}/more/../state/keys/admin.key",
        "{root}/state/keys/admin.key",
        "{root}/state/fogline.db",
        "{root}/state/data",
        "{root}",
        "{root}2/in.parquet",
        "{root}/.ssh/authorized_keys",
        ".hidden/in.parquet",
        "~/in.parquet/../../../x",
        "s3://bucket/other/in.parquet",
        "s3://bucket/batch2/in.parquet",
        "s3://bucket/batch/../in.parquet",
        "s3://bucket/batch/%2E%2e/in.parquet",
        "http://169.254.169.254/in.parquet",
        "memory://in.parquet",
        "simplecache::s3://bucket/batch/in.parquet",
        "zip://in.parquet::file:///etc/archive.zip",
        "",
    ],
)
def test_nothing_else_may_be_used(places: Places, tmp_path: Path, given: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        places.named(given.format(root=tmp_path))
    assert refused.value.code == "path_not_allowed"


def test_a_link_out_of_the_data_folder_is_refused_where_it_is_opened(places: Places, tmp_path: Path) -> None:
    secret = tmp_path / "state/keys/admin.key"
    secret.write_text("fl_")
    data = tmp_path / "state/data"
    (data / "in.parquet").symlink_to(secret)
    (data / "folder").symlink_to("/etc")
    (data / "chained").symlink_to(data / "folder")
    (data / "inside.parquet").symlink_to(tmp_path / "more/in.parquet")
    for name in ("in.parquet", "folder/passwd", "chained/passwd"):
        assert places.named(name), "the text alone does not tell"
        with pytest.raises(InvalidInput) as refused:
            places.opened(name)
        assert refused.value.code == "path_not_allowed"
    assert places.opened("inside.parquet") == str(tmp_path / "more/in.parquet")


def test_a_data_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    places = Places.of(tmp_path / "data")
    assert places.opened("in.parquet") == str(tmp_path / "disk/in.parquet")
    assert places.named(str(tmp_path / "disk/in.parquet"))


@pytest.mark.parametrize("also", ["/", "relative", "/data,/", "/ok, ./x"])
def test_a_setting_that_allows_everything_or_nothing_in_particular_is_refused(also: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Places.of(Path("/data"), also)
    assert refused.value.code == "invalid_setting"
