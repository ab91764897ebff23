"""Encrypted artifacts in another S3 server than the other tests have: SeaweedFS, which answers differently."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.download import download
from sealflow.actions.upload import upload_artifact
from sealflow.errors import ArtifactError, UnavailableError
from sealflow.storage import Storages
from sealflow.storage.s3_uploads import S3Outgoing
from tests.pki import write_key
from tests.servers import seaweed
from tests.servers.s3 import S3Server

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(seaweed.program() is None, reason="SeaweedFS is not installed"),
    pytest.mark.xdist_group("seaweed"),
]

#: Three parts and a bit.
SIZE = (48 << 20) + 5


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with seaweed.seaweedfs() as started:
        yield started


class World:
    """A source, keys, and a bucket that keeps versions."""

    def __init__(self, folder: Path, client: Any, bucket: str) -> None:
        self.pair, self.folder = write_key(folder), folder
        self.client, self.storages = client, Storages(client)
        self.uri = f"s3://{bucket}/models/churn"
        (folder / "aes.key").write_bytes(os.urandom(32))
        self.recipient = f"aes:{folder / 'aes.key'}"
        self.source = folder / "churn"
        (self.source / "sub").mkdir(parents=True)
        (self.source / "weights.bin").write_bytes(os.urandom(SIZE))
        (self.source / "sub" / "läßt.txt").write_text("grüßen\n")

    def upload(self, **options: Any) -> Any:
        given = {"recipients": self.recipient, "signer": self.pair.signer, "storages": self.storages}
        return upload_artifact(self.source, self.uri, **(given | options))

    def check(self, ref: Any) -> None:
        """What comes back is what was sent."""
        back = self.folder / "back"
        download(
            ref, back, recipients=self.recipient, identities=str(self.pair.public), storages=self.storages,
            overwrite=True,
        )  # fmt: skip
        for path in ("weights.bin", "sub/läßt.txt"):
            assert (back / path).read_bytes() == (self.source / path).read_bytes()


@pytest.fixture(params=["when_supported", "when_required"])
def world(request: pytest.FixtureRequest, server: S3Server, tmp_path: Path) -> World:
    """Over TLS, with and without checksums of what is sent."""
    config = dict.fromkeys(("request_checksum_calculation", "response_checksum_validation"), request.param)
    return World(tmp_path, server.secure().client(**config), server.make_bucket(versioned=True))


def test_there_and_back(world: World) -> None:
    uploaded = world.upload()
    assert uploaded.ref.version_id
    world.check(uploaded.ref)
    again = world.upload()
    assert again.existed
    assert again.ref == uploaded.ref


def test_something_else_that_lies_there_stays(world: World) -> None:
    ref = world.upload().ref
    (world.source / "sub" / "läßt.txt").write_text("other\n")
    with pytest.raises(ArtifactError) as caught:
        world.upload()
    assert caught.value.code == "ARTIFACT_EXISTS"
    other = world.upload(overwrite=True).ref
    assert other.version_id != ref.version_id
    world.check(other)


def test_an_upload_goes_on_where_it_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: set[int] = set()
    there, send = threading.Event(), S3Outgoing.send

    def breaking(self: S3Outgoing, number: int, offset: int, data: memoryview) -> str:
        if number == 3 and not there.is_set():
            assert there.wait(60)
            raise UnavailableError("The network is gone.")
        tag = send(self, number, offset, data)
        arrived.add(number)
        if arrived >= {1, 2}:
            there.set()
        return tag

    monkeypatch.setattr(S3Outgoing, "send", breaking)
    with pytest.raises(UnavailableError, match="gone"):
        world.upload()
    assert 3 not in arrived
    arrived.clear()
    uploaded = world.upload()
    assert 3 in arrived
    assert not arrived & {1, 2}, "what is there is not sent again"
    world.check(uploaded.ref)


def test_signed_in_place(world: World) -> None:
    uri = world.uri + "-clear"
    client, bucket = world.client, uri.split("/")[2]
    for name in ("a.bin", "sub/b.bin"):
        client.put_object(Bucket=bucket, Key=f"models/churn-clear/{name}", Body=name.encode())
    ref = sealflow.sign(uri, signer=world.pair.signer, storages=world.storages)
    trusted = {"identities": str(world.pair.public), "storages": world.storages}
    assert sealflow.verify(ref, **trusted).passed
    client.put_object(Bucket=bucket, Key="models/churn-clear/a.bin", Body=b"altered")
    assert sealflow.verify(ref, **trusted).status == "failed"
