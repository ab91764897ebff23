"""What a witnessed log held in time counts although its signer was revoked later, and nothing else does."""

from __future__ import annotations

import base64
import datetime
import json
import marshal
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

import sealflow
from sealflow import strictjson
from sealflow.actions.audit_prove import check_proof
from sealflow.actions.audit_time import ProvedTime, prove_time
from sealflow.actions.copy import promote_artifact
from sealflow.actions.download import download_artifact
from sealflow.actions.gathering import EvidenceReader
from sealflow.actions.opening import _pack, unpack
from sealflow.actions.upload import upload_artifact
from sealflow.audit import AuditEvent
from sealflow.audit.checkpoint import Checkpoint, parse_text, sign_checkpoint
from sealflow.audit.entry import Chain
from sealflow.audit.note import COSIGNATURE, Signature, VerifierKey, parse_note
from sealflow.audit.proof import Proof, parse_proof
from sealflow.cli.app import app
from sealflow.errors import EvidenceError, PolicyError, UsageError
from sealflow.evidence import EvidenceStore
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.own_provenance import Digests
from sealflow.evidence.provenance import make_provenance_statement
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.findings import Verdict
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import load_signer
from sealflow.policy.document import parse_policy
from sealflow.policy.identities import parse_identities
from sealflow.policy.requirement import Revocations, Revoked
from sealflow.storage import Storages
from sealflow.verification.authenticate import Authentic, authenticate
from tests.core.audit.logs import MadeLog
from tests.core.audit.test_witness import HonestWitness, serving
from tests.core.policy.deployment import FIT, Body, Deployment, at, code, policy, rule
from tests.pki import NOW
from tests.servers.timestamp_authority import TimestampAuthority

pytest_plugins = ["tests.core.policy.fixtures"]

HOUR = 3600
#: When the witnesses see the log, in hours from now, and since when the signer is revoked.
SEEN, SINCE = -2, -1


class Witness:
    """Cosigns whatever it is given, at any time: the tests say which witness is honest."""

    def __init__(self, name: str) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.key = VerifierKey(name, COSIGNATURE, self.private.public_key().public_bytes_raw())

    @property
    def hint(self) -> str:
        form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return "sha256:" + sha256_hex(self.private.public_key().public_bytes(*form))

    def line(self, text: bytes, hours: float) -> bytes:
        return self.line_at(text, int(NOW.timestamp() + hours * HOUR))

    def line_at(self, text: bytes, time: int) -> bytes:
        signed = self.private.sign(b"cosignature/v1\ntime %d\n%s" % (time, text))
        return Signature(self.key.name, self.key.id, time.to_bytes(8, "big") + signed).line().encode()


class World:
    """A deployment whose policy believes the witnesses of its audit log."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.path = deployment.model()
        self.log = MadeLog(deployment.folder)
        self.witnesses = [Witness("w.example/one"), Witness("w.example/two")]
        self.events: list[AuditEvent] = []
        self.govern()

    def record(self, event: AuditEvent) -> None:
        """Take the audit events of actions."""
        self.events.append(event)

    def believed(self, **changes: Any) -> Body:
        return {"log": str(self.log.key), "witnesses": [str(item.key) for item in self.witnesses], **changes}

    def govern(self, authorities: Body | None = None, **require: Any) -> None:
        self.deployment.publish(
            policy(
                [rule("models", f"{self.deployment.folder}/models/**", require=require)],
                self.deployment.identities("trainer"),
                timestamp_authorities={"audit-log": self.believed()} if authorities is None else authorities,
            )
        )

    def sign(self, path: Path | None = None, **options: Any) -> Digest:
        return self.deployment.sign(path or self.path, audit=self, **options).ref.digest

    def integrate(self) -> None:
        """Take what was recorded into the log."""
        chain = Chain()
        self.log.add([chain.add(event.to_json()).line for event in self.events])
        self.events.clear()

    def cosign(self, *hours: float) -> None:
        """Have the witnesses see the log, each so many hours from now."""
        assert self.log.checkpoint is not None
        note = self.log.checkpoint
        text = parse_note(note).text
        made = note + b"".join(each.line(text, hour) for each, hour in zip(self.witnesses, hours, strict=False))
        assert self.log.store.swap_checkpoint(self.log.checkpoint, made)
        self.log.checkpoint = made

    def prove(self, *stores: str, **options: Any) -> ProvedTime:
        with sealflow.run(sealflow.Surroundings(FIT, admin=self.deployment.channel())):
            return prove_time(stores or (self.store().uri,), self.log.store.uri, str(self.log.key), **options)

    def store(self, path: Path | None = None) -> EvidenceStore:
        return EvidenceStore(f"{path or self.path}.evidence", Storages())

    def proved(self) -> Digest:
        """Sign, and prove it."""
        digest = self.sign()
        self.integrate()
        self.cosign(SEEN, SEEN)
        assert self.prove().proved == 2
        return digest

    def revoke(self, hours: float = SINCE, **subject: str) -> None:
        key = f"sha256:{sha256_hex(self.deployment.key('trainer').public.read_bytes())}"
        entries = [{**({"key": key}), "since": at(hours=hours), "reason": "stolen"}]
        if subject:
            entries.append({**subject, "since": at(hours=hours), "reason": "stolen too"})
        self.deployment.revoke(entries)

    def verify(self, target: Any = None, **options: Any) -> Verdict:
        return self.deployment.verify(target or self.path, **options)

    def proofs(self, path: Path | None = None) -> list[Path]:
        return sorted(Path(f"{path or self.path}.evidence").rglob("*.tlog-proof"))

    def change(self, digest: Digest, edit: Callable[[Proof], Proof | bytes]) -> None:
        """Put another proof in the place of each, under its proper name."""
        for item in self.proofs():
            made = edit(parse_proof(item.read_bytes()))
            item.unlink()
            self.store().put_inclusion(digest, made if isinstance(made, bytes) else made.encode())


@pytest.fixture
def world(deployment: Deployment) -> World:
    return World(deployment)


def test_in_the_log_before(world: World) -> None:
    world.proved()
    assert len(world.proofs()) == 1  # one event made both
    world.revoke()
    verdict = world.verify()
    assert verdict.passed
    told = [item for item in verdict.findings if item.code == "SIGNED_BEFORE_REVOCATION"]
    assert {item.severity for item in told} == {"warning"}
    assert len(told) == 2
    assert all("audit-log" in item.message and "stolen" in item.found for item in told)


def test_anybody_can_check_the_proof(world: World) -> None:
    """It is what C2SP calls a tlog-proof."""
    world.proved()
    keys = [str(item.key) for item in world.witnesses]
    verdict, event = check_proof(str(world.proofs()[0]), str(world.log.key), witnesses=keys)
    assert verdict.passed
    names = {item.name for item in Path(f"{world.path}.evidence").rglob("*.json")}
    assert {f"sha256:{name[:-5].rpartition('-')[2]}" for name in names} == set(event["evidence"])  # type: ignore[call-overload]


# --- What proves nothing ---


def _note(text: bytes, world: World) -> bytes:
    return sign_checkpoint(parse_text(text), world.log.signer)


def _cosigned(world: World, proof: Proof, *lines: bytes) -> Proof:
    """The proof, with just these cosignatures."""
    note = _note(parse_note(proof.checkpoint).text, world)
    return Proof(proof.index, proof.hashes, note + b"".join(lines), proof.extra)


def _text(proof: Proof) -> bytes:
    return parse_note(proof.checkpoint).text


def _no_proof(world: World, _: Digest) -> None:
    for item in world.proofs():
        item.unlink()


def _by_the_log_alone(world: World, digest: Digest) -> None:
    """The key of the log signs whatever time it likes: as a checkpoint's line, and in the form of a cosignature."""
    key = VerifierKey(world.log.key.name, COSIGNATURE, world.log.key.raw)

    def edit(proof: Proof) -> Proof:
        time = int(NOW.timestamp() - 9 * HOUR)
        signed = world.log.signer.sign(b"cosignature/v1\ntime %d\n%s" % (time, _text(proof)))
        line = Signature(key.name, key.id, time.to_bytes(8, "big") + signed).line().encode()
        return _cosigned(world, proof, line)

    world.change(digest, edit)


def _back_dated_by_one(world: World, digest: Digest) -> None:
    """One of the two witnesses lies; the honest one saw it after."""
    one, two = world.witnesses
    world.change(digest, lambda proof: _cosigned(world, proof, one.line(_text(proof), -9), two.line(_text(proof), 0)))


def _time_rewritten(world: World, digest: Digest) -> None:
    """The hour in a cosignature of after is set to one of before."""
    one, two = world.witnesses

    def edit(proof: Proof) -> Proof:
        honest = [each.line(_text(proof), 0) for each in (one, two)]
        lines = []
        for line in honest:
            name, encoded = line.decode().removeprefix("— ").split(" ")
            data = base64.b64decode(encoded)
            early = int(NOW.timestamp() - 9 * HOUR).to_bytes(8, "big")
            lines.append(f"— {name} {base64.b64encode(data[:4] + early + data[12:]).decode()}\n".encode())
        return _cosigned(world, proof, *lines)

    world.change(digest, edit)


def _too_few(world: World, digest: Digest) -> None:
    world.change(digest, lambda proof: _cosigned(world, proof, world.witnesses[0].line(_text(proof), SEEN)))


def _one_twice(world: World, digest: Digest) -> None:
    one = world.witnesses[0]
    world.change(
        digest, lambda proof: _cosigned(world, proof, one.line(_text(proof), SEEN), one.line(_text(proof), SEEN - 1))
    )


def _strangers(world: World, digest: Digest) -> None:
    others = [Witness(item.key.name) for item in world.witnesses]
    world.change(digest, lambda proof: _cosigned(world, proof, *(each.line(_text(proof), SEEN) for each in others)))


def _no_time(world: World, digest: Digest) -> None:
    world.change(
        digest, lambda proof: _cosigned(world, proof, *(each.line_at(_text(proof), 0) for each in world.witnesses))
    )


def _the_largest_time(world: World, digest: Digest) -> None:
    most = 2**63 - 1
    world.change(
        digest, lambda proof: _cosigned(world, proof, *(each.line_at(_text(proof), most) for each in world.witnesses))
    )


def _seen_after(world: World, digest: Digest) -> None:
    world.change(
        digest, lambda proof: _cosigned(world, proof, *(each.line(_text(proof), 0) for each in world.witnesses))
    )


def _at_the_very_moment(world: World, digest: Digest) -> None:
    world.revoke(SEEN)


def _of_another_artifact(world: World, digest: Digest) -> None:
    """A sound proof, truly of this log and in time, that names other evidence."""
    other = world.deployment.model("models/other.bin", b"other weights")
    world.sign(other)
    world.integrate()
    world.cosign(SEEN, SEEN)
    world.prove(world.store(other).uri)
    (theirs,) = world.proofs(other)
    world.change(digest, lambda _: theirs.read_bytes())


def _entry_exchanged(world: World, digest: Digest) -> None:
    """An entry that names the right evidence, and is not the one that the proof leads from."""

    def edit(proof: Proof) -> Proof:
        event = AuditEvent("sign", "outcome", FIT, outcome="done", evidence=_evidence(world))
        return Proof(proof.index, proof.hashes, proof.checkpoint, Chain().add(event.to_json()).line)

    world.change(digest, edit)


def _evidence(world: World) -> tuple[str, ...]:
    names = [item.name for item in Path(f"{world.path}.evidence").rglob("*.json")]
    return tuple(f"sha256:{name[:-5].rpartition('-')[2]}" for name in names)


def _after_with_an_old_checkpoint(world: World, digest: Digest) -> None:
    """The thief's event is in the log, and he shows it under the checkpoint of before."""
    old = world.log.checkpoint
    assert old is not None
    _no_proof(world, digest)
    event = AuditEvent("sign", "outcome", FIT, outcome="done", evidence=_evidence(world))
    size = world.log.size
    world.record(event)
    world.integrate()
    world.cosign(0, 0)
    world.prove(witnesses=[str(item.key) for item in world.witnesses])
    world.change(digest, lambda proof: Proof(size, proof.hashes, old, proof.extra))


def _another_log(world: World, digest: Digest) -> None:
    """A log of the thief's own, under the same name, which the witnesses saw."""

    def edit(proof: Proof) -> Proof:
        forged = MadeLog(world.deployment.folder, str(world.deployment.folder / "forged"), key="thief")
        note = forged.add([proof.extra])
        text = parse_note(note).text
        return Proof(0, (), note + b"".join(each.line(text, SEEN) for each in world.witnesses), proof.extra)

    world.change(digest, edit)


def _another_origin(world: World, digest: Digest) -> None:
    """Another log of the same holder and key, by another name."""

    def edit(proof: Proof) -> Proof:
        forged = MadeLog(world.deployment.folder, str(world.deployment.folder / "second"), origin="log.example/second")
        note = forged.add([proof.extra])
        text = parse_note(note).text
        return Proof(0, (), note + b"".join(each.line(text, SEEN) for each in world.witnesses), proof.extra)

    world.change(digest, edit)


def _not_signed_by_the_log(world: World, digest: Digest) -> None:
    def edit(proof: Proof) -> Proof:
        text = _text(proof)
        lines = b"".join(each.line(text, SEEN) for each in world.witnesses)
        return Proof(proof.index, proof.hashes, text + b"\n" + lines, proof.extra)

    world.change(digest, edit)


def _root_exchanged(world: World, digest: Digest) -> None:
    """The witnesses' lines of a sound checkpoint under one of another root."""

    def edit(proof: Proof) -> Proof:
        known = parse_text(_text(proof))
        note = sign_checkpoint(Checkpoint(known.origin, known.size + 1, bytes(32)), world.log.signer)
        lines = [item.line().encode() for item in parse_note(proof.checkpoint).signatures[1:]]
        return Proof(proof.index, proof.hashes, note + b"".join(lines), proof.extra)

    world.change(digest, edit)


def _truncated(world: World, digest: Digest) -> None:
    world.change(digest, lambda proof: proof.encode()[:-40])


def _hashes_cut(world: World, digest: Digest) -> None:
    world.change(digest, lambda proof: Proof(proof.index, proof.hashes[:-1], proof.checkpoint, proof.extra))


def _without_the_entry(world: World, digest: Digest) -> None:
    world.change(digest, lambda proof: Proof(proof.index, proof.hashes, proof.checkpoint))


def _junk(world: World, digest: Digest) -> None:
    world.change(digest, lambda _: b"\xff not a proof")


def _bytes_not_as_named(world: World, digest: Digest) -> None:
    for item in world.proofs():
        item.rename(item.with_name(f"inclusion-{'0' * 64}.tlog-proof"))


def _too_large(world: World, digest: Digest) -> None:
    world.change(digest, lambda proof: proof.encode() + b"\n" * (256 << 10))


def _nobody_believed(world: World, _: Digest) -> None:
    world.govern({})


def _another_believed(world: World, _: Digest) -> None:
    world.govern({"audit-log": world.believed(witnesses=[str(Witness("w.example/one").key)])})


def _another_log_believed(world: World, _: Digest) -> None:
    other = MadeLog(world.deployment.folder, str(world.deployment.folder / "other"), key="other")
    world.govern({"audit-log": world.believed(log=str(other.key))})


def _a_witness_is_revoked(world: World, _: Digest) -> None:
    """From now on; no time helps one who writes times."""
    world.revoke(key=world.witnesses[1].hint)


def _the_logs_key_is_revoked(world: World, _: Digest) -> None:
    world.revoke(key=f"sha256:{world.log.signer.public_key.hint}")


ATTACKS: dict[str, Callable[[World, Digest], None]] = {
    "no-proof": _no_proof,
    "by-the-log-alone": _by_the_log_alone,
    "back-dated-by-one-of-two": _back_dated_by_one,
    "time-rewritten": _time_rewritten,
    "too-few": _too_few,
    "one-witness-twice": _one_twice,
    "strangers-of-the-same-names": _strangers,
    "no-time": _no_time,
    "the-largest-time": _the_largest_time,
    "seen-after": _seen_after,
    "seen-at-the-very-moment": _at_the_very_moment,
    "of-another-artifact": _of_another_artifact,
    "entry-exchanged": _entry_exchanged,
    "event-of-after-with-an-old-checkpoint": _after_with_an_old_checkpoint,
    "another-log": _another_log,
    "another-origin": _another_origin,
    "not-signed-by-the-log": _not_signed_by_the_log,
    "root-exchanged": _root_exchanged,
    "truncated": _truncated,
    "hashes-cut": _hashes_cut,
    "without-the-entry": _without_the_entry,
    "junk": _junk,
    "bytes-not-as-named": _bytes_not_as_named,
    "too-large": _too_large,
    "nobody-is-believed": _nobody_believed,
    "other-witnesses-are-believed": _another_believed,
    "another-log-is-believed": _another_log_believed,
    "a-witness-is-revoked": _a_witness_is_revoked,
    "the-logs-key-is-revoked": _the_logs_key_is_revoked,
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_thiefs_artifact(world: World, attack: Callable[[World, Digest], None]) -> None:
    digest = world.proved()
    world.revoke()
    assert world.verify().passed
    attack(world, digest)
    verdict = world.verify()
    # What cannot be read could have been the proof: then nobody can say, and nothing is passed.
    assert verdict.status == ("unverifiable" if attack is _too_large else "failed")
    assert attack is _too_large or code(verdict) == "KEY_REVOKED"


@pytest.mark.parametrize(("later", "passes"), [(0.0, False), (0.5, False), (1.0, True)])
def test_within_the_second(world: World, later: float, passes: bool) -> None:
    """Witnesses write whole seconds: what one saw at 12:00:00 may have come after half past that second."""
    world.proved()
    since = NOW.replace(microsecond=0) + datetime.timedelta(hours=SEEN, seconds=later)
    key = f"sha256:{sha256_hex(world.deployment.key('trainer').public.read_bytes())}"
    world.deployment.revoke([{"key": key, "since": f"{since.replace(tzinfo=None).isoformat()}Z", "reason": "stolen"}])
    assert world.verify().passed is passes


def test_an_unsigned_entry_proves_nothing(world: World) -> None:
    """Its place in the tree is right, and nobody signed it: the log's holder alone made it up."""
    digest = world.sign()
    world.events.clear()
    event = AuditEvent("sign", "outcome", FIT, outcome="done", evidence=_evidence(world))
    line = Chain().add(event.to_json()).line
    broken = line[:-88] + base64.b64encode(bytes(64))
    world.log.add([broken])
    world.cosign(SEEN, SEEN)
    assert world.log.checkpoint is not None
    assert world.prove().proved == 0
    world.store().put_inclusion(digest, Proof(0, (), world.log.checkpoint, broken).encode())
    world.revoke()
    assert code(world.verify()) == "KEY_REVOKED"


def test_back_dated_provenance_of_the_thief(world: World) -> None:
    """Times that a signer wrote never count: what he makes is in no log that was seen before."""
    digest = world.sign()
    world.integrate()
    world.cosign(0, 0)
    world.prove()
    key = load_signer(world.deployment.key("trainer").signer)
    long_ago = make_provenance_statement("m.bin", digest, FIT, now=NOW - datetime.timedelta(days=300))
    world.store().put(digest, "provenance", make_bundle(long_ago, key))
    world.revoke()
    assert code(world.verify()) == "KEY_REVOKED"


def test_a_sound_piece_takes_no_other_one_in(world: World) -> None:
    digest = world.proved()
    (provenance,) = world.path.with_name(f"{world.path.name}.evidence").rglob("provenance-*.json")
    provenance.unlink()
    key = load_signer(world.deployment.key("trainer").signer)
    other = make_provenance_statement("m.bin", digest, FIT, now=NOW)
    world.store().put(digest, "provenance", make_bundle(other, key))
    world.revoke()
    assert code(world.verify()) == "KEY_REVOKED"


def test_revoked_bytes_are_refused_whenever_they_were_signed(world: World) -> None:
    world.revoke(digest=str(world.proved()))
    assert code(world.verify()) == "ARTIFACT_REVOKED"


# --- Together with tokens, and quorums ---


@pytest.mark.parametrize(
    ("quorum", "hours", "passes"),
    [
        (1, (-9, 0), True),
        (2, (-9, 0), False),
        (2, (-9, -8), True),
        (1, (0, 0), False),
        (1, (-9,), True),
        (1, (), False),
    ],
)
def test_the_time_is_that_of_so_many(world: World, quorum: int, hours: tuple[float, ...], passes: bool) -> None:
    world.govern({"audit-log": world.believed(quorum=quorum)})
    world.sign()
    world.integrate()
    world.cosign(*hours)
    if len(hours) < quorum:
        with pytest.raises(EvidenceError) as caught:
            world.prove()
        assert caught.value.code == "LOG_UNWITNESSED"
    else:
        world.prove()
    world.revoke()
    assert world.verify().passed is passes


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with TimestampAuthority(tmp_path_factory.mktemp("authority")).serving() as made:
        yield made


@pytest.mark.parametrize(
    ("library", "logged", "since", "status"),
    [
        # In minutes from now; the token is of now.
        (True, -20, -10, "passed"),
        (False, -20, -10, "passed"),
        (True, 4, 2, "passed"),
        (False, 4, 2, "unverifiable"),
        (True, 4, -10, "failed"),
        (False, 1, 2, "passed"),
    ],
)
def test_the_earliest_counts(
    world: World, authority: Any, library: bool, logged: float, since: float, status: str, monkeypatch: Any
) -> None:
    world.govern({"company": {"roots": authority.roots, "url": authority.url}, "audit-log": world.believed()})
    digest = world.sign(timestamp=authority.url)
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    world.integrate()
    world.cosign(SEEN, SEEN)
    world.prove()
    time = int(now + 60 * logged)
    world.change(
        digest, lambda proof: _cosigned(world, proof, *(each.line_at(_text(proof), time) for each in world.witnesses))
    )
    world.revoke((now + 60 * since - NOW.timestamp()) / HOUR)
    if not library:
        monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    assert world.verify().status == status


def test_a_rule_can_ask_for_it(world: World) -> None:
    world.govern(evidence={"signature": {"timestamp": True}, "provenance": {"timestamp": True}})
    world.sign()
    assert code(world.verify()) == "TIMESTAMP_MISSING"
    world.integrate()
    world.cosign(SEEN, SEEN)
    world.prove()
    assert world.verify().passed
    _junk(world, world.store().digests(1)[0])
    assert code(world.verify()) == "TIMESTAMP_MISSING"


# --- Where proofs go ---


def test_a_copy_takes_its_proofs_along(world: World, tmp_path: Path) -> None:
    world.proved()
    world.revoke()
    admin = world.deployment.channel()
    ref = {"evidence_store": world.store().uri}
    with sealflow.run(sealflow.Surroundings(FIT, admin=admin)):
        other = world.deployment.folder / "models" / "copy.bin"
        download_artifact(str(world.path), str(other), **ref)
        third = world.deployment.folder / "models" / "promoted.bin"
        promote_artifact(str(world.path), str(third), signer=world.deployment.key("notary").signer, **ref)
    for path in (other, third):
        assert [item.name for item in world.proofs(path)] == [item.name for item in world.proofs()]
        assert world.verify(path, name="m.bin").passed


def test_an_encrypted_artifact(world: World, tmp_path: Path) -> None:
    """Its own signature lies inside; the log holds that as well."""
    key = tmp_path / "reader.key"
    key.write_bytes(os.urandom(32))
    recipients = [f"aes:{key}"]
    target = world.deployment.folder / "models" / "sealed.bin"
    with sealflow.run(sealflow.Surroundings(FIT)):
        made = upload_artifact(
            world.path,
            str(target),
            recipients=recipients,
            signer=world.deployment.key("trainer").signer,
            name="m.bin",
            audit=world,
        )
    world.integrate()
    world.cosign(SEEN, SEEN)
    store = f"{target}.evidence"
    assert world.prove(store).unlogged == ()
    world.revoke()
    verdict = world.verify(made.ref, recipients=recipients)
    assert verdict.passed
    told = [item.subject for item in verdict.findings if item.code == "SIGNED_BEFORE_REVOCATION"]
    assert len(told) == 3  # for its frames, for its provenance, for what is inside
    for item in world.proofs(target):
        item.unlink()
    assert code(world.verify(made.ref, recipients=recipients)) == "KEY_REVOKED"


def test_what_was_opened_ahead_carries_it_too(world: World) -> None:
    """In another process, which sends what it opened."""
    digest = world.proved()
    world.revoke()
    public = load_signer(world.deployment.key("trainer").signer).public_key
    found = EvidenceReader([world.store().uri], Storages(), beside=False)(digest, (), frozenset({"provenance"}))
    ahead = unpack(marshal.loads(marshal.dumps(_pack(found, lambda _: public))), Digests())
    ((item,), (opened,)) = ahead.evidence, ahead.opened
    assert opened is not None
    key = parse_identities([{"name": "trainer", "key": public.pem.decode()}])
    revoked = Revocations({public.hint: Revoked(NOW - datetime.timedelta(hours=1), "stolen")}, {}, {}, "")
    believed = [WitnessedLog("audit-log", str(world.log.key), tuple(str(each.key) for each in world.witnesses), 2)]
    given: Body = {"now": NOW, "revoked": revoked, "unavailable": {}, "opened": opened}
    assert isinstance(authenticate(item, key, authorities=believed, **given), Authentic)
    assert not isinstance(authenticate(replace(item, inclusions=()), key, authorities=believed, **given), Authentic)
    assert not isinstance(authenticate(item, key, **given), Authentic)


@pytest.mark.parametrize("proved_first", [True, False])
def test_a_proof_in_another_store_is_found(world: World, tmp_path: Path, proved_first: bool) -> None:
    """The same bundle lies in two stores, and its proof in one of them."""
    digest = world.proved()
    other = EvidenceStore(str(tmp_path / "other"), Storages())
    for item in world.store().collect(digest).objects:
        other.put(digest, item.kind or "", item.data)
    stores = [world.store().uri, other.uri] if proved_first else [other.uri, world.store().uri]
    found = EvidenceReader(stores, Storages(), beside=False)(digest, (), frozenset({"provenance", "signature"}))
    assert [len(item.inclusions) for item in found.evidence] == [1, 1]


# --- Proving ---


class TestProving:
    """What ``sealflow audit prove-time`` writes."""

    def test_once(self, world: World) -> None:
        world.proved()
        before = [item.read_bytes() for item in world.proofs()]
        world.deployment.model("models/second.bin", b"second")
        world.record(AuditEvent("verify", "intent", FIT))
        world.integrate()
        world.cosign(0, 0)
        again = world.prove()
        assert (again.proved, again.before, again.added, again.unlogged) == (0, 2, (), ())
        assert [item.read_bytes() for item in world.proofs()] == before

    def test_what_the_log_does_not_name_is_told(self, world: World) -> None:
        world.sign()
        world.events.clear()
        world.record(AuditEvent("verify", "intent", FIT))
        world.integrate()
        world.cosign(SEEN, SEEN)
        found = world.prove()
        assert (found.proved, len(found.unlogged)) == (0, 2)

    def test_nobody_believed(self, world: World) -> None:
        world.sign()
        world.integrate()
        world.cosign(SEEN, SEEN)
        world.govern({})
        with pytest.raises(UsageError, match="cosignatures"):
            world.prove()
        assert world.prove(witnesses=[str(world.witnesses[0].key)]).proved == 2

    def test_a_damaged_log_proves_nothing(self, world: World) -> None:
        world.sign()
        world.integrate()
        world.cosign(SEEN, SEEN)
        (bundle,) = world.log.path("tile/entries").rglob("*.p/*")
        data = bytearray(bundle.read_bytes())
        data[len(data) // 2] ^= 1
        bundle.chmod(0o600)
        bundle.write_bytes(bytes(data))
        with pytest.raises(EvidenceError) as caught:
            world.prove()
        assert caught.value.code in ("LOG_ALTERED", "LOG_TRUNCATED")
        assert world.proofs() == []


def run(*arguments: str) -> str:
    """Run a command in this process, and return what it prints."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.stdout


def test_the_whole_way_by_commands(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed, shipped, integrated, witnessed, proved, revoked: as how-to/trusted-time has it, with a real witness."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "SEALFLOW_EVIDENCE_STORE": str(tmp_path / "evidence"),
        "SEALFLOW_AUDIT_SPOOL": str(tmp_path / "spool"),
        "SEALFLOW_AUDIT_INBOX": f"sqlite:{tmp_path / 'inbox.db'}",
        "SEALFLOW_AUDIT_LOG": str(tmp_path / "log"),
    }.items():
        monkeypatch.setenv(name, value)
    run("audit", "inbox", "init")
    run("sign", str(world.path), "--signer", world.deployment.key("trainer").signer, "--json")
    run("audit", "ship")
    key = VerifierKey.of(world.log.signer, "log.example/whole")
    run("audit", "integrate", "--signer", world.log.signer.uri, "--origin", key.name)
    witness = HonestWitness([key])
    witness.time = int(NOW.timestamp()) - 2 * HOUR
    with serving(witness) as url:
        run("audit", "witness", f"{url}={witness.key}", "--key", str(key))
    given = ("audit", "prove-time", "--key", str(key), "--witness", str(witness.key))
    told = json.loads(run(*given, "--json"))
    assert (told["proved"], told["before"], told["unlogged"], len(told["added"])) == (2, 0, [], 1)
    assert "2 before" in run(*given)
    world.govern({"audit-log": {"log": str(key), "witnesses": [str(witness.key)]}})
    world.revoke()
    assert world.verify(evidence_store=str(tmp_path / "evidence")).passed
    world.revoke(-3)
    assert code(world.verify(evidence_store=str(tmp_path / "evidence"))) == "KEY_REVOKED"


# --- In the policy ---


def _changed(**changes: Any) -> Callable[[World], Body]:
    return lambda world: world.believed(**changes)


REFUSED: dict[str, Callable[[World], Body]] = {
    "no-witness": _changed(witnesses=[]),
    "witnesses-missing": lambda world: {"log": str(world.log.key)},
    "quorum-of-more": _changed(quorum=3),
    "quorum-of-none": _changed(quorum=0),
    "a-url": _changed(url="https://tsa.example.org/"),
    "roots-too": _changed(roots=["-----BEGIN CERTIFICATE-----"]),
    "no-key": _changed(log="log.example/audit"),
    "a-witness-as-log": lambda world: world.believed(log=str(world.witnesses[0].key)),
    "a-log-as-witness": lambda world: world.believed(witnesses=[str(world.log.key)]),
    "the-log-witnesses-itself": lambda world: world.believed(
        witnesses=[str(VerifierKey("w.example/self", COSIGNATURE, world.log.key.raw))]
    ),
    "one-key-by-two-names": lambda world: world.believed(
        witnesses=[
            str(VerifierKey(name, COSIGNATURE, world.witnesses[0].key.raw)) for name in ("w.example/a", "w.example/b")
        ]
    ),
    "two-keys-of-one-name": lambda world: world.believed(witnesses=[str(Witness("w.example/a").key) for _ in range(2)]),
    "too-many": lambda world: world.believed(witnesses=[str(Witness(f"w.example/{n}").key) for n in range(17)]),
    "only-witnesses": lambda world: {"witnesses": [str(world.witnesses[0].key)]},
}


@pytest.mark.parametrize("made", REFUSED.values(), ids=REFUSED.keys())
def test_a_log_is_read_strictly(world: World, made: Callable[[World], Body]) -> None:
    body = dict(world.deployment.body)
    body["timestamp_authorities"] = {"audit-log": made(world)}
    with pytest.raises(PolicyError):
        parse_policy(strictjson.dumps(body))
    body["timestamp_authorities"] = {"audit-log": world.believed()}
    assert parse_policy(strictjson.dumps(body)).timestamp_authorities["audit-log"].log == str(world.log.key)


def test_a_log_stamps_nobody(world: World) -> None:
    """It cannot be asked for a token."""
    with (
        sealflow.run(sealflow.Surroundings(FIT, admin=world.deployment.channel())),
        pytest.raises(UsageError, match="audit-log"),
    ):
        sealflow.sign(world.path, signer=world.deployment.key("trainer").signer, timestamp="audit-log")
