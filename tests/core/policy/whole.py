"""Documents that hold every member of every form, and what a hostile hand writes in the place of each value."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from sealflow.actions.policy_tables import PolicyTests
from sealflow.audit.note import COSIGNATURE, ED25519
from sealflow.policy.document import TrustPolicy, Waiver
from sealflow.policy.form import Form
from sealflow.policy.revocations import RevocationList
from tests.core.policy.test_revocations import LIST
from tests.core.policy.worlds import document, pem

Path = tuple[Any, ...]

_ROOT = "-----BEGIN CERTIFICATE-----"
_KEYS = [
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
]


def verifier_key(name: str, kind: int, number: int) -> str:
    """Return a verifier key; the keys are those of RFC 8032."""
    raw = bytes((kind,)) + bytes.fromhex(_KEYS[number])
    mark = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4].hex()
    return f"{name}+{mark}+{base64.b64encode(raw).decode()}"


_RULES: list[dict[str, Any]] = [
    {
        "name": "models",
        "scope": {
            "artifact": ["s3://models/**", "/data/*", "name:churn-*"],
            "orchestrator": ["airflow", "cli"],
            "team": ["ml"],
            "dag": ["train"],
            "task": ["*"],
        },
        "require": {
            "identities": {"at_least": 1, "of": ["a", "b"]},
            "evidence": {"signature": {"timestamp": True}, "provenance": {"max_age": "30d", "timestamp": False}},
            "producers": ["airflow:train/*"],
            "freshness": {"max_age": "24h"},
            "loaders": ["**"],
            "lineage": {
                "roots": ["a"],
                "datasets": ["sha256:" + "0" * 64],
                "level": "L3",
                "commits": {"allowed_signers": "a@example.org ssh-ed25519 AAAA\n", "branch": "refs/heads/main"},
            },
            "recipients": {"required": ["vault"], "only": ["vault", "cloud"], "encrypted": True},
            "reuse_verdict": {"max_age": "1h", "verifiers": ["gate"]},
            "audit": "included",
        },
        "level": "audit",
        "locked": ["identities", "evidence"],
    },
    {
        "name": "pinned",
        "scope": {"artifact": ["**"], "pipeline": ["p"]},
        "require": {"identities": {"any_of": ["a"]}, "freshness": "pinned"},
    },
    {
        "name": "both",
        "scope": {"artifact": ["**"]},
        "require": {"identities": {"all_of": ["a", "b"]}, "evidence": {"signature": {}}},
    },
    {"name": "off", "scope": {"artifact": ["/scratch/**"]}, "level": "off"},
]
POLICY = document(
    _RULES,
    grace_hours=24,
    recipients={
        "vault": {"rsa": "-----BEGIN PUBLIC KEY-----", "namespace": "team", "name": "vault"},
        "cloud": {"kms": "arn:aws:kms:eu-west-1:123456789012:key/k"},
    },
    signers=[{"scope": {"artifact": ["**"]}, "uri": "file:/keys/k.pem", "timestamp": "company"}],
    timestamp_authorities={
        "company": {"roots": [_ROOT], "url": "https://tsa.example.org/"},
        "log": {
            "log": verifier_key("log.example", ED25519, 0),
            "witnesses": [verifier_key("w.example/1", COSIGNATURE, 1), verifier_key("w.example/2", COSIGNATURE, 2)],
            "quorum": 1,
        },
    },
    delegations=[
        {
            "team": "ml",
            "artifact": ["s3://ml/**"],
            "key": pem(2),
            "policy": "s3://policies/ml.json",
            "minimum_version": 7,
        }
    ],
)
POLICY["identities"] = {
    "a": {
        "key": pem(0),
        "producers": ["airflow:train/*"],
        "builders": ["https://builder.example/1"],
        "valid_from": "2026-01-01T00:00:00Z",
        "expires": "2027-06-30T12:00:00.5+02:00",
    },
    "b": {"certificate": {"roots": [_ROOT], "names": ["email:anna@example.org"]}},
    "gate": {"key": pem(1), "verifier": True},
}
WAIVER: dict[str, Any] = {
    "apiVersion": "sealflow/v1",
    "kind": "Waiver",
    "id": "w1",
    "scope": {"artifact": ["s3://models/**"], "task": ["t"]},
    "digest": "dirHash:" + "1" * 64,
    "rules": [{"name": "models", "digest": "sha256:" + "0" * 64}, {"name": "ml/x", "digest": "sha256:" + "0" * 64}],
    "reason": "the store burned down",
    "not_before": "2026-01-01T00:00:00Z",
    "expires": "2026-01-05T00:00:00Z",
}
REVOCATIONS: dict[str, Any] = {
    **LIST,
    "withdrawn": [
        {"key": "sha256:" + "2" * 64, "version": 2, "reason": "a false alarm", "id": "SEC-1"},
        {"identity": "dns:example.org", "version": 3, "reason": "a false alarm"},
        {"digest": "sha256:" + "2" * 64, "version": 3, "reason": "a false alarm"},
    ],
}
TABLE: dict[str, Any] = {
    "apiVersion": "sealflow/v1",
    "kind": "PolicyTests",
    "now": "2026-06-01T00:00:00Z",
    "cases": [
        {
            "name": "refused",
            "artifact": "s3://models/x",
            "orchestrator": "airflow",
            "dag": "train",
            "task": "t",
            "team": "ml",
            "logical_name": "x",
            "digest": "sha256:" + "0" * 64,
            "evidence": [
                {"by": "a", "kind": "provenance", "producer": "airflow:train/t", "builder": "b", "age": "1h"},
                {"key": "sha256:" + "0" * 64, "kind": "signature", "timestamp": "2026-01-01T00:00:00Z"},
            ],
            "pinned": True,
            "traced": True,
            "recipients": ["vault"],
            "expect": "refused",
            "code": "PROVENANCE_MISSING",
            "rules": ["models"],
        },
        {"name": "pipeline", "artifact": "x", "pipeline": "p", "recipients": "clear", "expect": "passed"},
    ],
}
#: Each form that is a document, and one that holds all its members.
DOCUMENTS: dict[str, tuple[type[Form], dict[str, Any]]] = {
    "policy": (TrustPolicy, POLICY),
    "waiver": (Waiver, WAIVER),
    "revocations": (RevocationList, REVOCATIONS),
    "table": (PolicyTests, TABLE),
}

#: What stands in the place of a value, as JSON: each is another type, or another form of it, than some reader takes.
HOSTILE: dict[str, str] = {
    "null": "null",
    "true": "true",
    "false": "false",
    "zero": "0",
    "one": "1",
    "minus-zero": "-0",
    "negative": "-1",
    "two-to-53-and-one": str(2**53 + 1),
    "beyond-64-bits": str(2**64),
    "huge": "9" * 4000,
    "float": "1.0",
    "exponent": "1e0",
    "digits": '"1"',
    "word-true": '"true"',
    "empty-text": '""',
    "blank": '" "',
    "line-break-at-the-end": '"a\\n"',
    "carriage-return": '"a\\r"',
    "zero-byte": '"a\\u0000"',
    "next-line": '"a\\u0085"',
    "line-separator": '"\\u2028"',
    "arabic-digit": '"\\u0661h"',
    "astral": '"\\ud83d\\ude00"',
    "long-text": json.dumps("a" * 2001),
    "key-sized-text": json.dumps("a" * 8193),
    "file-scheme": '"aes:file:/k"',
    "private": '"-----BEGIN PRIVATE KEY-----"',
    "empty-list": "[]",
    "list-of-null": "[null]",
    "list-of-numbers": "[1]",
    "list-of-lists": "[[]]",
    "list-of-mappings": "[{}]",
    "list-of-text": '["a"]',
    "twice": '["a", "a"]',
    "long-list": json.dumps(["**"] * 1001),
    "empty-mapping": "{}",
    "mapping": '{"a": 1}',
    "mapping-of-mappings": '{"a": {}}',
    "own-names": '{"__class__": "x", "_check": 1, "__dict__": {}}',
    "date": '"2027-01-01"',
    "time": '"2027-01-01T00:00:00Z"',
    "time-small": '"2027-01-01t00:00z"',
    "time-naive": '"2027-01-01T00:00:00"',
    "time-leap": '"2027-01-01T23:59:60Z"',
    "time-24": '"2027-01-01T24:00:00Z"',
    "time-no-day": '"2027-02-30T00:00:00Z"',
    "time-far-zone": '"2027-01-01T00:00:00+24:00"',
    "time-odd-zone": '"2027-01-01T00:00:00+05:60"',
    "time-fine": '"2027-01-01T00:00:00.1234567Z"',
    "time-before": '"1999-12-31T23:59:59Z"',
    "time-year-zero": '"0000-01-01T00:00:00Z"',
    "duration": '"24h"',
    "duration-zero": '"0h"',
    "place": '"s3://models/**"',
    "name": '"name:x"',
}


def paths(value: Any, here: Path = ()) -> Iterator[Path]:
    """Return the path of every value in a document."""
    yield here
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in entries:
        yield from paths(item, (*here, name))


def put(body: Any, path: Path, text: str | None) -> bytes:
    """Return a document with JSON text in the place of a value, or without it."""
    mark = "\ue000put here"
    changed = copy.deepcopy(body)
    if not path:
        return (text or "").encode()
    at = changed
    for part in path[:-1]:
        at = at[part]
    if text is None:
        del at[path[-1]]
        return json.dumps(changed).encode()
    at[path[-1]] = mark
    return json.dumps(changed).replace(json.dumps(mark), text).encode()


def added(body: Any, path: Path) -> bytes:
    """Return a document with one more member in the mapping at a path."""
    changed = copy.deepcopy(body)
    at = changed
    for part in path:
        at = at[part]
    at["unheard_of"] = None
    return json.dumps(changed).encode()


def wrongs(body: Any) -> Iterator[tuple[str, bytes]]:
    """Return a document with each of its values taken out, and with each hostile one in the place of each."""
    for path in paths(body):
        if path:
            yield f"{path} out", put(body, path, None)
        for name, text in HOSTILE.items():
            yield f"{path} {name}", put(body, path, text)
