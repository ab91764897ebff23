"""What is written down of an upload, so that another process can go on with it.

Frames are numbered, and nothing else may ever leave under a number that was used. So the digests of a part are on the
disk before its first byte leaves; whoever goes on makes those frames again, compares them, and only then sends.

The file is local, 0600, and each of its lines is authenticated together with all lines before it. The data key
stands in it wrapped to a key of this user on this machine.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import stat
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealflow import strictjson
from sealflow.encryption import EncryptedDataKey, MessageEncryptor, Recipient, Sent, load_recipient, parse_header
from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError
from sealflow.findings import printable
from sealflow.hashing import sha256_hex

#: Largest line; one part's digests, or the header.
_MAX_LINE: Final = 4 << 20
# With the tab, the digest and the line feed after it.
_MAX_TEXT: Final = _MAX_LINE + 64
_MAX_STATE: Final = 512 << 20
_KEY: Final = 32
_KEEPER: Final = "keeper.key"


def state_folder() -> str:
    """Return where uploads are written down: ``SEALFLOW_STATE_DIR``, else the user's state folder (XDG)."""
    given = os.environ.get("SEALFLOW_STATE_DIR")
    if given:
        return given
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "sealflow", "transfers")


class UploadState:
    """The state of one upload: from one source to one destination.

    Only one process at a time has it open.

    Attributes:
        resumed: Whether it goes on with an upload of another process.
        token: Names the upload in the store.
        frame: Content bytes of a frame.
        frames: Frames of a part.

    Args:
        source: The source's location.
        destination: The destination's.

    Raises:
        UnavailableError: ``UPLOAD_RUNNING``: another process is at it; or the folder cannot be written.
    """

    def __init__(self, source: str, destination: str) -> None:
        folder = state_folder()
        name = hashlib.sha256(f"{source}\0{destination}".encode("utf-8", "surrogateescape")).hexdigest()
        self._path = os.path.join(folder, f"upload-{name}.jsonl")
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            key = _keeper(folder)
            self._fd = _locked(self._path, destination)
        except OSError as error:
            raise _unwritable(folder, error) from None
        self._keeper_path = os.path.join(folder, _KEEPER)
        self._destination = destination
        self._lock = threading.Lock()
        self._mac_key = HKDF(SHA256(), 32, salt=None, info=b"sealflow upload state").derive(key)
        self._clear()
        try:
            self._read()
        except (EvidenceError, KeyError, TypeError, ValueError, binascii.Error):
            # Altered, torn or of another release: nothing in it is believed, and the upload starts anew.
            self.forget()

    def _clear(self) -> None:
        self.resumed = False
        self.token = ""
        self.frame = self.frames = 0
        self._header = b""
        self._recipients: list[str] = []
        self._kept: EncryptedDataKey | None = None
        self._mac = b""
        # What another process sent, and the numbers of what this one did: its digests are on the disk and nowhere else.
        self._sent: dict[int, Sent] = {}
        self._sending: set[int] = set()
        self._tags: dict[int, str] = {}
        self._firsts: list[Sent] = []
        self._signature: str | None = None

    @property
    def keeper(self) -> Recipient:
        """The key to which the data key is wrapped."""
        return load_recipient("aes:" + self._keeper_path)

    def begin(
        self, encryptor: MessageEncryptor, token: str, frame: int, frames: int, recipients: Sequence[Recipient]
    ) -> None:
        """Write down an upload before any of it leaves."""
        assert encryptor.kept is not None  # noqa: S101
        self.token, self.frame, self.frames = token, frame, frames
        kept = encryptor.kept
        self._write(
            {
                "sealflow_upload": 1,
                "destination": self._destination,
                "token": token,
                "header": _text(encryptor.header.raw),
                "kept": [kept.provider, _text(kept.info), _text(kept.ciphertext)],
                "frame": frame,
                "frames": frames,
                # The header only has names, and a name can be given to another key.
                "recipients": sorted(item.fingerprint for item in recipients),
            }
        )

    def encryptor(self, recipients: Sequence[Recipient], artifact: str) -> MessageEncryptor | None:
        """Return the encryptor that goes on, ``None`` where what was begun is not what is wanted now.

        Args:
            recipients: Who has to be able to open the artifact: they and nobody else.
            artifact: The logical name.
        """
        if not self.resumed:
            return None
        from sealflow.encryption import ARTIFACT

        try:
            header = parse_header(self._header)
            same = same_recipients(header.data_keys, recipients) and self._recipients == sorted(
                {item.fingerprint for item in recipients}
            )
            if not same or header.context.pairs.get(ARTIFACT) != artifact or header.frame_length != self.frame:
                return None
            return MessageEncryptor.resume(self._header, self.keeper, self._kept, self._sent.values())
        except (SealflowError, ValueError):
            return None

    def knows(self, sequence: int) -> bool:
        """Tell whether a frame of this number may have left another process."""
        at = bisect_right(self._firsts, sequence, key=lambda item: item.first) - 1
        return at >= 0 and sequence < self._firsts[at].first + self._firsts[at].frames

    def check_present(self, numbers: Iterable[int]) -> None:
        """Compare with what the store holds, before anything leaves: all of it was written down.

        Raises:
            ArtifactError: ``ARTIFACT_CHANGED``: the state is older than the upload, so numbers that it calls free may
                have been used. Start anew under a new key.
        """
        if any(number not in self._sent and number not in self._sending for number in numbers):
            raise _changed("The state of the upload is older than what the store holds of it.")

    def check_end(self, sequence: int) -> None:
        """Look whether the final frame may have this number.

        Raises:
            ArtifactError: ``ARTIFACT_CHANGED``: frames behind it may have left, so the artifact was longer then.
        """
        if self._firsts and sequence < self._firsts[-1].first + self._firsts[-1].frames - 1:
            raise _changed("The artifact is shorter than what was sent of it before.")

    def sending(self, number: int, first: int, digests: bytes, final: bool) -> str | None:
        """Write down a part before it leaves, and return the tag that it was once sent under."""
        with self._lock:
            if number in self._sent or number in self._sending:
                return self._tags.get(number)
            self._sending.add(number)
            self._write({"part": number, "first": first, "digests": _text(digests), "final": final})
            return None

    def sent(self, number: int, tag: str) -> None:
        """Write down the tag that the store gave a part."""
        with self._lock:
            if self._tags.get(number) != tag:
                self._tags[number] = tag
                self._write({"tag": tag, "part": number}, durable=False)

    def signature(self, payload: bytes, make: Callable[[], bytes]) -> bytes:
        """Return the bundle over a payload: the one that was made before, else a new one, kept before any of it leaves.

        A second signature has other bytes, and other bytes may not leave under the numbers of the first. Another
        signer's signature is another content, with which the upload starts anew.
        """
        from sealflow.evidence import parse_bundle

        path = self._path + ".signature"
        data = bytes(make())
        if self._signature is not None:
            try:
                with open(path, "rb") as file:
                    kept = file.read(_MAX_STATE)
                if sha256_hex(kept) == self._signature:
                    before, now = parse_bundle(kept), parse_bundle(data)
                    if before._replace(signature=now.signature) == now and before.payload == payload:
                        return kept
            except (OSError, EvidenceError):
                pass
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(path, error) from None
        with self._lock:
            self._signature = sha256_hex(data)
            self._write({"signature": self._signature})
        return data

    def forget(self) -> None:
        """Throw away what is written; the lock stays."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path + ".signature")
        os.ftruncate(self._fd, 0)
        os.fsync(self._fd)
        self._clear()

    def close(self, *, done: bool = False) -> None:
        """Let go of the state; after a commit, and where nothing was begun, it is removed."""
        if self._fd < 0:
            return
        if done or not self.token:
            # Removed while the lock is held, so nobody can be in the middle of it.
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            with contextlib.suppress(OSError):
                os.unlink(self._path + ".signature")
        os.close(self._fd)
        self._fd = -1

    def _write(self, body: dict[str, Any], *, durable: bool = True) -> None:
        text = strictjson.dumps(body)
        self._mac = self._chain(text)
        try:
            line = text + b"\t" + base64.b64encode(self._mac) + b"\n"
            if os.write(self._fd, line) != len(line):
                raise OSError("the disk is full")
            if durable:
                os.fsync(self._fd)
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def _chain(self, text: bytes) -> bytes:
        return hmac.digest(self._mac_key, self._mac + text, "sha256")

    def _read(self) -> None:
        whole, torn = 0, b""
        # Line by line: there can be tens of MiB of digests, and they are wanted in memory once.
        with open(os.dup(self._fd), "rb") as file:
            file.seek(0)
            while line := file.readline(_MAX_TEXT + 1):
                if len(line) > _MAX_TEXT or whole + len(line) > _MAX_STATE:
                    raise EvidenceError("The state of the upload is too large.")
                if not line.endswith(b"\n"):
                    # A writer that died left a line without its end: nothing that it tells has left that process.
                    torn = line
                    break
                whole += len(line)
                text, _, mac = line[:-1].partition(b"\t")
                self._mac = self._chain(text)
                if not hmac.compare_digest(base64.b64encode(self._mac), mac):
                    raise EvidenceError("The state of the upload was altered.")
                self._take(strictjson.loads(text, limit=_MAX_LINE, what="The state of the upload"))
        if not whole and not torn:
            return
        text, _, mac = torn.partition(b"\t")
        if mac.startswith(base64.b64encode(self._chain(text))):
            raise EvidenceError("The state of the upload was altered: only the end of its last line is missing.")
        if not self.token:
            raise EvidenceError("The state of the upload has no beginning.")
        os.ftruncate(self._fd, whole)
        self._firsts = sorted(self._sent.values())
        self.resumed = True

    def _take(self, body: dict[str, Any]) -> None:
        if "sealflow_upload" in body:
            if body["sealflow_upload"] != 1 or body["destination"] != self._destination or self.token:
                raise EvidenceError("The state is of another upload.")
            provider, info, ciphertext = body["kept"]
            self._header = _bytes(body["header"])
            self._kept = EncryptedDataKey(provider, _bytes(info), _bytes(ciphertext))
            self.token, self.frame, self.frames = body["token"], body["frame"], body["frames"]
            self._recipients = sorted(set(body["recipients"]))
        elif "tag" in body:
            self._tags[body["part"]] = body["tag"]
        elif "signature" in body:
            self._signature = body["signature"]
        else:
            self._sent[body["part"]] = Sent(body["first"], _bytes(body["digests"]), body["final"])


def same_recipients(wrapped: Sequence[EncryptedDataKey], recipients: Sequence[Recipient]) -> bool:
    """Tell whether a data key was wrapped to these recipients, to each of them and to nobody else."""
    return all(any(recipient.owns(key) for key in wrapped) for recipient in recipients) and all(
        any(recipient.owns(key) for recipient in recipients) for key in wrapped
    )


def _locked(path: str, destination: str) -> int:
    """Open the file of an upload, made if there is none, and lock it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            _refuse_others(fd, path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UnavailableError(
                    f"Another process on this machine is uploading to {printable(destination)}.",
                    code="UPLOAD_RUNNING",
                    next_step="Wait for it, or stop it; then try again.",
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.lstat(path)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        # Whoever had the lock removed the file before we had it.
        os.close(fd)


def _refuse_others(fd: int, path: str) -> None:
    """Refuse a file that others can read or have put there: it holds, or gets, what only this user may know."""
    info = os.fstat(fd)
    own = stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and info.st_nlink == 1
    if not own or info.st_mode & 0o077:
        raise UnavailableError(
            f"{printable(path)} is not a private file of this user.",
            code="PERMISSION_DENIED",
            next_step="Point SEALFLOW_STATE_DIR to a folder of this user's, or remove the file.",
        )


def _keeper(folder: str) -> bytes:
    """Return the key of this user on this machine, made if there is none."""
    path = os.path.join(folder, _KEEPER)
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                _refuse_others(file.fileno(), path)
                key = file.read(_KEY + 1)
            if len(key) == _KEY:
                return key
            os.unlink(path)  # damaged: what was wrapped to it is lost in any case
        _make_keeper(path)
    raise UnavailableError(f"{printable(path)} cannot be made.")


def _make_keeper(path: str) -> None:
    # Linked into place, whole: two processes may come at the same time.
    temporary = f"{path}.{secrets.token_hex(8)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(secrets.token_bytes(_KEY))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _unwritable(path: str, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"The state of the upload cannot be written to {printable(path)}: {error.strerror or error}.",
        next_step="Point SEALFLOW_STATE_DIR to a folder of this user's.",
    )


def _changed(message: str) -> ArtifactError:
    return ArtifactError(message, code="ARTIFACT_CHANGED", next_step="Start anew; the message gets another key then.")
