"""The walk against a brute-force oracle over random graphs, and what it promises about size and order."""

from __future__ import annotations

import datetime
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.errors import UnavailableError
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.provenance import Dependency, make_provenance_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.evidence.summary import LINEAGE, make_summary_statement
from sealflow.findings import Finding, conclude
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import KeySigner, load_signer
from sealflow.policy import Requirement, parse_identities
from sealflow.policy.identities import Identity, KeyIdentity
from sealflow.policy.requirement import Clause
from sealflow.run_identity import RunIdentity
from sealflow.verification.assess import Assessed, Assessor, Gathered, Reuse, Start, Terms
from sealflow.verification.descend import descend
from sealflow.verification.walk import MAX_LOCATIONS, Limits, Walked, walk
from tests.pki import write_key

NOW = datetime.datetime.now(datetime.timezone.utc)
RUN = RunIdentity("airflow", "prepare", "step", "run-1", None, 1)


class People:
    """Keys of a producer, a data owner and a stranger."""

    def __init__(self, folder) -> None:
        self.signers: dict[str, KeySigner] = {}
        self.identities: dict[str, tuple[Identity, ...]] = {}
        for name in ("trainer", "owner", "stranger"):
            pair = write_key(folder, name)
            self.signers[name] = load_signer(pair.signer)
            self.identities[name] = parse_identities({name: str(pair.public)})

    def attest(self, number: int, inputs: Sequence[int], by: str, *, about: int | None = None) -> StoredEvidence:
        dependencies = [Dependency(f"s3://lake/{other}", digest(other), f"part-{other}") for other in inputs]
        about = number if about is None else about
        statement = make_provenance_statement(f"part-{about}", digest(about), RUN, dependencies=dependencies, now=NOW)
        data = make_bundle(statement, self.signers[by])
        return StoredEvidence(f"provenance-{sha256_hex(data)}.json", data, "provenance")

    @property
    def terms(self) -> Terms:
        return Terms(Requirement((Clause("identities", self.identities["trainer"]),), frozenset({"provenance"})))

    def walk(self, evidence: Mapping[int, Sequence[StoredEvidence]], start: int, **options) -> Walked:
        held = {digest(number): items for number, items in evidence.items()}
        terms = options.pop("terms", self.terms)
        return walk(
            [Start(digest(start))],
            options.pop("gather", lambda asked, *_: Gathered(held.get(asked, ()))),
            terms if callable(terms) else lambda *_: terms,
            roots=options.pop("roots", self.identities["owner"]),
            now=NOW,
            **options,
        )


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people"))


def digest(number: int) -> Digest:
    return Digest("sha256", sha256_hex(b"%d" % number))


def status(walked: Walked) -> str:
    return conclude(walked.findings)[0]


def codes(walked: Walked) -> set[str]:
    return {item.code for item in walked.findings if item.severity in ("refusal", "unverifiable")}


# --- Random graphs against an oracle ---

#: Who signed an artifact's provenance, and how: the oracle knows which of these hold.
HOLD = ("trainer",)
WRONG = ("stranger", "missing", "about-another", "twice")

#: Artifact → (inputs, how its provenance is signed). Inputs have smaller numbers, but for circles.
Graph = dict[int, tuple[tuple[int, ...], str]]


@st.composite
def graphs(draw: st.DrawFn, circles: bool = False) -> Graph:
    size = draw(st.integers(1, 9))
    graph: Graph = {}
    for number in range(size):
        others = range(size) if circles else range(number)
        inputs = draw(st.lists(st.sampled_from(others), unique=True, max_size=3)) if others else []
        how = draw(st.sampled_from((*HOLD * 6, *WRONG))) if inputs else draw(st.sampled_from(("owner",) * 6 + WRONG))
        graph[number] = (tuple(sorted(inputs)), how)
    return graph


def sign(people: People, graph: Graph) -> dict[int, list[StoredEvidence]]:
    evidence: dict[int, list[StoredEvidence]] = {}
    for number, (inputs, how) in graph.items():
        if how == "missing":
            continue
        by = "owner" if not inputs else "trainer"
        if how in ("trainer", "owner", "stranger"):
            evidence[number] = [people.attest(number, inputs, how)]
        elif how == "about-another":
            evidence[number] = [people.attest(number, inputs, by, about=number + 1000)]
        else:
            evidence[number] = [
                people.attest(number, inputs, "trainer"),
                people.attest(number, [*inputs, 500], "trainer"),
            ]
    return evidence


def oracle(graph: Graph, start: int) -> tuple[bool, set[int]]:
    """Say whether every way from the start ends at the owner's datasets, by trying all of them; and what is reached."""
    reached: set[int] = set()

    def good(number: int, way: tuple[int, ...]) -> bool:
        reached.add(number)
        inputs, how = graph[number]
        if number in way or how not in ("trainer", "owner"):
            return False
        verdicts = [good(other, (*way, number)) for other in inputs]  # all are visited
        return all(verdicts)

    return good(start, ()), reached


@pytest.mark.slow
@settings(max_examples=120)
@given(graph=graphs())
def test_graphs_without_circles(people: People, graph: Graph) -> None:
    start = max(graph)
    walked = people.walk(sign(people, graph), start)
    passes, reached = oracle(graph, start)
    assert (status(walked) == "passed") == passes
    assert {node.digest for node in walked.graph.nodes.values()} == {digest(number) for number in reached}
    for number in reached:
        inputs, how = graph[number]
        node = walked.graph.nodes[digest(number)]
        assert node.sound == (how in ("trainer", "owner"))
        proved = set(walked.graph.inputs.get(digest(number), ()))
        assert proved == ({digest(other) for other in inputs} if node.sound else set())


@pytest.mark.slow
@settings(max_examples=120)
@given(graph=graphs(circles=True))
def test_graphs_with_circles(people: People, graph: Graph) -> None:
    start = max(graph)
    walked = people.walk(sign(people, graph), start)
    # An artifact that is its own only input is read as signed again, when something else says from what it was made.
    passes, reached = oracle(graph, start)
    assert (status(walked) == "passed") == passes
    if all(graph[number][1] in ("trainer", "owner") for number in reached):
        assert ("LINEAGE_CYCLE" in codes(walked)) == (not passes)


@pytest.mark.slow
@settings(max_examples=60)
@given(graph=graphs(), data=st.data())
def test_no_attestation_can_be_taken_away_or_forged(people: People, graph: Graph, data: st.DataObject) -> None:
    graph = {number: (inputs, "trainer" if inputs else "owner") for number, (inputs, _) in graph.items()}
    start = max(graph)
    evidence = sign(people, graph)
    assert status(people.walk(evidence, start)) == "passed"
    _, reached = oracle(graph, start)
    victim = data.draw(st.sampled_from(sorted(reached)))
    inputs = graph[victim][0]
    original = evidence[victim][0]
    for forged in (
        [],
        [replace(original, altered=True)],
        [people.attest(victim, inputs, "stranger")],
        [people.attest(victim, (*inputs, 777), "trainer" if inputs else "owner")] if inputs else [],
        [people.attest(victim, inputs, "trainer" if inputs else "owner", about=victim + 1000)],
        [replace(original, data=original.data[:-40] + b"A" + original.data[-39:])],
    ):
        assert status(people.walk({**evidence, victim: forged}, start)) != "passed"


@settings(max_examples=40)
@given(graph=graphs(circles=True), seed=st.integers(0, 99))
def test_the_order_of_evidence_makes_no_difference(people: People, graph: Graph, seed: int) -> None:
    evidence = sign(people, graph)
    shuffled = {number: random.Random(seed).sample(items, len(items)) for number, items in evidence.items()}
    one, two = people.walk(evidence, max(graph)), people.walk(shuffled, max(graph))
    assert one.graph.as_dict() == two.graph.as_dict()
    assert {item.code for item in one.findings} == {item.code for item in two.findings}


@pytest.mark.slow
@settings(max_examples=60)
@given(graph=graphs(circles=True), start=st.integers(0, 8))
def test_forward_against_an_oracle(people: People, graph: Graph, start: int) -> None:
    held = {digest(number): items for number, items in sign(people, graph).items()}
    terms = Terms(Requirement((Clause("identities", people.identities["trainer"]),), frozenset({"provenance"})))
    assessor = Assessor(lambda asked, *_: Gathered(held.get(asked, ())), lambda *_: terms, now=NOW)
    found = descend(digest(start), dict.fromkeys(held, ()), assessor)
    made, todo = set(), [start]
    while todo:
        used = todo.pop()
        for number, (inputs, how) in graph.items():
            if used in inputs and how == "trainer" and number not in made and number != start:
                made.add(number)
                todo.append(number)
    assert set(found.graph.inputs) - {digest(start)} == {digest(number) for number in made}
    claims = {
        number for number, (inputs, how) in graph.items()
        if how in ("stranger", "about-another", "twice") and {start, *made} & set(inputs) and inputs != (number,)
    }  # fmt: skip
    assert {digest(number) for number in claims} <= set(found.graph.claimed)
    if claims:
        assert conclude(found.findings)[0] == "unverifiable"


# --- Size ---


@pytest.mark.slow
def test_a_chain_of_1_500(people: People) -> None:
    """Longer than Python recurses, with real signatures."""
    evidence = {number: [people.attest(number, [number + 1], "trainer")] for number in range(1500)}
    evidence[1500] = [people.attest(1500, [], "owner")]
    walked = people.walk(evidence, 0)
    assert status(walked) == "passed"
    assert list(walked.graph.nodes) == [digest(number) for number in range(1501)]
    evidence[1499] = []
    assert codes(people.walk(evidence, 0)) == {"DEP_UNATTESTED"}


@pytest.mark.slow
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_a_chain_of_100_000(people: People, closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk itself, which recurses nowhere; the judgement of each artifact is supposed."""
    length = 100_000
    chain = [digest(number) for number in range(length)]
    after = dict(zip(chain, [*chain[1:], chain[500]], strict=True))

    def assess(self: Assessor, asked: Digest, *_: object) -> Assessed:
        if asked == chain[-1] and not closed:
            return Assessed("dataset")
        return Assessed("attested", inputs={after[asked]: [Dependency("", after[asked], "x")]})

    monkeypatch.setattr(Assessor, "assess", assess)
    walked = people.walk({}, 0)
    assert list(walked.graph.nodes) == chain
    assert codes(walked) == ({"LINEAGE_CYCLE"} if closed else set())
    assert [node.digest for node in walked.graph.nodes.values() if node.state == "cycle"] == (
        [chain[500]] if closed else []
    )


def test_a_ladder_is_walked_once(people: People) -> None:
    """With two inputs at each of 40 steps there are a million million ways, and 80 artifacts."""
    evidence = {}
    for step in range(0, 80, 2):
        below = [step - 2, step - 1] if step else []
        for number in (step, step + 1):
            evidence[number] = [people.attest(number, below, "trainer" if below else "owner")]
    begun = time.monotonic()
    walked = people.walk(evidence, 79)
    assert status(walked) == "passed"
    assert len(walked.graph.nodes) == 79
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "limits", [Limits(nodes=3), Limits(edges=2), Limits(size=100)], ids=["nodes", "edges", "bytes"]
)
def test_too_much_is_never_passed(people: People, limits: Limits) -> None:
    evidence = {number: [people.attest(number, [number + 1], "trainer")] for number in range(6)}
    evidence[6] = [people.attest(6, [], "owner")]
    assert status(people.walk(evidence, 0)) == "passed"
    walked = people.walk(evidence, 0, limits=limits)
    assert status(walked) == "unverifiable"
    assert codes(walked) == {"EVIDENCE_TOO_MUCH"}


def test_too_many_places_are_never_passed(people: People) -> None:
    def made(count: int) -> list[StoredEvidence]:
        places = [Dependency(f"s3://lake/{number}", digest(1), "raw") for number in range(count)]
        data = make_bundle(
            make_provenance_statement("m", digest(0), RUN, dependencies=places, now=NOW), people.signers["trainer"]
        )
        return [StoredEvidence("provenance-x", data, "provenance")]

    root = [people.attest(1, [], "owner")]
    assert status(people.walk({0: made(MAX_LOCATIONS), 1: root}, 0)) == "passed"
    assert codes(people.walk({0: made(MAX_LOCATIONS + 1), 1: root}, 0)) == {"EVIDENCE_TOO_MUCH"}


# --- What cannot be read ---


def test_a_doubt_decides_only_where_something_is_missing(people: People) -> None:
    doubt = Finding("BACKEND_UNAVAILABLE", "unverifiable", "s3://gone", "It does not answer.")
    evidence = {0: [people.attest(0, [1], "trainer")], 1: [people.attest(1, [], "owner")]}
    held = {digest(number): items for number, items in evidence.items()}

    def gather(asked: Digest, *_: object) -> Gathered:
        return Gathered(held.get(asked, ()), (doubt,))

    walked = people.walk({}, 0, gather=gather)
    assert status(walked) == "passed"
    assert any(item.severity == "warning" and item.code == "BACKEND_UNAVAILABLE" for item in walked.findings)
    held.pop(digest(1))
    walked = people.walk({}, 0, gather=gather)
    assert status(walked) == "unverifiable"
    assert walked.graph.nodes[digest(1)].state == "unverifiable"
    for item in (people.attest(1, [], "stranger"), StoredEvidence("provenance-x", b"junk", "provenance")):
        held[digest(1)] = [item]
        assert status(people.walk({}, 0, gather=gather)) == "unverifiable"


def test_a_key_out_of_reach_is_asked_once(people: People) -> None:
    class Away(KeyIdentity):
        asked = 0

        def key_for(self, bundle, at):
            Away.asked += 1
            raise UnavailableError("The key service does not answer.")

    away = Away("kms", (), (), "awskms:alias/x")
    terms = Terms(
        Requirement((Clause("identities", (away, *people.identities["trainer"])),), frozenset({"provenance"}))
    )
    evidence = {number: [people.attest(number, [number + 1], "trainer")] for number in range(5)}
    evidence[5] = [people.attest(5, [], "owner")]
    walked = people.walk(evidence, 0, terms=terms)
    assert status(walked) == "passed"
    assert Away.asked == 1
    evidence[3] = [people.attest(3, [4], "stranger")]
    walked = people.walk(evidence, 0, terms=terms)
    assert status(walked) == "unverifiable"
    assert codes(walked) == {"BACKEND_UNAVAILABLE"}


def test_nobody_can_say_what_holds(people: People) -> None:
    finding = Finding("POLICY_UNAVAILABLE", "unverifiable", "x", "The policy is gone.")
    evidence = {0: [people.attest(0, [1], "trainer")], 1: [people.attest(1, [], "owner")]}

    def terms(asked: Digest, *_: object) -> Terms | Finding:
        return finding if asked == digest(1) else people.terms

    walked = people.walk(evidence, 0, terms=terms)
    assert codes(walked) == {"POLICY_UNAVAILABLE"}
    assert walked.graph.nodes[digest(1)].state == "unverifiable"


# --- Names bring in rules ---


def test_rules_about_a_signed_name(people: People) -> None:
    """Asked first without names, then with those of authentic provenance."""
    asked: list[tuple[str, ...]] = []
    strict = Terms(Requirement((Clause("strict", people.identities["stranger"]),), frozenset({"provenance"})), True)

    def terms(_: Digest, __: Sequence[str], names: Sequence[str]) -> Terms:
        asked.append(tuple(names))
        return strict if "part-1" in names else people.terms

    evidence = {0: [people.attest(0, [1], "trainer")], 1: [people.attest(1, [], "owner")]}
    walked = people.walk(evidence, 0, terms=terms)
    assert asked == [(), ("part-0",), (), ("part-1",)]
    assert walked.graph.nodes[digest(1)].state == "refused"
    assert codes(walked) == {"SIGNER_NOT_ALLOWED"}


@pytest.mark.parametrize("several", [False, True])
def test_several_starts_share_what_they_have_in_common(people: People, several: bool) -> None:
    evidence = {
        0: [people.attest(0, [2], "trainer")],
        1: [people.attest(1, [2], "trainer")],
        2: [people.attest(2, [], "owner")],
    }
    seen: list[Digest] = []
    held = {digest(number): items for number, items in evidence.items()}

    def gather(asked: Digest, *_: object) -> Gathered:
        seen.append(asked)
        return Gathered(held.get(asked, ()))

    starts = [Start(digest(0)), Start(digest(1))] if several else [Start(digest(0))]
    gathered: Callable[..., Gathered] = gather
    walked = walk(starts, gathered, lambda *_: people.terms, roots=people.identities["owner"], now=NOW)
    assert status(walked) == "passed"
    # Once more where a location was met: the starts have none.
    assert seen.count(digest(2)) == 1
    assert len(walked.graph.starts) == len(starts)


@pytest.mark.parametrize(("verifier", "counts"), [("stranger", True), ("trainer", False)])
def test_who_signed_the_artifact_cannot_vouch_for_its_way(people: People, verifier: str, counts: bool) -> None:
    """Policies refuse such a verifier already; the walk relies on nobody for that."""
    statement = make_summary_statement(
        "part-0",
        digest(0),
        orchestrator="cli",
        now=NOW,
        resource="s3://lake/0",
        policy_uri="s3://admin/policy.json",
        policy="sha256:" + "ab" * 32,
        requirement="sha256:" + "cd" * 32,
        levels=[LINEAGE],
        inputs=[],
    )
    data = make_bundle(statement, people.signers[verifier])
    evidence = {0: [people.attest(0, [1], "trainer"), StoredEvidence("summary-x", data, "summary")]}
    reuse = Reuse("sha256:" + "ab" * 32, "sha256:" + "cd" * 32, 3600, people.identities[verifier])
    walked = people.walk(evidence, 0, terms=replace(people.terms, ruled=True, reuse=reuse))
    assert walked.reused is counts
    assert (status(walked) == "passed") is counts
