"""Who can open what is encrypted: from settings and arguments to keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sealflow import strictjson
from sealflow.encryption import Recipient, load_recipient
from sealflow.errors import EvidenceError, UsageError
from sealflow.keys import PassphraseCallback

_MAX_TEXT: Final = 64 << 10


def recipient_uris(value: Any) -> tuple[str, ...]:
    """Return the recipient URIs in an argument or a setting: one URI, a list of them, or the JSON text of a list.

    Raises:
        UsageError: Something else.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return (value,)
        try:
            value = strictjson.loads(value.encode("utf-8"), limit=_MAX_TEXT, what="`recipients`")
        except EvidenceError as error:
            raise UsageError(error.message) from None
    if not isinstance(value, Iterable) or isinstance(value, (bytes, dict)):
        raise UsageError("`recipients` is neither a recipient URI nor a list of them.")
    uris = tuple(value)
    if not all(isinstance(item, str) and item for item in uris):
        raise UsageError("`recipients` holds something that is no recipient URI.")
    return tuple(dict.fromkeys(uris))


def open_recipients(uris: Sequence[str], passphrase: PassphraseCallback | None = None) -> tuple[Recipient, ...]:
    """Open the keys that URIs name.

    Raises:
        UsageError: None is named, one cannot be opened.
        UnavailableError: One cannot be read.
    """
    if not uris:
        raise UsageError(
            "There is no recipient.",
            code="RECIPIENT_MISSING",
            next_step="Give `recipients`, for example rsa:/keys/team.pem, aes:/keys/team.key or awskms:<key ARN>.",
        )
    return tuple(load_recipient(uri, passphrase) for uri in uris)
