"""Encrypted artifacts in other S3 servers than the rest of the tests has: they answer differently.

SeaweedFS heeds all conditions and keeps versions. JuiceFS's gateway, MinIO's code of 2021, does neither, and knows no
trailing checksums.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.download import download
from sealflow.actions.upload import upload_artifact
from sealflow.errors import ArtifactError, SealflowError, UnavailableError, VerificationError
from sealflow.storage import Storages
from sealflow.storage.s3_uploads import S3Outgoing
from tests.pki import write_key
from tests.servers import juicefs, seaweed
from tests.servers.fault_proxy import Fault, FaultProxy
from tests.servers.s3 import S3Server

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(seaweed.program() is None, reason="SeaweedFS is not installed"),
    pytest.mark.skipif(juicefs.program() is None, reason="JuiceFS is not installed"),
    pytest.mark.xdist_group("other-servers"),
]

#: Three parts and a bit.
SIZE = (48 << 20) + 5


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[S3Server]:
    with seaweed.seaweedfs() as started:
        yield started


@pytest.fixture(scope="module")
def juice() -> Iterator[S3Server]:
    with juicefs.juicefs() as started:
        yield started


class World:
    """A source, keys, and a bucket.

    Attributes:
        careful: What an upload to a store without conditions has to be told.
    """

    def __init__(self, folder: Path, client: Any, bucket: str, *, heeds: bool = True) -> None:
        self.careful = {} if heeds else {"overwrite": True}
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
        given = {"recipients": self.recipient, "signer": self.pair.signer, "storages": self.storages, **self.careful}
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


def client(server: S3Server, checksums: str = "when_required") -> Any:
    """Over TLS, with checksums of what is sent and read, or without."""
    return server.secure().client(request_checksum_calculation=checksums, response_checksum_validation=checksums)


@pytest.fixture(params=["when_required", "when_supported"])
def heeding(request: pytest.FixtureRequest, seaweedfs: S3Server, tmp_path: Path) -> World:
    """A store that heeds conditions and keeps versions."""
    return World(tmp_path, client(seaweedfs, request.param), seaweedfs.make_bucket(versioned=True))


@pytest.fixture
def careless(juice: S3Server, tmp_path: Path) -> World:
    """A store that replaces what lies there, whatever it is asked."""
    return World(tmp_path, client(juice), juice.make_bucket(), heeds=False)


@pytest.fixture(params=["seaweedfs", "juicefs"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Each of them."""
    if request.param == "juicefs":
        return request.getfixturevalue("careless")
    server = request.getfixturevalue("seaweedfs")
    return World(tmp_path, client(server), server.make_bucket(versioned=True))


def test_there_and_back(heeding: World) -> None:
    uploaded = heeding.upload()
    assert uploaded.ref.version_id
    heeding.check(uploaded.ref)
    again = heeding.upload()
    assert again.existed
    assert again.ref == uploaded.ref


def test_something_else_that_lies_there_stays(heeding: World) -> None:
    ref = heeding.upload().ref
    (heeding.source / "sub" / "läßt.txt").write_text("other\n")
    with pytest.raises(ArtifactError) as caught:
        heeding.upload()
    assert caught.value.code == "ARTIFACT_EXISTS"
    other = heeding.upload(overwrite=True).ref
    assert other.version_id != ref.version_id
    heeding.check(other)


@pytest.mark.parametrize("size", [SIZE, 1], ids=["in-parts", "at-once"])
@pytest.mark.parametrize(("there", "code"), [({"models/churn"}, "ARTIFACT_EXISTS"), (set(), "OVERWRITE_NOT_PROTECTED")])
def test_nothing_is_entrusted_to_a_store_that_would_replace_it(
    careless: World, size: int, there: set[str], code: str
) -> None:
    (careless.source / "weights.bin").write_bytes(os.urandom(size))
    bucket = careless.uri.split("/")[2]
    for key in there:
        careless.client.put_object(Bucket=bucket, Key=key, Body=b"theirs")
    with pytest.raises(SealflowError) as caught:
        careless.upload(overwrite=False)
    assert caught.value.code == code
    left = {item["Key"] for item in careless.client.list_objects_v2(Bucket=bucket).get("Contents", ())}
    assert {key for key in left if ".evidence/" not in key} == there, "not even what was tried out"
    assert not careless.client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_what_lies_there_is_not_created_again(careless: World) -> None:
    """Policies, lists and what a quarantine keeps are created, and nobody expects them to be replaced."""
    storage, place = careless.storages.for_uri(careless.uri), f"{careless.uri}/policy.json"
    assert storage.create(place, b"first")
    assert not storage.create(place, b"second")
    assert storage.get(place, 10) == b"first"


def test_there_and_back_where_one_has_to_be_careful(careless: World) -> None:
    first = careless.upload().ref
    assert first.version_id is None
    careless.check(first)
    (careless.source / "sub" / "läßt.txt").write_text("other\n")
    second = careless.upload().ref
    careless.check(second)
    with pytest.raises(VerificationError) as caught:
        careless.check(first)
    assert caught.value.code == "DIGEST_MISMATCH"


def test_an_object_that_is_replaced_while_it_is_read_is_noticed(careless: World) -> None:
    ref = careless.upload().ref
    trusted = {"recipients": careless.recipient, "identities": str(careless.pair.public)}
    with sealflow.reading(ref, storages=careless.storages, **trusted) as artifact:
        [name] = [item.name for item in artifact.files if item.name.endswith("weights.bin")]
        assert len(artifact.read(name, 0, 10)) == 10
        careless.upload()
        with pytest.raises(ArtifactError) as caught:
            artifact.read(name, 20 << 20, 10)
        assert caught.value.code == "ARTIFACT_CHANGED"


def test_bytes_altered_on_the_way_up_are_refused(careless: World, juice: S3Server) -> None:
    """Over plain HTTP each request's signature covers its body."""
    with FaultProxy(juice.endpoint_url) as proxy:
        proxy.add(Fault("corrupt_upload", when="UploadPart", times=99, after=4321))
        through = replace(juice, endpoint_url=proxy.endpoint).client(request_checksum_calculation="when_required")
        with pytest.raises(UnavailableError):
            careless.upload(storages=Storages(through))
        assert proxy.seen("UploadPart")
    bucket = careless.uri.split("/")[2]
    assert "Contents" not in careless.client.list_objects_v2(Bucket=bucket)


def test_a_client_that_adds_what_the_store_does_not_know_is_explained(careless: World, juice: S3Server) -> None:
    with pytest.raises(UnavailableError, match="when_required"):
        careless.upload(storages=Storages(client(juice, "when_supported")))


def test_an_upload_goes_on_where_it_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: set[int] = set()
    there, broken, send = threading.Event(), threading.Event(), S3Outgoing.send

    def breaking(self: S3Outgoing, number: int, offset: int, data: memoryview) -> str:
        if number == 3 and not broken.is_set():
            assert there.wait(60)
            broken.set()
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
