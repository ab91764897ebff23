"""Encrypted artifacts and values, and stamps."""

from __future__ import annotations

from typing import Final

from tests.fuzz.targets.base import Target


def _header(data: bytes) -> object:
    from sealflow.encryption import parse_header

    return parse_header(data)


def _message(data: bytes) -> object:
    from sealflow.encryption import decrypt_message
    from tests.core.encryption.messages import DATA_KEY, Knows

    return decrypt_message(data, [Knows(DATA_KEY)], expected={"a": "1"})


def _sealed_value(data: bytes) -> object:
    from sealflow import strictjson
    from sealflow.encryption.value import SealedValue

    return SealedValue.parse(strictjson.loads(data, limit=1 << 16, what="the envelope"), limit=1 << 12)


def _index(data: bytes) -> object:
    from sealflow.transfer.archive import parse_index

    # It names a size of its own, which the reader knows from the message.
    return parse_index(data, _CONTENT)


_CONTENT: Final = 7680


def _end_of_archive(data: bytes) -> object:
    from sealflow.transfer.archive import index_length

    return index_length(data, _CONTENT)


TARGETS: Final = [
    Target("header", _header, ("sealflow.encryption.header", "sealflow.encryption.context")),
    Target("message", _message, ("sealflow.encryption.message", "sealflow.encryption.frames")),
    Target("sealed-value", _sealed_value, ("sealflow.encryption.value",)),
    Target("archive-index", _index, ("sealflow.transfer.archive",)),
    Target("archive-end", _end_of_archive, ("sealflow.transfer.archive",)),
]
