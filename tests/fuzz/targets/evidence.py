"""Evidence, and the keys and certificates in it."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Final

from tests.fuzz.targets.base import CORPUS, Target, text


def _bundle(data: bytes) -> object:
    from sealflow.actions.inspect import describe
    from sealflow.evidence.bundle import parse_bundle

    describe(data)
    return parse_bundle(data)


def _export(data: bytes) -> object:
    from sealflow.actions.export import _envelope

    # Only what the strict reader took is written out.
    _bundle(data)
    return _envelope(data)


def _statement(reader: str, function: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        import importlib

        from sealflow.evidence.statement import parse_statement

        return getattr(importlib.import_module(f"sealflow.evidence.{reader}"), function)(parse_statement(data))

    return read


def _reference(data: bytes) -> object:
    from sealflow import ArtifactRef

    return ArtifactRef.parse(data)


def _frames(data: bytes) -> object:
    from sealflow.evidence.encryption import FrameDigests

    return FrameDigests(data)


def _chain(data: bytes) -> object:
    from sealflow.keys.certificate import names, parse_chain, public_pem

    (leaf,) = parse_chain([data])
    return names(leaf), public_pem(leaf)


def _certificates(data: bytes) -> object:
    from sealflow.keys.certificate import load_certificates

    # Text that is no PEM would be taken for a path.
    return load_certificates("-----BEGIN" + text(data).partition("-----BEGIN")[2].encode("ascii", "replace").decode())


def _public_key(data: bytes) -> object:
    from sealflow.keys.public import parse_public_key

    return parse_public_key(data, "the key")


def _token(data: bytes) -> object:
    from sealflow.evidence.timestamp import Authority, check_token

    roots = ((CORPUS / "roots" / "authority.pem").read_text(),)
    # Certificates count at the token's own time, and only tomorrow's tokens are refused.
    now = datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)
    return check_token(data, b"signature", Authority("company", roots), now)


TARGETS: Final = [
    Target("bundle", _bundle, ("sealflow.evidence.bundle", "sealflow.strictjson")),
    Target("export", _export, ("sealflow.actions.export",)),
    Target(
        "signature", _statement("oms", "parse_oms_statement"), ("sealflow.evidence.statement", "sealflow.evidence.oms")
    ),
    Target("provenance", _statement("provenance", "parse_provenance"), ("sealflow.evidence.provenance",)),
    Target("encryption-statement", _statement("encryption", "parse_encryption"), ("sealflow.evidence.encryption",)),
    Target("summary", _statement("summary", "parse_summary"), ("sealflow.evidence.summary",)),
    Target("reference", _reference, ("sealflow.evidence.reference",)),
    Target("frame-digests", _frames, ("sealflow.evidence.encryption",)),
    Target("certificate", _chain, ("sealflow.keys.certificate",)),
    Target("certificates", _certificates, ("sealflow.keys.certificate",)),
    Target("public-key", _public_key, ("sealflow.keys.public",)),
    Target("timestamp", _token, ("sealflow.evidence.timestamp",)),
]
