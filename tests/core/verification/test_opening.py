"""Provenance opened ahead of a walk: only what is in order, and only under the key that made its signature."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import UnavailableError
from sealflow.evidence.bundle import make_bundle, parse_bundle
from sealflow.evidence.provenance import Dependency, parse_dependencies, parse_provenance
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.findings import conclude
from sealflow.hashing import Digest
from sealflow.keys import load_public_key
from sealflow.policy import Requirement
from sealflow.policy.identities import KeyIdentity
from sealflow.policy.requirement import Clause, Revocations, Revoked
from sealflow.verification import assess
from sealflow.verification.assess import Gathered, Terms
from sealflow.verification.authenticate import Authentic, authenticate
from sealflow.verification.opening import Opened, claim_of, open_provenance
from sealflow.verification.walk import Walked
from tests.core.verification.test_walk import NOW, People, digest

NOBODY = Revocations({}, {})
STOLEN = Revoked(NOW, "stolen")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def piece(people: People) -> StoredEvidence:
    return people.attest(9, [1, 2], "trainer")


def open_with(people: People, item: StoredEvidence, *names: str) -> Opened | None:
    keys = {people.signers[name].public_key.hint: people.signers[name].public_key for name in names}
    return open_provenance(item, keys.get)


def test_what_is_opened(people: People, piece: StoredEvidence) -> None:
    bundle = parse_bundle(piece.data)
    said = parse_provenance(parse_statement(bundle.payload))
    opened = open_with(people, piece, "owner", "trainer")
    assert opened is not None
    assert opened.key == people.signers["trainer"].public_key.hint == claim_of(bundle)
    assert opened.said == said._replace(dependencies=())
    assert opened.inputs == parse_dependencies(said)
    assert opened.inputs == tuple(Dependency(f"s3://lake/{item}", digest(item), f"part-{item}") for item in (1, 2))
    assert opened.bundle == bundle._replace(payload=b"", signature=b"")


def changed(item: StoredEvidence, action: Callable[[Any], object]) -> StoredEvidence:
    body = json.loads(item.data)
    action(body)
    return replace(item, data=json.dumps(body).encode())


NOT_OPENED: dict[str, Callable[[People, StoredEvidence], StoredEvidence]] = {
    "altered": lambda _, item: replace(item, altered=True),
    "not taken out of what carried it": lambda _, item: replace(item, problem="malformed"),
    "another kind": lambda _, item: replace(item, kind="signature"),
    "no kind": lambda _, item: replace(item, kind=None),
    "no JSON": lambda _, item: replace(item, data=item.data[:-1]),
    "another key": lambda people, _: people.attest(9, [1], "stranger"),
    "another signature": lambda people, item: changed(
        item,
        lambda body: body["dsseEnvelope"]["signatures"][0].update(
            json.loads(people.attest(8, [], "trainer").data)["dsseEnvelope"]["signatures"][0]
        ),
    ),
    "the hint of another key": lambda people, item: changed(
        item,
        lambda body: body["verificationMaterial"]["publicKey"].update(hint=people.signers["owner"].public_key.hint),
    ),
    "no hint": lambda _, item: changed(item, lambda body: body["verificationMaterial"]["publicKey"].pop("hint")),
    "no statement": lambda people, item: replace(item, data=make_bundle(b"[]", people.signers["trainer"])),
    "no provenance": lambda people, item: replace(
        item, data=make_bundle(statement(item, predicateType="https://example.org/x"), people.signers["trainer"])
    ),
    "an input without a digest": lambda people, item: replace(
        item, data=make_bundle(statement(item, inputs=[{"name": "x"}]), people.signers["trainer"])
    ),
}


def statement(item: StoredEvidence, inputs: Any = None, **members: Any) -> bytes:
    body = json.loads(parse_bundle(item.data).payload) | members
    if inputs is not None:
        body["predicate"]["buildDefinition"]["resolvedDependencies"] = inputs
    return json.dumps(body).encode()


@pytest.mark.parametrize("case", NOT_OPENED)
def test_what_is_odd_is_left_to_the_walk(people: People, piece: StoredEvidence, case: str) -> None:
    odd = NOT_OPENED[case](people, piece)
    assert odd != piece
    assert open_with(people, odd, "trainer", "owner") is None


def test_no_payload_is_parsed_before_its_signature_holds(
    people: People, piece: StoredEvidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealflow.verification.opening.parse_statement", lambda _: pytest.fail("it was parsed"))
    wrong = {people.signers["trainer"].public_key.hint: people.signers["owner"].public_key}
    assert open_provenance(piece, wrong.get) is None


@pytest.mark.parametrize("who", ["trainer", "owner", "stranger"])
def test_authentication_of_what_was_opened_is_that_of_the_bytes(
    people: People, piece: StoredEvidence, who: str, tmp_path: Path
) -> None:
    opened = open_with(people, piece, "trainer")
    for revoked in (NOBODY, Revocations({people.signers["trainer"].public_key.hint: STOLEN}, {})):
        ahead, plain = (
            authenticate(piece, people.identities[who], now=NOW, revoked=revoked, unavailable={}, opened=item)
            for item in (opened, None)
        )
        if isinstance(plain, Authentic):
            assert isinstance(ahead, Authentic)
            assert ahead[:1] + ahead[2:] == plain[:1] + plain[2:]
        else:
            assert ahead == plain


def test_another_key_than_that_it_was_opened_with_is_asked_of_the_bytes(people: People, piece: StoredEvidence) -> None:
    """Whatever somebody opened it with, an identity's own key must hold."""
    opened = open_with(people, piece, "trainer")
    assert opened is not None
    bare = opened.bundle._replace(hint=None)
    arguments: dict[str, Any] = {"now": NOW, "revoked": NOBODY, "unavailable": {}}
    forged = opened._replace(bundle=bare, key=load_public_key(str(people.identities["owner"][0].source)).hint)
    held = authenticate(piece, people.identities["trainer"], **arguments, opened=forged)
    assert isinstance(held, Authentic)
    assert held.bundle == parse_bundle(piece.data)
    other = authenticate(piece, people.identities["stranger"], **arguments, opened=forged)
    assert not isinstance(other, Authentic)


# --- Who holds a key is asked once for all that was opened ahead ---

LENGTH = 6


class Leaving(KeyIdentity):
    """Its key service goes away after the first answer."""

    def key_for(self, bundle: Any, at: Any) -> Any:
        told = self.__dict__.setdefault("told", [])
        told.append(bundle)
        if len(told) > 1:
            raise UnavailableError("The key service does not answer.")
        return super().key_for(bundle, at)


def walk_chain(
    people: People, ahead: bool, case: str, evidence: dict[int, list[StoredEvidence]], change: dict[int, dict[str, Any]]
) -> Walked:
    """Walk a chain whose evidence is opened ahead or not; what is changed was opened before that."""
    trainer, owner = people.identities["trainer"], people.identities["owner"]
    revoked, roots = NOBODY, owner
    if case == "revoked":
        revoked = Revocations({people.signers["trainer"].public_key.hint: STOLEN}, {})
    elif case == "expired":
        trainer = (replace(trainer[0], expires=NOW),)
    elif case == "two names of one key":
        trainer = (*trainer, replace(trainer[0], name="again", producers=("airflow://prepare/*",)))
    elif case == "may speak for others only":
        trainer = (replace(trainer[0], producers=("airflow://other/*",)),)
    elif case == "the owner makes things":
        trainer = (*trainer, *owner)
    elif case == "the key service goes away":
        away = Leaving("away", (), (), people.identities["stranger"][0].source)  # type: ignore[attr-defined]
        trainer = (*trainer, away)
    terms = Terms(Requirement((Clause("identities", trainer),), frozenset({"provenance"}), revoked=revoked))

    def gather(asked: Digest, *_: object) -> Gathered:
        number = next(number for number in range(LENGTH) if digest(number) == asked)
        items, other = evidence[number], dict(change.get(number, {}))
        opened: Sequence[Opened | None] = [open_with(people, item, "trainer", "owner", "stranger") for item in items]
        hint = other.pop("hint", None)
        if hint is not None:
            opened = [item and item._replace(bundle=item.bundle._replace(hint=hint)) for item in opened]
        items = [replace(item, **other) for item in items]
        return Gathered(items, (), opened if ahead else ())

    return people.walk({}, LENGTH - 1, gather=gather, terms=terms, roots=roots)


CHAINS = {
    "in order": "passed",
    "revoked": "failed",
    "expired": "failed",
    "two names of one key": "passed",
    "may speak for others only": "failed",
    "the owner makes things": "passed",
    "the key service goes away": "passed",
    "the key service goes away, and a stranger signed": "unverifiable",
    "a stranger signed": "failed",
    "altered since": "failed",
    "never taken out": "failed",
    "a stranger signed as well": "passed",
}


@pytest.mark.parametrize("case", CHAINS)
def test_a_walk_over_what_was_opened_finds_what_a_walk_over_the_bytes_finds(people: People, case: str) -> None:
    evidence = {number: [people.attest(number, [number - 1], "trainer")] for number in range(1, LENGTH)}
    evidence[0] = [people.attest(0, [], "owner")]
    change: dict[int, dict[str, Any]] = {}
    if case.endswith("a stranger signed"):
        evidence[2] = [people.attest(2, [1], "stranger")]
    elif case.endswith("as well"):
        evidence[2].append(people.attest(2, [5], "stranger"))
    elif case == "altered since":
        change[2] = {"altered": True}
    elif case == "never taken out":
        change[2] = {"problem": "malformed"}
    rules = case.partition(",")[0]
    ahead, plain = (walk_chain(people, way, rules, evidence, change) for way in (True, False))
    assert ahead == plain
    assert conclude(ahead.findings)[0] == CHAINS[case]


def test_who_holds_a_key_is_asked_once(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(item: StoredEvidence, *arguments: Any, **options: Any) -> Any:
        asked.append(item.name)
        return authenticate(item, *arguments, **options)

    monkeypatch.setattr(assess, "authenticate", counted)
    evidence = {number: [people.attest(number, [number - 1], "trainer")] for number in range(1, LENGTH)}
    evidence[0] = [people.attest(0, [], "owner")]
    walk_chain(people, True, "", evidence, {})
    assert asked == [evidence[LENGTH - 1][0].name, evidence[0][0].name]
    asked.clear()
    walk_chain(people, False, "", evidence, {})
    assert len(asked) == LENGTH


def test_a_hint_that_is_not_the_key_under_which_it_was_opened_is_never_believed(people: People) -> None:
    """Whoever opened a stranger's piece and says that it names the producer's key, which is known by then."""
    evidence = {number: [people.attest(number, [number - 1], "trainer")] for number in range(1, LENGTH)}
    evidence[0] = [people.attest(0, [], "owner")]
    evidence[2] = [people.attest(2, [1], "stranger")]
    change = {2: {"hint": people.signers["trainer"].public_key.hint}}
    ahead, plain = (walk_chain(people, way, "", evidence, change) for way in (True, False))
    assert conclude(ahead.findings)[0] == conclude(plain.findings)[0] == "failed"
    assert ahead.graph.inputs == plain.graph.inputs
