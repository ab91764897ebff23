"""The data of a repository by URL, fetched by the real DVC from a real S3 server into a private clone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sealflow.lineage.foreign import s3_environment
from tests.core.lineage.elsewhere import CONFIG, FOLDER, Elsewhere, make, manifest, object_path
from tests.core.lineage.gitrepo import snapshot
from tests.core.lineage.repos import md5
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.fixture
def place(tmp_path: Path) -> Elsewhere:
    return make(tmp_path)


@pytest.fixture
def bucket(place: Elsewhere, s3_server: S3Server, s3_bucket: str) -> tuple[str, Any]:
    """The remote as a prefix in S3: its bucket and a client."""
    client = s3_server.client()
    for path in place.remote.rglob("*"):
        if path.is_file():
            client.put_object(Bucket=s3_bucket, Key=f"a/b/{path.relative_to(place.remote)}", Body=path.read_bytes())
    place.push({".dvc/config": CONFIG.format(url=f"s3://{s3_bucket}/a/b")})
    return s3_bucket, client


def test_data_from_s3(place: Elsewhere, bucket: tuple[str, Any], dvc_s3_python: Path) -> None:
    name, client = bucket
    before = client.list_objects_v2(Bucket=name)["Contents"]
    home = snapshot(Path(os.environ["HOME"]))
    given = {"remote": f"s3://{name}/a/b/", "environment": s3_environment(client), "python": str(dvc_s3_python)}
    assert place.look(**given) == []
    assert client.list_objects_v2(Bucket=name)["Contents"] == before
    assert snapshot(Path(os.environ["HOME"])) == home

    client.put_object(Bucket=name, Key="a/b/" + object_path(md5("1\n")), Body=b"evil")
    assert {(finding.code, finding.subject) for finding in place.look(**given)} == {("REMOTE_MISSING", "raw.csv")}

    client.put_object(Bucket=name, Key="a/b/" + object_path(md5(manifest(FOLDER)) + ".dir"), Body=b"[]")
    assert {(finding.code, finding.subject) for finding in place.look(**given)} == {
        ("REMOTE_MISSING", "raw.csv"),
        ("REMOTE_CORRUPT", "data"),
    }

    client.delete_object(Bucket=name, Key="a/b/" + object_path(md5(manifest(FOLDER)) + ".dir"))
    (finding,) = place.look(**given)
    assert (finding.code, finding.severity) == ("DATA_FETCH_FAILED", "unverifiable")
    assert "does not exist" in finding.message

    (finding,) = place.look(**(given | {"environment": {**s3_environment(client), "AWS_SECRET_ACCESS_KEY": "x" * 40}}))
    assert (finding.code, finding.severity) == ("DATA_FETCH_FAILED", "unverifiable")
