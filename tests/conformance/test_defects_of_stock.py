"""Defects of model-signing 1.1.1, one test each: ours refuses what it lets pass and opens what it cannot.

Where it costs nothing the defect itself is shown too, so that a release without it is noticed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

import sealflow
from sealflow import StoredEvidence, UsageError, VerificationError
from sealflow.errors import ArtifactError
from sealflow.evidence.bundle import make_bundle, pae_of_model_signing_0_2
from sealflow.evidence.oms import make_oms_statement
from sealflow.keys import load_signer
from sealflow.manifest import Serialization, build_manifest
from sealflow.policy import parse_identities
from sealflow.storage import Storages
from tests.conformance.stock import Stock
from tests.conformance.support import check, codes, oms_statement, payload_of, sign_and_export, signed
from tests.pki import DAY, NOW, KeyPair, Pki, write_pki
from tests.trees import flip_byte, write_tree

# Each starts the stock tool.
pytestmark = pytest.mark.slow

FILES = {"model.bin": b"weights", "sub/config.json": b"{}"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "model", FILES)


def stock_certificate_bundle(stock: Stock, model: Path, pki: Pki) -> bytes:
    return stock.sign(
        model,
        pki.folder / "model.sig",
        pki.private,
        certificate=str(pki.folder / "leaf.pem"),
        chain=[str(pki.folder / "intermediate.pem")],
    )


def test_01_a_fresh_install_cannot_be_imported(keys: KeyPair, model: Path, tmp_path: Path) -> None:
    """Ours signs and verifies where the stock tool and all that it drags along are absent."""
    script = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"model_signing", "sigstore", "sigstore_models", "OpenSSL", "certifi",
                                      "google", "in_toto_attestation", "securesystemslib"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import sealflow
model, key, public = sys.argv[1:]
ref = sealflow.sign(model, signer="file:" + key)
assert sealflow.verify(ref, identities=public).passed
print("passed")
"""
    arguments = [str(model), str(keys.private), str(keys.public)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.stdout == "passed\n", done.stderr


@pytest.mark.parametrize(
    ("knobs", "code"),
    [
        pytest.param({"valid_from": NOW - 9 * DAY, "valid_to": NOW - DAY}, "CERTIFICATE_EXPIRED", id="expired"),
        pytest.param({"valid_from": NOW + DAY}, "CERTIFICATE_NOT_YET_VALID", id="not-yet-valid"),
        pytest.param({"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}, "CERTIFICATE_USAGE", id="tls-server"),
    ],
)
def test_02_certificates_are_not_judged_by_time_or_purpose(
    stock: Stock, model: Path, tmp_path: Path, knobs: dict[str, Any], code: str
) -> None:
    pki = write_pki(tmp_path, **knobs)
    bundle = stock_certificate_bundle(stock, model, pki)
    assert stock.verify_certificate(model, tmp_path / "model.sig", pki.root_file).accepted
    assert codes(check(model, bundle, pki.identity)) == {code}


def test_03_any_leaf_under_the_root_may_speak(stock: Stock, model: Path, tmp_path: Path) -> None:
    pki = write_pki(tmp_path, alternative=[x509.RFC822Name("stranger@example.org")])
    bundle = stock_certificate_bundle(stock, model, pki)
    assert stock.verify_certificate(model, tmp_path / "model.sig", pki.root_file).accepted
    assert codes(check(model, bundle, pki.identity)) == {"CERTIFICATE_NAME"}
    for incomplete in ({"roots": str(pki.root_file)}, {"roots": str(pki.root_file), "names": []}, {"names": ["dns:x"]}):
        with pytest.raises(UsageError):
            parse_identities({"certificate": incomplete})
    assert codes(check(model, bundle, None)) == {"IDENTITY_RULE_MISSING"}


def test_04_files_behind_a_linked_folder_are_silently_left_out(
    stock: Stock, keys: KeyPair, model: Path, tmp_path: Path
) -> None:
    elsewhere = write_tree(tmp_path / "elsewhere", {"code.py": b"good"})
    (model / "linked").symlink_to(elsewhere)
    arguments = ["--private_key", str(keys.private), "--signature", str(tmp_path / "sig"), "--allow_symlinks"]
    assert stock.run("sign", "key", *arguments, model).status == 0
    (elsewhere / "code.py").write_bytes(b"evil")
    assert stock.verify_key(model, tmp_path / "sig", keys.public, "--allow_symlinks").accepted
    assert codes(check(model, (tmp_path / "sig").read_bytes(), str(keys.public))) == {"ARTIFACT_REFUSED"}
    (model / "linked").unlink()
    # Not even without the link: a signature that follows links says nothing about what it left out.
    assert codes(check(model, (tmp_path / "sig").read_bytes(), str(keys.public))) == {"EVIDENCE_MALFORMED"}
    (model / "linked").symlink_to(elsewhere)
    with pytest.raises(ArtifactError, match="linked is a symbolic link"):
        sealflow.sign(model, signer=keys.signer)


def test_05_what_one_check_ignored_is_ignored_in_the_next(
    stock: Stock, keys: KeyPair, model: Path, tmp_path: Path
) -> None:
    first = write_tree(tmp_path / "first", {"a": b"1", "sub/config.json": b"2"})
    stock.sign(first, tmp_path / "first.sig", keys.private, ignore=["sub"])
    stock.sign(model, tmp_path / "second.sig", keys.private)
    pairs = [(first, tmp_path / "first.sig"), (model, tmp_path / "second.sig")]
    write_tree(model, {"sub/evil.py": b"evil"})
    assert stock.verify_with(keys.public, pairs[1:]).status != 0
    reused = parse_identities(str(keys.public))
    verdicts = [check(target, signature.read_bytes(), reused) for target, signature in pairs]
    assert codes(verdicts[1]) == {"FILE_UNSIGNED"}
    # And the held copies: the first leaves `sub` out, the second is refused.
    for (target, signature), passes in zip(pairs, (True, False), strict=True):
        options: dict[str, Any] = {
            "evidence": [StoredEvidence("sig", signature.read_bytes())],
            "only_given_evidence": True,
            "require": {"signature"},
            "identities": reused,
        }
        if passes:
            with sealflow.verified(target, **options) as copy:
                assert os.listdir(copy) == ["a"]
        else:
            with pytest.raises(VerificationError), sealflow.verified(target, **options):
                pass


@pytest.mark.parametrize("name", ["../outside/secret", "/etc/passwd", "a/../../outside/secret", "./model.bin"])
def test_06_a_name_in_the_manifest_leads_out_of_the_model(
    stock: Stock, keys: KeyPair, model: Path, tmp_path: Path, name: str
) -> None:
    write_tree(tmp_path / "outside", {"secret": b"secret"})
    bundle = signed(oms_statement({name: b"secret"}), keys.signer)
    (tmp_path / "sig").write_bytes(bundle)
    if name == "../outside/secret":
        assert stock.verify_key(model, tmp_path / "sig", keys.public, "--ignore_unsigned_files").accepted
    assert codes(check(model, bundle, str(keys.public))) == {"EVIDENCE_MALFORMED"}


def test_07_an_added_file_without_bytes_passes_in_shard_mode(
    stock: Stock, keys: KeyPair, model: Path, tmp_path: Path
) -> None:
    bundle = stock.sign(model, tmp_path / "sig", keys.private, shard_size=1000)
    assert check(model, bundle, str(keys.public)).passed
    write_tree(model, {"sub/__init__.py": b""})
    assert codes(check(model, bundle, str(keys.public))) == {"FILE_UNSIGNED"}


def test_08_shard_bundles_cannot_be_opened(stock: Stock, keys: KeyPair, model: Path, tmp_path: Path) -> None:
    bundle = stock.sign(model, tmp_path / "sig", keys.private, shard_size=1000)
    predicate = payload_of(bundle)["predicate"]
    assert {resource["algorithm"] for resource in predicate["resources"]} == {"sha256-sharded-1000"}
    assert isinstance(predicate["serialization"]["shard_size"], float)
    assert stock.verify_key(model, tmp_path / "sig", keys.public).status != 0
    assert check(model, bundle, str(keys.public)).passed


@pytest.mark.parametrize("algorithm", ["blake2", "blake3"])
def test_09_blake_bundles_cannot_be_opened(
    stock: Stock, keys: KeyPair, model: Path, tmp_path: Path, algorithm: str
) -> None:
    bundle = stock.sign(model, tmp_path / "sig", keys.private, hash=algorithm)
    assert stock.verify_key(model, tmp_path / "sig", keys.public).status != 0
    assert check(model, bundle, str(keys.public)).passed


def test_10_a_folder_without_files_is_signed(stock: Stock, keys: KeyPair, tmp_path: Path) -> None:
    (tmp_path / "model" / "empty").mkdir(parents=True)
    bundle = stock.sign(tmp_path / "model", tmp_path / "sig", keys.private)
    assert stock.verify_key(tmp_path / "model", tmp_path / "sig", keys.public).accepted
    assert codes(check(tmp_path / "model", bundle, str(keys.public))) == {"ARTIFACT_REFUSED"}
    write_tree(tmp_path / "model", {"evil": b""})
    assert codes(check(tmp_path / "model", bundle, str(keys.public))) == {"EVIDENCE_MALFORMED"}
    with pytest.raises(ArtifactError, match="no file"):
        sealflow.sign(tmp_path / "model" / "empty", signer=keys.signer)


def test_11_the_root_digest_ignores_names(keys: KeyPair, tmp_path: Path) -> None:
    good = write_tree(tmp_path / "good" / "model", {"weights.bin": b"1", "z.txt": b"2"})
    evil = write_tree(tmp_path / "evil" / "model", {"pickle.pkl": b"1", "run.py": b"2"})
    refs = {}
    roots = {}
    for folder in (good, evil):
        signature = sign_and_export(folder, keys.signer, folder.parent)
        roots[folder] = payload_of(signature.read_bytes())["subject"][0]["digest"]["sha256"]
        refs[folder] = sealflow.sign(folder, signer=keys.signer)
    assert roots[good] == roots[evil]
    assert refs[good].digest != refs[evil].digest
    store = str(tmp_path / "store")
    ref = sealflow.sign(good, signer=keys.signer, evidence_store=store)
    assert sealflow.verify(ref.moved_to(str(evil)), identities=str(keys.public)).status == "failed"


@pytest.mark.parametrize("name", [".git/evil.so", ".github/evil.so", ".gitattributes", ".gitignore"])
def test_12_git_metadata_is_never_checked(stock: Stock, keys: KeyPair, model: Path, tmp_path: Path, name: str) -> None:
    bundle = sign_and_export(model, keys.signer, tmp_path).read_bytes()
    assert check(model, bundle, str(keys.public)).passed
    write_tree(model, {name: b"evil"})
    assert stock.verify_key(model, tmp_path / "export" / "model.sig", keys.public).accepted
    assert codes(check(model, bundle, str(keys.public))) == {"FILE_IGNORED"}
    with pytest.raises(ArtifactError, match=r"\.git"):
        sealflow.sign(model, signer=keys.signer, evidence_store=str(tmp_path / "other"))


def test_13_a_colon_in_a_name_breaks_shards(stock: Stock, keys: KeyPair, tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", {"a:b": b"x" * 2500, "a:0:5": b"y", "c": b"z"})
    bundle = stock.sign(model, tmp_path / "sig", keys.private, shard_size=1000)
    assert stock.verify_key(model, tmp_path / "sig", keys.public).status != 0
    assert check(model, bundle, str(keys.public)).passed
    storages = Storages()
    storage = storages.for_uri(str(model))
    location = storage.locate(str(model))
    assert location is not None
    manifest = build_manifest(storage, location, serialization=Serialization("shards", "sha256", 1000))
    ours = make_bundle(make_oms_statement(manifest), load_signer(keys.signer))
    assert check(model, ours, str(keys.public)).passed
    flip_byte(model / "a:b", 2400)
    for each in (bundle, ours):
        assert codes(check(model, each, str(keys.public))) == {"FILE_CHANGED"}


def test_14_text_is_no_path(keys: KeyPair, model: Path, tmp_path: Path) -> None:
    bundle = sign_and_export(model, keys.signer, tmp_path).read_bytes()
    for path in (str(model), model, f"file://{model}"):
        assert check(path, bundle, str(keys.public)).passed  # type: ignore[arg-type]
        assert check(path, bundle, str(keys.public), files=["model.bin"]).passed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"{}", id="no-members"),
        pytest.param(b"[]", id="a-list"),
        pytest.param(b'"text"', id="a-text"),
        pytest.param(b"\xff\xfe", id="not-utf-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}', id="only-the-type"),
    ],
)
def test_15_a_malformed_bundle_is_a_raw_exception(keys: KeyPair, model: Path, data: bytes) -> None:
    verdict = check(model, data, str(keys.public))
    assert verdict.status == "failed"
    assert codes(verdict) == {"EVIDENCE_MALFORMED"}
    deciding = verdict.deciding_finding
    assert deciding is not None
    assert deciding.subject == "model.sig"
    assert deciding.next_step


def test_15_signatures_left_out_or_doubled_are_a_finding(keys: KeyPair, model: Path, tmp_path: Path) -> None:
    bundle = json.loads(sign_and_export(model, keys.signer, tmp_path).read_bytes())
    one = bundle["dsseEnvelope"]["signatures"][0]
    for signatures in ([], [one, one], None, {}, [None], [{}], [{"sig": 1}], [{"sig": "?"}]):
        bundle["dsseEnvelope"]["signatures"] = signatures
        assert codes(check(model, json.dumps(bundle).encode(), str(keys.public))) == {"EVIDENCE_MALFORMED"}


def legacy_bundle(keys: KeyPair, statement: dict[str, Any], *, old_encoding: bool) -> bytes:
    """What model-signing 0.2.0 wrote, made from its documented form."""
    payload = json.dumps(statement, indent=2).encode()
    private = serialization.load_pem_private_key(keys.private.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    if old_encoding:
        to_sign = pae_of_model_signing_0_2(payload)
        bundle = json.loads(signed({}, keys.signer))
        bundle["verificationMaterial"] = {"publicKey": {"rawBytes": "QUFB", "keyDetails": "PKIX_ECDSA_P256_SHA_256"}}
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        signature = base64.b64encode(private.sign(to_sign, ec.ECDSA(hashes.SHA256()))).decode()
        bundle["dsseEnvelope"]["signatures"] = [{"sig": signature, "keyid": None}]
        return json.dumps(bundle).encode()
    return signed(statement, keys.signer)


@pytest.mark.parametrize("old_encoding", [False, True], ids=["old-predicate", "old-predicate-and-encoding"])
def test_16_legacy_forms_are_accepted_without_a_word(keys: KeyPair, model: Path, old_encoding: bool) -> None:
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": hashlib.sha256(data).hexdigest()}} for name, data in FILES.items()
        ],
        "predicateType": "https://model_signing/Digests/v0.1",
        "predicate": {"unused": "Unused, just passed due to API requirements"},
    }
    bundle = legacy_bundle(keys, statement, old_encoding=old_encoding)
    assert codes(check(model, bundle, str(keys.public))) == {"SIGNATURE_LEGACY"}
    assert check(model, bundle, str(keys.public), accept_legacy=True).passed
    flip_byte(model / "model.bin")
    assert codes(check(model, bundle, str(keys.public), accept_legacy=True)) == {"FILE_CHANGED"}


def test_16_today_s_predicate_under_the_old_encoding(keys: KeyPair, model: Path) -> None:
    bundle = legacy_bundle(keys, oms_statement(FILES), old_encoding=True)
    assert codes(check(model, bundle, str(keys.public))) == {"SIGNATURE_LEGACY"}


def test_17_a_single_file_is_recorded_as_a_dot(keys: KeyPair, model: Path, tmp_path: Path) -> None:
    bundle = sign_and_export(model / "model.bin", keys.signer, tmp_path).read_bytes()
    statement = payload_of(bundle)
    assert [resource["name"] for resource in statement["predicate"]["resources"]] == ["model.bin"]
    assert statement["subject"][0]["name"] == "model.bin"
    assert check(model / "model.bin", bundle, str(keys.public)).passed
    (model / "model.bin").rename(model / "other.bin")
    assert codes(check(model / "other.bin", bundle, str(keys.public))) == {"NAME_MISMATCH"}
    assert check(model / "other.bin", bundle, str(keys.public), name="model.bin").passed


def test_18_the_order_is_not_that_of_the_specification(stock: Stock, keys: KeyPair, tmp_path: Path) -> None:
    files = {"a/x": b"1", "a-b": b"2", "a.txt": b"3"}
    model = write_tree(tmp_path / "model", files)
    ours = payload_of(sign_and_export(model, keys.signer, tmp_path).read_bytes())
    theirs = payload_of(stock.sign(model, tmp_path / "sig", keys.private))
    order = [resource["name"] for resource in ours["predicate"]["resources"]]
    assert order == ["a-b", "a.txt", "a/x"]
    assert [resource["name"] for resource in theirs["predicate"]["resources"]] == ["a/x", "a-b", "a.txt"]
    root = hashlib.sha256(b"".join(hashlib.sha256(files[name]).digest() for name in order)).hexdigest()
    assert ours["subject"][0]["digest"]["sha256"] == root != theirs["subject"][0]["digest"]["sha256"]
    # Each is judged in the order in which it was signed.
    assert check(model, (tmp_path / "sig").read_bytes(), str(keys.public)).passed


def test_18_a_root_digest_that_does_not_follow_from_the_resources(keys: KeyPair, model: Path) -> None:
    statement = oms_statement(FILES)
    statement["predicate"]["resources"].reverse()
    assert codes(check(model, signed(statement, keys.signer), str(keys.public))) == {"EVIDENCE_MALFORMED"}
