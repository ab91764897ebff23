"""The list of revocations: strictly read, signed as a kind of its own, and written once for each version."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sealflow.actions.revocation_list import read_list, sign_list
from sealflow.errors import EvidenceError, PolicyError
from sealflow.keys import load_public_key, load_signer
from sealflow.policy.revocations import CompiledRevocations, parse_revocations, revocations_schema
from sealflow.policy.signed import POLICY_TYPE, REVOCATIONS_TYPE, WAIVER_TYPE, make_signed, open_signed
from tests.pki import write_key

Body = dict[str, Any]

LIST: Body = {
    "apiVersion": "sealflow/v1",
    "kind": "Revocations",
    "version": 3,
    "expires": "2027-01-01T00:00:00Z",
    "grace_hours": 24,
    "revocations": [
        {"key": "sha256:" + "0" * 64, "since": "2026-01-01T00:00:00Z", "reason": "stolen", "id": "SEC-17"},
        {"identity": "trainer", "since": "2026-01-01T00:00:00+01:00", "reason": "laptop lost"},
        {"identity": "email:anna@example.org", "since": "2026-01-01T00:00:00.5Z", "reason": "left"},
        {"digest": "dirHash:" + "1" * 64, "since": "2026-01-01T00:00:00Z", "reason": "poisoned"},
    ],
}


def edited(edit: Callable[[Body], object]) -> bytes:
    changed = copy.deepcopy(LIST)
    edit(changed)
    return json.dumps(changed).encode()


def first(**changes: Any) -> Callable[[Body], object]:
    """Change the first entry; ``None`` takes a member away."""

    def edit(body: Body) -> None:
        entry = {**body["revocations"][0], **changes}
        body["revocations"][0] = {name: value for name, value in entry.items() if value is not None}

    return edit


REFUSED: dict[str, Callable[[Body], object]] = {
    "another-kind": lambda b: b.update(kind="Waiver"),
    "no-kind": lambda b: b.pop("kind"),
    "a-member-of-a-policy": lambda b: b.update(rules=[]),
    "no-version": lambda b: b.pop("version"),
    "version-as-text": lambda b: b.update(version="3"),
    "version-zero": lambda b: b.update(version=0),
    "version-as-float": lambda b: b.update(version=3.0),
    "never-expires": lambda b: b.pop("expires"),
    "expires-as-number": lambda b: b.update(expires=1893456000),
    "grace-without-end": lambda b: b.update(grace_hours=31 * 24),
    "grace-negative": lambda b: b.update(grace_hours=-1),
    "entries-as-mapping": lambda b: b.update(revocations={}),
    "entries-null": lambda b: b.update(revocations=None),
    "names-nothing": first(key=None),
    "key-and-digest": first(digest="sha256:" + "0" * 64),
    "key-and-identity": first(identity="trainer"),
    "a-pem": first(key="-----BEGIN PUBLIC KEY-----"),
    "upper-case": first(key="sha256:" + "A" * 64),
    "short-key": first(key="sha256:" + "0" * 63),
    "key-with-line-end": first(key="sha256:" + "0" * 64 + "\n"),
    "key-without-algorithm": first(key="0" * 64),
    "another-digest": first(key=None, digest="md5:" + "0" * 32),
    "identity-of-a-team": first(key=None, identity="risk/trainer"),
    "identity-with-control-character": first(key=None, identity="email:anna\x1b@example.org"),
    "identity-empty": first(key=None, identity=""),
    "identity-with-an-empty-label": first(key=None, identity="email:"),
    "identity-with-an-unknown-label": first(key=None, identity="oidc:anna"),
    "since-missing": first(since=None),
    "since-a-day": first(since="2026-01-01"),
    "since-without-zone": first(since="2026-01-01T00:00:00"),
    "since-as-number": first(since=1767225600),
    "since-digits": first(since="1767225600"),
    "since-no-day": first(since="2026-02-30T00:00:00Z"),
    "since-no-month": first(since="2026-13-01T00:00:00Z"),
    "since-no-hour": first(since="2026-01-01T25:00:00Z"),
    "since-no-zone-of-this-world": first(since="2026-01-01T00:00:00+99:00"),
    "since-in-other-digits": first(since="٢٠٢٦-01-01T00:00:00Z"),
    "no-reason": first(reason=None),
    "reason-empty": first(reason=""),
    "reason-with-control-character": first(reason="stolen\x1b[2J"),
    "reason-too-long": first(reason="x" * 2001),
    "ticket-with-a-blank": first(id="SEC 17"),
    "withdrawn-nothing": lambda b: b.update(withdrawn=[{"reason": "x", "version": 2}]),
    "withdrawn-two": lambda b: b.update(
        withdrawn=[{"reason": "x", "version": 2, "identity": "a", "digest": "sha256:" + "0" * 64}]
    ),
    "withdrawn-without-reason": lambda b: b.update(withdrawn=[{"identity": "a", "version": 2}]),
    "withdrawn-without-version": lambda b: b.update(withdrawn=[{"identity": "a", "reason": "x"}]),
    "withdrawn-later-than-itself": lambda b: b.update(withdrawn=[{"identity": "a", "reason": "x", "version": 4}]),
    "withdrawn-before-anything": lambda b: b.update(withdrawn=[{"identity": "a", "reason": "x", "version": 1}]),
    "unknown-member": first(until="2027-01-01T00:00:00Z"),
}


@pytest.mark.parametrize("edit", REFUSED.values(), ids=REFUSED.keys())
def test_a_list_is_read_strictly(edit: Callable[[Body], object]) -> None:
    with pytest.raises(PolicyError):
        parse_revocations(edited(edit))


def test_a_member_given_twice() -> None:
    text = json.dumps(LIST).replace('"reason": "stolen"', '"reason": "stolen", "reason": "planned"')
    with pytest.raises(PolicyError, match="twice"):
        parse_revocations(text.encode())


def test_a_newer_form_is_named_as_such() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_revocations(edited(lambda b: b.update(apiVersion="sealflow/v2")))
    assert caught.value.code == "POLICY_TOO_NEW"


def test_the_published_schema_takes_what_we_take() -> None:
    validator = jsonschema.Draft202012Validator(revocations_schema())
    jsonschema.Draft202012Validator.check_schema(revocations_schema())
    validator.validate(LIST)
    for name in ("names-nothing", "key-and-digest", "upper-case", "unknown-member", "since-digits", "never-expires"):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(json.loads(edited(REFUSED[name])))


def test_times_and_tickets() -> None:
    found = parse_revocations(json.dumps(LIST).encode())
    utc = datetime.timezone.utc
    assert [item.at.astimezone(utc) for item in found.revocations[:3]] == [
        datetime.datetime(2026, 1, 1, tzinfo=utc),
        datetime.datetime(2025, 12, 31, 23, tzinfo=utc),
        datetime.datetime(2026, 1, 1, 0, 0, 0, 500_000, utc),
    ]
    assert found.revocations[0].id == "SEC-17"


def test_what_is_named_twice_counts_from_the_earlier_time() -> None:
    """Whoever adds a later entry must not shorten an earlier one."""
    entries = [
        {"key": "sha256:" + "0" * 64, "since": since, "reason": since}
        for since in ("2026-03-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
    ]
    document = parse_revocations(edited(lambda b: b.update(revocations=entries)))
    found = CompiledRevocations(document, digest="").resolved({})
    assert found.keys["0" * 64].reason == "2026-01-01T00:00:00Z"


def test_an_identity_stands_for_all_that_it_holds() -> None:
    document = parse_revocations(json.dumps(LIST).encode())
    compiled = CompiledRevocations(document, digest="ab")
    assert set(compiled.identities) == {"trainer"}
    found = compiled.resolved({"trainer": (("a" * 64, "b" * 64), ("dns:host",))})
    assert set(found.keys) == {"0" * 64, "a" * 64, "b" * 64}
    assert set(found.names) == {"email:anna@example.org", "dns:host"}
    assert found.digests == {"dirHash:" + "1" * 64: "poisoned"}
    assert set(compiled.resolved({}).keys) == {"0" * 64}


def test_neither_a_policy_nor_a_waiver_passes_for_a_list(tmp_path: Path) -> None:
    pair = write_key(tmp_path, "admin")
    signer, key = load_signer(pair.signer), load_public_key(str(pair.public))
    payload = json.dumps(LIST).encode()
    for kind in (POLICY_TYPE, WAIVER_TYPE):
        with pytest.raises(EvidenceError):
            open_signed(make_signed(payload, signer, kind), [key], REVOCATIONS_TYPE)
        with pytest.raises(EvidenceError):
            open_signed(make_signed(payload, signer, REVOCATIONS_TYPE), [key], kind)
    assert open_signed(make_signed(payload, signer, REVOCATIONS_TYPE), [key], REVOCATIONS_TYPE).payload == payload


class TestSigning:
    """One list in its place; each version once."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return str(tmp_path / "revocations.json")

    def test_a_list_can_be_read_back(self, tmp_path: Path, place: str) -> None:
        pair = write_key(tmp_path, "admin")
        assert read_list(place, [str(pair.public)]) is None
        made = sign_list(parse_revocations(json.dumps(LIST).encode()), signer=pair.signer, output=place)
        found = read_list(place, [str(pair.public)])
        assert made.written
        assert found is not None
        assert (found.document, found.digest, found.key) == (made.document, made.digest, made.key)

    def test_the_same_list_changes_nothing(self, tmp_path: Path, place: str) -> None:
        signer = write_key(tmp_path, "admin").signer
        document = parse_revocations(json.dumps(LIST).encode())
        sign_list(document, signer=signer, output=place)
        before = Path(place).read_bytes()
        assert not sign_list(document, signer=signer, output=place).written
        assert Path(place).read_bytes() == before

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_the_version_must_rise(self, tmp_path: Path, place: str, version: int) -> None:
        signer = write_key(tmp_path, "admin").signer
        sign_list(parse_revocations(json.dumps(LIST).encode()), signer=signer, output=place)
        before = Path(place).read_bytes()
        other = parse_revocations(edited(lambda b: b.update(version=version, revocations=[])))
        with pytest.raises(PolicyError) as caught:
            sign_list(other, signer=signer, output=place)
        assert caught.value.code == "POLICY_VERSION"
        assert Path(place).read_bytes() == before

    def test_a_higher_version_takes_its_place(self, tmp_path: Path, place: str) -> None:
        pair = write_key(tmp_path, "admin")
        sign_list(parse_revocations(json.dumps(LIST).encode()), signer=pair.signer, output=place)
        assert sign_list(
            parse_revocations(edited(lambda b: b.update(version=4))), signer=pair.signer, output=place
        ).written
        found = read_list(place, [str(pair.public)])
        assert found is not None
        assert found.document.version == 4

    @pytest.mark.parametrize("what", ["a stranger's", "no list", "empty"])
    def test_what_is_not_ours_is_not_written_over(self, tmp_path: Path, place: str, what: str) -> None:
        signer = write_key(tmp_path, "admin").signer
        document = parse_revocations(json.dumps(LIST).encode())
        if what == "a stranger's":
            sign_list(document, signer=write_key(tmp_path, "stranger").signer, output=place)
        else:
            Path(place).write_text("{}" if what == "no list" else "")
        before = Path(place).read_bytes()
        with pytest.raises(PolicyError):
            sign_list(parse_revocations(edited(lambda b: b.update(version=9))), signer=signer, output=place)
        assert Path(place).read_bytes() == before
