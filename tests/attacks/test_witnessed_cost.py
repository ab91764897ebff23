"""Who may write into a store or a log holds nobody up: neither a check of trusted time, nor that it is proved."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from sealflow.audit import AuditEvent, proof
from sealflow.audit.entry import Chain
from sealflow.audit.note import Signature, VerifierKey, parse_note
from sealflow.audit.proof import Proof
from sealflow.audit.tiles import Tree
from sealflow.evidence import EvidenceStore
from sealflow.evidence.store import MAX_INCLUSION, MAX_INCLUSIONS, EvidenceId
from sealflow.evidence.timestamp import Stamp
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.policy.requirement import NOTHING_REVOKED, Revocations, Revoked
from sealflow.run_identity import RunIdentity
from sealflow.verification.inclusion import earliest_inclusion
from tests.attacks.test_witnessed_time import SEEN, Witness, World
from tests.core.audit.logs import MadeLog, chain_lines
from tests.core.policy.deployment import Deployment
from tests.pki import NOW

pytest_plugins = ["tests.core.policy.fixtures"]

PIECES = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(40)]


class Planted:
    """A log that the policy believes, and what a thief makes of its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.log = MadeLog(folder)
        self.witnesses = [Witness("w.example/one"), Witness("w.example/two")]
        self.log.add([*chain_lines(1), self.line()])
        assert self.log.checkpoint is not None
        text = parse_note(self.log.checkpoint).text
        lines = b"".join(each.line(text, -2) for each in self.witnesses)
        self.note = self.log.checkpoint + lines
        #: The same signatures, as often as a note may hold them.
        signature = self.log.checkpoint[len(text) + 1 :]
        self.repeated = self.log.checkpoint + 47 * signature + 25 * lines
        keys = tuple(str(each.key) for each in self.witnesses)
        self.believed = [WitnessedLog("audit-log", str(self.log.key), keys, 2)]

    def line(self) -> bytes:
        named = tuple(f"sha256:{piece}" for piece in PIECES)
        return Chain().add(AuditEvent("sign", "outcome", RunIdentity(), outcome="done", evidence=named).to_json()).line

    def sound(self) -> bytes:
        """The proof that proves it."""
        tree = Tree(self.log.store.get, self.log.size)
        return Proof(1, tuple(tree.inclusion_proof(1)), self.note, tree.entry(1)).encode()

    def junk(self, count: int) -> list[bytes]:
        """Proofs by entries that are not in the log, each of which names all the evidence."""
        return [Proof(0, (bytes(32),), self.repeated, self.line()).encode() for _ in range(count)]


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


def test_each_proof_is_opened_once(planted: Planted, verified: list[str]) -> None:
    """Not once for each piece of evidence that it names: 512 pieces and 16 proofs took a minute."""
    junk = planted.junk(5)
    told = {earliest_inclusion(junk, piece, planted.believed, NOW, NOTHING_REVOKED) for piece in PIECES}
    assert len(told) == 1
    assert "does not lead from the entry" in str(told)
    assert not verified
    # Those that do lead from it have three signatures to check, each of them once.
    sound = planted.sound()
    proofs = [*junk, *(sound + Signature(f"x.example/{n}", bytes(4), bytes(64)).line().encode() for n in range(5))]
    verified.clear()
    for piece in PIECES:
        assert isinstance(earliest_inclusion(proofs, piece, planted.believed, NOW, NOTHING_REVOKED), Stamp)
    assert len(verified) == 3 * 5


@pytest.mark.parametrize(
    "junk", [b"A" * (MAX_INCLUSION // 2), b'"sha256:' * 20_000, b"{}"], ids=["no-base64", "digests-begun", "short"]
)
def test_each_proof_is_read_once(planted: Planted, junk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are none, too."""
    read: list[int] = []
    parse = proof.parse_proof

    def counting(data: bytes) -> Proof:
        read.append(len(data))
        return parse(data)

    monkeypatch.setattr(proof, "parse_proof", counting)
    proofs = [b"c2sp.org/tlog-proof@v1\nextra *%s\nindex %d\n\n" % (junk, number) for number in range(5)]
    proofs += [Proof(number, (), planted.note, junk).encode() for number in range(5)]
    for piece in PIECES:
        assert isinstance(earliest_inclusion(proofs, piece, planted.believed, NOW, NOTHING_REVOKED), str)
    assert len(read) == len(proofs)


def test_what_is_remembered_is_of_just_this(planted: Planted) -> None:
    """The same proof once more: for other evidence, a larger quorum, another log, a revoked witness, another time."""
    sound = planted.sound()
    (log,) = planted.believed
    revoked = Revocations({planted.witnesses[0].key.fingerprint: Revoked(NOW, "stolen")}, {}, {}, "")

    def told(
        piece: str = PIECES[0], log: WitnessedLog = log, revoked: Revocations = NOTHING_REVOKED, at: Any = NOW
    ) -> bool:
        return isinstance(earliest_inclusion([sound], piece, [log], at, revoked), Stamp)

    stranger = str(Witness("w.example/two").key)
    for _ in range(2):
        assert told()
        assert told(PIECES[-1])
        assert not told("5e" * 32)
        assert not told(revoked=revoked)
        assert not told(log=log._replace(quorum=3))
        assert told(log=log._replace(quorum=1), revoked=revoked)
        assert not told(log=log._replace(witnesses=(log.witnesses[0], stranger)))
        assert not told(log=log._replace(log=str(VerifierKey("log.example/other", 1, planted.log.key.raw))))
        assert not told(at=NOW.replace(year=NOW.year - 1))


# --- Proving ---


@pytest.fixture
def world(deployment: Deployment) -> World:
    return World(deployment)


@pytest.mark.parametrize("spelled", ["{}", "sha256:{}", "SHA256:{}", "sha512:{}"])
def test_another_writer_names_it_first(world: World, spelled: str) -> None:
    """Rightly, which proves it as well; or in a form that proves nothing, and takes no place."""
    world.sign()
    signed, world.events[:] = world.events[:], []
    names = [item.stem.rpartition("-")[2] for item in Path(f"{world.path}.evidence").rglob("*.json")]
    told = ("sha256:" + "0" * 64, *map(spelled.format, names))
    world.record(AuditEvent("sign", "outcome", RunIdentity(), outcome="done", evidence=told))
    world.integrate()
    world.events += signed
    world.integrate()
    world.cosign(SEEN, SEEN)
    assert world.prove().proved == 2
    world.revoke()
    assert world.verify().passed


def test_a_proof_that_is_too_large_stops_no_other(world: World) -> None:
    digest = world.sign()
    world.integrate()
    world.cosign(SEEN, SEEN)
    world.store().put_inclusion(digest, b"A" * (MAX_INCLUSION + 1))
    assert world.prove().proved == 2


def test_no_more_proofs_are_read_than_verifications_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """4,096 of them took a gigabyte, and one that no verification reads stood for one."""
    digest = world.sign()
    world.integrate()
    world.cosign(SEEN, SEEN)
    for number in range(MAX_INCLUSIONS + 8):
        world.store().put_inclusion(digest, b"%d" % number)
    read: list[str] = []
    get = EvidenceStore.get_inclusion

    def counting(self: EvidenceStore, about: EvidenceId, name: str) -> bytes | None:
        read.append(name)
        return get(self, about, name)

    monkeypatch.setattr(EvidenceStore, "get_inclusion", counting)
    assert world.prove().proved == 2
    assert len(read) == MAX_INCLUSIONS
