"""Export: evidence as the files that other tools open."""

from __future__ import annotations

import os
from typing import Any

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence import ArtifactRef, EvidenceStore, default_store, parse_bundle
from sealflow.evidence.reference import is_reference
from sealflow.findings import printable
from sealflow.hashing import Digest
from sealflow.manifest import build_manifest
from sealflow.storage import Storages


def export_evidence(
    artifact: Any,
    destination: str,
    *,
    evidence_store: str | None = None,
    overwrite: bool = False,
    storages: Storages | None = None,
) -> list[str]:
    """Write an artifact's evidence as the files that other tools open.

    These are ``.sig`` (OMS bundles, for ``model_signing``) and ``.intoto.jsonl`` (DSSE envelopes). The first signature
    becomes ``<name>.sig``, further ones ``<name>.2.sig`` and so on. Nothing is verified here: the other tool does that.

    Args:
        artifact: Reference, path or location.
        destination: An existing folder.
        evidence_store: Where the evidence lies.
        overwrite: Replace files of these names.
        storages: Finds storage.

    Returns:
        The paths written.

    Raises:
        UsageError: No evidence, no such folder, or a file is there already.
        ArtifactError: The artifact cannot be read to find its digest.
        UnavailableError: The store cannot be read.
    """
    storages = storages or Storages()
    ref = ArtifactRef.parse(artifact) if is_reference(artifact) else None
    uri = ref.uri if ref is not None else os.fspath(artifact)
    digest = ref.digest if ref is not None else _digest_of(uri, storages)
    store = EvidenceStore(evidence_store or (ref.evidence if ref else None) or default_store(uri, storages), storages)
    objects = [item for item in store.collect(digest).objects if not item.altered and _is_bundle(item.data)]
    if not objects:
        raise UsageError(
            f"{printable(store.uri)} holds no evidence for {digest}.",
            code="EVIDENCE_MISSING",
            next_step="Name the store with --evidence-store.",
        )
    if not os.path.isdir(destination):
        raise UsageError(f"{printable(destination)} is not a folder.")
    base = os.path.join(destination, uri.rstrip("/").rpartition("/")[2])
    written: list[str] = []
    signatures = [item for item in objects if item.kind == "signature"]
    for number, item in enumerate(signatures, 1):
        written.append(_write(base + (".sig" if number == 1 else f".{number}.sig"), item.data, overwrite))
    attestations = [item for item in objects if item.kind != "signature"]
    if attestations:
        lines = b"".join(_envelope(item.data) + b"\n" for item in attestations)
        written.append(_write(base + ".intoto.jsonl", lines, overwrite))
    return written


def _digest_of(uri: str, storages: Storages) -> Digest:
    storage = storages.for_uri(uri)
    location = storage.locate(uri)
    if location is None:
        raise UsageError(f"Nothing lies at {printable(uri)}.", code="ARTIFACT_MISSING")
    return build_manifest(storage, location).digest


def _is_bundle(data: bytes) -> bool:
    # Whatever else lies in the store is no evidence, and must not keep the rest from being exported.
    try:
        parse_bundle(data)
    except EvidenceError:
        return False
    return True


def _envelope(data: bytes) -> bytes:
    # in-toto's own readers want no bundle around the envelope, and each signature to have a keyid.
    body = strictjson.loads(data, limit=len(data), what="The bundle")["dsseEnvelope"]
    signatures = [{"sig": item["sig"], "keyid": item.get("keyid") or ""} for item in body["signatures"]]
    return strictjson.dumps({**body, "signatures": signatures})


def _write(path: str, data: bytes, overwrite: bool) -> str:
    try:
        with open(path, "wb" if overwrite else "xb") as file:
            file.write(data)
    except FileExistsError:
        raise UsageError(f"{printable(path)} exists.", next_step="Use --overwrite, or another folder.") from None
    return path
