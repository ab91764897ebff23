"""Asks witnesses to cosign a log's checkpoint (C2SP tlog-witness, ``add-checkpoint``).

A witness remembers the last checkpoint of each log that it cosigned, and cosigns only what grew out of that one. So
whoever has its cosignature knows that the log showed it no other history.
"""

from __future__ import annotations

import base64
import http.client
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from sealflow.audit.checkpoint import Checkpoint
from sealflow.audit.note import COSIGNATURE, Note, Signature, VerifierKey, parse_signatures, with_signatures
from sealflow.audit.tiles import Get, Tree
from sealflow.errors import EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.post import post

#: Seconds that a witness has for an answer, the last byte of it included.
TIMEOUT: Final = 30.0

_MAX_ANSWER = 64 << 10
# Others may have the witness cosign at the same time; each answer tells where it is now.
_TRIES = 4


class Witness(NamedTuple):
    """A witness.

    Attributes:
        url: Its submission prefix.
        key: What verifies its cosignatures.
    """

    url: str
    key: VerifierKey

    @classmethod
    def parse(cls, text: str) -> Witness:
        """Read ``<url>=<verifier key>``.

        Raises:
            UsageError: It is none.
        """
        url, given, key = text.partition("=")
        parts = urlsplit(url)
        if not given or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(
                f"{printable(text)!r} is no witness.", next_step="Write https://witness.example=name+id+key."
            )
        if parts.username or parts.password:
            raise UsageError("The URL of a witness holds credentials.", next_step="Leave them out.")
        parsed = VerifierKey.parse(key)
        if parsed.kind != COSIGNATURE:
            raise UsageError(
                f"The key of {printable(parsed.name)} makes no cosignatures (type 04).", code="KEY_UNSUPPORTED"
            )
        return cls(url.rstrip("/"), parsed)


class _Refused(Exception):  # noqa: N818 - an answer, caught where it is asked for
    def __init__(self, status: int, body: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def cosign(get: Get, checkpoint: Checkpoint, note: Note, witness: Witness, timeout: float = TIMEOUT) -> Note:
    """Return a checkpoint's note with a witness's cosignature added.

    Args:
        get: Reads an object of the log, for the proof that it grew out of what the witness knows.
        checkpoint: The log's, verified.
        note: Its note.
        witness: Who is asked.
        timeout: Seconds for each request, from connecting to the last byte of the answer. What the resolver of names
            takes is its own.

    Raises:
        EvidenceError: ``LOG_FORKED``: the witness knows another history; ``LOG_ROLLED_BACK``: it knows a longer one;
            ``LOG_CHECKPOINT``: it does not take the log's signature, or its answer is no cosignature of its key.
        UsageError: ``WITNESS_REFUSED``: it does not know the log, or does not understand us.
        UnavailableError: It does not answer; or the log cannot be read.
    """
    old = 0
    for _ in range(_TRIES):
        proof = Tree(get, checkpoint.size).consistency_proof(old)
        lines = [f"old {old}", *(base64.b64encode(item).decode() for item in proof)]
        body = "".join(f"{line}\n" for line in lines).encode() + b"\n" + note.encode()
        try:
            answer = _post(f"{witness.url}/add-checkpoint", body, timeout)
        except _Refused as refused:
            if refused.status != 409:
                raise _meaning(refused, witness) from None
            old = _size(refused.body, witness)
            if old > checkpoint.size:
                raise EvidenceError(
                    f"The witness {printable(witness.key.name)} has seen {old} entries of the log, which shows "
                    f"{checkpoint.size}.",
                    code="LOG_ROLLED_BACK",
                ) from None
            continue
        return _merged(note, parse_signatures(answer), witness)
    raise UnavailableError(f"Others have the witness {printable(witness.key.name)} cosign all the time.")


def _merged(note: Note, sent: tuple[Signature, ...], witness: Witness) -> Note:
    if not any((item.name, item.id) == (witness.key.name, witness.key.id) for item in sent):
        raise EvidenceError(
            f"The witness {printable(witness.key.name)} answered without a cosignature of its key.",
            code="LOG_CHECKPOINT",
        )
    return with_signatures(note, sent, [witness.key])


def _size(body: str, witness: Witness) -> int:
    text = body.removesuffix("\n")
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or str(int(text)) != text:
        raise UnavailableError(f"The witness {printable(witness.key.name)} answers with no size of a log.")
    return int(text)


def _meaning(refused: _Refused, witness: Witness) -> SealflowError:
    name = printable(witness.key.name)
    said = f" It says: {printable(refused.body.strip(), 120)}" if refused.body.strip() else ""
    if refused.status == 404:
        return UsageError(
            f"The witness {name} does not know the log.{said}",
            code="WITNESS_REFUSED",
            next_step="Give its operator the log's verifier key: sealflow audit key.",
        )
    if refused.status == 403:
        return EvidenceError(
            f"The witness {name} does not take the log's signature for that of its key.{said}", code="LOG_CHECKPOINT"
        )
    if refused.status == 422:
        return EvidenceError(
            f"The log is not the one that the witness {name} has seen before.{said}", code="LOG_FORKED"
        )
    if refused.status == 400:
        return UsageError(f"The witness {name} does not understand the request.{said}", code="WITNESS_REFUSED")
    return UnavailableError(f"The witness {name} answers with status {refused.status}.{said}")


def _post(url: str, body: bytes, timeout: float) -> str:
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    try:
        status, _, data = post(url, body, headers, seconds=timeout, limit=_MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"The witness at {printable(url)} cannot be reached: {printable(error, 120)}.") from None
    text = data.decode("utf-8", "replace")
    if status >= 300:
        raise _Refused(status, text)
    if status != 200 or len(data) > _MAX_ANSWER:
        raise UnavailableError(f"The witness at {printable(url)} answers with what is no cosignature.")
    return text
