"""CloudTrail's log files: what is taken from them, and what is refused."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest

from sealflow.audit.cloudtrail import MAX_INFLATED, ObjectAccess, read_log_file
from sealflow.errors import EvidenceError


def record(**changes: Any) -> dict[str, Any]:
    """A data event as the user guide shows it; ``None`` takes a member out."""
    body = {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": "AROAEXAMPLE:worker",
            "arn": "arn:aws:sts::111122223333:assumed-role/trainer/worker",
            "accountId": "111122223333",
            "sessionContext": {"attributes": {"mfaAuthenticated": "false"}},
        },
        "eventTime": "2026-11-02T10:00:00Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "awsRegion": "eu-central-1",
        "sourceIPAddress": "192.0.2.7",
        "requestParameters": {"bucketName": "models", "key": "churn/model.pkl", "Host": "s3.amazonaws.com"},
        "responseElements": None,
        "additionalEventData": {"bytesTransferredOut": 12.0},
        "requestID": "3E57427F33A59F07",
        "eventID": "6b8d6c3c-aaaa-bbbb-cccc-000000000001",
        "readOnly": True,
        "resources": [{"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::models/churn/model.pkl"}],
        "eventType": "AwsApiCall",
        "managementEvent": False,
        "eventCategory": "Data",
    } | changes
    return {name: value for name, value in body.items() if value is not None}


def log_file(*records: Any, packed: bool = True) -> bytes:
    data = json.dumps({"Records": records}).encode()
    return gzip.compress(data) if packed else data


def read(data: bytes) -> list[ObjectAccess]:
    return list(read_log_file(data, "file"))


def refusal(data: bytes) -> str:
    with pytest.raises(EvidenceError) as caught:
        read(data)
    assert caught.value.code == "TRAIL_MALFORMED"
    return caught.value.message


@pytest.mark.parametrize("packed", [True, False])
def test_access_is_read(packed: bool) -> None:
    (found,) = read(log_file(record(), packed=packed))
    assert found == ObjectAccess(
        "6b8d6c3c-aaaa-bbbb-cccc-000000000001",
        1_793_613_600_000_000,
        "GetObject",
        "s3://models/churn/model.pkl",
        "",
        "arn:aws:sts::111122223333:assumed-role/trainer/worker",
        "192.0.2.7",
        "3E57427F33A59F07",
        "",
    )


def test_version_and_error_are_read() -> None:
    asked = {"bucketName": "b", "key": "k", "versionId": "v1"}
    (found,) = read(log_file(record(requestParameters=asked, errorCode="AccessDenied", errorMessage="no")))
    assert (found.version, found.error) == ("v1", "AccessDenied")


@pytest.mark.parametrize(
    ("who", "named"),
    [
        ({"type": "AWSService", "invokedBy": "athena.amazonaws.com"}, "athena.amazonaws.com"),
        ({"type": "AWSAccount", "principalId": "AIDA", "accountId": "1111"}, "AIDA"),
        ({"type": "AWSAccount", "principalId": "", "accountId": "anonymous"}, "anonymous"),
        ({"type": "Unknown"}, "Unknown"),
        ({}, ""),
    ],
)
def test_whoever_asked_is_named_as_well_as_can_be(who: dict[str, str], named: str) -> None:
    assert read(log_file(record(userIdentity=who)))[0].principal == named


@pytest.mark.parametrize(
    "other",
    [
        {"eventSource": "kms.amazonaws.com", "eventVersion": "9.0"},
        {"requestParameters": None},
        {"requestParameters": {"bucketName": "models"}},
        {"requestParameters": {"bucketName": "models", "key": ""}},
    ],
    ids=["other service", "nothing asked", "bucket", "no key"],
)
def test_what_is_no_access_to_an_object_is_left_out(other: dict[str, Any]) -> None:
    assert [item.name for item in read(log_file(record(**other), record(eventName="PutObject")))] == ["PutObject"]


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.1", "11", "", "x"])
def test_unknown_major_version_is_refused(version: str) -> None:
    assert "eventVersion" in refusal(log_file(record(eventVersion=version)))


@pytest.mark.parametrize("version", ["1.0", "1.11", "1.99", "1"])
def test_minor_versions_may_grow(version: str) -> None:
    assert len(read(log_file(record(eventVersion=version)))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"eventTime": "2026-11-02 10:00:00"},
        {"eventTime": "2026-11-02T10:00:00+01:00"},
        {"eventTime": "2026-13-02T10:00:00Z"},
        {"eventTime": "\uff12026-11-02T10:00:00Z"},
        {"eventTime": 1},
        {"eventTime": None},
        {"eventSource": None},
        {"eventName": None},
        {"eventID": ["x"]},
        {"userIdentity": None},
        {"userIdentity": "root"},
        {"requestParameters": "key"},
        {"requestParameters": {"bucketName": "b", "key": "k" * 3000}},
    ],
    ids=str,
)
def test_malformed_records_are_refused(changes: dict[str, Any]) -> None:
    assert "record 1" in refusal(log_file(record(), record(**changes)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"Records": {}}',
        b'{"Records": [], "Records": []}',
        b'{"Records": [1]}',
        b'{"Records": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"Records": [' + b"[]," * 9_000_000 + b"[]]}",
        gzip.compress(b'{"Records": []}')[:-1],
        gzip.compress(b'{"Records": []}') + b"x",
        gzip.compress(b'{"Records": []}') + gzip.compress(b"x"),
        b"\x1f\x8b" + b"\0" * 40,
        b"\x80\x81",
    ],
    ids=range(13),
)
def test_what_is_no_log_file_is_refused(data: bytes) -> None:
    refusal(data)


@pytest.mark.slow
def test_zip_bomb_is_refused_in_bounded_memory() -> None:
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(engine.compress(bytes(1 << 20)) for _ in range(160)) + engine.flush()
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    try:
        assert "inflates to more" in refusal(bomb)
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_INFLATED
    finally:
        tracemalloc.stop()


def test_large_file_is_refused_before_it_is_looked_at() -> None:
    assert "more than the limit" in refusal(bytes(33 << 20))
