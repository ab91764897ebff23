"""Verdicts that are taken over: whether a verifier's summary stands in for reading, and the summary of a full check.

Only where a policy allows it, or a verifier is set: other checks need not load this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sealflow.actions.checking import Check
from sealflow.actions.recording import Recording
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.evidence import make_bundle, summary
from sealflow.findings import Finding, conclude
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import load_signer
from sealflow.manifest import Manifest, Resource
from sealflow.policy.compose import Ruling
from sealflow.policy.identities import Identity, KeyIdentity
from sealflow.storage import Location
from sealflow.verification.judge import Judgement
from sealflow.verification.reuse import Wanted, choose

#: After how many seconds a verifier says again what it said already, at most; sooner where a rule's max_age is short.
_RENEW_AFTER: Final = 24 * 3600


def stand_in(
    check: Check, location: Location, judge_unread: Callable[[Manifest], Judgement | None]
) -> tuple[Judgement | None, tuple[Finding, ...]]:
    """Judge without reading the bytes, where a verifier's summary may stand in for that.

    Everything else is judged as ever: the digest that the reference pins is taken for that of the bytes, and the
    summary must say so. Whatever is amiss leads to the full check.

    Args:
        check: The check.
        location: Where the artifact lies.
        judge_unread: Judges the evidence for a content that nobody has read; ``None`` where only the bytes could tell.

    Returns:
        A verdict that passes, or ``None`` and what the full check should say of the summaries.
    """
    ref = check.ref
    allowed = check.ruling.reuse is not None and not check.ruling.call_adds and check.ruling.policy
    # The version "null" is the one that can be written over.
    pinned = location.kind == "file" and location.version_id not in (None, "", "null")
    if not allowed or not pinned or ref is None or ref.version_id != location.version_id or check.store is None:
        return None, ()
    try:
        # What a delete marker or a deleted version stands for, nobody should load.
        check.storage.entries(location)
        content = Manifest("file", location.name, (Resource(location.name, ref.digest.hex),))
    except (ArtifactError, EvidenceError, UnavailableError):
        return None, ()
    judgement = judge_unread(content)
    if judgement is None:
        return None, ()
    if not judgement.verdict.passed or judgement.relaxed or judgement.verdict.digest != str(ref.digest):
        return None, ()
    ruling = check.deciding(judgement)
    if ruling.reuse is None:
        return None, ()
    wanted = _wanted(ruling, ref.digest, location, ruling.reuse.seconds, ruling.reuse.verifiers)
    accepted, findings = choose(check.found.summaries, wanted)
    if accepted is None:
        return None, findings
    if f"sha256:{accepted.key}" in {signer.key for signer in judgement.verdict.signers}:
        message = "A verification summary does not count. Its key signed the artifact too."
        finding = Finding("SUMMARY_REFUSED", "warning", accepted.evidence, message, rule="reuse_verdict")
        return None, (finding,)
    note = Finding(
        "VERDICT_REUSED",
        "note",
        accepted.evidence,
        "A verification summary stands in for reading the bytes.",
        expected=f"at most {ruling.reuse.seconds} seconds old",
        found=f"{accepted.verifier} read them at {accepted.summary.time.strftime('%Y-%m-%dT%H:%M:%SZ')}",
        rule="reuse_verdict",
    )
    kept = [finding for finding in judgement.verdict.findings if finding.code != "CHECKED_NOT_HELD"]
    status, ordered = conclude([*kept, *findings, note])
    verdict = replace(
        judgement.verdict, status=status, findings=ordered, policy=check.ruling.policy, reused=True, held=False
    )
    return judgement._replace(verdict=verdict, location=location), ()


def _wanted(
    ruling: Ruling, digest: Digest, location: Location, seconds: int, verifiers: tuple[Identity, ...]
) -> Wanted:
    return Wanted(
        digest,
        summary.resource_uri(location.uri, location.version_id),
        ruling.policy,
        ruling.requirement.policy_digest(),
        seconds,
        verifiers,
        ruling.requirement.revoked,
        utc_now(),
        authorities=ruling.requirement.authorities,
    )


def open_verifier(check: Check) -> None:
    """Open the verifier's signer before a long reading: a wrong setting should not cost hours of work."""
    if check.verifier is None or not check.ruling.policy or check.requirement.files:
        return
    try:
        check.found.signer = load_signer(check.verifier) if isinstance(check.verifier, str) else check.verifier
    except UnavailableError as error:
        check.found.problem = error


def summarise(check: Check, judgement: Judgement, audit: AuditSink | None) -> Judgement:
    """Leave a verification summary of a full check that passed; the verdict stands, whether that succeeds or not.

    None where a younger one of this verifier says the same: thousands of tasks may open one artifact in a day.

    Raises:
        UnavailableError: The audit log is out of reach; no key is used then.
    """
    verdict, location, signer = judgement.verdict, judgement.location, check.found.signer
    whole = verdict.passed and verdict.digest and not judgement.ignored and not check.requirement.files
    if not whole or verdict.reused or judgement.relaxed or location is None or check.store is None:
        return judgement
    if check.found.problem is not None:
        return _unsummarised(check, judgement, check.found.problem)
    ruling = check.deciding(judgement)
    if signer is None or not ruling.rules:
        return judgement
    key = f"sha256:{signer.public_key.hint}"
    digest = Digest.parse(verdict.digest)
    age = min(_RENEW_AFTER, ruling.reuse.seconds // 2 if ruling.reuse is not None else _RENEW_AFTER)
    try:
        if key in {item.key for item in verdict.signers}:
            raise UsageError("The verifier's key signed the artifact; who produces cannot vouch for itself.")
        own = KeyIdentity(key, (), (), signer.public_key.pem.decode("ascii"))
        wanted = _wanted(ruling, digest, location, age, (own,))
        if choose(check.found.summaries, wanted)[0] is not None:
            return judgement
        statement = summary.make_summary_statement(
            verdict.name or location.name,
            digest,
            orchestrator=check.surroundings.run.orchestrator,
            now=wanted.now,
            resource=summary.resource_uri(location.uri, location.version_id),
            policy_uri=ruling.uri,
            policy=wanted.policy,
            requirement=wanted.requirement,
            levels=sorted({f"SEALFLOW_{item.kind.upper()}" for item in verdict.signers}),
            inputs=_inputs(check, judgement),
        )
        with Recording("summarize", check.canonical, check.surroundings, key=key, sink=audit) as recording:
            check.store.put(digest, summary.KIND, make_bundle(statement, signer))
            recording.done(verdict.digest)
    except SealflowError as error:
        if error.code == "AUDIT_UNAVAILABLE":
            raise
        return _unsummarised(check, judgement, error)
    return judgement


def _inputs(check: Check, judgement: Judgement) -> list[tuple[str, str]]:
    """Return location and SHA-256 of the evidence that was accepted."""
    handed = {item.name: sha256_hex(item.data) for item in check.handed}
    folder = f"{check.store.uri}/{Digest.parse(judgement.verdict.digest).path_segment}" if check.store else ""
    found = {}
    for name in {signer.evidence for signer in judgement.verdict.signers}:
        if name in handed:
            found[handed[name]] = ""
        else:
            # An object whose bytes are not those that its name promises was not accepted.
            found[name.rpartition("-")[2].removesuffix(".json")] = f"{folder}/{name}"
    return sorted((uri, sha256) for sha256, uri in found.items())


def _unsummarised(check: Check, judgement: Judgement, error: SealflowError) -> Judgement:
    finding = Finding(
        "SUMMARY_NOT_WRITTEN",
        "warning",
        check.store.uri if check.store is not None else check.canonical,
        f"There is no verification summary of this check. {error.message}",
        next_step=error.next_step,
    )
    status, ordered = conclude([*judgement.verdict.findings, finding])
    return judgement._replace(verdict=replace(judgement.verdict, status=status, findings=ordered))
