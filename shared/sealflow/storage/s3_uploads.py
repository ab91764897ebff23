"""Objects written to S3: large ones by multipart uploads, small ones at once.

Requests and their refusals: Amazon S3 API Reference, version 2006-03-01, CreateMultipartUpload and what follows it.
"""

from __future__ import annotations

import hashlib
import io
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from sealflow.errors import SealflowError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.storage.aws import is_aws
from sealflow.storage.base import Unfinished
from sealflow.storage.files import exists
from sealflow.storage.memory import release
from sealflow.storage.s3_call import (
    CONFLICT,
    DENIED,
    EXPIRED,
    GONE,
    Place,
    Refused,
    code_of,
    failures,
    retried,
    translate,
)

SMALLEST_PART: Final = 5 << 20
LARGEST_PART: Final = 5 << 30
MOST_PARTS: Final = 10_000

# What is sent at a time. Python's HTTP client asks for 16 KiB, each a system call of its own.
_PIECE = 1 << 20

_LOST = frozenset({"NoSuchUpload", "InvalidPart", "InvalidPartOrder"})
# Some gateways say of an upload that they do not know that there is no such key.
_UNKNOWN = frozenset({"NoSuchUpload"}) | GONE
_IGNORANT = frozenset({"NotImplemented", "501"})

_MD5 = re.compile(r"[0-9a-f]{32}")


class S3Outgoing:
    """See :class:`~sealflow.storage.base.Outgoing`: a multipart upload, which begins when it is first needed.

    A part's tag is its ETag and, where the client adds checksums, a space and its CRC-32 in base64: completing the
    upload must name both.
    """

    parallel = 8

    def __init__(self, place: Place, token: str | None, *, overwrite: bool) -> None:
        self._place = place
        self._token = token
        self._overwrite = overwrite
        self._lock = threading.Lock()

    @property
    def token(self) -> str:
        """See :class:`~sealflow.storage.base.Outgoing`. The upload id."""
        with self._lock:
            if self._token is None:
                # As boto3's own transfers do: parts with checksums need an upload that was announced so.
                config = self._place.client.meta.config
                checked = getattr(config, "request_checksum_calculation", None) == "when_supported"
                answer = self._place.call(
                    "create_multipart_upload",
                    **self._place.where,
                    ContentType="application/octet-stream",
                    **({"ChecksumAlgorithm": "CRC32"} if checked else {}),
                )
                self._token = str(answer["UploadId"])
            return self._token

    @property
    def _upload(self) -> dict[str, str]:
        return self._place.where | {"UploadId": self.token}

    def send(self, number: int, offset: int, data: memoryview) -> str:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        try:
            answer = self._place.call(
                "upload_part", _UNKNOWN, **self._upload, PartNumber=number, ContentLength=data.nbytes, Body=_Body(data)
            )
        except Refused as refused:
            raise self._lost(refused.code) from None
        return _tag(answer)

    def present(self) -> dict[int, tuple[str, int]]:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        if self._token is None:
            return {}
        found: dict[int, tuple[str, int]] = {}
        marker = 0
        while True:
            try:
                page = self._place.call("list_parts", _UNKNOWN, **self._upload, PartNumberMarker=marker)
            except Refused as refused:
                raise self._lost(refused.code) from None
            for part in page.get("Parts", ()):
                found[part["PartNumber"]] = (_tag(part), part["Size"])
            if not page.get("IsTruncated"):
                return found
            after = page.get("NextPartNumberMarker")
            if not isinstance(after, int) or after <= marker:
                raise UnavailableError(f"S3 breaks off its list of the parts of {printable(self._place.uri)}.")
            marker = after

    def commit(self, parts: Sequence[tuple[int, str]]) -> str | None:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        from botocore.exceptions import ClientError

        named = [_named(number, tag) for number, tag in parts]
        condition = {} if self._overwrite else {"IfNoneMatch": "*"}
        try:
            answer = self._place.client.complete_multipart_upload(
                **self._upload, MultipartUpload={"Parts": named}, **condition
            )
        except (ClientError, *failures()) as error:
            code = code_of(error)
            if code in CONFLICT and not retried(error):
                raise _conflict(self._place, code) from None
            # The answer to an attempt that succeeded may have been lost. Then the upload is gone, or the object that
            # is in the way is our own; it can be told by its ETag.
            if code not in DENIED | EXPIRED and (landed := _landed(self._place, _etag([tag for _, tag in parts]))):
                return landed[0]
            if code in CONFLICT:
                raise _conflict(self._place, code) from None
            # There is a gateway that answers to an upload that it does not know as if it had failed itself.
            if code in _UNKNOWN | _LOST or self._is_unknown():
                raise self._lost(code) from None
            raise translate(error, self._place.uri) from None
        version = answer.get("VersionId")
        return str(version) if version else None

    def abort(self) -> None:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        if self._token is not None:
            with suppress(Refused):
                self._place.call("abort_multipart_upload", _UNKNOWN, **self._upload)

    def _is_unknown(self) -> bool:
        try:
            self._place.call("list_parts", _UNKNOWN, **self._upload, MaxParts=1)
        except Refused:
            return True
        except UnavailableError:
            pass  # nobody can say now
        return False

    def _lost(self, code: str) -> UnavailableError:
        return UnavailableError(
            f"S3 does not hold this upload of {printable(self._place.uri)}, or not all of its parts ({code}).",
            code="UPLOAD_LOST",
            next_step="Start the upload again; a rule of the bucket may remove unfinished uploads too soon.",
        )


def begin(place: Place, *, overwrite: bool) -> S3Outgoing:
    """See :class:`~sealflow.storage.base.Storage`."""
    _refuse_folder(place)
    if not overwrite:
        # Nobody wants to hear of it after hours of sending. Who may not look is told at the end.
        with suppress(Refused):
            place.call("head_object", GONE | DENIED, **place.where)
            raise exists(place.uri)
        _demand_conditions(place, "complete")
    return S3Outgoing(place, None, overwrite=overwrite)


def resume(place: Place, token: str, *, overwrite: bool) -> S3Outgoing | None:
    """See :class:`~sealflow.storage.base.Storage`."""
    if not overwrite:
        _demand_conditions(place, "complete")
    try:
        place.call("list_parts", _UNKNOWN, **place.where, UploadId=token, MaxParts=1)
    except Refused:
        return None
    return S3Outgoing(place, token, overwrite=overwrite)


def put(place: Place, data: bytes | memoryview, *, overwrite: bool) -> str | None:
    """See :class:`~sealflow.storage.base.Storage`."""
    from botocore.exceptions import ClientError

    _refuse_folder(place)
    if not overwrite:
        _demand_conditions(place, "put")
    condition = {} if overwrite else {"IfNoneMatch": "*"}
    view = memoryview(data)
    try:
        answer = place.client.put_object(
            **place.where,
            **condition,
            Body=_Body(view),
            ContentLength=view.nbytes,
            ContentType="application/octet-stream",
        )
    except (ClientError, *failures()) as error:
        code = code_of(error)
        if code in CONFLICT and not retried(error):
            raise _conflict(place, code) from None
        # As in `commit`: it may have been stored by an attempt whose answer was lost.
        etag = hashlib.md5(view, usedforsecurity=False).hexdigest()
        if code not in DENIED | EXPIRED and (landed := _landed(place, etag)):
            return landed[0]
        if code in CONFLICT:
            raise _conflict(place, code) from None
        raise translate(error, place.uri) from None
    version = answer.get("VersionId")
    return str(version) if version else None


def replace(place: Place, data: bytes, pin: str | None) -> bool:
    """See :meth:`sealflow.storage.s3.S3Storage.replace`."""
    _demand_conditions(place, "put" if pin is None else "replace")
    # RFC 9110 has quotes around an ETag; S3's own manual leaves them out, and Ceph's gateway knows only that.
    bare = (pin or "").strip('"')
    conditions = [{"IfNoneMatch": "*"}] if pin is None else [{"IfMatch": bare}, {"IfMatch": f'"{bare}"'}]
    for condition in conditions:
        with suppress(Refused):
            place.call(
                "put_object",
                CONFLICT | GONE,
                **place.where,
                **condition,
                Body=data,
                ContentType="text/plain; charset=utf-8",
            )
            return True
    return False


def unfinished(place: Place, limit: int) -> Iterator[Unfinished]:
    """Yield at most ``limit + 1`` uploads of an object or below a folder."""
    scheme = place.uri.partition("://")[0]
    found = 0
    markers: dict[str, str] = {}
    while True:
        page = place.call("list_multipart_uploads", **place.in_bucket, Prefix=place.key, **markers)
        for item in page.get("Uploads", ()):
            # `model-2` begins like `model`, and is another artifact.
            if not place.key or item["Key"] == place.key or item["Key"].startswith(f"{place.key}/"):
                yield Unfinished(f"{scheme}://{place.bucket}/{item['Key']}", item["UploadId"], item["Initiated"])
                found += 1
                if found > limit:
                    return
        if not page.get("IsTruncated"):
            return
        after = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
        after = {name: text for name, text in after.items() if text}
        if not after or after == markers:
            raise UnavailableError(f"S3 breaks off its list of unfinished uploads of {printable(place.uri)}.")
        markers = after


class _Body(io.RawIOBase):
    """A buffer as the body of a request: nothing is copied, and every attempt sends the same bytes.

    ``read`` returns more than it is asked for. Its readers are the HTTP client, which sends what it gets, and those who
    hash: each takes any length, and the client by itself would ask for 16 KiB at a time.
    """

    def __init__(self, data: memoryview) -> None:
        super().__init__()
        self._data = data.cast("B")
        self._at = 0

    def __len__(self) -> int:
        return len(self._data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        self._at = min(max(origin + offset, 0), len(self._data))
        return self._at

    def read(self, size: int | None = -1) -> Any:
        wanted = len(self._data) if size is None or size < 0 else max(size, _PIECE)
        # Whoever reads is done with what came before: a large part lies in a file, and must not come to memory whole.
        release(self._data)
        piece = self._data[self._at : self._at + wanted]
        self._at += len(piece)
        return piece if len(piece) else b""


def _tag(part: dict[str, Any]) -> str:
    etag, checksum = str(part["ETag"]), part.get("ChecksumCRC32")
    return f"{etag} {checksum}" if checksum else etag


def _named(number: int, tag: str) -> dict[str, Any]:
    etag, _, checksum = tag.partition(" ")
    return {"PartNumber": number, "ETag": etag} | ({"ChecksumCRC32": checksum} if checksum else {})


def _etag(tags: Sequence[str]) -> str:
    """Return the ETag that S3 gives to an object of these parts, empty where it is not made of MD5."""
    parts = [tag.partition(" ")[0].strip('"').lower() for tag in tags]
    if not all(_MD5.fullmatch(part) for part in parts):
        return ""
    whole = hashlib.md5(b"".join(map(bytes.fromhex, parts)), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(parts)}"


def _landed(place: Place, etag: str) -> tuple[str | None] | None:
    """Return the version of the object at a place if that has this ETag, ``None`` if not or if it cannot be told."""
    try:
        head = place.call("head_object", GONE, **place.where)
    except (Refused, SealflowError):
        return None
    if not etag or str(head.get("ETag", "")).strip('"').lower() != etag:
        return None
    return (str(head["VersionId"]) if head.get("VersionId") else None,)


def _conflict(place: Place, code: str) -> SealflowError:
    if code in ("409", "ConditionalRequestConflict"):
        return UnavailableError(
            f"Somebody else writes {printable(place.uri)} at this moment ({code}).", next_step="Look there, then retry."
        )
    return exists(place.uri)


def _refuse_folder(place: Place) -> None:
    if not place.key or place.key.endswith("/"):
        raise UsageError(f"{printable(place.uri)} names a folder, not an object.", next_step="Add a name.")


# --- Does the store heed conditions? ---

_HEEDS: dict[tuple[str, str, str], bool] = {}
_PROBING = threading.Lock()


def _store(place: Place, kind: str) -> tuple[str, str, str]:
    return str(place.client.meta.endpoint_url), place.bucket, kind


def known_to_heed(place: Place, kind: str = "put") -> bool:
    """Tell, without a request, whether the store is known to heed conditions on writes."""
    return is_aws(place.client) or _HEEDS.get(_store(place, kind), False)


def is_there(place: Place) -> bool:
    """Tell whether an object lies at the place, as far as this process may know."""
    try:
        place.call("head_object", GONE, DENIED, **place.where)
    except Refused:
        return False
    return True


def _demand_conditions(place: Place, kind: str) -> None:
    """Refuse to go on where nothing could keep an upload from replacing what lies there.

    Raises:
        UsageError: ``OVERWRITE_NOT_PROTECTED``.
    """
    if known_to_heed(place, kind):
        return
    name = _store(place, kind)
    with _PROBING:
        if name not in _HEEDS:
            _HEEDS[name] = _heeds(place, kind)
    if not _HEEDS[name]:
        what = {"complete": "completes of multipart uploads", "put": "writes", "replace": "replacing writes"}[kind]
        raise UsageError(
            f"The store of {printable(place.uri)} ignores conditional {what}, so nothing could keep an upload from "
            "replacing what lies there.",
            code="OVERWRITE_NOT_PROTECTED",
            next_step="Ask for it to be overwritten and see to it yourself that nobody else writes there"
            + (", or send less than one part." if kind == "complete" else "."),
        )


def _heeds(place: Place, kind: str) -> bool:
    """Write an empty object beside the place and try to replace it on the condition that nothing is there.

    No cheaper way is honest: a store that is asked about an upload that it does not know need not look at conditions.
    """
    folder = place.key.rpartition("/")[0]
    key = f"{folder}/" if folder else ""
    probe = Place(place.client, place.uri, place.bucket, f"{key}.sealflow-probe-{secrets.token_hex(8)}", place.owner)
    made = [probe.call("put_object", **probe.where, Body=b"").get("VersionId")]
    upload: S3Outgoing | None = None
    try:
        if kind == "put":
            made.append(
                probe.call("put_object", CONFLICT, _IGNORANT, **probe.where, Body=b"", IfNoneMatch="*").get("VersionId")
            )
            return False
        if kind == "replace":
            condition = {"IfMatch": "0" * 32}
            made.append(
                probe.call("put_object", CONFLICT, _IGNORANT, **probe.where, Body=b"", **condition).get("VersionId")
            )
            return False
        upload = S3Outgoing(probe, None, overwrite=False)
        named = [_named(1, upload.send(1, 0, memoryview(b"x")))]
        made.append(
            probe.call(
                "complete_multipart_upload",
                CONFLICT,
                _IGNORANT,
                **probe.where,
                UploadId=upload.token,
                MultipartUpload={"Parts": named},
                IfNoneMatch="*",
            ).get("VersionId")
        )
        return False
    except Refused as refused:
        return refused.code in CONFLICT
    finally:
        # Who may write may not always delete; an empty object stays then, and the answer holds.
        with suppress(SealflowError):
            if upload is not None:
                upload.abort()
        for version in made:
            with suppress(SealflowError):
                probe.call("delete_object", **probe.where, **({"VersionId": version} if version else {}))
