"""Whatever lies in an evidence store or stands in a log, a blast radius names it or reads it, and never dies of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.audit import AuditEvent
from sealflow.audit.entry import Chain
from sealflow.errors import SealflowError
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.provenance import Dependency, make_provenance_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.run_identity import RunIdentity
from sealflow.verification.radius import spread
from sealflow.verification.radius_evidence import Signers, hear
from sealflow.verification.radius_log import read_facts
from sealflow.verification.vouching import Speakers
from tests.core.actions.radius_world import NOW, digest
from tests.core.audit.logs import ed25519_signer

pytestmark = pytest.mark.slow

RUN = RunIdentity("airflow", "train", "fit", "run-1", None, 1)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Signers, str]:
    signer = ed25519_signer(tmp_path_factory.mktemp("keys"))
    statement = make_provenance_statement(
        "model", digest(1), RUN, dependencies=[Dependency("file:///lake/2", digest(2), "two")], now=NOW
    )
    return make_bundle(statement, signer), Signers((), [signer.public_key]), signer.public_key.hint


def heard(data: bytes, signers: Signers, asked: str, kind: str = "provenance") -> list[Any]:
    try:
        return hear(StoredEvidence("x", data, kind), digest(1), signers, {asked})
    except SealflowError:
        return []


@settings(max_examples=400, deadline=None)
@given(
    place=st.integers(0, 4000),
    bits=st.integers(1, 255),
    cut=st.integers(0, 4000),
    kind=st.sampled_from(["provenance", "signature", "other"]),
)
def test_changed_bundles(genuine: tuple[bytes, Signers, str], place: int, bits: int, cut: int, kind: str) -> None:
    data, signers, asked = genuine
    changed = bytearray(data)
    changed[place % len(data)] ^= bits
    for text in (bytes(changed), data[: cut % len(data)]):
        said = heard(text, signers, asked, kind)
        original = heard(data, signers, asked)[0]
        # Whatever it says that is proved, the key signed.
        assert all(
            (item.about, item.inputs) == (original.about, original.inputs) for item in said if item.held.key == asked
        )


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(value=_json, name=st.sampled_from(["verificationMaterial", "dsseEnvelope", "mediaType"]))
def test_other_members(genuine: tuple[bytes, Signers, str], value: Any, name: str) -> None:
    data, signers, asked = genuine
    heard(json.dumps({**json.loads(data), name: value}).encode(), signers, asked)


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(st.binary(max_size=300) | st.integers(0, 2000), max_size=6))
def test_odd_logs(lines: list[Any]) -> None:
    """Entries that are none stand among genuine ones, some of them cut or changed."""
    chain, made = Chain(), []
    for item in lines:
        event = AuditEvent("verify", "outcome", RUN, outcome="passed", digest=str(digest(1)), artifact="file:///lake/1")
        line = chain.add(event.to_json()).line
        if isinstance(item, int):
            line = line[: item % len(line)] + bytes([item % 256]) + line[item % len(line) + 1 :]
        made.append(line if isinstance(item, int) else item)
    facts = read_facts(made, "log", frozenset({"sha256:" + "a" * 64}), Speakers(None))
    assert facts.entries == len(made)
    found = spread([], facts, digests=[digest(1)])
    named = sum(item.code == "AUDIT_MALFORMED" for item in facts.findings)
    # What is no entry is named, each by itself; what was read of the others is no more than they were.
    assert named >= sum(isinstance(item, bytes) for item in lines)
    assert len(found.readers) + named <= len(made)
    assert set(found.artifacts) == {digest(1)}
