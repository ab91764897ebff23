"""Encrypted transfers with a real S3 server behind a proxy that fails: nothing half visible, nothing lost, no number
used for two contents, and a way to go on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions.download import download_artifact
from sealflow.actions.keys_generate import generate_key
from sealflow.actions.reading import reading
from sealflow.actions.upload import Uploaded, upload_artifact
from sealflow.actions.uploads import unfinished_uploads
from sealflow.actions.verify import verify
from sealflow.errors import SealflowError, UnavailableError, VerificationError
from sealflow.manifest import build as build_module
from sealflow.storage import Storages
from sealflow.transfer.send import PART
from tests.servers.fault_proxy import Fault, FaultProxy, Seen
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

SIZE = 2 * PART + (4 << 20) + 12345  # three parts


class Field:
    """A source, keys, and a bucket behind a proxy."""

    def __init__(self, tmp_path: Path, server: S3Server, bucket: str, proxy: FaultProxy) -> None:
        self.tmp_path, self.bucket, self.proxy = tmp_path, bucket, proxy
        self.earlier: list[Seen] = []
        generate_key(str(tmp_path / "key"))
        (tmp_path / "aes").write_bytes(os.urandom(32))
        self.source = tmp_path / "model"
        self.source.mkdir()
        (self.source / "weights.bin").write_bytes(os.urandom(SIZE))
        (self.source / "note").write_text("a note")
        self.server = server
        self.storages = self._storages(proxy.endpoint)
        self.direct = self._storages(server.endpoint_url)
        self.uri = f"s3://{bucket}/model.sealed"

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self.earlier += self.proxy.seen("UploadPart")
        self.proxy.clear()

    def _storages(self, endpoint: str) -> Storages:
        retries = {"mode": "standard", "total_max_attempts": 4}
        return Storages(replace(self.server, endpoint_url=endpoint).client(retries=retries, read_timeout=3))

    def upload(self, **options: Any) -> Uploaded:
        return upload_artifact(
            self.source,
            self.uri,
            recipients=f"aes:{self.tmp_path / 'aes'}",
            signer=f"file:{self.tmp_path / 'key'}",
            overwrite=True,
            storages=self.storages,
            **options,
        )

    def download(self, uploaded: Uploaded, to: str = "back") -> Path:
        target = self.tmp_path / to
        download_artifact(uploaded.ref, target, storages=self.storages, **self.reader)
        return target

    @property
    def reader(self) -> dict[str, Any]:
        return {"recipients": f"aes:{self.tmp_path / 'aes'}", "identities": str(self.tmp_path / "key.pub")}

    def check(self, uploaded: Uploaded) -> None:
        """What lies there opens, without the proxy."""
        verdict = verify(uploaded.ref, storages=self.direct, **self.reader)
        assert verdict.passed, verdict.findings

    def check_numbers(self) -> None:
        """Of each upload each part was only ever sent as the same bytes."""
        sent: dict[tuple[str, str], set[str]] = {}
        for seen in (*self.earlier, *self.proxy.seen("UploadPart")):
            sent.setdefault((seen.query["uploadId"], seen.query["partNumber"]), set()).add(seen.digest)
        assert sent
        assert all(len(digests) == 1 for digests in sent.values())


@pytest.fixture
def there(tmp_path: Path, s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    monkeypatch.setenv("SEALFLOW_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    with FaultProxy(s3_server.endpoint_url) as proxy:
        yield Field(tmp_path, s3_server, s3_bucket, proxy)


@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "PutObject", "CompleteMultipartUpload"])
@pytest.mark.parametrize("kind", ["error", "slow_down", "reset", "lost", "lost_error", "stall"])
def test_an_upload_outlives_a_fault(there: Field, operation: str, kind: str) -> None:
    there.proxy.add(Fault(kind, when=operation, times=2 if operation == "UploadPart" else 1, seconds=4))
    uploaded = there.upload()
    assert [seen for seen in there.proxy.seen(operation) if seen.fault == kind]
    there.check(uploaded)
    there.check_numbers()


def test_bytes_altered_on_the_way_up_never_become_the_object(there: Field) -> None:
    """Over plain HTTP each request's signature covers its body, and the server refuses it."""
    there.proxy.add(Fault("corrupt_upload", when="UploadPart", after=4321))
    for _ in range(2):
        with contextlib.suppress(UnavailableError):  # some servers let it be tried again at once, others do not
            there.check(there.upload())
    there.check(there.upload())


@pytest.mark.parametrize("kind", ["error", "slow_down", "reset", "stall", "truncate", "corrupt"])
def test_a_download_outlives_a_fault(there: Field, kind: str) -> None:
    uploaded = there.upload()
    large = [seen for seen in there.proxy.seen("GetObject") if seen.length == 0]
    assert large is not None
    wanted = lambda seen: seen.operation == "GetObject" and "model.sealed" in seen.path.split("?")[0]  # noqa: E731
    there.proxy.add(
        Fault(kind, when=lambda seen: wanted(seen) and ".evidence" not in seen.path, after=70_000, seconds=4)
    )
    target = there.download(uploaded)
    assert (target / "weights.bin").read_bytes() == (there.source / "weights.bin").read_bytes()


def test_a_store_that_stays_away_leaves_nothing_and_is_gone_on_with(there: Field) -> None:
    there.proxy.add(Fault("slow_down", when=lambda seen: seen.query.get("partNumber") == "3", times=1000))
    with pytest.raises(UnavailableError):
        there.upload()
    assert there.direct.for_uri(there.uri).locate(there.uri) is None
    assert len(unfinished_uploads(f"s3://{there.bucket}/", storages=there.direct)) == 1
    there.calm()
    before = len(there.proxy.seen("UploadPart"))
    uploaded = there.upload()
    again = [seen.query["partNumber"] for seen in there.proxy.seen("UploadPart")[before:]]
    assert set(again) == {"3"}, "what is there after a check is not sent again"
    there.check(uploaded)
    there.check_numbers()
    assert unfinished_uploads(f"s3://{there.bucket}/", storages=there.direct) == ()


def test_another_source_after_a_failure_gets_another_key(there: Field) -> None:
    there.proxy.add(Fault("slow_down", when=lambda seen: seen.query.get("partNumber") == "3", times=1000))
    with pytest.raises(UnavailableError):
        there.upload()
    begun = {seen.query["uploadId"] for seen in there.proxy.seen("UploadPart")}
    there.calm()
    weights = bytearray((there.source / "weights.bin").read_bytes())
    weights[10_000_000] ^= 1
    (there.source / "weights.bin").write_bytes(weights)
    uploaded = there.upload()
    there.check(uploaded)
    there.check_numbers()
    assert len(begun) == 1
    assert begun.isdisjoint({seen.query["uploadId"] for seen in there.proxy.seen("UploadPart")})
    assert unfinished_uploads(f"s3://{there.bucket}/", storages=there.direct) == ()


def test_credentials_that_expire_midway(there: Field) -> None:
    there.proxy.add(
        Fault(
            "error", when=lambda seen: seen.query.get("partNumber") == "2", times=1000, status=400, code="ExpiredToken"
        )
    )
    with pytest.raises(UnavailableError) as caught:
        there.upload()
    assert caught.value.code == "CREDENTIALS_EXPIRED"
    assert caught.value.next_step
    there.calm()
    there.check(there.upload())
    there.check_numbers()


def test_a_commit_whose_answer_is_lost_and_asked_for_again(there: Field) -> None:
    there.proxy.add(Fault("lost", when="CompleteMultipartUpload", times=1))
    uploaded = there.upload()
    there.check(uploaded)


def test_an_object_replaced_while_it_is_read(there: Field) -> None:
    uploaded = there.upload()
    client = there.server.client()

    def swap(_: object) -> None:
        client.put_object(Bucket=there.bucket, Key="model.sealed", Body=os.urandom(SIZE))

    with reading(uploaded.ref, storages=there.storages, **there.reader) as artifact:
        artifact.read("weights.bin", 0, 1000)
        swap(None)
        with pytest.raises(SealflowError) as caught:
            artifact.read("weights.bin", 5 << 20, 1000)
    assert caught.value.code == "ARTIFACT_CHANGED"


def test_a_full_disk_leaves_nothing_and_is_gone_on_with(there: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = there.upload()
    written = [0]
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        written[0] += len(data)
        if written[0] > SIZE - (8 << 20):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(build_module.os, "write", full)
        with pytest.raises(UnavailableError, match=r"No space|room|written"):
            there.download(uploaded)
    assert not (there.tmp_path / "back").exists()
    before = len(there.proxy.seen("GetObject"))
    target = there.download(uploaded)
    assert (target / "weights.bin").read_bytes() == (there.source / "weights.bin").read_bytes()
    ranges = [seen.headers.get("range", "") for seen in there.proxy.seen("GetObject")[before:]]
    large = [text for text in ranges if text and _length(text) > 4 << 20]
    assert len(large) < 3, "what is there after a check is not fetched again"


def test_a_store_that_stays_away_while_it_is_read(there: Field) -> None:
    uploaded = there.upload()
    there.proxy.add(Fault("slow_down", when="GetObject", times=1000))
    with pytest.raises(VerificationError) as caught:
        there.download(uploaded)
    assert caught.value.verdict.status == "unverifiable"
    assert not (there.tmp_path / "back").exists()


def _length(text: str) -> int:
    first, last = text.removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1
