"""S3 and its compatible stores, through the clients of boto3.

Endpoint, region and path style come from the client's own configuration (``AWS_ENDPOINT_URL``, ``AWS_REGION``,
profiles), or from the caller who hands in a client. ``minio://bucket/key`` is KFP's way to write the same thing.

Each file is read by one GET that names the version seen in the listing, so an object that is replaced meanwhile is an
error, never a mixture. A broken connection is resumed by a ranged GET under the same version.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from sealflow import strictjson
from sealflow.aws_client import make_client
from sealflow.errors import ArtifactError, EvidenceError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.hashing import CHUNK
from sealflow.names import check_name
from sealflow.storage import s3_objects, s3_uploads
from sealflow.storage.aws import is_aws_url
from sealflow.storage.base import Consumer, Entry, Location, Unfinished
from sealflow.storage.s3_call import RESUMES, Place, broken, call, translate


def split(uri: str) -> tuple[str, str]:
    """Split an S3 URI into bucket and key. The key is taken literally: S3 URIs know no escapes.

    Raises:
        UsageError: No bucket, or credentials or a connection id in the place of the bucket.
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket or "@" in bucket or ":" in bucket:
        raise UsageError(
            f"{printable(uri.partition('://')[0])}://… names no plain bucket.",
            next_step="Write s3://bucket/key; credentials belong to the AWS configuration or to aws_conn_id.",
        )
    return bucket, key


def default_client(scheme: str) -> Any:
    """Return a client from the process's own configuration.

    Raises:
        MissingExtraError: The extra ``boto3`` is not installed.
        UsageError: The configuration cannot work.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "minio" and not endpoint:
        endpoint = "http://minio-service.kubeflow:9000"
    retries = {"retries": {"mode": "standard", "max_attempts": 5}, "max_pool_connections": 16}
    return spoken_to(
        lambda dialect: make_client(
            "S3", "s3", endpoint=endpoint, next_step="Check the AWS configuration.", config={**retries, **dialect}
        ),
        endpoint,
    )


def spoken_to(make: Callable[[dict[str, Any]], Any], endpoint: str | None) -> Any:
    """Return a client that speaks to its store as that understands it.

    Args:
        make: Makes it, from arguments of ``botocore.config.Config``.
        endpoint: The URL of the store where it is known; a profile can name another than AWS's own, too.
    """
    dialect = _dialect(endpoint)
    client = make(dialect)
    other = _dialect(str(client.meta.endpoint_url))
    return client if other == dialect else make(other)


def _dialect(endpoint: str | None) -> dict[str, Any]:
    if not endpoint or is_aws_url(endpoint):
        return {}
    # Stores that are not AWS often know neither virtual hosts nor trailing checksums (aws-chunked).
    # Over TLS what is sent needs no digest in the request's signature.
    signed = {"payload_signing_enabled": False} if endpoint.lower().startswith("https:") else {}
    return {
        "s3": {"addressing_style": "path", **signed},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }


def _owners(text: str) -> dict[str, str]:
    """Read ``bucket=account,bucket=account``.

    Raises:
        UsageError: It is written otherwise. A check that was asked for is never left out.
    """
    found = {}
    for pair in text.replace(",", " ").split():
        bucket, _, account = pair.partition("=")
        if not bucket or not re.fullmatch(r"[0-9]{12}", account):
            raise UsageError(
                f"SEALFLOW_BUCKET_OWNERS holds {printable(pair)!r}.",
                next_step="Write bucket=account,bucket=account, with account numbers of twelve digits.",
            )
        found[bucket] = account
    return found


class ObjectFacts(NamedTuple):
    """What the store says of one object without sending it.

    Attributes:
        size: Bytes.
        pin: The ETag as the store writes it.
        encryption: How the store encrypts it: empty, ``AES256``, ``aws:kms``, ``SSE-C`` …
        checksums: ``sha256`` and ``md5`` in hex, as far as the store made them over the whole object. One made over the
            checksums of parts says nothing that a file's digest could be compared with.
    """

    size: int
    pin: str
    encryption: str = ""
    checksums: Mapping[str, str] = {}


class S3Storage:
    """Artifacts and evidence in S3.

    Args:
        client: A boto3 S3 client, or ``None`` to make one from the process's configuration when first needed.
        owners: For each bucket the number of the account that must own it, where that is known: every request names it,
            and a bucket of that name in another account is refused. ``None``: what ``SEALFLOW_BUCKET_OWNERS`` says.
    """

    parallel = 8
    smallest_part = s3_uploads.SMALLEST_PART
    largest_part: int | None = s3_uploads.LARGEST_PART
    most_parts: int | None = s3_uploads.MOST_PARTS

    def __init__(self, client: Any = None, owners: Mapping[str, str] | None = None) -> None:
        self._given = client
        self._clients: dict[str, Any] = {}
        self._owners = _owners(os.environ.get("SEALFLOW_BUCKET_OWNERS", "")) if owners is None else owners

    def _client(self, uri: str) -> Any:
        if self._given is not None:
            return self._given
        scheme = "minio" if uri.lower().startswith("minio:") else "s3"
        if scheme not in self._clients:
            self._clients[scheme] = default_client(scheme)
        return self._clients[scheme]

    def client(self, uri: str) -> Any:
        """Return the boto3 client that reads a location, for other programs that need its credentials."""
        return self._client(uri)

    def owner(self, uri: str) -> str | None:
        """Return the number of the account that must own a location's bucket, ``None`` where nobody said."""
        return self._owners.get(split(uri)[0])

    def canonical(self, uri: str) -> str:
        """See :class:`~sealflow.storage.base.Storage`."""
        bucket, key = split(uri)
        scheme = "minio" if uri.lower().startswith("minio:") else "s3"
        return f"{scheme}://{bucket}/{key.rstrip('/')}"

    def locate(self, uri: str) -> Location | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        bucket, key = split(uri)
        client = self._client(uri)
        bare = key.rstrip("/")
        head = None
        if bare and not key.endswith("/"):
            head = call(uri, lambda: client.head_object(**self._in(bucket), Key=bare), gone=None)
        page = call(
            uri,
            lambda: client.list_objects_v2(**self._in(bucket), Prefix=f"{bare}/" if bare else "", MaxKeys=2),
            gone={},
        )
        below = any(item["Key"] != f"{bare}/" for item in (page or {}).get("Contents", ()))
        name = bare.rpartition("/")[2] or bucket
        if head is not None and below:
            # Two artifacts at one location: which one was meant cannot be known, and a planted one must not win.
            raise ArtifactError(
                f"{printable(uri)} is an object and a folder at the same time.",
                next_step="Remove one of them; add a final '/' only if you mean the folder.",
            )
        if head is not None or below:
            check_name(name)
        if head is not None:
            return Location(self.canonical(uri), "file", name, head.get("VersionId"))
        return Location(self.canonical(uri), "tree", name) if below else None

    def entries(self, location: Location, *, sizes: bool = False) -> list[Entry]:
        """See :class:`~sealflow.storage.base.Storage`."""
        bucket, key = split(location.uri)
        client = self._client(location.uri)
        if location.kind == "file":
            version = {"VersionId": location.version_id} if location.version_id else {}
            head = call(location.uri, lambda: client.head_object(**self._in(bucket), Key=key, **version))
            return [Entry(location.name, head["ContentLength"], head["ETag"])]
        prefix = f"{key}/" if key else ""
        entries = []
        for item in (item for page in _pages(client, location.uri, **self._in(bucket), Prefix=prefix) for item in page):
            name = item["Key"][len(prefix) :]
            if item["Key"].endswith("/") and not item["Size"]:
                continue  # the marker with which consoles show an empty folder
            check_name(name)
            entries.append(Entry(name, item["Size"], item["ETag"]))
        return sorted(entries, key=lambda entry: entry.name)

    def open(self, location: Location) -> S3Reader:
        """See :class:`~sealflow.storage.base.Storage`."""
        return S3Reader(self._client(location.uri), location, self._in(split(location.uri)[0]))

    def get(self, uri: str, limit: int) -> bytes | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        found = self.get_pinned(uri, limit)
        return found and found[0]

    def get_pinned(self, uri: str, limit: int) -> tuple[bytes, str] | None:
        """Return a small object and its ETag, or ``None`` where there is none. Raises as :meth:`get`."""
        bucket, key = split(uri)
        answer = call(uri, lambda: self._client(uri).get_object(**self._in(bucket), Key=key), gone=None)
        if answer is None:
            return None
        size = answer["ContentLength"]
        with closing(answer["Body"]) as body:
            if size > limit:
                raise EvidenceError(f"{printable(uri)} has {size} bytes, more than {limit}.")
            try:
                data = bytes(body.read(limit + 1))
            except broken() as error:
                raise translate(error, uri) from None
        if len(data) != size:
            raise UnavailableError(f"S3 sent {len(data)} of the {size} bytes of {printable(uri)}.")
        return data, str(answer.get("ETag") or "")

    def list_objects(self, uri: str, limit: int) -> list[str]:
        """See :class:`~sealflow.storage.base.Storage`."""
        return self._list(uri, limit)[0]

    def list_folders(self, uri: str, limit: int) -> list[str]:
        """See :class:`~sealflow.storage.base.Storage`."""
        return self._list(uri, limit)[1]

    def _list(self, uri: str, limit: int) -> tuple[list[str], list[str]]:
        bucket, key = split(uri)
        prefix = f"{key.rstrip('/')}/" if key else ""
        client = self._client(uri)
        objects: list[str] = []
        folders: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = call(
                uri,
                lambda: client.list_objects_v2(**self._in(bucket), Prefix=prefix, Delimiter="/", **token),  # noqa: B023
            )
            objects += [item["Key"][len(prefix) :] for item in page.get("Contents", ()) if item["Key"] != prefix]
            folders += [item["Prefix"][len(prefix) : -1] for item in page.get("CommonPrefixes", ())]
            if not page.get("IsTruncated") or len(objects) > limit or len(folders) > limit:
                return sorted(objects)[: limit + 1], sorted(folders)[: limit + 1]
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def facts(self, uri: str) -> ObjectFacts | None:
        """Return what the store says of one object, ``None`` when there is none.

        Raises:
            UnavailableError: The store cannot be asked, or answers without a size.
        """
        bucket, key = split(uri)
        client = self._client(uri)
        head = call(uri, lambda: client.head_object(**self._in(bucket), Key=key, ChecksumMode="ENABLED"), gone=None)
        if head is None:
            return None
        size = head.get("ContentLength")
        if not isinstance(size, int) or size < 0:
            raise UnavailableError(f"S3 does not say how many bytes {printable(uri)} has.")
        encryption = "SSE-C" if head.get("SSECustomerAlgorithm") else head.get("ServerSideEncryption") or ""
        return ObjectFacts(size, str(head.get("ETag") or ""), str(encryption), _checksums(head))

    def pages(self, uri: str) -> Iterator[list[Entry]]:
        """Yield what lies below a folder, page by page, in the store's order and with the names that it gives.

        Nothing is checked: the names are for looking up, never for opening or showing.

        Raises:
            UnavailableError: The store cannot be asked, or breaks off.
        """
        bucket, key = split(uri)
        prefix = f"{key.rstrip('/')}/" if key else ""
        for page in _pages(self._client(uri), uri, **self._in(bucket), Prefix=prefix):
            yield [Entry(item.get("Key", "")[len(prefix) :], item.get("Size"), item.get("ETag")) for item in page]

    def page(self, uri: str, after: str, limit: int) -> list[Entry]:
        """Return at most ``limit`` (1,000 at the most) of what lies below a folder, in the order of the names.

        Args:
            uri: The folder.
            after: A name, relative to the folder; only those after it are returned.
            limit: Fewer come only at the end.

        Raises:
            UnavailableError: The store cannot be asked.
        """
        place = self._place(f"{uri.rstrip('/')}/")
        answer = place.call(
            "list_objects_v2", **place.in_bucket, Prefix=place.key, StartAfter=place.key + after, MaxKeys=limit
        )
        found = answer.get("Contents", [])
        return [Entry(item.get("Key", "")[len(place.key) :], item.get("Size"), item.get("ETag")) for item in found]

    def remove(self, uri: str, pin: str | None = None) -> None:
        """Remove an object; that there is none is a success. A bucket that keeps versions keeps what was removed.

        Args:
            uri: The object.
            pin: Its ETag: another object is left alone by a store that honours conditions on a removal.

        Raises:
            UnavailableError: The store cannot be reached or does not let us.
        """
        place = self._place(uri)
        place.call("delete_object", **place.where, **({"IfMatch": pin} if pin else {}))

    def create(self, uri: str, data: bytes) -> bool:
        """See :class:`~sealflow.storage.base.Storage`."""
        place = self._place(uri)
        # A store that ignores the condition would replace what lies there, and say that all is well.
        if not s3_uploads.known_to_heed(place) and s3_uploads.is_there(place):
            return False
        answer = call(
            uri,
            lambda: place.client.put_object(**place.where, Body=data, IfNoneMatch="*", ContentType="application/json"),
            conflict=None,
        )
        return answer is not None

    def open_object(self, uri: str, first: int, version_id: str | None = None) -> s3_objects.S3Object | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        return s3_objects.open_object(self._place(uri), first, version_id)

    def begin(self, uri: str, *, overwrite: bool) -> s3_uploads.S3Outgoing:
        """See :class:`~sealflow.storage.base.Storage`."""
        return s3_uploads.begin(self._place(uri), overwrite=overwrite)

    def resume(self, uri: str, token: str, *, overwrite: bool) -> s3_uploads.S3Outgoing | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        return s3_uploads.resume(self._place(uri), token, overwrite=overwrite)

    def put(self, uri: str, data: bytes | memoryview, *, overwrite: bool) -> str | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        return s3_uploads.put(self._place(uri), data, overwrite=overwrite)

    def replace(self, uri: str, data: bytes, pin: str | None) -> bool:
        """Write a small object in the place of the one with this ETag (``None``: of none); ``False``: it is another.

        Raises:
            UnavailableError: The store cannot be written, or did not say what it did.
            UsageError: ``OVERWRITE_NOT_PROTECTED``: the store ignores conditions.
        """
        return s3_uploads.replace(self._place(uri), data, pin)

    def unfinished(self, uri: str, limit: int) -> list[Unfinished]:
        """See :class:`~sealflow.storage.base.Storage`."""
        place = self._place(self.canonical(uri))
        return list(s3_uploads.unfinished(place, limit))

    def _place(self, uri: str) -> Place:
        scheme, (bucket, key) = self.canonical(uri).partition("://")[0], split(uri)
        return Place(self._client(uri), f"{scheme}://{bucket}/{key}", bucket, key, self._owners.get(bucket))

    def _in(self, bucket: str) -> dict[str, str]:
        owner = self._owners.get(bucket)
        return {"Bucket": bucket} | ({"ExpectedBucketOwner": owner} if owner else {})


class S3Reader:
    """Reads the objects of one artifact under the versions that the listing named."""

    def __init__(self, client: Any, location: Location, in_bucket: Mapping[str, str]) -> None:
        self._client = client
        self._location = location
        self._in_bucket = in_bucket
        self._bucket, self._key = split(location.uri)

    def __enter__(self) -> S3Reader:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, entry: Entry, consume: Consumer) -> int:
        """See :class:`~sealflow.storage.base.Reader`."""
        key = self._key
        if self._location.kind == "tree":
            key = f"{key}/{entry.name}" if key else entry.name
        uri = f"s3://{self._bucket}/{key}"
        version = {"VersionId": self._location.version_id} if self._location.version_id else {}
        total = 0
        for attempt in range(RESUMES + 1):
            where = {"Range": f"bytes={total}-"} if total else {}
            answer = call(
                uri,
                lambda: self._client.get_object(
                    **self._in_bucket,
                    Key=key,
                    IfMatch=entry.pin,
                    **version,
                    **where,  # noqa: B023
                ),
                gone=_CHANGED,
                conflict=_CHANGED,
            )
            if answer is _CHANGED:
                raise ArtifactError(f"{printable(entry.name)} changed while it was read.", code="ARTIFACT_CHANGED")
            failed: Exception | None = None
            # Not `with answer["Body"]`: that hands out the raw stream, which checks nothing.
            with closing(answer["Body"]) as body:
                pieces = body.iter_chunks(CHUNK)
                while True:
                    # Only the connection may fail here; what the consumer raises is not the store's fault.
                    try:
                        piece = next(pieces, None)
                    except broken() as error:
                        failed = error
                        break
                    if piece is None:
                        break
                    consume(piece)
                    total += len(piece)
            if failed is None or total == entry.size:
                break
            if attempt == RESUMES:
                raise translate(failed, uri) from None
        if entry.size is not None and total != entry.size:
            raise ArtifactError(
                f"{printable(entry.name)} has {total} bytes, the listing said {entry.size}.", code="ARTIFACT_CHANGED"
            )
        return total


_CHANGED: Any = object()


def _pages(client: Any, uri: str, **arguments: str) -> Iterator[list[dict[str, Any]]]:
    token: dict[str, str] = {}
    while True:
        page = call(uri, lambda: client.list_objects_v2(**arguments, **token))  # noqa: B023
        yield page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        if not page.get("NextContinuationToken"):
            raise UnavailableError(f"S3 breaks off its listing of {printable(uri)}.")
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _checksums(head: Mapping[str, Any]) -> dict[str, str]:
    # Without the type nobody knows what the checksum was made over.
    if head.get("ChecksumType") != "FULL_OBJECT":
        return {}
    found = {}
    for name, length in (("sha256", 32), ("md5", 16)):
        try:
            checksum = strictjson.base64_bytes(str(head.get(f"Checksum{name.upper()}") or ""), "The checksum")
        except EvidenceError:
            continue
        if len(checksum) == length:
            found[name] = checksum.hex()
    return found
