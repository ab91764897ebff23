"""The verification summary's form: what is written is what is read, and nothing else is."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import EvidenceError
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.summary import (
    MAX_SUMMARY,
    VERIFIER_IDS,
    Summary,
    make_summary_statement,
    parse_summary,
    resource_uri,
)
from sealflow.hashing import Digest
from sealflow.run_identity import BUILDER_IDS

NOW = datetime.datetime(2026, 11, 22, 10, 30, tzinfo=datetime.timezone.utc)
DIGEST = Digest("sha256", "ab" * 32)
POLICY = "sha256:" + "cd" * 32
REQUIREMENT = "sha256:" + "ef" * 32
INPUTS = [("s3://b/m.evidence/sha256-ab/signature-01.json", "01" * 32), ("", "02" * 32)]


def make(**changes: Any) -> bytes:
    options: dict[str, Any] = {
        "orchestrator": "kfp",
        "now": NOW,
        "resource": "s3://b/m?versionId=v",
        "policy_uri": "s3://admin/policy.json",
        "policy": POLICY,
        "requirement": REQUIREMENT,
        "levels": ["SEALFLOW_SIGNATURE"],
        "inputs": INPUTS,
    }
    return make_summary_statement("m", DIGEST, **(options | changes))


def parse(body: Any) -> Summary:
    return parse_summary(parse_statement(body if isinstance(body, bytes) else json.dumps(body).encode()))


def test_what_is_written_is_read() -> None:
    assert parse(make()) == Summary(
        DIGEST,
        "urn:sealflow:verifier:kfp-task-process:v1",
        NOW,
        "s3://b/m?versionId=v",
        POLICY,
        REQUIREMENT,
        "PASSED",
        ("SEALFLOW_SIGNATURE",),
        2,
    )


def test_every_orchestrator_has_its_verifier() -> None:
    assert VERIFIER_IDS.keys() == BUILDER_IDS.keys()
    assert len(set(VERIFIER_IDS.values())) == len(VERIFIER_IDS)
    assert not set(VERIFIER_IDS.values()) & set(BUILDER_IDS.values())


def test_times_of_other_zones_are_written_in_utc() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert parse(make(now=NOW.astimezone(zone))).time == NOW


def test_too_many_inputs_are_left_out_together() -> None:
    inputs = [(f"s3://b/{'x' * 900}/{number}", f"{number:064x}") for number in range(400)]
    statement = make(inputs=inputs)
    assert len(statement) < MAX_SUMMARY
    assert "inputAttestations" not in json.loads(statement)["predicate"]
    assert parse(statement).inputs == 0


def test_what_the_specification_leaves_optional() -> None:
    body = json.loads(make())
    for name in ("inputAttestations", "slsaVersion"):
        del body["predicate"][name]
    del body["predicate"]["verifier"]["version"]
    body["predicate"]["dependencyLevels"] = {"SLSA_BUILD_LEVEL_1": 3}
    body["predicate"]["verificationResult"] = "FAILED"
    assert parse(body).result == "FAILED"


def _with(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        *folders, last = path.split(".")
        place: Any = body
        for name in folders:
            place = place[int(name)] if isinstance(place, list) else place[name]
        if value is ...:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value

    return change


BAD: dict[str, Callable[[dict[str, Any]], None]] = {
    **{
        f"without-{name}": _with(f"predicate.{name}", ...)
        for name in ("verifier", "timeVerified", "resourceUri", "policy", "verificationResult", "verifiedLevels")
    },
    **{f"policy-without-{name}": _with(f"predicate.policy.{name}", ...) for name in ("uri", "digest", "annotations")},
    "verifier-without-id": _with("predicate.verifier.id", ...),
    "verifier-with-more": _with("predicate.verifier.key", "x"),
    "version-as-text": _with("predicate.verifier.version", "1.0"),
    "other-type": _with("predicateType", "https://slsa.dev/verification_summary/v0.2"),
    "no-subject": _with("subject", []),
    "two-digests": _with("subject.0.digest.sha1", "ab" * 20),
    "digest-in-upper-case": _with("subject.0.digest.sha256", "AB" * 32),
    "unknown-member": _with("predicate.x", 1),
    "unknown-annotation": _with("predicate.policy.annotations.x", "y"),
    "policy-digest-in-upper-case": _with("predicate.policy.digest.sha256", "CD" * 32),
    "policy-digest-too-short": _with("predicate.policy.digest.sha256", "cd"),
    "two-policy-digests": _with("predicate.policy.digest.sha512", "cd" * 64),
    "requirement-without-algorithm": _with("predicate.policy.annotations.sealflow_requirement", "ef" * 32),
    "result-unknown": _with("predicate.verificationResult", "WARNED"),
    "result-as-bool": _with("predicate.verificationResult", True),
    "no-levels": _with("predicate.verifiedLevels", []),
    "too-many-levels": _with("predicate.verifiedLevels", ["L"] * 33),
    "level-as-number": _with("predicate.verifiedLevels", [3]),
    "inputs-as-mapping": _with("predicate.inputAttestations", {}),
    "input-without-digest": _with("predicate.inputAttestations.0.digest", ...),
    "input-with-more": _with("predicate.inputAttestations.0.content", "x"),
    "input-of-other-digest": _with("predicate.inputAttestations.0.digest", {"sha1": "ab" * 20}),
    "too-many-inputs": _with("predicate.inputAttestations", [{"digest": {"sha256": "ab" * 32}}] * 4097),
    "time-with-zone": _with("predicate.timeVerified", "2026-11-22T10:30:00+00:00"),
    "time-with-fraction": _with("predicate.timeVerified", "2026-11-22T10:30:00.5Z"),
    "month-13": _with("predicate.timeVerified", "2026-13-22T10:30:00Z"),
    "second-60": _with("predicate.timeVerified", "2026-11-22T10:30:61Z"),
    "other-digits": _with("predicate.timeVerified", "\uff12026-11-22T10:30:00Z"),
    "terminal-escape": _with("predicate.resourceUri", "\x1b[2J"),
    "empty-place": _with("predicate.resourceUri", ""),
    "long-place": _with("predicate.resourceUri", "x" * 5000),
    "null-place": _with("predicate.resourceUri", None),
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_refused(name: str) -> None:
    body = json.loads(make())
    changed = copy.deepcopy(body)
    BAD[name](changed)
    assert changed != body
    with pytest.raises(EvidenceError):
        parse(changed)


def test_places() -> None:
    assert resource_uri("file:///m%20n", None) == "file:///m%20n"
    assert resource_uri("s3://b/k", None) == "s3://b/k"
    assert resource_uri("s3://b/k", "v1") == "s3://b/k?versionId=v1"
    assert resource_uri("s3://b/k?versionId=v1", "v2") == "s3://b/k%3FversionId=v1?versionId=v2"


texts = st.text(alphabet="ab/?=&#%25vI", max_size=12)


@given(one=texts, version=texts | st.none(), other=texts, second=texts | st.none())
def test_no_two_versions_share_a_place(one: str, version: str | None, other: str, second: str | None) -> None:
    same = (one, version) == (other, second)
    assert (resource_uri(f"s3://{one}", version) == resource_uri(f"s3://{other}", second)) is same
