"""A policy lets an action go on only when its audit event got far enough."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

import sealflow
from sealflow.actions import audit_level
from sealflow.actions.recording import Recording
from sealflow.audit.inbox import Inbox, open_inbox
from sealflow.audit.integrate import integrate
from sealflow.audit.log import open_log
from sealflow.audit.note import VerifierKey
from sealflow.errors import UnavailableError, UsageError
from sealflow.keys import load_signer
from sealflow.policy.compose import AUDIT_LEVELS, Arguments, compose
from sealflow.policy.source import forget
from sealflow.storage import Storages
from tests.audit_events import read_events
from tests.core.policy.deployment import FIT, NOW, Deployment, compiled, policy, rule
from tests.pki import KeyPair, write_key

pytestmark = pytest.mark.slow


class Auditor:
    """An inbox, a log, and somebody who integrates, or not."""

    def __init__(self, folder: Path) -> None:
        self.key: KeyPair = write_key(folder, "log", ed25519.Ed25519PrivateKey.generate())
        self.signer = load_signer(self.key.signer)
        self.verifier = VerifierKey.of(self.signer, "example.org/log")
        self.inbox_uri, self.log_uri = f"sqlite:{folder}/inbox.db", str(folder / "log")
        self.settings = {
            "audit_inbox": self.inbox_uri,
            "audit_log": self.log_uri,
            "audit_log_key": str(self.verifier),
            "audit_timeout": "20",
        }

    @contextmanager
    def working(self, work: Any) -> Iterator[None]:
        stop = threading.Event()

        def run() -> None:
            inbox = open_inbox(self.inbox_uri, Storages())
            while not stop.wait(0.02):
                work(inbox)
            inbox.close()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def sequence(self, inbox: Inbox) -> None:
        inbox.sequence(100)

    def integrate(self, inbox: Inbox) -> None:
        integrate(inbox, open_log(self.log_uri, Storages()), self.signer, "example.org/log")


@pytest.fixture
def auditor(tmp_path: Path) -> Auditor:
    return Auditor(tmp_path)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    forget()
    yield Deployment(tmp_path / "deployment")
    forget()


def sign(deployment: Deployment, level: str, settings: dict[str, str], rule_level: str = "enforce") -> Any:
    """Sign an artifact about which a rule demands a level."""
    model = deployment.model()
    demand = rule("models", str(model), require={"audit": level}, level=rule_level)
    deployment.publish(policy([demand], deployment.identities("trainer")))
    around = sealflow.Surroundings(FIT, sealflow.Settings(**settings), admin=deployment.channel())
    with sealflow.run(around):
        return sealflow.sign(model, signer=deployment.key("trainer").signer)


@pytest.mark.parametrize("spool", [False, True], ids=["inbox", "spool"])
@pytest.mark.parametrize("level", ["sequenced", "included"])
def test_the_task_goes_on_when_its_event_got_so_far(
    deployment: Deployment, auditor: Auditor, tmp_path: Path, level: str, spool: bool
) -> None:
    settings = {**auditor.settings, **({"audit_spool": str(tmp_path / "spool")} if spool else {})}
    with auditor.working(auditor.sequence if level == "sequenced" else auditor.integrate):
        sign(deployment, level, settings)
    inbox = open_inbox(auditor.inbox_uri, Storages())
    assert inbox.size() >= 2
    inbox.close()


@pytest.mark.parametrize(("level", "work"), [("sequenced", None), ("included", "sequence"), ("witnessed", "integrate")])
def test_a_task_whose_event_gets_not_so_far_fails_and_may_try_again(
    deployment: Deployment, auditor: Auditor, level: str, work: str | None
) -> None:
    settings = {**auditor.settings, "audit_timeout": "0.6", "audit_witness_keys": str(auditor.verifier)}
    do = getattr(auditor, work) if work else lambda inbox: None
    with auditor.working(do), pytest.raises(UnavailableError) as caught:
        sign(deployment, level, settings)
    assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert caught.value.retryable
    assert f"demands that it is {level}" in caught.value.message


@pytest.mark.parametrize(
    ("level", "missing"),
    [("sequenced", "audit_inbox"), ("included", "audit_log"), ("included", "audit_log_key"),
     ("witnessed", "audit_witness_keys")],
)  # fmt: skip
def test_without_what_would_show_it_nothing_begins(
    deployment: Deployment, auditor: Auditor, tmp_path: Path, level: str, missing: str
) -> None:
    settings = {**auditor.settings, "audit_spool": str(tmp_path / "spool")}
    settings.pop(missing, None)
    with pytest.raises(UsageError, match=missing):
        sign(deployment, level, settings)
    assert not (deployment.folder / "models" / "m.bin.evidence").exists()


def test_other_levels_and_audited_rules_wait_for_nothing(deployment: Deployment, tmp_path: Path) -> None:
    settings = {"audit_spool": str(tmp_path / "spool")}
    sign(deployment, "spooled", settings)
    sign(deployment, "witnessed", settings, rule_level="audit")


def test_rules_that_name_the_artifact_by_its_logical_name_count_too(deployment: Deployment, auditor: Auditor) -> None:
    model = deployment.model()
    ref = deployment.sign(model, name="churn").ref
    demand = rule("churn", "name:churn", require={"audit": "included"})
    deployment.publish(policy([rule("models", str(model)), demand], deployment.identities("trainer")))
    settings = sealflow.Settings(**{**auditor.settings, "audit_timeout": "0.2"})
    with pytest.raises(UnavailableError, match="demands that it is included"):
        deployment.verify(ref, settings=settings)
    with sealflow.run(sealflow.Surroundings(FIT, settings, admin=deployment.channel())):
        for name in ("churn", "other"):
            other = deployment.model(f"models/{name}", b"other")
            options = {"signer": deployment.key("trainer").signer}
            if name == "other":
                sealflow.sign(other, **options)
                continue
            with pytest.raises(UnavailableError, match="demands that it is included"):
                sealflow.sign(other, **options)


def test_what_is_signed_under_a_policy_says_under_which(deployment: Deployment, tmp_path: Path) -> None:
    sign(deployment, "spooled", {"audit_spool": str(tmp_path / "spool")})
    outcome = next(event for event in read_events(tmp_path / "spool") if event["phase"] == "outcome")
    assert outcome["action"] == "sign"
    assert outcome["rule"] == "models"
    assert outcome["policy"].startswith("sha256:")


def test_a_policy_that_comes_back_meanwhile_is_asked_again(
    deployment: Deployment, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it demands must not depend on the moment at which it was out of reach."""
    model = deployment.model()
    deployment.publish(
        policy([rule("models", str(model), require={"audit": "included"})], deployment.identities("trainer"))
    )
    settings = sealflow.Settings(**{**auditor.settings, "audit_timeout": "0.2"})
    around = sealflow.Surroundings(FIT, settings, admin=deployment.channel())
    real, answers = audit_level.policies_for, iter([UnavailableError("gone")])

    def sometimes(*arguments: Any) -> Any:
        if (error := next(answers, None)) is not None:
            raise error
        return real(*arguments)

    monkeypatch.setattr(audit_level, "policies_for", sometimes)
    recording = Recording("sign", str(model), around)
    with pytest.raises(UnavailableError, match="demands that it is included"), recording:
        pass


def test_a_policy_that_stays_away_stops_nothing_that_does_not_ask_it(
    deployment: Deployment, auditor: Auditor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*arguments: Any) -> Any:
        raise UnavailableError("gone", code="POLICY_UNAVAILABLE")

    monkeypatch.setattr(audit_level, "policies_for", never)
    around = sealflow.Surroundings(FIT, sealflow.Settings(audit_spool=str(tmp_path / "s")), admin=deployment.channel())
    with Recording("sign", "/models/m", around):
        pass
    assert [event["phase"] for event in read_events(tmp_path / "s")] == ["intent", "outcome"]


@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf"])
def test_a_timeout_is_a_number_of_seconds(deployment: Deployment, auditor: Auditor, text: str) -> None:
    with pytest.raises(UsageError, match="audit_timeout"):
        sign(deployment, "sequenced", {**auditor.settings, "audit_timeout": text})


def test_a_call_can_ask_for_more(deployment: Deployment, auditor: Auditor) -> None:
    with auditor.working(auditor.sequence):
        sign(deployment, "sequenced", auditor.settings)
    model = deployment.folder / "models" / "m.bin"
    draft = deployment.draft(policy([rule("more", str(model), any_of=(), require={"audit": "included"})]))
    with pytest.raises(UnavailableError, match="demands that it is included"):
        deployment.verify(
            model, policy=draft, settings=sealflow.Settings(**{**auditor.settings, "audit_timeout": "0.2"})
        )


@pytest.mark.parametrize("first", AUDIT_LEVELS)
@pytest.mark.parametrize("second", AUDIT_LEVELS)
def test_the_furthest_wins(deployment: Deployment, first: str, second: str) -> None:
    rules = [rule(name, "s3://b/**", require={"audit": level}) for name, level in (("a", first), ("b", second))]
    body = policy([*rules, rule("c", "s3://b/**")], deployment.identities("trainer"))
    found = compose([compiled(body)], Arguments(), places=("s3://b/k",), run=FIT, now=NOW).audit
    assert found[0] == max(first, second, key=AUDIT_LEVELS.index)
