"""Lineage statements: bytes with this SHA-256 have that MD5, by which DVC knows them.

DVC names data by MD5, for which two files with one digest can be made. Whoever made or owns the data signs once what
both digests are, from one reading; from then on SHA-256 decides. An in-toto Statement v1 about one artifact, with a
predicate of our own:

``data``
    ``path`` in the repository, ``md5`` as DVC writes it (with ``.dir`` for a folder), ``size`` in bytes, and for a
    folder ``nfiles``.
``stage``
    What records the data, as DVC names it: ``train``, ``data.dvc``.
``run``, ``builder``, ``signedOn``
    Who signed and when, as the signer claims; the run has ``producer`` and ``invocation``.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow.evidence.provenance import parse_digest_set
from sealflow.evidence.statement import Statement, make_statement
from sealflow.findings import printable
from sealflow.hashing import Digest
from sealflow.run_identity import RunIdentity

PREDICATE_TYPE: Final = "urn:sealflow:predicate:dvc-lineage:v1"

#: Kind of the evidence object.
KIND: Final = "lineage"

_MAX_TEXT = 4096
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)
_PREDICATE = frozenset({"data", "stage", "run", "builder", "signedOn"})
_DATA = frozenset({"path", "md5", "size", "nfiles"})
_RUN = frozenset({"producer", "invocation"})
_BUILDER = frozenset({"id"})


@dataclass(frozen=True)
class DvcLineage:
    """What a signed lineage statement says.

    Attributes:
        digest: Artifact digest.
        path: Path of the data in its repository.
        md5: What DVC writes as ``md5``.
        size: Bytes in all.
        nfiles: Number of files of a folder, ``None`` for a file.
        stage: What records the data.
        producer: ``<orchestrator>:<workflow>/<task>``; ``python`` or ``cli`` outside of orchestrators.
        invocation: The run.
        builder: SLSA builder id of the place where it was signed.
        signed_on: When, as the signer claims; RFC 3339 in UTC.
    """

    digest: Digest
    path: str
    md5: str
    size: int
    nfiles: int | None
    stage: str
    producer: str
    invocation: str
    builder: str
    signed_on: str


def make_lineage_statement(
    path: str,
    digest: Digest,
    *,
    md5: str,
    size: int,
    nfiles: int | None,
    stage: str,
    run: RunIdentity,
    now: datetime.datetime,
) -> bytes:
    """Return the lineage statement about one file or folder as canonical JSON, ready to be signed.

    Args:
        path: Path in the repository.
        digest: Artifact digest, made from bytes in the same reading as the MD5.
        md5: What DVC writes as ``md5``.
        size: Bytes in all.
        nfiles: Number of files of a folder, ``None`` for a file.
        stage: What records the data.
        run: Who signs.
        now: The time of signing, aware.
    """
    data: dict[str, Any] = {"path": path, "md5": md5, "size": size}
    if nfiles is not None:
        data["nfiles"] = nfiles
    predicate = {
        "data": data,
        "stage": stage,
        "run": {"producer": run.producer, "invocation": run.invocation},
        "builder": {"id": run.builder_id},
        "signedOn": now.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return make_statement(path, digest.as_digest_set(), PREDICATE_TYPE, predicate)


def parse_lineage(statement: Statement) -> DvcLineage:
    """Parse a lineage statement strictly: nothing in it may be there that a reader would not see.

    Raises:
        EvidenceError: Another predicate, several subjects, unknown members, or values that cannot be.
    """
    if statement.predicate_type != PREDICATE_TYPE:
        raise EvidenceError(f"The predicate type is {statement.predicate_type[:120]!r}, not {PREDICATE_TYPE}.")
    if len(statement.subjects) != 1:
        raise EvidenceError(f"The lineage statement has {len(statement.subjects)} subjects instead of one.")
    subject, what = statement.subjects[0], "The lineage statement"
    digest = parse_digest_set(subject.digests)
    body = statement.predicate
    strictjson.only_members(body, _PREDICATE, what)
    data = strictjson.member(body, "data", dict, what)
    strictjson.only_members(data, _DATA, "data")
    run = strictjson.member(body, "run", dict, what)
    strictjson.only_members(run, _RUN, "run")
    builder = strictjson.member(body, "builder", dict, what)
    strictjson.only_members(builder, _BUILDER, "builder")
    md5 = strictjson.member(data, "md5", str, "data")
    folder = digest.algorithm == "dirHash"
    if not _MD5.fullmatch(md5) or md5.endswith(".dir") != folder:
        raise EvidenceError("The lineage statement's md5 is none of DVC, or one of another kind than its subject.")
    nfiles = strictjson.member(data, "nfiles", int, "data", required=folder)
    if (nfiles is not None) != folder:
        raise EvidenceError("The lineage statement counts the files of a file.")
    size = strictjson.member(data, "size", int, "data")
    if size < 0 or (nfiles or 0) < 0:
        raise EvidenceError("The lineage statement holds a size below zero.")
    if not _TIME.fullmatch(signed_on := strictjson.member(body, "signedOn", str, what)):
        raise EvidenceError("The lineage statement's signedOn is no time in UTC.")
    path = _shown(strictjson.member(data, "path", str, "data"), "path")
    if path != subject.name:
        raise EvidenceError("The lineage statement's subject has another name than its data.")
    return DvcLineage(
        digest,
        path,
        md5,
        size,
        nfiles,
        _shown(strictjson.member(body, "stage", str, what), "stage"),
        _shown(strictjson.member(run, "producer", str, "run"), "producer"),
        _shown(strictjson.member(run, "invocation", str, "run"), "invocation"),
        _shown(strictjson.member(builder, "id", str, "builder"), "builder id"),
        signed_on,
    )


def _shown(text: str, what: str) -> str:
    if len(text) > _MAX_TEXT or printable(text, len(text)) != text:
        raise EvidenceError(f"The lineage statement's {what} is too long or holds control characters.")
    return text
