"""A key is stolen: rotation, revocation, what still counts, what the thief tries, and how far it got.

One story, told in its order; each part stands on what the one before left. The authority that stamps is OpenSSL's own
program, the policy and the list are read through the admin's channel, and every check is the one that a task makes.
"""

from __future__ import annotations

import base64
import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.audit_integrate import integrate_audit_log
from sealflow.actions.respond_quarantine import quarantine
from sealflow.actions.respond_radius import blast_radius
from sealflow.actions.respond_resign import re_sign
from sealflow.actions.respond_revoke import revoke
from sealflow.actions.verify import verify
from sealflow.errors import VerificationError
from sealflow.evidence import ArtifactRef, EvidenceStore
from sealflow.findings import Verdict
from sealflow.keys import load_signer
from sealflow.policy.source import forget
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages
from tests.core.audit.logs import ORIGIN, ed25519_signer
from tests.core.policy.deployment import Deployment, policy, rule
from tests.servers.timestamp_authority import TimestampAuthority

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STAMPED = "stamped"


class Company(Deployment):
    """Workers, an admin, a list, an authority, an audit log."""

    def __init__(self, folder: Path, authority: TimestampAuthority) -> None:
        super().__init__(folder)
        self.authority = authority
        self.list = folder / "admin" / "revocations.json"
        self.store = folder / "evidence"
        self.lake = folder / "lake"
        self.lake.mkdir()
        self.version = 0
        self.count = 0

    def govern(self, *trainers: str) -> None:
        """Put the next version of the policy in force: these keys may train."""
        self.version += 1
        producers = {"producers": ["airflow:train/*"]}
        known = {name: self.identity(name, **producers) for name in trainers}
        believed = {"company": {"roots": self.authority.roots, "url": self.authority.url}}
        rules = [rule("models", "**", list(trainers))]
        self.publish(policy(rules, known, version=self.version, timestamp_authorities=believed))

    def run(self, task: str = "fit") -> Any:
        self.count += 1
        run = RunIdentity("airflow", "train", task, f"run-{self.count}", None, 1)
        more = {"revocations": str(self.list)} if self.list.exists() else {}
        settings = sealflow.Settings(
            evidence_store=str(self.store),
            audit_spool=str(self.folder / "spool"),
            audit_inbox=f"sqlite:{self.folder}/inbox.db",
        )
        forget()
        return sealflow.run(sealflow.Surroundings(run, settings=settings, admin=self.channel(**more)))

    def make(self, name: str, key: str, *inputs: ArtifactRef, stamp: bool = False) -> ArtifactRef:
        """A task reads its inputs and makes an artifact."""
        (self.lake / name).write_text(name)
        with self.run():
            for ref in inputs:
                with sealflow.verified(ref):
                    pass
            more = {"timestamp": "company"} if stamp else {}
            return sealflow.sign(self.lake / name, signer=self.key(key).signer, **more)

    def check(self, ref: ArtifactRef) -> tuple[str, set[str]]:
        with self.run("check"):
            verdict = verify(ref)
        return verdict.status, codes(verdict)

    def bundles(self, ref: ArtifactRef) -> list[Path]:
        return sorted((self.store / ref.digest.path_segment).glob("*.json"))

    def revoke(self, subject: Any, **options: Any) -> Any:
        with self.run("respond"):
            return revoke(
                subject, list_place=str(self.list), signer=self.key("admin").signer, reason="laptop stolen", **options
            )


def codes(verdict: Verdict) -> set[str]:
    return {item.code for item in verdict.findings if item.severity in ("refusal", "unverifiable", "warning")}


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Company]:
    with TimestampAuthority(tmp_path / "authority").serving() as authority:
        yield Company(tmp_path / "company", authority)


def test_a_stolen_key(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    company.govern("old")

    # --- Every day ---
    stamped = company.make("january", "old", stamp=True)
    plain = company.make("february", "old")
    kept = company.make("march", "old")
    made_of = company.make("report", "old", plain, stamp=True)
    for ref in (stamped, plain, kept, made_of):
        assert company.check(ref) == ("passed", set())

    # --- Rotation: the new key beside the old one, artifacts that outlive it ---
    company.govern("old", "new")
    with company.run("rotate"):
        assert re_sign(kept, signer=company.key("new").signer, reason="rotation").added
    april = company.make("april", "new")
    for ref in (stamped, plain, kept, made_of, april):
        assert company.check(ref)[0] == "passed"

    # --- The theft. Tokens say when to within a second ---
    time.sleep(2.5)
    company.revoke(str(company.key("old").public), since="now", new_list=True)

    assert company.check(stamped) == ("passed", {"SIGNED_BEFORE_REVOCATION"})
    assert company.check(made_of) == ("passed", {"SIGNED_BEFORE_REVOCATION"})
    status, found = company.check(plain)
    assert (status, "KEY_REVOKED" in found) == ("failed", True)
    assert company.check(kept)[0] == "passed"
    assert company.check(april) == ("passed", set())

    # --- What the thief tries ---
    class BackThen(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:
            return datetime.datetime.fromisoformat("2026-01-01T00:00:00+00:00")

    with monkeypatch.context() as patch:
        patch.setattr("sealflow.actions.sign.utc_now", BackThen.now)
        dated = company.make("dated", "old")
    statement = json.loads(_payload(next(path for path in company.bundles(dated) if path.name.startswith("prov"))))
    assert statement["predicate"]["runDetails"]["metadata"]["finishedOn"].startswith("2026-01-01"), "it is back-dated"
    late = company.make("late", "old", stamp=True)
    copied = company.make("copied", "old")
    _copy_tokens(company, stamped, copied)
    foreign = company.make("foreign", "old")
    with TimestampAuthority(company.folder / "thief").serving() as own:
        _stamp_by(company, own, foreign)
    for ref in (dated, late, copied, foreign):
        status, found = company.check(ref)
        assert (status, "KEY_REVOKED" in found) == ("failed", True), (ref.uri, found)
        with company.run("respond"), pytest.raises(VerificationError):
            re_sign(ref, signer=company.key("new").signer, reason="please")
        with pytest.raises(VerificationError):
            company.make("washed", "new", ref)

    # --- How far it got ---
    log, key = _integrate(company)
    with company.run("respond"):
        radius = blast_radius(
            str(company.key("old").public), evidence_stores=[str(company.store)], audit_log=log, audit_log_key=key
        )
    touched = {item.name for item in radius.radius.of("touched")}
    assert touched == {"january", "february", "march", "report", "dated", "late", "copied", "foreign"}
    assert "april" not in touched
    readers = {use.run for use in radius.radius.readers if use.allowed and use.action != "verify"}
    assert all(run in radius.radius.runs for run in readers)

    # --- And away with it ---
    with company.run("respond"):
        done = quarantine(
            dated,
            to=str(company.folder / "quarantine"),
            reason="made by the thief",
            list_place=str(company.list),
            signer=company.key("admin").signer,
        )
    assert not (company.lake / "dated").exists()
    copy = ArtifactRef(done.place, dated.digest, done.evidence)
    status, found = company.check(copy)
    assert status == "failed"
    assert {"KEY_REVOKED", "ARTIFACT_REVOKED"} & found
    assert company.check(april) == ("passed", set())


def test_the_log_names_the_responder(company: Company) -> None:
    """Each act is in the log with its intent, under the one who did it."""
    company.govern("old")
    company.make("model", "old")
    company.revoke(str(company.key("old").public), since="now", new_list=True)
    from tests.audit_events import read_events

    acts = [item for item in read_events(company.folder / "spool") if item["action"] == "revoke"]
    assert [item["phase"] for item in acts] == ["intent", "outcome"]
    assert {item["run"]["task"] for item in acts} == {"respond"}


def _payload(path: Path) -> bytes:
    return base64.b64decode(json.loads(path.read_bytes())["dsseEnvelope"]["payload"])


def _copy_tokens(company: Company, source: ArtifactRef, target: ArtifactRef) -> None:
    """The thief hangs genuine tokens, from before, on what he signed."""
    data = json.loads(company.bundles(source)[0].read_bytes())["verificationMaterial"]["timestampVerificationData"]
    assert data["rfc3161Timestamps"]
    store = EvidenceStore(str(company.store), Storages())
    for path in company.bundles(target):
        bundle = json.loads(path.read_bytes())
        bundle["verificationMaterial"]["timestampVerificationData"] = data
        store.put(target.digest, path.name.rpartition("-")[0], json.dumps(bundle, sort_keys=True).encode())


def _stamp_by(company: Company, authority: TimestampAuthority, target: ArtifactRef) -> None:
    """The thief has an authority of his own."""
    store = EvidenceStore(str(company.store), Storages())
    for path in company.bundles(target):
        bundle = json.loads(path.read_bytes())
        token = authority.token(base64.b64decode(bundle["dsseEnvelope"]["signatures"][0]["sig"]))
        stamps = [{"signedTimestamp": base64.b64encode(token).decode()}]
        bundle["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": stamps}
        store.put(target.digest, path.name.rpartition("-")[0], json.dumps(bundle, sort_keys=True).encode())


def _integrate(company: Company) -> tuple[str, str]:
    """Bring what the spools hold into the log."""
    from sealflow.actions.audit_ship import ship
    from sealflow.audit.note import VerifierKey

    signer = ed25519_signer(company.folder)
    inbox, log = f"sqlite:{company.folder}/inbox.db", str(company.folder / "log")
    ship(str(company.folder / "spool"), inbox=inbox)
    integrate_audit_log(signer=signer.uri, origin=ORIGIN, inbox=inbox, log=log)
    return log, str(VerifierKey.of(load_signer(signer.uri), ORIGIN))
