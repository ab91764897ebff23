"""Attacks on L3: commits that only look signed, repositories that lie about themselves, configuration that bites.

Where the stock program falls for it, it is run first as the control: an attack that does not work proves nothing.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from sealflow.errors import UsageError
from sealflow.lineage.git import AllowedSigner, check_commit
from sealflow.lineage.git_program import Deadline, Git
from tests.core.lineage.gitrepo import (
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
    snapshot,
    split,
    ssh_key,
    ssh_sign,
)

pytest_plugins = ["tests.core.lineage.fixtures"]
# Each makes a repository with Git, most with keys of their own; core/lineage/test_git.py has quick ones.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ssh_keygen")]

EVIL = b"schema: '2.0'\nstages: {evil: {}}\n"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository that passes; each attack changes something of it."""
    repo = new_repo(tmp_path / "repo")
    repo.commit()
    assert passed(repo.check())
    return repo


# --- Signatures ---


def _flip(signature: bytes, at: int) -> bytes:
    lines = signature.split(b"\n")
    body = bytearray(base64.b64decode(b"".join(lines[1:-2])))
    body[at] ^= 1
    return lines[0] + b"\n" + base64.b64encode(bytes(body)) + b"\n" + lines[-2] + b"\n"


def _other_payload(repo: Repo) -> bytes:
    """What Ada signed for another commit."""
    repo.commit({"dvc.lock": b"another"}, message="Another")
    return repo.raw()


FORGERIES: dict[str, tuple[Callable[[Repo, bytes, bytes], bytes], str]] = {
    "unsigned": (lambda _repo, payload, _sig: payload, "COMMIT_UNSIGNED"),
    "moved-from-another-commit": (
        lambda repo, payload, _sig: join(payload, split(_other_payload(repo))[1]),
        "SIGNATURE_INVALID",
    ),
    "edited-message": (lambda _repo, payload, sig: join(payload + b"more", sig), "SIGNATURE_INVALID"),
    "edited-author": (
        lambda _repo, payload, sig: join(payload.replace(b"author Ada", b"author Eve"), sig),
        "SIGNATURE_INVALID",
    ),
    "edited-time": (
        lambda _repo, payload, sig: join(payload.replace(b"1772366400", b"1772366401"), sig),
        "SIGNATURE_INVALID",
    ),
    "added-parent": (
        lambda _repo, payload, sig: join(payload.replace(b"\nauthor", b"\nparent " + b"a" * 40 + b"\nauthor", 1), sig),
        "SIGNATURE_INVALID",
    ),
    "stranger": (
        lambda _repo, payload, _sig: join(payload, ssh_sign(payload, ssh_key(owner="eve"))),
        "SIGNER_NOT_ALLOWED",
    ),
    "other-namespace": (
        lambda _repo, payload, _sig: join(payload, ssh_sign(payload, ssh_key(), namespace="file")),
        "SIGNATURE_INVALID",
    ),
    "flipped-bit-in-signature": (lambda _repo, payload, sig: join(payload, _flip(sig, -1)), "SIGNATURE_INVALID"),
    "flipped-bit-in-key": (lambda _repo, payload, sig: join(payload, _flip(sig, 40)), "SIGNATURE_INVALID"),
    "flipped-bit-in-version": (lambda _repo, payload, sig: join(payload, _flip(sig, 9)), "SIGNATURE_INVALID"),
    "truncated": (lambda _repo, payload, sig: join(payload, sig[:-60] + sig[-31:]), "SIGNATURE_INVALID"),
    "no-end": (lambda _repo, payload, sig: join(payload, sig[: sig.index(b"-----END")]), "SIGNATURE_INVALID"),
    "no-content": (
        lambda _repo, payload, _sig: join(payload, "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----"),
        "SIGNATURE_INVALID",
    ),
    "two-blocks": (lambda _repo, payload, sig: join(payload, sig + sig), "SIGNATURE_INVALID"),
    "text-behind": (lambda _repo, payload, sig: join(payload, sig + b"Good signature"), "SIGNATURE_INVALID"),
    "text-before": (lambda _repo, payload, sig: join(payload, b"Good\n" + sig), "SIGNATURE_UNSUPPORTED"),
    "huge": (
        lambda _repo, payload, _sig: join(
            payload, "-----BEGIN SSH SIGNATURE-----\n" + "A" * 100_000 + "\n-----END SSH SIGNATURE-----"
        ),
        "SIGNATURE_INVALID",
    ),
    "X.509": (
        lambda _repo, payload, _sig: join(
            payload, "-----BEGIN SIGNED MESSAGE-----\nAAAA\n-----END SIGNED MESSAGE-----"
        ),
        "SIGNATURE_UNSUPPORTED",
    ),
    "two-headers-good-first": (
        lambda _repo, payload, sig: join(join(payload, sig), ssh_sign(payload, ssh_key(owner="eve"))),
        "GIT_OBJECT_CORRUPT",
    ),
    "two-headers-good-last": (
        lambda _repo, payload, sig: join(join(payload, ssh_sign(payload, ssh_key(owner="eve"))), sig),
        "GIT_OBJECT_CORRUPT",
    ),
    "header-of-the-other-format": (
        lambda _repo, payload, sig: join(payload, sig, b"gpgsig-sha256"),
        "COMMIT_UNSIGNED",
    ),
    # Git leaves every header out of the signed bytes that begins with gpgsig, so this one is signed by nobody.
    "unsigned-header": (
        lambda _repo, payload, sig: join(join(payload, sig), "anything", b"gpgsig-note"),
        "GIT_OBJECT_CORRUPT",
    ),
    "signature-in-the-message": (
        lambda _repo, payload, sig: payload + b"\ngpgsig " + sig.replace(b"\n", b"\n "),
        "COMMIT_UNSIGNED",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_commits(repo: Repo, name: str) -> None:
    payload, signature = split(repo.raw())
    forge, code = FORGERIES[name]
    repo.head(repo.store(forge(repo, payload, signature)))
    check = repo.check(files={})
    assert refusals(check) == [code]
    assert check.signer == ""
    assert all(finding.severity == "refusal" for finding in check.findings if finding.code == code)


def test_an_edited_tree(repo: Repo) -> None:
    """The signed commit with the tree of other files."""
    payload, signature = split(repo.raw())
    repo.commit({"dvc.lock": EVIL})
    tree = repo.git("rev-parse", "HEAD^{tree}")
    repo.head(repo.store(join(b"tree " + tree.encode() + payload[45:], signature)))
    assert refusals(repo.check(files={"dvc.lock": EVIL})) == ["SIGNATURE_INVALID"]
    assert refusals(repo.check()) == ["SIGNATURE_INVALID", "GIT_DIRTY"]


def _tampered_rsa(payload: bytes, key: Path, algorithm: bytes, digest: hashes.HashAlgorithm) -> str:
    """An SSH signature of any RSA key with any digest, which ssh-keygen would not make."""
    secret: Any = serialization.load_ssh_private_key(key.read_bytes(), None)
    blob = base64.b64decode(public(key).split()[1])

    def string(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    hashed = hashes.Hash(hashes.SHA512())
    hashed.update(payload)
    signed = b"SSHSIG" + b"".join(map(string, (b"git", b"", b"sha512", hashed.finalize())))
    value = string(algorithm) + string(secret.sign(signed, padding.PKCS1v15(), digest))
    body = b"SSHSIG\0\0\0\1" + b"".join(map(string, (blob, b"git", b"", b"sha512", value)))
    return "-----BEGIN SSH SIGNATURE-----\n" + base64.b64encode(body).decode() + "\n-----END SSH SIGNATURE-----\n"


@pytest.mark.parametrize(
    ("bits", "algorithm", "digest", "code"),
    [
        (2048, b"rsa-sha2-256", hashes.SHA256(), None),  # the forger's hand can do it right, too
        (2048, b"ssh-rsa", hashes.SHA1(), "SIGNATURE_UNSUPPORTED"),
        (2048, b"rsa-sha2-256", hashes.SHA1(), "SIGNATURE_INVALID"),
        (2048, b"rsa-sha2-512", hashes.SHA256(), "SIGNATURE_INVALID"),
        (1024, b"rsa-sha2-512", hashes.SHA512(), "SIGNATURE_UNSUPPORTED"),
    ],
    ids=["right", "sha1", "sha1-named-sha256", "mislabelled", "1024-bits"],
)
def test_weak_rsa(repo: Repo, bits: int, algorithm: bytes, digest: Any, code: str | None) -> None:
    key = ssh_key("rsa", bits)
    payload, _ = split(repo.raw())
    repo.head(repo.store(join(payload, _tampered_rsa(payload, key, algorithm, digest))))
    signers = allowed(ssh_key("rsa", 2048))
    assert refusals(repo.check(allowed_signers=signers)) == ([code] if code else [])


def test_an_ssh_certificate_is_no_key(repo: Repo, tmp_path: Path) -> None:
    """Signed under a certificate: its authority was not asked for, so the key inside must not count either."""
    shutil.copy(ssh_key(owner="eve"), tmp_path / "id")
    shutil.copy(f"{ssh_key(owner='eve')}.pub", tmp_path / "id.pub")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(ssh_key()), "-I", "x", "-n", "ada@example.org", str(tmp_path / "id.pub")],
        check=True,
    )
    payload, _ = split(repo.raw())
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", str(tmp_path / "id-cert.pub")],
        input=payload, capture_output=True,
    )  # fmt: skip
    if done.returncode:
        # This ssh-keygen signs with a certificate only through an agent: the certificate goes in by hand.
        plain = base64.b64decode("".join(ssh_sign(payload, ssh_key(owner="eve")).split("\n")[1:-2]))
        old = base64.b64decode(public(ssh_key(owner="eve")).split()[1])
        new = base64.b64decode((tmp_path / "id-cert.pub").read_text().split()[1])
        body = plain.replace(len(old).to_bytes(4, "big") + old, len(new).to_bytes(4, "big") + new)
        armor = f"-----BEGIN SSH SIGNATURE-----\n{base64.b64encode(body).decode()}\n-----END SSH SIGNATURE-----\n"
    else:
        armor = done.stdout.decode()
    repo.head(repo.store(join(payload, armor)))
    assert refusals(repo.check()) == ["SIGNATURE_UNSUPPORTED"]


def test_nobody_is_named(repo: Repo) -> None:
    check = repo.check(allowed_signers=[])
    assert refusals(check) == ["IDENTITY_RULE_MISSING"]


def test_hostile_names_are_printable(repo: Repo) -> None:
    name = b"\x1b[2Jada\xe2\x80\xae"
    payload, _ = split(repo.raw())
    payload = payload.replace(b"author Ada", b"author " + name).replace(b"committer Ada", b"committer " + name)
    repo.head(repo.store(join(payload, ssh_sign(payload, ssh_key(owner="eve")))))
    check = repo.check(allowed_signers=[*allowed(ssh_key())])
    assert refusals(check) == ["SIGNER_NOT_ALLOWED"]
    assert all("\x1b" not in str(dataclasses.asdict(finding)) for finding in check.findings)


# --- OpenPGP ---


NOW = ("--faked-system-time", "20260301T120000")


def _renamed(text: bytes, kind: bytes) -> bytes:
    return text.replace(b"PGP " + kind, b"PGP SIGNATURE")


PGP_FORGERIES: dict[str, tuple[Callable[[Gpg, str, bytes], bytes], str]] = {
    "moved": (lambda gpg, key, _p: gpg.run(*NOW, "-ab", "-u", key, data=b"another"), "SIGNATURE_INVALID"),
    # The signed text is inside the signature: good, but of other bytes.
    "message-inside": (
        lambda gpg, key, _p: _renamed(gpg.run(*NOW, "-as", "-u", key, data=b"another"), b"MESSAGE"),
        "SIGNATURE_INVALID",
    ),
    "clear-signed": (
        lambda gpg, key, _p: gpg.run(*NOW, "--clearsign", "-u", key, data=b"another"),
        "SIGNATURE_UNSUPPORTED",
    ),
    "sha1": (
        lambda gpg, key, p: gpg.run(*NOW, "-ab", "--digest-algo", "sha1", "-u", key, data=p),
        "SIGNATURE_UNSUPPORTED",
    ),
    "text-mode": (lambda gpg, key, p: gpg.run(*NOW, "-ab", "--textmode", "-u", key, data=p), "SIGNATURE_UNSUPPORTED"),
    "expired": (
        lambda gpg, key, p: gpg.run(
            "--faked-system-time", "20260201T000000", "--default-sig-expire", "1d", "-ab", "-u", key, data=p
        ),
        "SIGNATURE_INVALID",
    ),
    "two-signatures": (
        lambda gpg, key, p: _enarmor(gpg, 2 * gpg.run(*NOW, "-b", "-u", key, data=p)),
        "SIGNATURE_INVALID",
    ),
    "key-material-along": (
        lambda gpg, key, p: _enarmor(gpg, gpg.run("--export", key) + gpg.run(*NOW, "-b", "-u", key, data=p)),
        "SIGNATURE_INVALID",
    ),
    "two-blocks": (lambda gpg, key, p: 2 * gpg.run(*NOW, "-ab", "-u", key, data=p), "SIGNATURE_INVALID"),
    "empty": (
        lambda _gpg, _key, _p: b"-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n",
        "SIGNATURE_INVALID",
    ),
    "status-lines-inside": (
        lambda gpg, key, _p: gpg.run(
            *NOW, "-ab", "--comment", "[GNUPG:] VALIDSIG " + key, "--set-notation", "x@y=[GNUPG:] GOODSIG 0 a",
            "-u", key, data=b"another",
        ),
        "SIGNATURE_INVALID",
    ),
}  # fmt: skip


def _enarmor(gpg: Gpg, data: bytes) -> bytes:
    text = gpg.run("--enarmor", data=data)
    lines = text.replace(b"PGP ARMORED FILE", b"PGP SIGNATURE").split(b"\n")
    return b"\n".join(line for line in lines if not line.startswith(b"Comment:"))


@pytest.fixture(scope="module")
def pgp_key(gpg: Gpg) -> str:
    return gpg.make("gerda")


@pytest.mark.parametrize("name", PGP_FORGERIES)
def test_forged_openpgp(repo: Repo, gpg: Gpg, pgp_key: str, name: str) -> None:
    payload, _ = split(repo.raw())
    forge, code = PGP_FORGERIES[name]
    repo.head(repo.store(join(payload, forge(gpg, pgp_key, payload))))
    check = repo.check(allowed_signers=[AllowedSigner(gpg.export(pgp_key))])
    assert refusals(check) == [code]
    assert check.signer == ""


def test_a_short_rsa_key_of_openpgp(repo: Repo, gpg: Gpg) -> None:
    key = gpg.make("short", "rsa1024")
    payload, _ = split(repo.raw())
    repo.head(repo.store(join(payload, gpg.run(*NOW, "-ab", "-u", key, data=payload))))
    assert refusals(repo.check(allowed_signers=[AllowedSigner(gpg.export(key))])) == ["SIGNATURE_UNSUPPORTED"]


def test_the_users_own_key_ring_counts_for_nothing(
    repo: Repo, gpg: Gpg, pgp_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stranger's key lies in the user's key ring, ultimately trusted."""
    stranger = gpg.make("mallory")
    payload, _ = split(repo.raw())
    repo.head(repo.store(join(payload, gpg.run(*NOW, "-ab", "-u", stranger, data=payload))))
    control = subprocess.run(
        ["git", "verify-commit", "HEAD"], cwd=repo.root, env=environment(GNUPGHOME=gpg.home), capture_output=True
    )
    assert control.returncode == 0
    monkeypatch.setenv("GNUPGHOME", gpg.home)
    assert refusals(repo.check(allowed_signers=[AllowedSigner(gpg.export(pgp_key))])) == ["SIGNER_NOT_ALLOWED"]


# --- Names of commits ---


@pytest.mark.parametrize(
    "revision",
    ["--upload-pack=touch marker", "-h", "--all", "", " ", "HEAD~1", "HEAD^", "HEAD^{tree}", "HEAD:dvc.lock", "@",
     "main@{1}", "a..b", "../../etc/passwd", "refs/heads/../../config", "/etc/passwd", ":/message", "a\nb", "a\0b",
     "main.lock", "x" * 2000, "\ud800"],
    ids=lambda value: ascii(value[:40]),
)  # fmt: skip
def test_a_revision_that_is_no_name(repo: Repo, revision: str) -> None:
    with pytest.raises(UsageError, match="not the name of a commit"):
        repo.check(revision=revision)


@pytest.mark.parametrize("name", ["config", "index", "description", "info/exclude", "hooks/update.sample", "objects"])
def test_files_of_git_are_no_branches(repo: Repo, name: str) -> None:
    assert refusals(repo.check(revision=name)) == ["GIT_REVISION_UNKNOWN"]


def _signed_tag(repo: Repo) -> str:
    repo.git("-c", "gpg.format=ssh", "-c", f"user.signingKey={ssh_key()}.pub", "tag", "-s", "-m", "Release", "v1")
    return repo.git("rev-parse", "v1")


def test_a_signed_tag_does_not_sign_the_commit(repo: Repo) -> None:
    repo.key = None
    repo.commit({"x": b"1"})
    _signed_tag(repo)
    assert refusals(repo.check(revision="v1")) == ["COMMIT_UNSIGNED"]


@pytest.mark.parametrize("place", ["id", "branch", "HEAD"])
def test_a_tag_instead_of_a_commit(repo: Repo, place: str) -> None:
    tag = _signed_tag(repo)
    if place == "branch":
        (repo.root / ".git/refs/heads/topic").write_text(tag + "\n")
    elif place == "HEAD":
        (repo.root / ".git/HEAD").write_text(tag + "\n")
    revision = {"id": tag, "branch": "refs/heads/topic", "HEAD": "HEAD"}[place]
    assert refusals(repo.check(revision=revision)) == ["GIT_REVISION_UNKNOWN"]


def test_a_tag_of_tags_without_end(repo: Repo) -> None:
    for number in range(8):
        repo.git("tag", "-a", "-m", "x", f"t{number}", "HEAD" if number == 0 else f"t{number - 1}")
    assert passed(repo.check(revision="t3"))
    assert refusals(repo.check(revision="t7")) == ["GIT_REVISION_UNKNOWN"]


@pytest.mark.parametrize("kind", ["tree", "blob"])
def test_no_commit_at_all(repo: Repo, kind: str) -> None:
    oid = repo.git("rev-parse", "HEAD^{tree}" if kind == "tree" else "HEAD:dvc.lock")
    (repo.root / ".git/refs/heads/main").write_text(oid + "\n")
    assert refusals(repo.check(revision=oid)) == ["GIT_REVISION_UNKNOWN"]
    assert refusals(repo.check(revision="refs/heads/main")) == ["GIT_REVISION_UNKNOWN"]


# --- Where the repository is ---


def _gitdir(repo: Repo, target: str) -> None:
    shutil.move(repo.root / ".git", repo.root.parent / "moved")
    (repo.root / ".git").write_text(f"gitdir: {target}\n")


def _link(path: Path, target: str | Path) -> None:
    moved = path.parent / (path.name + "-moved")
    shutil.move(path, moved)
    path.symlink_to(target if target != "moved" else moved)


def _other_tree(repo: Repo) -> str:
    """A linked tree of another repository, which knows its own tree and no other."""
    other = new_repo(repo.root.parent / "other")
    other.commit()
    other.git("worktree", "add", "-q", "--detach", str(repo.root.parent / "linked"))
    return str(other.root / ".git/worktrees/linked")


SHAPES: dict[str, Callable[[Repo], Any]] = {
    "git-is-a-link": lambda repo: _link(repo.root / ".git", "moved"),
    "git-is-a-broken-link": lambda repo: _link(repo.root / ".git", "/nonexistent"),
    "git-is-a-pipe": lambda repo: (shutil.rmtree(repo.root / ".git"), os.mkfifo(repo.root / ".git")),
    "git-file-points-elsewhere": lambda repo: _gitdir(repo, str(repo.root.parent / "moved")),
    "git-file-points-to-another-tree": lambda repo: _gitdir(repo, _other_tree(repo)),
    "git-file-points-to-another-repository": lambda repo: _gitdir(repo, str(Path(_other_tree(repo)).parents[1])),
    "git-file-is-relative": lambda repo: _gitdir(repo, "../moved"),
    "git-file-is-empty": lambda repo: _gitdir(repo, ""),
    "git-file-is-noise": lambda repo: (
        shutil.rmtree(repo.root / ".git"), (repo.root / ".git").write_bytes(os.urandom(100)),
    ),
    "fake-module-beside": lambda repo: (
        (repo.root.parent / "beside/.git/modules").mkdir(parents=True),
        shutil.copytree(repo.root / ".git", repo.root.parent / "beside/.git/modules/x"),
        _gitdir(repo, str(repo.root.parent / "beside/.git/modules/x")),
    ),
    "commondir": lambda repo: (repo.root / ".git/commondir").write_text("../../elsewhere\n"),
    "objects-is-a-link": lambda repo: _link(repo.root / ".git/objects", "moved"),
    "pack-is-a-link": lambda repo: _link(repo.root / ".git/objects/pack", "moved"),
    "refs-is-a-link": lambda repo: _link(repo.root / ".git/refs", "moved"),
    "heads-is-a-link": lambda repo: _link(repo.root / ".git/refs/heads", "moved"),
    "branch-is-a-link": lambda repo: _link(repo.root / ".git/refs/heads/main", "moved"),
    "HEAD-is-a-link": lambda repo: _link(repo.root / ".git/HEAD", "refs/heads/main"),
    "HEAD-is-a-pipe": lambda repo: ((repo.root / ".git/HEAD").unlink(), os.mkfifo(repo.root / ".git/HEAD")),
    "HEAD-is-noise": lambda repo: (repo.root / ".git/HEAD").write_bytes(b"\xff" * 41),
    "HEAD-is-short": lambda repo: (repo.root / ".git/HEAD").write_text("0123456"),
    "HEAD-leaves": lambda repo: (repo.root / ".git/HEAD").write_text("ref: ../../../etc/passwd\n"),
    "HEAD-leaves-below-refs": lambda repo: (repo.root / ".git/HEAD").write_text("ref: refs/../../../../etc/passwd\n"),
    "HEAD-is-a-circle": lambda repo: (
        (repo.root / ".git/HEAD").write_text("ref: refs/heads/a\n"),
        (repo.root / ".git/refs/heads/a").write_text("ref: refs/heads/a\n"),
    ),
    "alternates-is-a-link": lambda repo: (repo.root / ".git/objects/info/alternates").symlink_to("/etc/passwd"),
    "alternates-is-a-pipe": lambda repo: os.mkfifo(repo.root / ".git/objects/info/alternates"),
    "no-objects": lambda repo: shutil.rmtree(repo.root / ".git/objects"),
    "objects-is-a-file": lambda repo: (
        shutil.rmtree(repo.root / ".git/objects"), (repo.root / ".git/objects").touch(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_are_refused(repo: Repo, shape: str) -> None:
    SHAPES[shape](repo)
    assert refusals(repo.check(time_limit=5)) == ["GIT_REPOSITORY_REFUSED"]


def test_a_submodule_whose_repository_lies_behind_a_link(repo: Repo, tmp_path: Path) -> None:
    outer = new_repo(tmp_path / "outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo.root), "inner")
    inner = Repo(outer.root / "inner")
    assert passed(inner.check())
    _link(outer.root / ".git", "moved")
    assert inner.git("rev-parse", "HEAD")  # git goes through it
    assert refusals(inner.check()) == ["GIT_REPOSITORY_REFUSED"]


def test_a_bare_repository(repo: Repo, tmp_path: Path) -> None:
    repo.git("clone", "-q", "--bare", str(repo.root), str(tmp_path / "bare.git"))
    assert refusals(repo.check(repo=str(tmp_path / "bare.git"))) == ["GIT_REPOSITORY_REFUSED"]


def test_a_bare_repository_inside_the_tree_is_not_found(repo: Repo) -> None:
    """What lies in a folder like any other must not become the repository, as it once did for Git."""
    repo.git("clone", "-q", "--bare", str(repo.root), str(repo.root / "data/bare.git"))
    repo.write({"data/bare.git/dvc.lock": LOCK})
    assert refusals(repo.check(repo=str(repo.root / "data/bare.git"))) == ["GIT_UNTRACKED"]


@pytest.mark.parametrize("kind", ["absolute", "relative", "chain"])
def test_objects_of_another_repository(repo: Repo, tmp_path: Path, kind: str) -> None:
    """A clone that borrows: Git is content, but what it borrows may change or vanish."""
    repo.git("clone", "-q", "--shared", str(repo.root), str(tmp_path / "clone"))
    clone = Repo(tmp_path / "clone")
    alternates = clone.root / ".git/objects/info/alternates"
    if kind == "relative":
        alternates.write_text("../../../repo/.git/objects\n")
    elif kind == "chain":
        alternates.write_text(f"# comment\n\n{alternates.read_text()}")
    clone.git("fsck")
    check = clone.check()
    assert [(f.code, f.severity) for f in check.findings] == [("GIT_UNREADABLE", "unverifiable")]
    alternates.write_text("# nothing\n\n")
    assert refusals(clone.check()) == ["GIT_HISTORY_INCOMPLETE"]


def test_branches_in_a_reftable(repo: Repo) -> None:
    (repo.root / ".git/reftable").mkdir()
    check = repo.check()
    assert [(f.code, f.severity) for f in check.findings] == [("GIT_UNREADABLE", "unverifiable")]


def test_the_working_tree_that_the_configuration_names(repo: Repo, tmp_path: Path) -> None:
    """core.worktree: another folder is clean, this one is not."""
    shutil.copytree(repo.root, tmp_path / "clean", ignore=shutil.ignore_patterns(".git"))
    repo.write({"other": b"1"})
    repo.commit(None)
    shutil.copy(repo.root / "other", tmp_path / "clean/other")
    repo.git("config", "core.worktree", str(tmp_path / "clean"))
    repo.write({"other": b"2"})
    assert repo.git("status", "--porcelain") == ""
    assert "GIT_DIRTY_ELSEWHERE" in names(repo.check().findings)


def test_a_repository_of_another_owner(repo: Repo, loud: Callable[[str], None]) -> None:
    """Git refuses to enter it, for its configuration could run programs as us; here that is never read."""
    if os.geteuid() != 0:
        loud("ROOT: a repository of another owner was not checked, only root can give files away")
        pytest.skip("only root can give files away")
    for path in [repo.root, *repo.root.rglob("*")]:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    control = subprocess.run(["git", "status"], cwd=repo.root, env=environment(), capture_output=True)
    assert b"dubious ownership" in control.stderr
    assert passed(repo.check())


# --- Configuration that runs programs ---


@dataclasses.dataclass
class Trap:
    """A program that leaves a mark when it is run."""

    folder: Path

    @property
    def program(self) -> str:
        path = self.folder / "trap.sh"
        if not path.exists():
            self.folder.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\ntouch {self.folder}/mark\necho '[GNUPG:] GOODSIG 0 x'\nexit 0\n")
            path.chmod(0o755)
        return str(path)

    @property
    def sprung(self) -> bool:
        return (self.folder / "mark").exists()

    def reset(self) -> None:
        (self.folder / "mark").unlink()


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "trap")


def _config(repo: Repo, **values: str) -> None:
    for name, value in values.items():
        repo.git("config", name.replace("__", "."), value)


def _touch_all(repo: Repo) -> None:
    for path in repo.root.rglob("*"):
        if ".git" not in path.parts and path.is_file():
            os.utime(path, (1, 1))


def _set_filter(repo: Repo, trap: Trap, key: str) -> None:
    _config(repo, **{f"filter.evil.{key}": trap.program, "filter.evil.required": "true"})
    (repo.root / ".git/info/attributes").write_text("* filter=evil\n")
    (repo.root / ".gitattributes").write_text("* filter=evil\n")


def _set_driver(repo: Repo, trap: Trap, key: str) -> None:
    _config(repo, **{f"diff.evil.{key}": trap.program})
    (repo.root / ".gitattributes").write_text("* diff=evil\n")
    repo.write({"plain": b"changed"})


def _set_hook(repo: Repo, trap: Trap, name: str, folder: str) -> None:
    hooks = repo.root / folder
    hooks.mkdir(parents=True, exist_ok=True)
    shutil.copy(trap.program, hooks / name)
    if folder != ".git/hooks":
        _config(repo, core__hooksPath=folder)


def _set_include(repo: Repo, trap: Trap, key: str) -> None:
    (repo.root / "evil.config").write_text(f"[core]\n\tfsmonitor = {trap.program}\n")
    _config(repo, **{key: str(repo.root / "evil.config")})


def _set_worktree_config(repo: Repo, trap: Trap) -> None:
    _config(repo, extensions__worktreeConfig="true")
    (repo.root / ".git/config.worktree").write_text(f"[core]\n\tfsmonitor = {trap.program}\n")


def _set_submodule(repo: Repo, trap: Trap) -> None:
    inner = new_repo(repo.root / "inner")
    inner.commit()
    repo.commit()
    _config(inner, core__fsmonitor=trap.program)


def _set_partial_clone(repo: Repo, trap: Trap) -> None:
    _config(repo, extensions__partialClone="origin", remote__origin__url=f"ext::{trap.program}",
            remote__origin__promisor="true", protocol__ext__allow="always")  # fmt: skip
    repo.object_path(repo.git("rev-parse", "HEAD:plain")).unlink()


def _bad_head(repo: Repo) -> None:
    """Every reading of an object that is not there."""
    (repo.root / ".git/refs/heads/gone").write_text("12" * 20 + "\n")


#: Name: how it is set, and the stock command that falls for it.
TRAPS: dict[str, tuple[Callable[[Repo, Trap], Any], list[str]]] = {
    "core.fsmonitor": (lambda repo, trap: _config(repo, core__fsmonitor=trap.program), ["status"]),
    "include.path": (lambda repo, trap: _set_include(repo, trap, "include.path"), ["status"]),
    "includeIf": (lambda repo, trap: _set_include(repo, trap, f"includeIf.gitdir:{repo.root}/.path"), ["status"]),
    "config.worktree": (_set_worktree_config, ["status"]),
    "submodule-fsmonitor": (_set_submodule, ["status"]),
    "core.hooksPath": (
        lambda repo, trap: _set_hook(repo, trap, "post-index-change", "hooks"),
        ["update-index", "--force-write-index"],
    ),
    "hook": (
        lambda repo, trap: _set_hook(repo, trap, "post-index-change", ".git/hooks"),
        ["update-index", "--force-write-index"],
    ),
    "filter.clean": (lambda repo, trap: _set_filter(repo, trap, "clean"), ["status"]),
    "filter.process": (lambda repo, trap: _set_filter(repo, trap, "process"), ["status"]),
    "filter.smudge": (
        lambda repo, trap: _set_filter(repo, trap, "smudge"),
        ["cat-file", "--filters", "--path=plain", "HEAD:plain"],
    ),
    "diff.external": (
        lambda repo, trap: (_config(repo, diff__external=trap.program), repo.write({"plain": b"changed"})),
        ["diff"],
    ),
    "diff.command": (lambda repo, trap: _set_driver(repo, trap, "command"), ["diff"]),
    "diff.textconv": (lambda repo, trap: _set_driver(repo, trap, "textconv"), ["diff"]),
    "alias": (lambda repo, trap: _config(repo, alias__evil=f"!{trap.program}"), ["evil"]),
    "gpg.ssh.program": (
        lambda repo, trap: _config(repo, gpg__ssh__program=trap.program, gpg__ssh__allowedSignersFile="/dev/null"),
        ["verify-commit", "HEAD"],
    ),
    "core.sshCommand": (
        lambda repo, trap: _config(repo, core__sshCommand=trap.program, remote__origin__url="ssh://nowhere.invalid/x"),
        ["-c", "protocol.allow=always", "ls-remote", "origin"],
    ),
    "credential.helper": (
        lambda repo, trap: _config(repo, credential__helper=f"!{trap.program}"),
        ["credential", "fill"],
    ),
    "partial-clone": (_set_partial_clone, ["cat-file", "-p", "HEAD:plain"]),
    "partial-clone-missing-commit": (
        lambda repo, trap: (_set_partial_clone(repo, trap), _bad_head(repo)),
        ["cat-file", "-p", "refs/heads/gone"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_configuration_that_runs_programs(repo: Repo, trap: Trap, name: str) -> None:
    repo.commit({"plain": b"1"})
    arm, command = TRAPS[name]
    arm(repo, trap)
    _touch_all(repo)
    environ = {k: v for k, v in environment(GIT_TERMINAL_PROMPT="0").items() if k != "GIT_ALLOW_PROTOCOL"}
    subprocess.run(["git", *command], cwd=repo.root, env=environ, input=b"protocol=https\nhost=x\n\n",
                   capture_output=True, timeout=60)  # fmt: skip
    assert trap.sprung, "the trap does not work, so nothing is proved"
    trap.reset()
    _touch_all(repo)

    before = snapshot(repo.root)
    check = repo.check()
    assert not trap.sprung
    assert passed(check)
    if name == "partial-clone-missing-commit":
        assert refusals(repo.check(revision="gone")) == ["GIT_HISTORY_INCOMPLETE"]
        assert not trap.sprung
    assert snapshot(repo.root) == before


def test_openpgp_programs_of_the_configuration(repo: Repo, trap: Trap, gpg: Gpg, pgp_key: str) -> None:
    payload, _ = split(repo.raw())
    repo.head(repo.store(join(payload, gpg.run(*NOW, "-ab", "-u", gpg.make("eva"), data=payload))))
    lines = "\\n[GNUPG:] NEWSIG\\n[GNUPG:] GOODSIG 0 x\\n[GNUPG:] TRUST_ULTIMATE 0 pgp\\n"
    Path(trap.program).write_text(f"#!/bin/sh\ntouch {trap.folder}/mark\ncat > /dev/null\nprintf '{lines}'\n")
    _config(repo, gpg__program=trap.program, gpg__openpgp__program=trap.program)
    control = subprocess.run(["git", "verify-commit", "HEAD"], cwd=repo.root, env=environment(), capture_output=True)
    assert trap.sprung
    assert control.returncode == 0
    trap.reset()
    assert refusals(repo.check(allowed_signers=[AllowedSigner(gpg.export(pgp_key))])) == ["SIGNER_NOT_ALLOWED"]
    assert not trap.sprung


def test_a_forged_verifier_of_ssh(repo: Repo, trap: Trap) -> None:
    payload, _ = split(repo.raw())
    repo.head(repo.store(join(payload, ssh_sign(payload, ssh_key(owner="eve")))))
    path = Path(trap.program)
    path.write_text(
        f"#!/bin/sh\ntouch {trap.folder}/mark\n[ $2 = verify ] && cat > /dev/null\n"
        f"echo 'Good \"git\" signature for ada with X key SHA256:x'\n"
    )
    _config(repo, gpg__ssh__program=trap.program, gpg__ssh__allowedSignersFile="/dev/null")
    control = subprocess.run(["git", "verify-commit", "HEAD"], cwd=repo.root, env=environment(), capture_output=True)
    assert (control.returncode, trap.sprung) == (0, True)
    trap.reset()
    assert refusals(repo.check()) == ["SIGNER_NOT_ALLOWED"]
    assert not trap.sprung


# --- The environment of the process ---


@pytest.mark.parametrize(
    "values",
    [
        {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": "TRAP"},
        {"GIT_CONFIG_PARAMETERS": "'core.fsmonitor'='TRAP'"},
        {"GIT_DIR": "/nonexistent"},
        {"GIT_WORK_TREE": "/nonexistent"},
        {"GIT_INDEX_FILE": "/nonexistent/index"},
        {"GIT_OBJECT_DIRECTORY": "/nonexistent"},
        {"GIT_EXEC_PATH": "/nonexistent"},
        {"GIT_REPLACE_REF_BASE": "refs/heads/"},
        {"GIT_NAMESPACE": "x"},
        {"GIT_TRACE": "1", "GIT_TRACE2": "1"},
        {"GIT_LITERAL_PATHSPECS": "1", "GIT_ICASE_PATHSPECS": "1"},
        {"LC_ALL": "tr_TR.UTF-8"},
        {"GNUPGHOME": "/nonexistent"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_the_environment_is_not_handed_down(
    repo: Repo, trap: Trap, values: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value.replace("TRAP", trap.program))
    check = repo.check()
    assert passed(check)
    assert names(check.findings) == ["BRANCH_CLAIMED"]
    assert not trap.sprung


@pytest.mark.parametrize("entry", ["INSIDE", "bin", ".", "LINK"])
def test_programs_inside_the_repository_are_not_run(
    repo: Repo, trap: Trap, tmp_path: Path, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (repo.root / "bin", repo.root):
        folder.mkdir(exist_ok=True)
        shutil.copy(trap.program, folder / "git")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/git").symlink_to(repo.root / "git")
    monkeypatch.chdir(repo.root)
    place = {"INSIDE": str(repo.root / "bin"), "LINK": str(tmp_path / "outside")}.get(entry, entry)
    monkeypatch.setenv("PATH", place + os.pathsep + os.environ["PATH"])
    assert subprocess.run(["git", "version"], capture_output=True).stdout.startswith(b"[GNUPG:]")  # the trap
    trap.reset()
    assert passed(repo.check())
    assert not trap.sprung


def test_programs_of_the_working_directory_are_not_run(
    repo: Repo, trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(trap.program, tmp_path / "bin/git")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "bin" + os.pathsep + os.environ["PATH"])
    assert subprocess.run(["git", "version"], capture_output=True).stdout.startswith(b"[GNUPG:]")  # the trap
    trap.reset()
    assert passed(repo.check())
    assert not trap.sprung


# --- The index and the working tree lie ---


def _hide_assume_unchanged(repo: Repo) -> None:
    repo.git("update-index", "--assume-unchanged", "dvc.lock", "plain")
    repo.write({"dvc.lock": EVIL, "plain": b"evil"})


def _hide_skip_worktree(repo: Repo) -> None:
    repo.git("update-index", "--skip-worktree", "dvc.lock", "plain")
    repo.write({"dvc.lock": EVIL, "plain": b"evil"})


def _hide_sparse(repo: Repo) -> None:
    repo.git("sparse-checkout", "set", "--no-cone", "/nothing")
    repo.git("config", "core.sparseCheckout", "true")
    repo.write({"dvc.lock": EVIL, "plain": b"evil"})
    repo.git("config", "sparse.expectFilesOutsideOfPatterns", "true")


def _hide_same_stat(repo: Repo) -> None:
    """Same size and times as the index remembers, as after `touch -r`."""
    for name in ("dvc.lock", "plain"):
        path = repo.root / name
        os.utime(path, ns=(10**18, 10**18))
    repo.git("update-index", "--refresh")
    for name in ("dvc.lock", "plain"):
        path = repo.root / name
        data = path.read_bytes()
        with open(path, "r+b") as file:
            file.write(b"#" * (len(data) - 1))
        os.utime(path, ns=(10**18, 10**18))
    _config(repo, core__trustctime="false")


def _hide_filter(repo: Repo) -> None:
    """A clean filter that gives Git the committed bytes back."""
    repo.git("config", "filter.lie.clean", "git cat-file blob HEAD:%f")
    (repo.root / ".git/info/attributes").write_text("* filter=lie\n")
    repo.write({"dvc.lock": EVIL, "plain": b"evil"})
    repo.git("add", "-A")


def _hide_autocrlf(repo: Repo) -> None:
    _config(repo, core__autocrlf="true")
    repo.write({"dvc.lock": LOCK.replace(b"\n", b"\r\n"), "plain": b"plain\r\n"})
    repo.git("add", "-A")


def _hide_attributes(repo: Repo) -> None:
    (repo.root / ".git/info/attributes").write_text("* text eol=crlf\n")
    repo.write({"dvc.lock": LOCK.replace(b"\n", b"\r\n"), "plain": b"plain\r\n"})
    repo.git("add", "-A")


def _hide_ignore_case(repo: Repo) -> None:
    _config(repo, core__ignoreCase="true")
    repo.git("update-index", "--assume-unchanged", "dvc.lock", "plain")
    repo.write({"dvc.lock": EVIL, "plain": b"evil"})


HIDES = {
    "assume-unchanged": _hide_assume_unchanged,
    "skip-worktree": _hide_skip_worktree,
    "sparse-checkout": _hide_sparse,
    "same-stat": _hide_same_stat,
    "clean-filter": _hide_filter,
    "autocrlf": _hide_autocrlf,
    "eol-attribute": _hide_attributes,
    "ignore-case": _hide_ignore_case,
}


@pytest.mark.parametrize("name", HIDES)
def test_changes_that_git_status_does_not_see(repo: Repo, name: str) -> None:
    repo.commit({"dvc.lock": LOCK, "plain": b"plain\n"})
    HIDES[name](repo)
    control = subprocess.run(["git", "status", "--porcelain"], cwd=repo.root, env=environment(), capture_output=True)
    assert control.stdout == b"", "git sees it, so nothing is hidden"
    data = (repo.root / "dvc.lock").read_bytes()
    assert data != LOCK
    before = snapshot(repo.root)
    check = repo.check(files={"dvc.lock": data})
    assert refusals(check) == ["GIT_DIRTY"]
    # The other file is counted, too: nothing of the repository's index or configuration was believed.
    assert "GIT_DIRTY_ELSEWHERE" in names(check.findings)
    assert snapshot(repo.root) == before


def test_an_index_that_holds_something_else(repo: Repo) -> None:
    """Staged evil, clean file: the commit decides, not the index."""
    repo.write({"dvc.lock": EVIL})
    repo.git("add", "dvc.lock")
    repo.write({"dvc.lock": LOCK})
    assert passed(repo.check())
    repo.write({"dvc.lock": EVIL})
    assert refusals(repo.check(files={"dvc.lock": EVIL})) == ["GIT_DIRTY"]


@pytest.mark.parametrize("broken", ["garbage", "missing", "link", "pipe"])
def test_the_index_is_not_even_read(repo: Repo, broken: str) -> None:
    index = repo.root / ".git/index"
    index.unlink()
    if broken == "garbage":
        index.write_bytes(os.urandom(1000))
    elif broken == "link":
        index.symlink_to("/dev/zero")
    elif broken == "pipe":
        os.mkfifo(index)
    assert names(repo.check(time_limit=20).findings) == ["BRANCH_CLAIMED"]


# --- History that is not there ---


def _unmerged(repo: Repo) -> str:
    repo.git("checkout", "-q", "-b", "topic")
    commit = repo.commit({"dvc.lock": EVIL})
    repo.git("checkout", "-q", "main")
    repo.commit({"main": b"1"})
    repo.git("checkout", "-q", "topic")
    return commit


def _merged_says_git(repo: Repo, commit: str) -> bool:
    done = subprocess.run(
        ["git", "merge-base", "--is-ancestor", commit, "main"], cwd=repo.root, env=environment(), capture_output=True
    )
    return done.returncode == 0


def test_grafts(repo: Repo) -> None:
    commit = _unmerged(repo)
    assert not _merged_says_git(repo, commit)
    (repo.root / ".git/info/grafts").write_text(f"{repo.git('rev-parse', 'main')} {commit}\n")
    assert _merged_says_git(repo, commit)
    assert refusals(repo.check(files={"dvc.lock": EVIL})) == ["COMMIT_NOT_ON_BRANCH"]


def test_replaced_parents(repo: Repo) -> None:
    commit = _unmerged(repo)
    repo.git("replace", "--graft", "main", commit)
    assert _merged_says_git(repo, commit)
    assert refusals(repo.check(files={"dvc.lock": EVIL})) == ["COMMIT_NOT_ON_BRANCH"]


def test_a_commit_graph_that_lies(repo: Repo) -> None:
    """Git takes parents from the commit-graph without looking at the commits."""
    commit = _unmerged(repo)
    main = repo.git("rev-parse", "main")
    repo.git("checkout", "-q", "main")
    repo.commit({"main": b"2"})  # git does look at the tip itself
    repo.git("checkout", "-q", "topic")
    repo.git("replace", "--graft", main, commit)
    forged = repo.git("for-each-ref", "--format=%(objectname)", "refs/replace")
    # The graph is written while the replacement stands under the tip's own name, then the tip is put back.
    true = repo.object_path(main).read_bytes()
    repo.git("replace", "-d", main)
    repo.object_path(main).chmod(0o644)
    repo.object_path(main).write_bytes(repo.object_path(forged).read_bytes())
    repo.git("commit-graph", "write", "--reachable", check=False)
    repo.object_path(main).write_bytes(true)
    assert _merged_says_git(repo, commit)
    assert refusals(repo.check(files={"dvc.lock": EVIL})) == ["COMMIT_NOT_ON_BRANCH"]


@pytest.mark.parametrize("kind", ["commit", "tree", "blob"])
def test_replaced_objects(repo: Repo, kind: str) -> None:
    good = repo.git("rev-parse", "HEAD")
    spec = {"commit": "{}", "tree": "{}^{{tree}}", "blob": "{}:dvc.lock"}[kind]
    repo.git("checkout", "-q", "-b", "evil")
    evil = repo.commit({"dvc.lock": EVIL})
    repo.git("replace", "-f", repo.git("rev-parse", spec.format(good)), repo.git("rev-parse", spec.format(evil)))
    repo.git("checkout", "-q", "-f", "main")
    repo.write({"dvc.lock": EVIL})
    assert repo.git("show", f"{good}:dvc.lock") == EVIL.decode().rstrip("\n")  # git is deceived
    assert refusals(repo.check(files={"dvc.lock": EVIL})) == ["GIT_DIRTY"]
    assert passed(repo.check(files={"dvc.lock": LOCK}))


def test_a_forged_list_of_cuts(repo: Repo) -> None:
    """`shallow` hides the parents from Git; here they are read from the commits."""
    first = repo.git("rev-parse", "HEAD")
    repo.commit({"x": b"1"})
    (repo.root / ".git/shallow").write_text(repo.git("rev-parse", "HEAD") + "\n")
    assert not _merged_says_git(repo, first)
    assert passed(repo.check(revision=first))


def test_a_branch_that_was_moved_is_said_to_be_a_claim(repo: Repo) -> None:
    """Whoever may write here can move a branch: that cannot be found from inside, so it is said."""
    commit = _unmerged(repo)
    (repo.root / ".git/refs/heads/main").write_text(commit + "\n")
    check = repo.check(files={"dvc.lock": EVIL})
    assert passed(check)
    assert "BRANCH_CLAIMED" in names(check.findings)


# --- The object store lies ---


def _write_loose(repo: Repo, oid: str, kind: str, data: bytes, size: int | None = None) -> None:
    path = repo.object_path(oid)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(zlib.compress(b"%s %d\0" % (kind.encode(), len(data) if size is None else size) + data))


def test_a_commit_under_the_id_of_another(repo: Repo) -> None:
    good = repo.git("rev-parse", "HEAD")
    repo.commit({"dvc.lock": EVIL})
    evil = repo.raw()
    repo.head(good)
    _write_loose(repo, good, "commit", evil)
    assert repo.raw(good) == evil  # git hands it out
    assert refusals(repo.check(files={"dvc.lock": EVIL})) == ["GIT_OBJECT_CORRUPT"]


def test_a_tree_under_the_id_of_another(repo: Repo) -> None:
    good = repo.git("rev-parse", "HEAD^{tree}")
    commit = repo.git("rev-parse", "HEAD")
    repo.commit({"dvc.lock": EVIL})
    evil = subprocess.run(
        ["git", "cat-file", "tree", "HEAD^{tree}"], cwd=repo.root, env=environment(), capture_output=True, check=True
    ).stdout
    repo.head(commit)
    _write_loose(repo, good, "tree", evil)
    assert repo.git("show", "HEAD:dvc.lock") == EVIL.decode().rstrip("\n")  # git is deceived
    assert refusals(repo.check(files={"dvc.lock": EVIL})) == ["GIT_OBJECT_CORRUPT"]
    assert refusals(repo.check(files={"dvc.lock": LOCK})) == ["GIT_OBJECT_CORRUPT"]


def test_a_parent_under_the_id_of_another(repo: Repo) -> None:
    """The branch is made longer by a commit that claims to be one of its own."""
    commit = _unmerged(repo)
    old = repo.git("rev-parse", "main")
    repo.git("checkout", "-q", "main")
    repo.commit({"main": b"2"})  # git does look at the tip itself
    repo.git("checkout", "-q", "topic")
    evil = b"tree " + b"0" * 40 + b"\nparent " + commit.encode() + b"\nauthor A <a> 1 +0000\n"
    evil += b"committer A <a> 2000000000 +0000\n\nx"
    _write_loose(repo, old, "commit", evil)
    assert _merged_says_git(repo, commit)
    assert refusals(repo.check(files={"dvc.lock": EVIL})) == ["GIT_OBJECT_CORRUPT"]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "noise": lambda data: os.urandom(len(data)),
    "trailing": lambda data: data + b"more",
    "flipped": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
    "not-an-object": lambda data: zlib.compress(b"nothing\0"),
    "wrong-size": lambda data: zlib.compress(b"commit 5\0" + b"x" * 50),
    "negative-size": lambda data: zlib.compress(b"commit -5\0" + b"x" * 50),
    "unknown-kind": lambda data: zlib.compress(b"thing 2\0xx"),
}


@pytest.mark.parametrize("where", ["commit", "tree", "parent"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_objects(repo: Repo, where: str, damage: str) -> None:
    first = repo.git("rev-parse", "HEAD")
    second = repo.commit({"dvc.lock": LOCK, "x": b"1"})
    third = repo.commit({"y": b"1"})
    oid = {"commit": second, "tree": repo.git("rev-parse", f"{second}^{{tree}}"), "parent": third}[where]
    path = repo.object_path(oid)
    path.chmod(0o644)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert first
    assert "GIT_OBJECT_CORRUPT" in refusals(repo.check(revision=second))


@pytest.mark.parametrize("where", ["commit", "tree", "parent"])
def test_objects_that_are_not_there(repo: Repo, where: str) -> None:
    commit = repo.git("rev-parse", "HEAD")
    tip = repo.commit({"y": b"1"})
    tip = repo.commit({"y": b"2"})
    oid = {"commit": commit, "tree": repo.git("rev-parse", f"{commit}^{{tree}}"), "parent": tip}[where]
    repo.object_path(oid).unlink()
    check = repo.check(revision=commit)
    assert {f.severity for f in check.findings if f.code == "GIT_HISTORY_INCOMPLETE"} == {"unverifiable"}


def test_a_damaged_pack(repo: Repo) -> None:
    for number in range(20):
        repo.commit({"x": os.urandom(300) + bytes([number])})
    repo.git("gc", "-q", "--aggressive", "--prune=now")
    assert passed(repo.check())
    [pack] = (repo.root / ".git/objects/pack").glob("*.pack")
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    for at in range(20, len(data) - 40, 7):
        data[at] ^= 0x55
    pack.write_bytes(data)
    assert refusals(repo.check())


def _tree(*entries: tuple[bytes, bytes, str]) -> bytes:
    return b"".join(mode + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)


def _signed_with_tree(repo: Repo, data: bytes) -> None:
    tree = repo.store(data, "tree")
    payload, _ = split(repo.raw())
    payload = b"tree " + tree.encode() + payload[45:]
    repo.head(repo.store(join(payload, ssh_sign(payload, ssh_key()))))


BLOB = b"100644"
GOOD_ID = "aa" * 20
TREES: dict[str, tuple[Callable[[str, str], bytes], str]] = {
    "twice-good-first": (
        lambda good, evil: _tree((BLOB, b"dvc.lock", good), (BLOB, b"dvc.lock", evil)), "GIT_OBJECT_CORRUPT",
    ),
    "twice-good-last": (
        lambda good, evil: _tree((BLOB, b"dvc.lock", evil), (BLOB, b"dvc.lock", good)), "GIT_OBJECT_CORRUPT",
    ),
    "file-and-folder": (
        lambda good, evil: _tree((BLOB, b"dvc.lock", good), (BLOB, b"dvc.lock-", evil), (b"40000", b"dvc.lock", evil)),
        "GIT_OBJECT_CORRUPT",
    ),
    "unsorted": (lambda good, evil: _tree((BLOB, b"z", evil), (BLOB, b"dvc.lock", good)), "GIT_OBJECT_CORRUPT"),
    "slash": (lambda good, evil: _tree((BLOB, b"a/b", evil), (BLOB, b"dvc.lock", good)), "GIT_OBJECT_CORRUPT"),
    "dots": (lambda good, evil: _tree((BLOB, b"..", evil), (BLOB, b"dvc.lock", good)), "GIT_OBJECT_CORRUPT"),
    "empty-name": (lambda good, evil: _tree((BLOB, b"", evil), (BLOB, b"dvc.lock", good)), "GIT_OBJECT_CORRUPT"),
    "odd-mode": (lambda good, evil: _tree((b"100600", b"dvc.lock", good)), "GIT_OBJECT_CORRUPT"),
    "padded-mode": (lambda good, evil: _tree((b"0100644", b"dvc.lock", good)), "GIT_OBJECT_CORRUPT"),
    "short": (lambda good, evil: _tree((BLOB, b"dvc.lock", good))[:-1], "GIT_OBJECT_CORRUPT"),
    "case": (
        lambda good, evil: _tree((BLOB, b"DVC.lock", evil), (BLOB, b"dvc.lock", good)), "GIT_NAME_COLLISION",
    ),
    "folder-of-other-case": (
        lambda good, evil: _tree((b"40000", b"Dvc.Lock", GOOD_ID), (BLOB, b"dvc.lock", good)), "GIT_NAME_COLLISION",
    ),
    "symbolic-link": (lambda good, evil: _tree((b"120000", b"dvc.lock", good)), "GIT_DIRTY"),
    "submodule": (lambda good, evil: _tree((b"160000", b"dvc.lock", good)), "GIT_DIRTY"),
    "folder": (lambda good, evil: _tree((b"40000", b"dvc.lock", good)), "GIT_DIRTY"),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_trees_with_two_meanings(repo: Repo, name: str) -> None:
    good = repo.git("rev-parse", "HEAD:dvc.lock")
    evil = repo.store(EVIL, "blob")
    make, code = TREES[name]
    _signed_with_tree(repo, make(good, evil))
    check = repo.check()
    assert refusals(check) == [code]
    assert check.signer  # the commit itself is in order


def test_unicode_forms_of_one_name(repo: Repo) -> None:
    files: dict[str, bytes | None] = {"p\u00e4th/dvc.lock": b"1", "pa\u0308th/dvc.lock": b"2"}
    repo.commit(files)
    assert refusals(repo.check(files=files)) == ["GIT_NAME_COLLISION"] * 2


def _person(name: bytes) -> bytes:
    return name + b" Ada <ada@example.org> 1772366400 +0000\n"


COMMITS: dict[str, Callable[[bytes], bytes]] = {
    "two-trees": lambda tree: tree + b"tree " + b"b" * 40 + b"\n" + _person(b"author") + _person(b"committer"),
    "tree-later": lambda tree: tree + _person(b"author") + _person(b"committer") + b"tree " + b"b" * 40 + b"\n",
    "parent-later": lambda tree: tree + _person(b"author") + _person(b"committer") + b"parent " + b"b" * 40 + b"\n",
    "no-author": lambda tree: tree + _person(b"committer"),
    "two-committers": lambda tree: tree + _person(b"author") + 2 * _person(b"committer"),
    "no-time": lambda tree: tree + _person(b"author") + b"committer Ada <ada@example.org>\n",
    "negative-time": lambda tree: tree + _person(b"author") + b"committer Ada <a@x> -1 +0000\n",
    "far-future": lambda tree: tree + _person(b"author") + b"committer Ada <a@x> 999999999999 +0000\n",
    "nul-in-header": lambda tree: tree + _person(b"author") + _person(b"committer\0"),
    "short-tree": lambda tree: tree[:20] + b"\n" + _person(b"author") + _person(b"committer"),
    "upper-case-tree": lambda tree: tree[:5] + tree[5:].upper() + _person(b"author") + _person(b"committer"),
    "continued-tree": lambda tree: tree + b" more\n" + _person(b"author") + _person(b"committer"),
    "sha256-parent": lambda tree: tree + b"parent " + b"b" * 64 + b"\n" + _person(b"author") + _person(b"committer"),
    "starts-continued": lambda tree: b" x\n" + tree + _person(b"author") + _person(b"committer"),
}


@pytest.mark.parametrize("name", COMMITS)
def test_commits_with_two_meanings(repo: Repo, name: str) -> None:
    """Signed by Ada, who was led to sign what two readers understand in two ways."""
    tree = b"tree " + repo.git("rev-parse", "HEAD^{tree}").encode() + b"\n"
    payload = COMMITS[name](tree) + b"\nLock\n"
    repo.head(repo.store(join(payload, ssh_sign(payload, ssh_key()))))
    assert "GIT_OBJECT_CORRUPT" in refusals(repo.check(files={}))


# --- Too much ---


def _large_commit(repo: Repo, oid: str) -> None:
    """Small on disk, 300 MB in memory."""
    path = repo.object_path(oid)
    path.parent.mkdir(exist_ok=True)
    packer = zlib.compressobj(9)
    with open(path, "wb") as file:
        file.write(packer.compress(b"commit %d\0" % (300 << 20)))
        for _ in range(300):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    assert path.stat().st_size < 1 << 20


def test_a_commit_that_fills_the_memory(repo: Repo) -> None:
    """We stop at the size that it states."""
    _large_commit(repo, "ab" * 20)
    repo.head("ab" * 20)
    check = repo.check()
    assert [(f.code, f.severity) for f in check.findings] == [("GIT_UNREADABLE", "unverifiable")]


def test_git_itself_does_not_fill_the_memory(repo: Repo, tmp_path: Path) -> None:
    """The commands that read objects on their own (the list of commits, the comparison) stop at the same object."""
    _large_commit(repo, "ab" * 20)
    (tmp_path / "home").mkdir()
    git = Git(str(shutil.which("git")), str(tmp_path / "home"), str(repo.root / ".git/objects"), "sha1", Deadline(60))
    with git.start("cat-file", "commit", "ab" * 20, what="git cat-file") as child:
        status, output = child.finish(1 << 20)
        assert status != 0
        assert output == b""
        assert b"over limit" in child.diagnostics


def test_an_object_over_our_limit(repo: Repo) -> None:
    """It would fit into memory, but is no commit that anybody writes."""
    payload, _ = split(repo.raw())
    payload += b"x" * (40 << 20)
    repo.head(repo.store(join(payload, ssh_sign(payload, ssh_key()))))
    check = repo.check()
    assert [(f.code, f.severity) for f in check.findings] == [("GIT_UNREADABLE", "unverifiable")]


def test_a_size_that_is_a_lie(repo: Repo) -> None:
    _write_loose(repo, "ab" * 20, "commit", b"x", size=10**18)
    repo.head("ab" * 20)
    assert refusals(repo.check()) in (["GIT_UNREADABLE"], ["GIT_OBJECT_CORRUPT"])


def test_deep_trees(repo: Repo) -> None:
    path = "d/" * 127 + "dvc.lock"
    repo.commit({path: b"deep"})
    assert passed(repo.check(files={path: b"deep"}))
    check = repo.check(files={"d/" * 128 + "dvc.lock": b"deep"})
    assert refusals(check) == ["ARTIFACT_REFUSED"]


def test_a_tree_that_is_deeper_than_any_path(repo: Repo) -> None:
    """20,000 levels: only those on the way to a file are looked at, and git's own walk is held in bounds."""
    oid = repo.git("rev-parse", "HEAD:dvc.lock")
    entry = _tree((BLOB, b"x", oid))
    objects = []
    for _ in range(20_000):
        inner = hashlib.sha1(b"tree %d\0" % len(entry) + entry).hexdigest()
        objects.append((inner, entry))
        entry = _tree((b"40000", b"d", inner))
    for inner, data in objects:
        path = repo.object_path(inner)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(b"tree %d\0" % len(data) + data, 1))
    _signed_with_tree(repo, _tree((b"40000", b"deep", objects[-1][0]), (BLOB, b"dvc.lock", oid)))
    started = time.monotonic()
    check = repo.check(time_limit=20)
    assert passed(check)
    assert "GIT_DIRTY_ELSEWHERE" in names(check.findings)
    assert time.monotonic() - started < 60


def test_wide_trees(repo: Repo) -> None:
    oid = repo.git("rev-parse", "HEAD:dvc.lock")
    entries = [(BLOB, b"dvc.lock", oid), *((BLOB, b"f%06d" % number, oid) for number in range(100_000))]
    _signed_with_tree(repo, _tree(*entries))
    assert passed(repo.check())


def test_a_huge_file_of_branches(repo: Repo) -> None:
    with open(repo.root / ".git/packed-refs", "wb") as file:
        file.truncate(65 << 20)
    check = repo.check(branch="refs/remotes/origin/main")
    assert [(f.code, f.severity) for f in check.findings if f.code != "GIT_DIRTY_ELSEWHERE"] == [
        ("GIT_UNREADABLE", "unverifiable")
    ]


# --- Git itself is missing, slow or strange ---


def _fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "git").write_text("#!/bin/sh\n" + script)
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_no_git(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = repo.check()
    assert [(f.code, f.severity) for f in check.findings] == [("PROGRAM_MISSING", "unverifiable")]


@pytest.mark.parametrize(
    ("script", "code", "severity"),
    [
        ("/bin/sleep 1000", "GIT_UNREADABLE", "unverifiable"),
        ("/bin/cat /dev/zero", "GIT_UNREADABLE", "unverifiable"),
        ("while :; do echo noise >&2; done", "GIT_UNREADABLE", "unverifiable"),
        ("exit 1", "GIT_OBJECT_CORRUPT", "refusal"),
        ("echo; exit 0", "GIT_OBJECT_CORRUPT", "refusal"),
        ("read id; echo $id commit 5; echo 12345; /bin/sleep 1000", "GIT_OBJECT_CORRUPT", "refusal"),
        ("read id; echo $id commit 5; /bin/sleep 1000", "GIT_UNREADABLE", "unverifiable"),
        ("read id; echo $id missing; /bin/sleep 1000", "GIT_HISTORY_INCOMPLETE", "unverifiable"),
        ("echo 'Permission denied' >&2; exit 128", "PERMISSION_DENIED", "unverifiable"),
    ],
    ids=["hangs", "endless", "endless-complaints", "fails", "empty-line", "other-bytes", "half", "missing", "denied"],
)
def test_a_git_that_does_not_work(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, code: str, severity: str
) -> None:
    _fake_git(tmp_path, monkeypatch, script + "\n")
    started = time.monotonic()
    check = repo.check(time_limit=1)
    assert time.monotonic() - started < 60
    assert [(f.code, f.severity) for f in check.findings] == [(code, severity)]


def test_a_gpg_that_hangs(repo: Repo, gpg: Gpg, pgp_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payload, _ = split(repo.raw())
    repo.head(repo.store(join(payload, gpg.run(*NOW, "-ab", "-u", pgp_key, data=payload))))
    block = gpg.export(pgp_key)
    _fake_git(tmp_path, monkeypatch, f'exec {shutil.which("git")} "$@"\n')
    (tmp_path / "fake/gpg").write_text("#!/bin/sh\n/bin/sleep 1000\n")
    (tmp_path / "fake/gpg").chmod(0o755)
    started = time.monotonic()
    check = repo.check(allowed_signers=[AllowedSigner(block)], time_limit=1)
    assert time.monotonic() - started < 60
    assert (check.findings[0].code, check.findings[0].severity) == ("GIT_UNREADABLE", "unverifiable")
    assert check.signer == ""


def test_what_git_starts_ends_with_it(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_git(tmp_path, monkeypatch, f"/bin/sleep 1000 & echo $! > {tmp_path}/pid\nwait\n")
    repo.check(time_limit=1)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        try:
            # A killed process whose parent is gone may wait a moment for somebody to take note of it.
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("the process lives on")


def test_a_program_that_cannot_be_started(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_git(tmp_path, monkeypatch, "")
    (tmp_path / "fake/git").write_bytes(b"\x7fELF nonsense")
    check = repo.check()
    assert [(f.code, f.severity) for f in check.findings] == [("PROGRAM_MISSING", "unverifiable")]


@pytest.mark.parametrize("where", ["object", "ignore"])
def test_a_pipe_that_git_waits_for(repo: Repo, where: str) -> None:
    if where == "object":
        path = repo.object_path(repo.git("rev-parse", "HEAD"))
        path.unlink()
    else:
        path = repo.root / "sub/.gitignore"
        path.parent.mkdir()
        (path.parent / "x").touch()
    os.mkfifo(path)
    started = time.monotonic()
    check = repo.check(time_limit=2)
    assert time.monotonic() - started < 60
    if where == "object":
        assert [(f.code, f.severity) for f in check.findings] == [("GIT_UNREADABLE", "unverifiable")]
    else:
        assert passed(check)
        assert "GIT_DIRTY_ELSEWHERE" in names(check.findings)


# --- Nothing is written ---


def test_nothing_is_written_and_nothing_stays(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the index is refreshed, which `git status` does; temporary folders are gone."""
    repo.commit({"a": b"1", "b/c": b"2"})
    repo.write({"new": b"1"})
    _touch_all(repo)
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(private))
    before = snapshot(repo.root)
    assert passed(repo.check())
    assert refusals(repo.check(files={"a": b"2"}, branch="refs/heads/none"))
    assert snapshot(repo.root) == before
    assert list(private.iterdir()) == []
    subprocess.run(["git", "status"], cwd=repo.root, env=environment(), capture_output=True, check=True)
    assert snapshot(repo.root) != before, "git status writes; the comparison can fail"


def test_a_line_feed_in_the_path(tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "line\nfeed")
    repo.commit()
    with pytest.raises(UsageError, match="line feed"):
        repo.check()


@pytest.mark.parametrize("name", ['qu"ote', "#hash", "sp ace", "ünï", "col:on", "-dash"])
def test_odd_paths_of_repositories(tmp_path: Path, name: str) -> None:
    repo = new_repo(tmp_path / name)
    repo.commit()
    assert passed(repo.check())
    assert passed(check_commit(str(repo.root), files=FILES, allowed_signers=allowed(ssh_key()), branch=MAIN))
