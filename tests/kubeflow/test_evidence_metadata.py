"""The text in an artifact's metadata. It comes from anybody."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence.provenance import MAX_PROVENANCE_BUNDLE
from sealflow.hashing import Digest
from sealflow_kfp.evidence_metadata import KEY, MAX_TEXT, EvidenceMetadata, from_metadata

DIGEST = Digest.parse("sha256:" + "0a" * 32)
GOOD = {"sealflow_evidence": 1, "digest": str(DIGEST), "provenance": base64.b64encode(b"{}").decode()}


def text(**changes: Any) -> str:
    return json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value is not ...})


def test_round_trip_is_canonical() -> None:
    made = EvidenceMetadata(DIGEST, b'{"a":1}').to_text()
    assert EvidenceMetadata.parse(made) == EvidenceMetadata(DIGEST, b'{"a":1}')
    assert made == json.dumps(json.loads(made), sort_keys=True, separators=(",", ":"))


def test_longest_provenance_fits() -> None:
    made = EvidenceMetadata(Digest.parse("dirHash:" + "f" * 64), b"x" * MAX_PROVENANCE_BUNDLE).to_text()
    assert len(made) <= MAX_TEXT
    assert len(EvidenceMetadata.parse(made).provenance) == MAX_PROVENANCE_BUNDLE


def test_longer_provenance_is_not_written() -> None:
    with pytest.raises(UsageError, match="more than 16384"):
        EvidenceMetadata(DIGEST, b"x" * (MAX_PROVENANCE_BUNDLE + 1)).to_text()


HOSTILE: dict[str, tuple[Any, str]] = {
    "a number, as KFP makes of numbers": (1.0, "float, not text"),
    "a wrapped struct, as a cluster makes of objects": ({"struct": GOOD}, "dict, not text"),
    "nothing": (None, "NoneType, not text"),
    "empty": ("", "not valid JSON"),
    "not JSON": ("sealed, honestly", "not valid JSON"),
    "a list": ("[1]", "must be a JSON object"),
    "oversized": (text(provenance="A" * MAX_TEXT), "more than 22528 bytes"),
    "oversized in bytes only": ('"' + "é" * (MAX_TEXT // 2) + '"', "more than the limit of 22528"),
    "huge": (" " * (8 << 20), "more than 22528 bytes"),
    "too deep": ("[" * 5000, "deeper than 32"),
    "a key twice": (text()[:-1] + f', "digest": "{DIGEST}"}}', "twice"),
    "a lone surrogate": (text(digest="\ud800"), "surrogate"),
    "an unknown member": (text(ref="s3://elsewhere"), "unknown member 'ref'"),
    "no version": (text(sealflow_evidence=...), "lacks the member 'sealflow_evidence'"),
    "another version": (text(sealflow_evidence=2), "version 2; this release reads version 1"),
    "version as a float": (text(sealflow_evidence=1.0), "wrong type float"),
    "version as a bool": (text(sealflow_evidence=True), "wrong type bool"),
    "no digest": (text(digest=...), "lacks the member 'digest'"),
    "a digest of another kind": (text(digest="md5:00"), "digest"),
    "no provenance": (text(provenance=...), "lacks the member 'provenance'"),
    "provenance as an object": (text(provenance={}), "wrong type dict"),
    "Base64 with foreign characters": (text(provenance="e30=\n!"), "not valid Base64"),
    "provenance over its limit": (
        text(provenance=base64.b64encode(b"x" * (MAX_PROVENANCE_BUNDLE + 1)).decode()),
        "more than 16384 bytes",
    ),
}


@pytest.mark.parametrize(("value", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_refused(value: Any, reason: str) -> None:
    with pytest.raises(EvidenceError, match=reason):
        EvidenceMetadata.parse(value)


@pytest.mark.parametrize(("value", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_malformed_metadata_is_handed_on_as_such(value: Any, reason: str) -> None:
    (item,) = from_metadata({KEY: value})
    assert item.problem
    assert item.data == b""


def test_no_metadata_is_no_evidence() -> None:
    assert from_metadata({"display_name": "model", "store_session_info": "{}"}) == ()
