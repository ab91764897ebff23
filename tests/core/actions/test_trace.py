"""Tracing real artifacts: signed in Airflow and in Kubeflow, on disk and in S3, traced by whoever holds public keys."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.trace import Traced, descendants, trace
from sealflow.errors import UnavailableError, UsageError
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages
from tests.audit_events import read_events
from tests.lineages import AUDIT, Lineage, deciding, digest, noted, states
from tests.pki import KeyPair, write_key
from tests.servers.s3 import S3Server

INGEST = RunIdentity("airflow", "ingest", "load", "manual__1", None, 1, team="data")
PREPARE = RunIdentity("airflow", "prepare", "clean", "manual__2", 3, 1, team="ml")
FIT = RunIdentity("kfp", "train", "fit", "run-7", None, None, "pod-1", "ml")


class Pipeline:
    """Raw data by its owner; a table cleaned in Airflow; a model trained in Kubeflow Pipelines.

    Args:
        folder: Keys lie here, and what is not in S3.
        prefix: Where artifacts go.
        storages: Finds storage.
    """

    def __init__(self, folder: Path, prefix: str, storages: Storages, write: Any) -> None:
        self.storages = storages
        self.prefix = prefix
        self.unique = secrets.token_hex(8)
        self.keys: dict[str, KeyPair] = {name: write_key(folder, name) for name in ("owner", "airflow", "kfp")}
        self.identities = {
            "airflow": {"key": str(self.keys["airflow"].public), "producers": ["airflow:prepare/*"]},
            "kfp": {"key": str(self.keys["kfp"].public), "producers": ["kfp:train/*"]},
        }
        self.roots = {"owner": {"key": str(self.keys["owner"].public), "producers": ["airflow:ingest/*"]}}
        write("raw.csv", b"1,2,3")
        self.raw = self.sign("raw.csv", "owner", INGEST)
        write("clean/part-0", b"1,2")
        write("clean/part-1", b"3")
        self.clean = self.sign("clean", "airflow", PREPARE, self.raw)
        write("model.bin", b"weights")
        self.model = self.sign("model.bin", "kfp", FIT, self.clean, self.raw)

    def sign(self, name: str, key: str, run: RunIdentity, *inputs: sealflow.ArtifactRef) -> sealflow.ArtifactRef:
        everybody = {**self.identities, **self.roots}
        # A process remembers what each run has verified; here every test is another run.
        with sealflow.run(sealflow.Surroundings(replace(run, run=f"{run.run}-{self.unique}"))):
            for ref in inputs:
                with sealflow.verified(ref, identities=everybody, storages=self.storages):
                    pass
            return sealflow.sign(f"{self.prefix}/{name}", signer=self.keys[key].signer, storages=self.storages)

    def trace(self, target: Any, **options: Any) -> Traced:
        options = {"identities": self.identities, "roots": self.roots, "storages": self.storages, **options}
        with sealflow.run(sealflow.Surroundings(AUDIT)):
            return trace(target, **options)


@pytest.fixture(params=["disk", pytest.param("s3", marks=[pytest.mark.server, pytest.mark.xdist_group("s3")])])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    if request.param == "disk":

        def write(name: str, data: bytes) -> None:
            path = tmp_path / "lake" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

        return Pipeline(tmp_path, str(tmp_path / "lake"), Storages(), write)
    server: S3Server = request.getfixturevalue("s3_server")
    client, bucket = server.client(), request.getfixturevalue("s3_bucket")
    return Pipeline(
        tmp_path,
        f"s3://{bucket}",
        Storages(client),
        lambda name, data: client.put_object(Bucket=bucket, Key=name, Body=data),
    )


NODES = {"model.bin": "attested", "clean": "attested", "raw.csv": "dataset"}


def test_across_orchestrators(pipeline: Pipeline) -> None:
    """Evidence is found beside the places that signed provenance names; nobody has to list stores."""
    traced = pipeline.trace(pipeline.model)
    assert traced.verdict.passed, traced.verdict.summary()
    assert states(traced) == NODES
    producers = {node.name: node.producer for node in traced.graph.nodes.values()}
    assert producers == {
        "model.bin": "kfp:train/fit",
        "clean": "airflow:prepare/clean",
        "raw.csv": "airflow:ingest/load",
    }
    assert traced.graph.edges == 3
    assert [node.name for node in traced.graph.roots] == ["raw.csv"]
    assert noted(traced) == {"LINEAGE_NOT_HELD"}
    assert (traced.verdict.name, traced.verdict.producer) == ("model.bin", "kfp:train/fit")


def test_a_location_is_read(pipeline: Pipeline) -> None:
    traced = pipeline.trace(f"{pipeline.prefix}/model.bin")
    assert traced.verdict.passed
    assert noted(traced) == {"CHECKED_NOT_HELD"}
    traced = pipeline.trace(f"{pipeline.prefix}/clean")
    assert states(traced) == {name: state for name, state in NODES.items() if name != "model.bin"}
    assert deciding(pipeline.trace(f"{pipeline.prefix}/nothing")) == {"ARTIFACT_MISSING"}


def test_changed_bytes_have_no_lineage(pipeline: Pipeline, tmp_path: Path) -> None:
    if pipeline.prefix.startswith("s3://"):
        client = pipeline.storages.for_uri(pipeline.prefix)._client("s3")  # type: ignore[attr-defined]
        client.put_object(Bucket=pipeline.prefix[5:], Key="model.bin", Body=b"evil")
    else:
        (tmp_path / "lake" / "model.bin").write_bytes(b"evil")
    assert deciding(pipeline.trace(f"{pipeline.prefix}/model.bin")) == {"EVIDENCE_MISSING"}
    # The reference still names the signed bytes, and says that nobody read any.
    assert pipeline.trace(pipeline.model).verdict.passed


def test_by_digest_where_stores_are_named(pipeline: Pipeline) -> None:
    assert deciding(pipeline.trace(str(pipeline.model.digest))) == {"EVIDENCE_MISSING"}
    traced = pipeline.trace(str(pipeline.model.digest), evidence_stores=[pipeline.model.evidence])
    assert traced.verdict.passed
    assert traced.verdict.artifact == str(pipeline.model.digest)


def test_a_producer_spoofed_by_the_other_orchestrators_key(pipeline: Pipeline) -> None:
    """The Airflow worker's key signs for its own DAG only, whatever the statement says."""
    forged = pipeline.sign("model.bin", "airflow", FIT, pipeline.raw)
    assert forged.digest == pipeline.model.digest
    traced = pipeline.trace(forged)
    # What holds is not spoiled by it, and what it claims counts for nothing.
    assert traced.verdict.passed
    assert "PRODUCER_NOT_ALLOWED" in noted(traced)
    identities = {"airflow": pipeline.identities["airflow"]}
    assert "PRODUCER_NOT_ALLOWED" in deciding(pipeline.trace(forged, identities=identities))


def test_a_bucket_out_of_reach(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = type(pipeline.storages.for_uri(pipeline.prefix))

    def out_of_reach(*_: Any) -> Any:
        raise UnavailableError("The store does not answer.")

    monkeypatch.setattr(storage, "list_objects", out_of_reach)
    traced = pipeline.trace(pipeline.model)
    assert traced.verdict.status == "unverifiable"
    assert deciding(traced) == {"BACKEND_UNAVAILABLE"}
    assert traced.verdict.exit_status == 5


def test_what_a_bad_dataset_touched(pipeline: Pipeline) -> None:
    stores = [pipeline.clean.evidence, pipeline.model.evidence]
    everybody = {**pipeline.identities, **pipeline.roots}
    with sealflow.run(sealflow.Surroundings(AUDIT)):
        found = descendants(pipeline.raw, identities=everybody, evidence_stores=stores, storages=pipeline.storages)
        alone = descendants(pipeline.raw, identities=everybody, storages=pipeline.storages)
    assert found.verdict.passed, found.verdict.summary()
    assert states(found) == {"raw.csv": "dataset", "clean": "attested", "model.bin": "attested"}
    places = {item.subject for item in found.verdict.findings if item.code == "LINEAGE_PLACES"}
    assert places == {pipeline.raw.evidence, *stores}
    # Nothing found is said together with where was looked.
    assert states(alone) in ({"": "dataset"}, {"raw.csv": "dataset"})
    assert "LINEAGE_PLACES" in noted(alone)


def test_the_json_form(pipeline: Pipeline) -> None:
    traced = pipeline.trace(pipeline.model)
    body = json.loads(json.dumps(traced.as_dict()))
    assert set(body) == {"sealflow_lineage", "verdict", "graph"}
    assert body["graph"]["starts"] == [str(pipeline.model.digest)]
    assert {(item["artifact"], item["input"]) for item in body["graph"]["edges"]} == {
        (str(pipeline.model.digest), str(pipeline.clean.digest)),
        (str(pipeline.model.digest), str(pipeline.raw.digest)),
        (str(pipeline.clean.digest), str(pipeline.raw.digest)),
    }
    node = next(item for item in body["graph"]["nodes"] if item["name"] == "clean")
    assert node["state"] == "attested"
    assert node["signers"][0]["identity"] == "airflow"


# --- Parameters ---


@pytest.fixture
def lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lineage:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    return Lineage(tmp_path / "world")


def test_stores_of_the_surroundings(lineage: Lineage) -> None:
    traced = lineage.trace(target=digest("model"), settings={"evidence_store": str(lineage.store)})
    assert traced.verdict.passed


def test_identities_of_the_surroundings(lineage: Lineage) -> None:
    trust = {"identities": {"trainer": str(lineage.key("trainer").public)}}
    assert lineage.trace(identities=None, settings=trust).verdict.passed
    assert deciding(lineage.trace(identities=None)) == {"IDENTITY_RULE_MISSING"}


@pytest.mark.parametrize(
    "options",
    [
        {"datasets": "sha256:" + "a" * 64},
        {"datasets": ["sha256:xyz"]},
        {"datasets": ["md5:" + "a" * 32]},
        {"evidence_stores": "s3://one"},
        {"evidence_stores": ["http://store"]},
        {"target": "http://web/model"},
        {"target": "sha512:" + "a" * 128},
        {"roots": {"owner": {"key": ""}}},
        {"identities": {"x": {}}},
    ],
    ids=repr,
)
def test_what_cannot_work(lineage: Lineage, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        lineage.trace(**options)


def test_descendants_need_a_store(lineage: Lineage) -> None:
    with pytest.raises(UsageError, match="no evidence store"):
        lineage.descendants(evidence_stores=[])


def test_nothing_is_read_for_a_reference(lineage: Lineage) -> None:
    """There are no bytes anywhere, only evidence."""
    assert lineage.trace().verdict.passed
    assert not Path(lineage.lies("model").removeprefix("file://")).exists()


def test_a_summary_is_made_once_a_while(lineage: Lineage) -> None:
    lineage.govern()
    signer = lineage.key("verifier").signer
    for _ in range(2):
        assert lineage.trace(verifier=signer).verdict.passed
    assert len(lineage.summaries()) == 1
    events = read_events(lineage.folder.parent / "spool")
    assert [event["action"] for event in events if event["phase"] == "outcome"] == ["trace", "summarize", "trace"]


def test_no_summary_without_a_policy_or_a_pass(lineage: Lineage) -> None:
    signer = lineage.key("verifier").signer
    assert lineage.trace(verifier=signer).verdict.passed
    assert lineage.summaries() == []
    lineage.govern()
    lineage.remove("raw")
    assert not lineage.trace(verifier=signer).verdict.passed
    assert lineage.summaries() == []


def test_a_store_that_takes_no_summary(lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.storage.local import LocalStorage

    def refused(*_: Any) -> bool:
        raise UnavailableError("No permission.", code="PERMISSION_DENIED")

    lineage.govern()
    monkeypatch.setattr(LocalStorage, "create", refused)
    traced = lineage.trace(verifier=lineage.key("verifier").signer)
    assert traced.verdict.passed
    assert "SUMMARY_NOT_WRITTEN" in noted(traced)


def test_a_summary_under_teams_is_none(lineage: Lineage) -> None:
    """Rules of teams on the way can change without the admin's policy."""
    team = {
        "team": "ml",
        "key": lineage.pem("team"),
        "artifact": [f"file://{lineage.folder}/ml/**"],
        "policy": str(lineage.folder / "team.json"),
    }
    signer = lineage.key("verifier").signer
    lineage.govern(delegations=[team])
    traced = lineage.trace(verifier=signer)
    assert traced.verdict.passed, traced.verdict.summary()
    assert lineage.summaries() == []
    lineage.govern()
    assert lineage.trace(verifier=signer).verdict.passed
    assert len(lineage.summaries()) == 1
