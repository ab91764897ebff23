"""What signed evidence alone says of a reference: whose word counts, and which run, without the bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import sealflow
from sealflow.actions import context
from sealflow.actions.attested import attest
from sealflow.actions.guarding import Managed, Told, managed
from sealflow.actions.upload import upload
from sealflow.errors import UsageError, VerificationError
from sealflow.evidence import ArtifactRef
from sealflow.policy.source import forget
from sealflow.run_identity import RunIdentity
from tests.audit_events import read_events
from tests.e2e.admin import Admin, rule
from tests.pki import KeyPair, write_key

RUN = RunIdentity("airflow", "train", "fit", "run-2", None, 1)
TOLD = Told("airflow:train/fit/run-2")


class World:
    """A policy, two keys, and an artifact of the run."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.admin = Admin(folder / "admin")
        self.trainer, self.stranger = write_key(folder, "trainer"), write_key(folder, "stranger")
        self.publish()
        self.place = folder / "models" / "model"
        self.write("weights")

    def publish(self, **fields: object) -> None:
        forget()
        self.admin.publish([rule("models", f"{self.folder}/models/**", "trainer", **fields)], {"trainer": self.trainer})

    def write(self, text: str) -> None:
        self.place.parent.mkdir(exist_ok=True)
        if self.kind == "file":
            self.place.write_text(text)
        else:
            (self.place / "inner").mkdir(parents=True, exist_ok=True)
            (self.place / "weights").write_text(text)
            (self.place / "inner" / "other").write_text("2")

    def surroundings(self, run: RunIdentity = RUN, key: KeyPair | None = None) -> context.Surroundings:
        settings = context.Settings(signer=(key or self.trainer).signer, audit_spool=str(self.folder / "spool"))
        return context.Surroundings(run, settings, admin=self.admin.channel())

    def sign(self, run: RunIdentity = RUN, key: KeyPair | None = None) -> ArtifactRef:
        with sealflow.run(self.surroundings(run, key)):
            return sealflow.sign(self.place, name="model")

    def attest(self, ref: ArtifactRef, told: Told = TOLD, run: RunIdentity = RUN, **more: object) -> str:
        """Return ``passed``, or the code that decided."""
        with sealflow.run(self.surroundings(run)):
            place = managed(ref.uri)
            assert isinstance(place, Managed)
            try:
                attest(place, ref, told=told, **more)  # type: ignore[arg-type]
            except VerificationError as error:
                return getattr(error.verdict.deciding_finding, "code", "none")
            return "passed"


@pytest.fixture(params=["file", "tree"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield World(tmp_path, request.param)
    forget()


def test_signed_claim_of_this_run_passes_and_no_byte_of_the_artifact_is_read(world: World) -> None:
    ref = world.sign()
    shutil.rmtree(world.place) if world.kind == "tree" else world.place.unlink()
    assert world.attest(ref) == "passed"
    events = [event for event in read_events(world.folder / "spool") if event["action"] == "gate"]
    assert [(event["phase"], event.get("outcome")) for event in events] == [("intent", None), ("outcome", "passed")]
    assert events[1]["digest"] == str(ref.digest)
    assert events[1]["run"]["workflow"] == "train"


def no_evidence(world: World) -> ArtifactRef:
    ref = world.sign()
    shutil.rmtree(ref.evidence.removeprefix("file://"))
    return ref


def other_digest(world: World) -> ArtifactRef:
    ref = world.sign()
    return replace(ref, digest=replace(ref.digest, hex="0" * 64))


def planted(world: World) -> ArtifactRef:
    """Good evidence about other bytes, put where that of the claimed ones would lie."""
    ref = world.sign()
    good = Path(ref.evidence.removeprefix("file://"), ref.digest.path_segment)
    claimed = replace(ref, digest=replace(ref.digest, hex="1" * 64))
    shutil.copytree(good, good.parent / claimed.digest.path_segment)
    return claimed


def no_provenance(world: World) -> ArtifactRef:
    ref = world.sign()
    for path in Path(ref.evidence.removeprefix("file://")).rglob("provenance-*"):
        path.unlink()
    return ref


def no_signature(world: World) -> ArtifactRef:
    ref = world.sign()
    for path in Path(ref.evidence.removeprefix("file://")).rglob("signature-*"):
        path.unlink()
    return ref


def altered(world: World) -> ArtifactRef:
    ref = world.sign()
    for path in Path(ref.evidence.removeprefix("file://")).rglob("signature-*"):
        body = json.loads(path.read_bytes())
        body["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
        path.write_text(json.dumps(body))
    return ref


@pytest.mark.parametrize(
    ("attack", "codes"),
    [
        pytest.param(lambda w: w.sign(key=w.stranger), {"SIGNER_NOT_ALLOWED"}, id="signed-by-a-stranger"),
        pytest.param(lambda w: w.sign(replace(RUN, run="run-1")), {"PRODUCER_MISMATCH"}, id="older-run-replayed"),
        pytest.param(lambda w: w.sign(replace(RUN, workflow="evil")), {"PRODUCER_MISMATCH"}, id="another-dag"),
        pytest.param(lambda w: w.sign(replace(RUN, task="evil")), {"PRODUCER_MISMATCH"}, id="another-task"),
        pytest.param(lambda w: w.sign(replace(RUN, map_index=3)), {"PRODUCER_MISMATCH"}, id="another-map-index"),
        pytest.param(no_evidence, {"EVIDENCE_MISSING"}, id="no-evidence"),
        pytest.param(other_digest, {"EVIDENCE_MISSING"}, id="digest-that-nobody-signed"),
        pytest.param(planted, {"EVIDENCE_OF_OTHER_ARTIFACT"}, id="evidence-of-other-bytes"),
        pytest.param(no_provenance, {"PROVENANCE_MISSING"}, id="no-provenance"),
        pytest.param(no_signature, {"SIGNATURE_MISSING"}, id="no-signature"),
        pytest.param(altered, {"EVIDENCE_ALTERED", "SIGNATURE_INVALID", "EVIDENCE_MALFORMED"}, id="altered"),
    ],
)
def test_claim_that_is_refused(world: World, attack: Callable[[World], ArtifactRef], codes: set[str]) -> None:
    assert world.attest(attack(world)) in codes


def test_another_try_of_the_same_task_counts(world: World) -> None:
    assert world.attest(world.sign(replace(RUN, attempt=1)), run=replace(RUN, attempt=2)) == "passed"


def test_run_that_made_the_same_bytes_as_one_before_is_believed(world: World) -> None:
    world.sign(replace(RUN, run="run-1"))
    assert world.attest(world.sign()) == "passed"


def test_reference_does_not_choose_which_store_is_read(world: World, tmp_path: Path) -> None:
    ref = world.sign()
    away = tmp_path / "away"
    shutil.copytree(ref.evidence.removeprefix("file://"), away)
    for named in (f"file://{away}", f"{ref.evidence}/../../away", "s3://somebody/else"):
        with pytest.raises(UsageError) as refused:
            world.attest(replace(ref, evidence=named))
        assert refused.value.code in ("EVIDENCE_STORE_UNKNOWN", "USAGE")
    assert world.attest(replace(ref, evidence=f"file://{away}"), stores=[str(away)]) == "passed"


def test_store_that_cannot_be_read_is_no_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.errors import UnavailableError
    from sealflow.evidence.store import EvidenceStore

    ref = world.sign()

    def away(*_: object, **__: object) -> None:
        raise UnavailableError("away")

    monkeypatch.setattr(EvidenceStore, "collect", away)
    assert world.attest(ref) == "BACKEND_UNAVAILABLE"


def test_too_much_evidence_is_no_pass(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealflow.actions.attested.MAX_EVIDENCE", 100)
    assert world.attest(world.sign()) == "EVIDENCE_UNREADABLE"


def test_what_is_asked_of_consumers_is_not_asked_here(world: World) -> None:
    world.publish(loaders=["airflow:score/*"])
    assert world.attest(world.sign()) == "passed"


def test_rules_for_consumers_alone_still_ask_for_somebody_whom_the_policy_knows(world: World) -> None:
    world.publish(dag=["score"])
    assert world.attest(world.sign()) == "passed"
    world.write("other")
    assert world.attest(world.sign(key=world.stranger)) == "SIGNER_NOT_ALLOWED"


def test_encrypted_artifact_is_judged_without_a_key(tmp_path: Path) -> None:
    world = World(tmp_path, "file")
    team = tmp_path / "team.key"
    team.write_bytes(bytes(range(32)))
    target = f"file://{tmp_path}/models/sealed"
    with sealflow.run(world.surroundings()):
        ref = upload(world.place, target, recipients=[f"aes:{team}"])
    team.unlink()
    assert ref.encrypted
    assert world.attest(ref) == "passed"
    assert world.attest(ref, told=Told("airflow:train/fit/run-1")) == "PRODUCER_MISMATCH"
    with pytest.raises(VerificationError, match="ENCRYPTION_UNBOUND"):
        raise_of(world, replace(ref, digest=replace(ref.digest, hex="0" * 64)))
    (tmp_path / "models" / "sealed").write_bytes(b"clear")
    assert world.attest(ref) == "ARTIFACT_MISSING"


def raise_of(world: World, ref: ArtifactRef) -> None:
    with sealflow.run(world.surroundings()):
        place = managed(ref.uri)
        assert place is not None
        attest(place, ref, told=TOLD)
