"""Check how a bucket and its keys are set up, before something is read from there or at any time, and record it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.recording import Recording
from sealflow.audit.event import utc_now
from sealflow.errors import UsageError, VerificationError
from sealflow.findings import Verdict, conclude, printable
from sealflow.keys.posture_kms import key_facts, key_id
from sealflow.storage import Storages
from sealflow.storage.aws import Clients, default_clients
from sealflow.storage.posture_s3 import bucket_facts
from sealflow.storage.s3 import split
from sealflow.verification.posture import CHECKS, Result, bucket_key, findings, judge, unneeded

_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_ALLOWED: Final = re.compile(r"[0-9]{12}|o-[a-z0-9]{10,32}")
_MAX_KEYS: Final = 20


@dataclass(frozen=True)
class Posture:
    """How a bucket is set up.

    Attributes:
        results: What came of each check.
        verdict: What they add up to.
    """

    results: tuple[Result, ...]
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"checks": [item.as_dict() for item in self.results], "verdict": self.verdict.as_dict()}


def check_posture(
    location: str,
    *,
    kms_keys: Iterable[str] = (),
    bucket_owner: str | None = None,
    allow_accounts: Iterable[str] = (),
    skip: Mapping[str, str] | None = None,
    strict: bool = True,
    storages: Storages | None = None,
    clients: Clients | None = None,
) -> Posture:
    """Check how the bucket of a location is set up, and the key with which it encrypts.

    Only settings are read, each by one request; no object is, and nothing is changed.

    Args:
        location: ``s3://bucket`` or a place in it. The trails must record whatever begins so; end a folder with ``/``.
        kms_keys: More keys to look at, such as those of recipients and signers: ``awskms:<ARN>``.
        bucket_owner: Number of the account that must own the bucket, by default the one in
            ``SEALFLOW_BUCKET_OWNERS``, then that of the credentials. It is named in every request.
        allow_accounts: Accounts (twelve digits) and organizations (``o-…``) that policies may let in, and whose keys
            may be used, beside the owner's account.
        skip: For each check that is left out, why. Shown with the verdict.
        strict: Raise when the verdict is not ``passed``. Otherwise it is only reported.
        storages: Finds storage.
        clients: Makes boto3 clients for the other services, by default from the process's own configuration.

    Returns:
        The results. The verdict is ``failed`` where a setting is not as expected, else ``unverifiable`` where one could
        not be read or is not understood.

    Raises:
        VerificationError: ``strict``, and the verdict is not ``passed``.
        UsageError: An argument cannot work, or boto3 is missing or has no region.
        UnavailableError: The audit log cannot be written.
    """
    if isinstance(kms_keys, str) or isinstance(allow_accounts, str):
        raise UsageError("Give keys and accounts as lists.")
    named = [key_id(uri) for uri in dict.fromkeys(kms_keys)]
    if len(named) > _MAX_KEYS:
        raise UsageError(f"At most {_MAX_KEYS} keys are looked at in one check.")
    allowed = frozenset(_checked(item, _ALLOWED, "account or organization") for item in allow_accounts)
    skipped = _skipped(skip or {})
    storages, clients = storages or Storages(), clients or default_clients
    storage = storages.s3(location)
    where = storage.canonical(location)
    # As it was given: with a final slash it is a folder, without one the prefix may also be that of its neighbours.
    bucket, prefix = split(location)
    must_own = bucket_owner or storage.owner(where)
    if must_own is not None:
        _checked(must_own, _ACCOUNT, "account")
    surroundings = context.current()
    with Recording("posture", where, surroundings) as recording:
        without = unneeded(skipped)
        facts = bucket_facts(storage.client(where), clients, bucket, prefix, must_own, without)
        found = bucket_key(facts)
        wanted = dict.fromkeys([*([(found, facts.region or None)] if found else []), *named])
        seen = (
            ()
            if "keys" in without
            else tuple(key_facts(clients, key, region or facts.region or None, aws=facts.aws) for key, region in wanted)
        )
        results = judge(facts, seen, allowed=allowed, skipped=skipped)
        status, ordered = conclude(findings(results))
        demanded = {
            "allowed": sorted(allowed),
            "checks": list(CHECKS),
            "bucket_owner": must_own or "",
            "skipped": skipped,
        }
        verdict = Verdict(
            status,
            where,
            findings=ordered,
            policy=f"sha256:{hashlib.sha256(strictjson.dumps(demanded)).hexdigest()}",
            checked_at=utc_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        recording.judged(verdict)
    if strict and not verdict.passed:
        raise VerificationError(verdict)
    return Posture(results, verdict)


def _checked(value: Any, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise UsageError(
            f"{printable(value, 60)!r} is no {what}.",
            next_step="Write twelve digits" + (", or o-… for an organization." if "org" in what else "."),
        )
    return value


def _skipped(skip: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(skip, Mapping):
        raise UsageError("Give what is skipped as a mapping of checks to reasons.")
    for name, reason in skip.items():
        if name not in CHECKS:
            raise UsageError(f"There is no check {printable(name, 60)!r}.", next_step=f"Use {', '.join(CHECKS)}.")
        if not isinstance(reason, str) or not reason.strip():
            raise UsageError(f"The check {name} is skipped without a reason.", next_step=f"Write {name}=<why>.")
    if all(name in skip for name, check in CHECKS.items() if not check.advisory):
        raise UsageError("Every check that decides is skipped, so nothing is checked.", next_step="Leave the gate out.")
    return dict(skip)
