"""Whatever bytes arrive, only our own errors come out, and a verdict never passes by accident.

Real documents are mutated: bytes flipped, cut, doubled, spliced with pieces that JSON and the formats know. CI draws
more examples (profile ``ci``).
"""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sealflow
from sealflow import ArtifactRef, SealflowError, StoredEvidence
from sealflow.actions.inspect import describe
from sealflow.evidence.bundle import make_bundle, parse_bundle
from sealflow.evidence.oms import make_oms_statement, parse_oms_statement
from sealflow.evidence.provenance import make_provenance_statement, parse_provenance
from sealflow.evidence.statement import parse_statement
from sealflow.hashing import Digest
from sealflow.keys import load_signer
from sealflow.manifest import Manifest, Resource, Serialization
from sealflow.policy import parse_identities
from sealflow.run_identity import RunIdentity
from tests.pki import NOW, write_key, write_pki
from tests.trees import write_tree

# Many examples each.
pytestmark = pytest.mark.slow

EXAMPLES = 4 * settings().max_examples

DIGEST = Digest("dirHash", "ab" * 32)
PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"1e999", b"-1", b"NaN", b"\x00", b"\xff",
    b"\xed\xa0\x80", b'"\\ud800"', b"../", b"/", b"..", b":0:5", b":5:3", b'"keyid":null', b'"rawBytes":"QQ=="',
    b'"certificate":{}', b'"x509CertificateChain":{"certificates":[]}', b'"allow_symlinks":true', b'"shard_size":1',
    b'"sha512":"x"', "\u202e".encode(), b"9" * 30, b"[" * 40, b'{"a":' * 40,
]  # fmt: skip

OMS = [
    make_oms_statement(Manifest("tree", "m", (Resource("a", "aa" * 32), Resource("b/c", "bb" * 32)), ignored=("x",))),
    make_oms_statement(
        Manifest(
            "tree",
            "m",
            (Resource("a:0:5", "aa" * 32), Resource("a:5:6", "bb" * 32)),
            Serialization("shards", "sha256", 5),
        )
    ),
]
PROVENANCE = make_provenance_statement(
    "m", DIGEST, RunIdentity("airflow", "d", "t", "r"), parameters={"a": "b"}, now=NOW
)
REFERENCE = ArtifactRef("file:///m", DIGEST, "file:///m.evidence", "v1").to_json().encode()
IDENTITIES = json.dumps(
    {"a": {"key": "file:/k", "producers": ["x/*"]}, "b": {"certificate": {"roots": ["r"], "names": ["dns:x"]}}}
).encode()


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A document with a few changes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        match draw(st.integers(0, 4)):
            case 0:
                data[start:end] = draw(st.sampled_from(PIECES))
            case 1:
                data[start:start] = draw(st.sampled_from(PIECES))
            case 2:
                data[start:end] = data[start:end] * 2
            case 3:
                data[start:end] = draw(st.binary(max_size=6))
            case _:
                del data[end:]
    return bytes(data)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("keys")
    signers = [load_signer(write_key(folder).signer), load_signer(write_pki(folder).signer)]
    return [make_bundle(payload, signer) for payload in (*OMS, PROVENANCE) for signer in signers]


def read_payload(payload: bytes) -> None:
    """Read a payload as everything that it could be."""
    try:
        statement = parse_statement(payload)
    except SealflowError:
        return
    for reader in (parse_oms_statement, parse_provenance):
        with contextlib.suppress(SealflowError):
            reader(statement)


@settings(max_examples=EXAMPLES)
@given(payload=mutated([*OMS, PROVENANCE]))
def test_statements(payload: bytes) -> None:
    read_payload(payload)


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_bundles(bundles: list[bytes], data: st.DataObject) -> None:
    raw = data.draw(mutated(bundles))
    describe(raw)
    try:
        bundle = parse_bundle(raw)
    except SealflowError:
        with pytest.raises(SealflowError):
            parse_bundle(b" " + raw)
        return
    # Our own form is read by a shorter way; after white space nothing is.
    assert bundle == parse_bundle(b" " + raw)
    read_payload(bundle.payload)


@settings(max_examples=EXAMPLES)
@given(raw=mutated([REFERENCE]))
def test_references(raw: bytes) -> None:
    try:
        forms: list[Any] = [raw, raw.decode("utf-8")]
    except UnicodeDecodeError:
        forms = [raw]
    with contextlib.suppress(ValueError, RecursionError):
        forms.append(json.loads(raw))
    for form in forms:
        try:
            ref = ArtifactRef.parse(form)
        except SealflowError:
            continue
        assert ArtifactRef.parse(ref.as_dict()) == ref


# What an author can hand over: any JSON-like value, not only mappings with text as keys.
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from(["key", "certificate"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["key", "certificate", "roots", "names", "name", "producers", "uri", "digest"]) | st.text(),
            inner,
            max_size=4,
        )
        | st.dictionaries(st.integers(), inner, max_size=2)
    ),
    max_leaves=12,
)


@settings(max_examples=EXAMPLES)
@given(value=values)
def test_any_value_as_identities_or_reference(value: Any) -> None:
    for reader in (parse_identities, ArtifactRef.parse):
        with contextlib.suppress(SealflowError):
            reader(value)


@settings(max_examples=EXAMPLES)
@given(raw=mutated([IDENTITIES]))
def test_identities_as_text(raw: bytes) -> None:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return
    with contextlib.suppress(SealflowError):
        parse_identities(text)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[bytes]]:
    """A signed tree, who may sign it, and its two genuine bundles."""
    folder = tmp_path_factory.mktemp("signed")
    keys = write_key(folder)
    model = write_tree(folder / "model", {"a": b"1", "b/c": b"2"})
    sealflow.sign(model, signer=keys.signer, evidence_store=str(folder / "store"))
    return model, str(keys.public), [path.read_bytes() for path in sorted((folder / "store").rglob("*.json"))]


@settings(max_examples=EXAMPLES // 4)
@given(data=st.data())
def test_mutated_evidence_never_passes(signed: tuple[Path, str, list[bytes]], data: st.DataObject) -> None:
    """A verdict comes out, and passes only if both genuine payloads are still under genuine signatures."""
    model, identities, genuine = signed
    raws = [data.draw(mutated([item])) for item in genuine]
    verdict = sealflow.verify(
        model,
        identities=identities,
        evidence=[StoredEvidence(str(number), raw) for number, raw in enumerate(raws)],
        only_given_evidence=True,
    )

    def essence(raw: bytes) -> tuple[bytes, bytes]:
        envelope = json.loads(raw)["dsseEnvelope"]
        return base64.b64decode(envelope["payload"]), base64.b64decode(envelope["signatures"][0]["sig"])

    if verdict.passed:
        assert [essence(raw) for raw in raws] == [essence(raw) for raw in genuine]
