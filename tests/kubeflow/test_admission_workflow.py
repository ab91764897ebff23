"""Workflows at admission: every task of a KFP run comes under the guard, whatever the pipeline looks like."""

import copy
import json
import subprocess
import sys

import jsonpatch
import pytest

from sealflow_kfp import guard_command
from sealflow_kfp.admission.decide import decide
from sealflow_kfp.admission.memo import MAX_ALL, MAX_TEXT, Memo
from sealflow_kfp.admission.settings import parse_settings
from tests.kubeflow.argo import GUARD_IMAGE, TASK_IMAGE, Task, compiled, dumps
from tests.kubeflow.argo_pods import parameters, stored, task_pod, template
from tests.kubeflow.cluster_pods import AUDIT, SETTINGS, SETTINGS_TEXT, answered, changed, changes, review

LIGHTWEIGHT = Task(
    "train",
    command=(
        "sh",
        "-ec",
        'program_path=$(mktemp -d)\n\nprintf "%s" "$0" …',
        "import kfp\n\ndef train():\n    x = '{{ a }}'\n",
    ),
    args=("--executor_input", "{{$}}", "--function_to_execute", "train"),
)
PLATFORM = {
    "secretAsEnv": [{"secretName": "db", "keyToEnv": [{"secretKey": "p", "envVar": "PASSWORD"}]}],
    "pvcMount": [{"constant": "data", "mountPath": "/data"}],
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
}
SHAPES = {
    "one task": compiled([Task("train")]),
    "a lightweight component": compiled([LIGHTWEIGHT]),
    "three tasks of which two are the same": compiled([Task("a"), Task("b", after=("a",)), LIGHTWEIGHT]),
    "a task that is tried again": compiled([Task("a", variant="retry-"), Task("b")]),
    "labels and annotations of a pod": compiled(
        [Task("a", variant="metadata-1-2-"), Task("b", variant="metadata-0-3-")]
    ),
    "both": compiled([Task("a", variant="metadata-2-0-retry-")]),
    "an import": compiled([Task("a")], importer=True),
    "an import into a workspace": compiled([Task("a")], workspace=True),
    "an exit handler": compiled([Task("a")], exit_task=Task("tell", command=("sh", "-c", "echo done"))),
    "a loop": compiled([Task("a"), Task("b", after=("a",))], loop=True),
    "a bundle of certificates": compiled([Task("a")], importer=True, certificates=True),
    "a platform part": compiled([Task("a", platform=PLATFORM)]),
    "a task without a command": compiled([Task("a", command=(), args=("run", "{{$.inputs.parameters['x']}}"))]),
    "a task with variables and resources": compiled(
        [Task("a", more={"env": [{"name": "HOME", "value": "/tmp"}], "resources": {"resourceCpuLimit": "1"}})]
    ),
    "an image that a parameter names": compiled([Task("a", image="{{$.inputs.parameters['image']}}")]),
    "a volume claim that the driver makes": compiled(
        [Task("make", image="argostub/createpvc", command=("/bin/true",))]
    ),
    "a hundred tasks": compiled([Task(f"t{n}", command=("sh", "-c", f"echo {n}")) for n in range(100)]),
}


def implementations(workflow):
    found = {
        name: json.loads(text) for name, text in parameters(workflow).items() if name.startswith("implementations-")
    }
    return {name: body for name, body in found.items() if "image" in body}


@pytest.mark.parametrize("name", SHAPES)
def test_every_command_comes_under_the_guard(name):
    before = SHAPES[name]
    after = changed(before)
    expected = implementations(before)
    for body in expected.values():
        if not body["image"].startswith("argostub/"):
            body["command"] = [*guard_command.IN_DIRECTORY, *body.get("command", [])]
    assert implementations(after) == expected


@pytest.mark.parametrize("name", SHAPES)
def test_no_task_is_cached(name):
    after = changed(SHAPES[name])
    text = json.dumps(after["spec"]["templates"])
    assert "enableCache" not in text
    drivers = [one for one in after["spec"]["templates"] if one["name"].endswith("-driver")]
    assert [one["container"]["args"].count("--cache_disabled=true") for one in drivers] == [1] * len(drivers)
    assert len(drivers) == 2


@pytest.mark.parametrize("name", SHAPES)
def test_the_guard_lies_in_every_template_that_runs_tasks(name):
    after = changed(SHAPES[name])
    guard = SETTINGS.guard.mounts
    tasks = [one for one in after["spec"]["templates"] if one["name"].endswith("system-container-impl")]
    assert tasks
    for one in tasks:
        assert one["initContainers"][0] == guard.init_container()
        assert [item for item in one["volumes"] if item["name"].startswith("sealflow-")] == guard.volumes()
        mounts = one["container"]["volumeMounts"]
        assert [item for item in mounts if item["name"].startswith("sealflow-")] == guard.volume_mounts()
    others = [one for one in after["spec"]["templates"] if one not in tasks]
    assert "sealflow" not in json.dumps(others)


@pytest.mark.parametrize("name", SHAPES)
def test_once_is_enough(name):
    after = changed(SHAPES[name])
    again = decide(review(after), SETTINGS)
    assert again.allowed
    assert changes(again) == []
    assert "patch" not in answered(again)
    assert decide(review(after), SETTINGS, validate=True).allowed


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_else_is_changed(name):
    before, after = SHAPES[name], changed(SHAPES[name])
    for one in after["spec"]["templates"]:
        if one["name"].endswith("system-container-impl"):
            one["initContainers"] = one["initContainers"][1:]
            for part in (one["volumes"], one["container"]["volumeMounts"]):
                part[:] = [item for item in part if not item["name"].startswith("sealflow-")]
        named = [item for item in one.get("container", {}).get("env", []) if item["name"].startswith("METADATA_GRPC")]
        if named:
            # Two variables of a config map, in the place of all of it.
            assert {item["valueFrom"]["configMapKeyRef"]["name"] for item in named} == {"metadata-grpc-configmap"}
            one["container"]["env"] = one["container"]["env"][:-2]
            one["container"]["envFrom"] = [{"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}}]
    told = jsonpatch.make_patch(before, after).patch
    places = {item["path"].rsplit("/", 1)[0].replace("/", " ").split()[1] for item in told}
    assert places <= {"arguments", "templates"}
    for item in told:
        assert item["op"] == "replace"
        assert item["path"].endswith("/value") or item["value"] == "--cache_disabled=true"


@pytest.mark.parametrize("name", SHAPES)
def test_audit_changes_nothing_and_says_what_it_would(name):
    decision = decide(review(SHAPES[name]), AUDIT)
    assert decision.allowed
    answer = answered(decision)
    assert "patch" not in answer
    assert any("parts of Workflow team-a/churn- would be changed" in line for line in answer["warnings"])


@pytest.mark.slow
def test_a_changed_workflow_is_still_one_of_argos():
    # Argo's own schema, as Hera's models of it are generated.
    from hera.workflows.models import Workflow

    for name, body in SHAPES.items():
        before, after = Workflow.model_validate(body), Workflow.model_validate(changed(body))
        assert [one.name for one in after.spec.templates] == [one.name for one in before.spec.templates], name
        one = next(one for one in after.spec.templates if one.name.endswith("system-container-impl"))
        assert one.init_containers[0].image == SETTINGS.guard.image
        assert one.init_containers[0].security_context.run_as_non_root is True
        kept = after.model_dump(by_alias=True, exclude_none=True)["spec"]["arguments"]["parameters"]
        assert kept == changed(body)["spec"]["arguments"]["parameters"], name


@pytest.mark.parametrize("command", [["sh", "-c", "exit 0"], []])
@pytest.mark.parametrize("way", [guard_command.IN_IMAGE, guard_command.IN_DIRECTORY])
def test_a_hardened_pipeline_gets_the_guard_of_the_directory_once(way, command):
    from sealflow_kfp.hardening.commands import marked

    plain = ["sh", "-c", "echo trained"]
    for hardened in ([*way, *plain], [*way, *marked(plain)], [*way, *way, *plain]):
        after = changed(compiled([Task("a", command=tuple(hardened), args=tuple(command))]))
        [body] = implementations(after).values()
        assert body["command"] == [*guard_command.IN_DIRECTORY, *plain]
        assert body.get("args", []) == command


def test_what_a_hardened_pipeline_mounts_stays():
    platform = {
        "secretAsVolume": [{"secretName": "sealflow", "mountPath": "/var/run/sealflow", "optional": False}],
        "configMapAsVolume": [{"configMapName": "sealflow-policy", "mountPath": "/etc/sealflow"}],
    }
    workflow = changed(compiled([Task("a", platform=platform)]))
    assert decide(review(stored(task_pod(workflow, "a"))), SETTINGS).allowed


@pytest.mark.parametrize("name", SHAPES)
def test_the_pods_of_a_changed_workflow_are_taken(name):
    workflow = changed(SHAPES[name])
    for one in SHAPES[name]["spec"]["templates"]:
        for step in one.get("dag", {}).get("tasks", []):
            variant = step["template"].removesuffix("system-container-executor")
            if variant == step["template"] or step["name"] == "make":
                continue
            if name == "a hundred tasks" and step["name"] != "t99":
                continue
            pod = task_pod(workflow, step["name"], variant)
            main = pod["spec"]["containers"][1]
            main["image"] = main["image"].replace("{{$.inputs.parameters['image']}}", TASK_IMAGE)
            for body in (pod, stored(pod)):
                decision = decide(review(body), SETTINGS)
                assert decision.allowed, answered(decision)


def test_a_memo_changes_no_answer():
    memo = Memo(SETTINGS)
    hostile = compiled([Task("a", command=("python3", "-m", "sealflow_kfp.exec", "--", "sh"))])
    for body in (*SHAPES.values(), hostile, *SHAPES.values(), hostile):
        plain, quick = decide(review(body), SETTINGS), decide(review(body), SETTINGS, memo=memo)
        assert quick.response == plain.response
        # What was found under other settings says nothing here.
        told = decide(review(body), AUDIT, memo=memo)
        assert told.response == decide(review(body), AUDIT).response


def test_a_memo_is_bounded():
    memo = Memo(SETTINGS)
    for number in range(300):
        memo.keep(f"{number}" + "x" * 60_000, SETTINGS, ("task", "y" * 60_000))
    memo.keep("x" * (MAX_TEXT + 1), SETTINGS, ("task", ""))
    memo.keep("x", AUDIT, ("task", ""))
    assert memo.get("x", SETTINGS) is None
    assert memo.get("x" * (MAX_TEXT + 1), SETTINGS) is None
    assert memo.get("0" + "x" * 60_000, SETTINGS) is None
    assert memo.get("299" + "x" * 60_000, SETTINGS) == ("task", "y" * 60_000)
    assert memo.get("299" + "x" * 60_000, AUDIT) is None
    assert sum(len(text) + len(found[1]) for text, found in memo._found.items()) == memo._size <= MAX_ALL


def test_runs_go_on_over_an_upgrade_of_the_guard():
    later = GUARD_IMAGE.replace("a" * 64, "b" * 64)
    text = SETTINGS_TEXT.replace(GUARD_IMAGE, later)
    upgraded = parse_settings(text.encode())
    both = parse_settings(text.replace("  secret:", f'  previous_images: ["{GUARD_IMAGE}"]\n  secret:', 1).encode())
    old = changed(compiled([Task("a"), Task("b", variant="retry-")]))
    for body in (old, task_pod(old, "a")):
        refused = decide(review(body), upgraded)
        assert {finding.code for finding in refused.findings} == {"GUARD_FORGED"}
    assert decide(review(task_pod(old, "a")), both).allowed
    again = changed(old, both)
    assert [item["path"] for item in changes(decide(review(old), both))] == [
        "/spec/templates/2/initContainers/0/image",
        "/spec/templates/4/initContainers/0/image",
    ]
    assert again == changed(compiled([Task("a"), Task("b", variant="retry-")]), upgraded)
    assert decide(review(task_pod(again, "a")), upgraded).allowed
    # What else is in that container is the admin's as before.
    template(old, "system-container-impl")["initContainers"][0]["command"] = ["/evil"]
    assert not decide(review(old), both).allowed


def test_updates_of_progress_are_not_judged():
    # The controller writes here all the time, also to Workflows from before enforcement.
    old = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "old"}, "spec": {"x": 1}}
    new = {**old, "status": {"phase": "Running", "nodes": {"a": {"phase": "Succeeded"}}}}
    assert decide(review(new, operation="UPDATE", oldObject=old), SETTINGS).allowed
    for stop in ({"shutdown": "Terminate"}, {"suspend": True}, {"activeDeadlineSeconds": 1}):
        stopped = {**new, "spec": {**old["spec"], **stop}}
        assert decide(review(stopped, operation="UPDATE", oldObject=old), SETTINGS).allowed, stop
    other = {**new, "spec": {"x": 2}}
    assert not decide(review(other, operation="UPDATE", oldObject=old), SETTINGS).allowed


def test_a_workflow_is_deleted_unasked():
    body = review(compiled([Task("a")]), operation="DELETE", object=None, oldObject={"spec": {}})
    assert decide(body, SETTINGS).allowed


def test_an_import_is_told_of():
    decision = decide(review(SHAPES["an import"]), SETTINGS)
    assert [finding.code for finding in decision.findings] == ["TASK_NOT_GUARDABLE"]
    assert answered(decision)["warnings"] == [
        "sealflow: TASK_NOT_GUARDABLE parameter 'implementations-comp-importer': KFP's launcher imports it; no command "
        "runs that could be guarded."
    ]


def test_a_tag_is_a_warning_where_digests_are_advised():
    settings = parse_settings((SETTINGS_TEXT + "images:\n  digests: advised\n").encode())
    workflow = compiled([Task("a", image="python:3.11")])
    decision = decide(review(workflow), settings)
    assert decision.allowed
    assert [(finding.code, finding.severity) for finding in decision.findings] == [("IMAGE_NOT_PINNED", "warning")]
    assert not decide(review(workflow), SETTINGS).allowed


def test_what_an_admin_patches_into_all_pods_is_taken_word_for_word():
    patch = '{"tolerations":[{"key":"gpu"}]}'
    settings = parse_settings(
        SETTINGS_TEXT.replace("  sidecar_images", f"  pod_spec_patches: ['{patch}']\n  sidecar_images").encode()
    )
    workflow = compiled([Task("a")])
    workflow["spec"]["podSpecPatch"] = patch
    assert decide(review(workflow), settings).allowed
    workflow["spec"]["podSpecPatch"] = patch + " "
    assert not decide(review(workflow), settings).allowed


def test_fields_of_a_newer_kfp_are_taken_where_the_settings_name_them():
    workflow = compiled([Task("a")])
    workflow["spec"]["resourceClaims"] = [{"name": "gpu"}]
    template(workflow, "system-container-impl")["resourceClaims"] = [{"name": "gpu"}]
    assert not decide(review(workflow), SETTINGS).allowed
    settings = parse_settings(
        SETTINGS_TEXT.replace("  sidecar_images", "  fields: [resourceClaims]\n  sidecar_images").encode()
    )
    assert decide(review(workflow), settings).allowed


def test_a_workflow_of_kfp_2_16_with_an_admins_options():
    # Truth values stood bare, and what copies the launcher had the options of an installation.
    workflow = compiled([Task("a")], importer=True)
    for one in workflow["spec"]["templates"]:
        args = one.get("container", {}).get("args", [])
        for word, bare in (("--cache_disabled=false", "--cache_disabled"), ("--ml_pipeline_tls_enabled=false", "")):
            if word in args:
                args[args.index(word)] = bare or "--ml_pipeline_tls_enabled"
    launcher = template(workflow, "system-container-impl")["initContainers"][0]
    launcher["args"] += ["--cache_disabled", "--log_level", "3", "--publish_logs", "false"]
    changed(workflow)
    launcher["command"] += launcher.pop("args")
    changed(workflow)


def test_a_driver_before_the_option_of_the_cache():
    workflow = compiled([Task("a")])
    for one in workflow["spec"]["templates"]:
        if one["name"].endswith("-driver"):
            one["container"]["args"].remove("--cache_disabled=false")
    after = changed(workflow)
    assert "enableCache" not in json.dumps(after["spec"]["templates"])


@pytest.mark.parametrize(
    "options",
    [
        {"cachingOptions": {"enableCache": True, "cacheKey": "x"}},
        {"cachingOptions": {"cacheKey": '{"a\\u0041": 1}', "enableCache": True}},
    ],
)
def test_caching_with_a_key_of_its_own_is_turned_off(options):
    workflow = compiled([Task("a")])
    for step in template(workflow, "root")["dag"]["tasks"]:
        for item in step["arguments"]["parameters"]:
            if item["name"] == "task":
                item["value"] = dumps({**json.loads(item["value"]), **options})
    after = changed(workflow)
    told = [
        json.loads(item["value"])
        for step in template(after, "root")["dag"]["tasks"]
        for item in step["arguments"]["parameters"]
        if item["name"] == "task"
    ]
    assert [task["cachingOptions"] for task in told] == [{}]
    assert told[0]["taskInfo"] == {"name": "a"}


def test_caching_spelled_in_another_way_is_seen():
    workflow = compiled([Task("a")])
    for step in template(workflow, "root")["dag"]["tasks"]:
        for item in step["arguments"]["parameters"]:
            if item["name"] == "task":
                item["value"] = item["value"].replace("cachingOptions", "\\u0063achingOptions")
    after = changed(workflow)
    [text] = [
        item["value"]
        for item in template(after, "root")["dag"]["tasks"][0]["arguments"]["parameters"]
        if item["name"] == "task"
    ]
    assert json.loads(text)["cachingOptions"] == {}
    for spelled in (
        '{"caching_options":{"enableCache":true}}',
        '{"cachingOptions":{},"cachingOptions":{"enableCache":true}}',
    ):
        hostile = copy.deepcopy(workflow)
        for item in template(hostile, "root")["dag"]["tasks"][0]["arguments"]["parameters"]:
            if item["name"] == "task":
                item["value"] = spelled
        assert not decide(review(hostile), SETTINGS).allowed


def test_deciding_loads_neither_kfp_nor_what_guards_artifacts():
    code = (
        "import sys; import sealflow_kfp.admission.decide; "
        "print([n for n in ('kfp', 'kubernetes', 'boto3', 'sealflow.verification') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "[]"
