"""The S3 server of the tests does what the product relies on, and goes away entirely."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.servers import ceph, juicefs, seaweed
from tests.servers.s3 import S3Server

BODY = bytes(range(256)) * 4


def refusal(error: pytest.ExceptionInfo[ClientError]) -> int:
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_whole_and_ranged_reads(s3_server: S3Server, s3_bucket: str) -> None:
    s3 = s3_server.client()
    s3.put_object(Bucket=s3_bucket, Key="a/ü b", Body=BODY)
    assert s3.get_object(Bucket=s3_bucket, Key="a/ü b")["Body"].read() == BODY
    part = s3.get_object(Bucket=s3_bucket, Key="a/ü b", Range="bytes=10-19")
    assert part["Body"].read() == BODY[10:20]
    assert part["ContentRange"] == "bytes 10-19/1024"


def test_put_only_if_absent(s3_server: S3Server, s3_bucket: str) -> None:
    s3 = s3_server.client()
    s3.put_object(Bucket=s3_bucket, Key="k", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=s3_bucket, Key="k", Body=b"second", IfNoneMatch="*")
    assert refusal(error) == 412
    assert s3.get_object(Bucket=s3_bucket, Key="k")["Body"].read() == b"first"


def test_get_only_if_unchanged(s3_server: S3Server, s3_bucket: str) -> None:
    s3 = s3_server.client()
    etag = s3.put_object(Bucket=s3_bucket, Key="k", Body=b"first")["ETag"]
    assert s3.get_object(Bucket=s3_bucket, Key="k", IfMatch=etag)["Body"].read() == b"first"
    s3.put_object(Bucket=s3_bucket, Key="k", Body=b"second")
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=s3_bucket, Key="k", IfMatch=etag)
    assert refusal(error) == 412


def test_versions(s3_server: S3Server, s3_versioned_bucket: str) -> None:
    s3 = s3_server.client()
    name = {"Bucket": s3_versioned_bucket, "Key": "k"}
    first = s3.put_object(**name, Body=b"first")["VersionId"]
    second = s3.put_object(**name, Body=b"second")["VersionId"]
    assert first != second
    assert s3.get_object(**name, VersionId=first)["Body"].read() == b"first"
    assert s3.get_object(**name)["VersionId"] == second


def test_multipart(s3_server: S3Server, s3_bucket: str) -> None:
    body = os.urandom((8 << 20) + 1)  # two parts at boto3's defaults
    s3_server.client().upload_fileobj(io.BytesIO(body), s3_bucket, "big")
    assert s3_server.client().get_object(Bucket=s3_bucket, Key="big")["Body"].read() == body


def test_each_test_has_its_own_bucket(s3_server: S3Server, s3_bucket: str) -> None:
    assert s3_server.make_bucket() != s3_bucket
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=s3_bucket)


def test_wrong_secret_is_refused(s3_server: S3Server, s3_bucket: str) -> None:
    if s3_server.kind == "moto":
        pytest.skip("moto accepts every key")
    stranger = S3Server(s3_server.endpoint_url, s3_server.access_key, "wrong", "ceph").client()
    with pytest.raises(ClientError) as error:
        stranger.list_objects_v2(Bucket=s3_bucket)
    assert refusal(error) == 403


def running(*names: str) -> list[str]:
    """The programs of these names that this process started and that still run."""
    return sorted(child.name() for child in psutil.Process().children() if child.name() in names)


def daemons() -> list[str]:
    return running("ceph-mon", "ceph-osd", "radosgw")


@pytest.fixture
def homes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that clusters of this test live in; another test run may have its own."""
    made: list[Path] = []

    def mkdtemp(**arguments: str) -> str:
        made.append(Path(original(**arguments)))
        return str(made[-1])

    original = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    return made


needs_ceph = [
    pytest.mark.skipif(bool(ceph.missing_programs()), reason="Ceph is not installed"),
    pytest.mark.server,
    pytest.mark.xdist_group("s3"),
]


class TestLifeOfACluster:
    pytestmark = needs_ceph

    def test_nothing_is_left_after_the_end(self, homes: list[Path]) -> None:
        before = daemons()
        with ceph.ceph_rgw() as server:
            assert len(daemons()) == len(before) + 3
            assert homes[-1].is_dir()
            server.client().list_buckets()
        assert daemons() == before
        assert not any(home.exists() for home in homes)

    def test_nothing_is_left_when_the_start_fails(self, homes: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        before = daemons()
        monkeypatch.setattr(ceph, "answers", lambda *_: 1 / 0)
        with contextlib.ExitStack() as stack, pytest.raises(ZeroDivisionError):
            stack.enter_context(ceph.ceph_rgw())
        assert homes
        assert daemons() == before
        assert not any(home.exists() for home in homes)


@pytest.mark.server
@pytest.mark.skipif(seaweed.program() is None, reason="SeaweedFS is not installed")
class TestLifeOfSeaweed:
    """It stands in for Ceph where that is not installed; where it is, nothing else here starts it."""

    def test_it_stores_heeds_conditions_and_leaves_nothing(self, homes: list[Path]) -> None:
        before, others = running("weed"), set(psutil.Process().children())
        with seaweed.seaweedfs() as server:
            [weed] = set(psutil.Process().children()) - others
            sockets = {item.laddr for item in weed.net_connections("unix") if item.laddr}
            assert any(name.startswith("/tmp/seaweedfs-") for name in sockets)
            bucket = server.make_bucket(versioned=True)
            s3 = server.secure().client()
            first = s3.put_object(Bucket=bucket, Key="k", Body=BODY, IfNoneMatch="*")["VersionId"]
            with pytest.raises(ClientError) as error:
                s3.put_object(Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*")
            assert refusal(error) == 412
            assert s3.get_object(Bucket=bucket, Key="k", VersionId=first)["Body"].read() == BODY
            stranger = S3Server(server.endpoint_url, server.access_key, "wrong", "seaweedfs").client()
            with pytest.raises(ClientError) as error:
                stranger.list_objects_v2(Bucket=bucket)
            assert refusal(error) == 403
            # More buckets than a server has volumes for by default.
            for _ in range(20):
                s3.put_object(Bucket=server.make_bucket(), Key="k", Body=BODY)
        assert running("weed") == before
        assert not any(home.exists() for home in homes)
        assert not any(os.path.exists(name) for name in sockets)

    def test_nothing_is_left_when_the_start_fails(self, homes: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        before = running("weed")
        monkeypatch.setattr(seaweed, "answers", lambda *_: 1 / 0)
        with contextlib.ExitStack() as stack, pytest.raises(ZeroDivisionError):
            stack.enter_context(seaweed.seaweedfs())
        assert homes
        assert running("weed") == before
        assert not any(home.exists() for home in homes)


@pytest.mark.server
@pytest.mark.skipif(juicefs.program() is None, reason="JuiceFS is not installed")
class TestLifeOfJuiceFs:
    def test_it_stores_and_leaves_nothing(self, homes: list[Path]) -> None:
        before = running("juicefs")
        with juicefs.juicefs() as server:
            assert len(running("juicefs")) == len(before) + 2
            bucket = server.make_bucket()
            plain, secure = (
                one.client(request_checksum_calculation="when_required") for one in (server, server.secure())
            )
            plain.put_object(Bucket=bucket, Key="k", Body=BODY, Metadata={"of": "mine"})
            found = secure.get_object(Bucket=bucket, Key="k")
            assert (found["Body"].read(), found["Metadata"]) == (BODY, {"of": "mine"})
            assert found["ETag"].strip('"') == hashlib.md5(BODY, usedforsecurity=False).hexdigest()
            # What those who use it here have to know of it.
            assert plain.put_object(Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*")
            for one in (server, server.secure()):
                stranger = replace(one, secret_key="wrong").client()
                with pytest.raises(ClientError) as error:
                    stranger.list_objects_v2(Bucket=bucket)
                assert refusal(error) == 403
        assert running("juicefs") == before
        assert not any(home.exists() for home in homes)

    def test_nothing_is_left_when_the_start_fails(self, homes: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        before = running("juicefs")
        monkeypatch.setattr(juicefs, "answers", lambda *_: 1 / 0)
        with contextlib.ExitStack() as stack, pytest.raises(ZeroDivisionError):
            stack.enter_context(juicefs.juicefs())
        assert homes
        assert running("juicefs") == before
        assert not any(home.exists() for home in homes)
