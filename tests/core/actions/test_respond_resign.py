"""Signing again: only what verifies, over the old payloads, with a word about the act, and once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.respond_resign import ReSigned, re_sign
from sealflow.actions.respond_revoke import revoke
from sealflow.actions.verify import verify
from sealflow.errors import SealflowError, UsageError, VerificationError
from sealflow.evidence import EvidenceStore
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages
from tests.audit_events import read_events
from tests.core.conftest import Cli, body
from tests.core.policy.deployment import Deployment, policy, rule
from tests.lineages import payload

FIT = RunIdentity("airflow", "train", "fit", "run-1", None, 1)


@pytest.fixture(autouse=True)
def _spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


class Plant(Deployment):
    """A model, signed with the old key; a policy that takes both; a list of revocations."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "model.bin"
        self.path.write_bytes(b"weights")
        self.list = folder / "admin" / "list.json"
        with sealflow.run(sealflow.Surroundings(FIT)):
            self.ref = sealflow.sign(self.path, signer=self.key("old").signer)
        producers = {"producers": ["airflow:train/*"]}
        known = {name: self.identity(name, **producers) for name in ("old", "new")}
        self.publish(policy([rule("models", "**", ["old", "new"])], known))

    def under(self) -> Any:
        more = {"revocations": str(self.list)} if self.list.exists() else {}
        return sealflow.run(sealflow.Surroundings(admin=self.channel(**more)))

    def re_sign(self, **options: Any) -> ReSigned:
        given = {"signer": self.key("new").signer, "reason": "the old key retires", **options}
        with self.under():
            return re_sign(given.pop("artifact", self.ref), **given)

    def revoke_old(self) -> None:
        revoke(
            str(self.key("old").public),
            since="2026-01-01",
            reason="stolen",
            list_place=str(self.list),
            new_list=True,
            signer=self.key("admin").signer,
        )

    def objects(self) -> dict[str, bytes]:
        store = EvidenceStore(self.ref.evidence, Storages())
        return {item.name: item.data for item in store.collect(self.ref.digest).objects}

    def status(self) -> str:
        with self.under():
            return verify(self.ref).status


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path / "plant")


def test_it_outlives_the_old_key(plant: Plant) -> None:
    before = plant.objects()
    done = plant.re_sign()
    assert len(done.added) == 3
    assert plant.objects().items() >= before.items()
    plant.revoke_old()
    assert plant.status() == "passed"
    with plant.under():
        verdict = verify(plant.ref)
    assert {item.key for item in verdict.signers} == {done.key}
    # Who made it stays who made it.
    assert (verdict.producer, verdict.run) == (FIT.producer, FIT.invocation)


def test_without_it_the_revocation_is_the_end(plant: Plant) -> None:
    plant.revoke_old()
    assert plant.status() == "failed"
    before = plant.objects()
    with pytest.raises(VerificationError) as caught:
        plant.re_sign()
    assert caught.value.code == "KEY_REVOKED"
    assert plant.objects() == before


def test_two_bundles_over_one_payload_and_a_word_about_it(plant: Plant) -> None:
    before = plant.objects()
    done = plant.re_sign()
    after = plant.objects()
    for kind in ("signature", "provenance"):
        of_kind = [payload(data) for name, data in after.items() if name.startswith(kind)]
        assert len(of_kind) == 2
        assert of_kind[0] == of_kind[1]
    (name,) = [item for item in done.added if item.startswith("re-sign")]
    said = payload(after[name])
    assert said["subject"][0]["digest"] == plant.ref.digest.as_digest_set()
    predicate = said["predicate"]
    assert predicate["reason"] == "the old key retires"
    assert {item["digest"]["sha256"] for item in predicate["evidence"]} == {
        item.rpartition("-")[2].removesuffix(".json") for item in before
    }
    assert predicate["verdict"]["status"] == "passed"
    assert set(done.earlier) == set(before)


def test_again_adds_nothing(plant: Plant) -> None:
    plant.re_sign()
    before = plant.objects()
    assert plant.re_sign().added == ()
    assert plant.objects() == before
    # Nor does the old signer over his own.
    assert plant.re_sign(signer=plant.key("old").signer).added == ()
    plant.revoke_old()
    assert plant.re_sign().added == ()


@pytest.mark.parametrize("stored", range(3))
def test_broken_off_in_between(plant: Plant, monkeypatch: pytest.MonkeyPatch, stored: int) -> None:
    put = EvidenceStore.put
    count = 0

    def breaking(self: EvidenceStore, *arguments: Any) -> str:
        nonlocal count
        if count == stored:
            raise KeyboardInterrupt
        count += 1
        return put(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EvidenceStore, "put", breaking)
        with pytest.raises(KeyboardInterrupt):
            plant.re_sign()
    assert plant.status() == "passed"
    plant.re_sign()
    assert len(plant.objects()) == 5
    plant.revoke_old()
    assert plant.status() == "passed"


def test_changed_bytes_are_not_signed(plant: Plant) -> None:
    plant.path.write_bytes(b"evil")
    before = plant.objects()
    with pytest.raises(VerificationError):
        plant.re_sign()
    with pytest.raises(VerificationError):
        plant.re_sign(artifact=str(plant.path))
    assert plant.objects() == before


def test_only_what_was_accepted_is_signed_again(plant: Plant) -> None:
    """A stranger's provenance lies beside it: to sign that would give it the new key's word."""
    store = EvidenceStore(plant.ref.evidence, Storages())
    with sealflow.run(sealflow.Surroundings(RunIdentity("airflow", "evil", "x", "run-2", None, 1))):
        sealflow.sign(plant.path, signer=plant.key("stranger").signer, evidence_store=store.uri)
    done = plant.re_sign()
    new = [payload(plant.objects()[name]) for name in done.added if name.startswith("provenance")]
    assert [item["predicate"]["buildDefinition"]["externalParameters"]["producer"] for item in new] == [FIT.producer]


def test_what_nobody_signed_is_not_signed_again(plant: Plant) -> None:
    """A rule that is only audited lets it pass; that is nobody's signature."""
    known = {name: plant.identity(name) for name in ("old", "new")}
    plant.publish(policy([rule("models", "**", ["old", "new"], level="audit")], known, version=2))
    bare = plant.folder / "bare.bin"
    bare.write_bytes(b"bare")
    with plant.under():
        assert verify(str(bare)).passed
    with pytest.raises(VerificationError) as caught:
        plant.re_sign(artifact=str(bare))
    assert caught.value.code == "EVIDENCE_MISSING"
    assert caught.value.exit_status == 3
    assert not Path(f"{bare}.evidence").exists()


def test_two_signers_both_sign(plant: Plant) -> None:
    both = f"{plant.key('new').signer}?also={plant.key('second').signer}"
    assert len(plant.re_sign(signer=both).added) == 6
    assert plant.re_sign(signer=both).added == ()
    made = [name for name in plant.objects() if name.startswith("signature")]
    assert len(made) == 3


@pytest.mark.parametrize("how", ["swapped", "removed"])
def test_evidence_swapped_after_it_was_verified(plant: Plant, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The new key must sign what was verified, and not what lies under its name a moment later."""
    from sealflow.actions import respond_resign
    from sealflow.evidence.bundle import make_bundle
    from sealflow.keys import load_signer

    folder = Path(plant.ref.evidence.removeprefix("file://")) / plant.ref.digest.path_segment
    evil = make_bundle(b'{"evil":1}', load_signer(plant.key("thief").signer))
    verify_artifact = respond_resign.verify_artifact

    def then_swapped(*arguments: Any, **more: Any) -> Any:
        found = verify_artifact(*arguments, **more)
        for path in folder.glob("provenance-*"):
            path.unlink()
            if how == "swapped":
                path.write_bytes(evil)
        return found

    monkeypatch.setattr(respond_resign, "verify_artifact", then_swapped)
    with pytest.raises(SealflowError) as caught:
        plant.re_sign()
    assert caught.value.code == "EVIDENCE_ALTERED"
    assert len(list(folder.iterdir())) == (2 if how == "swapped" else 1)


@pytest.mark.parametrize(
    "options", [{"reason": ""}, {"reason": "a\nb"}, {"signer": ""}, {"signer": "file:/nowhere.pem"}], ids=repr
)
def test_what_cannot_work(plant: Plant, options: dict[str, Any]) -> None:
    before = plant.objects()
    with pytest.raises(UsageError):
        plant.re_sign(**options)
    assert plant.objects() == before


def test_the_key_is_used_after_the_intent(plant: Plant, tmp_path: Path) -> None:
    done = plant.re_sign()
    events = [item for item in read_events(tmp_path / "spool") if item["action"] == "re-sign"]
    assert [item["phase"] for item in events] == ["intent", "outcome"]
    assert {item["key"] for item in events} == {done.key}
    assert events[1]["digest"] == str(plant.ref.digest)


def test_the_command(cli: Cli, plant: Plant) -> None:
    common = ["--signer", plant.key("new").signer, "--reason", "rotation"]
    other = plant.folder / "unsigned.bin"
    other.write_bytes(b"x")
    with plant.under():
        done = cli("respond", "re-sign", plant.ref.to_json(), str(other), *common, "--json", channel=plant.channel())
    assert done.returncode == 3
    found = body(done)
    assert [item.get("status") for item in found] == ["passed", "failed"]
    assert cli("respond", "re-sign", plant.ref.to_json(), *common, channel=plant.channel()).returncode == 0
