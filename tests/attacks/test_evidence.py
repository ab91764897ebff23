"""Attacks on the evidence: stripped, exchanged, forged, and planted."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sealflow.evidence import oms
from sealflow.evidence.bundle import PAYLOAD_TYPE, pae
from sealflow.evidence.store import MAX_OBJECTS
from sealflow.run_identity import RunIdentity
from tests.attacks.world import TREE, Attack, World, copy_evidence
from tests.pki import write_key

OTHER_RUN = RunIdentity("airflow", "other", "task", "run-9", None, 1)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _replace(world: World, kind: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Exchange an object for an edited one, stored under the name that its new bytes deserve."""
    body = world.bundle(kind)
    change(body)
    world.remove(kind)
    world.plant(body, kind)


def _edit_payload(kind: str, change: Callable[[dict[str, Any]], object]) -> Attack:
    def attack(world: World) -> None:
        def edit(body: dict[str, Any]) -> None:
            envelope = body["dsseEnvelope"]
            statement = json.loads(base64.b64decode(envelope["payload"]))
            change(statement)
            envelope["payload"] = _b64(json.dumps(statement).encode())

        _replace(world, kind, edit)

    return attack


def _edit_in_place(kind: str) -> Attack:
    def attack(world: World) -> None:
        (path,) = world.objects(kind)
        data = bytearray(path.read_bytes())
        data[data.index(b'"sig":"') + 20] ^= 1
        path.write_bytes(data)

    return attack


def _signature_of_another_statement(world: World) -> None:
    other = world.bundle("provenance")["dsseEnvelope"]["signatures"]
    _replace(world, "signature", lambda body: body["dsseEnvelope"].update(signatures=other))


def _payload_of_another_kind(world: World) -> None:
    other = world.bundle("provenance")["dsseEnvelope"]
    _replace(world, "signature", lambda body: body.update(dsseEnvelope=other))


def _no_signature(world: World) -> None:
    _replace(world, "signature", lambda body: body["dsseEnvelope"].update(signatures=[]))


def _empty_signature(world: World) -> None:
    _replace(world, "signature", lambda body: body["dsseEnvelope"].update(signatures=[{"sig": "", "keyid": ""}]))


def _two_signatures(world: World) -> None:
    def add(body: dict[str, Any]) -> None:
        body["dsseEnvelope"]["signatures"] *= 2

    _replace(world, "signature", add)


def _zero_signature(world: World) -> None:
    # r = s = 0 verified in more than one library.
    zero = _b64(bytes.fromhex("3006020100020100"))
    _replace(world, "signature", lambda body: body["dsseEnvelope"].update(signatures=[{"sig": zero, "keyid": ""}]))


def _type_changed(world: World) -> None:
    _replace(world, "signature", lambda body: body["dsseEnvelope"].update(payloadType="application/json"))


def _resigned(
    encode: Callable[[bytes], bytes] = pae, payload: Callable[[bytes], bytes] = lambda data: data, **changes: object
) -> Attack:
    """Sign the true statement with the true key, but wrongly."""

    def attack(world: World) -> None:
        key = serialization.load_pem_private_key(world.trainer.private.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)

        def edit(body: dict[str, Any]) -> None:
            envelope = body["dsseEnvelope"]
            data = payload(base64.b64decode(envelope["payload"]))
            envelope["payload"] = _b64(data)
            envelope["signatures"] = [{"sig": _b64(key.sign(encode(data), ec.ECDSA(hashes.SHA256()))), "keyid": ""}]
            envelope.update(changes)

        _replace(world, "signature", edit)

    return attack


def _two_documents_in_one(data: bytes) -> bytes:
    """Name the resources twice: readers that take the first and readers that take the last see two manifests."""
    return data.replace(b'"predicate":{', b'"predicate":{"resources":[],', 1)


def _two_subjects(world: World, kind: str = "provenance") -> None:
    statement = world.payload(kind)
    statement["subject"].append({"name": "evil", "digest": {"sha256": "0" * 64}})
    world.remove(kind)
    world.plant(_sign_statement(world, statement), kind)


def _two_digests(world: World) -> None:
    statement = world.payload("provenance")
    digest = world.signed.ref.digest
    other = "dirHash" if digest.algorithm == "sha256" else "sha256"
    statement["subject"][0]["digest"][other] = "0" * 64
    world.remove("provenance")
    world.plant(_sign_statement(world, statement), "provenance")


def _other_digest_algorithm(world: World) -> None:
    statement = world.payload("provenance")
    digest = world.signed.ref.digest
    other = "dirHash" if digest.algorithm == "sha256" else "sha256"
    statement["subject"][0]["digest"] = {other: digest.hex}
    world.remove("provenance")
    world.plant(_sign_statement(world, statement), "provenance")


def _other_build_type(world: World) -> None:
    statement = world.payload("provenance")
    statement["predicate"]["buildDefinition"]["buildType"] = "https://tekton.dev/chains/v2/slsa"
    world.remove("provenance")
    world.plant(_sign_statement(world, statement), "provenance")


def _about_another_digest(world: World) -> None:
    statement = world.payload("provenance")
    algorithm = world.signed.ref.digest.algorithm
    statement["subject"][0]["digest"] = {algorithm: hashlib.sha256(b"other").hexdigest()}
    world.remove("provenance")
    world.plant(_sign_statement(world, statement), "provenance")


def _predicate_of_another_kind(world: World) -> None:
    # A verification summary by the right key is no signature and no provenance.
    world.remove("provenance")
    summary = {"verificationResult": "PASSED", "resourceUri": "model"}
    data = world.statement("https://slsa.dev/verification_summary/v1", summary, world.signed.ref.digest.as_digest_set())
    world.plant(data, "provenance")


def _root_does_not_follow(world: World) -> None:
    statement = world.payload("signature")
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    world.remove("signature")
    world.plant(_sign_statement(world, statement), "signature")


def _sign_statement(world: World, statement: dict[str, Any], signer: str | None = None) -> bytes:
    return (
        world.statement(
            statement["predicateType"],
            statement["predicate"],
            statement["subject"][0]["digest"],
            name=statement["subject"][0]["name"],
            signer=signer,
        )
        if len(statement["subject"]) == 1
        else _sign_raw(world, json.dumps(statement).encode())
    )


def _sign_raw(world: World, payload: bytes) -> bytes:
    from sealflow.evidence.bundle import make_bundle
    from sealflow.keys import load_signer

    return make_bundle(payload, load_signer(world.trainer.signer))


def _strip_all(world: World) -> None:
    shutil.rmtree(world.store)


def _of_another_artifact(world: World) -> None:
    other = World(world.folder / "other", world.kind)
    (other.victim).write_bytes(b"other bytes, signed by the same key")
    other.trainer.private.write_bytes(world.trainer.private.read_bytes())
    other.signed = other.sign()
    world.remove()
    copy_evidence(other, world)


def _of_a_stranger(world: World) -> None:
    world.remove()
    world.sign(signer=world.stranger.signer)


def _name_promises_other_bytes(world: World) -> None:
    for path in world.objects():
        path.rename(path.with_name(path.name[:-10] + "00000.json"))


EVIDENCE: dict[str, tuple[Attack, set[str], int]] = {
    "all-stripped": (_strip_all, {"EVIDENCE_MISSING"}, 3),
    "signature-stripped": (lambda world: world.remove("signature"), {"SIGNATURE_MISSING"}, 3),
    "provenance-stripped": (lambda world: world.remove("provenance"), {"PROVENANCE_MISSING"}, 3),
    "of-another-artifact": (_of_another_artifact, {"EVIDENCE_OF_OTHER_ARTIFACT"}, 3),
    "by-a-stranger": (_of_a_stranger, {"SIGNER_NOT_ALLOWED"}, 4),
    "renamed-objects": (_name_promises_other_bytes, {"EVIDENCE_ALTERED"}, 3),
    "signature-edited-in-place": (_edit_in_place("signature"), {"EVIDENCE_ALTERED"}, 3),
    "provenance-edited-in-place": (_edit_in_place("provenance"), {"EVIDENCE_ALTERED"}, 3),
    "signed-manifest-edited": (
        _edit_payload("signature", lambda body: body["predicate"]["resources"][0].update(digest="0" * 64)),
        {"SIGNATURE_INVALID"},
        3,
    ),
    "signed-name-edited": (
        _edit_payload("provenance", lambda body: body["subject"][0].update(name="other")),
        {"SIGNATURE_INVALID"},
        3,
    ),
    "signed-producer-edited": (
        _edit_payload(
            "provenance",
            lambda body: body["predicate"]["buildDefinition"]["externalParameters"].update(producer="airflow:a/b"),
        ),
        {"SIGNATURE_INVALID"},
        3,
    ),
    "signature-of-another-statement": (_signature_of_another_statement, {"SIGNATURE_INVALID"}, 3),
    "provenance-posing-as-signature": (_payload_of_another_kind, {"SIGNATURE_MISSING"}, 3),
    "no-signature-in-bundle": (_no_signature, {"EVIDENCE_MALFORMED"}, 3),
    "empty-signature": (_empty_signature, {"SIGNATURE_INVALID"}, 3),
    "zero-signature": (_zero_signature, {"SIGNATURE_INVALID"}, 3),
    "two-signatures-in-bundle": (_two_signatures, {"EVIDENCE_MALFORMED"}, 3),
    "payload-type-changed": (_type_changed, {"EVIDENCE_MALFORMED"}, 3),
    "payload-signed-without-encoding": (_resigned(lambda data: data), {"SIGNATURE_INVALID"}, 3),
    "payload-type-signed-as-another": (_resigned(lambda data: pae(data, "text/plain")), {"SIGNATURE_INVALID"}, 3),
    # The lengths keep type and body apart: moved by one byte, the same characters are another message.
    "encoding-shifted-between-type-and-body": (
        _resigned(lambda data: b"DSSEv1 %d %s %d %s" % (27, PAYLOAD_TYPE[:-1].encode(), len(data) + 1, b"n " + data)),
        {"SIGNATURE_INVALID"},
        3,
    ),
    "encoding-without-lengths": (
        _resigned(lambda data: b"DSSEv1 %s %s" % (PAYLOAD_TYPE.encode(), data)),
        {"SIGNATURE_INVALID"},
        3,
    ),
    "legacy-encoding": (
        _resigned(lambda data: f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(data)} {data!r}".encode()),
        {"SIGNATURE_LEGACY"},
        3,
    ),
    "two-manifests-in-one-document": (_resigned(payload=_two_documents_in_one), {"EVIDENCE_MALFORMED"}, 3),
    "provenance-with-two-subjects": (_two_subjects, {"EVIDENCE_MALFORMED"}, 3),
    "signature-with-two-subjects": (lambda world: _two_subjects(world, "signature"), {"EVIDENCE_MALFORMED"}, 3),
    "subject-with-two-digest-algorithms": (_two_digests, {"EVIDENCE_MALFORMED"}, 3),
    "digest-under-another-algorithm": (_other_digest_algorithm, {"EVIDENCE_OF_OTHER_ARTIFACT"}, 3),
    "provenance-of-another-build-type": (_other_build_type, {"EVIDENCE_MALFORMED"}, 3),
    "provenance-about-another-digest": (_about_another_digest, {"EVIDENCE_OF_OTHER_ARTIFACT"}, 3),
    "predicate-of-another-kind": (_predicate_of_another_kind, {"PROVENANCE_MISSING"}, 3),
    "root-digest-does-not-follow": (_root_does_not_follow, {"EVIDENCE_MALFORMED"}, 3),
}


@pytest.mark.parametrize(
    ("attack", "codes", "exit_status"), [pytest.param(*case, id=name) for name, case in EVIDENCE.items()]
)
def test_evidence(world: World, attack: Attack, codes: set[str], exit_status: int) -> None:
    attack(world)
    world.refuses(codes, exit_status)


# --- Who may speak ---


def test_signer_for_another_producer(world: World) -> None:
    identities = {"other": {"key": str(world.trainer.public), "producers": ["airflow:other/*"]}}
    world.refuses("PRODUCER_NOT_ALLOWED", 4, identities=identities)


def test_signer_for_another_builder(world: World) -> None:
    identities = {"notary": {"key": str(world.trainer.public), "builders": ["urn:sealflow:builder:notary:v1"]}}
    world.refuses("PRODUCER_NOT_ALLOWED", 4, identities=identities)


def test_signer_for_this_producer(world: World) -> None:
    world.passes(identities={"trainer": {"key": str(world.trainer.public), "producers": ["airflow:train/*"]}})


def test_allowed_signer_cannot_borrow_the_right_of_another(world: World) -> None:
    # The stranger may speak for its own DAG only, and claims to be the trainer's.
    world.remove()
    world.sign(signer=world.stranger.signer)
    identities = {
        "trainer": {"key": str(world.trainer.public), "producers": ["airflow:train/*"]},
        "stranger": {"key": str(world.stranger.public), "producers": ["airflow:stranger/*"]},
    }
    world.refuses("PRODUCER_NOT_ALLOWED", 4, identities=identities)


def test_restricted_signer_needs_provenance(world: World) -> None:
    # A bare signature names no producer, so whoever may speak only for some cannot speak through it at all.
    world.remove("provenance")
    identities = {"trainer": {"key": str(world.trainer.public), "producers": ["airflow:other/*"]}}
    world.refuses("PRODUCER_NOT_ALLOWED", 4, identities=identities, require="signature")


def test_producer_mismatch(world: World) -> None:
    world.refuses("PRODUCER_MISMATCH", 4, producer="airflow:other/*")


@pytest.mark.parametrize(
    "pattern", ["airflow:*", "*", "airflow:train", "airflow:train/", "airflow:train/f", "AIRFLOW:train/fit"]
)
def test_producer_patterns_match_whole_segments(tree: World, pattern: str) -> None:
    tree.refuses("PRODUCER_MISMATCH", 4, producer=pattern)


def test_name_mismatch(world: World) -> None:
    world.refuses("NAME_MISMATCH", 3, name="another-model")


def test_expected_name_is_never_left_unchecked(world: World) -> None:
    world.remove("provenance")
    world.refuses({"NAME_MISMATCH", "PROVENANCE_MISSING"}, 3, name="another-model", require="signature")


def test_expected_producer_is_never_left_unchecked(world: World) -> None:
    from sealflow.errors import UsageError

    world.remove("provenance")
    with pytest.raises(UsageError, match="producer"):
        world.check(producer="airflow:other/*", require="signature")


def test_hint_of_the_right_key_over_a_strangers_signature(world: World) -> None:
    hint = world.bundle("signature")["verificationMaterial"]["publicKey"]["hint"]
    world.remove()
    world.sign(signer=world.stranger.signer)
    for kind in ("signature", "provenance"):
        _replace(world, kind, lambda body: body["verificationMaterial"].update(publicKey={"hint": hint}))
    world.refuses("SIGNATURE_INVALID", 3)


@pytest.mark.parametrize("material", [{}, {"rawBytes": "AAAA"}, {"hint": ""}], ids=["none", "raw-bytes", "empty-hint"])
def test_strangers_signature_without_hint(world: World, material: dict[str, str]) -> None:
    world.remove()
    world.sign(signer=world.stranger.signer)
    for kind in ("signature", "provenance"):
        _replace(world, kind, lambda body: body["verificationMaterial"].update(publicKey=material))
    world.refuses("SIGNER_NOT_ALLOWED", 4)


def test_key_in_the_bundle_is_not_believed(world: World) -> None:
    world.remove()
    world.sign(signer=world.stranger.signer)
    raw = _b64(world.stranger.public.read_bytes())
    for kind in ("signature", "provenance"):
        _replace(world, kind, lambda body: body["verificationMaterial"].update(publicKey={"rawBytes": raw}))
    world.refuses("SIGNER_NOT_ALLOWED", 4)


def test_signature_and_provenance_by_different_identities(world: World) -> None:
    # Both are allowed, so both count; the provenance alone says who made it.
    world.remove("signature")
    world.sign(signer=world.stranger.signer)
    for path in world.objects("provenance"):
        if b'"producer"' not in base64.b64decode(json.loads(path.read_bytes())["dsseEnvelope"]["payload"]):
            path.unlink()
    both = {"trainer": str(world.trainer.public), "stranger": str(world.stranger.public)}
    world.passes(identities=both)
    world.refuses("SIGNER_NOT_ALLOWED", 4, identities={"trainer": str(world.trainer.public)})


# --- Planted objects: they decide nothing ---


def _ed25519(world: World) -> tuple[bytes, str]:
    pair = write_key(world.folder, "ed", ed25519.Ed25519PrivateKey.generate())
    statement = world.payload("signature")
    return _sign_statement(world, statement, pair.signer), "signature"


def _deep(world: World) -> tuple[bytes, str]:
    return b"[" * 100_000 + b"]" * 100_000, "signature"


def _wide(world: World) -> tuple[bytes, str]:
    return b"[" + b"[]," * 3_000_000 + b"[]]", "signature"


def _duplicate_key(world: World) -> tuple[bytes, str]:
    (path,) = world.objects("signature")
    return path.read_bytes().replace(b'{"dsseEnvelope"', b'{"mediaType":"x","dsseEnvelope"', 1), "signature"


def _many_keys_one_twice(world: World) -> tuple[bytes, str]:
    return json.dumps({f"k{number}": 0 for number in range(200_000)})[:-1].encode() + b',"k199999":1}', "signature"


def _of_a_stranger_beside(world: World) -> tuple[bytes, str]:
    return _sign_statement(world, world.payload("provenance"), world.stranger.signer), "provenance"


def _edited_copy(world: World) -> tuple[bytes, str]:
    body = world.bundle("signature")
    body["dsseEnvelope"]["payload"] = _b64(base64.b64decode(body["dsseEnvelope"]["payload"]) + b" ")
    return json.dumps(body).encode(), "signature"


def _other_predicate(world: World) -> tuple[bytes, str]:
    digests = world.signed.ref.digest.as_digest_set()
    return world.statement("https://slsa.dev/verification_summary/v1", {"verificationResult": "FAILED"}, digests), (
        "summary"
    )


def _provenance_of_another(world: World) -> tuple[bytes, str]:
    statement = world.payload("provenance")
    statement["subject"][0]["digest"] = {world.signed.ref.digest.algorithm: "0" * 64}
    return _sign_statement(world, statement), "provenance"


def _lone_surrogates(world: World) -> tuple[bytes, str]:
    return b'{"mediaType":"\\ud800","x":"\\udfff"}', "signature"


def _keyless(world: World) -> tuple[bytes, str]:
    body = world.bundle("signature")
    body["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": []}
    return json.dumps(body).encode(), "signature"


def _chain_of_garbage(world: World) -> tuple[bytes, str]:
    body = world.bundle("signature")
    body["verificationMaterial"] = {"x509CertificateChain": {"certificates": [{"rawBytes": "MIIBIjANBgkq"}]}}
    return json.dumps(body).encode(), "signature"


PLANTED: dict[str, Callable[[World], tuple[bytes, str]]] = {
    "garbage": lambda _: (os.urandom(5000), "signature"),
    "nothing": lambda _: (b"", "provenance"),
    "json-null": lambda _: (b"null", "signature"),
    "json-number-of-5000-digits": lambda _: (b"1" * 5000, "signature"),
    "deep-json": _deep,
    "wide-json": _wide,
    "duplicate-key": _duplicate_key,
    "200000-keys-one-twice": _many_keys_one_twice,
    "lone-surrogates": _lone_surrogates,
    "by-a-stranger": _of_a_stranger_beside,
    "edited-copy": _edited_copy,
    "of-another-predicate": _other_predicate,
    "provenance-of-another-artifact": _provenance_of_another,
    "ed25519-signature": _ed25519,
    "keyless": _keyless,
    "certificate-chain-of-garbage": _chain_of_garbage,
}


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in PLANTED.items()])
def test_planted_object_blocks_nothing_and_passes_nothing(world: World, make: Callable[..., tuple[bytes, str]]) -> None:
    data, kind = make(world)
    planted = world.plant(data, kind)
    world.passes()
    for path in world.objects():
        if path != planted:
            path.unlink()
    world.check()
    assert world.check().status == "failed"


def _plant_symlink(world: World) -> None:
    (world.evidence / f"signature-{'0' * 64}.json").symlink_to("/etc/passwd")


def _plant_dangling_symlink(world: World) -> None:
    (world.evidence / f"provenance-{'0' * 64}.json").symlink_to("/nowhere")


def _plant_fifo(world: World) -> None:
    os.mkfifo(world.evidence / f"signature-{'0' * 64}.json")


def _plant_folder(world: World) -> None:
    (world.evidence / f"signature-{'0' * 64}.json").mkdir()


def _plant_foreign_names(world: World) -> None:
    for name in ("README", "-x.json", "\x1b[31m.json", "signature-.json", "Signature-" + "0" * 64 + ".json", "sig\nx"):
        (world.evidence / name).write_bytes(b"x")


def _plant_huge(world: World) -> None:
    # Sparse: it has the size without the bytes.
    with (world.evidence / f"provenance-{'0' * 64}.json").open("wb") as file:
        file.truncate(300 << 20)


def _plant_wrong_name(world: World) -> None:
    (world.evidence / f"signature-{'0' * 64}.json").write_bytes(world.objects("signature")[0].read_bytes())


def _plant_many(kind: str, count: int = 300) -> Attack:
    def attack(world: World) -> None:
        for number in range(count):
            (world.evidence / f"{kind}-{number:064x}.json").write_bytes(b"{}")

    return attack


PLANTED_PLACES: dict[str, Attack] = {
    "symlink": _plant_symlink,
    "dangling-symlink": _plant_dangling_symlink,
    "fifo": _plant_fifo,
    "folder": _plant_folder,
    "foreign-names": _plant_foreign_names,
    "300-MiB-object": _plant_huge,
    "valid-bundle-under-another-name": _plant_wrong_name,
    "300-objects-of-an-unknown-kind": _plant_many("aaa"),
}


@pytest.mark.parametrize("attack", [pytest.param(attack, id=name) for name, attack in PLANTED_PLACES.items()])
def test_planted_thing_blocks_nothing_and_passes_nothing(world: World, attack: Attack) -> None:
    attack(world)
    world.passes()
    for path in world.objects():
        if "0" * 30 not in path.name and not path.name.startswith("aaa"):
            path.unlink()
    assert world.check().status in ("failed", "unverifiable")


@pytest.mark.slow
@pytest.mark.parametrize("kind_of_object", ["signature", "provenance"])
def test_flood_that_hides_the_evidence_is_unverifiable(world: World, kind_of_object: str) -> None:
    # Whoever can write that much into the store can make a check impossible, but the answer says just that.
    _plant_many(kind_of_object, MAX_OBJECTS[kind_of_object] + 1)(world)
    (real,) = [path for path in world.objects(kind_of_object) if not path.name.startswith(f"{kind_of_object}-000")]
    world.refuses("EVIDENCE_TOO_MUCH", 5)
    real.unlink()
    world.refuses("EVIDENCE_TOO_MUCH", 5)


@pytest.mark.slow
def test_signed_a_hundred_times(tree: World) -> None:
    # A daily run that makes the same bytes every day must not lock itself out.
    for _ in range(150):
        tree.sign()
    tree.passes()


def test_evidence_of_another_artifact_beside_the_right_one(world: World) -> None:
    other = World(world.folder / "other", world.kind)
    copy_evidence(other, world)
    outcome = world.passes()
    assert len(outcome.verdict.signers) == 2


# --- Legacy forms are off by default ---


def test_legacy_predicate_is_refused_by_default(tree: World) -> None:
    tree.remove("signature")
    payload = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": n, "digest": {"sha256": hashlib.sha256(d).hexdigest()}} for n, d in sorted(TREE.items())],
        "predicateType": oms.LEGACY_PREDICATE_TYPE,
        "predicate": {"unused": "x"},
    }
    tree.plant(_sign_raw(tree, json.dumps(payload).encode()))
    tree.refuses("SIGNATURE_LEGACY")
    tree.passes(accept_legacy=True)


def test_legacy_encoding_never_carries_provenance(tree: World) -> None:
    def encode(data: bytes) -> bytes:
        return f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(data)} {data!r}".encode()

    key = serialization.load_pem_private_key(tree.trainer.private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)

    def edit(body: dict[str, Any]) -> None:
        data = base64.b64decode(body["dsseEnvelope"]["payload"])
        signature = _b64(key.sign(encode(data), ec.ECDSA(hashes.SHA256())))
        body["dsseEnvelope"]["signatures"] = [{"sig": signature, "keyid": ""}]

    _replace(tree, "provenance", edit)
    tree.refuses("EVIDENCE_MALFORMED", accept_legacy=True)


def test_ed25519_speaks_in_attestations_only(tree: World) -> None:
    pair = write_key(tree.folder, "ed", ed25519.Ed25519PrivateKey.generate())
    for kind in ("signature", "provenance"):
        statement = tree.payload(kind)
        tree.remove(kind)
        tree.plant(_sign_statement(tree, statement, pair.signer), kind)
    tree.refuses("SIGNATURE_UNSUPPORTED", identities=str(pair.public))
    tree.passes(identities=str(pair.public), require="provenance")


# --- One digest: what the signature covers and what the provenance names are the same ---


@pytest.mark.parametrize("kind", ["tree"])
def test_signature_about_less_than_the_provenance(world: World) -> None:
    """Two truly signed pieces over different sets of files do not add up to one artifact."""
    whole = {path.name: path.read_bytes() for path in world.objects("provenance")}
    less = world.sign(ignore=["a.bin"])
    signature = next(iter((world.store / less.ref.digest.path_segment).glob("signature-*"))).read_bytes()
    handed = (_stored("signature", signature), _stored("provenance", next(iter(whole.values()))))
    outcome = world.check(str(world.artifact), evidence=handed, only_given_evidence=True)
    assert outcome.status == "failed", outcome.verdict.as_dict()
    assert outcome.handed_out is None


@pytest.mark.parametrize("kind", ["tree"])
@pytest.mark.parametrize("way", ["held"])
def test_two_signatures_that_leave_the_same_files_out(world: World) -> None:
    world.remove()
    (world.artifact / ".git").mkdir()
    (world.artifact / ".git" / "config").write_bytes(b"x")
    for _ in range(2):
        signed = world.sign(ignore=[".git"])
    outcome = world.passes(signed.ref)
    assert outcome.handed_out == {name: data for name, data in world.content().items() if not name.startswith(".git")}


def _stored(kind: str, data: bytes) -> Any:
    from sealflow import StoredEvidence

    return StoredEvidence("handed over", data, kind)
