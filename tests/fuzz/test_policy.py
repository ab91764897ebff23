"""Whatever bytes arrive as a policy, a waiver, a draft or an admin's channel, only our own errors come out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow import strictjson
from sealflow.errors import EvidenceError, PolicyError, SealflowError, UnavailableError, UsageError
from sealflow.keys import KeySigner, load_signer
from sealflow.policy.compose import CompiledPolicy
from sealflow.policy.document import parse_policy, parse_waiver
from sealflow.policy.draft import parse_draft
from sealflow.policy.signed import POLICY_TYPE, WAIVER_TYPE, make_signed, open_signed
from sealflow.policy.source import AdminChannel, open_policy
from tests.core.policy.worlds import document, pem
from tests.fuzz.test_untrusted_bytes import mutated
from tests.pki import write_key

# Many examples each.
pytestmark = pytest.mark.slow

EXAMPLES = 4 * settings().max_examples

RULES: list[dict[str, Any]] = [
    {
        "name": "models",
        "scope": {"artifact": ["s3://models/**", "/data/*", "name:churn-*"], "dag": ["train"], "team": ["ml"]},
        "require": {
            "identities": {"at_least": 1, "of": ["a", "b"]},
            "evidence": {"signature": {}, "provenance": {"max_age": "30d"}},
            "producers": ["airflow:train/*"],
            "freshness": {"max_age": "24h"},
            "loaders": ["**"],
            "reuse_verdict": {"max_age": "1h"},
        },
        "locked": ["identities"],
    },
    {"name": "off", "scope": {"artifact": ["/tmp/x/**"], "pipeline": ["p"]}, "level": "off"},
]
POLICY = document(
    RULES,
    signers=[{"scope": {"artifact": ["**"]}, "uri": "file:/keys/k.pem"}],
    delegations=[{"team": "ml", "artifact": ["s3://ml/**"], "key": pem(2), "policy": "s3://policies/ml.json"}],
    grace_hours=24,
)
WAIVER = {
    "apiVersion": "sealflow/v1",
    "kind": "Waiver",
    "id": "w1",
    "scope": {"artifact": ["s3://models/**"]},
    "rules": [{"name": "models", "digest": "sha256:" + "0" * 64}],
    "reason": "the store burned down",
    "not_before": "2026-01-01T00:00:00Z",
    "expires": "2026-01-05T00:00:00Z",
}
CHANNEL = {
    "policy": "s3://policies/policy.json",
    "keys": ["/etc/sealflow/admin.pem"],
    "minimum_version": 3,
    "managed": ["s3://models/**"],
    "waivers": "s3://policies/waivers",
    "waiver_keys": [pem(0)],
    "state": "/var/lib/sealflow",
}
JSON = [json.dumps(item).encode() for item in (POLICY, WAIVER, CHANNEL)]
YAML = [
    b"apiVersion: sealflow/v1\nversion: 3\nexpires: 2027-06-30T00:00:00Z\nidentities:\n"
    b"  trainer: {key: t.pub, verifier: true}\n"
    b"rules:\n- name: models\n  scope:\n    artifact: ['s3://models/**', \"/data/*\"]\n  level: 'off'\n",
    JSON[0],
]
PIECES = [
    b"&a ", b"*a", b"!!int ", b"!!str ", b"!!python/object/apply:os.system [x]", b"!!binary ", b"<<: ", b"? ", b"--- ",
    b"...", b"|\n ", b">\n ", b"0o17", b"017", b"0x1f", b"1_0", b"1:30", b"1e9", b"~", b"yes", b"\xef\xbb\xbf", b"\t",
    b"\xc2\x85", b'"\\ud800"', b'"\\ud83d\\ude00"', b"9" * 5000, b"- " * 40, b"{" * 40, b"%YAML 9.9\n",
    b"%TAG ! tag:x,1:\n", b"#",
    b"9999-12-31T23:59:59-12:00", b"0001-01-01T00:00:00+14:00", b"@", b"`",
]  # fmt: skip


@st.composite
def spliced(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A document with a few changes, some of them YAML's own."""
    data = bytearray(draw(mutated(seeds)))
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 3))] = draw(st.sampled_from(PIECES))
    return bytes(data)


def test_the_seeds_are_sound() -> None:
    CompiledPolicy(parse_policy(JSON[0]))
    parse_waiver(JSON[1])
    AdminChannel.parse(json.loads(JSON[2]), "x")
    for item in YAML:
        parse_draft(item, "x")


@settings(max_examples=EXAMPLES)
@given(raw=spliced(JSON[:2]))
def test_documents(raw: bytes) -> None:
    for reader in (parse_policy, parse_waiver):
        try:
            found = reader(raw)
        except PolicyError:
            continue
        # What is taken once is taken again, from its own canonical form.
        again = strictjson.dumps(strictjson.loads(raw, limit=len(raw), what="x"))
        assert reader(again) == found
    with contextlib.suppress(UsageError):
        CompiledPolicy(parse_policy(raw))


@settings(max_examples=EXAMPLES)
@given(raw=spliced(YAML))
def test_drafts(raw: bytes) -> None:
    try:
        draft = parse_draft(raw, "the draft")
    except PolicyError:
        return
    assert isinstance(draft.json, bytes)
    breaks = sum(raw.count(item) for item in (b"\n", b"\r", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9"))
    assert all(1 <= line <= breaks + 1 for line in draft.lines.values())
    with contextlib.suppress(PolicyError):
        draft.policy()
    with contextlib.suppress(PolicyError):
        draft.waiver()


@settings(max_examples=EXAMPLES)
@given(raw=spliced(JSON[2:]))
def test_channels(raw: bytes) -> None:
    try:
        body = strictjson.loads(raw, limit=1 << 20, what="x")
    except EvidenceError:
        return
    with contextlib.suppress(UsageError):
        channel = AdminChannel.parse(body, "x")
        assert channel.keys
        assert channel.policy
        assert channel.minimum_version >= 1


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> KeySigner:
    return load_signer(write_key(tmp_path_factory.mktemp("keys")).signer)


@pytest.fixture(scope="module")
def bundles(signer: KeySigner) -> list[bytes]:
    return [make_signed(JSON[0], signer, POLICY_TYPE), make_signed(JSON[1], signer, WAIVER_TYPE)]


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_signed_documents(signer: KeySigner, bundles: list[bytes], data: st.DataObject) -> None:
    """What opens is what was signed, of its own kind."""
    raw = data.draw(mutated(bundles))
    for kind, payload in ((POLICY_TYPE, JSON[0]), (WAIVER_TYPE, JSON[1])):
        try:
            opened = open_signed(raw, [signer.public_key], kind)
        except EvidenceError:
            continue
        assert opened.payload == payload
        assert opened.key == signer.public_key.hint
    try:
        policy, key = open_policy(raw, [signer.public_key], 1, "x")
    except UnavailableError:
        return
    assert key == signer.public_key.hint
    assert policy.document == parse_policy(JSON[0])


@settings(max_examples=EXAMPLES // 4)
@given(raw=spliced(JSON[:1]))
def test_policies_that_an_admin_signed_wrongly(signer: KeySigner, raw: bytes) -> None:
    """However odd it is, it is in force or not to be had."""
    with contextlib.suppress(UnavailableError):
        open_policy(make_signed(raw, signer, POLICY_TYPE), [signer.public_key], 1, "x")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["/x", "s3://b/x", "x/**"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CHANNEL, "where"]) | st.text(), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=EXAMPLES)
@given(value=values)
def test_any_value_as_a_channel(value: Any) -> None:
    with contextlib.suppress(UsageError):
        AdminChannel.parse(value, "x")


def test_no_error_but_ours_for_any_file(tmp_path: Path) -> None:
    from sealflow.policy.draft import read_draft

    for number, raw in enumerate([b"", b"\xff", b"x", b"[]", b"{}", b"a: b", b"- a", b"\x00"]):
        path = tmp_path / str(number)
        path.write_bytes(raw)
        with pytest.raises(SealflowError):
            read_draft(str(path)).policy()
