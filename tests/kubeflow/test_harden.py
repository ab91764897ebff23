"""What the hardener makes of compiled pipelines."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

import sealflow_kfp
from sealflow.actions.context import MOUNT
from sealflow.errors import UsageError
from sealflow_kfp.guard_command import IN_IMAGE as WRAPPER
from sealflow_kfp.hardening import Hardened, PipelineError, harden, harden_text
from sealflow_kfp.plan import PLAN_PARAMETER, Plan
from tests.kubeflow.test_components import compiled

pytestmark = pytest.mark.kfp

NAMES = (
    "steps",
    "folders",
    "nested",
    "branches",
    "loop",
    "collected",
    "one_of",
    "with_exit",
    "importing",
    "installing",
)


def documents(name: str, tmp_path: Path) -> list[dict[str, Any]]:
    from tests.kubeflow import hardened_pipelines

    return compiled(getattr(hardened_pipelines, name), tmp_path)


def hardened(name: str, tmp_path: Path, **options: Any) -> Hardened:
    return harden(documents(name, tmp_path), **options)


def containers(body: Any) -> dict[str, dict[str, Any]]:
    executors = body["deploymentSpec"]["executors"]
    return {label: item["container"] for label, item in executors.items() if "container" in item}


def bodies(body: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return all tasks of all DAGs, each as often as it stands there."""
    dags = [body["root"], *body["components"].values()]
    return [item for part in dags for item in part.get("dag", {}).get("tasks", {}).items()]


def plans(body: Any) -> dict[str, Plan]:
    found = {}
    for _, task in bodies(body):
        given = task.get("inputs", {}).get("parameters", {})
        if PLAN_PARAMETER in given:
            plan = Plan.parse(given[PLAN_PARAMETER]["runtimeValue"]["constant"])
            assert plan.task not in found
            found[plan.task] = plan
    return found


def producers(body: Any, task: str, name: str) -> list[tuple[str, str]]:
    return [tuple(item) for item in plans(body)[task].inputs[name]]


@pytest.mark.parametrize("name", NAMES)
def test_every_container_is_wrapped_and_nothing_is_cached(name: str, tmp_path: Path) -> None:
    before = documents(name, tmp_path)
    (body, *_) = harden(before, keep_installs=True).documents
    assert containers(body)
    for label, container in containers(body).items():
        original = containers(before[0])[label]
        assert container["command"] == [*WRAPPER, *original["command"]]
        assert container["args"] == original["args"]
        assert container["image"] == original["image"]
    assert [task["cachingOptions"] for _, task in bodies(body)] == [{}] * len(bodies(body))


@pytest.mark.parametrize("name", NAMES)
def test_every_task_is_told_its_run_its_name_and_its_plan(name: str, tmp_path: Path) -> None:
    (body, *_) = hardened(name, tmp_path).documents
    labels = containers(body)
    for _, task in bodies(body):
        component = body["components"][task["componentRef"]["name"]]
        if component.get("executorLabel") not in labels:
            continue
        given = task["inputs"]["parameters"]
        assert given["sealflow_run_id"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
        assert given["sealflow_task"] == {"runtimeValue": {"constant": "{{$.pipeline_task_name}}"}}
        definitions = component["inputDefinitions"]["parameters"]
        for hidden in ("sealflow_run_id", "sealflow_task", "sealflow_plan"):
            assert definitions[hidden]["parameterType"] == "STRING"
        plan = Plan.parse(given["sealflow_plan"]["runtimeValue"]["constant"])
        assert plan.pipeline == body["pipelineInfo"]["name"]
        assert set(plan.inputs) == set(component["inputDefinitions"].get("artifacts", {}))
        assert {*plan.outputs, "sealflow_verdict"} == set(component["outputDefinitions"]["artifacts"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"secret": "keys", "policy_config_map": "policy", "local": True}, id="all"),
    ],
)
def test_hardening_twice_changes_no_byte(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    documents(name, tmp_path)
    text = (tmp_path / "pipeline.yaml").read_bytes()
    once = harden_text(text, **options)
    twice = harden_text(once.text, **options)
    assert once.text != text
    assert twice.text == once.text
    for report in once.reports:
        # What is gone can be told only once.
        report.gaps -= {gap for gap in report.gaps if gap.code == "INSTALL_REMOVED"}
    assert twice.reports == once.reports


@pytest.mark.parametrize("name", NAMES)
def test_the_result_is_what_kfp_takes(name: str, tmp_path: Path) -> None:
    from kfp import components

    done = harden_text(_text(name, tmp_path), secret="keys")
    assert list(yaml.safe_load_all(done.text)) == done.documents
    loaded = components.load_component_from_text(done.text.decode())
    assert loaded.pipeline_spec.pipeline_info.name == done.reports[0].pipeline


def _text(name: str, tmp_path: Path) -> bytes:
    documents(name, tmp_path)
    return (tmp_path / "pipeline.yaml").read_bytes()


def test_what_is_handed_over_is_not_changed(tmp_path: Path) -> None:
    before = documents("nested", tmp_path)
    kept = copy.deepcopy(before)
    harden(before, secret="keys")
    assert before == kept


@pytest.mark.parametrize("name", NAMES)
def test_without_the_guard_it_is_the_authors_pipeline(name: str, tmp_path: Path) -> None:
    """Whoever compares both files sees the guard and nothing else."""
    text = _text(name, tmp_path)
    done = harden_text(text, keep_installs=True)
    (before,), (body,) = yaml.safe_load_all(text), yaml.safe_load_all(done.text)
    for container in containers(body).values():
        del container["command"][: len(WRAPPER)]
    for part in [body["root"], *body["components"].values()]:
        _without_hidden(part, "inputDefinitions")
        _without_hidden(part, "outputDefinitions")
    for (_, task), (_, original) in zip(bodies(body), bodies(before), strict=True):
        assert task.pop("cachingOptions") == {}
        original.pop("cachingOptions", None)
        _without_hidden(task, "inputs")
    assert body == before
    # What the compiler tells people at the beginning still holds.
    assert done.text.startswith(text[: text.index(b"components:")])


def _without_hidden(part: dict[str, Any], name: str) -> None:
    pair = part.get(name, {})
    for kind in ("artifacts", "parameters"):
        kept = {key: value for key, value in pair.pop(kind, {}).items() if not key.startswith("sealflow_")}
        if kept:
            pair[kind] = kept
    if not pair:
        part.pop(name, None)


@pytest.mark.parametrize(
    ("pipeline", "task", "name", "expected"),
    [
        pytest.param("steps", "copy", "source", [("make", "model")], id="task"),
        pytest.param("nested", "inner/turn", "source", [("make", "model")], id="into-a-nested-pipeline"),
        pytest.param("nested", "inner/turn-2", "source", [("inner/turn", "turned")], id="inside"),
        pytest.param("nested", "read", "source", [("inner/turn-2", "turned")], id="out-of-a-nested-pipeline"),
        pytest.param(
            "branches", "condition-branches-1/condition-2/turn", "source", [("make", "model")], id="condition"
        ),
        pytest.param("loop", "for-loop-2/turn", "source", [("for-loop-2/make-2", "model")], id="in-a-loop"),
        pytest.param("loop", "for-loop-2/read", "source", [("make", "model")], id="into-a-loop"),
        pytest.param("collected", "join", "parts", [("for-loop-2/turn", "turned")], id="collected"),
        pytest.param(
            "one_of",
            "read",
            "source",
            [
                ("condition-branches-1/condition-2/make-2", "model"),
                ("condition-branches-1/condition-3/make-3", "model"),
            ],
            id="one-of",
        ),
        pytest.param("with_exit", "exit-handler-1/read", "source", [("exit-handler-1/make-2", "model")], id="exit"),
        pytest.param("importing", "inner/turn", "source", [], id="importer"),
        pytest.param("importing", "inner/turn-2", "source", [("inner/turn", "turned")], id="behind-an-importer"),
    ],
)
def test_expected_producers(
    pipeline: str, task: str, name: str, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    (body, *_) = hardened(pipeline, tmp_path).documents
    assert producers(body, task, name) == expected


def test_one_unknown_branch_leaves_the_producer_to_the_policy(tmp_path: Path) -> None:
    before = documents("one_of", tmp_path)
    executor = before[0]["deploymentSpec"]["executors"]["exec-make-3"]
    del executor["container"]
    executor["importer"] = {"artifactUri": {"constant": "s3://models/m"}, "typeSchema": {}}
    (body, *_) = harden(before).documents
    assert producers(body, "read", "source") == []


def test_input_of_the_pipeline_itself(tmp_path: Path) -> None:
    from tests.kubeflow import hardened_pipelines

    (body,) = harden(compiled(hardened_pipelines.inner, tmp_path)).documents
    assert producers(body, "turn", "source") == []
    assert producers(body, "turn-2", "source") == [("turn", "turned")]


def shared_dag(tmp_path: Path) -> list[dict[str, Any]]:
    """A compiled pipeline whose nested part serves a second task."""
    before = documents("nested", tmp_path)
    tasks = before[0]["root"]["dag"]["tasks"]
    tasks["inner-2"] = copy.deepcopy(tasks["inner"])
    tasks["inner-2"]["taskInfo"]["name"] = "inner-2"
    tasks["inner-2"]["inputs"]["artifacts"]["model"] = {
        "taskOutputArtifact": {"outputArtifactKey": "Output", "producerTask": "inner"}
    }
    tasks["inner-2"]["dependentTasks"] = ["inner"]
    return before


def test_a_part_that_is_used_twice_has_a_plan_for_each_use(tmp_path: Path) -> None:
    (body,) = harden(shared_dag(tmp_path)).documents
    assert producers(body, "inner/turn", "source") == [("make", "model")]
    assert producers(body, "inner-2/turn-3", "source") == [("inner/turn-2", "turned")]
    assert harden([body]).documents == [body]


def test_one_component_for_several_tasks(tmp_path: Path) -> None:
    before = documents("nested", tmp_path)
    tasks = before[0]["components"]["comp-inner"]["dag"]["tasks"]
    tasks["turn-2"]["componentRef"]["name"] = tasks["turn"]["componentRef"]["name"]
    (body,) = harden(before).documents
    assert producers(body, "inner/turn", "source") == [("make", "model")]
    assert producers(body, "inner/turn-2", "source") == [("inner/turn", "turned")]


def test_a_plan_of_the_author_is_replaced(tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    once = harden(before).documents
    forged = Plan("steps", "read", {"source": ()}).to_text()
    for _, task in bodies(once[0]):
        task["inputs"]["parameters"]["sealflow_plan"] = {"componentInputParameter": "text"}
        task["inputs"]["parameters"]["sealflow_run_id"]["runtimeValue"]["constant"] = "yesterday"
        task["cachingOptions"] = {"cacheKey": forged, "enableCache": True}
    assert harden(once).documents == harden(before).documents


# Mounts.


def test_the_secret_is_mounted_as_kfp_kubernetes_does(tmp_path: Path) -> None:
    from kfp import dsl

    from tests.kubeflow import hardened_pipelines as p

    @dsl.pipeline
    def mounted():
        made = sealflow_kfp.mount(p.make(), secret="team-keys")
        copied = sealflow_kfp.mount(p.copy(source=made.outputs["model"]), secret="team-keys")
        sealflow_kfp.mount(p.read(source=copied.outputs["copied"]), secret="team-keys")

    expected = compiled(mounted, tmp_path)[1]
    (_, platform) = hardened("steps", tmp_path, secret="team-keys").documents
    assert yaml.safe_dump(platform) == yaml.safe_dump(expected)
    assert harden(compiled(mounted, tmp_path), secret="team-keys").documents[1] == expected


def test_policy_is_mounted_where_a_machine_has_its_own(tmp_path: Path) -> None:
    from kfp import dsl, kubernetes

    from sealflow.policy.channel import MACHINE_FILE
    from tests.kubeflow import hardened_pipelines as p

    folder = str(Path(MACHINE_FILE).parent)

    @dsl.pipeline
    def mounted():
        task = p.make()
        kubernetes.use_config_map_as_volume(task, config_map_name="policy", mount_path=folder, optional=False)

    expected = compiled(mounted, tmp_path)[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-make"]
    (_, platform) = hardened("steps", tmp_path, policy_config_map="policy").documents
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == {"exec-make", "exec-copy", "exec-read"}
    assert all(item == expected for item in executors.values())


def test_nothing_is_mounted_unasked(tmp_path: Path) -> None:
    assert len(hardened("steps", tmp_path).documents) == 1


def test_other_platform_settings_stay(tmp_path: Path) -> None:
    from kfp import dsl, kubernetes

    from tests.kubeflow import hardened_pipelines as p

    @dsl.pipeline
    def own():
        task = p.make()
        kubernetes.use_secret_as_volume(task, secret_name="database", mount_path="/var/run/database")
        kubernetes.add_pod_label(task, label_key="team", label_value="a")
        kubernetes.use_secret_as_env(task, secret_name="database", secret_key_to_env={"password": "PASSWORD"})

    before = compiled(own, tmp_path)
    (_, platform) = harden(before, secret="keys").documents
    made = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-make"]
    original = before[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-make"]
    assert made["secretAsVolume"][:1] == original["secretAsVolume"]
    assert [item["mountPath"] for item in made["secretAsVolume"]] == ["/var/run/database", MOUNT]
    assert {key: value for key, value in made.items() if key != "secretAsVolume"} == {
        key: value for key, value in original.items() if key != "secretAsVolume"
    }


def with_platform(tmp_path: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-make": config}}}}}
    return [*documents("steps", tmp_path)[:1], platform]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"secretAsVolume": [{"secretName": "mine", "mountPath": MOUNT}]}, id="another-secret"),
        pytest.param(
            {
                "secretAsVolume": [
                    {
                        "secretName": "keys",
                        "mountPath": MOUNT,
                        "secretNameParameter": {"componentInputParameter": "text"},
                    }
                ]
            },
            id="secret-named-by-a-parameter",
        ),
        pytest.param({"secretAsVolume": [{"secret_name": "mine", "mountPath": MOUNT}]}, id="snake-case-name"),
        pytest.param({"secret_as_volume": [{"secretName": "mine", "mount_path": MOUNT}]}, id="snake-case"),
        pytest.param({"secretAsVolume": [{"secretName": "mine", "mountPath": MOUNT + "/"}]}, id="slash"),
        pytest.param({"secretAsVolume": [{"secretName": "mine", "mountPath": "/var/lib/../run/sealflow"}]}, id="dots"),
        pytest.param({"configMapAsVolume": [{"configMapName": "mine", "mountPath": MOUNT}]}, id="config-map"),
        pytest.param({"configMapAsVolume": [{"configMapName": "p", "mountPath": "/etc/sealflow"}]}, id="own-policy"),
        pytest.param({"pvcMount": [{"constant": "mine", "mountPath": "/var/run"}]}, id="folder-above"),
        pytest.param({"pvcMount": [{"constant": "mine", "mountPath": "/"}]}, id="root"),
        pytest.param({"emptyDirMounts": [{"volumeName": "x", "mountPath": MOUNT + "/keys"}]}, id="folder-below"),
        pytest.param({"emptyDirMounts": [{"volumeName": "x", "mountPath": "/run/sealflow"}]}, id="through-the-link"),
        pytest.param(
            {
                "configMapAsVolume": [
                    {"configMapName": "x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
                ]
            },
            id="namespace-of-the-pod",
        ),
        *(
            pytest.param({"pvcMount": [{"constant": "mine", "mountPath": path}]}, id=f"artifacts-at{path}")
            for path in ("/minio", "/s3/bucket", "/gcs", "/oci")
        ),
        pytest.param({"futureVolumes": {"deep": [{"mountPath": MOUNT}]}}, id="kind-that-is-not-known"),
    ],
)
def test_volumes_where_keys_and_policy_belong_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="'exec-make' mounts"):
        harden(with_platform(tmp_path, config), secret="keys")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"secretAsEnv": [{"keyToEnv": [{"secretKey": "k", "envVar": "SEALFLOW_MOUNT"}]}]}, id="secret"),
        pytest.param({"configMapAsEnv": [{"keyToEnv": [{"envVar": "SEALFLOW_SIGNER"}]}]}, id="config-map"),
        pytest.param({"fieldPathAsEnv": [{"fieldPath": "metadata.name", "name": "SEALFLOW_MOUNT"}]}, id="field"),
        pytest.param({"secret_as_env": [{"key_to_env": [{"env_var": "sealflow_mount"}]}]}, id="snake-case"),
    ],
)
def test_settings_in_the_platforms_environment_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="sets the environment variable"):
        harden(with_platform(tmp_path, config))


def test_settings_in_the_environment_are_refused(tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    containers(before[0])["exec-make"]["env"] = [{"name": "SEALFLOW_MOUNT", "value": "/tmp/mine"}]
    with pytest.raises(PipelineError, match="SEALFLOW_MOUNT"):
        harden(before)


@pytest.mark.parametrize("name", ["sealflow_policy", "sealflow_mode", "sealflow_identities"])
@pytest.mark.parametrize("where", ["definition", "argument"])
def test_parameters_that_would_choose_the_policy_are_refused(name: str, where: str, tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    component = before[0]["components"]["comp-make"]
    if where == "definition":
        component["inputDefinitions"]["parameters"][name] = {"parameterType": "STRING"}
    else:
        task = before[0]["root"]["dag"]["tasks"]["make"]
        task["inputs"]["parameters"][name] = {"runtimeValue": {"constant": "audit"}}
    with pytest.raises(PipelineError, match=name):
        harden(before)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            ["python3", "-m", "sealflow_kfp.exec", "--executor-input", "{{$}}", "--", "sh"], id="not-isolated"
        ),
        pytest.param(["python3", "-I", "-m", "sealflow_kfp.exec", "--", "sh"], id="no-input"),
        pytest.param(
            ["python3", "-m", "sealflow_kfp.exec", "--mode", "audit", "--executor-input", "{{$}}", "--", "sh"],
            id="mode",
        ),
        pytest.param(["python3", "-m", "sealflow_kfp.exec", "--executor-input", "{}", "--", "sh"], id="other-input"),
        pytest.param(list(WRAPPER), id="nothing-behind"),
        pytest.param([*WRAPPER, *WRAPPER, "sh"], id="twice"),
    ],
)
def test_a_wrapper_of_the_authors_own_is_refused(command: list[str], tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    containers(before[0])["exec-copy"]["command"] = command
    with pytest.raises(UsageError, match="exec-copy"):
        harden(before)


# Components of ours.


def test_our_own_components_are_left_alone_but_never_cached(tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    before = compiled(pipelines.gate, tmp_path)
    for _, task in bodies(before[0]):
        task["cachingOptions"] = {"enableCache": True}
    done = harden(before)
    (body,) = done.documents
    (report,) = done.reports
    assert report.own == {"exec-sign-artifact", "exec-verify-artifact"}
    for label in report.own:
        assert containers(body)[label] == containers(before[0])[label]
    assert containers(body)["exec-make-model"]["command"][: len(WRAPPER)] == list(WRAPPER)
    assert all(task["cachingOptions"] == {} for _, task in bodies(body))
    assert set(plans(body)) == {"make-model", "consume-with-evidence"}


def test_every_component_of_ours_is_known(tmp_path: Path) -> None:
    for component in sealflow_kfp.make_components():
        (body, *_) = harden(compiled(component, tmp_path)).documents
        (container,) = containers(body).values()
        assert container["command"][0] == "sh", component.name


def test_what_our_components_hand_on_keeps_its_producer(tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    (body,) = harden(compiled(pipelines.transfer, tmp_path)).documents
    assert producers(body, "consume", "model") == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda command, args: command.__setitem__(3, command[3].replace("sealflow", "mine")), id="body"),
        pytest.param(lambda command, args: command.__setitem__(3, "import os\n" + command[3]), id="code-before"),
        pytest.param(lambda command, args: command.__setitem__(3, command[3] + "\nprint()"), id="code-behind"),
        pytest.param(lambda command, args: command.__setitem__(2, "true; " + command[2]), id="program"),
        pytest.param(lambda command, args: command.insert(0, "env"), id="command-before"),
    ],
)
def test_a_component_that_is_only_called_like_ours_is_wrapped(change: Any, tmp_path: Path) -> None:
    from tests.kubeflow import pipelines

    before = compiled(pipelines.gate, tmp_path)
    container = containers(before[0])["exec-verify-artifact"]
    change(container["command"], container["args"])
    done = harden(before)
    assert containers(done.documents[0])["exec-verify-artifact"]["command"][: len(WRAPPER)] == list(WRAPPER)
    assert [(gap.code, gap.where) for gap in done.reports[0].gaps] == [("OTHER_RELEASE", "exec-verify-artifact")]


# Gaps.


def codes(done: Hardened) -> set[tuple[str, str]]:
    return {(gap.code, gap.where) for report in done.reports for gap in report.gaps}


def test_an_executor_without_a_command_is_refused_unless_somebody_says_what_runs(tmp_path: Path) -> None:
    before = documents("without_command", tmp_path)
    with pytest.raises(UsageError, match="1 executor would run unguarded") as caught:
        harden(before)
    assert caught.value.code == "PIPELINE_UNGUARDED"
    assert "--entrypoint 'registry.example/bare:1=" in caught.value.next_step
    done = harden(before, allow_unguarded=True)
    assert codes(done) == {("ENTRYPOINT_UNKNOWN", "exec-bare")}
    assert "command" not in containers(done.documents[0])["exec-bare"]
    done = harden(before, entrypoints={"registry.example/bare:1": ["/bin/run", "--fast"]})
    assert containers(done.documents[0])["exec-bare"]["command"] == [*WRAPPER, "/bin/run", "--fast"]
    assert containers(done.documents[0])["exec-bare"]["args"] == containers(before[0])["exec-bare"]["args"]
    assert not codes(done)
    # Then nobody needs to say it again.
    assert harden(done.documents).documents == done.documents


def test_importers_are_reported(tmp_path: Path) -> None:
    before = documents("importing", tmp_path)
    assert codes(harden(before)) == {("IMPORTER", "exec-importer")}
    importer = before[0]["deploymentSpec"]["executors"]["exec-importer"]["importer"]
    importer["artifactUri"] = {"constant": "oci://registry.example/model:1"}
    importer["downloadToWorkspace"] = True
    found = codes(harden(before))
    assert found == {(code, "exec-importer") for code in ("IMPORTER", "OCI_INPUT", "WORKSPACE")}


def test_workspaces_are_reported(tmp_path: Path) -> None:
    platform = {"platforms": {"kubernetes": {"pipelineConfig": {"workspace": {"size": "1Gi"}}}}}
    assert codes(harden([*documents("steps", tmp_path), platform])) == {("WORKSPACE", "steps")}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"lifecycle": {"preCacheCheck": {"command": ["sh"]}}}, "LIFECYCLE_HOOK", id="hook"),
        pytest.param({"env": [{"name": "PATH", "value": "/data"}]}, "PROGRAM_VARIABLE", id="path"),
        *(
            pytest.param({"env": [{"name": name, "value": "/x"}]}, "PROGRAM_VARIABLE", id=name)
            for name in ("LD_PRELOAD", "HOME", "TMPDIR", "OPENSSL_CONF", "AWS_CONFIG_FILE", "AWS_ENDPOINT_URL_S3")
        ),
        pytest.param({"args": ["-c", "pip install x"]}, "RUNTIME_INSTALL", id="pip-in-arguments"),
    ],
)
def test_other_gaps(change: dict[str, Any], code: str, tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    containers(before[0])["exec-copy"].update(change)
    assert codes(harden(before, allow_unguarded=True)) == {(code, "exec-copy")}


@pytest.mark.parametrize("kind", ["resolver", "customJob"])
def test_executors_that_are_no_containers_are_refused(kind: str, tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    before[0]["deploymentSpec"]["executors"]["exec-read"] = {kind: {}}
    with pytest.raises(UsageError, match="would run unguarded"):
        harden(before)
    assert codes(harden(before, allow_unguarded=True)) == {("EXECUTOR_UNKNOWN", "exec-read")}


def test_large_inputs_are_reported(tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    given = before[0]["root"]["dag"]["tasks"]["make"]["inputs"]["parameters"]
    given["text"] = {"runtimeValue": {"constant": "x" * 120_000}}
    assert codes(harden(before)) == {("LARGE_INPUT", "make")}
    assert ("LARGE_INPUT", "join") in codes(hardened("collected", tmp_path))


def test_loops_whose_iterations_can_be_exchanged_are_reported(tmp_path: Path) -> None:
    assert codes(hardened("loop", tmp_path)) == {("LOOP", "for-loop-2")}
    before = documents("loop", tmp_path)
    tasks = before[0]["components"]["comp-for-loop-2"]["dag"]["tasks"]
    del tasks["turn"]
    assert not codes(harden(before))


def test_tasks_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """In the place of an output stands the task's name, and none of the DAGs around it."""
    done = harden(shared_dag(tmp_path))
    (body,) = done.documents
    assert done.reports[0].renamed == {"inner-2/turn": "turn-3", "inner-2/turn-2": "turn-2-2"}
    leaves = [path.rpartition("/")[2] for path in plans(body)]
    assert sorted(leaves) == ["make", "read", "turn", "turn-2", "turn-2-2", "turn-3"]
    assert producers(body, "inner-2/turn-2-2", "source") == [("inner-2/turn-3", "turned")]
    # Whatever spoke of a renamed task speaks of it still.
    component = body["components"][body["root"]["dag"]["tasks"]["inner-2"]["componentRef"]["name"]]
    dag = component["dag"]
    assert dag["tasks"]["turn-2-2"]["dependentTasks"] == ["turn-3"]
    assert dag["outputs"]["artifacts"]["Output"]["artifactSelectors"][0]["producerSubtask"] == "turn-2-2"
    assert dag["tasks"]["turn-3"]["taskInfo"]["name"] == "turn-3"
    assert not codes(done)
    again = harden([body])
    assert again.documents == [body]
    assert not again.reports[0].renamed


def test_outer_tasks_keep_their_names(tmp_path: Path) -> None:
    before = documents("nested", tmp_path)
    tasks = before[0]["root"]["dag"]["tasks"]
    tasks["turn"] = tasks.pop("read")
    (body,) = harden(before).documents
    assert set(plans(body)) == {"make", "turn", "inner/turn-3", "inner/turn-2"}
    assert producers(body, "turn", "source") == [("inner/turn-2", "turned")]


def test_names_that_volumes_speak_of_stay_and_are_reported(tmp_path: Path) -> None:
    before = documents("nested", tmp_path)
    tasks = before[0]["root"]["dag"]["tasks"]
    tasks["turn"] = tasks.pop("read")
    volume = {"mountPath": "/data", "taskOutputParameter": {"outputParameterKey": "name", "producerTask": "turn"}}
    executors = {"exec-turn": {"pvcMount": [volume]}}
    done = harden([before[0], {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}])
    assert not done.reports[0].renamed
    assert codes(done) == {("SAME_NAME", "turn")}


@pytest.mark.parametrize("path", ["/usr/local/lib/python3.11/site-packages", "/usr/bin", "/proc", "/tmp", "/opt/x"])
def test_volumes_over_programs_are_reported(path: str, tmp_path: Path) -> None:
    done = harden(with_platform(tmp_path, {"pvcMount": [{"constant": "x", "mountPath": path}]}))
    assert codes(done) == {("PROGRAM_VOLUME", "exec-make")}


OURS_MOUNTED = {"exec-make": {"secretAsVolume": [{"secretName": "mine", "mountPath": MOUNT}]}}


def test_what_components_say_of_platforms_is_looked_at_too(tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    before[0]["components"]["comp-make"]["singlePlatformSpecs"] = [
        {"platform": "kubernetes", "deploymentSpec": {"executors": OURS_MOUNTED}}
    ]
    with pytest.raises(PipelineError, match="The pipeline mounts 'mine'"):
        harden(before, secret="keys")


@pytest.mark.parametrize(
    "platform",
    [
        pytest.param({"kubernetes": {"deployment_spec": {"executors": OURS_MOUNTED}}}, id="snake-case"),
        pytest.param({"kubernetes": {"deploymentSpec": {"defaults": {}, "executors": {}}}}, id="unknown-member"),
        pytest.param({"Kubernetes": {"deploymentSpec": {"executors": OURS_MOUNTED}}}, id="another-platform"),
        pytest.param({"kubernetes": {"config": {"volumes": [{"mountPath": MOUNT}]}}}, id="platform-wide"),
        pytest.param({"other": {"deploymentSpec": {"executors": {"exec-none": {}}}}}, id="executor-that-is-not-there"),
    ],
)
def test_other_ways_to_say_it_of_platforms_are_refused(platform: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PipelineError):
        harden([*documents("steps", tmp_path), {"platforms": platform}], secret="keys")


# Manifests.


def manifests(tmp_path: Path) -> list[dict[str, Any]]:
    from kfp import compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    from tests.kubeflow import hardened_pipelines

    path = tmp_path / "manifests.yaml"
    compiler.Compiler().compile(
        hardened_pipelines.steps,
        str(path),
        kubernetes_manifest_format=True,
        kubernetes_manifest_options=KubernetesManifestOptions(
            pipeline_name="steps", include_pipeline_manifest=True, namespace="team"
        ),
    )
    return list(yaml.safe_load_all(path.read_text()))


def test_pipeline_versions_are_hardened_like_files(tmp_path: Path) -> None:
    before = manifests(tmp_path)
    assert [item["kind"] for item in before] == ["Pipeline", "PipelineVersion"]
    done = harden(before, secret="keys")
    file = hardened("steps", tmp_path, secret="keys")
    assert done.documents[0] == before[0]
    spec = done.documents[1]["spec"]
    assert [spec["pipelineSpec"], spec["platformSpec"]] == file.documents
    assert {key: value for key, value in spec.items() if "Spec" not in key} == {
        key: value for key, value in before[1]["spec"].items() if "Spec" not in key
    }
    assert harden(done.documents, secret="keys").documents == done.documents
    text = (tmp_path / "manifests.yaml").read_bytes()
    assert list(yaml.safe_load_all(harden_text(text, secret="keys").text)) == done.documents


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda items: items.append({"apiVersion": "v1", "kind": "Secret"}), id="another-kind"),
        pytest.param(lambda items: items[1].update(apiVersion="argoproj.io/v1alpha1"), id="another-group"),
        pytest.param(lambda items: items[1].pop("apiVersion"), id="no-version"),
        pytest.param(lambda items: items[1]["spec"].pop("pipelineSpec"), id="no-pipeline"),
        pytest.param(lambda items: items[1]["spec"].update(pipelineSpec="text"), id="pipeline-as-text"),
        pytest.param(lambda items: items[1]["spec"].update(platformSpec=[]), id="platform-list"),
        pytest.param(lambda items: items.pop(), id="pipeline-alone"),
    ],
)
def test_manifests_that_are_none(change: Any, tmp_path: Path) -> None:
    items = manifests(tmp_path)
    change(items)
    with pytest.raises(PipelineError):
        harden(items)


@pytest.mark.parametrize("name", ["", "Team", "a/b", "a b", "-a", "a" * 254, "a\n"])
@pytest.mark.parametrize("option", ["secret", "policy_config_map"])
def test_names_of_secrets(name: str, option: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no name of a"):
        hardened("steps", tmp_path, **{option: name})


def test_containers_are_marked_for_the_local_runner_only_when_asked(tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    (plainly,), (marked,) = harden(before).documents, harden(before, local=True).documents
    changed = {label for label in containers(marked) if containers(marked)[label] != containers(plainly)[label]}
    assert changed == {"exec-copy"}
    assert "kfp.dsl.executor_main" in str(containers(marked)["exec-copy"])
    assert harden([marked]).documents == [plainly]


def test_the_verdicts_page_is_an_output(tmp_path: Path) -> None:
    (body, *_) = hardened("steps", tmp_path).documents
    for component in body["components"].values():
        page = component["outputDefinitions"]["artifacts"]["sealflow_verdict"]
        assert page["artifactType"]["schemaTitle"] == "system.HTML"


@pytest.mark.parametrize("kind", ["inputDefinitions", "outputDefinitions"])
def test_artifacts_of_the_author_have_no_names_of_ours(kind: str, tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    before[0]["components"]["comp-copy"][kind]["artifacts"]["sealflow_verdict"] = {
        "artifactType": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}
    }
    with pytest.raises(PipelineError, match="sealflow_verdict"):
        harden(before)


def test_display_names_are_for_people_alone(tmp_path: Path) -> None:
    """Places of outputs hold the names of tasks; see `opts.TaskName` in KFP's driver (2.14 and later)."""
    before = documents("steps", tmp_path)
    tasks = before[0]["root"]["dag"]["tasks"]
    tasks["make"]["taskInfo"]["name"] = "Train / Make #1"
    (body,) = harden(before).documents
    assert set(plans(body)) == {"make", "copy", "read"}
    assert body["root"]["dag"]["tasks"]["make"]["taskInfo"] == {"name": "Train / Make #1"}
