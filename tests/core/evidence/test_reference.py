"""ArtifactRef: strict, small, and refused when it comes from a newer release."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import UsageError
from sealflow.evidence.reference import MAX_REF, ArtifactRef, is_reference
from sealflow.hashing import Digest

HEX = "ab" * 32
REF = ArtifactRef("file:///m", Digest("dirHash", HEX), "file:///m.evidence")
BODY: dict[str, Any] = {
    "sealflow_ref": 1,
    "uri": "file:///m",
    "digest": f"dirHash:{HEX}",
    "evidence": "file:///m.evidence",
    "encrypted": False,
}


def test_json_form() -> None:
    assert REF.as_dict() == BODY
    assert json.loads(REF.to_json()) == BODY


refs = st.builds(
    ArtifactRef,
    uri=st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=100),
    digest=st.builds(
        Digest, st.sampled_from(["sha256", "dirHash"]), st.text("0123456789abcdef", min_size=64, max_size=64)
    ),
    evidence=st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=100),
    version_id=st.none() | st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=50),
    encrypted=st.booleans(),
)


@given(refs)
def test_every_form_reads_back(ref: ArtifactRef) -> None:
    try:
        forms = [ref, ref.as_dict(), ref.to_json(), ref.to_json().encode(), json.dumps(ref.as_dict(), indent=1)]
    except UsageError:
        return
    for form in forms:
        if len(form if isinstance(form, (str, bytes)) else "") <= MAX_REF // 2:
            assert ArtifactRef.parse(form) == ref


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"sealflow_ref": 2}, id="newer-version"),
        pytest.param({"sealflow_ref": 0}, id="version-0"),
        pytest.param({"sealflow_ref": "1"}, id="version-as-text"),
        pytest.param({"sealflow_ref": True}, id="version-as-bool"),
        pytest.param({"sealflow_ref": None}, id="no-version"),
        pytest.param({"extra": 1}, id="unknown-member"),
        pytest.param({"uri": None}, id="no-uri"),
        pytest.param({"uri": 1}, id="uri-as-number"),
        pytest.param({"digest": HEX}, id="digest-without-algorithm"),
        pytest.param({"digest": f"md5:{HEX}"}, id="other-algorithm"),
        pytest.param({"digest": f"dirHash:{HEX.upper()}"}, id="upper-case"),
        pytest.param({"evidence": None}, id="no-evidence"),
        pytest.param({"evidence": ["x"]}, id="evidence-as-list"),
        pytest.param({"version_id": 1}, id="version-id-as-number"),
        pytest.param({"encrypted": None}, id="encrypted-missing"),
        pytest.param({"encrypted": 0}, id="encrypted-as-number"),
        pytest.param({"uri": "x" * MAX_REF}, id="too-long"),
    ],
)
def test_refused(change: dict[str, Any]) -> None:
    for form in (BODY | change, json.dumps(BODY | change)):
        with pytest.raises(UsageError):
            ArtifactRef.parse(form)


@pytest.mark.parametrize(
    "value", ["", "{", "[]", "null", "1", b"\xff", None, 1, [], object(), {1: 2}, {"a": object()}, float("nan")]
)
def test_no_reference_at_all(value: Any) -> None:
    with pytest.raises(UsageError):
        ArtifactRef.parse(value)


def test_a_member_twice() -> None:
    text = REF.to_json()[:-1] + ',"uri":"file:///other"}'
    with pytest.raises(UsageError, match="twice"):
        ArtifactRef.parse(text)


def test_a_newer_version_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="version 7") as caught:
        ArtifactRef.parse(BODY | {"sealflow_ref": 7, "other": "members"})
    assert "Update sealflow" in caught.value.next_step


def test_too_long_to_be_written() -> None:
    with pytest.raises(UsageError, match="2048"):
        ArtifactRef("file:///" + "x" * MAX_REF, REF.digest, "e").as_dict()


def test_moved() -> None:
    pinned = ArtifactRef("s3://b/k", REF.digest, "e", "v1")
    moved = pinned.moved_to("/elsewhere")
    assert (moved.uri, moved.digest, moved.evidence, moved.version_id) == ("/elsewhere", REF.digest, "e", None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (REF, True),
        (BODY, True),
        (REF.to_json(), True),
        (" {}", True),
        ("/path", False),
        ("s3://b/k", False),
        (None, False),
    ],
)
def test_is_reference(value: Any, expected: bool) -> None:
    assert is_reference(value) is expected
