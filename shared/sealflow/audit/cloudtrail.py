"""AWS CloudTrail's log files, as far as they tell who accessed which object in S3.

A log file is a JSON object ``{"Records": […]}``, compressed with gzip (AWS CloudTrail User Guide, "CloudTrail log file
examples" and "CloudTrail record contents for management, data, and network activity events"). Records stand in no
order, one may be delivered twice, and a record's ``eventVersion`` may only grow in its minor part without a change of
what is known here. Whoever can write into the trail's bucket can write files, so none is believed to be small.
"""

from __future__ import annotations

import datetime
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.errors import EvidenceError

#: Largest log file in bytes, compressed and inflated. CloudTrail itself stays below 50 MB inflated.
MAX_COMPRESSED: Final = 32 << 20
MAX_INFLATED: Final = 128 << 20
#: Most JSON values of a log file; parsed ones take many times their text.
_MAX_VALUES: Final = 8_000_000
_MAX_TEXT: Final = 2048

_SOURCES: Final = frozenset({"s3.amazonaws.com", "s3express.amazonaws.com"})
#: Members of ``userIdentity`` that name who asked, the most telling first.
_NAMES: Final = ("arn", "invokedBy", "principalId", "accountId", "type")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class ObjectAccess(NamedTuple):
    """One request for an object in S3.

    Attributes:
        id: CloudTrail's ``eventID``; a record delivered twice has the same.
        time: Microseconds since 1970; CloudTrail writes whole seconds.
        name: The operation, such as ``GetObject``.
        uri: ``s3://<bucket>/<key>``.
        version: The object version that was asked for, empty where none was named.
        principal: ARN of who asked, or what else names them.
        address: Where the request came from.
        request: ``requestID``, which S3 also answers with.
        error: ``errorCode``, empty where S3 did as it was asked.
    """

    id: str
    time: int
    name: str
    uri: str
    version: str
    principal: str
    address: str
    request: str
    error: str


def read_log_file(data: bytes, what: str) -> Iterator[ObjectAccess]:
    """Return the accesses to S3 objects in a log file, others left out.

    Args:
        data: The file, compressed or not.
        what: Its name for messages.

    Raises:
        EvidenceError: ``TRAIL_MALFORMED``: too large, no log file, or a record of a form that nobody here knows.
    """
    try:
        body = strictjson.loads(inflate(data, what), limit=MAX_INFLATED, what=what, most_values=_MAX_VALUES)
        records = strictjson.member(body, "Records", list, what)
    except EvidenceError as error:
        raise EvidenceError(error.message, code="TRAIL_MALFORMED") from None
    del body
    for number, record in enumerate(records):
        try:
            access = _access(record, f"{what}, record {number}")
        except EvidenceError as error:
            raise EvidenceError(error.message, code="TRAIL_MALFORMED") from None
        if access is not None:
            yield access


def inflate(data: bytes, what: str) -> bytes:
    """Return what a gzip file holds (RFC 1952), or the bytes themselves where they are none.

    Raises:
        EvidenceError: Too large, cut short, or something follows the compressed data.
    """
    if len(data) > MAX_COMPRESSED:
        raise EvidenceError(f"{what} has {len(data)} bytes, more than the limit of {MAX_COMPRESSED}.")
    if not data.startswith(b"\x1f\x8b"):
        return data
    engine = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        found = engine.decompress(data, MAX_INFLATED + 1)
    except zlib.error as error:
        raise EvidenceError(f"{what} is no gzip file: {error}.") from None
    # No further than one byte beyond the limit, whatever it would become.
    if len(found) > MAX_INFLATED:
        raise EvidenceError(f"{what} inflates to more than the limit of {MAX_INFLATED} bytes.")
    if not engine.eof:
        raise EvidenceError(f"{what} is cut short.")
    if engine.unused_data:
        raise EvidenceError(f"{what} goes on behind its compressed data.")
    return found


def _access(record: Any, what: str) -> ObjectAccess | None:
    source = _text(record, "eventSource", what)
    if source not in _SOURCES:
        return None
    version = _text(record, "eventVersion", what)
    if version.partition(".")[0] != "1":
        raise EvidenceError(f"{what} has the eventVersion {version[:20]!r}; only 1.x is known.")
    asked = strictjson.member(record, "requestParameters", dict, what, required=False) or {}
    bucket, key = asked.get("bucketName"), asked.get("key")
    if not isinstance(bucket, str) or not isinstance(key, str) or not bucket or not key:
        return None
    if len(bucket) > _MAX_TEXT or len(key) > _MAX_TEXT:
        raise EvidenceError(f"{what} names an object that no bucket can hold.")
    who = strictjson.member(record, "userIdentity", dict, what)
    return ObjectAccess(
        _text(record, "eventID", what),
        _microseconds(_text(record, "eventTime", what), what),
        _text(record, "eventName", what),
        f"s3://{bucket}/{key}",
        _optional(asked, "versionId"),
        next(
            (
                text
                for name in ("arn", "invokedBy", "principalId", "accountId", "type")
                if (text := _optional(who, name))
            ),
            "",
        ),
        _optional(record, "sourceIPAddress"),
        _optional(record, "requestID"),
        _optional(record, "errorCode"),
    )


def _text(record: Any, name: str, what: str) -> str:
    found: str = strictjson.member(record, name, str, what)
    return found[:_MAX_TEXT]


def _optional(record: dict[str, Any], name: str) -> str:
    found = record.get(name)
    return found[:_MAX_TEXT] if isinstance(found, str) else ""


def _microseconds(text: str, what: str) -> int:
    try:
        # As CloudTrail writes it; other forms of ISO 8601 would be read differently by different programs.
        if _TIME.fullmatch(text) is None:
            raise ValueError
        time = datetime.datetime.fromisoformat(text[:-1]).replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        raise EvidenceError(f"{what} has the eventTime {text[:40]!r}, not YYYY-MM-DDTHH:MM:SSZ.") from None
    return (time - _EPOCH) // datetime.timedelta(microseconds=1)
