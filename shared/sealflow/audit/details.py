"""Details: what an event should not or cannot hold, kept where it can be deleted again.

The event names the payload by the SHA-256 of its bytes, in which a random salt makes guessing useless; so a payload can
be erased while the log stays whole, and whoever still has it can prove that it belongs to the event.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

from sealflow import strictjson
from sealflow.hashing import sha256_hex
from sealflow.storage import Storages


def default_details(spool: str | None, inbox: str | None) -> str | None:
    """Return the place beside the spool or the inbox, ``None`` beside a database of others."""
    if spool is not None:
        return spool.rstrip("/") + ".details"
    if inbox is not None and inbox.startswith("sqlite:"):
        return inbox.removeprefix("sqlite:") + ".details"
    return None if inbox is None or inbox.startswith("postgres") else inbox.rstrip("/") + ".details"


def keep_details(values: Mapping[str, str], place: str | None, storages: Storages) -> str:
    """Keep a payload durably and return what the event says of it.

    Args:
        values: Members of the event, and what they would hold.
        place: Folder or location of the store; ``None``: it is kept nowhere.
        storages: Open it.

    Raises:
        UnavailableError: It cannot be kept.
    """
    salted = {"sealflow_audit_details": 1, "salt": secrets.token_hex(16), "values": dict(values)}
    data = strictjson.dumps(salted)
    digest = sha256_hex(data)
    if place is not None:
        storage = storages.for_uri(place)
        uri = storage.canonical(place).rstrip("/")
        if uri.startswith("file:"):
            from sealflow.storage.local import to_path

            os.makedirs(to_path(uri), mode=0o700, exist_ok=True)
        storage.create(f"{uri}/{digest}.json", data)
    return f"sha256:{digest}"
