"""Review: who touched what in a period, by the log; and whether the store saw the same."""

from __future__ import annotations

import datetime
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sealflow.actions import context
from sealflow.actions.audit_opening import log_and_key
from sealflow.actions.audit_verify import History, demand_vouchers
from sealflow.actions.audit_vouchers import vouchers_for
from sealflow.actions.context import Surroundings
from sealflow.actions.recording import Recording
from sealflow.audit import AuditSink, volume
from sealflow.audit.checkpoint import Checkpoint, open_checkpoint
from sealflow.audit.cloudtrail import MAX_COMPRESSED, ObjectAccess, read_log_file
from sealflow.audit.event import utc_now
from sealflow.audit.log import LogStore
from sealflow.audit.reading import entries
from sealflow.collector import rare_collection
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import Finding, Verdict, conclude, printable
from sealflow.policy.globs import check_pattern, check_place, matches
from sealflow.storage import Storages
from sealflow.verification.accesses import (
    CODES,
    DAY,
    Access,
    AccessReview,
    Judge,
    Limits,
    Names,
    Scope,
    artifacts_of,
    microseconds,
    principals_of,
    time_text,
)
from sealflow.verification.trail import TrailCheck
from sealflow.verification.vouching import CLAIMED

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy
    from sealflow.run_identity import RunIdentity

#: The period where the caller names none.
DEFAULT_PERIOD: Final = "7d"
#: Most rows of each table, and most findings, of a report.
DEFAULT_ROWS: Final = 1000

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d([Tt]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+-]\d\d:\d\d))?", re.ASCII)
_TRAIL_DAY: Final = re.compile(r"(?:^|/)(\d{4})/(\d\d)/(\d\d)/[^/]*$", re.ASCII)
#: What the check of a log says of single chains and entries that is for a review to say, which knows its period.
_OF_THE_PERIOD: Final = frozenset({"AUDIT_GAP", "AUDIT_MALFORMED", "AUDIT_VOUCH"})
_MAX_TRAIL_FILES: Final = 1_000_000
_MAX_VOLUMES: Final = 31
_READ_AHEAD: Final = 4


@dataclass(frozen=True)
class Reviewed:
    """A review's outcome.

    Attributes:
        verdict: ``passed`` unless the log does not verify, something could not be looked at, or a code was found that
            the caller asked to fail on. Holds all findings that were kept.
        report: What docs/reference/access-review.schema.json describes.
    """

    verdict: Verdict
    report: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return self.report


def review_accesses(
    log: str | None = None,
    *,
    key: str | None = None,
    since: str | None = None,
    until: str | None = None,
    artifacts: Sequence[str] = (),
    principals: Sequence[str] = (),
    datasets: Sequence[str] = (),
    cloudtrail: str | None = None,
    roles: Mapping[str, Sequence[str]] | None = None,
    policy: str | CompiledPolicy | None = None,
    identities: Any = None,
    checkpoints: Sequence[str] = (),
    witnesses: Sequence[str] = (),
    quorum: int | None = None,
    fail_on: Sequence[str] = (),
    grace: str = "1d",
    rows: int = DEFAULT_ROWS,
    limits: Limits | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
) -> Reviewed:
    """Review the accesses that a log records.

    The log is checked first, as :func:`~sealflow.actions.audit_verify.verify_audit_log` does, with what is remembered
    of it on this machine. Then it is read once, in bounded memory: what came before the period is what the period is
    compared with.

    Args:
        log: Location of the log, by default the settings'.
        key: The log's verifier key or the path of a file that holds it, by default the settings'.
        since: Begin of the period: a date, a time (RFC 3339), or a duration such as ``7d`` before ``until``.
        until: End of the period, by default now.
        artifacts: Patterns over locations of artifacts; all by default.
        principals: Patterns over producers such as ``airflow:train/*``; all by default.
        datasets: Locations each of which is one dataset with all below it; by default, each folder.
        cloudtrail: Folder or location in S3 of CloudTrail's log files, to be compared with.
        roles: Patterns over ARNs, and for each the patterns of the principals that act under it.
        policy: One more policy, a draft's path or a policy already read: accesses are held against it and the admin's.
        identities: Who may vouch for writers, beside whom the policies name; see
            :func:`~sealflow.actions.audit_vouchers.vouchers_for`.
        checkpoints: Locations of checkpoints of the log that were kept elsewhere; it must have grown out of each.
        witnesses: Verifier keys of the log's witnesses, or paths.
        quorum: How many of them must have cosigned its checkpoint, by default all.
        fail_on: Codes of findings, or ``all``, that make the verdict ``failed``.
        grace: How long an action or a run may last before its missing end is a finding.
        rows: Most rows of each table of the report.
        limits: How much is held at once.
        storages: Opens the log and the trail.
        audit: Takes the audit events of the review itself.

    Returns:
        Verdict and report. Evidence that is wrong (log, trail) is in the verdict, not raised.

    Raises:
        UsageError: An argument cannot work.
        PolicyError: The policy cannot be taken.
        UnavailableError: The log, the trail or the admin's policy is out of reach, or what is remembered of the log
                cannot be read.
    """
    surroundings = context.current()
    storages = storages or Storages()
    store, verifier = log_and_key(log, key, surroundings, storages)
    now = utc_now()
    scope = _scope(now, since, until, artifacts, principals, datasets)
    refusing = _refusing(fail_on)
    if rows < 1:
        raise UsageError("A report has at least one row.")
    if roles and cloudtrail is None:
        raise UsageError("`roles` goes with `cloudtrail`.")
    history = History.of(verifier, checkpoints, witnesses, quorum, storages)
    vouchers = vouchers_for(surroundings, identities, policy)
    demand_vouchers(vouchers, "AUDIT_CLAIMED" in fail_on)
    review = AccessReview(
        scope,
        now=microseconds(now.isoformat()),
        grace=_seconds(grace, "grace") * 1_000_000,
        fail_on=refusing,
        judge=_judge(surroundings, policy),
        vouchers=vouchers,
        spans=cloudtrail is not None,
        limits=limits,
    )
    with Recording("audit-review", store.uri, surroundings, sink=audit) as recording, rare_collection():
        checkpoint: Checkpoint | None = None
        trail: TrailCheck | None = None
        try:
            checked = history.check(store, must_remember=False, now=now)
            refusals = [item for item in checked.verdict.findings if item.severity == "refusal"]
            against = [item for item in refusals if item.code.startswith("LOG_")]
            if checked.note is not None:
                checkpoint = open_checkpoint(checked.note, verifier).checkpoint
            if checkpoint is not None and not against:
                # Missing ends and what is no event are left to the review, which knows its period.
                refusals = [item for item in refusals if item.code not in _OF_THE_PERIOD]
                review.unsound = checked.unsound
                for item in checked.verdict.findings:
                    if item.code == "LOG_UNREMEMBERED":
                        review.findings.add(item.code, item.subject, item.message)
                review.read(entries(store.get, checkpoint))
        except EvidenceError as error:
            against = [Finding(error.code, "refusal", store.uri, error.message)]
        if against:
            # Nothing that was read so far counts.
            verdict = Verdict("failed", store.uri, findings=tuple(against), checked_at=_text(now))
            review = AccessReview(scope, now=review.now)
            review.findings.counts.update(finding.code for finding in against)
        else:
            review.finish()
            if cloudtrail is not None:
                trail = TrailCheck(review, roles or {})
                _read_trail(cloudtrail, storages, trail)
                trail.finish()
            for code in {finding.code for finding in refusals}:
                review.findings.counts[code] += checked.counts[code]
            status, findings = conclude([*refusals, *review.findings.kept])
            verdict = Verdict(status, store.uri, findings=findings, checked_at=_text(now))
        recording.judged(verdict)
    return Reviewed(verdict, _report(review, verdict, store, checkpoint, trail, rows))


def parse_time(text: str, name: str) -> int:
    """Return a date (its beginning, UTC) or an RFC 3339 time in microseconds since 1970.

    Raises:
        UsageError: It is neither.
    """
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        time = datetime.datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(
            f"{name} {printable(text, 60)!r} is no time.", next_step="Write 2026-11-01 or 2026-11-01T12:00:00Z."
        ) from None
    return microseconds((time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)).isoformat())


def _seconds(text: str, name: str) -> int:
    from sealflow.policy.document import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise UsageError(f"{name} {printable(text, 60)!r}: {error}.") from None


def _scope(
    now: datetime.datetime,
    since: str | None,
    until: str | None,
    artifacts: Sequence[str],
    principals: Sequence[str],
    datasets: Sequence[str],
) -> Scope:
    end = parse_time(until, "until") if until else microseconds(now.isoformat())
    since = since or DEFAULT_PERIOD
    short = re.fullmatch(r"[0-9]+[mhdw]", since)
    start = end - _seconds(since, "since") * 1_000_000 if short else parse_time(since, "since")
    if start >= end:
        raise UsageError(f"The period from {time_text(start)} to {time_text(end)} is empty.")
    for items, check in ((artifacts, check_place), (principals, check_pattern)):
        if isinstance(items, str):
            raise UsageError("Patterns are given as a list.")
        for item in items:
            if problem := check(item):
                raise UsageError(f"{problem}.")
    if any(item.startswith("name:") for item in artifacts):
        raise UsageError("The log knows artifacts by their locations, not by signed names.")
    return Scope(start, end, tuple(artifacts), tuple(principals), tuple(datasets))


def _refusing(codes: Sequence[str]) -> frozenset[str]:
    if "all" in codes:
        return frozenset(CODES) - {"INSUFFICIENT_HISTORY"} | (frozenset(codes) - {"all"})
    for code in codes:
        if code not in CODES:
            raise UsageError(f"A review finds no {printable(code, 60)}; it finds {', '.join(CODES)}.")
    return frozenset(codes)


def _judge(surroundings: Surroundings, added: str | CompiledPolicy | None) -> Judge | None:
    """Return what says whether an access is one that the policies in force now allow."""
    if surroundings.admin is None and added is None:
        return None
    from sealflow.actions.policies import policies_for, read_added
    from sealflow.policy.compose import Arguments, waived_rules

    read = read_added(added) if added is not None else None

    def judge(run: RunIdentity, artifact: str, making: bool) -> tuple[str, str, str] | None:
        try:
            policies = policies_for(artifact, replace(surroundings, run=run, mounts={}), read)
        except UsageError as error:
            return error.message, "", ""
        ruling = policies.ruling(Arguments())
        if ruling.unmatched:
            return "The policy names the artifact, and has no rule for this task.", "a rule that holds for it", ""
        waived, _ = waived_rules(ruling, "")
        demands = ruling.requirement.producers if making else ruling.requirement.loaders
        for demand in demands:
            if demand.rule not in waived and not any(matches(item, run.producer) for item in demand.patterns):
                said = "may not make the artifact" if making else "may not use the artifact"
                return f"By the policy this task {said}.", ", ".join(demand.patterns), demand.rule
        return None

    return judge


def _read_trail(location: str, storages: Storages, trail: TrailCheck) -> None:
    """Read the log files of a trail that can hold records of the period.

    Raises:
        UsageError: There are none.
        UnavailableError: They cannot be read.
    """
    storage = storages.for_uri(location)
    found = storage.locate(location)
    if found is None:
        raise UsageError(
            f"Nothing lies at {printable(location)}.", next_step="Name the folder of the trail's log files."
        )
    names = [item.name for item in storage.entries(found) if _holds(item.name, trail.review.scope)]
    if not names:
        raise UsageError(f"{printable(found.uri)} holds no log files of CloudTrail for the period.")
    if len(names) > _MAX_TRAIL_FILES:
        raise UsageError(f"{printable(found.uri)} holds more than {_MAX_TRAIL_FILES} log files for the period.")

    def fetch(name: str) -> bytes | None:
        return storage.get(found.uri if found.kind == "file" else f"{found.uri.rstrip('/')}/{name}", MAX_COMPRESSED)

    for name, data in _fetched(names, fetch):
        try:
            content = data()
            if content is None:
                raise EvidenceError(f"{printable(name)} is gone.", code="TRAIL_MALFORMED")
            trail.read(_records(content, name))
        except EvidenceError as error:
            trail.review.findings.add("TRAIL_MALFORMED", name, error.message)


def _records(data: bytes, name: str) -> Iterable[ObjectAccess]:
    return read_log_file(data, printable(name))


def _fetched(
    names: Sequence[str], fetch: Callable[[str], bytes | None]
) -> Iterator[tuple[str, Callable[[], bytes | None]]]:
    """Yield each name with what returns its bytes, some of them fetched ahead."""
    with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="sealflow-trail") as pool:
        waiting: deque[tuple[str, Future[bytes | None]]] = deque()
        for name in names:
            waiting.append((name, pool.submit(fetch, name)))
            if len(waiting) > _READ_AHEAD:
                known, future = waiting.popleft()
                yield known, future.result
        while waiting:
            known, future = waiting.popleft()
            yield known, future.result


def _holds(name: str, scope: Scope) -> bool:
    """Tell whether a file can be a log file with records of the period: CloudTrail sorts them by day of delivery."""
    if not name.endswith((".json.gz", ".json")) or "CloudTrail-Digest/" in name:
        return False
    match = _TRAIL_DAY.search(name)
    if match is None:
        return True
    try:
        day = parse_time("-".join(match.groups()), "The day")
    except UsageError:
        return True
    # Records are delivered within minutes; two days are more than they ever took.
    return scope.since - 2 * DAY <= day < scope.until + 2 * DAY


def _text(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _report(
    review: AccessReview,
    verdict: Verdict,
    store: LogStore,
    checkpoint: Checkpoint | None,
    trail: TrailCheck | None,
    rows: int,
) -> dict[str, Any]:
    names, places = review.principals.texts, review.artifacts.texts
    scope = review.scope
    accesses = sorted(review.accesses.values(), key=lambda item: (-item.refused, -item.count, item.first_entry))
    by_principal = sorted(principals_of(review).items(), key=lambda item: -_total(item[1]))
    by_artifact = sorted(artifacts_of(review).items(), key=lambda item: -_total(item[1]))
    return {
        "sealflow_access_review": 1,
        "status": verdict.status,
        "checked_at": verdict.checked_at,
        "log": {
            "uri": store.uri,
            "origin": checkpoint.origin if checkpoint is not None else "",
            "size": checkpoint.size if checkpoint is not None else 0,
            "root": checkpoint.root.hex() if checkpoint is not None else "",
        },
        "period": {"since": time_text(scope.since), "until": time_text(scope.until)},
        "scope": {
            "artifacts": list(scope.artifacts),
            "principals": list(scope.principals),
            "datasets": list(scope.datasets),
        },
        "counts": dict(sorted(review.counts.items())),
        "outcomes": dict(sorted(review.outcomes.items())),
        "codes": dict(sorted(review.codes.items())),
        "finding_counts": dict(sorted(review.findings.counts.items())),
        "findings": [finding.as_dict() for finding in verdict.findings[:rows]],
        "findings_omitted": max(0, sum(review.findings.counts.values()) - rows),
        "vouchers": review.vouchers,
        "accesses": [
            {**_access(item, names, places), **_who(review.principals, item.principal, [item])}
            for item in accesses[:rows]
        ],
        "accesses_omitted": max(0, len(accesses) - rows),
        "principals": [
            {
                "principal": names[number],
                **_who(review.principals, number, items),
                "artifacts": len(items),
                **_sums(items),
                "volume": _volume(review, number),
            }
            for number, items in by_principal[:rows]
        ],
        "principals_omitted": max(0, len(by_principal) - rows),
        "artifacts": [
            {
                "artifact": places[number],
                "principals": len(items),
                **_sums(items),
                "claimed": _total([item for item in items if not review.principals.vouched[item.principal]]),
            }
            for number, items in by_artifact[:rows]
        ],
        "artifacts_omitted": max(0, len(by_artifact) - rows),
        "volume_rule": {
            "factor": volume.FACTOR,
            "floor": volume.FLOOR,
            "baseline_days": volume.BASELINE_DAYS,
            "least_days": volume.LEAST_DAYS,
        },
        "cloudtrail": trail.as_dict() if trail is not None else None,
    }


def _total(items: Sequence[Access]) -> int:
    return sum(item.count for item in items)


def _access(item: Access, names: Sequence[str], places: Sequence[str]) -> dict[str, Any]:
    return {
        "principal": names[item.principal],
        "artifact": places[item.artifact],
        "accesses": item.count,
        "refused": item.refused,
        "denied_then_allowed": item.denied_then_allowed,
        "first": time_text(item.first),
        "last": time_text(item.last),
        "first_entry": item.first_entry,
        "last_entry": item.last_entry,
        "actions": item.marked("a"),
        "outcomes": item.marked("o"),
        "codes": item.marked("c"),
    }


def _who(principals: Names, number: int, items: Sequence[Access]) -> dict[str, Any]:
    """Return whether somebody vouches for a principal, and who did."""
    names = sorted({name for item in items for name in item.marked("v")})
    return {"who": "vouched" if principals.vouched[number] else CLAIMED, "vouched_by": names}


def _sums(items: Sequence[Access]) -> dict[str, Any]:
    return {
        "accesses": _total(items),
        "refused": sum(item.refused for item in items),
        "first": time_text(min(item.first for item in items)),
        "last": time_text(max(item.last for item in items)),
    }


def _volume(review: AccessReview, principal: int) -> dict[str, Any]:
    days = review.volumes.get(principal, [])
    busiest = max(days, key=lambda item: item.accesses, default=None)
    above = [item for item in days if item.status == "above"]
    return {
        "days": len(days),
        "insufficient_history": sum(item.status == volume.INSUFFICIENT_HISTORY for item in days),
        "above": [item.as_dict() for item in above[:_MAX_VOLUMES]],
        "above_omitted": max(0, len(above) - _MAX_VOLUMES),
        "busiest": busiest.as_dict() if busiest is not None else None,
    }
