"""Encrypted artifacts under attack: by whoever can write where they lie, by recipients, and by signers who lie."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.reading import reading
from sealflow.encryption import EncryptedDataKey, EncryptionContext, load_recipient, parse_header
from sealflow.errors import ArtifactError
from sealflow.evidence import make_bundle, parse_bundle
from sealflow.evidence.statement import make_statement
from sealflow.findings import CODES
from sealflow.hashing import sha256_hex
from sealflow.keys import load_signer
from sealflow.transfer.archive import END, TAIL, index_length
from tests.attacks.encrypted_world import FILES, FRAME, EncryptedWorld, flips, manifest_of
from tests.core.encryption.messages import ARN, OTHER_ARN, RSA_PUBLIC_PEM, parts
from tests.core.transfer.test_archive import LIES, TRICKS, changed, entry
from tests.core.transfer.world import read_tree
from tests.pki import write_key

pytestmark = pytest.mark.slow

#: Codes that say: these are not the bytes that somebody accepted has signed for.
ALTERED = ("MESSAGE_ALTERED", "MESSAGE_MALFORMED", "MESSAGE_UNSUPPORTED", "ENCRYPTION_UNBOUND")
MALFORMED = "ARCHIVE_MALFORMED"
SECRET_NAMES = {"payroll-2026.csv": b"salaries", "subfolder/hidden weights.bin": b"w" * 1234, "z": b""}


@pytest.fixture
def world(tmp_path: Path) -> EncryptedWorld:
    return EncryptedWorld(tmp_path / "world")


def never_passes(world: EncryptedWorld, what: object) -> None:
    """Nobody takes it, by location or by reference, and the verdict says why."""
    for target in (None, world.ref):
        verdict = world.check(target)
        assert verdict.status != "passed", what
        assert verdict.deciding_finding is not None
        assert verdict.deciding_finding.code in CODES


def test_untouched_artifact_passes(world: EncryptedWorld) -> None:
    world.passes()
    assert world.download() == "passed"
    assert world.reads() == "passed"


# --- Whoever can write to the store: the object ---


def object_bits(world: EncryptedWorld) -> int:
    return len(world.before) * 8


def test_flipped_bits_of_the_object(world: EncryptedWorld) -> None:
    """Some of them; all of them below."""
    for bit, altered in flips(world.before, range(0, object_bits(world), 499)):
        world.put(altered)
        never_passes(world, bit)
    assert world.download() == "failed"
    assert world.reads() == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("share", range(8))
def test_every_flipped_bit_of_the_object(tmp_path: Path, share: int) -> None:
    world = EncryptedWorld(tmp_path / "world", {"a": b"w"}, frame=1024)
    for bit, altered in flips(world.before, range(share, object_bits(world), 8)):
        world.put(altered)
        verdict = world.check(world.ref)
        assert verdict.status == "failed", bit
    assert world.download() == "failed"


def same_statement(data: bytes, altered: bytes) -> bool:
    """What says where to look for the key is not signed; who finds the key all the same reads the same statement."""
    before, after = parse_bundle(data), parse_bundle(altered)
    return before._replace(hint=None) == after._replace(hint=None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["frames", "encryption", "provenance"])
@pytest.mark.parametrize("named", ["as-before", "by-its-bytes"])
def test_every_flipped_bit_of_its_evidence(world: EncryptedWorld, kind: str, named: str) -> None:
    """Under the name that it had, and under the one that the altered bytes deserve."""
    path = world.only(kind)
    data = path.read_bytes()
    shutil.rmtree(world.store / world.ref.digest.path_segment)  # the same provenance, kept there for lineage
    path.unlink()
    for bit, altered in flips(data, range(len(data) * 8)):
        place = path if named == "as-before" else path.with_name(f"{kind}-{sha256_hex(altered)}{path.suffix}")
        place.write_bytes(altered)
        verdict = world.check(world.ref)
        assert verdict.status != "passed" or (named == "by-its-bytes" and same_statement(data, altered)), bit
        place.unlink()
    assert world.download() == "failed"


def test_flipped_bits_of_its_evidence(world: EncryptedWorld) -> None:
    shutil.rmtree(world.store / world.ref.digest.path_segment)
    for kind in ("frames", "encryption", "provenance"):
        path = world.only(kind)
        data = path.read_bytes()
        for bit, altered in flips(data, range(0, len(data) * 8, 307)):
            path.write_bytes(altered)
            never_passes(world, (kind, bit))
        path.write_bytes(data)
    world.passes()


def boundaries(world: EncryptedWorld) -> dict[str, int]:
    header, frames, _ = parts(world.before)
    plaintext = world.plaintext
    index = len(plaintext) - len(END) - index_length(plaintext[-TAIL:], len(plaintext))
    places = {"nothing": 0, "within-the-header": 40, "header": len(header)}
    at = len(header)
    for number, frame in enumerate(frames, 1):
        at += len(frame)
        places[f"frame-{number}"] = at
    for name, position in {"before-the-end": len(plaintext) - len(END), "index": index}.items():
        places[name] = len(header) + position // FRAME * (FRAME + 32) + 16 + position % FRAME
    return places | {"last-byte": len(world.before) - 1}


def test_truncated_at_each_boundary(world: EncryptedWorld) -> None:
    for name, length in boundaries(world).items():
        for more in (-1, 0, 1):
            data = world.before[: max(0, length + more)]
            if data != world.before:
                world.put(data)
                never_passes(world, (name, more))
        world.put(world.before + b"\x00" * (1 + length % 600))
        never_passes(world, (name, "longer"))
    assert world.download() == "failed"


FRAMES: dict[str, Callable[[bytes, list[bytes], list[bytes]], bytes]] = {
    "two-swapped": lambda header, own, other: header + own[1] + own[0] + b"".join(own[2:]),
    "one-twice": lambda header, own, other: header + own[0] + own[0] + b"".join(own[2:]),
    "one-repeated": lambda header, own, other: header + own[0] + b"".join(own),
    "first-dropped": lambda header, own, other: header + b"".join(own[1:]),
    "middle-dropped": lambda header, own, other: header + b"".join(own[:2] + own[3:]),
    "last-dropped": lambda header, own, other: header + b"".join(own[:-1]),
    "final-one-earlier": lambda header, own, other: header + b"".join(own[:-2]) + own[-1],
    "one-of-another-artifact": lambda header, own, other: header + other[0] + b"".join(own[1:]),
    "final-one-of-another-artifact": lambda header, own, other: header + b"".join(own[:-1]) + other[-1],
    "all-of-another-artifact": lambda header, own, other: header + b"".join(other),
    "reversed": lambda header, own, other: header + b"".join([*reversed(own[:-1]), own[-1]]),
}


@pytest.mark.parametrize("how", FRAMES)
def test_frames_moved(world: EncryptedWorld, how: str) -> None:
    world.upload(to=world.folder / "out" / "other")
    other = parts((world.folder / "out" / "other").read_bytes())
    header, frames, _ = parts(world.before)
    world.put(FRAMES[how](header, frames, other[1]))
    world.refuses(*ALTERED)


def test_header_of_one_on_the_body_of_another(world: EncryptedWorld) -> None:
    """Evidence about both lies in the same store."""
    world.upload(to=world.folder / "out" / "other", evidence_store=str(world.store))
    other = parts((world.folder / "out" / "other").read_bytes())
    header, frames, _ = parts(world.before)
    for message in (header + b"".join(other[1]), other[0] + b"".join(frames)):
        world.put(message)
        world.refuses(*ALTERED)


def test_other_artifact_in_its_place(world: EncryptedWorld) -> None:
    """Whole, by the same producer, with all its evidence. The reference pins which one is meant; so does the name."""
    (world.source / "a.bin").write_bytes(b"other weights")
    other = world.upload(to=world.folder / "out" / "other", evidence_store=str(world.store), name="other")
    shutil.copy(world.folder / "out" / "other", world.object)
    assert world.check(name="other").status == "passed"
    verdict = world.check(world.ref)
    assert verdict.status == "failed"
    assert world.download(world.ref) == "failed"
    wrong = world.check(name="model")
    assert wrong.deciding_finding is not None
    assert wrong.deciding_finding.code == "CONTEXT_MISMATCH"
    assert other.ref.digest != world.ref.digest


def test_older_version_in_its_place(world: EncryptedWorld) -> None:
    """What the same producer made under the same name last week is refused by whoever holds a reference."""
    (world.source / "a.bin").write_bytes(b"newer weights")
    world.uploaded = world.upload(overwrite=True)
    assert world.check(world.ref).status == "passed"
    world.put(world.before)
    verdict = world.check(world.ref)
    assert verdict.status == "failed"
    assert world.download(world.ref) == "failed"
    assert world.reads() == "passed"  # by location alone nothing says which of the two is meant


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x02\x04\x78", id="beginning"),
        pytest.param(b"\x02\x05\x78" + bytes(300), id="suite-with-a-signature"),
        pytest.param(b"\x01\x80\x03\x78" + bytes(300), id="version-1"),
        pytest.param(b"\x02\x04\x78" + b"\xff" * 70_000, id="endless-header"),
        pytest.param(b"plain text", id="plain"),
    ],
)
def test_something_else_in_its_place(world: EncryptedWorld, data: bytes) -> None:
    world.put(data)
    never_passes(world, data[:8])
    assert world.download(world.ref) == "failed"


def test_clear_copy_in_its_place(world: EncryptedWorld) -> None:
    """Signed and all: a reference to an encrypted artifact is to an encrypted one."""
    world.object.unlink()
    shutil.copytree(world.source, world.object)
    with sealflow.run(sealflow.Surroundings()):
        sealflow.sign_artifact(world.object, signer=world.trainer.signer, name="model", evidence_store=str(world.store))
    verdict = world.check(world.ref)
    assert verdict.status == "failed"
    assert world.download(world.ref) == "failed"


def test_plain_reference_to_the_encrypted_object(world: EncryptedWorld) -> None:
    """Who strikes `encrypted` out of a reference gets no ciphertext for an artifact."""
    body = world.ref.as_dict() | {"encrypted": False}
    verdict = world.check(body)
    assert verdict.status == "failed"
    assert world.download(body) == "failed"


# --- The evidence ---


@pytest.mark.parametrize("kind", ["frames", "encryption", "provenance"])
def test_evidence_removed(world: EncryptedWorld, kind: str) -> None:
    shutil.rmtree(world.store / world.ref.digest.path_segment)
    world.only(kind).unlink()
    world.refuses("EVIDENCE_MISSING", "ENCRYPTION_UNBOUND", "PROVENANCE_MISSING")


def test_all_evidence_removed(world: EncryptedWorld) -> None:
    shutil.rmtree(world.store)
    world.refuses("ENCRYPTION_UNBOUND")


@pytest.mark.parametrize("how", ["of-another-artifact", "one-frame-other", "shorter", "longer", "empty", "huge"])
def test_frame_list_swapped(world: EncryptedWorld, how: str) -> None:
    """Under the name of the signed one."""
    path = world.only("frames")
    own = path.read_bytes()
    world.upload(to=world.folder / "out" / "other")
    (other,) = (world.folder / "out" / "other.evidence").glob("message-*/frames-*")
    path.write_bytes(
        {
            "of-another-artifact": other.read_bytes(),
            "one-frame-other": own[:-32] + bytes(32),
            "shorter": own[:-32],
            "longer": own + bytes(32),
            "empty": b"",
            "huge": own + bytes(65 << 20),
        }[how]
    )
    world.refuses("EVIDENCE_ALTERED", "EVIDENCE_MALFORMED", "ENCRYPTION_UNBOUND")


def test_statement_about_another_message(world: EncryptedWorld) -> None:
    """True evidence about another encryption of the very same artifact, put under this one's id."""
    world.upload(to=world.folder / "out" / "other")
    (other,) = (world.folder / "out" / "other.evidence").glob("message-*")
    shutil.rmtree(world.evidence)
    shutil.copytree(other, world.evidence)
    verdict = world.refuses("EVIDENCE_OF_OTHER_ARTIFACT", "ENCRYPTION_UNBOUND")
    assert "EVIDENCE_OF_OTHER_ARTIFACT" in {finding.code for finding in verdict.findings}


def test_statement_by_a_stranger(world: EncryptedWorld) -> None:
    world.only("encryption").unlink()
    world.bind(world.before, world.ref.digest, signer=world.stranger.signer)
    world.refuses("SIGNER_NOT_ALLOWED")


def test_identity_that_is_not_accepted_here(world: EncryptedWorld) -> None:
    for target in (None, world.ref):
        verdict = world.check(target, identities={"other": str(world.stranger.public)})
        assert verdict.status == "failed"
        assert "ENCRYPTION_UNBOUND" in {finding.code for finding in verdict.findings}


def test_a_strangers_evidence_beside_the_true_one_does_no_harm(world: EncryptedWorld) -> None:
    world.bind(world.before, world.ref.digest, signer=world.stranger.signer)
    for kind in ("encryption", "provenance"):
        (world.evidence / f"{kind}-{'0' * 64}.json").write_bytes(b"{}")
        (world.evidence / f"{kind}-{sha256_hex(b'{}')}.json").write_bytes(b"{}")
        (world.evidence / f"{kind}-junk").write_bytes(b"")
    world.passes()
    assert world.download() == "passed"
    for _ in range(4):  # whichever of the two is listed first
        again = world.upload()
        assert again.existed
        assert again.provenance == world.uploaded.provenance
        world.bind(world.before, world.ref.digest, signer=write_key(world.folder, "another").signer)


def test_evidence_that_crowds_out_the_rest_is_no_pass(world: EncryptedWorld) -> None:
    path = world.only("encryption")
    for number in range(200):
        (world.evidence / f"encryption-{number:064x}.json").write_bytes(b"{}")
    path.rename(path.with_name(f"encryption-{'f' * 64}.json"))
    verdict = world.check()
    assert verdict.status == "unverifiable"
    assert "EVIDENCE_TOO_MUCH" in {finding.code for finding in verdict.findings}


def test_evidence_that_cannot_be_read_is_no_pass(world: EncryptedWorld) -> None:
    for kind in ("frames", "encryption"):
        path = world.only(kind)
        data = path.read_bytes()
        path.unlink()
        path.mkdir()
        assert world.check().status != "passed"
        path.rmdir()
        path.write_bytes(data)
    world.passes()


STATEMENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "frames-less": lambda body: body["predicate"].update(frames=body["predicate"]["frames"] - 1),
    "frames-nought": lambda body: body["predicate"].update(frames=0),
    "frames-true": lambda body: body["predicate"].update(frames=True),
    "frames-text": lambda body: body["predicate"].update(frames="3"),
    "no-artifact": lambda body: body["predicate"].pop("artifact"),
    "other-artifact": lambda body: body["predicate"].update(artifact={"dirHash": "ab" * 32}),
    "artifact-of-another-kind": lambda body: body["predicate"].update(artifact={"sha256": "ab" * 32}),
    "two-artifacts": lambda body: body["predicate"]["artifact"].update(sha256="ab" * 32),
    "artifact-number": lambda body: body["predicate"].update(artifact={"dirHash": 3}),
    "other-format": lambda body: body["predicate"].update(format="aws-encryption-sdk/v1"),
    "no-time": lambda body: body["predicate"].pop("finishedOn"),
    "odd-time": lambda body: body["predicate"].update(finishedOn="yesterday"),
    "no-producer": lambda body: body["predicate"].pop("producer"),
    "producer-with-escapes": lambda body: body["predicate"].update(producer="\x1b[31m"),
    "producer-endless": lambda body: body["predicate"].update(producer="a" * 5000),
    "other-message": lambda body: body["subject"][0].update(name="00" * 32),
    "message-in-capitals": lambda body: body["subject"][0].update(name=body["subject"][0]["name"].upper()),
    "other-list": lambda body: body["subject"][0].update(digest={"sha256": "ab" * 32}),
    "no-list": lambda body: body["subject"][0].update(digest={}),
    "two-subjects": lambda body: body["subject"].append(body["subject"][0]),
    "other-predicate": lambda body: body.update(predicateType="https://example.com/x"),
}


@pytest.mark.parametrize("how", STATEMENTS)
def test_statement_that_an_accepted_signer_made_of_something_else(world: EncryptedWorld, how: str) -> None:
    """Truly signed, and not what it should be."""
    body = world.statement()
    STATEMENTS[how](body)
    world.only("encryption").unlink()
    subject = body["subject"]
    statement = (
        make_statement(subject[0]["name"], subject[0]["digest"], body["predicateType"], body["predicate"])
        if len(subject) == 1
        else b'{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"x","subject":[]}'
    )
    bundle = make_bundle(statement, load_signer(world.trainer.signer))
    (world.evidence / f"encryption-{sha256_hex(bundle)}.json").write_bytes(bundle)
    world.refuses()


def test_list_that_an_accepted_signer_made_of_other_frames(world: EncryptedWorld) -> None:
    """The header is right, the number of frames is, and one digest is not."""
    body = world.statement()
    path = world.only("frames")
    own = path.read_bytes()
    world.only("encryption").unlink()
    subject, predicate = body["subject"][0]["name"], body["predicate"]
    for frame in (0, 1, len(own) // 32 - 1):
        digests = bytearray(own)
        digests[frame * 32] ^= 1
        sha256 = sha256_hex(bytes(digests))
        statement = make_statement(subject, {"sha256": sha256}, body["predicateType"], predicate)
        bundle = make_bundle(statement, load_signer(world.trainer.signer))
        (world.evidence / f"encryption-{sha256_hex(bundle)}.json").write_bytes(bundle)
        (world.evidence / f"frames-{sha256}.bin").write_bytes(digests)
        world.refuses("MESSAGE_ALTERED")
        world.only("encryption").unlink()


# --- A recipient, who knows the data key ---

FORGED: dict[str, Callable[[EncryptedWorld], bytes]] = {
    "the-same-again": lambda world: world.encrypt(world.plaintext, fresh=True),
    "other-content": lambda world: world.encrypt(world.plaintext.replace(b"first weights", b"wrong weights")),
    "other-content-of-the-last-file": lambda world: world.encrypt(
        world.plaintext.replace(FILES["sub/c.bin"], bytes(reversed(FILES["sub/c.bin"])))
    ),
    "other-content-under-another-id": lambda world: world.encrypt(
        world.plaintext.replace(b"first weights", b"wrong weights"), fresh=True
    ),
    "other-content-and-index": lambda world: world.encrypt(
        world.plaintext.replace(b"first weights", b"wrong weights").replace(
            sha256_hex(b"first weights").encode(), sha256_hex(b"wrong weights").encode()
        )
    ),
    "other-executable-bits": lambda world: world.encrypt(
        world.archive(FILES, executable=lambda name: True, signer=world.stranger.signer)[0]
    ),
    "other-archive": lambda world: world.encrypt(world.archive({"a.bin": b"mine"}, signer=world.stranger.signer)[0]),
    "one-file-less": lambda world: world.encrypt(
        world.archive({k: v for k, v in FILES.items() if k != "run.sh"}, signer=world.stranger.signer)[0]
    ),
    "other-frame-length": lambda world: world.encrypt(world.plaintext, frame_length=FRAME * 2),
    "an-empty-last-frame": lambda world: world.encrypt(world.plaintext, final_empty=True),
    "other-context": lambda world: world.encrypt(world.plaintext, context={"sealflow-artifact": "model"}),
    "one-recipient-more": lambda world: world.encrypt(
        world.plaintext,
        data_keys=[
            *parse_header(world.before).data_keys,
            load_recipient(world.secret("mallory")).wrap(world.data_key, parse_header(world.before).context),
        ],
    ),
    "nothing": lambda world: world.encrypt(b""),
}


@pytest.mark.parametrize("how", FORGED)
@pytest.mark.parametrize("signed", ["as-it-was", "by-a-stranger"])
def test_forged_by_a_recipient(world: EncryptedWorld, how: str, signed: str) -> None:
    """Every tag is right, under the right key. What he cannot make is the statement of an accepted signer."""
    message = FORGED[how](world)
    world.put(message)
    if signed == "by-a-stranger":
        world.bind(message, world.ref.digest, signer=world.stranger.signer)
    world.refuses(*ALTERED, "SIGNER_NOT_ALLOWED")


def test_frame_list_forged_by_a_recipient(world: EncryptedWorld) -> None:
    """He writes his frames' digests over the signed list."""
    message = FORGED["other-content"](world)
    header, frames, _ = parts(message)
    world.put(message)
    world.only("frames").write_bytes(b"".join(hashlib.sha256(piece).digest() for piece in (header, *frames)))
    world.refuses("EVIDENCE_ALTERED", "ENCRYPTION_UNBOUND")


def test_whole_message_by_a_stranger_to_our_public_key(tmp_path: Path) -> None:
    """Anybody can encrypt to a public key, and sign with a key of his own."""
    world = EncryptedWorld(tmp_path / "world")
    (world.folder / "team.pub").write_bytes(RSA_PUBLIC_PEM)
    mine = world.folder / "mine"
    mine.mkdir()
    (mine / "a.bin").write_bytes(b"malware")
    public = f"rsa:{world.folder / 'team.pub'}"
    world.upload(source=mine, recipients=[public, world.team], signer=world.stranger.signer, overwrite=True)
    world.refuses("SIGNER_NOT_ALLOWED")


# --- Keys ---


def test_wrong_key(world: EncryptedWorld) -> None:
    world.refuses("RECIPIENT_MISSING", recipients=[world.secret("other")])


def test_wrong_key_of_the_right_name(world: EncryptedWorld) -> None:
    name = load_recipient(world.team).name  # type: ignore[attr-defined]
    world.refuses("RECIPIENT_KEY_WRONG", recipients=[f"{world.secret('other')}?name={name}"])


def test_public_half_alone(tmp_path: Path) -> None:
    world = EncryptedWorld(tmp_path / "world")
    (world.folder / "team.pub").write_bytes(RSA_PUBLIC_PEM)
    public = f"rsa:{world.folder / 'team.pub'}"
    world.uploaded = world.upload(recipients=[public], overwrite=True)
    world.refuses("RECIPIENT_KEY_WRONG", recipients=[public])


def test_foreign_kms_key_in_the_header(world: EncryptedWorld) -> None:
    """Signed for by an accepted signer, and still no key is asked that the reader did not list."""
    message = world.encrypt(world.plaintext, data_keys=[EncryptedDataKey("aws-kms", OTHER_ARN.encode(), b"x" * 100)])
    world.put(message)
    world.bind(message, world.ref.digest)
    world.refuses("KMS_KEY_NOT_ALLOWED", recipients=[f"awskms:{ARN}"])


def test_commitment_broken(world: EncryptedWorld) -> None:
    """Signed for by an accepted signer: the header commits to another data key than the one wrapped in it."""
    wrapped = load_recipient(world.team).wrap(b"k" * 32, parse_header(world.before).context)
    message = world.encrypt(world.plaintext, data_keys=[wrapped])
    world.put(message)
    world.bind(message, world.ref.digest)
    world.refuses("COMMITMENT_MISMATCH")


def test_other_logical_name_in_the_header(world: EncryptedWorld) -> None:
    context = {**parse_header(world.before).context.pairs, "sealflow-artifact": "other"}
    wrapped = load_recipient(world.team).wrap(world.data_key, EncryptionContext.of(context))
    message = world.encrypt(world.plaintext, context=context, data_keys=[wrapped])
    world.put(message)
    world.bind(message, world.ref.digest)
    world.refuses("CONTEXT_MISMATCH", name="model")


# --- An accepted signer who lies ---

SIGNED_LIES = {
    **LIES,
    "digest-other": entry(3, "0" * 64),
    "digests-swapped": lambda body: body["files"][0].__setitem__(3, body["files"][1][3]),
}


#: Lies that nothing but the headers between the files tells: of these, who reads a part sees none.
ONLY_WHOLE = {"size-more", "size-less", "size-nought", "executable", "root-other"}


@pytest.mark.parametrize("lie", SIGNED_LIES)
def test_index_that_lies(world: EncryptedWorld, lie: str) -> None:
    """With every signature that there is. Who reads one file must not see another artifact than who reads all."""
    message = world.encrypt(changed(world.plaintext, SIGNED_LIES[lie]), fresh=True)
    world.put(message)
    world.bind(message, world.ref.digest)
    world.refuses(MALFORMED, "ENCRYPTION_UNBOUND", parts=lie not in ONLY_WHOLE)


def test_nobody_named_who_may_sign(world: EncryptedWorld) -> None:
    """What is missing is the rule, and no new upload would mend that."""
    world.refuses("IDENTITY_RULE_MISSING", identities=None)


def test_index_that_is_made_anew_and_true(world: EncryptedWorld) -> None:
    """So the lies above are refused for what they say."""
    message = world.encrypt(changed(world.plaintext, lambda body: None), fresh=True)
    world.put(message)
    world.bind(message, world.ref.digest)
    world.passes()
    assert world.download() == "passed"
    assert world.reads() == "passed"


@pytest.mark.parametrize("trick", TRICKS)
def test_headers_that_other_tars_read_otherwise(world: EncryptedWorld, trick: str) -> None:
    plaintext = world.plaintext
    header = TRICKS[trick]("model/a.bin", 13)
    forged = header + plaintext[512:]
    if len(header) > 512:

        def shift(body: dict[str, Any]) -> None:
            for item in body["files"]:
                item[1] += len(header) - 512
            body["signature"][0] += len(header) - 512

        forged = changed(forged, shift)
    message = world.encrypt(forged, fresh=True)
    world.put(message)
    world.bind(message, world.ref.digest)
    # Of one file, or of its index, nobody needs the header; who unpacks it all does.
    verdict = world.check()
    assert verdict.status == "failed"
    assert verdict.deciding_finding is not None
    assert verdict.deciding_finding.code == MALFORMED
    assert world.download() == "failed"


def test_something_between_the_files(world: EncryptedWorld) -> None:
    """Padding that is not zero is content to nobody, so nothing may stand there."""
    plaintext = bytearray(world.plaintext)
    plaintext[512 + 13] = 1
    message = world.encrypt(bytes(plaintext), fresh=True)
    world.put(message)
    world.bind(message, world.ref.digest)
    verdict = world.check()
    assert verdict.deciding_finding is not None
    assert verdict.deciding_finding.code == MALFORMED
    assert world.download() == "failed"


def test_other_files_than_were_signed(world: EncryptedWorld) -> None:
    """The statement about the frames names the true artifact, and the frames hold another."""
    archive, _ = world.archive({**FILES, "a.bin": b"wrong weights"})
    message = world.encrypt(archive, fresh=True)
    world.put(message)
    world.bind(message, world.ref.digest)
    world.refuses("ENCRYPTION_UNBOUND")


def test_signature_over_other_files(world: EncryptedWorld) -> None:
    """The files are those of the statement, the OMS bundle among them is about others."""
    archive, _ = world.archive(FILES, signed={**FILES, "a.bin": b"wrong weights"})
    message = world.encrypt(archive, fresh=True)
    world.put(message)
    world.bind(message, world.ref.digest)
    world.refuses()


def test_signature_by_a_stranger_within(world: EncryptedWorld) -> None:
    archive, digest = world.archive(FILES, signer=world.stranger.signer)
    assert digest == world.ref.digest
    message = world.encrypt(archive, fresh=True)
    world.put(message)
    world.bind(message, digest)
    world.refuses()


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "a/../../evil", "a//b", "./a", "a\\b", "a\nb", "\u202egnp.exe", "x" * 256, "a/" * 129],
)
def test_traversal(world: EncryptedWorld, name: str) -> None:
    """A name that leaves the folder, or hides; signed for by everybody."""
    archive, _ = world.archive({"a.bin": b"x"})
    files = {name: b"x"}
    message = world.encrypt(changed(archive, entry(0, name)), fresh=True)
    world.put(message)
    world.bind(message, manifest_of(files).digest)
    world.refuses(MALFORMED)
    assert not list(world.folder.rglob("evil*"))


@pytest.mark.parametrize("other", ["A.BIN", "A.bin", "a.bin/x", "a.bi\u0301n"])
def test_collisions(world: EncryptedWorld, other: str) -> None:
    files = {"a.bin": b"x", other: b"y"} if other != "a.bi\u0301n" else {"a.b\u00edn": b"x", other: b"y"}
    archive, digest = world.archive(files)
    message = world.encrypt(archive, fresh=True)
    world.put(message)
    world.bind(message, digest)
    world.refuses(MALFORMED)


# --- Bombs ---


def bombed(world: EncryptedWorld, index: bytes) -> None:
    """Put an object in place whose index is this, signed for by an accepted signer."""
    plaintext = index + END
    message = world.encrypt(plaintext, fresh=True, frame_length=1 << 20)
    world.put(message)
    world.bind(message, world.ref.digest)


@pytest.mark.slow
def test_index_of_blanks(world: EncryptedWorld) -> None:
    length = 256 << 20
    bombed(world, b" " * (length - 22) + b"\n%020d\n" % length)
    start = time.monotonic()
    assert world.check().status == "failed"
    assert time.monotonic() - start < 60


def test_index_beyond_the_limit(world: EncryptedWorld) -> None:
    """Refused by its number, before any of it is fetched."""
    length = (256 << 20) + 512
    bombed(world, b"x" * 1002 + b"\n%020d\n" % length)
    world.refuses(MALFORMED)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["[]", '["a",0,0,"' + "0" * 64 + '",0]', "0"], ids=["lists", "entries", "numbers"])
def test_index_of_a_million_entries(world: EncryptedWorld, what: str) -> None:
    line = b'{"files":[' + b",".join([what.encode()] * 1_000_000)
    line += b'],"kind":"tree","name":"m","recipients":[],"sealflow_index":1,"signature":[0,1]}'
    fill = -(len(line) + 22) % 512
    length = len(line) + fill + 22
    bombed(world, line + b" " * fill + b"\n%020d\n" % length)
    start = time.monotonic()
    assert world.check().status == "failed"
    assert time.monotonic() - start < 60


def test_deep_index(world: EncryptedWorld) -> None:
    line = b"[" * 5000 + b"]" * 5000
    fill = -(len(line) + 22) % 512
    bombed(world, line + b" " * fill + b"\n%020d\n" % (len(line) + fill + 22))
    world.refuses(MALFORMED)


# --- Between two looks ---


@pytest.mark.parametrize("how", ["written-over", "replaced"])
def test_object_replaced_between_range_reads(world: EncryptedWorld, how: str) -> None:
    forged = world.encrypt(world.plaintext.replace(b"first", b"wrong"))
    with reading(str(world.object), **world.options()) as artifact:
        assert artifact.read("a.bin", 6, 7) == b"weights"
        (replaced if how == "replaced" else Path.write_bytes)(world.object, forged)
        with pytest.raises(ArtifactError) as caught:
            artifact.read("a.bin")
        assert caught.value.code == "ARTIFACT_CHANGED"
    world.refuses(*ALTERED)


def replaced(path: Path, data: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(data)
    os.replace(new, path)


# --- Nothing secret in clear ---


def test_nothing_secret_in_clear(tmp_path: Path) -> None:
    """Neither names nor sizes nor digests of files nor the root digest of the signature, in any spelling."""
    world = EncryptedWorld(tmp_path / "world", SECRET_NAMES)
    stored = b"".join(
        str(path.relative_to(world.object.parent)).encode() + b"\n" + path.read_bytes()
        for path in sorted(world.object.parent.rglob("*"))
        if path.is_file()
    )
    assert world.check().status == "passed"
    clear = stored + b"".join(decoded(stored))
    manifest = manifest_of(SECRET_NAMES)
    secrets = [b"payroll", b"hidden", b"salaries", b".sealflow/", b"subfolder/"]
    for digest in (*(item.digest for item in manifest.resources), manifest.root_digest):
        secrets += [digest.encode(), bytes.fromhex(digest), digest.upper().encode()]
    for secret in secrets:
        assert secret not in clear, secret
    for size in (b"1234", b"2322"):  # as numbers: hexadecimal and Base64 hold any four digits now and then
        assert not re.search(rb"(?<![\w+/-])" + size + rb"(?![\w+/=-])", clear), size
    assert b"model" in clear  # the logical name, which the documentation says
    assert str(world.ref.digest).partition(":")[2].encode() in clear


def decoded(data: bytes) -> list[bytes]:
    """Everything in Base64, decoded, and what is in that."""
    import base64

    words = [word[: len(word) // 4 * 4] for word in re.findall(rb"[A-Za-z0-9+/]{16,}={0,2}", data)]
    found = [base64.b64decode(word) for word in words]
    return found + [inner for item in found for inner in decoded(item)]


def test_the_copy_is_what_was_uploaded(world: EncryptedWorld) -> None:
    """Modes too, and nothing else of the source or of the store."""
    from sealflow.actions.download import download_artifact

    download_artifact(world.ref, world.target, **world.options())
    assert read_tree(world.target) == dict(FILES)
    modes = {path.name: path.stat().st_mode & 0o777 for path in world.target.rglob("*") if path.is_file()}
    assert {name: bool(mode & 0o111) for name, mode in modes.items()} == {
        "a.bin": False,
        "run.sh": True,
        "c.bin": False,
    }
