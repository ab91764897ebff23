"""L3: bytes belong to a signed commit on a branch. The stock programs make everything that is read here."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from hypothesis import given
from hypothesis import strategies as st

from sealflow.actions.lineage import check_lineage
from sealflow.errors import SealflowError, UsageError
from sealflow.findings import Verdict
from sealflow.lineage import git as module
from sealflow.lineage import git_signature
from sealflow.lineage.git import AllowedSigner, check_commit, find_repository, read_allowed_signers
from sealflow.lineage.git_program import Stopped, object_id
from tests.core.lineage.gitrepo import (
    ALLOWED,
    FILES,
    LOCK,
    MAIN,
    Gpg,
    Repo,
    allowed,
    environment,
    join,
    names,
    new_repo,
    passed,
    public,
    refusals,
    split,
    ssh_key,
    ssh_sign,
    ssh_verifies,
)

pytest_plugins = ["tests.core.lineage.fixtures"]
pytestmark = [pytest.mark.usefixtures("ssh_keygen"), pytest.mark.slow]

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    repo = new_repo(tmp_path / "repo")
    repo.commit()
    return repo


# --- Signatures ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "bits"),
    [("ed25519", 0), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("rsa", 2048), ("rsa", 3072)],
    ids=lambda value: str(value),
)
def test_every_kind_of_ssh_key_signs(tmp_path: Path, kind: str, bits: int) -> None:
    key = ssh_key(kind, bits)
    repo = new_repo(tmp_path, key=key)
    commit = repo.commit()

    check = repo.check(allowed_signers=allowed(key))

    assert passed(check)
    assert (check.commit, check.signer, check.committed_at) == (commit, ALLOWED, AT)
    fingerprint = subprocess.run(["ssh-keygen", "-lf", f"{key}.pub"], capture_output=True, text=True, check=True).stdout
    assert check.key == fingerprint.split()[1]
    assert names(check.findings) == ["BRANCH_CLAIMED"]


@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_both_digests_of_ssh_signatures(repo: Repo, digest: str) -> None:
    payload, _ = split(repo.raw())
    repo.head(repo.store(join(payload, ssh_sign(payload, ssh_key(), digest=digest))))
    assert passed(repo.check())


def test_a_repository_of_sha256_ids(tmp_path: Path) -> None:
    repo = new_repo(tmp_path, "--object-format=sha256")
    repo.commit({"dvc.lock": LOCK, "deep/er/file": b"x"}, message="First")
    first = repo.git("rev-parse", "HEAD")
    repo.commit({"other": b"y"}, message="Second")

    check = repo.check(files={"dvc.lock": LOCK, "deep/er/file": b"x"}, revision=first)

    assert passed(check)
    assert len(check.commit) == 64
    assert refusals(repo.check(files={"dvc.lock": LOCK + b"#"})) == ["GIT_DIRTY"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "message",
    [
        "One line",
        "Subject\n\nBody\n\nTrailer: x\n",
        "ünïcode 你好",
        "",
        "  \n\n leading",
        "gpgsig not a header",
        "a\n" * 400,
    ],
    ids=["line", "body", "unicode", "empty", "spaces", "gpgsig", "long"],
)
def test_messages_of_all_forms(repo: Repo, message: str) -> None:
    repo.commit(None, "--allow-empty-message", "--cleanup=verbatim", message=message)
    assert passed(repo.check())


@pytest.mark.slow
def test_a_commit_that_merges_a_signed_tag(repo: Repo) -> None:
    """Its header holds the tag, signature and all, which is no signature of the commit."""
    repo.git("checkout", "-q", "-b", "side")
    repo.commit({"side": b"1"})
    repo.git("-c", "gpg.format=ssh", "-c", f"user.signingKey={ssh_key()}.pub", "tag", "-s", "-m", "tag", "v1")
    repo.git("checkout", "-q", "main")
    repo.commit({"main": b"1"})
    signing = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={ssh_key()}.pub")
    repo.git(*signing, "merge", "-q", "-S", "--no-ff", "-m", "Merge", "v1")
    assert b"\nmergetag " in repo.raw()
    assert passed(repo.check())

    repo.git("checkout", "-q", "-B", "main", "HEAD~1")
    repo.git("merge", "-q", "--no-ff", "-m", "Merge", "v1")
    assert b"\nmergetag " in repo.raw()
    assert refusals(repo.check()) == ["COMMIT_UNSIGNED"]


def test_other_encodings_and_unknown_headers_are_signed_too(repo: Repo) -> None:
    payload, _ = split(repo.raw())
    head, _, message = payload.partition(b"\n\n")
    payload = head + b"\nencoding ISO-8859-1\nHG:extra a\n b\nempty\n\n" + message + b"\xe4\n"
    repo.head(repo.store(join(payload, ssh_sign(payload, ssh_key()))))
    assert passed(repo.check())


@pytest.mark.slow
@pytest.mark.parametrize("edit", ["nothing", "message", "tree", "author", "header", "signature"])
@pytest.mark.oracle
def test_git_agrees(repo: Repo, tmp_path: Path, edit: str) -> None:
    payload, signature = split(repo.raw())
    if edit == "message":
        payload += b"more\n"
    elif edit == "tree":
        payload = b"tree " + repo.store(b"", "tree").encode() + payload[45:]
    elif edit == "author":
        payload = payload.replace(b"author Ada", b"author Eve")
    elif edit == "header":
        payload = payload.replace(b"\n\n", b"\nextra x\n\n", 1)
    elif edit == "signature":
        lines = signature.split(b"\n")
        lines[-3] = lines[-3][::-1]
        signature = b"\n".join(lines)
    commit = repo.head(repo.store(join(payload, signature)))
    (tmp_path / "allowed").write_text(f"ada@example.org {public(ssh_key())}\n")
    stock = subprocess.run(
        ["git", "-c", f"gpg.ssh.allowedSignersFile={tmp_path}/allowed", "verify-commit", commit],
        cwd=repo.root, env=environment(), capture_output=True,
    )  # fmt: skip
    ours = repo.check(files={})
    assert passed(ours) == (stock.returncode == 0) == (edit == "nothing")
    if edit != "nothing":
        assert refusals(ours) == ["SIGNATURE_INVALID"]


# --- Security keys: nobody has one here, but what they sign is public, and ssh-keygen checks it ---


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _number(value: int) -> bytes:
    return _string(value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _armor(blob: bytes) -> str:
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


def security_key_signature(payload: bytes, kind: str, flags: int = 1) -> tuple[str, str]:
    """The public key line of a fresh security key, and its signature as PROTOCOL.u2f describes it."""
    name = {"ed25519": b"sk-ssh-ed25519@openssh.com", "ecdsa": b"sk-ecdsa-sha2-nistp256@openssh.com"}[kind]
    application = b"ssh:"
    outer = b"".join(map(_string, (b"git", b"", b"sha512", hashlib.sha512(payload).digest())))
    state = bytes([flags]) + (7).to_bytes(4, "big")
    signed = hashlib.sha256(application).digest() + state + hashlib.sha256(b"SSHSIG" + outer).digest()
    raw = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    if kind == "ed25519":
        one = ed25519.Ed25519PrivateKey.generate()
        blob = _string(name) + _string(one.public_key().public_bytes(*raw)) + _string(application)
        value = one.sign(signed)
    else:
        two = ec.generate_private_key(ec.SECP256R1())
        point = two.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        blob = _string(name) + _string(b"nistp256") + _string(point) + _string(application)
        r, s = utils.decode_dss_signature(two.sign(signed, ec.ECDSA(hashes.SHA256())))
        value = _number(r) + _number(s)
    signature = _string(name) + _string(value) + state
    body = b"SSHSIG" + (1).to_bytes(4, "big") + b"".join(map(_string, (blob, b"git", b"", b"sha512", signature)))
    return f"{name.decode()} {base64.b64encode(blob).decode()} key", _armor(body)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_security_keys(repo: Repo, tmp_path: Path, kind: str) -> None:
    payload, _ = split(repo.raw())
    line, signature = security_key_signature(payload, kind)
    assert ssh_verifies(payload, signature, line, tmp_path)
    repo.head(repo.store(join(payload, signature)))
    assert passed(repo.check(allowed_signers=allowed(line)))
    assert refusals(repo.check()) == ["SIGNER_NOT_ALLOWED"]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_security_key_that_nobody_touched(repo: Repo, kind: str) -> None:
    payload, _ = split(repo.raw())
    line, signature = security_key_signature(payload, kind, flags=0)
    repo.head(repo.store(join(payload, signature)))
    assert refusals(repo.check(allowed_signers=allowed(line))) == ["SIGNATURE_UNSUPPORTED"]


# --- The form of SSH signatures ---


def _sshsig(payload: bytes, **change: Any) -> tuple[str, str]:
    """The key line of a fresh ECDSA key and its signature, with parts changed."""
    secret = ec.generate_private_key(ec.SECP256R1())
    point = secret.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    kind = b"ecdsa-sha2-nistp256"
    blob = _string(kind) + _string(b"nistp256") + _string(point)
    digest = change.get("digest", b"sha512")
    hashed = hashlib.new(digest.decode(), payload).digest()
    reserved = change.get("reserved", b"")
    signed = b"SSHSIG" + b"".join(map(_string, (b"git", reserved, digest, hashed)))
    r, s = utils.decode_dss_signature(secret.sign(signed, ec.ECDSA(hashes.SHA256())))
    number = change.get("number", _number)
    value = _string(change.get("kind", kind)) + _string(number(r) + number(s) + change.get("after_numbers", b""))
    value += change.get("after_value", b"")
    stated = change.get("blob", lambda blob: blob)(blob)
    body = b"SSHSIG" + change.get("version", 1).to_bytes(4, "big")
    body += b"".join(map(_string, (stated, b"git", reserved, digest, value))) + change.get("after", b"")
    return f"{kind.decode()} {base64.b64encode(blob).decode()}", _armor(body)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, None),
        ({"digest": b"sha256"}, None),
        ({"reserved": b"for later"}, "SIGNATURE_INVALID"),
        ({"digest": b"sha1"}, "SIGNATURE_UNSUPPORTED"),
        ({"digest": b"md5"}, "SIGNATURE_UNSUPPORTED"),
        ({"version": 2}, "SIGNATURE_INVALID"),
        ({"after": b"x"}, "SIGNATURE_INVALID"),
        ({"after_value": b"x"}, "SIGNATURE_INVALID"),
        ({"after_numbers": b"x"}, "SIGNATURE_INVALID"),
        ({"kind": b"ecdsa-sha2-nistp384"}, "SIGNATURE_UNSUPPORTED"),
        ({"kind": b"ssh-ed25519"}, "SIGNATURE_UNSUPPORTED"),
        ({"number": lambda n: _string(b"\0\0" + n.to_bytes(32, "big"))}, "SIGNATURE_INVALID"),
        ({"number": lambda n: _string((1 << 255 | n).to_bytes(32, "big"))}, "SIGNATURE_INVALID"),
        ({"number": lambda n: _string(b"")}, "SIGNATURE_INVALID"),
        ({"blob": lambda blob: blob + b"x"}, "SIGNATURE_UNSUPPORTED"),
        ({"blob": lambda blob: blob.replace(b"nistp256", b"nistp384")}, "SIGNATURE_UNSUPPORTED"),
        ({"blob": lambda blob: blob.replace(_string(b"nistp256"), _string(b"nistp384"))}, "SIGNATURE_UNSUPPORTED"),
        ({"blob": lambda blob: blob.replace(b"\x41\x04", b"\x41\x02")}, "SIGNATURE_UNSUPPORTED"),
        ({"blob": lambda blob: blob[:-1] + bytes([blob[-1] ^ 1])}, "SIGNATURE_UNSUPPORTED"),
        ({"blob": lambda blob: b""}, "SIGNATURE_UNSUPPORTED"),
        ({"blob": lambda blob: _string(b"ssh-rsa") + _number((1 << 64) + 1) + _number(1 << 2048 | 1)},
         "SIGNATURE_UNSUPPORTED"),
    ],
    ids=["right", "sha256", "reserved", "sha1", "md5", "version", "after", "after-value", "after-numbers", "p384",
         "ed25519", "padded-number", "negative-number", "no-number", "longer-key", "p384-key", "other-curve",
         "compressed", "off-the-curve", "no-key", "rsa-exponent"],
)  # fmt: skip
def test_the_form_of_ssh_signatures(repo: Repo, tmp_path: Path, change: dict[str, Any], code: str | None) -> None:
    payload, _ = split(repo.raw())
    line, signature = _sshsig(payload, **change)
    repo.head(repo.store(join(payload, signature)))
    assert refusals(repo.check(allowed_signers=allowed(line))) == ([code] if code else [])
    if code is None:
        assert ssh_verifies(payload, signature, line, tmp_path)


# --- Who may sign ---


def _forms(key: Path, folder: Path) -> dict[str, str]:
    line = public(key)
    pem = serialization.load_ssh_public_key(line.encode()).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "key.pem").write_bytes(pem)
    return {
        "line": line,
        "line without comment": " ".join(line.split()[:2]),
        "path": f"{key}.pub",
        "uri": f"file://{key}.pub",
        "PEM": pem.decode(),
        "PEM path": str(folder / "key.pem"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("form", ["line", "line without comment", "path", "uri", "PEM", "PEM path"])
@pytest.mark.parametrize(("kind", "bits"), [("ed25519", 0), ("ecdsa", 384), ("rsa", 3072)])
def test_forms_of_a_key(tmp_path: Path, form: str, kind: str, bits: int) -> None:
    key = ssh_key(kind, bits)
    repo = new_repo(tmp_path / "repo", key=key)
    repo.commit()
    assert passed(repo.check(allowed_signers=[AllowedSigner(_forms(key, tmp_path)[form])]))


def test_how_the_signer_is_called(repo: Repo) -> None:
    bare = " ".join(public(ssh_key()).split()[:2])
    assert repo.check(allowed_signers=allowed(bare, principal="release team")).signer == "release team"
    assert repo.check(allowed_signers=allowed(bare)).signer.startswith("SHA256:")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "private key"),
        ("ssh-ed25519", "no key file"),
        ("ssh-ed25519 !!!", "no OpenSSH public key"),
        ("ssh-ed25519 AAAA", "malformed"),
        ("ssh-dss AAAAB3NzaC1kc3MAAAAA", "do not count"),
        ("ssh-rsa " + base64.b64encode(_string(b"ssh-ed25519") + _string(b"\x01" * 32)).decode(), "another kind"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "can sign"),
        ("/nonexistent/key.pub", "no key file"),
        ("", "is not a path"),
    ],
    ids=["private", "kind-only", "no-base64", "short", "dss", "mislabelled", "bad-pem", "missing", "empty"],
)
def test_what_is_no_key(repo: Repo, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        repo.check(allowed_signers=[AllowedSigner(text)])


def test_a_short_rsa_key_is_no_key(repo: Repo) -> None:
    with pytest.raises(UsageError, match="1024 bits"):
        repo.check(allowed_signers=allowed(ssh_key("rsa", 1024)))


def test_several_keys_to_one_line_of_text(repo: Repo) -> None:
    with pytest.raises(UsageError, match="more than one line"):
        repo.check(allowed_signers=[AllowedSigner(public(ssh_key()) + "\n" + public(ssh_key(owner="eve")))])


def test_a_validity_without_a_zone() -> None:
    with pytest.raises(UsageError, match="time zone"):
        AllowedSigner("ssh-ed25519 AAAA", valid_after=datetime(2026, 1, 1))


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("after", "before", "code"),
    [
        (AT, AT, None),
        (AT - SECOND, None, None),
        (None, AT + SECOND, None),
        (AT + SECOND, None, "KEY_NOT_YET_VALID"),
        (None, AT - SECOND, "KEY_EXPIRED"),
    ],
    ids=["inclusive", "after", "before", "not-yet", "expired"],
)
def test_validity_is_judged_at_the_time_of_the_commit(
    repo: Repo, after: datetime | None, before: datetime | None, code: str | None
) -> None:
    check = repo.check(allowed_signers=allowed(ssh_key(), valid_after=after, valid_before=before))
    if code is None:
        assert passed(check)
        assert "COMMIT_TIME_CLAIMED" in names(check.findings)
    else:
        assert refusals(check) == [code]
        assert check.signer == ""


def test_one_of_several_periods_is_enough(repo: Repo) -> None:
    late = allowed(ssh_key(), valid_after=AT + SECOND)
    assert passed(repo.check(allowed_signers=late + allowed(ssh_key(), valid_before=AT)))


# --- The allowed-signers file of OpenSSH ---


def test_reading_an_allowed_signers_file(tmp_path: Path, repo: Repo) -> None:
    key, other = public(ssh_key()), public(ssh_key(owner="eve"))
    path = tmp_path / "allowed"
    path.write_text(
        f"# a comment\n\nada@example.org {key}\n"
        'bob@example.org,carl@example.org namespaces="file,g*",valid-after="20260102Z",valid-before="202603011200Z" '
        f"{key}\n"
        f'eve@example.org namespaces="file" {other}\n'
        f'"dora d@example.org" valid-before="20260301115959Z" {key}\n'
    )
    signers = read_allowed_signers(str(path))
    assert [signer.principal for signer in signers] == [
        "ada@example.org",
        "bob@example.org,carl@example.org",
        "dora d@example.org",
    ]
    assert signers[1].valid_after == datetime(2026, 1, 2, tzinfo=timezone.utc)
    assert signers[1].valid_before == AT
    assert repo.check(allowed_signers=signers).signer == "ada@example.org"
    assert refusals(repo.check(allowed_signers=signers[2:])) == ["KEY_EXPIRED"]


@pytest.mark.parametrize(
    "line",
    [
        "ada@example.org",
        "ada@example.org ssh-ed25519",
        "ada@example.org cert-authority KEY",
        "ada@example.org verify-required KEY",
        'ada@example.org valid-after="soon" KEY',
        'ada@example.org valid-after="20261301" KEY',
        "ada@example.org valid-after= KEY",
        'ada@example.org namespaces="git KEY',
        "ada@example.org nonsense",
    ],
    ids=lambda line: line[16:50] or "alone",
)
def test_lines_that_are_refused(tmp_path: Path, repo: Repo, line: str) -> None:
    path = tmp_path / "allowed"
    path.write_text(line.replace("KEY", public(ssh_key())) + "\n")
    with pytest.raises(UsageError):
        repo.check(allowed_signers=read_allowed_signers(str(path)))


# --- OpenPGP ---


@pytest.fixture(scope="module")
def pgp_key(gpg: Gpg) -> str:
    return gpg.make("gerda")


def pgp_commit(repo: Repo, gpg: Gpg, fingerprint: str, *options: str) -> str:
    """Sign HEAD's payload anew with an OpenPGP key."""
    payload = repo.raw()
    if b"gpgsig" in payload:
        payload, _ = split(payload)
    signature = gpg.run(*options, "--armor", "--detach-sign", "-u", fingerprint, data=payload)
    return repo.head(repo.store(join(payload, signature)))


NOW = ("--faked-system-time", "20260301T120000")


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ed25519", "rsa2048", "nistp256"])
def test_openpgp_keys(repo: Repo, gpg: Gpg, algorithm: str) -> None:
    fingerprint = gpg.make(f"holder-{algorithm}", algorithm)
    pgp_commit(repo, gpg, fingerprint, *NOW)
    block = gpg.export(fingerprint)

    check = repo.check(allowed_signers=[AllowedSigner(block, "gerda")])
    assert passed(check)
    assert (check.signer, check.key) == ("gerda", fingerprint)
    # Also as a file, beside others, and with nothing but the key itself.
    assert passed(repo.check(allowed_signers=[*allowed(ssh_key()), AllowedSigner(block)]))
    assert refusals(repo.check()) == ["SIGNER_NOT_ALLOWED"]


def test_a_commit_that_git_and_gpg_made(tmp_path: Path, gpg: Gpg, pgp_key: str) -> None:
    repo = new_repo(tmp_path, key=None)
    repo.environ["GNUPGHOME"] = gpg.home
    repo.commit(None, f"-S{pgp_key}")
    path = tmp_path / "key.asc"
    path.write_text(gpg.export(pgp_key))
    assert passed(repo.check(allowed_signers=[AllowedSigner(str(path))]))


def test_an_openpgp_stranger(repo: Repo, gpg: Gpg, pgp_key: str) -> None:
    pgp_commit(repo, gpg, gpg.make("stranger"), *NOW)
    check = repo.check(allowed_signers=[AllowedSigner(gpg.export(pgp_key))])
    assert refusals(check) == ["SIGNER_NOT_ALLOWED"]
    assert check.signer == ""


def test_an_openpgp_key_is_judged_at_the_time_of_the_commit(repo: Repo, gpg: Gpg) -> None:
    fingerprint = gpg.make("brief", expires="2026-03-02")
    pgp_commit(repo, gpg, fingerprint, *NOW)
    signers = [AllowedSigner(gpg.export(fingerprint), "brief")]
    assert passed(repo.check(allowed_signers=signers))  # it has expired since

    payload, _ = split(repo.raw())
    payload = payload.replace(b"1772366400 +0000", b"1775044800 +0000")  # 2026-04-01
    signature = gpg.run(*NOW, "--armor", "--detach-sign", "-u", fingerprint, data=payload)
    repo.head(repo.store(join(payload, signature)))
    assert refusals(repo.check(allowed_signers=signers)) == ["KEY_EXPIRED"]


def test_an_openpgp_key_has_the_validity_of_its_signer_too(repo: Repo, gpg: Gpg, pgp_key: str) -> None:
    pgp_commit(repo, gpg, pgp_key, *NOW)
    signer = AllowedSigner(gpg.export(pgp_key), "gerda", valid_before=AT - SECOND)
    assert refusals(repo.check(allowed_signers=[signer])) == ["KEY_EXPIRED"]


def test_a_revoked_openpgp_key(repo: Repo, gpg: Gpg) -> None:
    fingerprint = gpg.make("revoked")
    pgp_commit(repo, gpg, fingerprint, *NOW)
    certificate = Path(gpg.home, "openpgp-revocs.d", f"{fingerprint}.rev").read_text()
    gpg.run("--import", data=certificate.replace(":-----BEGIN", "-----BEGIN").encode())
    assert refusals(repo.check(allowed_signers=[AllowedSigner(gpg.export(fingerprint))])) == ["KEY_REVOKED"]


def test_a_subkey_signs_for_its_primary_key(repo: Repo, gpg: Gpg) -> None:
    fingerprint = gpg.make("with-subkey")
    gpg.run("--faked-system-time", "20260102T000000", "--quick-add-key", fingerprint, "ed25519", "sign", "never")
    lines = gpg.run("--with-colons", "--list-keys", fingerprint).decode().split("\n")
    subkey = [line.split(":")[9] for line in lines if line.startswith("fpr:")][1]
    pgp_commit(repo, gpg, f"{subkey}!", *NOW)
    check = repo.check(allowed_signers=[AllowedSigner(gpg.export(fingerprint))])
    assert passed(check)
    assert check.key == fingerprint


@pytest.mark.slow
def test_a_short_subkey_of_a_strong_key(repo: Repo, gpg: Gpg) -> None:
    fingerprint = gpg.make("weak-subkey", "rsa3072")
    gpg.run("--faked-system-time", "20260102T000000", "--quick-add-key", fingerprint, "rsa1024", "sign", "never")
    lines = gpg.run("--with-colons", "--list-keys", fingerprint).decode().split("\n")
    subkey = [line.split(":")[9] for line in lines if line.startswith("fpr:")][1]
    pgp_commit(repo, gpg, f"{subkey}!", *NOW)
    check = repo.check(allowed_signers=[AllowedSigner(gpg.export(fingerprint))])
    assert refusals(check) == ["SIGNATURE_UNSUPPORTED"]


@pytest.mark.slow
def test_dsa_keys_do_not_count(repo: Repo, gpg: Gpg) -> None:
    fingerprint = gpg.make("dsa", "dsa2048")
    pgp_commit(repo, gpg, fingerprint, *NOW)
    assert refusals(repo.check(allowed_signers=[AllowedSigner(gpg.export(fingerprint))])) == ["SIGNATURE_UNSUPPORTED"]


def test_an_openpgp_block_that_holds_no_key(repo: Repo, gpg: Gpg, pgp_key: str) -> None:
    pgp_commit(repo, gpg, pgp_key, *NOW)
    block = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"
    with pytest.raises(UsageError, match="cannot be imported"):
        repo.check(allowed_signers=[AllowedSigner(block)])


def test_without_gpg_an_openpgp_signature_is_unverifiable(
    repo: Repo, gpg: Gpg, pgp_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pgp_commit(repo, gpg, pgp_key, *NOW)
    block = gpg.export(pgp_key)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    check = repo.check(allowed_signers=[AllowedSigner(block)])
    assert (check.findings[0].code, check.findings[0].severity) == ("PROGRAM_MISSING", "unverifiable")
    assert check.signer == ""


# --- Names of commits ---


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
@pytest.mark.parametrize(
    "revision", ["HEAD", "main", "refs/heads/main", "v1", "refs/tags/v1", "light", "topic/a", "ID"]
)
def test_names_of_a_commit(repo: Repo, revision: str, packed: bool) -> None:
    repo.git("tag", "-a", "-m", "x", "v1")
    repo.git("tag", "light")
    repo.git("branch", "topic/a")
    if packed:
        repo.git("gc", "-q")
        assert not (repo.root / ".git/refs/heads/main").exists()
    commit = repo.git("rev-parse", "HEAD")
    check = repo.check(revision=commit if revision == "ID" else revision)
    assert passed(check)
    assert check.commit == commit


def test_a_detached_head(repo: Repo) -> None:
    commit = repo.git("rev-parse", "HEAD")
    repo.commit({"dvc.lock": b"newer"})
    repo.git("checkout", "-q", "--detach", commit)
    assert repo.check().commit == commit
    assert passed(repo.check())


def test_a_name_for_two_commits(repo: Repo) -> None:
    repo.git("tag", "main")
    assert passed(repo.check(revision="main"))  # the same commit
    repo.commit({"x": b"1"})
    check = repo.check(revision="main")
    assert refusals(check) == ["GIT_REVISION_UNKNOWN"]
    assert check.findings[0].found == "refs/heads/main and refs/tags/main"


@pytest.mark.parametrize("revision", ["nothing", "refs/heads/nothing", "FETCH_HEAD", "0" * 40, "refs/heads"])
def test_names_of_nothing(repo: Repo, revision: str) -> None:
    expected = "GIT_HISTORY_INCOMPLETE" if revision.startswith("0") else "GIT_REVISION_UNKNOWN"
    assert refusals(repo.check(revision=revision)) == [expected]


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    repo = new_repo(tmp_path)
    repo.write(FILES)
    assert refusals(repo.check()) == ["GIT_REVISION_UNKNOWN"]


@pytest.mark.parametrize("branch", ["main", "HEAD", "refs/tags/v1", "refs/heads/", "refs/heads/a..b", "", "0" * 40])
def test_a_branch_has_to_be_named_in_full(repo: Repo, branch: str) -> None:
    with pytest.raises(UsageError, match="full name of a branch"):
        repo.check(branch=branch)


# --- Branches ---


@pytest.mark.parametrize("position", ["tip", "older", "root", "side"])
def test_a_commit_on_the_branch(repo: Repo, position: str) -> None:
    commits = {"root": repo.git("rev-parse", "HEAD")}
    repo.git("checkout", "-q", "-b", "side")
    commits["side"] = repo.commit({"side": b"1"})
    repo.git("checkout", "-q", "main")
    commits["older"] = repo.commit({"older": b"1"})
    repo.git("merge", "-q", "--no-ff", "-m", "m", "side")
    commits["tip"] = repo.commit({"tip": b"1"})
    assert passed(repo.check(revision=commits[position]))


def test_a_commit_that_was_not_merged(repo: Repo) -> None:
    repo.git("checkout", "-q", "-b", "topic")
    repo.commit({"dvc.lock": b"new"})
    check = repo.check(files={"dvc.lock": b"new"})
    assert refusals(check) == ["COMMIT_NOT_ON_BRANCH"]
    assert check.signer  # the other answers stay
    assert passed(repo.check(files={"dvc.lock": b"new"}, branch="refs/heads/topic"))


def test_dates_do_not_cut_the_walk_short(repo: Repo) -> None:
    """Commits whose clocks ran backwards."""
    first = repo.git("rev-parse", "HEAD")
    for year in ("2020", "2035", "2001", "2030"):
        repo.commit({"x": year.encode()}, GIT_COMMITTER_DATE=f"{year}-01-01T00:00:00+00:00")
    assert passed(repo.check(revision=first))


def test_a_branch_that_is_not_there(repo: Repo) -> None:
    assert refusals(repo.check(branch="refs/remotes/origin/main")) == ["GIT_REVISION_UNKNOWN"]


def test_no_branch_is_no_pass(repo: Repo) -> None:
    assert refusals(repo.check(branch=None)) == ["BRANCH_NOT_NAMED"]


def test_a_clone_knows_its_remote_branch(repo: Repo, tmp_path: Path) -> None:
    repo.git("clone", "-q", str(repo.root), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.commit({"dvc.lock": b"local"})
    assert refusals(clone.check(files={"dvc.lock": b"local"}, branch="refs/remotes/origin/main")) == [
        "COMMIT_NOT_ON_BRANCH"
    ]
    assert passed(clone.check(revision="origin/main", branch="refs/remotes/origin/main"))
    assert passed(clone.check(revision="origin/main", branch="refs/remotes/origin/HEAD"))


def test_more_commits_than_fit_into_one_question(repo: Repo) -> None:
    first = repo.git("rev-parse", "HEAD")
    stream = [f"reset refs/heads/main\nfrom {first}\n"]
    for number in range(600):
        # Many heads of equal age, so that the walk asks for hundreds at once.
        stream.append(f"commit refs/heads/b{number}\ncommitter A <a@x> 1772366401 +0000\ndata 1\nxfrom {first}\n")
    stream.append("commit refs/heads/main\ncommitter A <a@x> 1772366402 +0000\ndata 1\nm")
    stream += [f"{'from' if n == 0 else 'merge'} refs/heads/b{n}\n" for n in range(600)]
    repo.git("fast-import", "--quiet", "--force", data="".join(stream).encode())
    assert passed(repo.check(revision=first))


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
def test_a_long_line_of_commits(repo: Repo, packed: bool) -> None:
    """Long enough for reading ahead, which must change nothing."""
    first = repo.git("rev-parse", "HEAD")
    stream = [f"reset refs/heads/main\nfrom {first}\n"]
    for number in range(3000):
        start = f"from {first}\n" if number == 0 else ""
        stream.append(f"commit refs/heads/main\ncommitter A <a@x> {1772366400 + number} +0000\ndata 1\nx{start}\n")
    unpack = "-c", f"fastimport.unpackLimit={0 if packed else 100_000}"
    repo.git(*unpack, "fast-import", "--quiet", "--force", data="".join(stream).encode())
    assert bool(list((repo.root / ".git/objects/pack").iterdir())) == packed
    assert passed(repo.check(revision=first))
    repo.git("checkout", "-q", "--orphan", "other")
    other = repo.commit(message="Another root")
    assert refusals(repo.check(revision=other)) == ["COMMIT_NOT_ON_BRANCH"]
    # A gap in the middle leaves the question open, and one before the commit's place does not.
    middle = repo.git("rev-parse", "main~1500")
    if not packed:
        repo.object_path(middle).unlink()
        assert refusals(repo.check(revision=other)) == ["GIT_HISTORY_INCOMPLETE"]
        assert refusals(repo.check(revision=first)) == ["GIT_HISTORY_INCOMPLETE"]


def test_odd_commits_on_the_way_are_no_obstacle(repo: Repo) -> None:
    """Old histories hold headers that nobody would sign today; only their parents matter."""
    first = repo.git("rev-parse", "HEAD")
    tree = repo.git("rev-parse", "HEAD^{tree}")
    odd = f"tree {tree}\nparent {first}\nauthor  <> \ncommitter none\nauthor twice <a@x> 1 +0000\n\nx"
    oid = repo.store(odd.encode())
    repo.head(repo.store(f"tree {tree}\nparent {oid}\nno-author\n\nx".encode()))
    assert passed(repo.check(revision=first))


@pytest.mark.parametrize("start", ["parent", "tree {tree}\nparent 1234", "tree 12", "tree {tree}\nparent {long}"])
def test_commits_on_the_way_without_parents_that_can_be_read(repo: Repo, start: str) -> None:
    first = repo.git("rev-parse", "HEAD")
    begin = start.format(tree=repo.git("rev-parse", "HEAD^{tree}"), long="a" * 64)
    repo.head(repo.store(f"{begin}\nparent {first}\nauthor A <a@x> 1 +0000\n\nx".encode()))
    assert refusals(repo.check(revision=first)) == ["GIT_OBJECT_CORRUPT"]


def test_a_tree_on_the_branch(repo: Repo) -> None:
    (repo.root / ".git/refs/heads/odd").write_text(repo.git("rev-parse", "HEAD^{tree}") + "\n")
    assert refusals(repo.check(branch="refs/heads/odd")) == ["GIT_OBJECT_CORRUPT"]


def test_a_branch_of_the_other_object_format(repo: Repo) -> None:
    (repo.root / ".git/refs/heads/odd").write_text("a" * 64 + "\n")
    assert refusals(repo.check(branch="refs/heads/odd")) == ["GIT_REPOSITORY_REFUSED"]


def test_more_commits_than_a_check_looks_at(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    first = repo.git("rev-parse", "HEAD")
    for number in range(5):
        repo.commit({"x": str(number).encode()})
    monkeypatch.setattr(module, "MAX_COMMITS", 3)
    check = repo.check(revision=first)
    assert refusals(check) == ["GIT_UNREADABLE"]
    assert check.findings[0].severity == "unverifiable"


def test_a_shallow_clone_proves_what_it_holds(repo: Repo, tmp_path: Path) -> None:
    """Parents are read from hashed commits, never from the list of cuts: what is found is proved, the rest is open."""
    first = repo.git("rev-parse", "HEAD")
    repo.commit({"x": b"1"})
    repo.git("clone", "-q", "--depth=1", f"file://{repo.root}", str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    assert passed(clone.check(branch="refs/remotes/origin/main"))
    # Its parent's id stands in the hashed commit; but the commit itself is not there to be read.
    assert refusals(clone.check(revision=first, branch="refs/remotes/origin/main")) == ["GIT_HISTORY_INCOMPLETE"]


def test_a_shallow_clone_cannot_say_that_a_commit_is_not_on_a_branch(repo: Repo, tmp_path: Path) -> None:
    for number in range(3):
        repo.commit({"x": str(number).encode()})
    repo.git("clone", "-q", "--depth=1", f"file://{repo.root}", str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    clone.git("checkout", "-q", "--orphan", "other")
    clone.commit()
    check = clone.check(branch=MAIN)
    assert [(f.code, f.severity) for f in check.findings if f.severity != "note"] == [
        ("GIT_HISTORY_INCOMPLETE", "unverifiable")
    ]


# --- Files ---


@pytest.mark.slow
def test_files_at_every_depth(repo: Repo) -> None:
    files: dict[str, bytes | None] = {
        "dvc.lock": LOCK,
        "a.yaml": b"",
        "a-b/x": b"1",
        "a/b/c/d.dvc": b"2",
        "ünï/你好": b"3",
        "-option": b"4",
        'quo"te': b"5",
        "with space": b"6",
    }
    repo.commit(files)
    assert passed(repo.check(files=files))
    for name in files:
        check = repo.check(files={**files, name: b"other"})
        assert refusals(check) == ["GIT_DIRTY"]
        assert check.findings[0].subject == name


def test_executable_files_are_files(repo: Repo) -> None:
    (repo.root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (repo.root / "run.sh").chmod(0o755)
    repo.commit()
    assert passed(repo.check(files={"run.sh": b"#!/bin/sh\n"}))


def test_a_file_that_was_looked_for_and_not_there(repo: Repo) -> None:
    assert passed(repo.check(files={**FILES, "dvc.yaml": None, "no/such": None, "dvc.lock/x": None}))
    assert refusals(repo.check(files={"dvc.lock": None})) == ["GIT_DIRTY"]


@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock/inside", "no/such/file"])
def test_a_file_that_the_commit_does_not_hold(repo: Repo, name: str) -> None:
    assert refusals(repo.check(files={**FILES, name: b"x"})) == ["GIT_UNTRACKED"]


def test_a_folder_is_no_file(repo: Repo) -> None:
    repo.commit({"data/x": b"1"})
    assert refusals(repo.check(files={"data": b"x"})) == ["GIT_DIRTY"]


def test_converted_line_ends_are_named(repo: Repo) -> None:
    check = repo.check(files={"dvc.lock": LOCK.replace(b"\n", b"\r\n")})
    assert refusals(check) == ["GIT_DIRTY"]
    assert "line ends alone" in check.findings[0].message


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../b", "", "a//b", "./a", "a\nb", "a\\b", "\udcff"])
@pytest.mark.parametrize("data", [b"x", None], ids=["bytes", "absent"])
def test_paths_are_checked(repo: Repo, name: str, data: bytes | None) -> None:
    """They come from a repository that may be hostile; a name that is refused is no excuse for the others."""
    check = repo.check(files={name: data, "other": b"x"})
    assert refusals(check) == ["ARTIFACT_REFUSED", "GIT_UNTRACKED"]


def test_a_path_of_a_repository_with_a_nul(repo: Repo) -> None:
    with pytest.raises(UsageError, match="NUL"):
        repo.check(repo="a\0b")


def test_other_changes_are_counted(repo: Repo) -> None:
    repo.commit({**FILES, "tracked": b"1", "gone": b"1", "sub/deep": b"1", ".gitignore": b"*.log\n/data\n"})
    repo.write(
        {"tracked": b"2", "gone": None, "sub/deep": b"2", "new": b"", "ünï new": b"", "x.log": b"", "data/y": b""}
    )
    check = repo.check()
    assert passed(check)
    [warning] = [finding for finding in check.findings if finding.severity == "warning"]
    assert warning.code == "GIT_DIRTY_ELSEWHERE"
    assert warning.message.startswith("5 other files")


def test_the_given_files_are_not_counted(repo: Repo) -> None:
    repo.write({"dvc.lock": b"edited"})
    assert names(repo.check(files={"dvc.lock": b"edited"}).findings) == ["GIT_DIRTY", "BRANCH_CLAIMED"]


@pytest.mark.slow
def test_a_large_file_elsewhere_is_no_obstacle(repo: Repo) -> None:
    with open(repo.root / "large", "wb") as file:
        file.truncate(100 << 20)
    repo.commit()
    assert names(repo.check().findings) == ["BRANCH_CLAIMED"]


# --- The check of a whole repository ---


def test_the_level_of_a_repository(tmp_path: Path) -> None:
    """A DVC project in a folder of a signed repository, from the bytes of the data to the branch."""
    repo = new_repo(tmp_path / "repo")
    digest = hashlib.md5(b"data", usedforsecurity=False).hexdigest()
    record = f"outs:\n- md5: {digest}\n  size: 4\n  hash: md5\n  path: data\n".encode()
    repo.commit({"project/data.dvc": record, "project/.gitignore": b"/data\n", "project/.dvc/config": b""})
    repo.write({"project/data": b"data"})
    (tmp_path / "allowed").write_text(f"ada@example.org {public(ssh_key())}\n")

    def check(**more: Any) -> Verdict:
        given = {"level": "L3", "allowed_signers": str(tmp_path / "allowed"), "branch": MAIN, **more}
        return check_lineage(str(repo.root / "project"), **given)

    verdict = check()
    assert verdict.passed, verdict.findings
    assert [(signer.identity, signer.kind) for signer in verdict.signers] == [(ALLOWED, "commit")]
    assert check(branch=None).exit_status == 4
    assert check(allowed_signers=None).exit_status == 4

    repo.write({"project/data.dvc": record + b"\n"})
    verdict = check()
    assert verdict.deciding_finding is not None
    assert (verdict.deciding_finding.code, verdict.deciding_finding.subject) == ("GIT_DIRTY", "data.dvc")


# --- Where the repository is ---


def test_a_folder_inside(repo: Repo) -> None:
    repo.commit({"project/a/dvc.lock": b"x"})
    repo.write({"project/a/dvc.lock": b"y"})
    inside = str(repo.root / "project/a")
    assert find_repository(inside) == (os.path.realpath(repo.root), "project/a")
    assert find_repository(str(repo.root)) == (os.path.realpath(repo.root), "")
    # Paths are relative to the folder; a file that is told of is not counted among the others.
    check = repo.check(repo=inside, files={"dvc.lock": b"y", "none": None})
    assert names(check.findings) == ["GIT_DIRTY", "BRANCH_CLAIMED"]
    assert check.findings[0].subject == "dvc.lock"


def test_a_file_that_changed_after_it_was_read(repo: Repo) -> None:
    repo.write({"dvc.lock": b"later"})
    check = repo.check()
    assert passed(check)
    assert names(check.findings) == ["BRANCH_CLAIMED", "GIT_DIRTY_ELSEWHERE"]


@pytest.mark.parametrize("place", [".", "no/such/folder", "file"])
def test_a_folder_in_no_repository(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    check = check_commit(str(tmp_path / place), files={}, allowed_signers=[], branch=None)
    assert refusals(check) == ["GIT_REPOSITORY_REFUSED"]


@pytest.mark.parametrize("detached", [False, True], ids=["branch", "detached"])
def test_a_linked_working_tree(repo: Repo, tmp_path: Path, detached: bool) -> None:
    repo.git("worktree", "add", "-q", *(["--detach"] if detached else ["-b", "topic"]), str(tmp_path / "linked"))
    linked = Repo(tmp_path / "linked")
    assert passed(linked.check())
    commit = linked.commit({"dvc.lock": b"linked"})
    check = linked.check(files={"dvc.lock": b"linked"})
    assert check.commit == commit
    assert refusals(check) == ["COMMIT_NOT_ON_BRANCH"]
    assert passed(repo.check())  # the other tree has its own HEAD


def test_a_linked_working_tree_of_a_bare_repository(repo: Repo, tmp_path: Path) -> None:
    repo.git("clone", "-q", "--bare", str(repo.root), str(tmp_path / "bare.git"))
    bare = Repo(tmp_path / "bare.git")
    bare.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    assert passed(Repo(tmp_path / "linked").check())


@pytest.mark.slow
def test_a_submodule_is_a_repository_of_its_own(repo: Repo, tmp_path: Path) -> None:
    outer = new_repo(tmp_path / "outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo.root), "libs/inner")
    outer.commit()
    inner = Repo(tmp_path / "outer/libs/inner")
    assert (inner.root / ".git").is_file()
    assert passed(inner.check())
    assert passed(outer.check())
    check = outer.check(files={"libs/inner/dvc.lock": LOCK})
    assert refusals(check) == ["GIT_UNTRACKED"]
    assert "submodule" in check.findings[0].message


def test_the_answer_does_not_depend_on_the_working_directory(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo.root.parent)
    assert passed(repo.check(repo=repo.root.name))


@pytest.mark.parametrize("name", ["HEAD", "refs", ".git"])
def test_what_may_not_be_read_is_unverifiable(repo: Repo, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who may read everything; so the refusal is the test's."""
    actual_open, actual_stat = os.open, os.lstat

    def refuse(path: Any, *arguments: Any, **more: Any) -> int:
        if path == name or (name == ".git" and str(path).endswith("/.git")):
            raise PermissionError(13, "Permission denied", path)
        return actual_open(path, *arguments, **more)

    def refuse_stat(path: Any, **more: Any) -> os.stat_result:
        if name == ".git" and str(path).endswith("/.git"):
            raise PermissionError(13, "Permission denied", path)
        return actual_stat(path, **more)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "lstat", refuse_stat)
    check = repo.check()
    assert [(f.code, f.severity) for f in check.findings] == [("PERMISSION_DENIED", "unverifiable")]


# --- Ids ---


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
@given(data=st.binary(max_size=200))
def test_ids_are_those_of_git(tmp_path_factory: pytest.TempPathFactory, algorithm: str, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / f"ids-{algorithm}"
    repo = Repo(folder) if folder.exists() else new_repo(folder, f"--object-format={algorithm}")
    assert repo.git("hash-object", "--stdin", data=data) == object_id("blob", data, algorithm)


# --- Whatever the bytes are, there is an answer ---


def _answers(call: Any, *arguments: Any) -> None:
    try:
        call(*arguments)
    except (Stopped, SealflowError):
        return


SAMPLE = (
    b"tree " + b"a" * 40 + b"\nparent " + b"b" * 40 + b"\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n"
    b"gpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----\n\nmessage\n"
)


@given(st.binary(max_size=300), st.integers(0, len(SAMPLE)), st.integers(0, 40))
def test_any_commit(data: bytes, at: int, cut: int) -> None:
    for text in (data, SAMPLE[:at] + data + SAMPLE[at + cut :]):
        _answers(module.parse_commit, "0" * 40, text, "sha1")


@given(st.binary(max_size=300))
def test_any_tree(data: bytes) -> None:
    _answers(module.parse_tree, "0" * 40, data)
    _answers(module.parse_tree, "0" * 40, b"100644 a\0" + b"1" * 20 + data)


@given(st.binary(max_size=400), st.booleans())
def test_any_ssh_signature(data: bytes, framed: bool) -> None:
    blob = b"SSHSIG\0\0\0\1" + data if framed else data
    _answers(git_signature._read_sshsig, _armor(blob), b"payload", "0" * 40)


@given(st.binary(max_size=200))
def test_any_key(data: bytes) -> None:
    for kind in (b"ssh-ed25519", b"ssh-rsa", b"ecdsa-sha2-nistp256", b"sk-ssh-ed25519@openssh.com"):
        line = f"{kind.decode()} {base64.b64encode(_string(kind) + data).decode()}"
        _answers(git_signature.load_allowed_signers, [AllowedSigner(line)])


@given(st.binary(max_size=200))
def test_any_bare_signature(data: bytes) -> None:
    blob = base64.b64decode(public(ssh_key("ecdsa", 256)).split()[1])
    key = git_signature._Key(blob)
    for value in (data, _string(b"ecdsa-sha2-nistp256") + _string(data)):
        try:
            assert not key.verify(value, b"message")
        except (ValueError, git_signature._UnfitError):
            continue


@given(st.text(max_size=100))
def test_any_line_of_allowed_signers(text: str) -> None:
    line = " ".join(text.split())
    if line:
        _answers(git_signature._allowed_line, line, "line 1")
        _answers(git_signature._allowed_line, f"{line} {public(ssh_key())}", "line 1")
