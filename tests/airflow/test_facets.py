"""What a lineage catalogue learns of our operators, through Airflow's own OpenLineage provider."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.home import AirflowHome
from tests.core.lineage.gitrepo import new_repo, public, ssh_key
from tests.dvc_repository import DATA, edit, write_repository

pytestmark = pytest.mark.airflow

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "reference" / "sealflow-dataset-facet.schema.json"


@pytest.fixture(scope="module")
def schema() -> Any:
    import jsonschema

    body = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(body)
    return jsonschema.Draft202012Validator(body)


# ------------------------------------------------------------------------------------------------ one whole DAG run


@pytest.fixture(scope="module")
def events(airflow_home: AirflowHome) -> dict[tuple[str, str], dict[str, Any]]:
    """The events of one run, by task and state, as OpenLineage's file transport wrote them."""
    folder = airflow_home.folder_for("catalogued")
    (folder / "model").write_bytes(b"weights")
    repo = new_repo(folder / "repository")
    write_repository(repo.root)
    repo.commit({})
    (folder / "allowed").write_text(f"ada@example.org {public(ssh_key())}\n")
    edit(write_repository(folder / "tampered") / DATA)
    log = folder / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(log), "append": True}
    run = airflow_home.run(
        "catalogued", {"folder": str(folder)}, env={"AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)}
    )
    assert run.states == {
        "sign": "success",
        "verify": "success",
        "lineage": "success",
        "refused": "failed",
        "lost": "failed",
    }, run.output
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return {
        (event["job"]["name"].partition("catalogued.")[2], event["eventType"]): event
        for event in found
        if event["job"]["name"].startswith("catalogued.")
    } | {("", "verdicts"): run.xcoms}  # type: ignore[dict-item]


def dataset(events: Any, task: str, state: str = "COMPLETE") -> tuple[str, dict[str, Any]]:
    """The only dataset of an event, and whether it was read or written."""
    event = events[task, state]
    (found,) = [(side, item) for side in ("inputs", "outputs") for item in event.get(side, [])]
    return found


def facet(events: Any, task: str, state: str = "COMPLETE") -> dict[str, Any]:
    return dataset(events, task, state)[1]["facets"]["sealflow_artifact"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "state", "side"),
    [
        ("sign", "COMPLETE", "outputs"),
        ("verify", "COMPLETE", "inputs"),
        ("lineage", "COMPLETE", "inputs"),
        ("refused", "FAIL", "inputs"),
    ],
)
def test_emitted_facet_fits_its_published_schema(events: Any, schema: Any, task: str, state: str, side: str):
    found, item = dataset(events, task, state)
    assert found == side
    schema.validate({"sealflow_artifact": item["facets"]["sealflow_artifact"]})
    assert "<<non-serializable" not in json.dumps(item)
    assert "***" not in json.dumps(item)


@pytest.mark.slow
def test_signed_artifact_and_its_check_are_one_dataset_in_one_version(events: Any):
    (_, signed), (_, checked) = dataset(events, "sign"), dataset(events, "verify")
    assert (signed["namespace"], signed["name"]) == (checked["namespace"], checked["name"])
    ref = events["", "verdicts"]["sign", "return_value"]
    for item in (signed, checked):
        assert item["facets"]["version"]["datasetVersion"] == ref["digest"]
        assert item["facets"]["sealflow_artifact"]["digest"] == ref["digest"]
        assert item["facets"]["sealflow_artifact"]["evidence"] == ref["evidence"]
    assert "verdict" not in facet(events, "sign")
    judged = facet(events, "verify")
    verdict = events["", "verdicts"]["verify", "verdict"]
    assert judged["verdict"]["status"] == "passed"
    assert judged["producedBy"] == verdict["producer"] == "airflow:catalogued/sign"
    assert {signer["key"] for signer in judged["signers"]} == {
        signer["key"] for signer in facet(events, "sign")["signers"]
    }
    assert {signer["identity"] for signer in judged["signers"]} == {"trainer"}


@pytest.mark.slow
def test_lineage_facet_names_the_signed_commit(events: Any):
    found = facet(events, "lineage")
    (signer,) = events["", "verdicts"]["lineage", "verdict"]["signers"]
    assert found["dvc"] == {"level": "L3", "revision": signer["evidence"], "targets": ["clean"]}
    assert [(item["kind"], item["key"]) for item in found["signers"]] == [("commit", signer["key"])]
    assert found["verdict"]["status"] == "passed"
    # Nothing was hashed as one artifact, so no version is claimed.
    assert "version" not in dataset(events, "lineage")[1]["facets"]


@pytest.mark.slow
def test_refused_repository_is_a_dataset_with_a_refusal(events: Any):
    found = facet(events, "refused", "FAIL")
    assert found["verdict"]["status"] == "failed"
    assert found["verdict"]["codes"][0] == "DATA_MISMATCH"
    assert found["dvc"] == {"level": "L2", "targets": []}


@pytest.mark.slow
def test_a_task_that_saw_no_artifact_claims_none(events: Any):
    event = events["lost", "FAIL"]
    assert not event.get("inputs")
    assert not event.get("outputs")


@pytest.mark.slow
def test_schema_url_and_producer_are_ours(events: Any):
    from sealflow import __version__

    body = json.loads(SCHEMA.read_text())
    found = facet(events, "sign")
    url, _, pointer = found["_schemaURL"].partition("#")
    assert url == body["$id"]
    place = body
    for step in pointer.strip("/").split("/"):
        place = place[step]
    assert place["type"] == "object"
    assert found["_producer"] == f"urn:sealflow:producer:airflow-operator:{__version__}"


# ------------------------------------------------------------------------------------------------ without a DAG run


def observed(operator: Any, context: dict[str, Any]) -> Any:
    from airflow.sdk.exceptions import AirflowException

    try:
        operator.execute(context)
    except AirflowException:
        return operator.get_openlineage_facets_on_failure(context["ti"])
    return operator.get_openlineage_facets_on_complete(context["ti"])


def as_json(lineage: Any) -> dict[str, Any]:
    from openlineage.client.serde import Serde

    (item,) = lineage.inputs + lineage.outputs
    return json.loads(Serde.to_json(item))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_digest_of_files_and_folders(connection, context, artifact, schema, kind):
    from sealflow_airflow import SignArtifactOperator

    place = artifact if kind == "folder" else artifact / "units.json"
    item = as_json(observed(SignArtifactOperator(task_id="sign", artifact=str(place)), context))
    assert item["facets"]["version"]["datasetVersion"].startswith("dirHash:" if kind == "folder" else "sha256:")
    schema.validate(item["facets"])


def test_refused_artifact_keeps_its_digest_and_nobodys_name(connection, context, artifact, schema):
    from sealflow_airflow import SignArtifactOperator, VerifyArtifactOperator

    SignArtifactOperator(task_id="sign", artifact=str(artifact)).execute(context)
    (artifact / "units.json").write_bytes(b"[]")
    item = as_json(observed(VerifyArtifactOperator(task_id="verify", artifact=str(artifact)), context))
    schema.validate(item["facets"])
    assert item["facets"]["sealflow_artifact"]["verdict"]["status"] == "failed"


def test_thousand_findings_stay_a_message(connection, context, tmp_path, schema):
    from sealflow_airflow import DvcLineageCheckOperator

    root = write_repository(tmp_path / "repository")
    for number in range(130):
        (root / f"{number}.dvc").write_text(
            f"outs:\n- md5: a{number:031x}\n  size: 1\n  hash: md5\n  path: absent-{number}\n"
        )
    targets = [f"{number}.dvc" for number in range(130)]
    item = as_json(observed(DvcLineageCheckOperator(task_id="g", repository=str(root), targets=targets), context))
    schema.validate(item["facets"])
    assert len(item["facets"]["sealflow_artifact"]["dvc"]["targets"]) == 20
    assert len(json.dumps(item)) < 4096


@pytest.mark.parametrize(
    "uri",
    ["file:///data/models/a.bin", "s3://bucket/models/a.bin", "s3://bucket/deep/folder", "file:///data/with%20space"],
)
def test_datasets_are_named_as_airflow_names_assets(uri):
    """Otherwise an asset of a DAG and the artifact at its place are two datasets in a catalogue."""
    from airflow.providers.common.compat.openlineage.utils.utils import translate_airflow_asset
    from airflow.sdk import Asset

    from sealflow_airflow.facets import dataset_name

    translated = translate_airflow_asset(Asset(name="a", uri=uri), None)
    assert dataset_name(uri) == (translated.namespace, translated.name)


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("https://git.example.org/team/data", ("https://git.example.org", "team/data")),
        ("ssh://git@git.example.org/team/data", ("ssh://git.example.org", "team/data")),
        ("https://user:secret@git.example.org:8443/data", ("https://git.example.org:8443", "data")),
        ("s3://bucket", ("s3://bucket", "/")),
    ],
)
def test_names_of_datasets_hold_no_user(location, named):
    from sealflow_airflow.facets import dataset_name

    assert dataset_name(location) == named


BAD = {
    "another digest": lambda facet: facet.update(digest="md5:" + "0" * 32),
    "a status that is none": lambda facet: facet["verdict"].update(status="ok"),
    "an unknown member": lambda facet: facet.update(trusted=True),
    "another schema": lambda facet: facet.update(_schemaURL="https://example.org/schema.json"),
    "no signers": lambda facet: facet.pop("signers"),
    "a branch for a revision": lambda facet: facet["dvc"].update(revision="main"),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_schema_refuses(connection, context, tmp_path, schema, change):
    import jsonschema

    from sealflow_airflow import DvcLineageCheckOperator

    root = write_repository(tmp_path / "repository")
    good = as_json(observed(DvcLineageCheckOperator(task_id="gate", repository=str(root)), context))["facets"]
    schema.validate(good)
    bad = copy.deepcopy(good)
    change(bad["sealflow_artifact"])
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(bad)


WITHOUT = """
import sys, types

class Block:
    def find_spec(self, name, path=None, target=None):
        # All but what its entry point names, which Airflow loads for the list of providers.
        if name.endswith("get_provider_info"):
            return
        if name.partition(".")[0] == "openlineage" or name.startswith("airflow.providers.openlineage."):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Block())
from sealflow_airflow import DvcLineageCheckOperator, SignArtifactOperator, VerifyArtifactOperator

pushed = {{}}
ti = types.SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, id="1",
                           xcom_push=lambda key, value: pushed.update({{key: value}}))
context = {{"ti": ti, "params": {{}}, "dag_run": types.SimpleNamespace(conf={{}})}}
ref = SignArtifactOperator(task_id="s", artifact={artifact!r}).execute(context)
VerifyArtifactOperator(task_id="v", artifact=ref).execute(context)
assert pushed["verdict"]["status"] == "passed"
assert DvcLineageCheckOperator(task_id="l", repository={repository!r}).execute(context) == {repository!r}
try:
    import openlineage.client
except ModuleNotFoundError:
    print("worked without")
"""


def test_operators_work_without_openlineage(connection, artifact, tmp_path):
    root = write_repository(tmp_path / "repository")
    code = WITHOUT.format(artifact=str(artifact), repository=str(root))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "worked without"
