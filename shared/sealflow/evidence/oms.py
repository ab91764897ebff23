"""OpenSSF Model Signing v1.0: the statement under an artifact's signature."""

from __future__ import annotations

import json.encoder
import re
from typing import Any, Final, Literal

from sealflow import strictjson
from sealflow.errors import ArtifactError, EvidenceError
from sealflow.evidence.statement import Statement, Subject, make_statement
from sealflow.hashing import FILE_HASHES
from sealflow.manifest import FILES_SHA256, Manifest, Resource, Serialization
from sealflow.names import check_name, check_tree

PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"

#: What model-signing 0.2.0 wrote: file digests as subjects, no predicate.
LEGACY_PREDICATE_TYPE: Final = "https://model_signing/Digests/v0.1"

_PREDICATE = frozenset({"resources", "serialization"})
_SERIALIZATION = frozenset({"method", "hash_type", "shard_size", "allow_symlinks", "ignore_paths"})
_HEX = re.compile(r"[0-9a-f]+")
# Section 6.3.2: the last two colon-separated integers are the range; the path may hold colons of its own.
_SHARD = re.compile(r"(.+):(0|[1-9][0-9]{0,18}):([1-9][0-9]{0,18})", re.DOTALL)
_MAX_RESOURCES: Final = 2_000_000
_quoted = json.encoder.encode_basestring


def make_oms_statement(manifest: Manifest) -> bytes:
    """Return the statement for a manifest (sections 5 and 6), ready to be signed."""
    serialization: dict[str, Any] = {
        "method": manifest.serialization.method,
        "hash_type": manifest.serialization.hash_type,
        "allow_symlinks": False,
    }
    if manifest.serialization.method == "shards":
        serialization["shard_size"] = manifest.serialization.shard_size
    if manifest.ignored:
        serialization["ignore_paths"] = sorted(manifest.ignored)
    statement = make_statement(
        manifest.name,
        {"sha256": manifest.root_digest},
        PREDICATE_TYPE,
        {"resources": [], "serialization": serialization},
    )
    # Spelled as the canonical JSON of the whole would be, and a test holds that: an object a file is too much to build
    # for a million of them. Inside a text each quotation mark has a backslash, so there is one such place.
    head, mark, tail = statement.partition(b'"resources":[')
    algorithm = manifest.serialization.hash_type
    lines = [
        f'{{"algorithm":"{algorithm}","digest":"{digest}","name":{_quoted(name)}}}'
        for name, digest in manifest.resources
    ]
    return b"".join((head, mark, ",".join(lines).encode("utf-8"), tail))


def parse_oms_statement(statement: Statement, known: Manifest | None = None) -> Manifest:
    """Return the manifest that a statement signs.

    The root digest is recomputed in signed order: the reference implementation up to 1.1.1 orders by path parts, the
    specification by code points, and both are signed.

    Args:
        statement: The statement.
        known: A manifest that was made from bytes; names that are exactly its names were checked there.

    Raises:
        EvidenceError: Not a valid v1.0 predicate, or its root digest does not follow from its resources.
    """
    if statement.predicate_type == LEGACY_PREDICATE_TYPE:
        return _parse_legacy(statement)
    if statement.predicate_type != PREDICATE_TYPE:
        raise EvidenceError(f"The predicate type is {statement.predicate_type[:120]!r}, not {PREDICATE_TYPE}.")
    if len(statement.subjects) != 1:
        raise EvidenceError(f"The statement has {len(statement.subjects)} subjects; OMS has exactly one.")
    predicate = statement.predicate
    strictjson.only_members(predicate, _PREDICATE, "The OMS predicate")
    serialization, ignored = _parse_serialization(
        strictjson.member(predicate, "serialization", dict, "The OMS predicate")
    )
    items = strictjson.member(predicate, "resources", list, "The OMS predicate")
    # Releases before 1.1.0 put the shard size into the algorithm's name.
    algorithms = {serialization.hash_type}
    if serialization.method == "shards":
        algorithms.add(f"{serialization.hash_type}-sharded-{serialization.shard_size}")
    resources = _parse_resources(items, algorithms, FILE_HASHES[serialization.hash_type], known)
    if serialization.method == "shards":
        _check_shards(resources, serialization.shard_size)
    elif known is None or resources is not known.resources:
        _check_names([resource.name for resource in resources])
    subject = statement.subjects[0]
    manifest = Manifest(None, subject.name, resources, serialization, ignored)
    if known is not None and resources is known.resources:
        manifest.adopt(known)
    if subject.digests.get("sha256") != manifest.root_digest:
        raise EvidenceError("The signed root digest does not follow from the signed resources.")
    return manifest


def as_signed(manifest: Manifest) -> tuple[Statement, Manifest]:
    """Return what parsing the statement of a manifest, made by :func:`make_oms_statement` from bytes, would give.

    A payload that equals those bytes needs no parser. The statement's predicate is left empty.
    """
    signed = Manifest(None, manifest.name, manifest.resources, manifest.serialization)
    signed.adopt(manifest)
    return Statement(PREDICATE_TYPE, (Subject(manifest.name, {"sha256": manifest.root_digest}),), {}), signed


def split_shard(name: str) -> tuple[str, int, int]:
    """Split a shard's name into path, start and end (section 6.3.2).

    Raises:
        EvidenceError: Not of the form ``path:start:end``.
    """
    match = _SHARD.fullmatch(name)
    if match is None:
        raise EvidenceError(f"{name[:120]!r} is not a shard name.")
    return match[1], int(match[2]), int(match[3])


def _parse_serialization(body: dict[str, Any]) -> tuple[Serialization, tuple[str, ...]]:
    what = "The serialization"
    strictjson.only_members(body, _SERIALIZATION, what)
    method: Literal["files", "shards"]
    method = strictjson.member(body, "method", str, what)
    if method not in ("files", "shards"):
        raise EvidenceError(f"The serialization method {str(method)[:40]!r} is unknown.")
    hash_type = strictjson.member(body, "hash_type", str, what)
    if hash_type not in FILE_HASHES:
        raise EvidenceError(f"The hash type {hash_type[:40]!r} is unknown.")
    if strictjson.member(body, "allow_symlinks", bool, what):
        raise EvidenceError("The signature follows symbolic links, which leaves files unsigned; it is refused.")
    ignored = strictjson.member(body, "ignore_paths", list, what, required=False) or []
    for path in ignored:
        if not isinstance(path, str):
            raise EvidenceError("An ignored path is no text.")
        if not path.startswith("../"):  # the signature file itself, where it lay outside the artifact
            _hostile_is_evidence(path)
    size = 0
    if method == "shards":
        raw = strictjson.member(body, "shard_size", (int, float), what)
        # The reference implementation's protobuf Struct turns the integer into a float.
        size = int(raw) if not isinstance(raw, bool) and 1 <= raw <= 2**53 and int(raw) == raw else 0
        if not size:
            raise EvidenceError("The shard size is not a positive integer.")
    elif body.get("shard_size") is not None:
        raise EvidenceError("A shard size stands beside the method 'files'.")
    return Serialization(method, hash_type, size), tuple(path.rstrip("/") for path in ignored)


def _parse_resources(
    items: list[Any], algorithms: set[str], length: int, known: Manifest | None
) -> tuple[Resource, ...]:
    if not 1 <= len(items) <= _MAX_RESOURCES:
        raise EvidenceError(f"The signature lists {len(items)} resources; 1 to {_MAX_RESOURCES} are accepted.")
    # Checked in bulk: a signature can list a million files.
    try:
        pairs = tuple([(item["name"], item["digest"]) for item in items])
        wrong = {item["algorithm"] for item in items} - algorithms
        if known is not None and pairs == known.resources and not wrong:
            return known.resources
        "".join([name for name, _ in pairs])  # a name that is no text fails here
        digests = "".join([digest for _, digest in pairs])
    except (KeyError, TypeError):
        raise EvidenceError("A resource lacks its name, digest or algorithm.") from None
    if wrong or {len(digest) for _, digest in pairs} != {length} or _HEX.fullmatch(digests) is None:
        raise EvidenceError("A resource has a malformed digest or another algorithm than the serialization.")
    return tuple([Resource(*pair) for pair in pairs])


def _check_names(names: list[str]) -> None:
    # The reference implementation writes "." for an artifact that is a single file (the specification: its name).
    if names == ["."]:
        return
    try:
        for name in names:
            check_name(name)
        check_tree(names)
    except ArtifactError as error:
        raise EvidenceError(f"The signature lists a hostile name. {error.message}") from None


def _hostile_is_evidence(name: str) -> None:
    try:
        check_name(name.rstrip("/"))
    except ArtifactError as error:
        raise EvidenceError(f"The signature ignores a hostile path. {error.message}") from None


def _check_shards(resources: tuple[Resource, ...], shard_size: int) -> None:
    """Refuse ranges that are not the consecutive, full ranges of each file: a gap would leave bytes unsigned."""
    files: dict[str, list[tuple[int, int]]] = {}
    for resource in resources:
        path, start, end = split_shard(resource.name)
        files.setdefault(path, []).append((start, end))
    _check_names(list(files))
    for path, ranges in files.items():
        expected = 0
        for index, (start, end) in enumerate(sorted(ranges)):
            full = end - start == shard_size
            last = index == len(ranges) - 1
            if start != expected or not (full or (last and 0 < end - start < shard_size)):
                raise EvidenceError(f"The shards of {path[:120]!r} are not its consecutive ranges.")
            expected = end


def _parse_legacy(statement: Statement) -> Manifest:
    resources = []
    for subject in statement.subjects:
        digest = subject.digests.get("sha256", "")
        if len(digest) != FILE_HASHES["sha256"] or _HEX.fullmatch(digest) is None:
            raise EvidenceError(f"The subject {subject.name[:120]!r} has no SHA-256.")
        resources.append(Resource(subject.name, digest))
    _check_names([resource.name for resource in resources])
    return Manifest(None, "", tuple(resources), FILES_SHA256)
