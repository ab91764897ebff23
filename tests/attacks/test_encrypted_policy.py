"""What a policy says of recipients, signers and keys, on artifacts that were really uploaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.download import download_artifact
from sealflow.actions.upload import Uploaded, upload_artifact
from sealflow.encryption import parse_header
from sealflow.errors import PolicyError, VerificationError
from sealflow.findings import Verdict
from sealflow.hashing import sha256_hex
from tests.attacks.encrypted_world import FILES
from tests.core.encryption.messages import RSA_PEM, RSA_PUBLIC_PEM
from tests.core.policy.deployment import FIT, SCORE, Body, Deployment, at, code, codes, policy, rule
from tests.core.transfer.world import read_tree, write_tree
from tests.pki import public_pem

pytest_plugins = ["tests.core.policy.fixtures"]

PEM = RSA_PUBLIC_PEM.decode()


class Place:
    """An admin's deployment with an artifact to upload, the recovery key and those of a team and of mallory."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.folder = deployment.folder
        self.source = write_tree(self.folder / "source" / "model", FILES)
        self.object = self.folder / "models" / "m.sealed"
        for name, data in {"recovery.pem": RSA_PEM, "recovery.pub": RSA_PUBLIC_PEM, "team.key": b"t" * 32}.items():
            (self.folder / name).write_bytes(data)
        (self.folder / "mallory.key").write_bytes(b"m" * 32)
        self.recovery = f"rsa:{self.folder / 'recovery.pem'}"
        self.public = f"rsa:{self.folder / 'recovery.pub'}"
        self.team = f"aes:{self.folder / 'team.key'}?name=team"
        self.mallory = f"aes:{self.folder / 'mallory.key'}?name=mallory"

    def publish(self, demand: Body | None, *signers: str, **more: Any) -> None:
        require = {"recipients": demand} if demand is not None else {}
        level = {"level": more.pop("level")} if "level" in more else {}
        rules = [rule("models", f"{self.folder}/models/**", signers or ("trainer",), require=require, **level)]
        identities = self.deployment.identities(*(signers or ("trainer",)))
        table = {"recovery": {"rsa": PEM}}
        self.deployment.publish(policy(rules, identities, recipients=table, **more))

    def upload(
        self, recipients: Sequence[str], key: str = "trainer", *, admin: bool = False, **options: Any
    ) -> Uploaded:
        surroundings = sealflow.Surroundings(FIT, admin=self.deployment.channel() if admin else None)
        with sealflow.run(surroundings):
            return upload_artifact(
                self.source, str(self.object), recipients=recipients, signer=self.deployment.key(key).signer, **options
            )

    def verify(self, target: Any = None, recipients: Sequence[str] = (), **options: Any) -> Verdict:
        return self.deployment.verify(target or self.object, recipients=recipients or [self.team], **options)

    def download(self, recipients: Sequence[str] = ()) -> Path:
        target = self.folder / "got"
        with sealflow.run(sealflow.Surroundings(SCORE, admin=self.deployment.channel())):
            download_artifact(str(self.object), target, recipients=recipients or [self.team])
        return target


@pytest.fixture
def place(deployment: Deployment) -> Place:
    return Place(deployment)


def holders(place: Place) -> list[str]:
    return [key.name for key in parse_header(place.object.read_bytes()).data_keys]


def test_required_recipient_is_added_by_the_upload(place: Place) -> None:
    place.publish({"required": ["recovery"]})
    uploaded = place.upload([place.team], admin=True)
    assert holders(place) == ["team", sha256_hex(RSA_PUBLIC_PEM)]
    for key in (place.team, place.recovery):
        assert place.verify(uploaded.ref, [key]).passed
    assert read_tree(place.download([place.recovery])) == dict(FILES)


def test_required_recipient_that_is_missing(place: Place) -> None:
    """Uploaded where no policy was, by somebody whom the rule accepts otherwise."""
    uploaded = place.upload([place.team])
    place.publish({"required": ["recovery"]})
    for target in (None, uploaded.ref):
        assert code(place.verify(target)) == "RECIPIENT_REQUIRED"
    with pytest.raises(VerificationError):
        place.download()
    assert not (place.folder / "got").exists()


def test_recipient_who_may_not_be_one(place: Place) -> None:
    uploaded = place.upload([place.public, place.mallory])
    place.publish({"only": ["recovery"]})
    for target in (None, uploaded.ref):
        assert code(place.verify(target, [place.recovery])) == "RECIPIENT_NOT_ALLOWED"
        # Nor does it help that the reader is the one who may not.
        assert code(place.verify(target, [place.mallory])) == "RECIPIENT_NOT_ALLOWED"


def test_upload_to_a_recipient_who_may_not_be_one(place: Place) -> None:
    place.publish({"only": ["recovery"]})
    with pytest.raises(PolicyError) as caught:
        place.upload([place.public, place.mallory], admin=True)
    assert caught.value.code == "RECIPIENT_NOT_ALLOWED"
    assert not place.object.exists()


@pytest.mark.parametrize("demand", [{"encrypted": True}, {"required": ["recovery"]}, {"only": ["recovery"]}], ids=str)
def test_clear_copy_in_the_place_of_an_encrypted_artifact(place: Place, demand: Body) -> None:
    place.publish({"encrypted": True, **demand})
    place.object.parent.mkdir(parents=True)
    write_tree(place.object, FILES)
    place.deployment.sign(place.object)
    assert code(place.verify()) == "ENCRYPTION_REQUIRED"


def test_all_that_is_demanded(place: Place) -> None:
    place.publish({"required": ["recovery"], "only": ["recovery"], "encrypted": True})
    uploaded = place.upload([place.public], admin=True)
    assert place.verify(uploaded.ref, [place.recovery]).passed
    assert read_tree(place.download([place.recovery])) == dict(FILES)


def test_header_that_claims_the_recovery_key(place: Place) -> None:
    """Another key under its name: the claim is taken for one, and who signed for it is known."""
    (place.folder / "fake.pub").write_bytes(public_pem_of_another())
    fake = f"rsa:{place.folder / 'fake.pub'}?name={sha256_hex(RSA_PUBLIC_PEM)}"
    uploaded = place.upload([place.team, fake])
    place.publish({"required": ["recovery"]})
    verdict = place.verify(uploaded.ref)
    assert verdict.passed
    assert code(place.verify(uploaded.ref, [place.recovery])) == "RECIPIENT_KEY_WRONG"


def public_pem_of_another() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return public_pem(rsa.generate_private_key(65537, 2048))


def test_signer_whom_no_rule_accepts(place: Place) -> None:
    uploaded = place.upload([place.team], "mallory")
    place.publish(None)
    verdict = place.verify(uploaded.ref)
    assert verdict.status == "failed"
    assert "ENCRYPTION_UNBOUND" in codes(verdict)


@pytest.mark.parametrize("level", ["enforce", "audit", "off"])
@pytest.mark.parametrize("since", [at(days=-3), at(days=3)], ids=["three-days-ago", "in-three-days"])
def test_revoked_key(place: Place, level: str, since: str) -> None:
    """Of a key that was stolen no statement counts, whatever time it claims; nothing is decrypted."""
    uploaded = place.upload([place.team])
    place.publish(None, level=level, revocations=[{"key": uploaded.key, "since": since, "reason": "stolen"}])
    for target in (None, uploaded.ref):
        verdict = place.verify(target, identities=str(place.deployment.key("trainer").public))
        assert code(verdict) == "KEY_REVOKED"
        assert "ENCRYPTION_UNBOUND" in codes(verdict)
        assert not place.verify(target).passed
    with pytest.raises(VerificationError):
        place.download()
    assert not (place.folder / "got").exists()


@pytest.mark.parametrize("level", ["enforce", "audit", "off"])
def test_revoked_artifact(place: Place, level: str) -> None:
    """By what it is: its bytes are encrypted, its digest is signed."""
    uploaded = place.upload([place.team])
    key = str(place.deployment.key("trainer").public)
    place.publish(None, level=level)
    assert place.verify(uploaded.ref, identities=key).passed
    revoked = [{"digest": str(uploaded.ref.digest), "since": at(days=-3), "reason": "poisoned"}]
    place.publish(None, level=level, revocations=revoked, version=2)
    for target in (None, uploaded.ref):
        assert code(place.verify(target, identities=key)) == "ARTIFACT_REVOKED"


@pytest.mark.parametrize("level", ["audit", "off"])
@pytest.mark.parametrize("how", ["stranger", "no-evidence", "altered"])
def test_no_level_opens_what_nobody_stands_for(place: Place, level: str, how: str) -> None:
    """A level that lets unsigned artifacts pass has no say on what is decrypted."""
    place.upload([place.team], "mallory" if how == "stranger" else "trainer")
    place.publish(None, level=level)
    if how == "no-evidence":
        shutil.rmtree(f"{place.object}.evidence")
    if how == "altered":
        data = bytearray(place.object.read_bytes())
        data[-600] ^= 1
        place.object.write_bytes(data)
    assert not place.verify().passed
    with pytest.raises(VerificationError):
        place.download()
    assert not (place.folder / "got").exists()


def test_two_signers(place: Place) -> None:
    """All of two are demanded over the content; one of them, who encrypted, speaks for the frames."""
    uploaded = place.upload([place.team])
    demand = {"identities": {"all_of": ["trainer", "reviewer"]}}
    rules = [{"name": "models", "scope": {"artifact": [f"{place.folder}/models/**"]}, "require": demand}]
    place.deployment.publish(policy(rules, place.deployment.identities("trainer", "reviewer")))
    assert place.verify(uploaded.ref).status == "failed"
    place.deployment.sign(place.source, "reviewer", evidence_store=f"{place.object}.evidence", name="m.sealed")
    verdict = place.verify(uploaded.ref)
    assert verdict.passed, verdict.summary()
