"""Sources on the way: named, shown, not followed, and no way around the data's owners."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import pytest

from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.provenance import Dependency, make_provenance_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.hashing import Digest
from sealflow.keys import KeySigner, load_signer
from sealflow.policy import Clause, Requirement, parse_identities
from sealflow.run_identity import RunIdentity
from sealflow.verification.assess import Gathered, Start, Terms
from sealflow.verification.walk import Walked, walk
from tests.pki import write_key

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.timezone.utc)
MODEL, OTHER, DATA, CODE, NEWER = (Digest("sha256", f"{number:064x}") for number in range(1, 6))


class World:
    """Provenance by a trainer and by a data owner."""

    def __init__(self, folder: Path) -> None:
        self.keys: dict[str, KeySigner] = {}
        rules = {}
        for name in ("trainer", "owner"):
            (folder / name).mkdir()
            pair = write_key(folder / name)
            self.keys[name] = load_signer(pair.signer)
            rules[name] = str(pair.public)
        self.trainer = parse_identities({"trainer": rules["trainer"]})
        self.owner = parse_identities({"owner": rules["owner"]})
        self.held: dict[Digest, list[StoredEvidence]] = {}

    def say(self, digest: Digest, *used: tuple[Digest, bool], by: str = "trainer", run: str = "1") -> None:
        """Sign what an artifact was made from: digests, and whether each is a source."""
        items = [Dependency("", item, "x", source) for item, source in used]
        identity = RunIdentity("airflow", "train", "fit", run)
        statement = make_provenance_statement("m", digest, identity, dependencies=items, now=NOW)
        data = make_bundle(statement, self.keys[by])
        self.held.setdefault(digest, []).append(StoredEvidence(f"provenance-{run}", data, "provenance"))

    def walk(self, *starts: Digest) -> Walked:
        terms = Terms(Requirement((Clause("identities", (*self.trainer, *self.owner)),), frozenset({"provenance"})))

        def gather(digest: Digest, _: Sequence[str], __: frozenset[str]) -> Gathered:
            return Gathered(self.held.get(digest, ()))

        begun = [Start(digest) for digest in starts or (MODEL,)]
        return walk(begun, gather, lambda *_: terms, roots=self.owner, now=NOW)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.say(DATA, by="owner")
    return made


def _codes(walked: Walked) -> set[str]:
    return {item.code for item in walked.findings if item.severity in ("refusal", "unverifiable")}


def test_a_source_is_shown_and_not_followed(world: World) -> None:
    world.say(MODEL, (DATA, False), (CODE, True))
    walked = world.walk()
    assert _codes(walked) == set()
    assert {digest: node.state for digest, node in walked.graph.nodes.items()} == {
        MODEL: "attested", DATA: "dataset", CODE: "source",
    }  # fmt: skip
    assert walked.graph.inputs[MODEL] == (DATA, CODE)
    assert walked.stated[MODEL] == {frozenset({DATA, CODE})}


def test_without_the_mark_it_is_data(world: World) -> None:
    world.say(MODEL, (DATA, False), (CODE, False))
    assert _codes(world.walk()) == {"DEP_UNATTESTED"}


def test_sources_alone_are_no_beginning(world: World) -> None:
    """Whoever signs could call everything a source."""
    world.say(MODEL, (DATA, True), (CODE, True))
    assert _codes(world.walk()) == {"ROOT_NOT_ALLOWED"}


def test_what_somebody_uses_as_data_is_followed(world: World) -> None:
    world.say(MODEL, (DATA, False), (CODE, True))
    world.say(OTHER, (DATA, False), (CODE, False))
    for starts in ((MODEL, OTHER), (OTHER, MODEL)):
        assert _codes(world.walk(*starts)) == {"DEP_UNATTESTED"}
    world.say(CODE, by="owner")
    assert _codes(world.walk(MODEL, OTHER)) == set()


def test_runs_may_differ_in_their_sources(world: World) -> None:
    world.say(MODEL, (DATA, False), (CODE, True))
    world.say(MODEL, (DATA, False), (NEWER, True), run="2")
    walked = world.walk()
    assert _codes(walked) == set()
    assert walked.stated[MODEL] == {frozenset({DATA, CODE}), frozenset({DATA, NEWER})}
    assert set(walked.graph.inputs[MODEL]) == {DATA, CODE, NEWER}


def test_runs_may_not_differ_in_their_data(world: World) -> None:
    world.say(MODEL, (DATA, False), (CODE, True))
    world.say(MODEL, (OTHER, False), (CODE, True), run="2")
    assert _codes(world.walk()) == {"LINEAGE_AMBIGUOUS"}


def test_data_in_one_run_and_source_in_another_is_no_agreement(world: World) -> None:
    world.say(MODEL, (DATA, False), (CODE, True))
    world.say(MODEL, (DATA, False), (CODE, False), run="2")
    assert _codes(world.walk()) == {"LINEAGE_AMBIGUOUS"}
