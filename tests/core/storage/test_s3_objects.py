"""Large objects in S3: parts, ranges, conditions, and what a bad network and a bad store do to them."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import os
import secrets
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sealflow.errors import ArtifactError, UnavailableError, UsageError
from sealflow.storage import OpenObject, Outgoing, same_part
from sealflow.storage.s3 import S3Storage
from sealflow.storage.s3_uploads import _Body
from tests.servers.fault_proxy import Fault, FaultProxy, Seen
from tests.servers.s3 import S3Server, moto_server

pytestmark = pytest.mark.slow

PART = 5 << 20
ONE, TWO, THREE = (bytes([number]) * PART for number in (1, 2, 3))
LAST = b"the end"


@pytest.fixture
def client(s3_server: S3Server) -> Any:
    return s3_server.client()


@pytest.fixture
def storage(client: Any) -> S3Storage:
    return S3Storage(client)


@pytest.fixture
def uri(s3_bucket: str) -> str:
    return f"s3://{s3_bucket}/models/model.bin"


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.endpoint_url) as made:
        yield made


@pytest.fixture
def through(s3_server: S3Server, proxy: FaultProxy) -> S3Storage:
    """Storage behind the proxy, with the retries of the product and none of its patience."""
    client = replace(s3_server, endpoint_url=proxy.endpoint).client(
        retries={"mode": "standard", "max_attempts": 5},
        read_timeout=2,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return S3Storage(client)


@pytest.fixture
def heeding(client: Any, proxy: FaultProxy) -> FaultProxy:
    """The proxy makes of any store one that heeds the condition of a complete."""

    def refused(seen: Seen) -> bool:
        if seen.operation != "CompleteMultipartUpload" or seen.headers.get("if-none-match") != "*":
            return False
        bucket, _, key = seen.path.partition("?")[0].strip("/").partition("/")
        return any(item["Key"] == key for item in client.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", ()))

    proxy.add(Fault("error", when=refused, times=10**9, status=412, code="PreconditionFailed"))
    return proxy


def sent(out: Outgoing, *parts: bytes) -> list[tuple[int, str]]:
    tags, offset = [], 0
    for number, part in enumerate(parts, 1):
        tags.append((number, out.send(number, offset, memoryview(part))))
        offset += len(part)
    return tags


def key_of(uri: str) -> dict[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def stored(client: Any, uri: str) -> bytes:
    return client.get_object(**key_of(uri))["Body"].read()


def names(client: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", ())]


def opened(storage: S3Storage, uri: str, first: int = 10, version_id: str | None = None) -> OpenObject:
    found = storage.open_object(uri, first, version_id)
    assert found is not None
    return found


def read(found: OpenObject, start: int, size: int) -> bytes:
    out = bytearray(size)
    found.read_into(start, memoryview(out))
    return bytes(out)


def ignore(client: Any, operation: str, header: str) -> None:
    """Make a client forget a condition: what the store then does is what one does that ignores it."""

    def forget(params: dict[str, Any], **_: Any) -> None:
        params["headers"].pop(header, None)

    client.meta.events.register(f"before-call.s3.{operation}", forget)


# --- Written by parts ---


def test_parts_out_of_order_from_many_threads(
    s3_server: S3Server, client: Any, storage: S3Storage, s3_bucket: str, uri: str
) -> None:
    if s3_server.kind in ("moto", "seaweedfs"):
        pytest.skip("this server lists parts without their checksums")
    out = storage.begin(uri, overwrite=True)
    parts = {1: ONE, 2: TWO, 3: THREE, 4: LAST}
    tags: dict[int, str] = {}

    def work(number: int) -> None:
        tags[number] = out.send(number, (number - 1) * PART, memoryview(parts[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in (4, 2, 3, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(client, s3_bucket) == []
    assert len(client.list_multipart_uploads(Bucket=s3_bucket)["Uploads"]) == 1, "all threads sent to one upload"
    assert out.present() == {number: (tags[number], len(part)) for number, part in parts.items()}
    assert out.commit(sorted(tags.items())) is None
    assert stored(client, uri) == ONE + TWO + THREE + LAST


def test_part_of_a_larger_buffer_that_is_used_again(client: Any, storage: S3Storage, uri: str) -> None:
    out = storage.begin(uri, overwrite=True)
    buffer = bytearray(b"x" * 10 + LAST + b"y" * 10)
    tag = out.send(1, 0, memoryview(buffer)[10 : 10 + len(LAST)])
    buffer[:] = bytes(len(buffer))
    out.commit([(1, tag)])
    assert stored(client, uri) == LAST


def test_resumed_by_another_client(s3_server: S3Server, client: Any, storage: S3Storage, uri: str) -> None:
    if s3_server.kind == "seaweedfs":
        pytest.skip("SeaweedFS lists parts without their checksums, and wants them in the end")
    begun = storage.begin(uri, overwrite=True)
    sent(begun, ONE, TWO)
    out = S3Storage(s3_server.client()).resume(uri, begun.token, overwrite=True)
    assert out is not None
    held = out.present()
    assert {number: size for number, (_, size) in held.items()} == {1: PART, 2: PART}
    tag = out.send(3, 2 * PART, memoryview(LAST))
    out.commit([(1, held[1][0]), (2, held[2][0]), (3, tag)])
    assert stored(client, uri) == ONE + TWO + LAST
    assert storage.resume(uri, begun.token, overwrite=True) is None
    assert storage.resume(uri, "nonsense", overwrite=True) is None


def test_more_parts_than_one_page_of_the_list(s3_server: S3Server, client: Any, storage: S3Storage, uri: str) -> None:
    if s3_server.kind in ("moto", "seaweedfs"):
        pytest.skip("this server lists parts without their checksums")
    client.meta.events.register("before-parameter-build.s3.ListParts", lambda params, **_: params.update(MaxParts=2))
    out = storage.begin(uri, overwrite=True)
    tags = {number: out.send(number, 0, memoryview(b"%d" % number)) for number in range(1, 6)}
    assert out.present() == {number: (tag, 1) for number, tag in tags.items()}
    out.abort()


def test_a_listed_part_is_the_one_that_was_sent() -> None:
    etag = '"0cc175b9c0f1b6a831c399e269772661"'
    assert same_part(etag, etag)
    assert same_part(f"{etag} g9zvtw==", f"{etag} g9zvtw==")
    assert same_part(f"{etag} g9zvtw==", etag), "a store that lists no checksums"
    for other in ("", f"{etag} jCdSFw==", f"{etag} ", '"92eb5ffee6ae2fec3ad71c777531578f"'):
        assert not same_part(f"{etag} g9zvtw==", other)
    assert not same_part(etag, f"{etag} g9zvtw==")


def test_a_part_sent_again_replaces_the_first(client: Any, storage: S3Storage, uri: str) -> None:
    out = storage.begin(uri, overwrite=True)
    sent(out, b"wrong")
    out.commit(sent(out, LAST))
    assert stored(client, uri) == LAST


def test_what_the_store_does_not_hold_is_not_committed(
    s3_server: S3Server, client: Any, storage: S3Storage, s3_bucket: str, uri: str
) -> None:
    out = storage.begin(uri, overwrite=True)
    ((_, tag),) = sent(out, LAST)
    for wrong in ([(1, '"' + "0" * 32 + '"')], [(1, tag), (2, tag)]):
        with pytest.raises(UnavailableError) as caught:
            out.commit(wrong)
        if s3_server.kind != "seaweedfs":  # which says no more than that the request was not valid
            assert caught.value.code == "UPLOAD_LOST"
    assert names(client, s3_bucket) == []


def test_abort(s3_server: S3Server, client: Any, storage: S3Storage, s3_bucket: str, uri: str) -> None:
    if s3_server.kind == "moto":
        pytest.skip("moto fails by itself at an upload that it does not know")
    out = storage.begin(uri, overwrite=True)
    out.abort()
    assert "Uploads" not in client.list_multipart_uploads(Bucket=s3_bucket), "an upload that is not needed is not begun"
    tags = sent(out, LAST)
    out.abort()
    out.abort()
    assert "Uploads" not in client.list_multipart_uploads(Bucket=s3_bucket)
    for call in (lambda: sent(out, LAST), out.present, lambda: out.commit(tags)):
        with pytest.raises(UnavailableError) as caught:
            call()
        assert caught.value.code == "UPLOAD_LOST"


def test_unfinished_uploads_are_listed_and_removed(
    s3_server: S3Server, client: Any, storage: S3Storage, s3_bucket: str
) -> None:
    if s3_server.kind == "moto":
        pytest.skip("moto knows no time at which an upload began")
    client.meta.events.register(
        "before-parameter-build.s3.ListMultipartUploads", lambda params, **_: params.update(MaxUploads=1)
    )
    begun = {}
    for key in ("models/a", "models/a/b", "models/a-2", "other"):
        uri = f"s3://{s3_bucket}/{key}"
        begun[uri] = storage.begin(uri, overwrite=True).token
    assert [item.uri for item in storage.unfinished(f"s3://{s3_bucket}/models/a", 9)] == [
        f"s3://{s3_bucket}/models/a",
        f"s3://{s3_bucket}/models/a/b",
    ]
    found = storage.unfinished(f"s3://{s3_bucket}", 9)
    assert {item.uri: item.token for item in found} == begun
    now = datetime.datetime.now(datetime.timezone.utc)
    assert all(abs(now - item.since) < datetime.timedelta(minutes=5) for item in found)
    assert len(storage.unfinished(f"s3://{s3_bucket}", 1)) == 2
    for item in found:
        out = storage.resume(item.uri, item.token, overwrite=True)
        assert out is not None
        out.abort()
    assert storage.unfinished(f"s3://{s3_bucket}", 9) == []


def test_versions(client: Any, storage: S3Storage, s3_versioned_bucket: str) -> None:
    uri = f"s3://{s3_versioned_bucket}/model.bin"
    first = storage.put(uri, b"first", overwrite=True)
    out = storage.begin(uri, overwrite=True)
    second = out.commit(sent(out, b"second"))
    assert first
    assert second
    assert first != second
    with opened(storage, uri, 3, first) as found:
        assert (found.version_id, found.head, read(found, 3, 2)) == (first, b"fir", b"st")
    with opened(storage, uri) as found:
        assert (found.version_id, found.head) == (second, b"second")
        storage.put(uri, b"third!", overwrite=True)
        assert read(found, 0, 6) == b"second", "an opened version stays, whatever comes after it"
    client.delete_object(**key_of(uri))
    assert storage.open_object(uri, 1) is None
    assert opened(storage, uri, 10, first).head == b"first"


# --- Overwriting ---


def test_put_creates_once(client: Any, storage: S3Storage, s3_bucket: str, uri: str) -> None:
    assert storage.put(uri, memoryview(b"first"), overwrite=False) is None
    with pytest.raises(ArtifactError) as caught:
        storage.put(uri, b"second", overwrite=False)
    assert caught.value.code == "ARTIFACT_EXISTS"
    assert stored(client, uri) == b"first"
    storage.put(uri, b"", overwrite=True)
    assert stored(client, uri) == b""
    assert names(client, s3_bucket) == ["models/model.bin"], "no probe stays behind"


def test_what_lies_there_is_refused_before_anything_is_sent(
    client: Any, storage: S3Storage, s3_bucket: str, uri: str
) -> None:
    storage.put(uri, b"first", overwrite=True)
    with pytest.raises(ArtifactError) as caught:
        storage.begin(uri, overwrite=False)
    assert caught.value.code == "ARTIFACT_EXISTS"


def test_a_store_that_ignores_conditional_completes_is_found_out(
    s3_server: S3Server, client: Any, storage: S3Storage, s3_bucket: str, uri: str
) -> None:
    """Ceph 16 heeds the condition of a PUT and ignores that of a complete."""
    requests: list[str] = []
    client.meta.events.register("before-call.s3", lambda model, **_: requests.append(model.name))
    if s3_server.kind != "ceph":
        pytest.skip("about Ceph")
    for call in (lambda: storage.begin(uri, overwrite=False), lambda: storage.resume(uri, "x", overwrite=False)):
        with pytest.raises(UsageError, match="ignores conditional completes") as caught:
            call()
        assert caught.value.code == "OVERWRITE_NOT_PROTECTED"
        assert "overwritten" in caught.value.next_step
    assert requests.count("CompleteMultipartUpload") == 1, "asked once"
    assert names(client, s3_bucket) == []
    assert "Uploads" not in client.list_multipart_uploads(Bucket=s3_bucket)
    storage.put(uri, b"small", overwrite=False)


@pytest.mark.parametrize("answer", ["ignored", "not implemented"])
def test_a_store_that_ignores_conditional_writes_is_found_out(
    client: Any, through: S3Storage, proxy: FaultProxy, s3_bucket: str, uri: str, answer: str
) -> None:
    if answer == "ignored":
        ignore(through.client(uri), "PutObject", "If-None-Match")
    else:
        proxy.add(
            Fault(
                "error", when=lambda seen: "if-none-match" in seen.headers, times=99, status=501, code="NotImplemented"
            )
        )
    client.put_object(**key_of(uri), Body=b"first")
    with pytest.raises(UsageError) as caught:
        through.put(uri, b"second", overwrite=False)
    assert caught.value.code == "OVERWRITE_NOT_PROTECTED"
    assert stored(client, uri) == b"first"
    assert names(client, s3_bucket) == ["models/model.bin"]


def test_probes_leave_no_version_behind(
    s3_server: S3Server, client: Any, storage: S3Storage, s3_versioned_bucket: str
) -> None:
    """Ceph 16 ignores the condition of a PUT, too, in a bucket that keeps versions."""
    uri = f"s3://{s3_versioned_bucket}/a/x"
    if s3_server.kind == "ceph":
        with pytest.raises(UsageError) as caught:
            storage.put(uri, b"1", overwrite=False)
        assert caught.value.code == "OVERWRITE_NOT_PROTECTED"
    storage.put(uri, b"1", overwrite=True)
    listed = client.list_object_versions(Bucket=s3_versioned_bucket)
    assert [item["Key"] for item in listed["Versions"]] == ["a/x"]
    assert "DeleteMarkers" not in listed


def test_what_came_meanwhile_is_refused_at_commit(
    client: Any, through: S3Storage, heeding: FaultProxy, s3_bucket: str, uri: str
) -> None:
    out = through.begin(uri, overwrite=False)
    tags = sent(out, ONE, LAST)
    client.put_object(**key_of(uri), Body=b"theirs")
    with pytest.raises(ArtifactError) as caught:
        out.commit(tags)
    assert caught.value.code == "ARTIFACT_EXISTS"
    assert stored(client, uri) == b"theirs"
    client.delete_object(**key_of(uri))
    out.commit(tags)
    assert stored(client, uri) == ONE + LAST
    assert names(client, s3_bucket) == ["models/model.bin"]


@pytest.mark.parametrize("name", ["", "folder/"])
def test_a_folder_is_no_object(storage: S3Storage, s3_bucket: str, name: str) -> None:
    for call in (storage.begin, lambda uri, overwrite: storage.put(uri, b"", overwrite=overwrite)):
        with pytest.raises(UsageError, match="folder"):
            call(f"s3://{s3_bucket}/{name}", overwrite=True)


# --- Read by ranges ---


def test_one_request_opens(client: Any, storage: S3Storage, uri: str) -> None:
    data = os.urandom(3 << 20)
    client.put_object(**key_of(uri), Body=data)
    requests: list[str] = []
    client.meta.events.register("before-call.s3", lambda model, **_: requests.append(model.name))
    with opened(storage, uri, 1000) as found:
        assert requests == ["GetObject"]
        assert (found.size, found.head, found.uri, found.version_id) == (len(data), data[:1000], uri, None)
        assert found.pin == client.head_object(**key_of(uri))["ETag"]
        requests.clear()
        assert read(found, 1, 2 << 20) == data[1 : 1 + (2 << 20)]
        assert read(found, len(data) - 1, 1) == data[-1:]
        assert requests == ["GetObject"] * 2
        assert read(found, len(data), 0) == b""
        for start, size in ((len(data), 1), (-1, 1), (0, len(data) + 1)):
            with pytest.raises(ValueError, match="range"):
                read(found, start, size)
    assert opened(storage, uri, len(data) + 1).head == data
    assert storage.open_object(uri + "-absent", 1) is None


def test_an_empty_object(client: Any, storage: S3Storage, uri: str) -> None:
    client.put_object(**key_of(uri), Body=b"")
    with opened(storage, uri) as found:
        assert (found.size, found.head) == (0, b"")
        assert read(found, 0, 0) == b""


@pytest.mark.parametrize("change", ["replaced", "grown", "cut", "removed"])
def test_an_object_that_is_another_one_now(client: Any, storage: S3Storage, uri: str, change: str) -> None:
    client.put_object(**key_of(uri), Body=b"a" * 1000)
    with opened(storage, uri) as found:
        assert read(found, 500, 10) == b"a" * 10
        if change == "removed":
            client.delete_object(**key_of(uri))
        else:
            client.put_object(**key_of(uri), Body=b"b" * {"replaced": 1000, "grown": 2000, "cut": 10}[change])
        with pytest.raises(ArtifactError) as caught:
            read(found, 500, 10)
        assert caught.value.code == "ARTIFACT_CHANGED"


def test_a_store_that_ignores_if_match_is_found_out(client: Any, storage: S3Storage, uri: str) -> None:
    ignore(client, "GetObject", "If-Match")
    client.put_object(**key_of(uri), Body=b"a" * 1000)
    with opened(storage, uri) as found:
        client.put_object(**key_of(uri), Body=b"b" * 1000)
        with pytest.raises(ArtifactError) as caught:
            read(found, 500, 10)
        assert caught.value.code == "ARTIFACT_CHANGED"


@pytest.mark.parametrize(
    "lie",
    [
        {"ContentRange": "bytes 1-10/1000"},
        {"ContentRange": "bytes 0-9/9"},
        {"ContentRange": "bytes 0-8/1000"},
        {"ContentRange": "bytes 0-9/*"},
        {"ContentRange": "nonsense"},
        {"ContentRange": None, "ContentLength": None},
        {"ContentRange": None, "ContentLength": -1},
        {"ETag": None},
    ],
    ids=str,
)
def test_a_store_that_answers_nonsense_to_opening(lie: dict[str, Any]) -> None:
    answer = {"ContentRange": "bytes 0-9/1000", "ContentLength": 10, "ETag": '"x"', "Body": io.BytesIO(b"a" * 10)}
    with pytest.raises(UnavailableError):
        S3Storage(Saying(answer | lie)).open_object("s3://b/k", 10)


@pytest.mark.parametrize(
    "lie",
    [{"ContentRange": "bytes 0-9/1000"}, {"ContentRange": "bytes 20-29/1001"}, {"ContentRange": "bytes 20-28/1000"}],
    ids=str,
)
def test_a_store_that_sends_another_range(lie: dict[str, Any]) -> None:
    client = Saying(
        {"ContentRange": "bytes 0-9/1000", "ContentLength": 10, "ETag": '"x"', "Body": io.BytesIO(b"a" * 10)}
    )
    found = opened(S3Storage(client), "s3://b/k")
    client.answer |= {"ContentRange": "bytes 20-29/1000"} | lie
    with pytest.raises(UnavailableError):
        read(found, 20, 10)


def test_a_store_that_sends_another_version() -> None:
    client = Saying({"ContentLength": 1, "ETag": '"x"', "VersionId": "other", "Body": io.BytesIO(b"a")})
    with pytest.raises(ArtifactError, match="version"):
        S3Storage(client).open_object("s3://b/k", 1, "asked")


def test_a_store_without_ranges_serves_what_is_asked_for_whole() -> None:
    client = Saying({"ContentLength": 5, "ETag": '"x"', "Body": io.BytesIO(b"12345")})
    assert opened(S3Storage(client), "s3://b/k", 10).head == b"12345"
    with pytest.raises(UnavailableError, match="another range"):
        S3Storage(Saying(client.answer)).open_object("s3://b/k", 3)


class Saying:
    """A client that answers what it was told to."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def get_object(self, **_: Any) -> dict[str, Any]:
        return {name: value for name, value in self.answer.items() if value is not None}


# --- A bad network ---


@pytest.mark.parametrize("kind", ["error", "slow_down", "reset", "lost", "lost_error", "stall"])
def test_a_part_that_fails_is_sent_again_with_the_same_bytes(
    client: Any, through: S3Storage, proxy: FaultProxy, uri: str, kind: str
) -> None:
    out = through.begin(uri, overwrite=True)
    proxy.add(Fault(kind, when="UploadPart", times=2, seconds=2.5))
    data = os.urandom(PART)
    tags = sent(out, data)
    out.commit(tags)
    assert proxy.left() == 0
    assert [seen.fault for seen in proxy.seen("UploadPart")] == [kind, kind, None]
    assert {(seen.digest, seen.length) for seen in proxy.seen("UploadPart")} == {
        (hashlib.sha256(data).hexdigest(), PART)
    }
    assert stored(client, uri) == data


def test_bytes_that_are_altered_on_the_way_up_are_refused(
    s3_server: S3Server, client: Any, through: S3Storage, proxy: FaultProxy, uri: str
) -> None:
    if s3_server.kind in ("moto", "seaweedfs"):
        pytest.skip("this server does not check what the signature says of the body")
    out = through.begin(uri, overwrite=True)
    proxy.add(Fault("corrupt_upload", when="UploadPart", times=99, after=PART // 2))
    with pytest.raises(UnavailableError):
        sent(out, ONE)
    assert proxy.seen("UploadPart")
    assert out.present() == {}


@pytest.mark.parametrize("kind", ["lost", "lost_error"])
@pytest.mark.parametrize("times", [1, 99])
def test_a_complete_whose_answer_is_lost_is_a_success(
    client: Any, through: S3Storage, proxy: FaultProxy, uri: str, kind: str, times: int
) -> None:
    out = through.begin(uri, overwrite=True)
    tags = sent(out, ONE, LAST)
    proxy.add(Fault(kind, when="CompleteMultipartUpload", times=times))
    out.commit(tags)
    assert len(proxy.seen("CompleteMultipartUpload")) >= 2
    assert stored(client, uri) == ONE + LAST


def test_a_complete_whose_answer_is_lost_finds_its_own_object_in_the_way(
    client: Any, through: S3Storage, heeding: FaultProxy, uri: str
) -> None:
    out = through.begin(uri, overwrite=False)
    tags = sent(out, ONE, LAST)
    heeding.add(Fault("lost", when="CompleteMultipartUpload"))
    out.commit(tags)
    assert [(seen.fault, seen.status) for seen in heeding.seen("CompleteMultipartUpload")[-2:]] == [
        ("lost", 200),
        ("error", None),
    ]
    assert stored(client, uri) == ONE + LAST


def test_a_complete_that_was_never_done_and_finds_another_object_is_refused(
    client: Any, through: S3Storage, heeding: FaultProxy, uri: str
) -> None:
    out = through.begin(uri, overwrite=False)
    tags = sent(out, ONE, LAST)
    heeding.add(Fault("reset", when="CompleteMultipartUpload"))
    client.put_object(**key_of(uri), Body=b"theirs")
    heeding._faults.reverse()
    with pytest.raises(ArtifactError) as caught:
        out.commit(tags)
    assert caught.value.code == "ARTIFACT_EXISTS"
    assert [seen.fault for seen in heeding.seen("CompleteMultipartUpload")[-2:]] == ["reset", "error"]
    assert stored(client, uri) == b"theirs"


def test_a_complete_that_never_succeeds_can_be_tried_again_later(
    s3_server: S3Server, client: Any, proxy: FaultProxy, s3_bucket: str, uri: str
) -> None:
    # The retries of the client wait long for a store that is busy.
    through = S3Storage(replace(s3_server, endpoint_url=proxy.endpoint).client(retries={"total_max_attempts": 1}))
    out = through.begin(uri, overwrite=True)
    tags = sent(out, ONE, LAST)
    proxy.add(Fault("slow_down", when="CompleteMultipartUpload", times=99))
    with pytest.raises(UnavailableError, match="too busy"):
        out.commit(tags)
    assert names(client, s3_bucket) == []
    proxy.clear()
    out.commit(tags)
    assert stored(client, uri) == ONE + LAST


@pytest.mark.parametrize("kind", ["lost", "lost_error"])
def test_a_put_whose_answer_is_lost_is_a_success(
    client: Any, through: S3Storage, proxy: FaultProxy, uri: str, kind: str
) -> None:
    through.put(uri + "-first", b"", overwrite=False)
    proxy.clear()
    proxy.add(Fault(kind, when="PutObject"))
    through.put(uri, b"small", overwrite=False)
    assert [(seen.fault, seen.status) for seen in proxy.seen("PutObject")] == [(kind, 200), (None, 412)]
    assert stored(client, uri) == b"small"
    with pytest.raises(ArtifactError):
        through.put(uri, b"small", overwrite=False)


@pytest.mark.parametrize("after", [0, 1, 100_000, (3 << 20) - 1])
def test_a_range_that_breaks_off_is_taken_up_where_it_broke(
    client: Any, through: S3Storage, proxy: FaultProxy, uri: str, after: int
) -> None:
    data = os.urandom(4 << 20)
    client.put_object(**key_of(uri), Body=data)
    proxy.add(Fault("truncate", when="GetObject", after=after, times=2))
    with opened(through, uri, 3 << 20) as found:
        assert found.head == data[: 3 << 20]
        proxy.add(Fault("truncate", when="GetObject", after=min(after, 1 << 19), times=1))
        assert read(found, 5, 1 << 20) == data[5 : 5 + (1 << 20)]
    assert proxy.left() == 0
    assert all("if-match" in seen.headers for seen in proxy.seen("GetObject")[1:])


def test_an_object_that_is_replaced_while_a_range_is_broken_off(
    client: Any, through: S3Storage, proxy: FaultProxy, uri: str
) -> None:
    client.put_object(**key_of(uri), Body=b"a" * (1 << 20))
    proxy.add(
        Fault("truncate", when="GetObject", after=1000),
        Fault("call", when="GetObject", action=lambda _: client.put_object(**key_of(uri), Body=b"b" * (1 << 20))),
    )
    with pytest.raises(ArtifactError) as caught:
        through.open_object(uri, 1 << 20)
    assert caught.value.code == "ARTIFACT_CHANGED"
    assert proxy.left() == 0


def test_a_range_that_always_breaks_off_is_unavailable(
    client: Any, through: S3Storage, proxy: FaultProxy, uri: str
) -> None:
    client.put_object(**key_of(uri), Body=b"a" * 1000)
    with opened(through, uri) as found:
        proxy.add(Fault("truncate", when="GetObject", after=1, times=99))
        with pytest.raises(UnavailableError, match="broke off"):
            read(found, 0, 1000)


@pytest.mark.parametrize("kind", ["error", "slow_down", "reset", "stall"])
def test_a_range_whose_request_fails_is_asked_for_again(
    client: Any, through: S3Storage, proxy: FaultProxy, uri: str, kind: str
) -> None:
    client.put_object(**key_of(uri), Body=b"a" * 1000)
    proxy.add(Fault(kind, when="GetObject", times=2, seconds=2.5))
    with opened(through, uri) as found:
        assert read(found, 10, 10) == b"a" * 10
    assert proxy.left() == 0


def test_the_proxy_alters_what_comes_down_so_that_others_can_see_whether_it_is_found(
    client: Any, through: S3Storage, proxy: FaultProxy, uri: str
) -> None:
    client.put_object(**key_of(uri), Body=b"a" * 1000)
    proxy.add(Fault("corrupt", when="GetObject", after=3), Fault("slow", when="GetObject", seconds=0.01))
    assert opened(through, uri, 5).head == b"aaa`a"
    assert opened(through, uri, 5).head == b"aaaaa"
    assert proxy.left() == 0


# --- Refusals in words ---


@pytest.mark.parametrize(
    ("status", "code", "ours", "says"),
    [
        (403, "AccessDenied", "PERMISSION_DENIED", "bucket policy"),
        (400, "ExpiredToken", "CREDENTIALS_EXPIRED", "Renew"),
        (404, "NoSuchBucket", "BACKEND_UNAVAILABLE", "bucket's name"),
        (400, "AuthorizationHeaderMalformed", "BACKEND_UNAVAILABLE", "region"),
        (507, "InsufficientStorage", "NO_SPACE", "quota"),
        (403, "QuotaExceeded", "NO_SPACE", "quota"),
        (503, "SlowDown", "BACKEND_UNAVAILABLE", "fewer transfers"),
        (403, "RequestTimeTooSkewed", "BACKEND_UNAVAILABLE", "clock"),
        (500, "InternalError", "BACKEND_UNAVAILABLE", "Try again"),
    ],
)
def test_refusals(
    s3_server: S3Server, proxy: FaultProxy, uri: str, status: int, code: str, ours: str, says: str
) -> None:
    through = S3Storage(replace(s3_server, endpoint_url=proxy.endpoint).client(retries={"total_max_attempts": 1}))
    out = through.begin(uri, overwrite=True)
    tags = sent(out, LAST)
    proxy.add(Fault("error", times=10**6, status=status, code=code))
    for call in (
        lambda: through.begin(uri, overwrite=True).token,
        lambda: sent(out, LAST),
        out.present,
        lambda: out.commit(tags),
        lambda: through.put(uri, b"x", overwrite=True),
        lambda: through.open_object(uri, 1),
        lambda: through.unfinished(uri, 1),
    ):
        with pytest.raises(UnavailableError) as caught:
            call()
        assert caught.value.code == ours
        assert says in str(caught.value)
        assert "model.bin" in caught.value.message


def test_a_region_that_the_store_names_is_named() -> None:
    from botocore.exceptions import ClientError

    from sealflow.storage.s3_call import translate

    for response in (
        {"Error": {"Code": "AuthorizationHeaderMalformed", "Region": "eu-north-1"}},
        {"Error": {"Code": "301"}, "ResponseMetadata": {"HTTPHeaders": {"x-amz-bucket-region": "eu-north-1"}}},
    ):
        error = translate(ClientError(response, "PutObject"), "s3://b/k")
        assert "lies in eu-north-1" in error.message
        assert error.next_step == "Set AWS_REGION=eu-north-1."


def test_wrong_credentials(s3_server: S3Server, uri: str) -> None:
    if s3_server.kind == "moto":
        pytest.skip("moto checks no credentials")
    stranger = S3Storage(replace(s3_server, access_key="STRANGER", secret_key=secrets.token_hex(20)).client())
    for call in (
        lambda: stranger.begin(uri, overwrite=False).token,
        lambda: stranger.put(uri, b"", overwrite=True),
        lambda: stranger.open_object(uri, 1),
        lambda: stranger.unfinished(uri, 1),
    ):
        with pytest.raises(UnavailableError) as caught:
            call()
        assert caught.value.code == "PERMISSION_DENIED"


def test_no_such_bucket(storage: S3Storage) -> None:
    uri = "s3://no-such-bucket-anywhere/k"
    for call in (
        lambda: storage.begin(uri, overwrite=True).token,
        lambda: storage.put(uri, b"", overwrite=True),
        lambda: storage.open_object(uri, 1),
        lambda: storage.unfinished(uri, 1),
    ):
        with pytest.raises(UnavailableError, match="bucket's name"):
            call()


# --- A store with checksums ---


def test_checksums_of_parts_are_announced_and_named_at_commit() -> None:
    """What AWS demands where the client adds checksums; Ceph knows none, so this is tried on a mock."""
    with moto_server() as server:
        client = server.client(request_checksum_calculation="when_supported")
        asked: dict[str, list[dict[str, Any]]] = {}
        client.meta.events.register(
            "before-parameter-build.s3", lambda params, model, **_: asked.setdefault(model.name, []).append(params)
        )
        uri = f"s3://{server.make_bucket()}/model.bin"
        out = S3Storage(client).begin(uri, overwrite=True)
        tags = sent(out, ONE, LAST)
        out.commit(tags)
        assert stored(client, uri) == ONE + LAST
    assert asked["CreateMultipartUpload"][0]["ChecksumAlgorithm"] == "CRC32"
    named = asked["CompleteMultipartUpload"][0]["MultipartUpload"]["Parts"]
    crc32 = [base64.b64encode(zlib.crc32(part).to_bytes(4, "big")).decode() for part in (ONE, LAST)]
    assert [part["ChecksumCRC32"] for part in named] == crc32
    assert [f"{part['ETag']} {part['ChecksumCRC32']}" for part in named] == [tag for _, tag in tags]


# --- The body of a request ---


def test_a_body_gives_its_bytes_again_after_it_was_rewound() -> None:
    data = os.urandom((3 << 20) + 1)
    body = _Body(memoryview(data))
    for _ in range(2):
        assert b"".join(iter(lambda: bytes(body.read(16384)), b"")) == data
        assert body.seek(0) == 0
    assert (len(body), body.seek(0, io.SEEK_END), body.tell()) == (len(data), len(data), len(data))
    assert body.read() == b""


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("checksums", ["when_supported", "when_required"])
def test_every_kind_of_client_sends_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, scheme: str, checksums: str
) -> None:
    """Signed, unsigned, in one piece, in chunks with a checksum behind: what goes onto the wire holds the buffer."""
    import botocore.awsrequest
    import botocore.httpsession
    import urllib3.response

    wire: list[bytes] = []

    def send(_: object, request: Any) -> Any:
        pieces = iter(lambda: request.body.read(16384), b"")
        wire.append(b"".join(bytes(piece) for piece in pieces))
        headers = (
            {"ETag": '"x"', "x-amz-checksum-crc32": "AAAAAA=="} if checksums == "when_supported" else {"ETag": '"x"'}
        )
        status = 503 if len(wire) == 1 else 200
        raw = urllib3.response.HTTPResponse(io.BytesIO(b""), preload_content=False)
        return botocore.awsrequest.AWSResponse(request.url, status, headers, raw)

    monkeypatch.setattr(botocore.httpsession.URLLib3Session, "send", send)
    server = S3Server(f"{scheme}://store.test", "AK", "SK", "none")
    client = server.client(request_checksum_calculation=checksums, retries={"mode": "standard", "max_attempts": 3})
    data = os.urandom((2 << 20) + 3)
    from sealflow.storage.s3_call import Place
    from sealflow.storage.s3_uploads import S3Outgoing

    out = S3Outgoing(Place(client, "s3://b/k", "b", "k"), "upload", overwrite=True)
    tag = out.send(1, 0, memoryview(data))
    assert len(wire) == 2
    assert wire[0] == wire[1]
    if scheme == "https" and checksums == "when_supported":
        assert wire[0].replace(b"\r\n", b"").startswith(b"100000" + data[:100].replace(b"\r\n", b""))
    else:
        assert wire[0] == data
    assert tag == ('"x" AAAAAA==' if checksums == "when_supported" else '"x"')


@pytest.mark.server
def test_everything_over_tls(s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client that we make ourselves, against a real server over TLS: parts, small objects, ranges."""
    if not s3_server.secure_url:
        pytest.skip("this server has no TLS")
    for name, value in s3_server.secure().environment.items():
        monkeypatch.setenv(name, value)
    over_tls = S3Storage()
    body = os.urandom((5 << 20) + 1000)
    out = over_tls.begin(f"s3://{s3_bucket}/large", overwrite=True)
    parts = [(1, out.send(1, 0, memoryview(body)[: 5 << 20])), (2, out.send(2, 5 << 20, memoryview(body)[5 << 20 :]))]
    out.commit(parts)
    over_tls.put(f"s3://{s3_bucket}/small", body[:100], overwrite=True)
    for name, expected in (("large", body), ("small", body[:100])):
        found = over_tls.open_object(f"s3://{s3_bucket}/{name}", 10)
        assert found is not None
        with found:
            back = bytearray(found.size)
            found.read_into(0, memoryview(back))
        assert back == expected
