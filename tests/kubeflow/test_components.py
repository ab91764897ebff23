"""The components as they are compiled."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

import sealflow
import sealflow_kfp
from sealflow.errors import UsageError

pytestmark = pytest.mark.kfp

COMPONENTS = (
    "audit_access",
    "check_dvc_lineage",
    "check_posture",
    "encrypted_download",
    "encrypted_upload",
    "promote_artifact",
    "sign_artifact",
    "verified_import",
    "verify_artifact",
)
OURS = ("audit-", "check-", "encrypted-", "promote-", "sign-", "verified-", "verify-")


def compiled(pipeline: Any, tmp_path: Path) -> list[dict[str, Any]]:
    from kfp import compiler

    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return list(yaml.safe_load_all(path.read_text()))


def tasks_of(body: Any) -> dict[str, dict[str, Any]]:
    """Return all tasks by name, those of loops and conditions included."""
    found: dict[str, dict[str, Any]] = {}
    for part in [body["root"], *body["components"].values()]:
        found |= part.get("dag", {}).get("tasks", {})
    return found


def ours(body: Any) -> dict[str, dict[str, Any]]:
    return {name: task for name, task in tasks_of(body).items() if name.startswith(OURS)}


@pytest.mark.parametrize(
    ("pipeline", "count"), [("gate", 2), ("loop", 2), ("bodies", 1), ("verify_again", 1), ("transfer", 4)]
)
def test_no_task_of_ours_is_ever_cached(pipeline: str, count: int, tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    (body, *_) = compiled(getattr(pipelines, pipeline), tmp_path)
    tasks = ours(body)
    assert len(tasks) == count
    assert all(not task.get("cachingOptions") for task in tasks.values())
    # The pipelines' own tasks show that the compiler would have said so.
    others = [task for name, task in tasks_of(body).items() if name.startswith("make-")]
    assert all(task["cachingOptions"] == {"enableCache": True} for task in others)


def test_caching_cannot_be_turned_on_again() -> None:
    from kfp import dsl

    with pytest.raises(UsageError, match="verify-artifact cannot be cached"):

        @dsl.pipeline
        def pipeline(uri: str):
            model = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model).output
            task = sealflow_kfp.verify_artifact(artifact=model)
            assert task.set_caching_options(False) is task
            task.set_caching_options(True)


def test_a_client_that_turns_caching_on_gets_no_cached_verdict(tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    # KFP's cache key holds the values of parameters; this one is different in every run.
    (body,) = compiled(pipelines.gate, tmp_path)
    for task in ours(body).values():
        value = task["inputs"]["parameters"]["sealflow_run_id"]
        assert value == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_compiled_by_itself_is_not_cached(name: str, tmp_path: Path) -> None:
    (body,) = compiled(getattr(sealflow_kfp, name), tmp_path)
    (task,) = ours(body).values()
    assert not task.get("cachingOptions")


def test_image_is_ours_and_nothing_is_installed(tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    (body,) = compiled(pipelines.gate, tmp_path)
    containers = [
        executor["container"]
        for label, executor in body["deploymentSpec"]["executors"].items()
        if "sign-artifact" in label or "verify-artifact" in label
    ]
    assert len(containers) == 2
    for container in containers:
        assert container["image"] == f"sealflow:{sealflow.__version__}"
        assert "pip" not in " ".join(container["command"])


def test_image_for_one_set_of_components(tmp_path: Path) -> None:
    from kfp import dsl

    made = sealflow_kfp.make_components(image="registry.example/sealflow@sha256:" + "0" * 64)

    @dsl.pipeline
    def pipeline(uri: str):
        model = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model).output
        signed = made.sign_artifact(artifact=model)
        made.verify_artifact(artifact=model, evidence=signed.outputs["evidence"])
        made.verify_artifact(artifact=model)

    (body,) = compiled(pipeline, tmp_path)
    images = [e["container"]["image"] for e in body["deploymentSpec"]["executors"].values() if "container" in e]
    assert images == ["registry.example/sealflow@sha256:" + "0" * 64] * 3


def test_image_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_KFP_IMAGE", "registry.example/sealflow:9")
    made = sealflow_kfp.make_components()
    for component in made:
        assert component.component_spec.implementation.container.image == "registry.example/sealflow:9"


def test_names_of_inputs_and_outputs() -> None:
    sign, verify = sealflow_kfp.sign_artifact.component_spec, sealflow_kfp.verify_artifact.component_spec
    assert list(sign.inputs) == ["artifact", "signer", "name", "evidence_store", "sealflow_run_id"]
    assert set(sign.outputs) == {"evidence", "ref"}
    assert set(verify.inputs) == {
        "artifact",
        "evidence",
        "identities",
        "name",
        "producer",
        "evidence_store",
        "files",
        "expected_ref",
        "policy",
        "recipients",
        "sealflow_run_id",
    }
    assert set(verify.outputs) == {"verdict", "ref"}
    required = [name for spec in (sign, verify) for name, item in spec.inputs.items() if not item.optional]
    assert required == ["artifact"]


@pytest.mark.parametrize(
    ("name", "action", "renamed", "left_out"),
    [
        # Files are left out in code and on the command line, as for signing.
        pytest.param("encrypted_upload", "upload_artifact", {"artifact": "source"}, {"ignore"}, id="upload"),
        pytest.param(
            "encrypted_download",
            "download_artifact",
            {"source": "artifact"},
            # The output says where the copy and its evidence go, and is new.
            {"destination", "destination_store", "overwrite", "require"},
            id="download",
        ),
        pytest.param("promote_artifact", "promote_artifact", {}, {"require"}, id="promote"),
        pytest.param(
            "verified_import",
            "download_artifact",
            # The digest is a part of the reference.
            {"uri": "artifact", "digest": "artifact"},
            {"destination", "destination_store", "overwrite", "require"},
            id="import",
        ),
    ],
)
def test_components_take_what_the_actions_take(
    name: str, action: str, renamed: dict[str, str], left_out: set[str]
) -> None:
    spec = getattr(sealflow_kfp, name).component_spec
    taken = set(inspect.signature(getattr(sealflow, action)).parameters)
    # Objects and callbacks of programs, and the summaries' key, which the settings name.
    taken -= {"storages", "audit", "progress", "passphrase", "verifier"}
    assert {renamed.get(item, item) for item in spec.inputs} - {"sealflow_run_id"} == taken - left_out
    required = [item for item, given in spec.inputs.items() if not given.optional]
    assert (
        required
        == {
            "encrypted_upload": ["artifact", "destination"],
            "encrypted_download": ["source"],
            "promote_artifact": ["source", "destination"],
            "verified_import": ["uri"],
        }[name]
    )


def test_lineage_component_takes_what_the_action_takes() -> None:
    from sealflow.actions.lineage import check_lineage

    spec = sealflow_kfp.check_dvc_lineage.component_spec
    action = set(inspect.signature(check_lineage).parameters) - {"storages", "sink"}
    assert set(spec.inputs) == action | {"artifact", "sealflow_run_id"}
    assert set(spec.outputs) == {"verdict", "repository"}
    assert all(item.optional for item in spec.inputs.values())
    # What is left open must demand what the action demands by itself.
    assert spec.inputs["level"].default == inspect.signature(check_lineage).parameters["level"].default


@pytest.mark.parametrize("given", ["repository", "artifact"])
def test_repository_is_an_artifact_only_where_it_is_given(given: str, tmp_path: Path) -> None:
    from kfp import dsl

    @dsl.pipeline
    def pipeline(uri: str):
        imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset).output
        sealflow_kfp.check_dvc_lineage(**{given: imported if given == "artifact" else uri})

    (body,) = compiled(pipeline, tmp_path)
    definitions = body["components"]["comp-check-dvc-lineage"]["inputDefinitions"]
    assert set(definitions.get("artifacts", {})) == ({"artifact"} if given == "artifact" else set())
    (task,) = ours(body).values()
    assert not task.get("cachingOptions")


def test_roots_may_be_written_as_python(tmp_path: Path) -> None:
    from kfp import dsl

    @dsl.pipeline
    def pipeline(where: str):
        sealflow_kfp.check_dvc_lineage(
            repository=where, level="L6", roots={"owner": "file:/k.pem"}, datasets=["sha256:" + "0" * 64]
        )

    (body,) = compiled(pipeline, tmp_path)
    (task,) = ours(body).values()
    parameters = task["inputs"]["parameters"]
    assert parameters["roots"]["runtimeValue"]["constant"] == '{"owner": "file:/k.pem"}'
    assert parameters["datasets"]["runtimeValue"]["constant"] == ["sha256:" + "0" * 64]
    assert parameters["level"]["runtimeValue"]["constant"] == "L6"


def test_evidence_is_an_input_only_where_it_is_given(tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    (with_evidence,) = compiled(pipelines.gate, tmp_path)
    (without,) = compiled(pipelines.verify_again, tmp_path)
    artifacts = [
        set(body["components"]["comp-verify-artifact"]["inputDefinitions"]["artifacts"])
        for body in (with_evidence, without)
    ]
    assert artifacts == [{"artifact", "evidence"}, {"artifact"}]


def test_identities_may_be_written_as_python(tmp_path: Path) -> None:
    from kfp import dsl

    @dsl.pipeline
    def pipeline(uri: str):
        model = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model).output
        sealflow_kfp.verify_artifact(artifact=model, identities={"a": "file:/k.pem"})

    (body,) = compiled(pipeline, tmp_path)
    (task,) = ours(body).values()
    assert task["inputs"]["parameters"]["identities"]["runtimeValue"]["constant"] == '{"a": "file:/k.pem"}'


def test_recipients_and_references_may_be_written_as_python(tmp_path: Path) -> None:
    from kfp import dsl

    ref = {"sealflow_ref": 1, "uri": "s3://b/k", "digest": "sha256:" + "0" * 64, "evidence": "", "encrypted": True}

    @dsl.pipeline
    def pipeline():
        sealflow_kfp.encrypted_download(source=ref, recipients=["aes:/k", "rsa:/p.pem"])

    (body,) = compiled(pipeline, tmp_path)
    (task,) = ours(body).values()
    given = {name: item["runtimeValue"]["constant"] for name, item in task["inputs"]["parameters"].items()}
    assert given["recipients"] == '["aes:/k", "rsa:/p.pem"]'
    assert sealflow.ArtifactRef.parse(given["source"]).encrypted


def test_a_pipeline_parameter_can_be_any_parameter(tmp_path: Path) -> None:
    from kfp import dsl

    @dsl.pipeline
    def pipeline(uri: str, who: str, which: list):
        model = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model).output
        sealflow_kfp.verify_artifact(artifact=model, identities=who, files=which)

    (body,) = compiled(pipeline, tmp_path)
    (task,) = ours(body).values()
    assert task["inputs"]["parameters"]["identities"] == {"componentInputParameter": "who"}


@pytest.mark.parametrize("name", COMPONENTS)
@pytest.mark.parametrize("unknown", ["policy_keys", "admin", "passphrase", "key", "verify"])
def test_no_parameter_loosens_or_carries_a_secret(name: str, unknown: str) -> None:
    with pytest.raises(TypeError, match=f'unexpected keyword argument "{unknown}"'):
        getattr(sealflow_kfp, name)(**{unknown: "x"})


def test_arguments_have_names() -> None:
    with pytest.raises(TypeError, match="keyword arguments"):
        sealflow_kfp.sign_artifact("model")
