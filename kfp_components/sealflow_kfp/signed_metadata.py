"""An artifact's metadata, signed: whoever can write the metadata store can write it, and commands believe it.

Where an artifact has files, its metadata is signed apart, as canonical JSON that names the artifact's digest; text and
provenance travel in the metadata itself. Where it has none, the JSON is its file. KFP changes values on their way
(numbers become floats, lists come back wrapped), so commands are handed what was signed, and nothing is compared.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.sign import sign_artifact
from sealflow.actions.verify import verify_artifact
from sealflow.errors import ArtifactError, EvidenceError, VerificationError
from sealflow.storage.local import replace_file
from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata
from sealflow_kfp.expected import Expected, wrong_source
from sealflow_kfp.run_context import location_of, shown_as
from sealflow_kfp.task_body import case_of

if TYPE_CHECKING:
    from sealflow.storage import Storages
    from sealflow_kfp.executor_io import Handed

#: Where the metadata of an artifact with files stands as it was signed, and its provenance.
TEXT: Final = "sealflow_metadata"
EVIDENCE: Final = "sealflow_metadata_evidence"
#: Follows an artifact's logical name in that of its metadata.
SUFFIX: Final = ".metadata"
#: Keys that are ours: what a command claims there goes.
OURS: Final = (KEY, TEXT, EVIDENCE)
#: Keys that say nothing of the artifact: ours, and what KFP adds.
APART: Final = frozenset({*OURS, "_kfp_workspace", "display_name", "store_session_info"})
#: Longest document in bytes.
MAX_TEXT: Final = 1 << 20

_MARK: Final = "sealflow_metadata"
_HEAD: Final = b'{"metadata":{'
_WHAT: Final = "The metadata"


def said_in(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an artifact's metadata that says something of it."""
    return {key: value for key, value in metadata.items() if key not in APART}


def as_file(artifact: Handed, said: Mapping[str, Any]) -> bytes:
    """Return the file of an artifact that has no other.

    Raises:
        ArtifactError: Too long.
    """
    return _document(artifact, {_MARK: 1, "metadata": said})


def in_file(path: str) -> dict[str, Any] | None:
    """Return the metadata in a verified file, ``None`` where it is another file."""
    try:
        with open(path, "rb") as file:
            # Its canonical form begins so, and hardly another file does.
            data = file.read(len(_HEAD))
            if data != _HEAD:
                return None
            data += file.read(MAX_TEXT)
        body = strictjson.loads(data, limit=MAX_TEXT, what=_WHAT)
    except (OSError, EvidenceError):
        return None
    if not isinstance(body, dict) or body.get(_MARK) != 1 or not isinstance(body.get("metadata"), dict):
        return None
    found: dict[str, Any] = body["metadata"]
    return found


def sign_metadata(
    artifact: Handed, said: Mapping[str, Any], digest: str, folder: str, storages: Storages
) -> dict[str, str]:
    """Sign the metadata of an artifact with files, and return what is added to it.

    Args:
        artifact: The artifact.
        said: Its metadata.
        digest: Its digest.
        folder: A private folder.
        storages: Finds storage.

    Raises:
        SealflowError: As :func:`~sealflow.actions.sign.sign_artifact`, or it is too long.
    """
    data = _document(artifact, {_MARK: 1, "metadata": said, "of": digest})
    path = os.path.join(folder, "metadata")
    replace_file(path, data)
    # It is part of the artifact, so the artifact's rules hold for it.
    with shown_as(path, location_of(artifact.path)):
        signed = sign_artifact(path, name=f"{artifact.name}{SUFFIX}", storages=storages)
    return {
        TEXT: data.decode("utf-8"),
        EVIDENCE: EvidenceMetadata(signed.ref.digest, signed.provenance).to_text(),
    }


def verified_metadata(artifact: Handed, one: Expected, digest: str, folder: str, storages: Storages) -> dict[str, Any]:
    """Return the metadata that was signed together with an artifact.

    Args:
        artifact: The artifact, as it was handed over.
        one: Who made it.
        digest: Its digest, verified.
        folder: A private folder.
        storages: Finds storage.

    Raises:
        SealflowError: It is not to be believed, or nobody can say.
    """
    text, evidence = (artifact.metadata.get(key) for key in (TEXT, EVIDENCE))
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise EvidenceError(f"{_WHAT} of {artifact} is no text, or too long.")
    path, data = os.path.join(folder, "metadata"), text.encode("utf-8", "replace")
    replace_file(path, data)
    subject, options = case_of(replace(artifact, path=path, metadata={} if evidence is None else {KEY: evidence}))
    name = f"{one.name}{SUFFIX}"
    try:
        with shown_as(path, location_of(artifact.path)):
            checked = verify_artifact(subject, name=name, storages=storages, **options)
    finally:
        # It is part of an input, and none by itself.
        context.forget_verified(context.current().run, storages.for_uri(path).canonical(path))
    if not checked.verdict.passed:
        raise VerificationError(checked.verdict)
    if (refused := wrong_source(checked, [one._replace(name=name)])) is not None:
        raise refused
    body = strictjson.loads(data, limit=MAX_TEXT, what=_WHAT)
    if strictjson.member(body, "of", str, _WHAT) != digest:
        raise EvidenceError(f"{_WHAT} of {artifact} was signed together with another artifact.")
    found: dict[str, Any] = strictjson.member(body, "metadata", dict, _WHAT)
    return found


def _document(artifact: Handed, body: Mapping[str, Any]) -> bytes:
    data = strictjson.dumps(body)
    if len(data) > MAX_TEXT:
        raise ArtifactError(f"{_WHAT} of {artifact} has more than {MAX_TEXT} bytes.")
    return data
