"""Guard a task from outside: check what it is about to read, and sign what it has made, as the admin's policy says.

An orchestrator package knows which locations a task reads and writes and what it was told about them; whether these
are managed, whether they are believed and what is signed is decided here, by the same verbs that a task can call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sealflow.actions import context
from sealflow.actions.policies import Policies, policies_for
from sealflow.actions.recording import Recording
from sealflow.actions.sign import chosen_signer, open_signer, sign_artifact
from sealflow.actions.verify import Checked, settle, verify_artifact
from sealflow.errors import ArtifactError, SealflowError, UsageError, VerificationError
from sealflow.evidence import ArtifactRef
from sealflow.evidence.reference import is_reference
from sealflow.findings import Finding, Verdict, conclude, printable
from sealflow.policy.compose import Arguments, waived_rules
from sealflow.policy.decide import unsealed
from sealflow.policy.globs import inside
from sealflow.run_identity import without_attempt
from sealflow.storage import Storages, reads

if TYPE_CHECKING:
    from sealflow.audit import AuditSink

#: Most locations that one event about undeclared reads and writes names.
MAX_UNDECLARED: Final = 64


class Managed(NamedTuple):
    """A location that a rule of the policy names.

    Attributes:
        uri: The location as its storage writes it.
        policies: What the policies say about it.
        enforced: Whether a refusal ends the task; otherwise the rules are only audited.
    """

    uri: str
    policies: Policies
    enforced: bool


class Told(NamedTuple):
    """What a trusted channel says of an artifact: which task put it there.

    Attributes:
        source: Invocation without its attempt, such as ``airflow:train/fit/manual__1``; empty where no task is named.
        channel: How the orchestrator calls the channel, for messages.
    """

    source: str
    channel: str = "the asset event"


class Admitted(NamedTuple):
    """An input that was checked before the task ran.

    Attributes:
        managed: Where it lies.
        checked: What was found.
        findings: What to say about it in the task's log.
    """

    managed: Managed
    checked: Checked
    findings: tuple[Finding, ...] = ()


def managed(uri: str, storages: Storages | None = None, names: Iterable[str] = ()) -> Managed | None:
    """Return what the policy says of a location; ``None`` where no rule names it or nobody here reads its bytes.

    Args:
        uri: The location.
        storages: Finds storage.
        names: Logical names that the artifact is expected or will be signed under, which rules may name it by.

    Raises:
        UnavailableError: ``POLICY_UNAVAILABLE``: a policy is configured, the location may be managed, and it is not to
            be had.
        UsageError: Nobody can tell what the location names.
    """
    if not reads(uri):
        return None
    surroundings = context.current()
    if surroundings.admin is None:
        return None
    canonical = (storages or Storages()).for_uri(uri).canonical(uri)
    policies = policies_for(canonical, surroundings)
    ruling = policies.ruling(Arguments(), names)
    return Managed(canonical, policies, ruling.level != "audit") if ruling.managed else None


def concrete(asset: Managed, given: str, storages: Storages | None = None) -> Managed:
    """Return where the artifact of an asset really lies.

    Args:
        asset: The asset's own location.
        given: The location that the task names. It must lie at or below the asset's own, or be named by a rule that
            names the asset's own too; and some rule must name it.
        storages: Finds storage.

    Raises:
        UsageError: ``LOCATION_OUTSIDE_ASSET``.
        UnavailableError: The policy is not to be had.
    """
    found = managed(given, storages)
    if found is None:
        raise _outside(asset, given, "no rule of the policy names it")
    if found.uri == asset.uri:
        return found
    homes = asset.policies.places
    places = found.policies.places
    if all(any(place == home or place.startswith(inside(home, "")) for home in homes) for place in places):
        return found
    rules = asset.policies.ruling(Arguments()).rules
    if any(rule.touches(homes[:1], ()) and all(rule.touches([place], ()) for place in places) for rule in rules):
        return found
    raise _outside(asset, given, "it lies outside")


def admit(
    place: Managed,
    artifact: Any,
    *,
    told: Told | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
) -> Admitted:
    """Check an input before the task uses it.

    Args:
        place: Where it lies.
        artifact: Location, or the reference that came along; its digest is then required.
        told: What a trusted channel says of who put it there; ``None`` where there is no such channel.
        storages: Finds storage.
        audit: Takes audit events.

    Raises:
        VerificationError: Refused, or nobody can say.
        UsageError: A parameter or a setting cannot work.
        UnavailableError: The audit log is out of reach.
    """
    checked = verify_artifact(_as_it_lies(artifact, storages), storages=storages, audit=audit)
    verdict = checked.verdict
    if not verdict.passed:
        raise _refusal(verdict)
    finding = None if told is None else wrong_source(checked, told)
    if finding is None:
        return Admitted(place, checked, verdict.findings)
    if not place.enforced:
        return Admitted(place, checked, (replace(finding, severity="warning"), *verdict.findings))
    surroundings = context.current()
    context.forget_verified(surroundings.run, place.uri)
    status, findings = conclude([finding, *verdict.findings])
    refused = replace(verdict, status=status, findings=findings, held=False)
    with Recording("verify", place.uri, surroundings, sink=audit) as recording:
        recording.judged(refused)
    raise _refusal(refused)


def still(admitted: Admitted, *, storages: Storages | None = None, audit: AuditSink | None = None) -> None:
    """Check that an input is what it was before the task ran.

    Raises:
        VerificationError: It changed, or nobody can say.
    """
    before = admitted.checked
    there = _as_it_lies(before.ref or before.verdict.artifact, storages)
    after = verify_artifact(there, storages=storages, audit=audit)
    if not after.verdict.passed:
        raise _refusal(after.verdict)
    if after.verdict.digest != before.verdict.digest:
        context.forget_verified(context.current().run, admitted.managed.uri)
        finding = Finding(
            "ARTIFACT_CHANGED",
            "refusal",
            admitted.managed.uri,
            "The input changed while the task ran.",
            expected=before.verdict.digest,
            found=after.verdict.digest,
        )
        status, findings = conclude([finding, *after.verdict.findings])
        raise _refusal(replace(after.verdict, status=status, findings=findings))


def ready(place: Managed) -> None:
    """Open the key that will sign an output: a wrong one should not cost hours of work.

    Raises:
        UsageError: There is none, or it cannot be opened.
        UnavailableError: The key service does not answer.
    """
    open_signer(chosen_signer(place.uri, context.current()))


def seal(
    place: Managed,
    *,
    name: str | None = None,
    made: Any = (),
    storages: Storages | None = None,
    audit: AuditSink | None = None,
) -> ArtifactRef:
    """Sign an output where it lies, and return its reference.

    Args:
        place: Where it lies.
        name: Logical name, by default the last part of the location.
        made: What the task returned. An encrypted artifact at this place is checked and handed on, by the reference in
            here where there is one: what such an artifact is was signed before it was encrypted.
        storages: Finds storage.
        audit: Takes audit events.

    Raises:
        SealflowError: As :func:`~sealflow.actions.sign.sign_artifact` and :func:`admit`.
    """
    found: Any = next(
        (
            item
            for item in _references(made)
            if item.encrypted and (storages or Storages()).for_uri(item.uri).canonical(item.uri) == place.uri
        ),
        None,
    )
    if found is None and settle(place.uri, storages=storages).surely_encrypted():
        found = place.uri
    if found is not None:
        surroundings = context.current()
        source = without_attempt(surroundings.run.invocation)
        admitted = admit(place, found, told=Told(source, "the task that made it"), storages=storages, audit=audit)
        # What this run made is no input of it.
        context.forget_verified(surroundings.run, place.uri)
        if admitted.checked.ref is None:
            raise ArtifactError(f"{printable(place.uri)} is encrypted, and nobody signed what is in it.")
        return admitted.checked.ref
    _refuse_clear(place)
    return sign_artifact(place.uri, name=name, storages=storages, audit=audit).ref


def undeclared(
    read: Iterable[str], written: Iterable[str], declared: Sequence[Managed], *, audit: AuditSink | None = None
) -> list[Finding]:
    """Return a finding for each managed location that a task used and did not declare, and record them.

    Args:
        read: Locations that were seen to be read.
        written: Locations that were seen to be written.
        declared: What the task declares.
        audit: Takes audit events.

    Raises:
        UnavailableError: The audit log is out of reach.
    """
    known = [place for item in declared for place in item.policies.places]
    findings = []
    for verb, uris in (("read", read), ("wrote", written)):
        for uri in dict.fromkeys(uris):
            try:
                place = managed(uri)
            except SealflowError:
                continue  # a policy that is not to be had is no reason to name what may be nobody's business
            if place is None or all(
                any(here == one or here.startswith(inside(one, "")) for one in known) for here in place.policies.places
            ):
                continue
            message = f"The task {verb} a managed artifact that it does not declare."
            findings.append(Finding("ARTIFACT_UNDECLARED", "warning", place.uri, message))
    for finding in findings[:MAX_UNDECLARED]:
        with Recording("observe", finding.subject, context.current(), sink=audit) as recording:
            recording.noted(finding.code)
    return findings


def _references(made: Any) -> list[ArtifactRef]:
    """Return the references among what a task returned. Most tasks return something else, whatever it looks like."""
    values = made.values() if isinstance(made, dict) else made if isinstance(made, (list, tuple)) else ()
    found = []
    for item in (made, *values):
        if is_reference(item):
            with contextlib.suppress(SealflowError):
                found.append(ArtifactRef.parse(item))
    return found


def _refuse_clear(place: Managed) -> None:
    """Refuse an output in clear where a rule takes encrypted ones alone: whoever uses it would be refused.

    Raises:
        ArtifactError: ``ENCRYPTION_REQUIRED``.
    """
    ruling = place.policies.ruling(Arguments())
    waived, _ = waived_rules(ruling, "")
    for lack in unsealed(ruling.requirement, None):
        if place.enforced and lack.rule not in waived:
            raise ArtifactError(
                f"{printable(place.uri)}: {lack.message} The rule {lack.rule} asks for that.", code=lack.code
            )


def _as_it_lies(artifact: Any, storages: Storages | None) -> Any:
    """Return what is to be checked, at the version that lies there now: a task opens the location."""
    ref = ArtifactRef.parse(artifact) if is_reference(artifact) else None
    if ref is None or ref.version_id is None:
        return artifact
    try:
        there = (storages or Storages()).for_uri(ref.uri).locate(ref.uri)
    except SealflowError:
        there = None  # the check itself will say so
    return ref if there is not None and there.version_id == ref.version_id else replace(ref, version_id=None)


def wrong_source(checked: Checked, told: Told) -> Finding | None:
    """Return a refusal where no signed provenance names the task that is known to have made an artifact."""
    if told.source and any(without_attempt(run) == told.source for run in checked.runs):
        return None
    what = "names no task" if not told.source else "names another run than the signed provenance"
    return Finding(
        "PRODUCER_MISMATCH",
        "refusal",
        checked.verdict.artifact,
        f"What {told.channel} says of the artifact's origin {what}.",
        expected=printable(told.source or "a task", 600),
        found=printable(", ".join(checked.runs[:4]) or "no signed run", 600),
        rule="source",
    )


def _refusal(verdict: Verdict) -> VerificationError:
    return (context.current().refusal if verdict.status == "failed" else VerificationError)(verdict)


def _outside(asset: Managed, given: str, why: str) -> UsageError:
    return UsageError(
        f"{printable(given)} is no place for the asset {printable(asset.uri)}: {why}.",
        code="LOCATION_OUTSIDE_ASSET",
        next_step="Write below the asset's own location, or ask the admin for a rule that names both.",
    )
