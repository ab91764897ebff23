"""Findings and verdicts: the one form in which every check answers, in every orchestrator.

A finding is one observation with a stable code. A verdict is the outcome of a check: ``passed``, ``failed`` or
``unverifiable``. The codes below are the whole vocabulary; a code never changes its meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from sealflow import errors

Status = Literal["passed", "failed", "unverifiable"]
Severity = Literal["refusal", "unverifiable", "warning", "note"]

#: Findings kept in a serialized verdict; the others are counted.
MAX_FINDINGS: Final = 100

_MAX_SHOWN: Final = 2048


class Kind(NamedTuple):
    """What a code means: the group that decides the exit status, and the usual next step."""

    group: Literal["evidence", "identity", "backend", "information"]
    next_step: str


_ASK_PRODUCER = "Ask the producer to sign the artifact again, or restore the bytes that were signed."
_TRUST = "If this signer is right, name it in `identities`; otherwise treat the artifact as hostile."

#: Every code, its group and its default next step.
CODES: Final[dict[str, Kind]] = {
    # The bytes or the evidence are wrong.
    "ARTIFACT_MISSING": Kind("evidence", "Check the location; nothing lies there."),
    "ARTIFACT_REFUSED": Kind("evidence", "Remove the named file, or sign a folder that does not hold it."),
    "ARTIFACT_CHANGED": Kind("evidence", "Stop the writer that changes the artifact, then try again."),
    "DIGEST_MISMATCH": Kind("evidence", _ASK_PRODUCER),
    "FILE_CHANGED": Kind("evidence", _ASK_PRODUCER),
    "FILE_MISSING": Kind("evidence", _ASK_PRODUCER),
    "FILE_UNSIGNED": Kind("evidence", "Remove the file, or sign the artifact with it."),
    "FILE_IGNORED": Kind("evidence", "Remove the file, or work on the checked copy, which leaves it out."),
    "EVIDENCE_MISSING": Kind("evidence", "Sign the artifact, or name the evidence store that holds its evidence."),
    "EVIDENCE_MALFORMED": Kind("evidence", "Remove the named object from the evidence store."),
    "EVIDENCE_ALTERED": Kind("evidence", "Somebody changed the object in the evidence store; restore it."),
    "EVIDENCE_OF_OTHER_ARTIFACT": Kind("evidence", "Remove the object; it speaks about another artifact."),
    "SIGNATURE_MISSING": Kind("evidence", "Sign the artifact again; its evidence holds no usable OMS signature."),
    "SIGNATURE_INVALID": Kind("evidence", "The bytes under the signature were changed; get the original evidence."),
    "SIGNATURE_UNSUPPORTED": Kind("evidence", "Ask the signer for a key or certificate signature."),
    "SIGNATURE_LEGACY": Kind("evidence", "Sign again, or accept this old form explicitly for this one check."),
    "PROVENANCE_MISSING": Kind(
        "evidence",
        "Sign the artifact with sealflow; for a bundle of another tool demand the signature alone (`require`).",
    ),
    "PROVENANCE_ADOPTED": Kind("evidence", "Have the artifact made again by a run that signs it."),
    "EVIDENCE_TOO_OLD": Kind("evidence", "Have the artifact made again, or raise max_age in the rule."),
    "FRESHNESS_UNPROVED": Kind("evidence", "Pass the ArtifactRef from the producer; it pins the digest."),
    "OUTLET_UNDECLARED": Kind("evidence", "Declare the asset as an outlet of the task, or do not report it."),
    "OUTLET_UNSIGNED": Kind(
        "evidence", "Run the task under guard; its worker needs sealflow and the policy's options."
    ),
    "ARTIFACT_REVOKED": Kind("evidence", "Stop using the artifact; the list of revocations says why."),
    "NAME_MISMATCH": Kind("evidence", "State the logical name that was signed, or fetch the right artifact."),
    "LINEAGE_MISSING": Kind("evidence", "Name the folder of a DVC repository with at least one stage or .dvc file."),
    "LINEAGE_MALFORMED": Kind("evidence", "Restore the file as DVC writes it; the message names the line."),
    "LOCK_SCHEMA": Kind("evidence", "Have DVC 3 write the lock anew: dvc commit."),
    "TEMPLATE_UNRESOLVED": Kind("evidence", "Write the value out in dvc.yaml, or give it in the named file."),
    "DATA_MISMATCH": Kind("evidence", "Restore the data (dvc checkout), or run and commit the stage again."),
    "DATA_MISSING": Kind("evidence", "Fetch the data: dvc pull."),
    "DATA_EXTRA": Kind("evidence", "Remove the file, or record it: dvc commit."),
    "DATA_REFUSED": Kind("evidence", "Replace the link or special file by the data itself."),
    "DATA_NOT_LOCKED": Kind("evidence", "Fetch or make the data and record it: dvc update, dvc repro or dvc commit."),
    "SIZE_MISMATCH": Kind("evidence", "Treat the record as altered; record the data anew from a source you trust."),
    "CACHE_CORRUPT": Kind("evidence", "Keep the object as evidence, then fetch it again: dvc fetch."),
    "MD5_UNBOUND": Kind("evidence", "Have whoever made or owns the data sign what it is: sealflow lineage sign."),
    "MD5_MISMATCH": Kind(
        "evidence", "Remove the object, or record the data anew; one of the two is not about these bytes."
    ),
    "SHA256_MISMATCH": Kind("evidence", "Treat the data as forged: somebody made other bytes with the same MD5."),
    "INPUTS_DIFFER": Kind(
        "evidence", "Have the stage run and signed again; the run read something else than the lock says."
    ),
    "REMOTE_MISSING": Kind("evidence", "Push the data again from where it is whole: dvc push."),
    "REMOTE_CORRUPT": Kind(
        "evidence", "Keep the object as evidence; remove it then, and push it again from where it is whole."
    ),
    "REMOTE_NOT_NAMED": Kind("evidence", "Name the remote, or commit a default one: dvc remote default."),
    "DIR_MANIFEST_ESCAPE": Kind("evidence", "Treat the repository as hostile, and let DVC not check it out."),
    "LEGACY_HASH": Kind("evidence", "Let DVC 3 record the data anew: dvc cache migrate --dvc-files."),
    "DVC_FILE_ALTERED": Kind("evidence", "Restore the file, or import the data again."),
    "STAGE_NOT_LOCKED": Kind("evidence", "Run the stage: dvc repro."),
    "STAGE_ORPHAN": Kind("evidence", "Restore the stage in dvc.yaml, or remove its entry from dvc.lock."),
    "STAGE_FROZEN": Kind("evidence", "Thaw the stage (dvc unfreeze) and bring it up to date."),
    "STAGE_ALWAYS_CHANGED": Kind("evidence", "Give the stage its dependencies instead of always_changed."),
    "CMD_DRIFT": Kind("evidence", "Run the stage with the present command: dvc repro."),
    "PARAMS_DRIFT": Kind("evidence", "Run the stage with the present parameters: dvc repro."),
    "PARAMS_UNREADABLE": Kind("evidence", "Give the parameters as well-formed YAML, JSON or TOML."),
    "LOCK_INCOMPLETE": Kind("evidence", "Run the stage: dvc repro."),
    "LOCK_ORPHAN": Kind("evidence", "Name it in the stage, or record the stage anew: dvc repro."),
    "CHAIN_BREAK": Kind("evidence", "Run the stages in order: dvc repro."),
    "OUT_OVERLAP": Kind("evidence", "Let each path be written by one stage, and lie inside of no other output."),
    "GRAPH_CYCLE": Kind("evidence", "Break the cycle; a stage cannot read what is made from its own output."),
    "COMMIT_UNSIGNED": Kind("evidence", "Sign the commit (git commit -S), or merge it with a signed merge commit."),
    "COMMIT_NOT_ON_BRANCH": Kind("evidence", "Have the commit merged, or name the branch that holds it."),
    "GIT_DIRTY": Kind("evidence", "Commit the change, signed, or restore the file from the commit."),
    "GIT_UNTRACKED": Kind("evidence", "Add the file to a signed commit."),
    "GIT_NAME_COLLISION": Kind("evidence", "Remove one of the two names from the repository."),
    "GIT_OBJECT_CORRUPT": Kind("evidence", "Clone the repository anew from its server; keep this one as evidence."),
    "GIT_REPOSITORY_REFUSED": Kind("evidence", "Check out the repository plainly, with a `.git` folder of its own."),
    "GIT_REVISION_UNKNOWN": Kind("evidence", "Fetch the branch or tag, or name another."),
    "FOREIGN_REFUSED": Kind("evidence", "Remove from the repository what is named; nothing of it was run or fetched."),
    "REMOTE_NOT_ALLOWED": Kind("evidence", "Name the remote in the call if it is right; it was not contacted."),
    "DEP_UNATTESTED": Kind(
        "evidence", "Have the input made by a run that signs it, or name the evidence store that holds its provenance."
    ),
    "LINEAGE_UNPROVED": Kind(
        "evidence", "`sealflow lineage trace` shows where the way back ends; sign what is missing."
    ),
    "LINEAGE_CYCLE": Kind("evidence", "Find out which run claims to have used what was made from its own output."),
    "LINEAGE_AMBIGUOUS": Kind("evidence", "Find out which run tells the truth, and revoke the key of the other."),
    "ENCRYPTION_REQUIRED": Kind("evidence", "Have the artifact stored encrypted; the rule takes none in clear."),
    "MESSAGE_MALFORMED": Kind("evidence", "Fetch the encrypted artifact again; it was cut, lengthened or altered."),
    "MESSAGE_UNSUPPORTED": Kind(
        "evidence", "Have it encrypted with key commitment (suite 0x0478 or 0x0578) and in frames."
    ),
    "MESSAGE_ALTERED": Kind("evidence", "Fetch the encrypted artifact again, or ask its producer for it."),
    "ARCHIVE_MALFORMED": Kind(
        "evidence", "Treat the artifact as forged, or written by another program; ask its producer."
    ),
    "ENCRYPTION_UNBOUND": Kind(
        "evidence", "Upload the artifact again, or name the evidence store that holds the statement about its frames."
    ),
    "AUDIT_MALFORMED": Kind("evidence", "Keep the log as evidence; somebody had it take what is no entry."),
    "AUDIT_SIGNATURE": Kind("evidence", "Treat the entry as forged; find out who could write to the inbox."),
    "AUDIT_CHAIN": Kind("evidence", "Keep the log as evidence; entries of that writer were dropped, added or moved."),
    "AUDIT_SQUATTED": Kind("evidence", "Find out who else may write to the inbox; the entry is not in the log."),
    "AUDIT_WAITING": Kind("evidence", "Ship the spool that holds the entry before; or find out who put these there."),
    "AUDIT_DUPLICATE": Kind("evidence", "Count the entry once; find out which integrator took it twice."),
    "AUDIT_GAP": Kind("evidence", "Find out what became of that run; integrate its spool if that still lies there."),
    "AUDIT_VOUCH": Kind("evidence", "Treat all that the writer says as forged; find out who could write to the inbox."),
    "LOG_MISSING": Kind("evidence", "Check the location; no checkpoint lies there."),
    "LOG_CHECKPOINT": Kind("evidence", "Check the log's verifier key; if it is right, somebody forged the checkpoint."),
    "LOG_FORKED": Kind(
        "evidence", "Keep both copies: two histories under one key prove that its holder rewrote the log."
    ),
    "LOG_ROLLED_BACK": Kind(
        "evidence", "Keep the earlier checkpoint as evidence, and restore the log that it speaks of."
    ),
    "LOG_TRUNCATED": Kind("evidence", "Restore the log's objects from a copy; its checkpoint vouches for more."),
    "LOG_ALTERED": Kind(
        "evidence", "Keep the object as evidence, and restore it from a copy that the checkpoint fits."
    ),
    "LOG_UNWITNESSED": Kind("evidence", "Have the checkpoint cosigned: sealflow audit witness."),
    "LOG_UNREMEMBERED": Kind(
        "evidence", "Let this process keep it in $XDG_STATE_HOME, or name witnesses or a checkpoint kept elsewhere."
    ),
    "LOG_PROOF": Kind("evidence", "Have the event proved again from the log: sealflow audit prove."),
    "AUDIT_CLOCK": Kind("evidence", "Compare the machine's clock; treat the event as of when it stands in the log."),
    "UNRECORDED_ACCESS": Kind("evidence", "Find out who holds that role, and why it goes past us."),
    "PHANTOM_ACCESS": Kind("evidence", "Find out why the run claims it; check the trail's selectors."),
    "TRAIL_MALFORMED": Kind("evidence", "Fetch the trail's file again; somebody may have written it."),
    "VOLUME": Kind("evidence", "Ask the principal's owner what it was about."),
    "FIRST_SEEN": Kind("evidence", "Check that the principal is meant to use the dataset."),
    "DENIED_THEN_ALLOWED": Kind("evidence", "Find out what changed in between: the artifact, the policy or the key."),
    "COMMITMENT_MISMATCH": Kind("evidence", "Treat the artifact as forged: it opens differently for different keys."),
    "CONTEXT_MISMATCH": Kind("evidence", "Fetch the artifact that you mean; this one was encrypted as another."),
    "POSTURE_FAILED": Kind("evidence", "Set the store up as expected, or skip the check with a reason."),
    "TASK_UNGUARDED": Kind(
        "evidence", "Run it as a KFP pipeline, through the admission server that changes Workflows."
    ),
    "REVIEW_MALFORMED": Kind("evidence", "Let the API server ask as its webhook configuration says."),
    "GUARD_FORGED": Kind("evidence", "Take it out; the admission server alone puts the guard into a task."),
    "WORKFLOW_REFUSED": Kind("evidence", "Run it as a KFP pipeline, or in a namespace that is not guarded."),
    "POD_REFUSED": Kind("evidence", "Run it as a task of a KFP pipeline, or have the admin exempt it."),
    "IMAGE_NOT_PINNED": Kind("evidence", "Name the image by digest: <repository>@sha256:…."),
    "IMAGE_NOT_ALLOWED": Kind("evidence", "Use an image that the settings of admission name, or have it added there."),
    "ARGUMENTS_HIDDEN": Kind("evidence", "Pass less: bring large values as artifacts, not as parameters."),
    "MOUNT_REFUSED": Kind("evidence", "Mount it elsewhere; keys, policy, guard and artifacts lie there."),
    "VARIABLE_REFUSED": Kind("evidence", "Take the variable out; a guarded task has its settings by mounts alone."),
    "ISOLATION_BROKEN": Kind("evidence", "Take the setting out; it lets a task reach the guard, or other tasks."),
    # The evidence is sound but not from somebody who may speak.
    "IDENTITY_RULE_MISSING": Kind("identity", "Name in `identities` who may sign this artifact."),
    "BRANCH_NOT_NAMED": Kind("identity", "Name the branch that the commit has to be on."),
    "ROOT_NOT_ALLOWED": Kind("identity", "Have a data owner sign it (`roots`), or list its digest in `datasets`."),
    "SIGNER_NOT_ALLOWED": Kind("identity", _TRUST),
    "AUDIT_VOUCHER": Kind("identity", "Find out who holds that key: it vouches for a run that is none of its own."),
    "AUDIT_CLAIMED": Kind("identity", "Set `audit_signer` where the run writes, and name its key here."),
    "ACCESS_NOT_ALLOWED": Kind("identity", "Take the permission from the task, or let the policy name it."),
    "CERTIFICATE_UNTRUSTED": Kind("identity", "Check the roots of the identity rule and the certificate chain."),
    "CERTIFICATE_EXPIRED": Kind("identity", "Sign again with a valid certificate."),
    "CERTIFICATE_NOT_YET_VALID": Kind("identity", "Check the clocks, or sign with a certificate that is valid now."),
    "CERTIFICATE_USAGE": Kind(
        "identity", "Use a certificate that may make signatures (digitalSignature, codeSigning)."
    ),
    "CERTIFICATE_NAME": Kind("identity", _TRUST),
    "PRODUCER_NOT_ALLOWED": Kind("identity", "Let the identity rule name this producer, or use the right signer."),
    "PRODUCER_MISMATCH": Kind("identity", "The artifact was made by another task than the one expected."),
    "KEY_EXPIRED": Kind("identity", "Sign again with a key that is valid, or extend the identity in the policy."),
    "KEY_NOT_YET_VALID": Kind("identity", "Check the clocks, or sign with a key that counts now."),
    "KEY_REVOKED": Kind("identity", "Treat the artifact as hostile; have it made and signed again with another key."),
    "TIMESTAMP_MISSING": Kind(
        "evidence", "Sign again with a timestamp (`sealflow sign --timestamp`), or check the policy's authorities."
    ),
    "KEY_SHARED": Kind("identity", "Give each producer a key of its own, and name it in the identity's producers."),
    "SIGNERS_TOO_FEW": Kind("identity", "Have the others sign too; each signature adds to the evidence."),
    "LOADER_NOT_ALLOWED": Kind("identity", "Let a rule name this task in loaders, or load the artifact elsewhere."),
    "POLICY_NO_RULE": Kind("identity", "Ask the admin for a rule that holds for this artifact in this task."),
    "RECIPIENT_REQUIRED": Kind(
        "identity", "Have the artifact encrypted anew to everybody whom the rule requires; an upload adds them."
    ),
    "RECIPIENT_NOT_ALLOWED": Kind(
        "identity", "Have the artifact encrypted anew without that recipient, or let the rule name it."
    ),
    "RECIPIENT_MISSING": Kind("identity", "Name a key that the artifact was encrypted to."),
    "RECIPIENT_KEY_WRONG": Kind(
        "identity", "Name the key that the artifact was encrypted to, or fetch the artifact again."
    ),
    "KMS_KEY_NOT_ALLOWED": Kind(
        "identity", "If one of these keys is right, list its ARN; otherwise treat the artifact as hostile."
    ),
    # Nobody can say.
    "POLICY_UNAVAILABLE": Kind("backend", "Restore the policy; `sealflow policy status` says what is wrong with it."),
    "POLICY_TOO_NEW": Kind("backend", "Upgrade sealflow here; the policy has a newer form than this release reads."),
    "BACKEND_UNAVAILABLE": Kind("backend", "Try again when the named backend answers."),
    "PERMISSION_DENIED": Kind("backend", "Give this process the permission to read the named object."),
    "CREDENTIALS_EXPIRED": Kind("backend", "Renew the credentials of this process, then try again."),
    "EVIDENCE_UNREADABLE": Kind(
        "backend", "Remove the named object from the evidence store, or make it a readable file of a usual size."
    ),
    "EVIDENCE_TOO_MUCH": Kind("backend", "Clean the evidence store; it holds more objects than a check reads."),
    "EDGE_UNVERIFIED": Kind("backend", "Find out who wrote the object, or name who may sign in `identities`."),
    "EXTRA_MISSING": Kind("backend", "Install the named extra of sealflow."),
    "PROGRAM_MISSING": Kind("backend", "Install the named program."),
    "REMOTE_UNPROVED": Kind(
        "backend", "Let the check read the object (`read_remote`); the store's own checksums do not prove it."
    ),
    "REMOTE_UNSUPPORTED": Kind("backend", "Check a copy of the remote in a folder or in S3."),
    "DATA_EXTERNAL": Kind("backend", "Bring the data into the repository: dvc import-url."),
    "GIT_HISTORY_INCOMPLETE": Kind("backend", "Fetch the whole history: git fetch --unshallow"),
    "GIT_UNREADABLE": Kind("backend", "Clone the repository plainly, and check the clone."),
    "GIT_CLONE_FAILED": Kind("backend", "Look at what the server said; check the URL and who may read it."),
    "DATA_FETCH_FAILED": Kind("backend", "Look at what DVC said; check the remote and the credentials handed over."),
    "POSTURE_UNKNOWN": Kind("backend", "Give this process the permission to read the setting, then try again."),
    "TRAIL_SILENT": Kind("backend", "Turn on the bucket's data events in the trail, or leave it out."),
    "REVIEW_INCOMPLETE": Kind("backend", "Review a shorter period or fewer artifacts."),
    # Said with every verdict, so that nobody believes more than was checked.
    "CHECKED_NOT_HELD": Kind(
        "information", "Open the returned reference with sealflow.verified() to use the checked bytes."
    ),
    "RANGES_CHECKED": Kind("information", "Verify or download the artifact to check all of its bytes."),
    "SUBSET_CHECKED": Kind("information", "The files outside the subset were not looked at."),
    "NAME_NOT_STATED": Kind("information", "State `name` to bind the check to the artifact you mean."),
    "FRESHNESS_NOT_CHECKED": Kind("information", "Pass the ArtifactRef from the producer; it pins the digest."),
    "POLICY_AUDIT": Kind("information", "Nothing; when the warnings are gone the rule can be enforced."),
    "WAIVER_USED": Kind("information", "Repair what was waived before the waiver expires."),
    "POLICY_EXPIRES_SOON": Kind("information", "Sign the policy again with a later date."),
    "POLICY_IN_GRACE": Kind("information", "Sign and publish the policy anew before the grace ends."),
    "REVOCATIONS_EXPIRE_SOON": Kind("information", "Sign the list of revocations again with a later date."),
    "REVOCATIONS_IN_GRACE": Kind("information", "Sign and publish the list of revocations before the grace ends."),
    "SIGNED_IN_TIME": Kind("information", "Nothing; the evidence counts by its timestamp."),
    "SIGNED_BEFORE_REVOCATION": Kind(
        "information", "Have the artifact signed again by somebody who is not revoked, after looking at it."
    ),
    "REVOCATION_UNKNOWN": Kind("information", "Correct the name in the list of revocations, or revoke the key itself."),
    "KEY_EXPIRES_SOON": Kind("information", "Give the identity a new key, or extend it in the policy."),
    "ARTIFACT_UNDECLARED": Kind(
        "information", "Name it in the task's inlets or outlets, so that it is verified or signed."
    ),
    "NOT_MANAGED": Kind("information", "Nothing; no rule of the policy names this artifact."),
    "TASK_NOT_GUARDABLE": Kind("information", "Let the policy trust what it brings by its digest, or verify it next."),
    "POD_EXEMPT": Kind("information", "Nothing; a rule of the settings lets it be."),
    "VERDICT_REUSED": Kind("information", "Call sealflow.verified() where the bytes are used; it reads them."),
    "SUMMARY_REFUSED": Kind("information", "Nothing; the bytes were read. Remove the object if nobody knows it."),
    "SUMMARY_NOT_WRITTEN": Kind(
        "information", "Give this process the permission to write to the evidence store, or set no `verifier`."
    ),
    "LINEAGE_REUSED": Kind("information", "Trace without a policy that allows reuse to walk the whole way."),
    "LINEAGE_NOT_HELD": Kind("information", "Trace the location itself to have its bytes read."),
    "LINEAGE_PLACES": Kind("information", "Name further evidence stores if there are more."),
    "LINEAGE_LEVEL": Kind("information", "Ask for a higher level if more has to be proved."),
    "UPSTREAM_NOT_CHECKED": Kind("information", "Check the lineage in the repository that the data came from."),
    "NESTED_REPOSITORY": Kind("information", "Check the inner repository on its own."),
    "NAMES_COLLIDE": Kind("information", "Rename one of the two; elsewhere they overwrite each other."),
    "CACHE_MISSING": Kind("information", "Give the data back to the cache: dvc commit, or dvc fetch."),
    "GIT_DIRTY_ELSEWHERE": Kind("information", "Commit, restore or ignore the other files."),
    "COMMIT_TIME_CLAIMED": Kind("information", "Take a stolen key off the list; a date does not shut it out."),
    "BRANCH_CLAIMED": Kind("information", "Fetch the branch from its server before the check."),
    "POSTURE_SKIPPED": Kind("information", "Take the check in again when its reason is gone."),
    "INSUFFICIENT_HISTORY": Kind("information", "Review again when the log covers more days."),
    "SIGNATURE_NOT_REQUIRED": Kind(
        "information", "The provenance alone binds the bytes; there was no OMS signature to check."
    ),
    "PROVENANCE_NOT_REQUIRED": Kind(
        "information", "The signature alone does not say which artifact this is or who made it."
    ),
}

_EXIT = {
    "evidence": errors.EXIT_REFUSED_EVIDENCE,
    "identity": errors.EXIT_REFUSED_IDENTITY,
    "backend": errors.EXIT_UNVERIFIABLE,
}

# Compiled when a text first needs it, which hardly any does.
_UNPRINTABLE: Final = r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


def printable(text: object, limit: int = 300) -> str:
    """Return ``text`` safe for terminals and logs: control and direction characters escaped, cut at the limit."""
    text = str(text)
    if len(text) <= limit and text.isprintable():  # what nearly every text is, and then nothing below changes it
        return text
    safe = re.sub(_UNPRINTABLE, lambda match: f"\\u{ord(match[0]):04x}", text[: limit + 1])
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation.

    Attributes:
        code: A key of :data:`CODES`.
        severity: ``refusal`` and ``unverifiable`` decide the verdict; ``warning`` and ``note`` inform.
        subject: What was looked at: a file of the artifact, an object of the evidence store, an identity.
        message: One sentence.
        expected: What should have been there; empty when that says nothing.
        found: What was there.
        rule: The requirement that asked for this check.
        next_step: What the reader can do.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    expected: str = ""
    found: str = ""
    rule: str = ""
    next_step: str = ""

    def __post_init__(self) -> None:
        kind = CODES[self.code]
        for name in ("subject", "message", "expected", "found", "rule"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        if not self.next_step:
            object.__setattr__(self, "next_step", kind.next_step)

    def as_dict(self) -> dict[str, str]:
        """Return the JSON form; empty members are left out."""
        members = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in members.items() if value}

    def line(self) -> str:
        """Return the finding as one line for people."""
        text = f"{self.code} {self.subject}: {self.message}"
        if self.expected:
            text += f" Expected {self.expected}, found {self.found or 'nothing'}."
        elif self.found:
            text += f" Found {self.found}."
        return text


class Signer(NamedTuple):
    """Who made a piece of accepted evidence.

    Attributes:
        identity: Name of the identity rule that matched.
        key: ``sha256:`` and the fingerprint of the public key, as OMS hints write it.
        kind: ``signature`` or ``provenance``.
        evidence: Name of the object in the evidence store.
    """

    identity: str
    key: str
    kind: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a check.

    Attributes:
        status: ``passed``, ``failed`` or ``unverifiable``.
        artifact: Location that was checked, without credentials.
        digest: Artifact digest of the checked bytes, or of the signed manifest when a subset was checked; empty
            when the bytes could not be read.
        name: Signed logical name, empty without provenance.
        producer: Signed producer, empty without provenance.
        run: Signed invocation id, empty without provenance.
        signers: Who signed the accepted evidence.
        findings: Observations, the deciding ones first.
        policy: Digest of the policy in force; without one, of what the call itself demanded.
        rules: Names of the rules that applied.
        checked_at: UTC time of the check, RFC 3339.
        held: Whether the caller got a private copy of the checked bytes.
        reused: Whether a verification summary stood in for reading the bytes.
    """

    status: Status
    artifact: str
    digest: str = ""
    name: str = ""
    producer: str = ""
    run: str = ""
    signers: tuple[Signer, ...] = ()
    findings: tuple[Finding, ...] = field(default=())
    policy: str = ""
    checked_at: str = ""
    held: bool = False
    rules: tuple[str, ...] = ()
    reused: bool = False

    def __post_init__(self) -> None:
        # What others wrote: shown in terminals and logs, so made safe once for all of them.
        for name in ("artifact", "name", "producer", "run"):
            object.__setattr__(self, name, printable(getattr(self, name), _MAX_SHOWN))

    @property
    def passed(self) -> bool:
        """Whether the artifact may be used."""
        return self.status == "passed"

    @property
    def deciding_finding(self) -> Finding | None:
        """The first finding that made the verdict what it is, ``None`` for ``passed``."""
        return next((f for f in self.findings if f.severity in ("refusal", "unverifiable")), None)

    @property
    def exit_status(self) -> int:
        """Exit status of the command line for this verdict."""
        if self.status == "passed":
            return errors.EXIT_OK
        if self.status == "unverifiable":
            return errors.EXIT_UNVERIFIABLE
        groups = {CODES[f.code].group for f in self.findings if f.severity == "refusal"}
        return _EXIT["identity"] if groups == {"identity"} else _EXIT["evidence"]

    def summary(self) -> str:
        """Return one or two sentences for an exception or a log line."""
        first = self.deciding_finding
        text = f"{self.artifact} is {self.status}"
        if first is None:
            return text + "."
        more = sum(f.severity in ("refusal", "unverifiable") for f in self.findings) - 1
        return f"{text}: {first.line()}" + (f" ({more} more findings)" if more else "")

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; at most 100 findings, the rest counted."""
        body: dict[str, Any] = {
            "sealflow_verdict": 1,
            "status": self.status,
            "artifact": self.artifact,
            "digest": self.digest,
            "name": self.name,
            "producer": self.producer,
            "run": self.run,
            # Each once: the same statement in a hundred spellings has one signer.
            "signers": [
                {"identity": s.identity, "key": s.key, "kind": s.kind, "evidence": s.evidence}
                for s in {(s.identity, s.key, s.kind): s for s in reversed(self.signers)}.values()
            ][::-1],
            "findings": [f.as_dict() for f in self.findings[:MAX_FINDINGS]],
            "findings_omitted": max(0, len(self.findings) - MAX_FINDINGS),
            "policy": self.policy,
            "checked_at": self.checked_at,
            "held": self.held,
            "rules": list(self.rules),
            "reused": self.reused,
        }
        return body


_ORDER = {"refusal": 0, "unverifiable": 1, "warning": 2, "note": 3}


def conclude(findings: Iterable[Finding]) -> tuple[Status, tuple[Finding, ...]]:
    """Return the status that the findings add up to, and the findings with the deciding ones first.

    A refusal outweighs an unreachable backend: bytes that are known to be wrong stay wrong when the backend returns.
    """
    ordered = tuple(sorted(findings, key=lambda f: _ORDER[f.severity]))
    severities = {f.severity for f in ordered}
    if "refusal" in severities:
        return "failed", ordered
    if "unverifiable" in severities:
        return "unverifiable", ordered
    return "passed", ordered
