"""Provenance: what is written, what is redacted, what is read back."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow import RunIdentity, Settings, Surroundings
from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence.bundle import parse_bundle
from sealflow.evidence.provenance import (
    MAX_PROVENANCE_BUNDLE,
    Dependency,
    make_provenance_statement,
    parse_digest_set,
    parse_provenance,
)
from sealflow.evidence.statement import parse_statement
from sealflow.hashing import Digest
from tests.pki import write_key
from tests.trees import write_tree

DIGEST = Digest("dirHash", "ab" * 32)
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
RUN = RunIdentity("airflow", "train", "fit", "manual__1", 3, 2, "uuid")


def make(**options: Any) -> dict[str, Any]:
    statement: dict[str, Any] = json.loads(make_provenance_statement("model", DIGEST, RUN, now=NOW, **options))
    return statement


def test_slsa_members() -> None:
    statement = make(dependencies=[Dependency("s3://b/data", Digest("sha256", "cd" * 32), "data")])
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"] == [{"name": "model", "digest": {"dirHash": DIGEST.hex}}]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == [
        {"uri": "s3://b/data", "digest": {"sha256": "cd" * 32}, "name": "data"}
    ]
    assert definition["externalParameters"] == {"artifact": "model", "producer": "airflow:train/fit", "parameters": {}}
    assert definition["internalParameters"]["run"]["map_index"] == 3
    details = statement["predicate"]["runDetails"]
    assert details["builder"]["id"] == "urn:sealflow:builder:airflow-task-process:v1"
    assert details["metadata"] == {
        "invocationId": "airflow:train/fit/manual__1/3#2",
        "finishedOn": "2026-01-02T03:04:05Z",
    }


def test_reads_back() -> None:
    raw = make_provenance_statement("model", DIGEST, RUN, now=NOW)
    parsed = parse_provenance(parse_statement(raw))
    assert (parsed.name, parsed.digest, parsed.producer) == ("model", DIGEST, "airflow:train/fit")
    assert (parsed.builder, parsed.invocation) == (RUN.builder_id, RUN.invocation)
    assert parsed.finished_on == "2026-01-02T03:04:05Z"


def test_values_of_parameters_never_appear() -> None:
    parameters = {"token": "s3cr3t-value", "epochs": "10"}
    assert "s3cr3t-value" not in json.dumps(make(parameters=parameters))
    sealed = make(parameters=parameters)["predicate"]["buildDefinition"]["externalParameters"]["parameters"]
    assert sealed == {"token": {"redacted": True}, "epochs": {"redacted": True}}


def test_a_deployment_key_turns_values_into_macs() -> None:
    key = b"0123456789abcdef"
    made = make(parameters={"token": "größe"}, parameter_key=key)
    sealed = made["predicate"]["buildDefinition"]["externalParameters"]["parameters"]
    expected = hmac.new(key, "größe".encode(), hashlib.sha256).hexdigest()
    assert sealed == {"token": {"hmac-sha256": expected}}
    assert "größe" not in json.dumps(made, ensure_ascii=False)


@pytest.mark.parametrize("name", ["", "x" * 1025, "é" * 513])
def test_logical_names_have_limits(name: str) -> None:
    with pytest.raises(UsageError, match="logical name"):
        make_provenance_statement(name, DIGEST, RUN, now=NOW)


def change(statement: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    node = statement
    for name in parents:
        node = node[int(name)] if name.isdigit() else node[name]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return statement


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("predicateType", "https://slsa.dev/provenance/v0.2"),
        ("subject", []),
        ("subject.0.digest", {}),
        ("subject.0.digest", {"sha512": "ab" * 64}),
        ("subject.0.digest", {"sha256": "ab" * 32, "dirHash": "ab" * 32}),
        ("subject.0.digest", {"dirHash": "AB" * 32}),
        ("subject.0.digest", {"dirHash": "ab" * 31}),
        ("subject.0.name", ...),
        ("predicate", ...),
        ("predicate.buildDefinition", []),
        ("predicate.buildDefinition.buildType", "https://other"),
        ("predicate.buildDefinition.externalParameters", ...),
        ("predicate.buildDefinition.externalParameters.producer", 1),
        ("predicate.buildDefinition.resolvedDependencies", {}),
        ("predicate.buildDefinition.resolvedDependencies", ["text"]),
        ("predicate.runDetails", ...),
        ("predicate.runDetails.builder.id", ...),
        ("predicate.runDetails.metadata.invocationId", ...),
        ("predicate.runDetails.metadata.finishedOn", 1),
        ("_type", "https://in-toto.io/Statement/v0.1"),
        ("extra", 1),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_malformed(path: str, value: Any) -> None:
    raw = json.dumps(change(make(), path, value)).encode()
    with pytest.raises(EvidenceError):
        parse_provenance(parse_statement(raw))


def test_two_subjects_are_refused() -> None:
    made = make()
    made["subject"].append(made["subject"][0])
    with pytest.raises(EvidenceError, match="2 subjects"):
        parse_provenance(parse_statement(json.dumps(made).encode()))


def test_unknown_members_of_the_predicate_are_ignored_as_slsa_demands() -> None:
    made = make()
    made["predicate"]["buildDefinition"]["other"] = 1
    made["predicate"]["runDetails"]["metadata"]["other"] = 1
    assert parse_provenance(parse_statement(json.dumps(made).encode())).name == "model"


@pytest.mark.parametrize("digests", [{}, {"sha256": "ab" * 32, "sha512": "x"}, {"md5": "ab" * 32}, {"sha256": "x"}])
def test_digest_sets(digests: dict[str, str]) -> None:
    with pytest.raises(EvidenceError):
        parse_digest_set(digests)


def test_in_an_action(tmp_path: Path) -> None:
    """The run's parameters, verified inputs and identity are in the signed bundle; no value is."""
    keys = write_key(tmp_path)
    (tmp_path / "hmac.key").write_bytes(b"0123456789abcdef\n")
    data = write_tree(tmp_path / "data", {"a.csv": b"1"})
    model = write_tree(tmp_path / "model", {"m": b"2"})
    surroundings = Surroundings(
        RunIdentity("airflow", "train", "fit", "in-an-action"),
        Settings(signer=keys.signer, identities=str(keys.public), parameter_key=str(tmp_path / "hmac.key")),
        {"password": "hunter2-in-a-parameter"},
    )
    with sealflow.run(surroundings):
        data_ref = sealflow.sign(data)
        assert sealflow.verify(data_ref).passed
        signed = sealflow.sign_artifact(model, name="the model")
    statement = json.loads(parse_bundle(signed.provenance).payload)
    definition = statement["predicate"]["buildDefinition"]
    assert [item["digest"] for item in definition["resolvedDependencies"]] == [data_ref.digest.as_digest_set()]
    assert list(definition["externalParameters"]["parameters"]) == ["password"]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path
    verdict = sealflow.verify(signed.ref, identities=str(keys.public), name="the model", producer="airflow:train/*")
    assert verdict.passed
    assert verdict.run == "airflow:train/fit/in-an-action"


def test_a_short_parameter_key_is_refused(tmp_path: Path) -> None:
    keys = write_key(tmp_path)
    (tmp_path / "hmac.key").write_bytes(b"short")
    model = write_tree(tmp_path / "model", {"m": b"2"})
    surroundings = Surroundings(settings=Settings(signer=keys.signer, parameter_key=str(tmp_path / "hmac.key")))
    with sealflow.run(surroundings), pytest.raises(UsageError, match="fewer than 16 bytes"):
        sealflow.sign(model)


def test_a_bundle_that_does_not_fit_into_metadata_is_refused(tmp_path: Path) -> None:
    keys = write_key(tmp_path)
    model = write_tree(tmp_path / "model", {"m": b"2"})
    run = RunIdentity("airflow", "train", "fit", "too-large")
    for count, fits in ((40, True), (400, False)):
        surroundings = Surroundings(
            run, Settings(signer=keys.signer), {f"parameter-{number:04}": "x" for number in range(count)}
        )
        with sealflow.run(surroundings):
            if fits:
                assert len(sealflow.sign_artifact(model).provenance) <= MAX_PROVENANCE_BUNDLE
            else:
                with pytest.raises(UsageError, match=str(MAX_PROVENANCE_BUNDLE)):
                    sealflow.sign(model, evidence_store=str(tmp_path / "other"))
                assert not (tmp_path / "other").exists(), "nothing is stored of a signing that failed"
