"""Signatures of Git commits: SSHSIG checked with ``cryptography``, OpenPGP through ``gpg`` with a key ring of its own.

Sources: OpenSSH PROTOCOL.sshsig (the signature and what is signed), PROTOCOL.u2f (security keys), RFC 4251 section 5
(encodings), RFC 5656 and RFC 8332 (ECDSA and RSA), ssh-keygen(1) "ALLOWED SIGNERS", gnupg doc/DETAILS (status lines).
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from sealflow.errors import UsageError
from sealflow.findings import Finding, printable
from sealflow.keys.public import read_key_file
from sealflow.lineage.git_program import Child, Deadline, environment, find_program, refused, unverifiable

#: Namespace of signatures that Git makes (gpg-interface.c).
NAMESPACE: Final = b"git"
MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 16384
_MAX_SIGNATURE: Final = 64 << 10

_SSH_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_SSH_END: Final = "-----END SSH SIGNATURE-----"
_PGP_BEGIN: Final = "-----BEGIN PGP SIGNATURE-----"
_PGP_END: Final = "-----END PGP SIGNATURE-----"
_PGP_KEY: Final = "-----BEGIN PGP PUBLIC KEY BLOCK-----"

_SSH_HASHES: Final = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_RSA_HASHES: Final[dict[bytes, type[hashes.HashAlgorithm]]] = {
    b"rsa-sha2-256": hashes.SHA256,
    b"rsa-sha2-512": hashes.SHA512,
}
_CURVES: Final[dict[bytes, tuple[type[ec.EllipticCurve], type[hashes.HashAlgorithm]]]] = {
    b"nistp256": (ec.SECP256R1, hashes.SHA256),
    b"nistp384": (ec.SECP384R1, hashes.SHA384),
    b"nistp521": (ec.SECP521R1, hashes.SHA512),
}
_SSH_KEY = re.compile(r"(?:ssh-[a-z0-9]+|ecdsa-sha2-[a-z0-9]+|sk-(?:ssh|ecdsa)-[a-z0-9@.-]+)(?:@[a-z.]+)?[ \t]")

# OpenPGP hash algorithms that a signature may use (RFC 9580 section 9.5): SHA-2 and SHA-3; neither MD5 nor SHA-1.
_PGP_HASHES: Final = frozenset({"8", "9", "10", "11", "12", "14"})
# Public-key algorithms whose size in bits is that of RSA, DSA or ElGamal.
_PGP_RSA: Final = frozenset({"1", "2", "3"})
_PGP_REFUSED_ALGORITHMS: Final = {"16": "ElGamal", "17": "DSA", "20": "ElGamal"}


@dataclass(frozen=True)
class AllowedSigner:
    """Somebody whose signature on a commit counts.

    Attributes:
        key: A public key: a line of OpenSSH (``ssh-ed25519 AAAA…``), PEM, or an armored OpenPGP block, each as text or
            as the path of a file.
        principal: How the signer is called in findings; without one the key's comment or fingerprint.
        valid_after: The key counts for commits made at this time or later.
        valid_before: The key counts for commits made at this time or earlier. Both are judged at the time that the
            commit states, which is the signer's claim: a stolen key can still date a commit back. To shut out a
            stolen key, take it off the list.
    """

    key: str
    principal: str = ""
    valid_after: datetime | None = None
    valid_before: datetime | None = None

    def __post_init__(self) -> None:
        for moment in (self.valid_after, self.valid_before):
            if moment is not None and moment.tzinfo is None:
                raise UsageError("A validity time of an allowed signer has no time zone.")


@dataclass(frozen=True)
class SshSigner:
    """An allowed signer's SSH key in wire form."""

    blob: bytes
    name: str
    signer: AllowedSigner


@dataclass(frozen=True)
class PgpSigner:
    """An allowed signer's OpenPGP key as it was given."""

    block: bytes
    signer: AllowedSigner


@dataclass(frozen=True)
class AllowedSigners:
    """All who may sign, their keys read.

    Attributes:
        ssh: Those with SSH keys.
        pgp: Those with OpenPGP keys.
    """

    ssh: tuple[SshSigner, ...] = ()
    pgp: tuple[PgpSigner, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ssh or self.pgp)


@dataclass(frozen=True)
class SignedBy:
    """What is known of a commit's signer.

    Attributes:
        name: Principal of the allowed signer; empty when the signer is not allowed.
        key: Fingerprint: ``SHA256:…`` as OpenSSH prints it, or the hex fingerprint of the OpenPGP primary key.
        findings: What is wrong with it, and notes.
    """

    name: str = ""
    key: str = ""
    findings: tuple[Finding, ...] = field(default=())


# --- Who may sign ---


def load_allowed_signers(signers: Iterable[AllowedSigner]) -> AllowedSigners:
    """Read the keys of the allowed signers.

    Raises:
        UsageError: Not a public key of a kind that counts.
        UnavailableError: A key file cannot be read.
    """
    ssh: list[SshSigner] = []
    pgp: list[PgpSigner] = []
    for signer in signers:
        text = signer.key.strip()
        if "PRIVATE KEY" in text:
            raise UsageError("A private key was given where an allowed signer's public key belongs.")
        if not (_SSH_KEY.match(text) or text.startswith("-----BEGIN")):
            text = read_key_file(text).decode("utf-8", "replace").strip()
        if "PRIVATE KEY" in text:
            raise UsageError("The file of an allowed signer holds a private key where the public one belongs.")
        if text.startswith(_PGP_KEY):
            pgp.append(PgpSigner(text.encode("utf-8"), signer))
            continue
        blob, comment = _ssh_key(text)
        ssh.append(SshSigner(blob, signer.principal or comment or ssh_fingerprint(blob), signer))
    return AllowedSigners(tuple(ssh), tuple(pgp))


def _ssh_key(text: str) -> tuple[bytes, str]:
    if text.startswith("-----BEGIN"):
        try:
            key: Any = serialization.load_pem_public_key(text.encode("utf-8"))
            line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        except (ValueError, UnsupportedAlgorithm, TypeError):
            raise UsageError("The key of an allowed signer is no public key that can sign commits.") from None
        text = line.decode("ascii")
    if "\n" in text:
        raise UsageError(
            "The key of an allowed signer has more than one line.",
            next_step="Give one key each; read_allowed_signers() reads a file of several.",
        )
    parts = text.split(None, 2)
    try:
        blob = base64.b64decode(parts[1], validate=True)
        _Key(blob, named=parts[0].encode("ascii"))
    except (IndexError, binascii.Error, UnicodeEncodeError):
        raise UsageError(f"The key {printable(text, 60)!r} of an allowed signer is no OpenSSH public key.") from None
    except _UnfitError as error:
        raise UsageError(
            f"The key {printable(text, 60)!r} of an allowed signer is refused: {error}.",
            code="KEY_UNSUPPORTED",
            next_step="Use Ed25519, ECDSA or RSA of at least 2048 bits.",
        ) from None
    return blob, printable(parts[2].strip(), 100) if len(parts) > 2 else ""


def ssh_fingerprint(blob: bytes) -> str:
    """Return the fingerprint of an SSH key as OpenSSH prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")


def read_allowed_signers(path: str) -> tuple[AllowedSigner, ...]:
    """Read an allowed-signers file of OpenSSH (ssh-keygen(1)), the one that ``gpg.ssh.allowedSignersFile`` names.

    Lines for other namespaces than ``git`` are passed over.

    Raises:
        UsageError: No such file, or a line that cannot be read or asks for what is not supported
            (``cert-authority``).
        UnavailableError: The file cannot be read.
    """
    return parse_allowed_signers(read_key_file(path), printable(path))


def parse_allowed_signers(data: bytes, what: str) -> tuple[AllowedSigner, ...]:
    """Read the bytes of an allowed-signers file as :func:`read_allowed_signers` does.

    Raises:
        UsageError: A line that cannot be read or asks for what is not supported.
    """
    signers = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            signer = _allowed_line(stripped, f"{what} line {number}")
            if signer is not None:
                signers.append(signer)
    return tuple(signers)


_PRINCIPALS = re.compile(r'(?:"([^"]*)"|(\S+))\s+(.*)', re.DOTALL)
_OPTION = re.compile(r'([A-Za-z-]+)(?:="((?:[^"\\]|\\.)*)")?(?:,|\s+|$)')


def _allowed_line(line: str, where: str) -> AllowedSigner | None:
    match = _PRINCIPALS.fullmatch(line)
    if match is None:
        raise UsageError(f"{where} is not an allowed signer.")
    principal, rest = match[1] or match[2], match[3]
    moments: dict[str, datetime | None] = {"valid-after": None, "valid-before": None}
    counts = True
    while not _SSH_KEY.match(rest):
        option = _OPTION.match(rest)
        if option is None:
            raise UsageError(f"{where} holds an option or a key that cannot be read.")
        name, value = option[1].lower(), option[2]
        if name == "namespaces" and value is not None:
            counts = any(fnmatch.fnmatchcase("git", pattern.strip()) for pattern in value.split(","))
        elif name in moments and value is not None:
            moments[name] = _moment(value, where)
        else:
            raise UsageError(f"{where} holds the option {printable(option[1], 40)!r}, which is not supported.")
        rest = rest[option.end() :].lstrip() if option[0][-1:] != "," else rest[option.end() :]
    if not counts:
        return None
    return AllowedSigner(rest, principal, moments["valid-after"], moments["valid-before"])


def _moment(text: str, where: str) -> datetime:
    match = re.fullmatch(r"(\d{8})(\d{4})?(\d{2})?(Z)?", text, re.ASCII)
    try:
        if match is None:
            raise ValueError
        moment = datetime.strptime(match[1] + (match[2] or "0000") + (match[3] or "00"), "%Y%m%d%H%M%S")
    except ValueError:
        raise UsageError(f"{where} holds the time {printable(text, 40)!r}; expected YYYYMMDD[HHMM[SS]][Z].") from None
    # ssh-keygen(1): without Z the time is the local one.
    return moment.replace(tzinfo=timezone.utc) if match[4] else moment.astimezone()


# --- The check ---


def check_signature(
    payload: bytes,
    signature: bytes,
    *,
    commit: str,
    committed_at: datetime,
    allowed: AllowedSigners,
    home: str,
    outside: str,
    deadline: Deadline,
) -> SignedBy:
    """Check the signature of a commit. Never raises for what the signature holds.

    Args:
        payload: The commit object without its signature.
        signature: The signature as the commit holds it, armor included.
        commit: Id of the commit, for findings.
        committed_at: The time that the commit states.
        allowed: Who may sign.
        home: A private folder.
        outside: Folder whose programs are never run.
        deadline: When to give up.

    Raises:
        Stopped: The signature is wrong, or nobody can say.
    """
    text = signature.decode("utf-8", "replace")
    if text.startswith(_SSH_BEGIN):
        return _check_ssh(payload, text, commit, committed_at, allowed)
    if text.startswith(_PGP_BEGIN):
        return _check_pgp(payload, signature, commit, committed_at, allowed, home, outside, deadline)
    raise refused(
        "SIGNATURE_UNSUPPORTED",
        commit,
        "The commit's signature is neither an SSH nor an OpenPGP signature.",
        found=text.partition("\n")[0],
        next_step="Sign commits with an SSH key (gpg.format=ssh) or an OpenPGP key.",
    )


def _judge_time(signers: Sequence[tuple[str, AllowedSigner]], commit: str, key: str, at: datetime) -> SignedBy:
    """Return the first signer whose validity holds the commit's time, or why none does."""
    problems = []
    for name, signer in signers:
        if signer.valid_after is not None and at < signer.valid_after:
            problems.append(("KEY_NOT_YET_VALID", name, f"at or after {signer.valid_after.isoformat()}"))
        elif signer.valid_before is not None and at > signer.valid_before:
            problems.append(("KEY_EXPIRED", name, f"at or before {signer.valid_before.isoformat()}"))
        else:
            return SignedBy(name, key, _claimed(commit, at) if signer.valid_after or signer.valid_before else ())
    code, name, expected = problems[0]
    message = f"The key of {printable(name, 100)} does not count for the time that the commit states."
    step = "Sign the commit again with a key that counts now, or correct the allowed signer's validity."
    return SignedBy(
        name,
        key,
        (Finding(code, "refusal", commit, message, expected=expected, found=at.isoformat(), next_step=step),),
    )


def _claimed(commit: str, at: datetime) -> tuple[Finding, ...]:
    message = "The key counts for the time that the commit states, which is its signer's word."
    return (Finding("COMMIT_TIME_CLAIMED", "note", commit, message, found=at.isoformat()),)


def _stranger(commit: str, key: str) -> SignedBy:
    return SignedBy(
        "",
        key,
        (
            Finding(
                "SIGNER_NOT_ALLOWED",
                "refusal",
                commit,
                "The commit is signed, but by nobody who is an allowed signer of commits.",
                expected="a key of the allowed signers",
                found=key,
                next_step="If this signer is right, add the key to the allowed signers; otherwise treat the commit "
                "as hostile.",
            ),
        ),
    )


# --- SSHSIG ---


class _UnfitError(Exception):
    """A key or signature of a kind that does not count."""


class _Reader:
    """Reads the encodings of RFC 4251 section 5."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError("it ends early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.number())

    def positive(self) -> int:
        data = self.string()
        if not data or data[0] & 0x80 or (data[0] == 0 and not (len(data) > 1 and data[1] & 0x80)):
            raise ValueError("a number is not in its shortest positive form")
        return int.from_bytes(data, "big")

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("something follows its end")


class _Key:
    """An SSH public key that may sign commits.

    Raises:
        _UnfitError: Of another kind, too weak, or malformed.
    """

    def __init__(self, blob: bytes, named: bytes | None = None) -> None:
        self.blob = blob
        self.application: bytes | None = None
        try:
            reader = _Reader(blob)
            self.kind = reader.string()
            if named is not None and named != self.kind:
                raise _UnfitError("it is of another kind than its line says")
            self._public: Any = self._read(reader)
            reader.end()
        except ValueError as error:
            raise _UnfitError(f"the key is malformed ({error})") from None

    def _read(self, reader: _Reader) -> Any:
        name = self.kind
        if name in (b"ssh-ed25519", b"sk-ssh-ed25519@openssh.com"):
            key: Any = ed25519.Ed25519PublicKey.from_public_bytes(reader.string())
        elif name.startswith(b"ecdsa-sha2-") or name == b"sk-ecdsa-sha2-nistp256@openssh.com":
            wanted = name.removeprefix(b"sk-").removesuffix(b"@openssh.com").removeprefix(b"ecdsa-sha2-")
            if wanted not in _CURVES or reader.string() != wanted:
                raise _UnfitError("its curve is unknown")
            curve, self._hash = _CURVES[wanted]
            point = reader.string()
            if point[:1] != b"\x04":
                raise _UnfitError("its point is not uncompressed")
            key = ec.EllipticCurvePublicKey.from_encoded_point(curve(), point)
        elif name == b"ssh-rsa":
            exponent, modulus = reader.positive(), reader.positive()
            if not MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
                raise _UnfitError(f"its RSA modulus has {modulus.bit_length()} bits, fewer than 2048 or far too many")
            if exponent.bit_length() > 64:
                raise _UnfitError("its RSA exponent is too large")
            key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        else:
            raise _UnfitError(f"keys of the kind {printable(name.decode('utf-8', 'replace'), 60)!r} do not count")
        if name.startswith(b"sk-"):
            self.application = reader.string()
        return key

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Tell whether an SSH signature (RFC 4253 section 6.6) over the message is this key's.

        Raises:
            _UnfitError: The algorithm does not count.
            ValueError: The signature is malformed.
        """
        reader = _Reader(signature)
        algorithm, value = reader.string(), reader.string()
        if self.application is not None:
            flags, counter = reader.take(1), reader.take(4)
            if not flags[0] & 1:
                raise _UnfitError("nobody touched the security key")
            message = b"".join(
                (hashlib.sha256(self.application).digest(), flags, counter, hashlib.sha256(message).digest())
            )
        reader.end()
        try:
            if isinstance(self._public, rsa.RSAPublicKey):
                if algorithm not in _RSA_HASHES:
                    raise _UnfitError(
                        f"the algorithm {printable(algorithm.decode('utf-8', 'replace'), 60)!r} is too weak"
                    )
                # OpenSSH may leave out leading zeros of the signature.
                value = value.rjust((self._public.key_size + 7) // 8, b"\0")
                self._public.verify(value, message, padding.PKCS1v15(), _RSA_HASHES[algorithm]())
            elif algorithm != self.kind:
                raise _UnfitError("key and signature are of different algorithms")
            elif isinstance(self._public, ed25519.Ed25519PublicKey):
                self._public.verify(value, message)
            else:
                numbers = _Reader(value)
                encoded = utils.encode_dss_signature(numbers.positive(), numbers.positive())
                numbers.end()
                self._public.verify(encoded, message, ec.ECDSA(self._hash()))
        except InvalidSignature:
            return False
        return True


def _check_ssh(payload: bytes, text: str, commit: str, at: datetime, allowed: AllowedSigners) -> SignedBy:
    key, signature, signed = _read_sshsig(text, payload, commit)
    try:
        good = key.verify(signature, signed)
    except _UnfitError as error:
        raise refused("SIGNATURE_UNSUPPORTED", commit, f"The signature does not count: {error}.") from None
    except ValueError as error:
        raise refused("SIGNATURE_INVALID", commit, f"The signature is malformed: {error}.") from None
    fingerprint = ssh_fingerprint(key.blob)
    if not good:
        raise refused(
            "SIGNATURE_INVALID",
            commit,
            "The signature does not belong to this commit: it was moved here, or the commit was edited.",
            found=fingerprint,
            next_step="Get the original commit from its server; treat this one as hostile.",
        )
    matching = [(entry.name, entry.signer) for entry in allowed.ssh if entry.blob == key.blob]
    return _judge_time(matching, commit, fingerprint, at) if matching else _stranger(commit, fingerprint)


def _read_sshsig(text: str, payload: bytes, commit: str) -> tuple[_Key, bytes, bytes]:
    """Return the key that a signature names, the bare signature, and the bytes that it has to be over."""
    lines = text.rstrip("\n").split("\n")
    try:
        if len(text) > _MAX_SIGNATURE:
            raise ValueError("it is too large")
        if lines[0] != _SSH_BEGIN or lines[-1] != _SSH_END or any(line.startswith("-") for line in lines[1:-1]):
            raise ValueError("it is not one armored block")
        reader = _Reader(base64.b64decode("".join(lines[1:-1]), validate=True))
        if reader.take(6) != b"SSHSIG" or reader.number() != 1:
            raise ValueError("it is not of version 1")
        blob, namespace, reserved, algorithm, signature = (reader.string() for _ in range(5))
        reader.end()
        if reserved:
            # Its meaning is for later versions; OpenSSH signs it as empty whatever stands there.
            raise ValueError("its reserved field is not empty")
    except ValueError as error:  # binascii.Error is one
        raise refused("SIGNATURE_INVALID", commit, f"The SSH signature is malformed: {error}.") from None
    if namespace != NAMESPACE:
        raise refused(
            "SIGNATURE_INVALID",
            commit,
            "The signature was made for another purpose.",
            expected="namespace git",
            found=f"namespace {namespace.decode('utf-8', 'replace')}",
        )
    if algorithm not in _SSH_HASHES:
        raise refused(
            "SIGNATURE_UNSUPPORTED",
            commit,
            "The signature is over a digest that does not count.",
            expected="sha256 or sha512",
            found=algorithm.decode("utf-8", "replace"),
        )
    try:
        key = _Key(blob)
    except _UnfitError as error:
        raise refused("SIGNATURE_UNSUPPORTED", commit, f"The signer's key does not count: {error}.") from None
    digest = _SSH_HASHES[algorithm](payload).digest()
    signed = b"SSHSIG" + b"".join(
        len(part).to_bytes(4, "big") + part for part in (namespace, reserved, algorithm, digest)
    )
    return key, signature, signed


# --- OpenPGP ---


def _check_pgp(
    payload: bytes,
    signature: bytes,
    commit: str,
    at: datetime,
    allowed: AllowedSigners,
    home: str,
    outside: str,
    deadline: Deadline,
) -> SignedBy:
    lines = signature.rstrip(b"\n").split(b"\n")
    if lines[-1] != _PGP_END.encode() or sum(line.startswith(b"-----") for line in lines) != 2:
        raise refused("SIGNATURE_INVALID", commit, "The OpenPGP signature is not one armored block.")
    if not allowed.pgp:
        return _stranger(commit, "an OpenPGP key")
    program = find_program("gpg", outside=outside)
    if program is None:
        raise unverifiable(
            "PROGRAM_MISSING",
            "gpg",
            "The commit has an OpenPGP signature, and there is no gpg to check it.",
            next_step="Install GnuPG, or sign commits with SSH keys, which need no program.",
        )
    ring = _Ring(program, home, deadline)
    owners: dict[str, list[tuple[str, AllowedSigner]]] = {}
    for entry in allowed.pgp:
        for fingerprint in ring.add(entry.block):
            owners.setdefault(fingerprint, []).append((entry.signer.principal or fingerprint, entry.signer))
    ring.write("signature", signature)
    ring.write("payload", payload)
    status, answers = ring.run("--verify", ring.path("signature"), ring.path("payload"), at=at)
    return _judge_pgp(status, answers, owners, ring, commit, at)


class _Ring:
    """A private key ring that holds the allowed keys and nothing else."""

    def __init__(self, program: str, home: str, deadline: Deadline) -> None:
        self._program = program
        self._home = os.path.join(home, "gnupg")
        self._deadline = deadline
        os.mkdir(self._home, 0o700)
        # Otherwise a newer gpg may hand the keys to a daemon.
        self.write("common.conf", b"")

    def path(self, name: str) -> str:
        return os.path.join(self._home, name)

    def write(self, name: str, data: bytes) -> None:
        with open(self.path(name), "wb") as file:
            file.write(data)

    def run(self, *arguments: str, at: datetime | None = None) -> tuple[int, list[list[str]]]:
        """Run gpg, its clock standing at a time, and return its exit status and its status lines, split into words."""
        clock = ["--faked-system-time", at.strftime("%Y%m%dT%H%M%S") + "!"] if at is not None else []
        status, output = self.output(*clock, "--status-fd", "1", *arguments)
        prefix = "[GNUPG:] "
        lines = output.decode("utf-8", "replace").split("\n")
        return status, [line.removeprefix(prefix).split(" ") for line in lines if line.startswith(prefix)]

    def output(self, *arguments: str) -> tuple[int, bytes]:
        command = [self._program, "--homedir", self._home, "--no-options", "--batch", "--no-tty", "--quiet",
                   "--no-auto-check-trustdb", "--no-auto-key-locate", "--no-auto-key-retrieve", "--disable-dirmngr",
                   "--no-autostart", "--lock-never", "--trust-model", "always", "--charset", "utf-8"]  # fmt: skip
        environ = environment(self._home, GNUPGHOME=self._home)
        with Child(
            [*command, *arguments], environ=environ, folder=self._home, deadline=self._deadline, what="gpg"
        ) as child:
            return child.finish(1 << 20)

    def add(self, block: bytes) -> list[str]:
        """Import an allowed signer's key and return the fingerprints of its primary keys."""
        self.write("key", block)
        _, lines = self.run("--import", self.path("key"))
        found = [words[2] for words in lines if words[0] == "IMPORT_OK" and len(words) > 2]
        if not found:
            raise UsageError(
                "The OpenPGP key of an allowed signer cannot be imported by gpg.",
                next_step="Export it with: gpg --armor --export-options export-minimal --export <fingerprint>",
            )
        return found

    def rsa_bits(self, fingerprint: str) -> int | None:
        """Return the size of the RSA key that has this fingerprint, ``None`` for another kind of key."""
        _, output = self.output("--with-colons", "--list-keys", fingerprint)
        row: list[str] = []
        for line in output.decode("utf-8", "replace").split("\n"):
            fields = line.split(":")
            if fields[0] in ("pub", "sub"):
                row = fields
            elif fields[0] == "fpr" and len(fields) > 9 and fields[9] == fingerprint and row:
                return int(row[2]) if row[3] in _PGP_RSA else None
        return 0


# What a status line says about the key or the signature, and how we say it.
_PGP_PROBLEMS: Final = {
    "BADSIG": ("SIGNATURE_INVALID", "The signature does not belong to this commit: moved here, or the commit edited."),
    "REVKEYSIG": ("KEY_REVOKED", "The commit is signed with a key that its owner revoked."),
    "EXPKEYSIG": ("KEY_EXPIRED", "The key had expired at the time that the commit states."),
    "EXPSIG": ("SIGNATURE_INVALID", "The signature had expired at the time that the commit states."),
}


def _judge_pgp(
    status: int,
    lines: list[list[str]],
    owners: dict[str, list[tuple[str, AllowedSigner]]],
    ring: _Ring,
    commit: str,
    at: datetime,
) -> SignedBy:
    words: dict[str, list[list[str]]] = {}
    for line in lines:
        words.setdefault(line[0], []).append(line[1:])
    for problem, (code, message) in _PGP_PROBLEMS.items():
        if problem in words:
            raise refused(code, commit, message, found=(words[problem][0] or [""])[0])
    if "NO_PUBKEY" in words:
        return _stranger(commit, f"OpenPGP key {words['NO_PUBKEY'][0][0]}")
    valid = words.get("VALIDSIG", [])
    if (
        status != 0
        or len(valid) != 1
        or len(valid[0]) < 10
        or len(words.get("GOODSIG", [])) != 1
        or len(words.get("NEWSIG", [])) != 1
        or "ERRSIG" in words
    ):
        raise refused("SIGNATURE_INVALID", commit, "gpg does not accept the signature, or finds more than one.")
    signing, algorithm, digest, kind, primary = valid[0][0], valid[0][6], valid[0][7], valid[0][8], valid[0][9]
    if digest not in _PGP_HASHES:
        raise refused("SIGNATURE_UNSUPPORTED", commit, "The signature is over MD5, SHA-1 or RIPEMD-160.", found=digest)
    if algorithm in _PGP_REFUSED_ALGORITHMS:
        raise refused("SIGNATURE_UNSUPPORTED", commit, f"{_PGP_REFUSED_ALGORITHMS[algorithm]} keys do not count.")
    if kind != "00":
        # Text signatures (01) ignore line ends; everything else is not about a document.
        raise refused("SIGNATURE_UNSUPPORTED", commit, "It is no signature over bytes.", found=f"class {kind}")
    if algorithm in _PGP_RSA and (ring.rsa_bits(signing) or 0) < MIN_RSA_BITS:
        raise refused("SIGNATURE_UNSUPPORTED", commit, "The signer's RSA key has fewer than 2048 bits.", found=signing)
    if primary not in owners:
        return _stranger(commit, primary)
    return _judge_time(owners[primary], commit, primary, at)
