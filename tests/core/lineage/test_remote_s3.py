"""L4 against a real S3 server where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from sealflow.findings import Finding
from sealflow.lineage.remote import Wanted, check_remote
from sealflow.storage import Storages
from sealflow.storage.s3 import S3Storage
from tests.core.lineage.remotes import codes, file, folder, key_of, listing, listing_digest, objects, sha256
from tests.core.lineage.repos import md5
from tests.servers.s3 import S3Server, moto_server

# Each uploads to a server; those that the real one cannot serve start a mock.
pytestmark = pytest.mark.slow

FILES = {"a.csv": b"1,2\n", "sub/b.csv": b"3,4\n", "empty": b"", "ü\n": b"x"}
RAW = b"raw\n"
PART = 5 << 20
LARGE = bytes(range(256)) * (PART // 256) + b"rest"
WANTED = (file("raw.csv", RAW), folder("data", FILES), file("large", LARGE))
HELD = objects(RAW, LARGE, folders=(FILES,))


class Remote:
    """A DVC remote in a bucket."""

    def __init__(self, server: S3Server, bucket: str, held: Mapping[str, bytes], prefix: str = "dvc/") -> None:
        self.server = server
        self.client = server.client()
        self.bucket = bucket
        self.prefix = prefix
        self.asked: list[str] = []
        for name in ("ListObjectsV2", "HeadObject", "GetObject"):
            self.client.meta.events.register(f"before-call.s3.{name}", self._count(name))
        for key, data in held.items():
            self.put(key, data)

    def _count(self, name: str) -> Any:
        return lambda **_: self.asked.append(name)

    def put(self, key: str, data: bytes, **options: Any) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data, **options)

    def put_in_parts(self, key: str, data: bytes, **options: Any) -> None:
        where = {"Bucket": self.bucket, "Key": self.prefix + key}
        upload = {**where, "UploadId": self.client.create_multipart_upload(**where, **options)["UploadId"]}
        parts = []
        for number, start in enumerate(range(0, max(len(data), 1), PART), 1):
            done = self.client.upload_part(**upload, PartNumber=number, Body=data[start : start + PART])
            parts.append({"PartNumber": number, "ETag": done["ETag"]})
        self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def check(self, *wanted: Wanted, read: bool = False, client: Any = None) -> tuple[Finding, ...]:
        self.asked.clear()
        uri = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        return check_remote(uri, wanted, storages=Storages(client or self.client), read=read)

    def state(self) -> dict[str, Any]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {item["Key"]: (item["ETag"], item["Size"], item["LastModified"])
                for page in pages for item in page.get("Contents", ())}  # fmt: skip


@pytest.fixture
def remote(s3_server: S3Server, s3_bucket: str) -> Remote:
    return Remote(s3_server, s3_bucket, HELD)


def test_whole(remote: Remote) -> None:
    before = remote.state()
    assert remote.check(*WANTED) == ()
    assert remote.check(*WANTED, read=True) == ()
    assert remote.state() == before


def test_at_the_top_of_a_bucket(s3_server: S3Server, s3_bucket: str) -> None:
    assert Remote(s3_server, s3_bucket, HELD, "").check(*WANTED) == ()


def test_an_object_that_was_overwritten(remote: Remote) -> None:
    remote.put(key_of(md5(RAW)), b"RAW\n")
    for read in (False, True):
        (found,) = remote.check(*WANTED, read=read)
        assert (found.code, found.subject, found.found) == ("REMOTE_CORRUPT", "raw.csv", md5(b"RAW\n"))
    remote.put(key_of(md5(RAW)), b"longer\n")
    (found,) = remote.check(*WANTED)
    assert (found.expected, found.found) == ("4 bytes", "7")


def test_an_object_that_is_missing(remote: Remote) -> None:
    remote.delete(key_of(md5(RAW)))
    remote.delete(key_of(md5(b"1,2\n")))
    assert codes(remote.check(*WANTED)) == [("REMOTE_MISSING", "raw.csv"), ("REMOTE_MISSING", "data/a.csv")]


def test_a_listing_that_was_tampered_with(remote: Remote) -> None:
    key = key_of(listing_digest(FILES))
    remote.put(key, listing({**FILES, "a.csv": b"evil"}))
    assert codes(remote.check(*WANTED)) == [("REMOTE_CORRUPT", "data")]
    remote.delete(key)
    assert codes(remote.check(*WANTED)) == [("REMOTE_MISSING", "data")]


def test_an_object_that_was_uploaded_in_parts(remote: Remote) -> None:
    remote.put_in_parts(key_of(md5(LARGE)), LARGE)
    assert codes(remote.check(*WANTED)) == [("REMOTE_UNPROVED", "large")]
    assert remote.check(*WANTED, read=True) == ()
    assert "GetObject" in remote.asked
    remote.put_in_parts(key_of(md5(LARGE)), LARGE[:-1] + b"!")
    assert codes(remote.check(*WANTED)) == [("REMOTE_UNPROVED", "large")]
    assert codes(remote.check(*WANTED, read=True)) == [("REMOTE_CORRUPT", "large")]
    # One part is a part, too.
    remote.put_in_parts(key_of(md5(RAW)), RAW)
    assert ("REMOTE_UNPROVED", "raw.csv") in codes(remote.check(*WANTED))


def test_many_objects_take_one_listing(s3_server: S3Server, s3_bucket: str) -> None:
    data = [b"%d" % number for number in range(300)]
    remote = Remote(s3_server, s3_bucket, objects(*data))
    remote.client.meta.events.register(
        "before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=100)
    )
    wanted = [file(f"f{number}", one) for number, one in enumerate(data)]
    assert remote.check(*wanted) == ()
    assert remote.asked == ["ListObjectsV2"] * 3
    remote.put(key_of(md5(b"7")), b"!")
    remote.delete(key_of(md5(b"8")))
    assert codes(remote.check(*wanted)) == [("REMOTE_CORRUPT", "f7"), ("REMOTE_MISSING", "f8")]
    assert remote.asked == ["ListObjectsV2"] * 3 + ["HeadObject"]


def test_a_versioned_bucket_shows_its_latest_word(s3_server: S3Server, s3_versioned_bucket: str) -> None:
    remote = Remote(s3_server, s3_versioned_bucket, HELD)
    remote.put(key_of(md5(RAW)), b"evil")
    assert codes(remote.check(*WANTED)) == [("REMOTE_CORRUPT", "raw.csv")]
    remote.delete(key_of(md5(RAW)))
    assert codes(remote.check(*WANTED)) == [("REMOTE_MISSING", "raw.csv")]


def test_no_such_bucket(remote: Remote) -> None:
    remote.bucket = "no-such-bucket-anywhere"
    more = [file(f"f{number}", b"%d" % number) for number in range(40)]
    for wanted in (WANTED, WANTED[:1], more):
        found = remote.check(*wanted)
        assert {(finding.code, finding.severity) for finding in found} == {("BACKEND_UNAVAILABLE", "unverifiable")}


def test_wrong_credentials(remote: Remote) -> None:
    if remote.server.kind == "moto":
        pytest.skip("moto checks no credentials")
    stranger = replace(remote.server, access_key="STRANGER", secret_key="x" * 40).client()
    found = remote.check(*WANTED, client=stranger)
    assert {(finding.code, finding.severity) for finding in found} == {("PERMISSION_DENIED", "unverifiable")}


def test_an_endpoint_where_nobody_listens(remote: Remote) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    nobody = replace(remote.server, endpoint_url=f"http://127.0.0.1:{port}").client()
    found = remote.check(*WANTED, client=nobody)
    assert {(finding.code, finding.severity) for finding in found} == {("BACKEND_UNAVAILABLE", "unverifiable")}


def test_facts_of_an_object(remote: Remote) -> None:
    storage = S3Storage(remote.client)
    facts = storage.facts(f"s3://{remote.bucket}/dvc/{key_of(md5(RAW))}")
    assert facts is not None
    assert (facts.size, facts.pin, facts.checksums) == (4, f'"{md5(RAW)}"', {})
    assert storage.facts(f"s3://{remote.bucket}/dvc/none") is None


def test_pages_of_a_listing(remote: Remote) -> None:
    pages = list(S3Storage(remote.client).pages(f"s3://{remote.bucket}/dvc/files/md5"))
    names = {entry.name: entry.size for page in pages for entry in page}
    assert names == {key.removeprefix("files/md5/"): len(data) for key, data in HELD.items()}
    assert list(S3Storage(remote.client).pages(f"s3://{remote.bucket}/none")) == [[]]


# --- Checksums, which not every real server keeps: a mock, whose answers have the forms that AWS documents ---


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


def test_sha256_of_the_whole_object(moto: S3Server) -> None:
    remote = Remote(moto, moto.make_bucket(), {})
    key = key_of(md5(LARGE))
    known, unknown = file("large", LARGE, sha256=sha256(LARGE)), file("large", LARGE)
    remote.put_in_parts(key, LARGE, ChecksumAlgorithm="SHA256", ChecksumType="FULL_OBJECT")
    assert remote.check(known) == ()
    assert remote.asked == ["HeadObject"]
    assert codes(remote.check(unknown)) == [("REMOTE_UNPROVED", "large")]
    assert remote.check(unknown, read=True) == ()
    remote.put_in_parts(key, LARGE[:-1] + b"!", ChecksumAlgorithm="SHA256", ChecksumType="FULL_OBJECT")
    assert codes(remote.check(known)) == [("REMOTE_CORRUPT", "large")]


@pytest.mark.parametrize("kind", [{"ChecksumType": "COMPOSITE"}, {}], ids=["composite", "unsaid"])
def test_sha256_of_parts(moto: S3Server, kind: dict[str, str]) -> None:
    remote = Remote(moto, moto.make_bucket(), {})
    remote.put_in_parts(key_of(md5(LARGE)), LARGE, ChecksumAlgorithm="SHA256", **kind)
    known = file("large", LARGE, sha256=sha256(LARGE))
    assert codes(remote.check(known)) == [("REMOTE_UNPROVED", "large")]
    assert remote.check(known, read=True) == ()
