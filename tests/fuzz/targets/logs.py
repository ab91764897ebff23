"""Audit logs, ours and a cloud's."""

from __future__ import annotations

from typing import Final

from tests.fuzz.targets.base import CORPUS, Target, text


def _note(data: bytes) -> object:
    from sealflow.audit.note import parse_note

    return parse_note(data)


def _verifier_key(data: bytes) -> object:
    from sealflow.audit.note import VerifierKey

    return VerifierKey.parse(text(data))


def _checkpoint(data: bytes) -> object:
    from sealflow.audit.checkpoint import parse_text

    return parse_text(data)


def _proof(data: bytes) -> object:
    from sealflow.audit.note import VerifierKey
    from sealflow.audit.proof import parse_proof
    from sealflow.verification.audit_proof import judge_proof

    key = VerifierKey.parse((CORPUS / "verifier-key" / "good-specification").read_text())
    judge_proof(data, "the proof", key)
    return parse_proof(data)


def _entry(data: bytes) -> object:
    from sealflow.actions.stopped import _about
    from sealflow.audit.entry import parse_entry
    from sealflow.audit.event import AuditEvent

    found = parse_entry(data)
    _about("", [data])
    return AuditEvent.parse(found.event)


def _tile_bundle(data: bytes) -> object:
    from sealflow.audit.tiles import split_bundle

    return split_bundle(data, 6, "bundle")


def _inbox_block(data: bytes) -> object:
    from sealflow.audit.inbox_objects import _parse_block

    return _parse_block(data, 0)


def _trail(data: bytes) -> object:
    from sealflow.audit.cloudtrail import read_log_file

    return list(read_log_file(data, "the file"))


TARGETS: Final = [
    Target("note", _note, ("sealflow.audit.note",)),
    Target("verifier-key", _verifier_key, ("sealflow.audit.note",)),
    Target("checkpoint", _checkpoint, ("sealflow.audit.checkpoint",)),
    Target("proof", _proof, ("sealflow.audit.proof", "sealflow.verification.audit_proof")),
    Target("entry", _entry, ("sealflow.audit.entry", "sealflow.audit.event", "sealflow.actions.stopped")),
    Target("tile-bundle", _tile_bundle, ("sealflow.audit.tiles",)),
    Target("inbox-block", _inbox_block, ("sealflow.audit.inbox_objects",)),
    Target("trail", _trail, ("sealflow.audit.cloudtrail",)),
]
