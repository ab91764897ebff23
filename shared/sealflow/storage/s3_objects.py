"""Large objects in S3, read by ranges under one version.

Requests and their refusals: Amazon S3 API Reference, version 2006-03-01, GetObject.
"""

from __future__ import annotations

import re
from contextlib import closing, suppress
from typing import Any

from sealflow.errors import ArtifactError, UnavailableError
from sealflow.findings import printable
from sealflow.storage.s3_call import BEYOND, CONFLICT, GONE, RESUMES, Place, Refused, broken

# What is read at a time.
_PIECE = 1 << 20

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


def open_object(place: Place, first: int, version_id: str | None) -> S3Object | None:
    """Open an object by one request, which brings its first bytes, too. See :class:`~sealflow.storage.base.Storage`."""
    version = {"VersionId": version_id} if version_id else {}
    gone = GONE | ({"405", "MethodNotAllowed"} if version_id else set())  # that version is the mark of a deletion
    first = max(first, 1)
    try:
        answer = place.call("get_object", gone, BEYOND, **place.where, **version, Range=f"bytes=0-{first - 1}")
    except Refused as refused:
        if refused.code not in BEYOND:
            return None
        # An empty object has no first byte.
        try:
            answer = place.call("head_object", gone, **place.where, **version)
        except Refused:
            return None
        if answer.get("ContentLength") != 0:
            raise _changed(place) from None
        return S3Object(place, 0, _pin(place, answer), _version(place, answer, version_id))
    with closing(answer["Body"]) as body:
        begin, end, size = _extent(place, answer)
        if begin != 0 or end != min(first, size):
            raise UnavailableError(f"S3 sends another range of {printable(place.uri)} than it was asked for.")
        found = S3Object(place, size, _pin(place, answer), _version(place, answer, version_id))
        head = bytearray(end)
        done = _fill(body, memoryview(head))
    if done < end:
        found.read_into(done, memoryview(head)[done:])
    found.head = bytes(head)
    return found


class S3Object:
    """See :class:`~sealflow.storage.base.OpenObject`. The pin is the ETag, and each request names it."""

    def __init__(self, place: Place, size: int, pin: str, version_id: str | None) -> None:
        self._place = place
        self.uri = place.uri
        self.size = size
        self.pin: str | None = pin
        self.version_id = version_id
        self.head = b""

    def __enter__(self) -> S3Object:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """See :class:`~sealflow.storage.base.OpenObject`. The client keeps its connections."""

    def read_into(self, start: int, out: memoryview) -> None:
        """See :class:`~sealflow.storage.base.OpenObject`. A connection that breaks is taken up where it broke."""
        end = start + len(out)
        if start < 0 or end > self.size:
            raise ValueError("The range does not lie within the object.")
        version = {"VersionId": self.version_id} if self.version_id else {}
        done = 0
        for attempt in range(RESUMES + 1):
            if start + done == end:
                return
            try:
                answer = self._place.call(
                    "get_object",
                    GONE,
                    CONFLICT,
                    BEYOND,
                    **self._place.where,
                    **version,
                    IfMatch=self.pin,
                    Range=f"bytes={start + done}-{end - 1}",
                )
            except Refused:
                raise _changed(self._place) from None
            with closing(answer["Body"]) as body:
                # Not every store heeds If-Match.
                if answer.get("ETag") != self.pin:
                    raise _changed(self._place)
                if _extent(self._place, answer) != (start + done, end, self.size):
                    raise UnavailableError(f"S3 sends another range of {self._shown} than it was asked for.")
                done += _fill(body, out[done:])
            if attempt == RESUMES and start + done < end:
                raise UnavailableError(
                    f"S3 broke off {self._shown} {RESUMES + 1} times within {len(out)} bytes.",
                    next_step="Try again; check the endpoint if it persists.",
                )

    @property
    def _shown(self) -> str:
        return printable(self.uri)


def _fill(body: Any, out: memoryview) -> int:
    """Read until ``out`` is full or the connection breaks; return how far it came."""
    done = 0
    with suppress(*broken()):
        while done < len(out):
            # Reading into the buffer itself would make urllib3 fill a copy of it first: this costs the same, and
            # keeps that copy small.
            piece = body.read(min(_PIECE, len(out) - done))
            if not piece:
                break
            out[done : done + len(piece)] = piece
            done += len(piece)
    return done


def _extent(place: Place, answer: dict[str, Any]) -> tuple[int, int, int]:
    """Return where an answer begins and ends in its object, and how long that is, all in bytes."""
    length = answer.get("ContentLength")
    text = answer.get("ContentRange")
    if text is None and isinstance(length, int) and length >= 0:
        return 0, length, length  # a store that sends all of it, whatever it is asked for
    match = _RANGE.fullmatch(str(text))
    if match is None or int(match[2]) - int(match[1]) + 1 != length or int(match[2]) >= int(match[3]):
        raise UnavailableError(f"S3 does not say which bytes of {printable(place.uri)} it sends.")
    return int(match[1]), int(match[2]) + 1, int(match[3])


def _pin(place: Place, answer: dict[str, Any]) -> str:
    pin = answer.get("ETag")
    if not isinstance(pin, str) or not pin:
        raise UnavailableError(f"S3 names no version (ETag) of {printable(place.uri)} that could be pinned.")
    return pin


def _version(place: Place, answer: dict[str, Any], asked: str | None) -> str | None:
    found = answer.get("VersionId")
    if asked and found != asked:
        raise ArtifactError(
            f"S3 sends version {printable(str(found))} of {printable(place.uri)}, not {printable(asked)}.",
            code="ARTIFACT_CHANGED",
        )
    return str(found) if found else None


def _changed(place: Place) -> ArtifactError:
    return ArtifactError(f"{printable(place.uri)} changed while it was read.", code="ARTIFACT_CHANGED")
