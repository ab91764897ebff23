"""Bundles and OMS statements: what is written, and each thing that is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import EvidenceError
from sealflow.evidence.bundle import make_bundle, pae, parse_bundle
from sealflow.evidence.oms import as_signed, make_oms_statement, parse_oms_statement, split_shard
from sealflow.evidence.statement import parse_statement
from sealflow.keys import load_public_key, load_signer
from sealflow.manifest import Manifest, Resource, Serialization
from tests.pki import write_key, write_pki

A = "aa" * 32
B = "bb" * 32


def test_pae_counts_bytes() -> None:
    # The example of the DSSE specification (protocol.md).
    assert pae(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é".encode(), "é") == "DSSEv1 2 é 2 é".encode()
    assert pae(b"", "") == b"DSSEv1 0  0 "


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    keys = write_key(tmp_path_factory.mktemp("keys"))
    return make_bundle(b"payload", load_signer(keys.signer))


def test_key_bundle(tmp_path: Path) -> None:
    keys = write_key(tmp_path)
    data = make_bundle(b"payload", load_signer(keys.signer))
    parsed = parse_bundle(data)
    public = load_public_key(str(keys.public))
    assert (parsed.payload, parsed.hint, parsed.chain, parsed.keyless) == (b"payload", public.hint, (), False)
    assert public.verify(parsed.signature, pae(b"payload"))
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()


def test_certificate_bundle(tmp_path: Path) -> None:
    pki = write_pki(tmp_path)
    parsed = parse_bundle(make_bundle(b"payload", load_signer(pki.signer)))
    assert (len(parsed.chain), parsed.hint) == (2, None)


def outcome(data: bytes) -> object:
    try:
        return parse_bundle(data)
    except EvidenceError as error:
        return error.code


#: Changes to a bundle in our own form, after which it is one no more or says something else.
NEAR_OWN_FORM: dict[str, tuple[bytes, bytes]] = {
    "another hint": (b'"hint":"', b'"hint":"0'),
    "a hint in capitals": (b'"hint":"', b'"hint":"ABCDEF'),
    "an escaped hint": (b'"hint":"', b'"hint":"\\u0030'),
    "no hint": (b'"hint":', b'"tnih":'),
    "a key id": (b'"keyid":""', b'"keyid":"x"'),
    "a second signature": (b'"signatures":[', b'"signatures":[{"keyid":"","sig":"AAAA"},'),
    "a second payload": (b'{"payload":"', b'{"payload":"AAAA","payload":"'),
    "a payload that closes itself": (b'"payload":"', b'"payload":"AAAA","payloadType":"x","y":"'),
    "padding within": (b'"payload":"', b'"payload":"AA=='),
    "a line break within": (b'"payload":"', b'"payload":"\n'),
    "a space within": (b'"payload":"', b'"payload":" '),
    "a letter beyond ASCII": (b'"payload":"', '"payload":"é'.encode()),
    "bytes that are no UTF-8": (b'"payload":"', b'"payload":"\xff'),
    "another payload type": (b"in-toto", b"in-tot0"),
    "the frame twice": (b'"sig":"', b'"sig":"AAAA"}]},"mediaType":"x","verificationMaterial":{"publicKey":{"hint":"'),
    "one more member": (b'{"dsseEnvelope"', b'{"a":1,"dsseEnvelope"'),
    "another release": (b"bundle.v0.3", b"bundle.v0.2"),
    "log entries": (b'"tlogEntries":[]', b'"tlogEntries":[{}]'),
    "nothing": (b"", b""),
}


@pytest.mark.parametrize("change", NEAR_OWN_FORM)
def test_our_own_form_is_read_like_any_other(bundle: bytes, change: str) -> None:
    """It is read by a shorter way; white space before it takes the way of all JSON."""
    changed = bundle.replace(*NEAR_OWN_FORM[change], 1)
    assert (changed == bundle) == (change == "nothing")
    assert outcome(changed) == outcome(b" " + changed)


@given(data=st.data())
def test_bytes_near_our_own_form_are_read_like_any_other(bundle: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(bundle)))
    piece = data.draw(st.sampled_from([b"", b'"', b"=", b"A", b"\\", b"{}", b",", b"\0"]) | st.binary(max_size=3))
    changed = bundle[:at] + piece + bundle[at + data.draw(st.integers(0, 3)) :]
    assert outcome(changed) == outcome(b" " + changed)


def edit(bundle: bytes, action: Callable[[Any], object]) -> bytes:
    body = json.loads(bundle)
    action(body)
    return json.dumps(body).encode()


ACCEPTED: dict[str, Callable[[Any], object]] = {
    "keyid-absent": lambda body: body["dsseEnvelope"]["signatures"][0].pop("keyid"),
    "keyid-null": lambda body: body["dsseEnvelope"]["signatures"][0].update(keyid=None),
    "keyid-some": lambda body: body["dsseEnvelope"]["signatures"][0].update(keyid="x"),
    "tlog-absent": lambda body: body["verificationMaterial"].pop("tlogEntries"),
    "hint-absent": lambda body: body["verificationMaterial"].update(publicKey={}),
    "hint-empty": lambda body: body["verificationMaterial"].update(publicKey={"hint": ""}),
    "raw-bytes": lambda body: body["verificationMaterial"].update(publicKey={"rawBytes": "QUFB", "keyDetails": "X"}),
    "timestamp": lambda body: body["verificationMaterial"].update(timestampVerificationData={"rfc3161Timestamps": []}),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_forms_of_past_releases(bundle: bytes, case: str) -> None:
    assert parse_bundle(edit(bundle, ACCEPTED[case])).payload == b"payload"


def material(**members: Any) -> Callable[[Any], object]:
    return lambda body: body.update(verificationMaterial=members)


def envelope(**members: Any) -> Callable[[Any], object]:
    return lambda body: body["dsseEnvelope"].update(members)


REFUSED: dict[str, Callable[[Any], object]] = {
    "media-type-absent": lambda body: body.pop("mediaType"),
    "media-type-other": lambda body: body.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"),
    "member-unknown": lambda body: body.update(extra=1),
    "message-signature": lambda body: body.update(messageSignature={}),
    "material-absent": lambda body: body.pop("verificationMaterial"),
    "material-null": lambda body: body.update(verificationMaterial=None),
    "material-empty": material(tlogEntries=[]),
    "material-unknown": material(publicKey={}, other=1),
    "material-two-kinds": material(
        publicKey={"hint": "x"}, x509CertificateChain={"certificates": [{"rawBytes": "QQ=="}]}
    ),
    "key-as-text": material(publicKey="x"),
    "hint-as-number": material(publicKey={"hint": 1}),
    "chain-empty": material(x509CertificateChain={"certificates": []}),
    "chain-as-text": material(x509CertificateChain={"certificates": ["QQ=="]}),
    "chain-not-base64": material(x509CertificateChain={"certificates": [{"rawBytes": "?"}]}),
    "keyless-without-log-entry": material(certificate={"rawBytes": "QQ=="}, tlogEntries=[]),
    "tlog-as-object": material(publicKey={}, tlogEntries={}),
    "timestamp-as-list": material(publicKey={}, timestampVerificationData=[]),
    "envelope-absent": lambda body: body.pop("dsseEnvelope"),
    "envelope-unknown": envelope(other=1),
    "payload-absent": lambda body: body["dsseEnvelope"].pop("payload"),
    "payload-not-base64": envelope(payload="?"),
    "payload-url-safe": envelope(payload=base64.urlsafe_b64encode(b"\xff\xfe\xfd").decode()),
    "payload-with-line-break": envelope(payload="cGF5\nbG9hZA=="),
    "payload-type-other": envelope(payloadType="text/plain"),
    "no-signature": envelope(signatures=[]),
    "two-signatures": lambda body: body["dsseEnvelope"]["signatures"].append(body["dsseEnvelope"]["signatures"][0]),
    "signature-unknown-member": lambda body: body["dsseEnvelope"]["signatures"][0].update(other=1),
    "signature-empty-object": envelope(signatures=[{}]),
    "keyid-as-number": lambda body: body["dsseEnvelope"]["signatures"][0].update(keyid=1),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(bundle: bytes, case: str) -> None:
    with pytest.raises(EvidenceError):
        parse_bundle(edit(bundle, REFUSED[case]))


def test_a_member_twice(bundle: bytes) -> None:
    with pytest.raises(EvidenceError, match="twice"):
        parse_bundle(bundle[:-1] + b',"mediaType":"x"}')


# --- OMS statements ---


def tree(*names: str) -> Manifest:
    return Manifest("tree", "model", tuple(Resource(name, A) for name in names))


def parse(body: dict[str, Any]) -> Manifest:
    return parse_oms_statement(parse_statement(json.dumps(body).encode()))


def body_of(manifest: Manifest) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(make_oms_statement(manifest))
    return body


@pytest.mark.parametrize(
    "manifest",
    [
        pytest.param(tree("a", "b/c"), id="tree"),
        pytest.param(Manifest("tree", "m", (Resource("a", A),), ignored=("x", "y/z")), id="ignored"),
        pytest.param(Manifest("file", "a", (Resource("a", A),)), id="file"),
        pytest.param(Manifest("tree", "m", (Resource("a", A),), Serialization("files", "blake3")), id="blake3"),
        pytest.param(Manifest("tree", "m", (Resource("a", A * 2),), Serialization("files", "blake2b")), id="blake2b"),
        pytest.param(
            Manifest(
                "tree",
                "m",
                (Resource("a:b:0:10", A), Resource("a:b:10:12", B), Resource("c:0:1", A)),
                Serialization("shards", "sha256", 10),
            ),
            id="shards",
        ),
    ],
)
def test_statements_read_back(manifest: Manifest) -> None:
    parsed = parse(body_of(manifest))
    assert parsed.resources == manifest.resources
    assert parsed.serialization == manifest.serialization
    assert parsed.ignored == manifest.ignored
    assert (parsed.name, parsed.kind) == (manifest.name, None)
    assert parsed.root_digest == manifest.root_digest


def test_signed_order_counts() -> None:
    body = body_of(Manifest("tree", "m", (Resource("b", B), Resource("a", A))))
    assert [item.name for item in parse(body).resources] == ["b", "a"]
    body["predicate"]["resources"].reverse()
    with pytest.raises(EvidenceError, match="root digest"):
        parse(body)


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a//b", ".", "./a", "a/", "", "a\\b", "a\nb", "a\u202eb", "x" * 300], ids=ascii
)
def test_hostile_names(name: str) -> None:
    with pytest.raises(EvidenceError):
        parse(body_of(tree("fine", name)))


@pytest.mark.parametrize("names", [("a", "a"), ("a", "A"), ("a", "a/b"), ("é", "e\u0301")], ids=ascii)
def test_names_that_collide(names: tuple[str, ...]) -> None:
    with pytest.raises(EvidenceError):
        parse(body_of(tree(*names)))


def test_a_dot_alone_is_a_single_file_of_the_stock_tool() -> None:
    assert parse(body_of(tree("."))).resources[0].name == "."
    with pytest.raises(EvidenceError):
        parse(body_of(tree(".", "a")))


def shards(*names: str, size: int = 10) -> dict[str, Any]:
    resources = tuple(Resource(name, A) for name in names)
    return body_of(Manifest("tree", "m", resources, Serialization("shards", "sha256", size)))


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("a:10:20",), id="starts-late"),
        pytest.param(("a:0:10", "a:20:30"), id="a-gap"),
        pytest.param(("a:0:10", "a:5:15"), id="an-overlap"),
        pytest.param(("a:0:10", "a:0:10"), id="twice"),
        pytest.param(("a:0:5", "a:5:10"), id="short-in-the-middle"),
        pytest.param(("a:0:11",), id="longer-than-a-shard"),
        pytest.param(("a:0:0",), id="empty"),
        pytest.param(("a:5:3",), id="backwards"),
        pytest.param(("a",), id="no-range"),
        pytest.param(("a:0",), id="half-a-range"),
        pytest.param(("a:00:10",), id="leading-zero"),
        pytest.param(("a:-1:9",), id="negative"),
        pytest.param(("a:0:1e1",), id="exponent"),
        pytest.param(("a:0:\u0661\u0660",), id="other-digits"),
        pytest.param((":0:10",), id="no-name"),
        pytest.param(("../a:0:10",), id="hostile"),
        pytest.param(("a:0:10", "A:0:10"), id="colliding"),
        pytest.param((f"a:0:{10**30}",), id="huge"),
    ],
)
def test_shards_that_leave_bytes_unsigned(names: tuple[str, ...]) -> None:
    with pytest.raises(EvidenceError):
        parse(shards(*names))


@given(st.text(min_size=1, max_size=20), st.integers(0, 10**18 - 2), st.integers(1, 10**9))
def test_shard_names(path: str, start: int, length: int) -> None:
    end = min(start + length, 10**18)
    assert split_shard(f"{path}:{start}:{end}") == (path, start, end)


def test_shard_size_may_be_a_float() -> None:
    body = shards("a:0:10", "a:10:11")
    body["predicate"]["serialization"]["shard_size"] = 10.0
    assert parse(body).serialization.shard_size == 10


STATEMENTS: dict[str, Callable[[Any], object]] = {
    "no-resources": lambda body: body["predicate"].update(resources=[]),
    "resources-as-object": lambda body: body["predicate"].update(resources={}),
    "resource-as-text": lambda body: body["predicate"].update(resources=["a"]),
    "resource-without-name": lambda body: body["predicate"]["resources"][0].pop("name"),
    "name-as-number": lambda body: body["predicate"]["resources"][0].update(name=1),
    "name-null": lambda body: body["predicate"]["resources"][0].update(name=None),
    "digest-short": lambda body: body["predicate"]["resources"][0].update(digest="aa"),
    "digest-upper": lambda body: body["predicate"]["resources"][0].update(digest="AA" * 32),
    "digest-as-list": lambda body: body["predicate"]["resources"][0].update(digest=["a"] * 64),
    "algorithm-other": lambda body: body["predicate"]["resources"][0].update(algorithm="blake3"),
    "algorithm-as-list": lambda body: body["predicate"]["resources"][0].update(algorithm=["sha256"]),
    "two-subjects": lambda body: body["subject"].append(body["subject"][0]),
    "no-subject": lambda body: body.update(subject=[]),
    "subject-of-other-algorithm": lambda body: body["subject"][0].update(digest={"sha512": "x"}),
    "root-of-others": lambda body: body["subject"][0].update(digest={"sha256": A}),
    "predicate-member": lambda body: body["predicate"].update(extra=1),
    "serialization-absent": lambda body: body["predicate"].pop("serialization"),
    "serialization-member": lambda body: body["predicate"]["serialization"].update(extra=1),
    "method-other": lambda body: body["predicate"]["serialization"].update(method="file-shard-10"),
    "hash-other": lambda body: body["predicate"]["serialization"].update(hash_type="md5"),
    "links-followed": lambda body: body["predicate"]["serialization"].update(allow_symlinks=True),
    "links-unsaid": lambda body: body["predicate"]["serialization"].pop("allow_symlinks"),
    "links-as-text": lambda body: body["predicate"]["serialization"].update(allow_symlinks="false"),
    "shard-size-beside-files": lambda body: body["predicate"]["serialization"].update(shard_size=10),
    "shards-without-size": lambda body: body["predicate"]["serialization"].update(method="shards"),
    "shard-size-0": lambda body: body["predicate"]["serialization"].update(method="shards", shard_size=0),
    "shard-size-half": lambda body: body["predicate"]["serialization"].update(method="shards", shard_size=1.5),
    "shard-size-true": lambda body: body["predicate"]["serialization"].update(method="shards", shard_size=True),
    "ignored-as-text": lambda body: body["predicate"]["serialization"].update(ignore_paths="a"),
    "ignored-number": lambda body: body["predicate"]["serialization"].update(ignore_paths=[1]),
    "ignored-everything": lambda body: body["predicate"]["serialization"].update(ignore_paths=["."]),
    "ignored-outside": lambda body: body["predicate"]["serialization"].update(ignore_paths=["a/../.."]),
    "ignored-empty": lambda body: body["predicate"]["serialization"].update(ignore_paths=[""]),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_refused_statements(case: str) -> None:
    body = body_of(tree("a", "b"))
    parse(body)
    STATEMENTS[case](body)
    with pytest.raises(EvidenceError):
        parse(body)


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(
    lambda text: text not in (".", "..") and "/" not in text and "\\" not in text
)


@given(
    name=_TEXT | st.just('"resources":['),
    names=st.sets(_TEXT | st.just('"resources":[') | st.just("a b&<>é\u2028\u007f~"), min_size=1, max_size=6),
    ignored=st.sampled_from([(), ("sub",)]),
)
def test_oms_statement_is_canonical_json_and_parses_to_what_is_expected(
    name: str, names: set[str], ignored: tuple[str, ...]
) -> None:
    resources = tuple(Resource(item, A) for item in sorted(names))
    manifest = Manifest("tree", name, resources, ignored=ignored)
    raw = make_oms_statement(manifest)
    body = json.loads(raw)
    assert raw == json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert [(item["name"], item["digest"], item["algorithm"]) for item in body["predicate"]["resources"]] == [
        (*resource, "sha256") for resource in resources
    ]
    try:
        parsed = parse_oms_statement(parse_statement(raw), known=manifest)
    except EvidenceError:
        return  # a hostile name; no manifest made from bytes has it
    statement, signed = as_signed(manifest)
    if ignored:
        assert signed != parsed
    else:
        assert signed == parsed
        assert signed.root_digest == parsed.root_digest == statement.subjects[0].digests["sha256"]
        assert (statement.predicate_type, statement.subjects) == (
            parse_statement(raw).predicate_type,
            parse_statement(raw).subjects,
        )


def test_oms_statement_with_shards_is_canonical_json() -> None:
    manifest = Manifest("tree", "m", (Resource("a:0:3", A), Resource("b:0:1", B)), Serialization("shards", "sha256", 3))
    raw = make_oms_statement(manifest)
    assert raw == json.dumps(json.loads(raw), sort_keys=True, separators=(",", ":")).encode()
    assert parse_oms_statement(parse_statement(raw)).resources == manifest.resources
