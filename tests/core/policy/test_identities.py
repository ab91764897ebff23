"""Identity rules: the forms that are taken, and that no form means more than it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import UsageError
from sealflow.policy import CertificateIdentity, KeyIdentity, parse_identities
from sealflow.policy.identities import MAX_IDENTITIES
from sealflow.policy.requirement import CALL, Clause, Requirement
from tests.pki import KeyPair, Pki, write_key, write_pki

# Any key that never changes.
PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
"""


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return write_pki(tmp_path)


@pytest.mark.parametrize("value", [None, "", [], {}, (), "[]", "{}"])
def test_no_rule(value: Any) -> None:
    assert parse_identities(value) == ()


def test_a_key_in_every_form(keys: KeyPair) -> None:
    path = str(keys.public)
    forms: list[Any] = [
        path,
        f"file:{path}",
        keys.public.read_text(),
        [path],
        (path,),
        {"key": path},
        [{"key": path}],
        {"trainer": path},
        {"trainer": {"key": path}},
        json.dumps(path),
        json.dumps([path]),
        json.dumps({"trainer": {"key": path}}),
    ]
    hints = set()
    for form in forms:
        (rule,) = parse_identities(form)
        assert isinstance(rule, KeyIdentity)
        hints.add(rule.public_key.hint)
        assert parse_identities(parse_identities(form)) == (rule,)
        assert parse_identities(rule) == (rule,)
    assert len(hints) == 1


def test_names(keys: KeyPair) -> None:
    path = str(keys.public)
    rules = parse_identities({"trainer": path, "backup": {"key": path, "name": "Backup"}})
    assert [rule.name for rule in rules] == ["trainer", "Backup"]
    assert [rule.name for rule in parse_identities([path, {"key": path}])] == ["identities[0]", "identities[1]"]


def test_a_certificate_in_every_form(pki: Pki) -> None:
    root, name = str(pki.root_file), "email:trainer@example.org"
    for roots in (root, [root], pki.root.pem.decode()):
        for names in (name, [name], [name, "dns:x"]):
            (rule,) = parse_identities({"certificate": {"roots": roots, "names": names}})
            assert isinstance(rule, CertificateIdentity)
            assert rule.names[0] == name


REFUSED: dict[str, Any] = {
    "a-number": 1,
    "a-list-of-numbers": [1],
    "an-empty-text-in-a-list": [""],
    "null-in-a-list": [None],
    "nested-lists": [["x"]],
    "neither-kind": {"trainer": {}},
    "both-kinds": {"key": "x", "certificate": {"roots": "r", "names": "dns:x"}},
    "unknown-member": {"key": "x", "keys": "y"},
    "key-as-list": {"key": ["x"]},
    "key-empty": {"key": ""},
    "key-null": {"key": None},
    "certificate-as-text": {"certificate": "x"},
    "certificate-without-names": {"certificate": {"roots": "r"}},
    "certificate-without-roots": {"certificate": {"names": ["dns:x"]}},
    "certificate-with-no-names": {"certificate": {"roots": "r", "names": []}},
    "certificate-with-no-roots": {"certificate": {"roots": [], "names": ["dns:x"]}},
    "certificate-with-more": {"certificate": {"roots": "r", "names": ["dns:x"], "issuer": "x"}},
    "name-without-label": {"certificate": {"roots": "r", "names": ["trainer@example.org"]}},
    "name-with-other-label": {"certificate": {"roots": "r", "names": ["ip:1.2.3.4"]}},
    "producers-empty": {"key": "x", "producers": []},
    "producers-with-empty-text": {"key": "x", "producers": [""]},
    "producers-as-number": {"key": "x", "producers": 1},
    "builders-empty": {"key": "x", "builders": []},
    "name-empty": {"key": "x", "name": ""},
    "too-many": [f"key-{number}" for number in range(MAX_IDENTITIES + 1)],
    "broken-json": '{"key": ',
    "json-twice": '{"key": "a", "key": "b"}',
    "json-number": "[1]",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    with pytest.raises(UsageError):
        parse_identities(REFUSED[case])


def test_who_may_speak_for_whom() -> None:
    (rule,) = parse_identities({"key": "x", "producers": ["airflow:train/*", "kfp:**"], "builders": ["urn:a"]})
    assert rule.may_speak_for("airflow:train/fit", "urn:a")
    assert rule.may_speak_for("kfp:any/thing", "urn:a")
    assert not rule.may_speak_for("airflow:train/fit", "urn:b")
    assert not rule.may_speak_for("airflow:other/fit", "urn:a")
    assert not rule.may_speak_for("airflow:train/fit/deeper", "urn:a")
    (free,) = parse_identities({"key": "x"})
    assert free.may_speak_for("anything", "any")


class TestPolicyDigest:
    """The digest names what is trusted and demanded, not how it was written down."""

    def digest(self, identities: Any, **options: Any) -> str:
        return Requirement((Clause(CALL, parse_identities(identities)),), **options).policy_digest()

    def test_the_same_trust_written_otherwise(self, keys: KeyPair, tmp_path: Path) -> None:
        copy = tmp_path / "copy.pem"
        copy.write_bytes(keys.public.read_bytes())
        other = write_key(tmp_path, "other")
        expected = self.digest([str(keys.public), str(other.public)])
        assert expected.startswith("sha256:")
        assert self.digest({"b": str(other.public), "a": str(copy)}) == expected
        assert self.digest([other.public.read_text(), f"file:{copy}"]) == expected

    def test_order_of_lists_does_not_count(self, pki: Pki) -> None:
        def rule(*names: str) -> Any:
            return {"certificate": {"roots": str(pki.root_file), "names": list(names)}, "producers": ["b", "a"]}

        other = rule("dns:y", "dns:x") | {"producers": ["a", "b"]}
        assert self.digest(rule("dns:x", "dns:y")) == self.digest(other)

    def test_every_demand_counts(self, keys: KeyPair, pki: Pki, tmp_path: Path) -> None:
        other = write_key(tmp_path, "other")
        key = {"key": str(keys.public)}
        certificate = {"roots": str(pki.root_file), "names": ["dns:x"]}
        digests = [
            self.digest(key),
            self.digest(str(other.public)),
            self.digest([key, str(other.public)]),
            self.digest(key | {"producers": ["a"]}),
            self.digest(key | {"builders": ["a"]}),
            self.digest({"certificate": certificate}),
            self.digest({"certificate": certificate | {"names": ["dns:y"]}}),
            self.digest({"certificate": certificate | {"roots": str(pki.folder / "intermediate.pem")}}),
            self.digest(key, kinds=frozenset({"signature"})),
            self.digest(key, kinds=frozenset({"provenance"})),
            self.digest(key, name="a"),
            self.digest(key, producer="a"),
            self.digest(key, accept_legacy=True),
        ]
        assert len(set(digests)) == len(digests)

    def test_it_does_not_change_between_releases(self) -> None:
        """Verdicts and audit logs are compared over years."""
        assert self.digest(()) == "sha256:63694e24daa4c4f3125128e0fca0673152c820f2bf61c4bdd302e80de3e098ff"
        rule = {"key": PUBLIC_KEY, "producers": ["airflow:train/*"]}
        expected = "sha256:d6d1bf5676b3623bd6910b663e652e5ac1976824db773146046b654e5a04e78e"
        assert self.digest(rule, name="model") == expected


@pytest.mark.parametrize("kinds", [frozenset(), frozenset({"vibes"}), frozenset({"signature", "vibes"})])
def test_unknown_kinds_of_evidence(kinds: frozenset[str]) -> None:
    with pytest.raises(UsageError, match="known kinds"):
        Requirement((), kinds)


def test_a_producer_needs_provenance() -> None:
    with pytest.raises(UsageError, match="producer"):
        Requirement((), frozenset({"signature"}), producer="airflow:*")
