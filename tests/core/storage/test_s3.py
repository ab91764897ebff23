"""S3, against a real server where there is one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import sealflow
from sealflow.actions.keys_generate import generate_key
from sealflow.errors import ArtifactError, EvidenceError, UnavailableError, UsageError
from sealflow.hashing import CHUNK
from sealflow.manifest import build_manifest
from sealflow.storage import Entry, Location, Storages
from sealflow.storage.s3 import S3Storage, split
from tests.pki import KeyPair, write_key
from tests.servers.s3 import S3Server
from tests.trees import SHAPES, write_tree


@pytest.fixture
def client(s3_server: S3Server) -> Any:
    return s3_server.client()


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path)


def put(client: Any, bucket: str, files: Any, prefix: str = "model") -> str:
    for name, data in files.items():
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)
    return f"s3://{bucket}/{prefix}"


def locate(storage: S3Storage, uri: str) -> Location:
    location = storage.locate(uri)
    assert location is not None
    return location


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/k", "s3://b/k"),
        ("s3://b/k/", "s3://b/k"),
        ("s3a://b/k", "s3://b/k"),
        ("s3n://b/k", "s3://b/k"),
        ("minio://b/k/x", "minio://b/k/x"),
        ("s3://b/a%20b", "s3://b/a%20b"),
        ("s3://b", "s3://b/"),
    ],
)
def test_canonical(uri: str, expected: str) -> None:
    assert S3Storage().canonical(uri) == expected


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///k", "s3://conn_id@bucket/k", "s3://key:secret@bucket/k", "s3://host:9000/k"]
)
def test_no_plain_bucket(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        split(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("shape", ["nested", "unicode-names", "names-with-spaces", "code-point-order-is-not-part-order",
                                   "empty-files", "hidden-and-quoted"])  # fmt: skip
def test_same_digest_as_on_disk(client: Any, s3_bucket: str, tmp_path: Path, shape: str) -> None:
    storage = S3Storage(client)
    uri = put(client, s3_bucket, SHAPES[shape])
    local = Storages().for_uri(str(tmp_path))
    on_disk = local.locate(str(write_tree(tmp_path / "model", SHAPES[shape])))
    assert on_disk is not None
    assert build_manifest(storage, locate(storage, uri)).resources == build_manifest(local, on_disk).resources


def test_more_objects_than_one_listing_page(client: Any, s3_bucket: str) -> None:
    storage = S3Storage(client)
    pages: list[str] = []
    client.meta.events.register("before-call.s3.ListObjectsV2", lambda **_: pages.append("page"))
    client.meta.events.register(
        "before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=50)
    )
    uri = put(client, s3_bucket, SHAPES["300-files"])
    assert len(build_manifest(storage, Location(uri, "tree", "model")).resources) == 300
    assert len(pages) == 6


def test_sign_and_verify(client: Any, s3_bucket: str, keys: KeyPair) -> None:
    storages = Storages(client)
    uri = put(client, s3_bucket, SHAPES["nested"])
    ref = sealflow.sign(uri, signer=keys.signer, storages=storages)
    assert ref.evidence == f"{uri}.evidence"
    assert sealflow.verify(ref, identities=str(keys.public), storages=storages).passed
    with sealflow.verified(ref, identities=str(keys.public), storages=storages) as copy:
        assert (Path(copy) / "a/b/c/deep.bin").read_bytes() == b"deep"
    client.put_object(Bucket=s3_bucket, Key="model/top.txt", Body=b"tap")
    verdict = sealflow.verify(ref, identities=str(keys.public), storages=storages)
    assert verdict.findings[0].code == "FILE_CHANGED"


def test_signing_twice_is_a_success_and_adds_only_new_statements(client: Any, s3_bucket: str, keys: KeyPair) -> None:
    storages = Storages(client)
    uri = put(client, s3_bucket, {"a": b"1"})
    first = sealflow.sign(uri, signer=keys.signer, storages=storages)
    second = sealflow.sign(uri, signer=keys.signer, storages=storages)
    assert first.digest == second.digest
    assert sealflow.verify(second, identities=str(keys.public), storages=storages).passed


def test_single_object(client: Any, s3_bucket: str, keys: KeyPair) -> None:
    storages = Storages(client)
    client.put_object(Bucket=s3_bucket, Key="model.bin", Body=b"weights")
    ref = sealflow.sign(f"s3://{s3_bucket}/model.bin", signer=keys.signer, storages=storages)
    assert str(ref.digest).startswith("sha256:")
    with sealflow.verified(ref, identities=str(keys.public), storages=storages) as copy:
        assert Path(copy).name == "model.bin"
        assert Path(copy).read_bytes() == b"weights"


def test_a_whole_bucket(client: Any, s3_bucket: str) -> None:
    storage = S3Storage(client)
    client.put_object(Bucket=s3_bucket, Key="a", Body=b"1")
    location = locate(storage, f"s3://{s3_bucket}")
    assert (location.kind, location.name) == ("tree", s3_bucket)
    assert [item.name for item in build_manifest(storage, location).resources] == ["a"]


def test_nothing_there(client: Any, s3_bucket: str) -> None:
    storage = S3Storage(client)
    assert storage.locate(f"s3://{s3_bucket}/absent") is None
    assert storage.get(f"s3://{s3_bucket}/absent", 10) is None
    assert storage.list_objects(f"s3://{s3_bucket}/absent", 10) == []
    # A marker alone is an empty folder, which is no artifact.
    client.put_object(Bucket=s3_bucket, Key="empty/", Body=b"")
    assert storage.locate(f"s3://{s3_bucket}/empty") is None


def test_no_such_bucket(client: Any) -> None:
    with pytest.raises(UnavailableError, match="bucket's name"):
        S3Storage(client).get("s3://no-such-bucket-anywhere/k", 10)


def test_wrong_credentials(s3_server: S3Server, s3_bucket: str) -> None:
    from dataclasses import replace

    if s3_server.kind == "moto":
        pytest.skip("moto checks no credentials")
    stranger = replace(s3_server, access_key="STRANGER", secret_key="x" * 40).client()
    with pytest.raises(UnavailableError) as caught:
        S3Storage(stranger).get(f"s3://{s3_bucket}/k", 10)
    assert caught.value.code == "PERMISSION_DENIED"


def test_a_prefix_is_not_a_folder(client: Any, s3_bucket: str) -> None:
    """``model-2`` beside ``model`` is another artifact."""
    storage = S3Storage(client)
    uri = put(client, s3_bucket, {"a": b"1"})
    put(client, s3_bucket, {"b": b"2"}, "model-2")
    assert [item.name for item in build_manifest(storage, locate(storage, uri)).resources] == ["a"]
    assert storage.locate(f"s3://{s3_bucket}/mod") is None


def test_folder_markers_are_no_files_unless_they_hold_bytes(s3_server: S3Server, client: Any, s3_bucket: str) -> None:
    if s3_server.kind == "seaweedfs":
        pytest.skip("SeaweedFS has folders, and no objects in their place")
    storage = S3Storage(client)
    uri = put(client, s3_bucket, {"a": b"1", "": b"", "sub/": b""})
    assert [item.name for item in build_manifest(storage, locate(storage, uri)).resources] == ["a"]
    client.put_object(Bucket=s3_bucket, Key="model/sub/", Body=b"hidden")
    with pytest.raises(ArtifactError, match="shortest form"):
        build_manifest(storage, locate(storage, uri))


@pytest.mark.parametrize(
    "key", ["../escape", "a/../../b", "./a", "a//b", "/absolute", "a\\b", "a\u202eb", "a\x1bb"], ids=ascii
)
def test_hostile_keys_are_refused_by_name(s3_server: S3Server, client: Any, s3_bucket: str, key: str) -> None:
    from botocore.exceptions import ClientError

    storage = S3Storage(client)
    uri = put(client, s3_bucket, {"fine": b"1"})
    try:
        client.put_object(Bucket=s3_bucket, Key=f"model/{key}", Body=b"evil")
        stored = {item["Key"] for item in client.list_objects_v2(Bucket=s3_bucket)["Contents"]}
    except ClientError:
        stored = set()
    if f"model/{key}" not in stored:
        # A server that does not take such a key cannot list it; what a hostile one lists is refused all the same.
        listed = {"Contents": [{"Key": f"model/{key}", "Size": 4, "ETag": '"x"'}], "IsTruncated": False}
        storage = S3Storage(Listing(listed))
        with pytest.raises(ArtifactError, match="refused"):
            storage.entries(Location(uri, "tree", "model"))
        return
    with pytest.raises(ArtifactError, match="refused"):
        build_manifest(storage, locate(storage, uri))


class Listing:
    """A client that lists what it was told to."""

    def __init__(self, page: dict[str, Any]) -> None:
        self._page = page

    def list_objects_v2(self, **_: Any) -> dict[str, Any]:
        return self._page


def test_names_that_collide_elsewhere_are_refused(client: Any, s3_bucket: str) -> None:
    storage = S3Storage(client)
    uri = put(client, s3_bucket, {"Model.bin": b"1", "model.bin": b"2"})
    with pytest.raises(ArtifactError, match="side by side"):
        build_manifest(storage, locate(storage, uri))


def test_an_object_and_a_folder_at_one_place(client: Any, s3_bucket: str) -> None:
    storage = S3Storage(client)
    uri = put(client, s3_bucket, {"a": b"1"})
    client.put_object(Bucket=s3_bucket, Key="model", Body=b"an object")
    with pytest.raises(ArtifactError, match="object and a folder"):
        storage.locate(uri)
    location = locate(storage, uri + "/")
    assert location.kind == "tree"


def test_an_object_that_is_replaced_after_the_listing(client: Any, s3_bucket: str) -> None:
    storage = S3Storage(client)
    location = locate(storage, put(client, s3_bucket, {"a": b"old", "b": b"old"}))
    entries = storage.entries(location)
    client.put_object(Bucket=s3_bucket, Key="model/a", Body=b"new")
    client.delete_object(Bucket=s3_bucket, Key="model/b")
    with storage.open(location) as reader:
        for entry in entries:
            with pytest.raises(ArtifactError) as caught:
                reader.read(entry, lambda piece: None)
            assert caught.value.code == "ARTIFACT_CHANGED"


def test_a_listing_that_lies_about_the_size(client: Any, s3_bucket: str) -> None:
    storage = S3Storage(client)
    location = locate(storage, put(client, s3_bucket, {"a": b"12345"}))
    (entry,) = storage.entries(location)
    with storage.open(location) as reader, pytest.raises(ArtifactError, match="the listing said 4"):
        reader.read(Entry("a", 4, entry.pin), lambda piece: None)


def test_a_versioned_object_is_pinned_by_the_reference(
    s3_server: S3Server, client: Any, s3_versioned_bucket: str, keys: KeyPair
) -> None:
    storages = Storages(client)
    uri = f"s3://{s3_versioned_bucket}/model.bin"
    client.put_object(Bucket=s3_versioned_bucket, Key="model.bin", Body=b"signed")
    ref = sealflow.sign(uri, signer=keys.signer, storages=storages)
    assert ref.version_id
    client.put_object(Bucket=s3_versioned_bucket, Key="model.bin", Body=b"newer!")
    with sealflow.verified(ref, identities=str(keys.public), storages=storages) as copy:
        assert Path(copy).read_bytes() == b"signed"
    assert sealflow.verify(uri, identities=str(keys.public), storages=storages).status == "failed"
    client.delete_object(Bucket=s3_versioned_bucket, Key="model.bin", VersionId=ref.version_id)
    assert not sealflow.verify(ref, identities=str(keys.public), storages=storages).passed


def test_create_is_once(client: Any, s3_bucket: str) -> None:
    storage = S3Storage(client)
    uri = f"s3://{s3_bucket}/store/object.json"
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.get(uri, 10) == b"first"
    with pytest.raises(EvidenceError):
        storage.get(uri, 4)


def test_create_races_have_one_winner(s3_server: S3Server, s3_bucket: str) -> None:
    if s3_server.kind == "moto":
        pytest.skip("moto does not serialise conditional writes")
    start = threading.Barrier(6)
    won: list[int] = []

    def work(number: int) -> None:
        storage = S3Storage(s3_server.client())
        start.wait()
        if storage.create(f"s3://{s3_bucket}/object.json", b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert S3Storage(s3_server.client()).get(f"s3://{s3_bucket}/object.json", 10) == b"%d" % won[0]


def test_listings(client: Any, s3_bucket: str) -> None:
    storage = S3Storage(client)
    put(client, s3_bucket, {"b": b"", "a": b"", "sub/x": b"", "other/y": b""}, "store")
    assert storage.list_objects(f"s3://{s3_bucket}/store", 10) == ["a", "b"]
    assert storage.list_folders(f"s3://{s3_bucket}/store", 10) == ["other", "sub"]
    assert len(storage.list_objects(f"s3://{s3_bucket}/store", 1)) == 2


# --- A connection that breaks ---


class CuttingProxy:
    """Forwards TCP and cuts the first ``cuts`` answers that carry much, after ``after`` bytes."""

    def __init__(self, target: str, after: int, cuts: int) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._after = after
        self.cuts = cuts
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                browser, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)  # type: ignore[arg-type]
            threading.Thread(target=self._upward, args=(browser, server), daemon=True).start()
            threading.Thread(target=self._downward, args=(server, browser), daemon=True).start()

    def _upward(self, browser: socket.socket, server: socket.socket) -> None:
        try:
            while data := browser.recv(65536):
                self.requests += data.count(b"GET /")
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _downward(self, server: socket.socket, browser: socket.socket) -> None:
        passed = 0
        try:
            while data := server.recv(65536):
                browser.sendall(data)
                passed += len(data)
                if passed > self._after and self.cuts:
                    self.cuts -= 1
                    break
        except OSError:
            pass
        for each in (server, browser):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def cut(s3_server: S3Server, request: pytest.FixtureRequest) -> Iterator[tuple[CuttingProxy, Any]]:
    from dataclasses import replace

    proxy = CuttingProxy(s3_server.endpoint_url, after=2 * CHUNK, cuts=request.param)
    yield proxy, replace(s3_server, endpoint_url=proxy.endpoint).client()
    proxy.close()


@pytest.mark.parametrize("cut", [1, 3], indirect=True)
def test_a_cut_connection_is_resumed_under_the_same_version(
    client: Any, s3_bucket: str, cut: tuple[CuttingProxy, Any]
) -> None:
    import hashlib
    import os

    proxy, cutting = cut
    data = os.urandom(8 * CHUNK)
    client.put_object(Bucket=s3_bucket, Key="model.bin", Body=data)
    storage = S3Storage(cutting)
    location = locate(storage, f"s3://{s3_bucket}/model.bin")
    manifest = build_manifest(storage, location)
    assert manifest.resources[0].digest == hashlib.sha256(data).hexdigest()
    assert proxy.cuts == 0, "nothing was cut, so nothing was tried"


@pytest.mark.parametrize("cut", [1], indirect=True)
def test_an_object_that_is_replaced_while_the_connection_is_cut(
    client: Any, s3_bucket: str, cut: tuple[CuttingProxy, Any]
) -> None:
    """A resumed read never continues in other bytes."""
    proxy, cutting = cut
    client.put_object(Bucket=s3_bucket, Key="model.bin", Body=b"a" * (8 * CHUNK))
    storage = S3Storage(cutting)
    location = locate(storage, f"s3://{s3_bucket}/model.bin")
    (entry,) = storage.entries(location)
    replaced: list[bool] = []

    def consume(piece: Any) -> None:
        if not replaced:
            replaced.append(True)
            client.put_object(Bucket=s3_bucket, Key="model.bin", Body=b"b" * (8 * CHUNK))

    with storage.open(location) as reader, pytest.raises(ArtifactError) as caught:
        reader.read(entry, consume)
    assert caught.value.code == "ARTIFACT_CHANGED"
    assert proxy.cuts == 0


@pytest.mark.parametrize("cut", [1000], indirect=True)
def test_a_connection_that_always_breaks_is_unavailable(
    client: Any, s3_bucket: str, cut: tuple[CuttingProxy, Any], keys: KeyPair
) -> None:
    _, cutting = cut
    client.put_object(Bucket=s3_bucket, Key="model.bin", Body=b"a" * (64 * CHUNK))
    ref = sealflow.sign(f"s3://{s3_bucket}/model.bin", signer=keys.signer, storages=Storages(client))
    verdict = sealflow.verify(ref, identities=str(keys.public), storages=Storages(cutting))
    assert verdict.status == "unverifiable"
    assert verdict.exit_status == 5


def test_an_endpoint_where_nobody_listens(s3_server: S3Server, keys: KeyPair) -> None:
    from dataclasses import replace

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = replace(s3_server, endpoint_url=f"http://127.0.0.1:{port}").client()
    verdict = sealflow.verify("s3://bucket/model", identities=str(keys.public), storages=Storages(client))
    assert verdict.status == "unverifiable"


@pytest.mark.slow
def test_signing_and_verifying_stream_in_constant_memory(
    client: Any, s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    """128 MiB in the store cost less than 32 MiB more than one byte does."""
    generate_key(str(tmp_path / "key.pem"))
    script = """
import resource, sys, sealflow
ref = sealflow.sign(sys.argv[1], signer="file:" + sys.argv[2])
assert sealflow.verify(ref, identities=sys.argv[2] + ".pub").passed
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    peaks = []
    for size in (1, 128 << 20):
        client.put_object(Bucket=s3_bucket, Key=f"m{size}/weights.bin", Body=bytes(size))
        done = subprocess.run(
            [sys.executable, "-c", script, f"s3://{s3_bucket}/m{size}", str(tmp_path / "key.pem")],
            env={**os.environ, **s3_server.environment, "SEALFLOW_AUDIT_SPOOL": str(tmp_path / "spool")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 32


def test_listing_a_whole_bucket(client: Any, s3_bucket: str) -> None:
    put(client, s3_bucket, {"a": b"", "sub/b": b""})
    client.put_object(Bucket=s3_bucket, Key="top", Body=b"")
    storage = S3Storage(client)
    for uri in (f"s3://{s3_bucket}", f"s3://{s3_bucket}/"):
        assert storage.list_objects(uri, 10) == ["top"]
        assert storage.list_folders(uri, 10) == ["model"]


# --- The account that owns a bucket ---


@pytest.mark.parametrize("given", ["environment", "argument"])
def test_every_request_names_the_account_that_must_own_the_bucket(
    client: Any, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    owners = {s3_bucket: "111122223333", "other": "444455556666"}
    if given == "environment":
        monkeypatch.setenv("SEALFLOW_BUCKET_OWNERS", ",".join(f"{bucket}={owner}" for bucket, owner in owners.items()))
    storage = S3Storage(client, owners if given == "argument" else None)
    named: dict[str, set[str | None]] = {}

    def note(model: Any, params: dict[str, Any], **_: Any) -> None:
        named.setdefault(model.name, set()).add(params["headers"].get("x-amz-expected-bucket-owner"))

    client.meta.events.register("before-call.s3", note)
    uri = f"s3://{s3_bucket}/model"
    storage.create(f"{uri}/a", b"1")
    storage.put(f"{uri}/b", b"2", overwrite=True)
    storage.put(f"{uri}/c", b"2", overwrite=False)
    location = locate(storage, uri)
    with storage.open(location) as reader:
        for entry in storage.entries(location):
            reader.read(entry, lambda piece: None)
    storage.entries(locate(storage, f"{uri}/a"))
    storage.get(f"{uri}/a", 9)
    storage.list_objects(uri, 9)
    storage.facts(f"{uri}/a")
    list(storage.pages(uri))
    with storage.open_object(f"{uri}/a", 1) or pytest.fail("nothing there") as found:
        found.read_into(0, memoryview(bytearray(1)))
    out = storage.begin(f"{uri}/d", overwrite=True)
    tag = out.send(1, 0, memoryview(b"4"))
    out.present()
    out.commit([(1, tag)])
    storage.begin(f"{uri}/e", overwrite=True).token  # noqa: B018 - begins it
    for item in storage.unfinished(uri, 9):
        (storage.resume(item.uri, item.token, overwrite=True) or pytest.fail("unknown")).abort()
    assert set(named) == {
        "AbortMultipartUpload", "CompleteMultipartUpload", "CreateMultipartUpload", "DeleteObject", "GetObject",
        "HeadObject", "ListMultipartUploads", "ListObjectsV2", "ListParts", "PutObject", "UploadPart",
    }  # fmt: skip
    assert {name: owner for name, owner in named.items() if owner != {"111122223333"}} == {}


@pytest.mark.parametrize("text", ["bucket", "bucket=", "=111122223333", "bucket=12345", "bucket=11112222333x"])
def test_owners_that_are_written_wrongly_are_no_owners_left_out(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SEALFLOW_BUCKET_OWNERS", f"good=111122223333,{text}")
    with pytest.raises(UsageError, match="SEALFLOW_BUCKET_OWNERS"):
        S3Storage()
