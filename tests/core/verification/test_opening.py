"""Provenance opened ahead of a walk: only what is in order, and only under the key that made its signature."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealflow.evidence.bundle import make_bundle, parse_bundle
from sealflow.evidence.provenance import Dependency, parse_dependencies, parse_provenance
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.keys import load_public_key
from sealflow.policy.requirement import Revocations
from sealflow.verification.authenticate import Authentic, authenticate
from sealflow.verification.opening import Opened, claim_of, open_provenance
from tests.core.verification.test_walk import NOW, People, digest

NOBODY = Revocations({}, {})


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
    for revoked in (NOBODY, Revocations({people.signers["trainer"].public_key.hint: "stolen"}, {})):
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
