"""Proving time by keys that are revoked proves nothing, and is not done as if it did."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import sealflow
from sealflow.actions.audit_time import ProvedTime, prove_time
from sealflow.audit.note import VerifierKey
from sealflow.cli.app import app
from sealflow.errors import EXIT_REFUSED_EVIDENCE, EvidenceError, SealflowError, UnavailableError
from tests.attacks.test_witnessed_time import SEEN, Witness, World
from tests.core.policy.deployment import FIT, Deployment, at

pytest_plugins = ["tests.core.policy.fixtures"]


class Three(World):
    """Three witnesses, any two of whom count."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        self.witnesses.append(Witness("w.example/three"))
        self.govern({"audit-log": self.believed(quorum=2)})

    def logged(self) -> None:
        """Sign, and have all witnesses see it."""
        self.sign()
        self.integrate()
        self.cosign(SEEN, SEEN, SEEN)

    def list(self, *hints: str, hours: float = 0) -> None:
        """Revoke just these keys."""
        self.deployment.revoke([{"key": hint, "since": at(hours=hours), "reason": "stolen"} for hint in hints])

    @property
    def named(self) -> dict[str, object]:
        """The same witnesses, as a caller names them."""
        return {"witnesses": [str(each.key) for each in self.witnesses], "quorum": 2}


@pytest.fixture
def world(deployment: Deployment) -> Three:
    return Three(deployment)


def log_hint(world: World) -> str:
    return f"sha256:{world.log.signer.public_key.hint}"


@pytest.mark.parametrize("by", ["the-policy", "the-call"])
class TestWhoeverNamesTheWitnesses:
    """By the policy, or by the call, which knows nothing of revocations."""

    def prove(self, world: Three, by: str) -> ProvedTime:
        return world.prove(**(world.named if by == "the-call" else {}))

    @pytest.mark.parametrize("hours", [-300, 0, 300])
    def test_the_logs_key_is_revoked(self, world: Three, by: str, hours: float) -> None:
        """No time helps: whoever has it signs any history."""
        world.logged()
        world.list(log_hint(world), hours=hours)
        with pytest.raises(EvidenceError, match="The log's key is revoked") as caught:
            self.prove(world, by)
        assert caught.value.code == "LOG_CHECKPOINT"
        assert caught.value.next_step
        assert world.proofs() == []

    def test_too_many_witnesses_are_revoked(self, world: Three, by: str) -> None:
        world.logged()
        world.list(world.witnesses[0].hint, world.witnesses[1].hint)
        with pytest.raises(EvidenceError, match=r"w\.example/one, w\.example/two are revoked") as caught:
            self.prove(world, by)
        assert caught.value.code == "LOG_UNWITNESSED"
        assert world.proofs() == []

    def test_a_witness_is_revoked_and_enough_are_left(self, world: Three, by: str) -> None:
        world.logged()
        world.list(world.witnesses[0].hint)
        found = self.prove(world, by)
        assert (found.proved, found.revoked) == (2, ("w.example/one",))
        world.revoke(key=world.witnesses[0].hint)
        assert world.verify().passed

    def test_a_proof_that_leans_on_one_is_none(self, world: Three, by: str) -> None:
        world.sign()
        world.integrate()
        world.cosign(SEEN, SEEN)
        assert self.prove(world, by).proved == 2
        assert self.prove(world, by).before == 2
        world.list(world.witnesses[1].hint)
        with pytest.raises(EvidenceError):
            self.prove(world, by)
        first, _, third = world.witnesses
        note = world.log.checkpoint
        assert note is not None
        text = note[: note.index(b"\n\n") + 1]
        world.log.store.swap_checkpoint(note, note + third.line(text, SEEN))
        again = self.prove(world, by)
        assert (again.proved, again.before) == (2, 0)
        world.revoke(key=world.witnesses[1].hint)
        assert world.verify().passed
        assert first.key.name not in again.revoked

    def test_the_list_cannot_be_had(self, world: Three, by: str) -> None:
        """Nobody knows then whose word counts."""
        world.logged()
        world.list()
        world.deployment.revocations.write_bytes(b"{}")
        with pytest.raises(UnavailableError) as caught:
            self.prove(world, by)
        assert caught.value.code == "POLICY_UNAVAILABLE"
        assert world.proofs() == []

    def test_others_make_no_difference(self, world: Three, by: str) -> None:
        world.logged()
        world.list("sha256:" + "0" * 64)
        found = self.prove(world, by)
        assert (found.proved, found.revoked) == (2, ())


def test_without_a_policy_there_is_no_list(world: Three) -> None:
    world.logged()
    world.list(log_hint(world))
    with sealflow.run(sealflow.Surroundings(FIT)):
        found = prove_time([world.store().uri], world.log.store.uri, str(world.log.key), **world.named)  # type: ignore[arg-type]
    assert (found.proved, found.revoked) == (2, ())


def test_one_key_by_another_name_is_revoked_as_well(world: Three) -> None:
    """The list names keys, not names."""
    world.logged()
    world.list(world.witnesses[0].hint, world.witnesses[1].hint)
    other = VerifierKey("w.example/other", world.witnesses[0].key.kind, world.witnesses[0].key.raw)
    with pytest.raises(SealflowError):
        world.prove(witnesses=[str(other), str(world.witnesses[2].key)], quorum=2)


def test_the_command_says_so(world: Three) -> None:
    world.logged()
    world.list(world.witnesses[0].hint)
    arguments = ["audit", "prove-time", world.store().uri, "--log", world.log.store.uri, "--key", str(world.log.key)]
    with sealflow.run(sealflow.Surroundings(FIT, admin=world.deployment.channel())):
        told = CliRunner().invoke(app, arguments)
        assert told.exit_code == 0, told.output
        assert "w.example/one" in told.stdout
        assert "revoked" in told.stdout
        again = CliRunner().invoke(app, [*arguments, "--json"])
        assert json.loads(again.stdout)["revoked"] == ["w.example/one"]
        world.list(log_hint(world))
        refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, EvidenceError)
    assert refused.exception.exit_status == EXIT_REFUSED_EVIDENCE
    assert "revoked" in refused.exception.message
