"""Rotate a key: open the window in a policy's draft, and sign with the new key what the old one signed.

Both are safe to run again after a stop: what is there already stays as it is.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sealflow.actions import context
from sealflow.actions.counted import KINDS, counted_evidence, held_payloads
from sealflow.actions.policy_files import fetch, write_file
from sealflow.actions.recording import Recording
from sealflow.actions.sign import open_signer
from sealflow.actions.verify import verify_artifact
from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence import EvidenceStore, make_bundle, parse_bundle
from sealflow.findings import Verdict, printable
from sealflow.keys import KeySigner, PassphraseCallback, PublicKey
from sealflow.keys.signer import signers_of
from sealflow.policy.draft import read_draft
from sealflow.policy.window import Window, open_window
from sealflow.storage import Storages

#: Longest window in days: within it a thief of the old key still signs what counts.
MAX_DAYS = 366


@dataclass(frozen=True)
class Resigned:
    """What became of one artifact.

    Attributes:
        artifact: Its location.
        verdict: What the check under the old key said; nothing was signed unless it passed.
        added: Names of the new objects.
        present: How many bundles of the new key were there already.
    """

    artifact: str
    verdict: Verdict
    added: tuple[str, ...]
    present: int

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        codes = sorted({item.code for item in self.verdict.findings if item.severity in ("refusal", "unverifiable")})
        return {
            "artifact": self.artifact,
            "digest": self.verdict.digest,
            "status": self.verdict.status,
            "added": list(self.added),
            "present": self.present,
            "codes": codes,
        }


def rotate_in_draft(
    path: str,
    *,
    old: PublicKey,
    new: PublicKey,
    start: datetime.datetime,
    days: int,
    name: str | None = None,
) -> Window:
    """Change a policy's draft so that a new key counts beside an old one for some days, and alone from then on.

    Raises:
        UsageError: No such draft, no identity with the old key, one key given twice, or too long a window.
        PolicyError: The draft is none, or its layout cannot be changed safely.
        UnavailableError: It cannot be written, or the audit is out of reach.
    """
    _demand_two(old, new)
    if not 1 <= days <= MAX_DAYS:
        raise UsageError(f"A window lasts 1 to {MAX_DAYS} days.")
    draft, text = read_draft(path), fetch(path).decode("utf-8")
    end = start + datetime.timedelta(days=days)
    window = open_window(text, draft, old=old, new=new, start=start, end=end, name=name)
    if window.changed:
        where, mark = Storages().for_uri(path).canonical(path), f"sha256:{new.hint}"
        with Recording("key-rotate", where, context.current(), key=mark, ruled=False):
            write_file(path, window.text.encode("utf-8"), overwrite=True)
    return window


def rotate_artifacts(
    artifacts: Sequence[Any],
    *,
    old: PublicKey,
    signer: str | KeySigner,
    evidence_store: str | None = None,
    passphrase: PassphraseCallback | None = None,
    told: Callable[[Resigned], None] | None = None,
) -> list[Resigned]:
    """Sign with a new key, over the same payloads, the evidence that an old key made for artifacts.

    Each artifact is checked first as any other is, by its bytes, under the policy in force, with evidence of the old
    key; only what counted there is signed again. The old bundles stay.

    Args:
        artifacts: Paths, locations or references.
        old: The key that is replaced.
        signer: The new signer.
        evidence_store: Where the evidence lies, by default as a check finds it.
        passphrase: Asked for the passphrase of an encrypted key.
        told: Called with each result as soon as it is there.

    Raises:
        UsageError: No such signer, a key that OMS does not allow, one key given twice, or an encrypted artifact.
        EvidenceError: Evidence changed while it was looked at.
        UnavailableError: A store, the key service or the audit log is out of reach.
    """
    key = open_signer(signer, passphrase)
    if len(signers_of(key)) > 1:
        raise UsageError("The new signer names a second one; name the new key alone.")
    _demand_two(old, key.public_key)
    done = []
    for artifact in artifacts:
        result = _resign(artifact, old, key, evidence_store)
        done.append(result)
        if told is not None:
            told(result)
    return done


def _resign(artifact: Any, old: PublicKey, key: KeySigner, evidence_store: str | None) -> Resigned:
    checked = verify_artifact(artifact, identities=old.pem.decode("ascii"), evidence_store=evidence_store)
    verdict, ref = checked.verdict, checked.ref
    if not verdict.passed or ref is None:
        return Resigned(verdict.artifact, verdict, (), 0)
    if ref.encrypted:
        raise UsageError(
            f"{printable(ref.uri)} is encrypted, and its signature lies inside it.",
            code="KEY_UNSUPPORTED",
            next_step="Upload it again with the new key, or let the old one count as long as it is needed.",
        )
    store = EvidenceStore(ref.evidence, Storages())
    objects = store.collect(ref.digest, kinds=KINDS).objects
    pieces = [item for _, item in counted_evidence(verdict, objects, {f"sha256:{old.hint}"})]
    if not pieces:
        # Rules that are only audited, and waivers, let pass what nobody signed.
        raise EvidenceError(
            f"No evidence of the old key counted for {printable(verdict.artifact)}, so nothing can be signed again.",
            code="EVIDENCE_MISSING",
            next_step="Name the key that signed it: sealflow inspect shows who did.",
        )
    held = held_payloads(objects, key)
    missing = [item for item in pieces if parse_bundle(item.data).payload not in held]
    added = []
    if missing:
        surroundings = context.current()
        fingerprint = f"sha256:{key.public_key.hint}"
        with Recording("key-rotate", verdict.artifact, surroundings, key=fingerprint) as recording:
            # The signature last, as signing does: what qualifies it is there first.
            for item in sorted(missing, key=lambda item: item.kind or ""):
                bundle = make_bundle(parse_bundle(item.data).payload, key)
                added.append(store.put(ref.digest, item.kind or "", bundle))
            recording.made(*added)
            recording.done(str(ref.digest))
    return Resigned(verdict.artifact, verdict, tuple(added), len(pieces) - len(missing))


def _demand_two(old: PublicKey, new: PublicKey) -> None:
    if old.hint == new.hint:
        raise UsageError("The old key and the new one are the same.", next_step="Make one: sealflow keys generate.")
