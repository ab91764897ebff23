"""However many proofs of nothing somebody lays beside a good one, it is found; and what he makes us remember is little.

He who writes into an evidence store can add what looks like proofs, as many as he likes, and choose what stands first.
Each of them names the evidence, or is not looked at at all.
"""

from __future__ import annotations

import datetime
import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sealflow.audit import AuditEvent, merkle
from sealflow.audit.checkpoint import Checkpoint, sign_checkpoint
from sealflow.audit.entry import Chain
from sealflow.audit.note import Signature, VerifierKey, parse_note
from sealflow.audit.proof import Proof, parse_proof
from sealflow.audit.tiles import Tree
from sealflow.evidence.store import MAX_INCLUSION, MAX_INCLUSIONS
from sealflow.evidence.timestamp import Stamp
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.hashing import sha256_hex
from sealflow.policy.requirement import NOTHING_REVOKED
from sealflow.run_identity import RunIdentity
from sealflow.verification import inclusion
from sealflow.verification.inclusion import earliest_inclusion
from tests.attacks.test_witnessed_time import SEEN, Witness, World
from tests.core.audit.logs import MadeLog, chain_lines
from tests.core.policy.deployment import Deployment
from tests.pki import NOW

pytest_plugins = ["tests.core.policy.fixtures"]

PIECE = "5e" * 32
TIME = NOW + datetime.timedelta(hours=SEEN)
#: More than were ever looked at, on either side of the good one.
MANY = 40


class Crowd:
    """A log with one good proof, and whatever a thief can make of it without a key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = MadeLog(folder)
        self.witnesses = [Witness("w.example/one"), Witness("w.example/two")]
        self.log.add([*chain_lines(1), self.line()])
        assert self.log.checkpoint is not None
        self.signed = self.log.checkpoint
        self.text = parse_note(self.signed).text
        keys = tuple(str(each.key) for each in self.witnesses)
        self.believed = [WitnessedLog("audit-log", str(self.log.key), keys, 2)]
        self.sound = self.proof(self.cosigned(SEEN, SEEN))

    def line(self) -> bytes:
        """An entry by anybody, that names the evidence."""
        event = AuditEvent("sign", "outcome", RunIdentity(), outcome="done", evidence=(f"sha256:{PIECE}",))
        return Chain().add(event.to_json()).line

    def cosigned(self, *hours: float) -> bytes:
        return b"".join(each.line(self.text, hour) for each, hour in zip(self.witnesses, hours, strict=False))

    def proof(self, lines: bytes, note: bytes = b"") -> bytes:
        tree = Tree(self.log.store.get, self.log.size)
        return Proof(1, tuple(tree.inclusion_proof(1)), (note or self.signed) + lines, tree.entry(1)).encode()

    def forged(self, key: VerifierKey, number: int) -> bytes:
        """A signature by nobody, in a key's name."""
        data = bytes(8 if key.name.startswith("w.") else 0) + number.to_bytes(64, "big")
        return Signature(key.name, key.id, data).line().encode()

    def stranger(self, number: int) -> bytes:
        """A line that makes a note another one, and means nothing."""
        return Signature(f"x.example/{number}", bytes(4), number.to_bytes(64, "big")).line().encode()

    def own(self, signatures: bytes, root: bytes | None = None) -> bytes:
        """A proof that leads to a tree of the thief's."""
        line = self.line()
        text = Checkpoint(self.log.key.name, 1, root or merkle.leaf_hash(line)).text
        return Proof(0, (), text + b"\n" + signatures, line).encode()


JUNK: dict[str, Callable[[Crowd, int], bytes]] = {
    "an-entry-that-is-not-in-the-log": lambda crowd, n: Proof(
        n, (bytes(32),), crowd.signed + crowd.cosigned(SEEN, SEEN), crowd.line()
    ).encode(),
    "a-tree-of-his-own-with-forged-signatures": lambda crowd, n: crowd.own(
        b"".join(crowd.forged(key, n) for key in (crowd.log.key, *(each.key for each in crowd.witnesses)))
    ),
    "a-tree-of-his-own-with-a-forged-line-of-the-log": lambda crowd, n: crowd.own(crowd.forged(crowd.log.key, n)),
    "a-tree-of-his-own-with-the-log's-own-signatures": lambda crowd, n: crowd.own(
        (crowd.signed + crowd.cosigned(SEEN, SEEN))[len(crowd.text) + 1 :] + crowd.stranger(n)
    ),
    "a-tree-of-his-own-with-every-line-that-fits": lambda crowd, n: crowd.own(
        b"".join(crowd.forged(crowd.log.key, 100 * n + number) for number in range(98))
        + b"".join(crowd.forged(each.key, n) for each in crowd.witnesses)
    ),
    "a-log-of-his-own-of-the-same-name": lambda crowd, n: crowd.own(
        _other_log(crowd, n)[0] + crowd.stranger(n), _other_log(crowd, n)[1]
    ),
    "the-log's-checkpoint-with-forged-cosignatures": lambda crowd, n: crowd.proof(
        b"".join(crowd.forged(each.key, n) for each in crowd.witnesses)
    ),
    "the-log's-checkpoint-with-one-good-cosignature": lambda crowd, n: crowd.proof(
        crowd.cosigned(SEEN) + crowd.forged(crowd.witnesses[1].key, n)
    ),
    "the-log's-checkpoint-with-too-few": lambda crowd, n: crowd.proof(crowd.cosigned(SEEN) + crowd.stranger(n)),
    "the-log's-checkpoint-with-none": lambda crowd, n: crowd.proof(crowd.stranger(n)),
    "the-log's-checkpoint-with-its-lines-repeated": lambda crowd, n: crowd.proof(
        40 * crowd.cosigned(SEEN) + crowd.stranger(n)
    ),
    "the-log's-checkpoint-without-its-signature": lambda crowd, n: crowd.proof(
        crowd.cosigned(SEEN, SEEN) + crowd.stranger(n), crowd.text + b"\n"
    ),
    "the-good-one-cut": lambda crowd, n: crowd.sound[: -1 - n],
    "the-good-one-with-a-line-of-a-witness-that-is-none": lambda crowd, n: (
        crowd.sound + crowd.forged(crowd.witnesses[0].key, n)
    ),
    "the-good-one-with-a-line-of-the-log-that-is-none": lambda crowd, n: crowd.sound + crowd.forged(crowd.log.key, n),
    "good-ones-of-later": lambda crowd, n: crowd.proof(crowd.cosigned(SEEN / (n + 2), SEEN / (n + 2))),
}


def _other_log(crowd: Crowd, number: int) -> tuple[bytes, bytes]:
    line = b"%d" % number
    root = merkle.leaf_hash(line)
    forged = MadeLog(crowd.folder, str(crowd.folder / "forged"), key="thief")
    note = sign_checkpoint(Checkpoint(crowd.log.key.name, 1, root), forged.signer)
    return note[len(parse_note(note).text) + 1 :], root


@pytest.fixture
def crowd(tmp_path: Path) -> Crowd:
    return Crowd(tmp_path)


@pytest.mark.parametrize("made", JUNK.values(), ids=JUNK.keys())
def test_a_good_proof_is_found_among_others(
    crowd: Crowd, made: Callable[[Crowd, int], bytes], verified: list[str]
) -> None:
    junk = [made(crowd, number) for number in range(MANY)]
    assert len(set(junk)) == MANY
    told = earliest_inclusion([*junk, crowd.sound, *junk], PIECE, crowd.believed, NOW, NOTHING_REVOKED)
    assert isinstance(told, Stamp), told
    assert told.time == TIME
    # A line of a key is checked once, whatever it says, and the first that is none ends it.
    assert len(verified) <= 4 * (MANY + 1)


@pytest.mark.parametrize("made", JUNK.values(), ids=JUNK.keys())
def test_none_of_them_proves_that_time(crowd: Crowd, made: Callable[[Crowd, int], bytes]) -> None:
    junk = [made(crowd, number) for number in range(MANY)]
    told = earliest_inclusion(junk, PIECE, crowd.believed, NOW, NOTHING_REVOKED)
    assert isinstance(told, str) or told.time > TIME
    assert told


def test_as_many_as_a_store_gives(crowd: Crowd, verified: list[str]) -> None:
    """Of all kinds together, the cheapest and the dearest."""
    kinds = itertools.cycle(JUNK.values())
    junk = [made(crowd, number) for number, made in zip(range(MAX_INCLUSIONS - 1), kinds, strict=False)]
    for proofs in ([*junk, crowd.sound], [crowd.sound, *junk]):
        told = earliest_inclusion(proofs, PIECE, crowd.believed, NOW, NOTHING_REVOKED)
        assert isinstance(told, Stamp)
        assert told.time == TIME
    assert len(verified) <= 4 * MAX_INCLUSIONS


def test_one_that_costs_too_much_stands_behind(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A witness that lies can sign as often as it likes. Few signatures come first, and the others find an end."""
    monkeypatch.setattr(inclusion, "_MOST_SIGNATURES", 60)
    liar = crowd.witnesses[0]
    dear = [
        crowd.proof(b"".join(liar.line_at(crowd.text, int(TIME.timestamp()) + 50 * n + i) for i in range(40)))
        for n in range(3)
    ]
    costly = [each + crowd.witnesses[1].line(crowd.text, SEEN / 2) for each in dear]
    told = earliest_inclusion([*costly, crowd.sound], PIECE, crowd.believed, NOW, NOTHING_REVOKED)
    assert isinstance(told, Stamp)
    assert told.time == TIME
    monkeypatch.setattr(inclusion, "_MOST_SIGNATURES", 30)
    told = earliest_inclusion(costly, PIECE, crowd.believed, NOW, NOTHING_REVOKED)
    assert isinstance(told, str)
    assert "not looked at" in told


@pytest.mark.slow
def test_what_is_remembered_is_little(crowd: Crowd) -> None:
    """Not the proofs: 512 of the largest would be 128 MiB, for as long as the process lives."""

    def proofs() -> Iterator[bytes]:
        line = crowd.line()
        for number in range(MAX_INCLUSIONS):
            padding = (b"x" * 4000 + b"\n") * ((MAX_INCLUSION - 4000) // 4001)
            note = crowd.text.removesuffix(b"\n") + b"\n" + padding + b"\n" + crowd.stranger(number)
            yield Proof(number, (), note, line).encode()

    earliest_inclusion([crowd.sound], PIECE, crowd.believed, NOW, NOTHING_REVOKED)
    tracemalloc.start()
    try:
        for data in proofs():
            assert MAX_INCLUSION - 8192 < len(data) <= MAX_INCLUSION
            told = earliest_inclusion([data, crowd.sound], PIECE, crowd.believed, NOW, NOTHING_REVOKED)
            assert isinstance(told, Stamp)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 16 << 20


def test_among_many_in_a_store(deployment: Deployment) -> None:
    """The whole way: the thief chooses names that come before the good one's."""
    world = World(deployment)
    digest = world.proved()
    (good,) = world.proofs()
    proof = parse_proof(good.read_bytes())
    text = parse_note(proof.checkpoint).text
    planted = 0
    for number in itertools.count():
        line = Signature("x.example/thief", bytes(4), number.to_bytes(64, "big")).line().encode()
        lines = world.witnesses[0].line(text, SEEN) + line
        note = sign_checkpoint(Checkpoint(world.log.key.name, world.log.size, _root(proof)), world.log.signer)
        junk = Proof(proof.index, proof.hashes, note + lines, proof.extra).encode()
        if sha256_hex(junk) < good.name.removeprefix("inclusion-"):
            world.store().put_inclusion(digest, junk)
            planted += 1
        if planted == MANY:
            break
    assert sorted(world.proofs()).index(good) == MANY
    again = world.prove()
    assert (again.before, again.added) == (2, ())
    world.revoke()
    verdict = world.verify()
    assert verdict.passed, verdict.findings


def _root(proof: Proof) -> bytes:
    found = merkle.root_of_inclusion(
        proof.index, int(proof.checkpoint.split(b"\n")[1]), merkle.leaf_hash(proof.extra), proof.hashes
    )
    assert found is not None
    return found
