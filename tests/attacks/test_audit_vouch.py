"""Who a writer of audit events says it is: what nobody vouches for is shown as a claim, and a bad vouch is named."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.audit_export import export_events
from sealflow.actions.audit_report import as_html
from sealflow.actions.audit_review import Reviewed, review_accesses
from sealflow.actions.audit_verify import verify_audit_log
from sealflow.audit import AuditEvent
from sealflow.audit.entry import Chain
from sealflow.audit.event import vouched
from sealflow.errors import UsageError
from sealflow.keys import KeySigner
from sealflow.policy.identities import parse_identities
from sealflow.run_identity import RunIdentity
from sealflow.verification.audit_log import LogReport
from tests.core.audit.logs import MadeLog, ed25519_signer
from tests.core.policy import deployment

pytestmark = pytest.mark.slow

MODEL = "s3://models/churn/model.pkl"
FIT = RunIdentity("airflow", "train", "fit", "run-1", attempt=1)
PAY = RunIdentity("airflow", "pay", "transfer", "run-9", attempt=1)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def vouch(signer: KeySigner, writer: str, run: RunIdentity) -> dict[str, str]:
    """The word of the deployment's signer, as a task records it."""
    signature = base64.b64encode(signer.sign(vouched(writer, run))).decode()
    return {"key": f"sha256:{signer.public_key.hint}", "signature": signature}


class Keys:
    """The deployment's key, which may speak for the DAG ``train`` alone, and one that nobody knows."""

    def __init__(self, folder: Path) -> None:
        self.ours = ed25519_signer(folder, "audit")
        self.stranger = ed25519_signer(folder, "stranger")
        (folder / "audit.pub").write_bytes(self.ours.public_key.pem)
        self.rules = [{"name": "audit", "key": str(folder / "audit.pub"), "producers": ["airflow:train/*"]}]


def events(chain: Chain, runs: list[RunIdentity], words: list[dict[str, str]]) -> list[bytes]:
    """An intent, an outcome and the end, each of a run and with what stands in its ``vouch``."""
    now = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=2)
    time = now.isoformat(timespec="microseconds")
    intent = AuditEvent("verify", "intent", runs[0], artifact=MODEL, time=time, vouch=words[0])
    outcome = AuditEvent(
        "verify", "outcome", runs[1], artifact=MODEL, outcome="passed", correlation=intent.correlation, time=time,
        vouch=words[1],
    )  # fmt: skip
    end = AuditEvent("end", "end", runs[2], count=3, time=time)
    return [chain.add(event.to_json()).line for event in (intent, outcome, end)]


def plain(chain: Chain, run: RunIdentity, word: dict[str, str]) -> list[bytes]:
    return events(chain, [run] * 3, [word, {}])


def honest(keys: Keys) -> list[bytes]:
    chain = Chain()
    return plain(chain, FIT, vouch(keys.ours, chain.writer, FIT))


def made(folder: Path, lines: list[bytes]) -> MadeLog:
    log = MadeLog(folder)
    log.add(lines)
    return log


def verify(log: MadeLog, keys: Keys, **more: Any) -> LogReport:
    given = {"identities": keys.rules, **more}
    return verify_audit_log(log.store.uri, str(log.key), strict=False, **given)


def review(log: MadeLog, keys: Keys, **more: Any) -> Reviewed:
    return review_accesses(log.store.uri, key=str(log.key), **{"identities": keys.rules, "since": "2d", **more})


def exported(log: MadeLog, keys: Keys, form: Any = "jsonl") -> list[dict[str, Any]]:
    found = export_events(log.store.uri, key=str(log.key), form=form, identities=keys.rules)
    return [json.loads(item.line) for item in found]


def codes(verdict: Any, severity: str) -> set[str]:
    return {item.code for item in verdict.findings if item.severity == severity}


def who(reviewed: Reviewed) -> set[tuple[str, str, tuple[str, ...]]]:
    return {(row["principal"], row["who"], tuple(row["vouched_by"])) for row in reviewed.report["accesses"]}


def test_the_control_is_vouched_for_everywhere(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    log = made(tmp_path, honest(keys))
    report = verify(log, keys, vouched=True)
    assert report.verdict.passed, report.verdict.summary()
    assert (report.vouched, report.claimed) == ({"audit": 1}, 0)
    reviewed = review(log, keys, fail_on=["AUDIT_CLAIMED"])
    assert reviewed.verdict.passed, reviewed.verdict.summary()
    assert who(reviewed) == {("airflow:train/fit", "vouched", ("audit",))}
    assert (reviewed.report["counts"]["vouched"], reviewed.report["counts"]["claimed"]) == (1, 0)
    assert "vouched for by audit" in as_html(reviewed.report)
    assert [(row["who"], row["vouched_by"]) for row in exported(log, keys)] == [("vouched", "audit")] * 3
    assert {row["metadata"]["labels"][0] for row in exported(log, keys, "ocsf")} == {"who: vouched"}


def nobody(keys: Keys) -> list[bytes]:
    """A writer with a key of its own claims another DAG's run."""
    return plain(Chain(), PAY, {})


def by_a_stranger(keys: Keys) -> list[bytes]:
    chain = Chain()
    return plain(chain, PAY, vouch(keys.stranger, chain.writer, PAY))


def too_late(keys: Keys) -> list[bytes]:
    """The word stands in a later event: what came before it would be vouched for by hindsight."""
    chain = Chain()
    return events(chain, [FIT] * 3, [{}, vouch(keys.ours, chain.writer, FIT)])


@pytest.mark.parametrize("attack", [nobody, by_a_stranger, too_late])
def test_what_nobody_vouches_for_is_a_claim_and_fails_where_that_is_demanded(
    tmp_path: Path, attack: Callable[[Keys], list[bytes]]
) -> None:
    keys = Keys(tmp_path)
    log = made(tmp_path, attack(keys))
    report = verify(log, keys)
    assert (report.verdict.status, codes(report.verdict, "warning")) == ("passed", {"AUDIT_CLAIMED"})
    assert (report.vouched, report.claimed) == ({}, 1)
    demanded = verify(log, keys, vouched=True)
    assert (codes(demanded.verdict, "refusal"), demanded.verdict.exit_status) == ({"AUDIT_CLAIMED"}, 4)
    reviewed = review(log, keys)
    assert reviewed.verdict.passed
    assert {(row, by) for _, row, by in who(reviewed)} == {("claimed", ())}
    assert reviewed.report["counts"]["claimed"] == 1
    assert "<td>claimed</td>" in as_html(reviewed.report)
    demanded_too = review(log, keys, fail_on=["AUDIT_CLAIMED"])
    assert (codes(demanded_too.verdict, "refusal"), demanded_too.verdict.exit_status) == ({"AUDIT_CLAIMED"}, 4)
    assert {row["who"] for row in exported(log, keys)} == {"claimed"}
    assert {row["unmapped"]["sealflow"]["who"] for row in exported(log, keys, "ocsf")} == {"claimed"}


def copied(keys: Keys) -> list[bytes]:
    """The word for another writer of the same run."""
    chain = Chain()
    return plain(chain, FIT, vouch(keys.ours, Chain().writer, FIT))


def replayed(keys: Keys) -> list[bytes]:
    """The word for an earlier run of the same process."""
    chain = Chain()
    return plain(chain, replace(FIT, run="run-2"), vouch(keys.ours, chain.writer, FIT))


def of_the_try_before(keys: Keys) -> list[bytes]:
    chain = Chain()
    return plain(chain, replace(FIT, attempt=2), vouch(keys.ours, chain.writer, FIT))


def for_another_dag(keys: Keys) -> list[bytes]:
    chain = Chain()
    return plain(chain, PAY, vouch(keys.ours, chain.writer, FIT))


def misnamed(keys: Keys) -> list[bytes]:
    """A stranger's signature under the fingerprint of the deployment's key."""
    chain = Chain()
    return plain(chain, FIT, vouch(keys.stranger, chain.writer, FIT) | {"key": f"sha256:{keys.ours.public_key.hint}"})


def no_signature(keys: Keys) -> list[bytes]:
    chain = Chain()
    return plain(chain, FIT, vouch(keys.ours, chain.writer, FIT) | {"signature": "no Base64"})


def of_a_dag_of_others(keys: Keys) -> list[bytes]:
    """A worker of one DAG vouches, with the key that it has, for a run of another one."""
    chain = Chain()
    return plain(chain, PAY, vouch(keys.ours, chain.writer, PAY))


BAD = {
    "copied from another writer": (copied, "AUDIT_VOUCH", 3),
    "replayed for another run": (replayed, "AUDIT_VOUCH", 3),
    "replayed for another try": (of_the_try_before, "AUDIT_VOUCH", 3),
    "replayed for another dag": (for_another_dag, "AUDIT_VOUCH", 3),
    "under another's fingerprint": (misnamed, "AUDIT_VOUCH", 3),
    "no signature": (no_signature, "AUDIT_VOUCH", 3),
    "for a dag that is not its own": (of_a_dag_of_others, "AUDIT_VOUCHER", 4),
}


@pytest.mark.parametrize(("attack", "code", "status"), BAD.values(), ids=BAD)
def test_a_bad_vouch_is_named(tmp_path: Path, attack: Callable[[Keys], list[bytes]], code: str, status: int) -> None:
    keys = Keys(tmp_path)
    # Beside an honest writer, who is not drawn into it.
    log = made(tmp_path, [*attack(keys), *honest(keys)])
    report = verify(log, keys)
    assert (codes(report.verdict, "refusal"), report.verdict.exit_status) == ({code}, status)
    assert (report.vouched, report.claimed) == ({"audit": 1}, 1)
    reviewed = review(log, keys)
    assert (codes(reviewed.verdict, "refusal"), reviewed.verdict.exit_status) == ({code}, status)
    rows = who(reviewed)
    assert ("airflow:train/fit", "vouched", ("audit",)) in rows
    assert [by for _, row, by in rows if row == "claimed"] == [()]
    assert [row.get("vouch_code") for row in exported(log, keys)] == [code] * 3 + [None] * 3
    # A log forgets nothing, so somebody must be able to say that it was looked into.
    (finding,) = [item for item in report.verdict.findings if item.code == code]
    looked_into = verify(log, keys, accept_gaps=[finding.subject.removeprefix("writer ")])
    assert looked_into.verdict.passed
    assert code in codes(looked_into.verdict, "note")
    before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    assert review(log, keys, until=before.strftime("%Y-%m-%dT%H:%M:%SZ"), since="30d").verdict.passed


def test_a_vouched_writer_speaks_for_no_second_run(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    chain = Chain()
    lines = events(chain, [FIT, PAY, FIT], [vouch(keys.ours, chain.writer, FIT), {}])
    log = made(tmp_path, [*honest(keys), *lines])
    # Without anybody named, too: it is no matter of who vouches that a writer is made for one run.
    for identities in (keys.rules, None):
        report = verify(log, keys, identities=identities)
        assert codes(report.verdict, "refusal") == {"AUDIT_VOUCH"}
        assert verify(log, keys, identities=identities, accept_gaps=[chain.writer]).verdict.passed
        assert codes(review(log, keys, identities=identities).verdict, "refusal") == {"AUDIT_VOUCH"}
    # Whoever may write to the inbox can do this. He takes nobody else's voucher away, and not for ever.
    rows = who(review(log, keys))
    assert rows == {("airflow:train/fit", "vouched", ("audit",)), ("airflow:pay/transfer", "claimed", ())}
    assert [row["who"] for row in exported(log, keys)] == ["vouched"] * 4 + ["claimed", "vouched"]
    before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    assert review(log, keys, until=before.strftime("%Y-%m-%dT%H:%M:%SZ"), since="30d").verdict.passed


@pytest.mark.parametrize("at", [255, 256, 257])
def test_nor_where_the_log_is_checked_in_stretches(tmp_path: Path, at: int) -> None:
    from sealflow.verification.audit_log import Demands, bundles, scan, verify_log

    runs = [FIT] * at + [PAY] * (600 - at)
    chain = Chain()
    lines = [chain.add(AuditEvent("verify", "intent", run, artifact=MODEL).to_json()).line for run in runs]
    log = made(tmp_path, lines)

    def scan_all(size: int) -> list[Any]:
        return [scan(log.store.get, size, number, number + 1) for number in range(bundles(size))]

    report = verify_log(log.store.get, log.store.uri, Demands(log.key), scan_all)
    assert codes(report.verdict, "refusal") == {"AUDIT_VOUCH"}
    assert [item.found for item in report.verdict.findings] == [f"entry {at}"]


def test_a_chain_that_comes_once_more(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    lines = honest(keys)
    log = made(tmp_path, [*lines, *lines])
    assert "AUDIT_DUPLICATE" in codes(verify(log, keys).verdict, "refusal")
    assert {row for _, row, _ in who(review(log, keys))} == {"claimed"}


def test_what_the_holder_of_the_logs_key_adds_to_a_vouched_chain(tmp_path: Path) -> None:
    """He cannot sign for its writer, so nobody vouches for anything in such a chain."""
    keys = Keys(tmp_path)
    lines = honest(keys)
    forged = lines[2][:-88] + base64.b64encode(bytes(64))
    log = made(tmp_path, [*lines[:2], forged])
    assert "AUDIT_SIGNATURE" in codes(verify(log, keys).verdict, "refusal")
    reviewed = review(log, keys)
    assert reviewed.verdict.status == "failed"
    assert {row for _, row, _ in who(reviewed)} == {"claimed"}
    assert {(row["who"], row["vouch_code"]) for row in exported(log, keys)} == {("claimed", "AUDIT_CHAIN")}


def test_what_is_claimed_is_no_history_of_whom_it_names(tmp_path: Path) -> None:
    """Who claims to be somebody else makes neither that one's first access look usual, nor hides in his rows."""
    keys = Keys(tmp_path)
    log = made(tmp_path, [*plain(Chain(), FIT, {}), *honest(keys)])
    reviewed = review(log, keys)
    assert who(reviewed) == {("airflow:train/fit", "claimed", ()), ("airflow:train/fit", "vouched", ("audit",))}
    first = [item["message"] for item in reviewed.report["findings"] if item["code"] == "FIRST_SEEN"]
    assert sorted(first) == [
        "airflow:train/fit (claimed) touches it for the first time in this log.",
        "airflow:train/fit touches it for the first time in this log.",
    ]
    (artifact,) = reviewed.report["artifacts"]
    assert (artifact["accesses"], artifact["claimed"]) == (2, 1)


def test_a_demand_that_nobody_can_meet(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    log = made(tmp_path, honest(keys))
    with pytest.raises(UsageError, match="vouch"):
        verify(log, keys, identities=None, vouched=True)
    with pytest.raises(UsageError, match="vouch"):
        review(log, keys, identities=None, fail_on=["AUDIT_CLAIMED"])
    # And without anybody named all is claimed, however well it is signed.
    report = verify(log, keys, identities=None)
    assert (report.verdict.status, report.vouched, report.claimed) == ("passed", {}, 1)
    assert {row for _, row, _ in who(review(log, keys, identities=None))} == {"claimed"}


def draft(folder: Path, keys: Keys, **more: Any) -> str:
    """A policy that names the deployment's key."""
    audit = {"key": keys.ours.public_key.pem.decode(), "producers": ["airflow:*/*"]} | more.pop("audit", {})
    body = deployment.policy([deployment.rule("models", "s3://models/**", ["audit"])], {"audit": audit}, **more)
    (folder / "policy.yaml").write_text(json.dumps(body))
    return str(folder / "policy.yaml")


SAID = {
    "as it stands": ({}, set()),
    "expired": ({"audit": {"expires": "2026-01-01T00:00:00Z"}}, {"AUDIT_VOUCHER"}),
    "for others": ({"audit": {"producers": ["airflow:pay/*"]}}, {"AUDIT_VOUCHER"}),
    "for another builder": ({"audit": {"builders": ["urn:notary"]}}, {"AUDIT_VOUCHER"}),
}


@pytest.mark.parametrize(("said", "expected"), SAID.values(), ids=SAID)
def test_a_policy_says_who_may_vouch(tmp_path: Path, said: dict[str, Any], expected: set[str]) -> None:
    keys = Keys(tmp_path)
    log = made(tmp_path, honest(keys))
    policy = draft(tmp_path, keys, **said)
    report = verify(log, keys, identities=None, policy=policy)
    assert codes(report.verdict, "refusal") == expected
    assert report.vouched == ({} if expected else {"audit": 1})
    assert codes(review(log, keys, identities=None, policy=policy).verdict, "refusal") == expected


def test_a_call_only_tightens_what_a_policy_says(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    log = made(tmp_path, honest(keys))
    policy = draft(tmp_path, keys)
    assert verify(log, keys, policy=policy).vouched == {"audit": 1}
    narrower = [{**keys.rules[0], "producers": ["airflow:pay/*"]}]
    assert codes(verify(log, keys, identities=narrower, policy=policy).verdict, "refusal") == {"AUDIT_VOUCHER"}
    (tmp_path / "stranger.pub").write_bytes(keys.stranger.public_key.pem)
    # A key that only the call names is no voucher under the policy, nor the other way round.
    others = verify(log, keys, identities=[str(tmp_path / "stranger.pub")], policy=policy)
    assert (others.verdict.status, others.vouched, others.claimed) == ("passed", {}, 1)


def test_a_policy_out_of_reach_is_unverifiable_and_hides_nothing_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealflow.actions import audit_verify
    from sealflow.errors import UnavailableError

    def away(*_: Any) -> None:
        raise UnavailableError("away", code="POLICY_UNAVAILABLE")

    keys = Keys(tmp_path)
    log = made(tmp_path, honest(keys))
    monkeypatch.setattr(audit_verify, "vouchers_for", away)
    report = verify(log, keys)
    assert (report.verdict.exit_status, codes(report.verdict, "unverifiable")) == (5, {"POLICY_UNAVAILABLE"})
    assert report.size == 3
    log.path("tile/entries/000.p/3").write_bytes(b"")
    assert verify(log, keys).verdict.exit_status == 3


def test_several_processes_come_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.actions import audit_scan

    keys = Keys(tmp_path)
    lines = [line for number in range(100) for line in (copied(keys) if number % 10 else honest(keys))]
    log = made(tmp_path, lines)
    monkeypatch.setattr(audit_scan, "_WORTH", 80)
    monkeypatch.setattr(audit_scan.processors, "usable", lambda: 3)
    report = verify(log, keys)
    assert (report.vouched, report.claimed, report.counts) == ({"audit": 10}, 90, {"AUDIT_VOUCH": 90})


def test_what_a_task_records_is_vouched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the setting to the review, with nothing made by hand."""
    import sealflow
    from sealflow.actions import context
    from sealflow.actions.audit_integrate import integrate_audit_log
    from sealflow.actions.recording import Recording

    keys = Keys(tmp_path)
    monkeypatch.setenv("SEALFLOW_AUDIT_INBOX", f"sqlite:{tmp_path}/inbox.db")
    monkeypatch.setenv("SEALFLOW_AUDIT_SIGNER", f"file:{tmp_path}/audit.pem")
    surroundings = replace(context.current(), run=FIT)
    with sealflow.run(surroundings), Recording("verify", MODEL, context.current()) as recording:
        recording.done("sha256:" + "ab" * 32)
    signer = ed25519_signer(tmp_path, "log")
    done = integrate_audit_log(log=str(tmp_path / "log"), signer=signer, origin="log.example/audit")
    reviewed = review_accesses(str(tmp_path / "log"), key=done.log_key, identities=keys.rules, since="1d")
    assert who(reviewed) == {("airflow:train/fit", "vouched", ("audit",))}


def test_accepting_all_that_is_shown_accepts_nothing_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealflow.verification import audit_log

    monkeypatch.setattr(audit_log, "MAX_KEPT", 3)
    keys = Keys(tmp_path)
    log = made(tmp_path, [line for _ in range(5) for line in copied(keys)])
    report = verify(log, keys)
    assert report.counts == {"AUDIT_VOUCH": 5}
    shown = [item.subject.removeprefix("writer ") for item in report.verdict.findings if item.code == "AUDIT_VOUCH"]
    assert len(shown) == 3
    again = verify(log, keys, accept_gaps=shown)
    assert (again.verdict.status, again.counts) == ("failed", {"AUDIT_VOUCH": 2})


def test_each_event_is_held_against_the_run_of_its_chain(tmp_path: Path) -> None:
    """Also where nobody has looked at the chains before."""
    from sealflow.audit.entry import parse_entry
    from sealflow.verification.accesses import AccessReview, Scope
    from sealflow.verification.vouching import Speakers, Vouchers

    keys = Keys(tmp_path)
    chain = Chain()
    lines = events(chain, [FIT, PAY, FIT], [vouch(keys.ours, chain.writer, FIT), {}])
    now = datetime.datetime.now(datetime.timezone.utc)
    vouchers = Vouchers.of([parse_identities(keys.rules)], {}, now)
    speakers = Speakers(vouchers)
    entries = [parse_entry(line) for line in lines]
    said = [speakers.of(entry, AuditEvent.parse(entry.event))["who"] for entry in entries]
    assert said == ["vouched", "claimed", "vouched"]
    time = int(now.timestamp() * 1_000_000)
    reviewed = AccessReview(Scope(time - 10**12, time), now=time, vouchers=vouchers)
    reviewed.read(lines)
    assert (reviewed.counts["vouched"], reviewed.counts["claimed"]) == (0, 1)


def false_count(keys: Keys) -> list[bytes]:
    """What integrators take, since they look into no event."""
    chain = Chain()
    lines = plain(chain, PAY, {})[:2]
    end = AuditEvent("end", "end", PAY, count=7)
    return [*lines, chain.add(end.to_json()).line]


def after_its_end(keys: Keys) -> list[bytes]:
    chain = Chain()
    return [*plain(chain, PAY, {}), *plain(chain, PAY, {})]


@pytest.mark.parametrize("attack", [false_count, after_its_end])
def test_nobody_takes_the_word_for_others_away(tmp_path: Path, attack: Callable[[Keys], list[bytes]]) -> None:
    """A chain that does not hold, which anybody may write, is a matter of its writer alone."""
    keys = Keys(tmp_path)
    log = made(tmp_path, [*attack(keys), *honest(keys)])
    assert "AUDIT_CHAIN" in (found := codes(verify(log, keys).verdict, "refusal"))
    assert found <= {"AUDIT_CHAIN", "AUDIT_GAP"}
    assert ("airflow:train/fit", "vouched", ("audit",)) in who(review(log, keys))
    assert [row["who"] for row in exported(log, keys)][-3:] == ["vouched"] * 3


@pytest.mark.parametrize("revoked", [False, True])
def test_a_revoked_key_vouches_for_nobody(tmp_path: Path, revoked: bool) -> None:
    keys = Keys(tmp_path)
    log = made(tmp_path, honest(keys))
    world = deployment.Deployment(tmp_path / "deployment")
    world.publish(json.loads(Path(draft(tmp_path, keys)).read_text()))
    key = f"sha256:{keys.ours.public_key.hint}" if revoked else "sha256:" + "0" * 64
    world.revoke([{"since": "2026-01-01T00:00:00Z", "reason": "stolen", "key": key}])
    with sealflow.run(sealflow.Surroundings(deployment.SCORE, admin=world.channel())):
        report = verify(log, keys, identities=None)
    assert codes(report.verdict, "refusal") == ({"AUDIT_VOUCHER"} if revoked else set())
