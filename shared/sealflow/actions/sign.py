"""Sign: read the bytes once, then write an OMS signature and a provenance statement, and return the reference."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sealflow.actions import context
from sealflow.actions.places import refuse_overlap
from sealflow.actions.recording import Recording
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.collector import rare_collection
from sealflow.errors import ArtifactError, UsageError
from sealflow.evidence import ArtifactRef, EvidenceStore, default_store, make_bundle
from sealflow.evidence.oms import make_oms_statement
from sealflow.evidence.provenance import MAX_PROVENANCE_BUNDLE, make_provenance_statement
from sealflow.evidence.timestamp import Authority, stamping
from sealflow.findings import printable
from sealflow.keys import KeySigner, PassphraseCallback, load_signer
from sealflow.keys.public import read_key_file
from sealflow.keys.signer import signers_of, split_authority
from sealflow.manifest import Manifest, build_manifest
from sealflow.manifest.build import Progress
from sealflow.manifest.model import DEFAULT_IGNORED
from sealflow.names import check_name
from sealflow.run_identity import ADOPTED_BUILDER
from sealflow.storage import Storages

_MIN_PARAMETER_KEY: Final = 16


@dataclass(frozen=True)
class Signed:
    """What signing made.

    Attributes:
        ref: The reference to hand on.
        name: Logical name that was signed.
        producer: Producer that was signed.
        key: Fingerprint of the signing key.
        provenance: The provenance bundle, small enough to travel as metadata.
        evidence: Names of the evidence objects.
        files: Number of files.
        size: Bytes.
    """

    ref: ArtifactRef
    name: str
    producer: str
    key: str
    provenance: bytes
    evidence: tuple[str, ...]
    files: int
    size: int

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "ref": self.ref.as_dict(),
            "name": self.name,
            "producer": self.producer,
            "key": self.key,
            "evidence": list(self.evidence),
            "files": self.files,
            "size": self.size,
        }


def sign(
    artifact: str | os.PathLike[str],
    *,
    signer: str | KeySigner | None = None,
    name: str | None = None,
    evidence_store: str | None = None,
    ignore: Sequence[str] = (),
    timestamp: str | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> ArtifactRef:
    """Sign a file or a folder and return its reference. :func:`sign_artifact` returns more.

    Args:
        artifact: Path or location.
        signer: Signer URI, by default the one that the policy chooses, then the one that the surroundings set.
        name: Logical name, by default the last part of the location.
        evidence_store: Where the evidence goes, by default what the surroundings set, else ``<artifact>.evidence``.
        ignore: Paths relative to the artifact's root that are left out, and recorded as left out.
        timestamp: Who stamps the signatures (RFC 3161): the name of an authority of the policy, or its address; by
            default the one that the policy names with the signer, if any.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage; given by callers that keep credentials themselves.
        audit: Takes audit events, by default the log that the surroundings set.
        progress: Called with bytes read and, when known, bytes in all.

    Raises:
        ArtifactError: The artifact cannot be taken as it is.
        UsageError: No signer, an unsuitable key, a store in a place that it would break.
        UnavailableError: A store, the key service, the timestamp authority or the audit log is out of reach.
    """
    return sign_artifact(
        artifact,
        signer=signer,
        name=name,
        evidence_store=evidence_store,
        ignore=ignore,
        timestamp=timestamp,
        passphrase=passphrase,
        storages=storages,
        audit=audit,
        progress=progress,
    ).ref


def sign_artifact(
    artifact: str | os.PathLike[str],
    *,
    signer: str | KeySigner | None = None,
    name: str | None = None,
    evidence_store: str | None = None,
    ignore: Sequence[str] = (),
    timestamp: str | None = None,
    adoption: str | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> Signed:
    """Sign as :func:`sign` does and return all that was made.

    With ``adoption``, the reason for which an artifact is taken over that existed before, the provenance says that
    nobody knows who made it, and satisfies no rule that asks for provenance.
    """
    surroundings = context.current()
    storages = storages or Storages()
    uri = os.fspath(artifact)
    storage = storages.for_uri(uri)
    canonical = storage.canonical(uri)
    store = EvidenceStore(
        evidence_store or surroundings.settings.evidence_store or default_store(canonical, storages), storages
    )
    key = open_signer(chosen_signer(canonical, surroundings, signer), passphrase, timestamp)
    parameter_key = read_parameter_key(surroundings.settings.parameter_key)
    fingerprint, names = f"sha256:{key.public_key.hint}", [name or canonical.rpartition("/")[2]]
    with (
        Recording("sign", canonical, surroundings, key=fingerprint, sink=audit, names=names) as recording,
        co_signing(key, canonical, surroundings, audit, names) as co_signed,
        rare_collection(),
    ):
        location = storage.locate(uri)
        if location is None:
            raise ArtifactError(f"Nothing lies at {printable(canonical)}.", code="ARTIFACT_MISSING")
        refuse_overlap(location.uri, store.uri, mounts=surroundings.mounts)
        manifest = build_manifest(storage, location, ignore=checked_ignore(ignore), progress=progress)
        digest = manifest.digest
        logical = name or location.name
        if adoption is None:
            provenance = make_provenance_statement(
                logical,
                digest,
                surroundings.run,
                dependencies=context.verified_inputs(surroundings.run),
                parameters=surroundings.parameters,
                parameter_key=parameter_key,
                now=utc_now(),
            )
        else:
            # What this run was given and has read says nothing of how the artifact came to be.
            run = replace(surroundings.run, builder=ADOPTED_BUILDER)
            provenance = make_provenance_statement(logical, digest, run, adoption=adoption, now=utc_now())
        provenance_bundle, evidence = write_evidence(store, canonical, manifest, provenance, key)
        ref = ArtifactRef(location.uri, digest, store.uri, location.version_id)
        ref.as_dict()  # refuse a reference that is too long before anybody relies on it
        recording.made(*evidence)
        recording.done(str(digest))
        co_signed(str(digest))
    return Signed(
        ref,
        logical,
        surroundings.run.producer,
        f"sha256:{key.public_key.hint}",
        provenance_bundle,
        evidence,
        len(manifest.resources),
        manifest.size,
    )


def write_evidence(
    store: EvidenceStore,
    canonical: str,
    manifest: Manifest,
    provenance: bytes,
    key: KeySigner,
    *,
    limit: int = MAX_PROVENANCE_BUNDLE,
) -> tuple[bytes, tuple[str, ...]]:
    """Sign a manifest and its provenance, and store both.

    Args:
        store: Where the evidence goes.
        canonical: The artifact's location, for messages.
        manifest: Made from the artifact's bytes.
        provenance: The provenance statement about them.
        key: The signer.
        limit: Largest provenance bundle in bytes.

    Returns:
        The first signer's provenance bundle, and the names of all objects, signatures first.

    Raises:
        ArtifactError: The folder holds names that OMS verifiers never check.
        UsageError: The provenance is too large to travel.
        UnavailableError: The store or the key service is out of reach.
    """
    if manifest.kind == "tree":
        refuse_git_metadata(item.name for item in manifest.resources)
    signatures = [make_bundle(make_oms_statement(manifest), each) for each in signers_of(key)]
    provenances = sign_provenance(canonical, provenance, key, limit=limit)
    # The signature last: a stop between the two leaves no signature without the provenance that qualifies it.
    stored = [store.put(manifest.digest, "provenance", bundle) for bundle in provenances]
    names = [store.put(manifest.digest, "signature", bundle) for bundle in signatures]
    return provenances[0], (*names, *stored)


def sign_provenance(
    canonical: str, provenance: bytes, key: KeySigner, *, limit: int = MAX_PROVENANCE_BUNDLE
) -> list[bytes]:
    """Return the bundles over a provenance statement, one of each signer.

    Raises:
        UsageError: It is too large to travel.
        UnavailableError: The key service is out of reach.
    """
    bundles = [make_bundle(provenance, each) for each in signers_of(key)]
    if (size := max(map(len, bundles))) > limit:
        raise UsageError(
            f"The provenance of {printable(canonical)} has {size} bytes, more than {limit}.",
            next_step="Verify fewer inputs in this run, sign with a shorter chain, or shorten locations.",
        )
    return bundles


@contextlib.contextmanager
def co_signing(
    key: KeySigner, canonical: str, surroundings: context.Surroundings, audit: AuditSink | None, names: Sequence[str]
) -> Iterator[Callable[..., None]]:
    """Record the use of a second signer's key, where there is one, as an action of its own.

    Yields what notes the digest and the version of what was made, as :meth:`Recording.done` does.
    """
    with contextlib.ExitStack() as stack:
        recordings = [
            stack.enter_context(
                Recording(
                    "co-sign",
                    canonical,
                    surroundings,
                    key=f"sha256:{each.public_key.hint}",
                    sink=audit,
                    names=names,
                )
            )
            for each in signers_of(key)[1:]
        ]

        def done(digest: str, version: str | None = None) -> None:
            for recording in recordings:
                recording.done(digest, version)

        yield done


def chosen_signer(
    canonical: str, surroundings: context.Surroundings, signer: str | KeySigner | None = None
) -> str | KeySigner | None:
    """Return who signs an artifact: the one given, the one that the policy chooses, the one that the settings name.

    Args:
        canonical: The artifact's location as its storage writes it.
        surroundings: Who signs.
        signer: The one given.

    Raises:
        UnavailableError: The policy is not to be had, and the artifact is managed.
    """
    if not signer and surroundings.admin is not None:
        # Most tasks know no policy, and need not load what would read it.
        from sealflow.actions.policies import policies_for

        signer = policies_for(canonical, surroundings).signer
    return signer or surroundings.settings.signer


def open_signer(
    signer: str | KeySigner | None, passphrase: PassphraseCallback | None = None, timestamp: str | None = None
) -> KeySigner:
    """Open the signer of an artifact.

    Args:
        signer: URI, which may say who stamps (``?timestamp=``), or signer.
        passphrase: Asked for the passphrase of an encrypted key.
        timestamp: Who stamps what it signs: the name of an authority of the policy, or an address.

    Raises:
        UsageError: There is none, it cannot be opened, or OMS v1.0 does not allow its kind of key; no such authority.
        MissingExtraError: A timestamp is asked for, and the library for it is not installed.
        UnavailableError: The key service does not answer; the policy that knows the authority is not to be had.
    """
    if signer is None or signer == "":
        raise UsageError(
            "There is no signer.",
            code="SIGNER_MISSING",
            next_step="Give `signer`, for example file:/keys/signing.pem; `sealflow keys generate` makes a key.",
        )
    named = ""
    if isinstance(signer, str):
        signer, named = split_authority(signer)
    key = load_signer(signer, passphrase) if isinstance(signer, str) else signer
    for each in signers_of(key):
        if not each.public_key.fits_oms:
            raise UsageError(
                f"{printable(each.uri)} is an {each.public_key.algorithm} key, and OMS v1.0 allows ECDSA only.",
                code="KEY_UNSUPPORTED",
                next_step="Sign artifacts with ECDSA on P-256, P-384 or P-521; Ed25519 can sign attestations.",
            )
    named = timestamp or named
    return stamping(key, _authority(named)) if named else key


def _authority(named: str) -> Authority:
    if "://" in named:
        return Authority(named, (), named)
    admin = context.current().admin
    known: list[Authority] = []
    if admin is not None:
        from sealflow.policy.source import policy_in_force

        # Read with the process's own credentials, as every policy.
        believed = policy_in_force(admin, Storages(), utc_now()).policy.authorities
        known = [item for item in believed if isinstance(item, Authority)]
    for item in known:
        if item.name == named and item.url:
            return item
    names = ", ".join(item.name for item in known if item.url)
    raise UsageError(
        f"The policy has no timestamp authority {printable(named, 100)!r} that can be asked.",
        next_step=f"Its authorities: {names}." if names else "Give its address, https://…, or add it to the policy.",
    )


def read_parameter_key(source: str | None) -> bytes | None:
    """Return the deployment's HMAC key for parameter values, ``None`` where none is set.

    Raises:
        UsageError: It cannot be read, or is too short.
    """
    if source is None:
        return None
    data = read_key_file(source).strip()
    if len(data) < _MIN_PARAMETER_KEY:
        raise UsageError(f"The parameter key in {printable(source)} has fewer than {_MIN_PARAMETER_KEY} bytes.")
    return data


def checked_ignore(ignore: Sequence[str]) -> tuple[str, ...]:
    """Return the paths that are left out, sorted.

    Raises:
        ArtifactError: A hostile name.
        UsageError: A glob.
    """
    for path in ignore:
        check_name(path)
        if any(sign in path for sign in "*?["):
            raise UsageError(
                f"The ignored path {printable(path)!r} holds a glob character; OMS knows exact paths only."
            )
    return tuple(sorted(set(ignore)))


def refuse_git_metadata(names: Iterable[str]) -> None:
    """Refuse names in a folder that every OMS verifier skips at its root: listed or not, nobody would check them.

    Raises:
        ArtifactError: Names the first of them.
    """
    for name in names:
        first = name.partition("/")[0]
        if first in DEFAULT_IGNORED:
            raise ArtifactError(
                f"The folder holds {first}, which OMS verifiers never check (specification section 6.2).",
                next_step=f"Sign a folder without it, or leave it out openly: ignore=[{first!r}].",
            )
