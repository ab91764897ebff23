"""Attacks on admission: what somebody submits who may make Workflows and pods in a guarded namespace."""

import copy
import json
import time

import pytest

from sealflow_kfp.admission.decide import decide
from sealflow_kfp.admission.review import MAX_BODY, MAX_MESSAGE
from tests.kubeflow.argo import TASK_IMAGE, Task, compiled, dumps
from tests.kubeflow.argo_pods import template
from tests.kubeflow.cluster_pods import AUDIT, SETTINGS, answered, changed, good_pods, hostile_pods, review

GOOD = good_pods()["a task under guard"]
HOSTILE = hostile_pods()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pod_is_refused(name):
    decision = decide(review(HOSTILE[name]), SETTINGS)
    assert not decision.allowed
    assert any(finding.severity == "refusal" for finding in decision.findings)
    assert "status" in answered(decision)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_labels_and_names_exempt_no_pod(name):
    pod = copy.deepcopy(HOSTILE[name])
    labels = {"app": "ml-pipeline", "sealflow/exempt": "true"}
    pod["metadata"] = {**pod["metadata"], "name": "ml-pipeline-ui", "labels": labels}
    assert not decide(review(pod), SETTINGS).allowed


def _workflow():
    return compiled([Task("train"), Task("test", after=("train",))], importer=True)


def _spec(**members):
    return lambda workflow: workflow["spec"].update(members)


def _template(name="system-container-impl", **members):
    return lambda workflow: template(workflow, name).update(members)


def _container(name="system-container-impl", **members):
    return lambda workflow: template(workflow, name)["container"].update(members)


def _step(task, **members):
    def change(workflow):
        for one in workflow["spec"]["templates"]:
            for step in one.get("dag", {}).get("tasks", []):
                if step["name"] == task:
                    step.update(members)

    return change


def _argument(task, name, value):
    def change(workflow):
        for one in workflow["spec"]["templates"]:
            for step in one.get("dag", {}).get("tasks", []):
                for item in step.get("arguments", {}).get("parameters", []) if step["name"] == task else ():
                    if item["name"] == name:
                        item.update(value if isinstance(value, dict) else {"value": value})

    return change


def _implementation(**members):
    def change(workflow):
        for item in workflow["spec"]["arguments"]["parameters"]:
            if item["name"].startswith("implementations-") and "image" in item["value"]:
                item["value"] = dumps({**json.loads(item["value"]), **members})

    return change


def _raw(text):
    def change(workflow):
        for item in workflow["spec"]["arguments"]["parameters"]:
            if item["name"].startswith("implementations-") and "image" in item["value"]:
                item["value"] = text

    return change


def _parameter(**members):
    return lambda workflow: workflow["spec"]["arguments"]["parameters"].append(members)


def _platform(**members):
    def change(workflow):
        _parameter(name="kubernetes-comp-train", value=dumps(members))(workflow)
        for one in workflow["spec"]["templates"]:
            for step in one.get("dag", {}).get("tasks", []):
                if step["name"] == "train-driver":
                    value = "{{workflow.parameters.kubernetes-comp-train}}"
                    step["arguments"]["parameters"].append({"name": "kubernetes-config", "value": value})

    return change


def _more(name, *items):
    def change(workflow):
        one = template(workflow, "system-container-impl")
        (one["container"] if name in ("env", "volumeMounts") else one)[name].extend(items)

    return change


def _new_template(**members):
    return lambda workflow: workflow["spec"]["templates"].append({"name": "mine", **members})


def _args(name, old, new):
    def change(workflow):
        args = template(workflow, name)["container"]["args"]
        args[args.index(old)] = new

    return change


_SH = {"image": TASK_IMAGE, "command": ["sh", "-c", "steal"]}
_OURS = {
    "name": "sealflow-guard", "image": TASK_IMAGE, "command": ["cp", "-r", "/evil", "/sealflow/target"],
    "volumeMounts": [{"name": "sealflow-guard", "mountPath": "/sealflow/target"}],
}  # fmt: skip
_MINE = {"persistentVolumeClaim": {"claimName": "mine"}}

#: What somebody changes in a Workflow of KFP's shape, by name.
WORKFLOWS = {
    # Other places for a command.
    "a container template of its own": _new_template(container=_SH),
    "a script": _new_template(script={**_SH, "source": "steal"}),
    "a container set": _new_template(containerSet={"containers": [{"name": "main", **_SH}]}),
    "a resource": _new_template(resource={"action": "create", "manifest": "kind: Pod"}),
    "data": _new_template(data={"source": {"artifactPaths": {}}, "transformation": []}),
    "an http request": _new_template(http={"url": "http://metadata/"}),
    "a plugin": _new_template(plugin={"hello": {}}),
    "a suspend template": _new_template(suspend={}),
    "steps": _new_template(steps=[[{"name": "a", "template": "root"}]]),
    "an empty template": _new_template(),
    "a dag beside a container": _template("root", container=_SH),
    "a script beside the container": _template(script={**_SH, "source": "steal"}),
    "template defaults": _spec(templateDefaults={"container": _SH}),
    "a pod patch for all": _spec(podSpecPatch='{"containers":[{"name":"main","command":["sh"]}]}'),
    "a workflow template": _spec(workflowTemplateRef={"name": "mine"}),
    "a template of another Workflow": _step("train", templateRef={"name": "mine", "template": "x"}),
    "a template inside of a task": _step("train", inline={"container": _SH}),
    "a hook of the Workflow": _spec(hooks={"running": {"template": "mine"}}),
    "an exit handler of the Workflow": _spec(onExit="root"),
    "a hook while a task runs": _step("train", hooks={"running": {"template": "root"}}),
    "an exit hook with a template of another": _step("train", hooks={"exit": {"templateRef": {"name": "x"}}}),
    "hooks that are a list": _step("train", hooks=[]),
    "a sidecar": _template(sidecars=[{"name": "helper", **_SH}]),
    "a daemon": _template(daemon=True),
    "another init container": _more("initContainers", {"name": "first", **_SH}),
    "a hook in the container": _container(lifecycle={"postStart": {"exec": {"command": ["sh"]}}}),
    "a probe in the container": _container(livenessProbe={"exec": {"command": ["sh"]}}),
    "a command in the task's template": _container(command=["sh", "-c", "steal"]),
    "arguments in the task's template": _container(args=["steal"]),
    "a task template without the driver's patch": _template(podSpecPatch='{"containers":[]}'),
    "a patch around the driver's": _template(podSpecPatch='{{inputs.parameters.pod-spec-patch}}{"hostPID":true}'),
    "an artifact that brings a file": _template(
        inputs={"parameters": [{"name": "pod-spec-patch"}], "artifacts": [{"name": "f", "raw": {"data": "x"}}]}
    ),
    "a task template's own default patch": _template(
        inputs={"parameters": [{"name": "pod-spec-patch", "default": '{"hostPID":true}'}]}
    ),
    "a metadata volume of the node": _template(volumes=[{"name": "n", "hostPath": {"path": "/"}}]),
    # KFP's own programs.
    "another image for the driver": _container("system-container-driver", image=TASK_IMAGE),
    "another image for the importer": _container("system-importer", image=TASK_IMAGE),
    "the importer runs a task": _args("system-importer", "importer", "container"),
    "a command behind the importer's options": lambda workflow: template(workflow, "system-importer")["container"][
        "args"
    ].extend(["--", "sh"]),
    "a driver with an implementation of its own": _args(
        "system-container-driver", "{{inputs.parameters.container}}", dumps(_SH)
    ),
    "a driver that reads the patch from elsewhere": _args(
        "system-container-driver", "{{outputs.parameters.pod-spec-patch.path}}", "/data/patch"
    ),
    "a driver's default implementation": lambda workflow: template(workflow, "system-container-driver")["inputs"][
        "parameters"
    ][2].update(default=dumps(_SH)),
    "a driver that says what the template says": lambda workflow: template(workflow, "system-container-driver")[
        "outputs"
    ]["parameters"][0].update(value='{"containers":[{"name":"main","command":["sh"]}]}'),
    "a driver whose patch has a default": lambda workflow: template(workflow, "system-container-driver")["outputs"][
        "parameters"
    ][0]["valueFrom"].update(default='{"containers":[]}'),
    "a driver whose patch comes from a config map": lambda workflow: template(workflow, "system-container-driver")[
        "outputs"
    ]["parameters"][0].update(valueFrom={"configMapKeyRef": {"name": "mine", "key": "x"}}),
    "a driver that finds everything in the cache": lambda workflow: template(workflow, "system-container-driver")[
        "outputs"
    ]["parameters"][1].update(default="true"),
    "a driver with an output that is an artifact": lambda workflow: template(workflow, "system-container-driver")[
        "outputs"
    ].update(artifacts=[{"name": "a", "path": "/etc"}]),
    "another launcher": lambda workflow: template(workflow, "system-container-impl")["initContainers"][0].update(
        image=TASK_IMAGE
    ),
    "a launcher that is copied elsewhere": lambda workflow: template(workflow, "system-container-impl")[
        "initContainers"
    ][0].update(args=["--copy", "/minio/launch"]),
    "a launcher with the mounts of the task": lambda workflow: template(workflow, "system-container-impl")[
        "initContainers"
    ][0].update(mirrorVolumeMounts=True),
    **{
        f"variables from elsewhere in {name}": _container(name, envFrom=[{"configMapRef": {"name": "mine"}}])
        for name in ("system-container-impl", "system-container-driver", "system-importer")
    },
    "KFP's variables under a prefix": _container(
        envFrom=[{"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}, "prefix": "ARGO_CONTAINER_"}]
    ),
    "variables from elsewhere in the launcher": lambda workflow: template(workflow, "system-container-impl")[
        "initContainers"
    ][0].update(envFrom=[{"configMapRef": {"name": "mine"}}]),
    "a PATH in the launcher": lambda workflow: template(workflow, "system-container-impl")["initContainers"][0].update(
        env=[{"name": "PATH", "value": "/data"}]
    ),
    "a PATH in the driver": lambda workflow: template(workflow, "system-container-driver")["container"]["env"].append(
        {"name": "PATH", "value": "/data"}
    ),
    **{
        f"files over the program of {name}": _container(name, volumeMounts=[{"name": "mine", "mountPath": "/bin"}])
        for name in ("system-container-driver", "system-importer")
    },
    "files over the program that copies the launcher": lambda workflow: template(workflow, "system-container-impl")[
        "initContainers"
    ][0]["volumeMounts"].append({"name": "gcs-scratch", "mountPath": "/usr/local/bin"}),
    "arguments from a file": _more("env", {"name": "ARGO_CONTAINER_ARGS_FILE", "value": "/data/args"}),
    "the keys among a task's outputs": _template(
        outputs={"parameters": [{"name": "k", "valueFrom": {"path": "/var/run/sealflow/sign.pem"}}]}
    ),
    "any output of a task": _template(outputs={"parameters": [{"name": "k", "valueFrom": {"path": "/tmp/outputs/k"}}]}),
    "the keys among a driver's outputs": lambda workflow: template(workflow, "system-container-driver")["outputs"][
        "parameters"
    ].append({"name": "k", "valueFrom": {"path": "/tmp/outputs/../../var/run/sealflow/sign.pem"}}),
    "an output of an import": _template(
        "system-importer", outputs={"parameters": [{"name": "k", "valueFrom": {"path": "/kfp-workspace/k"}}]}
    ),
    # Values from elsewhere.
    "an implementation in a task": _argument("train-driver", "container", dumps(_SH)),
    "an implementation from a config map": _argument(
        "train-driver", "container", {"value": "", "valueFrom": {"configMapKeyRef": {"name": "mine", "key": "x"}}}
    ),
    "an implementation that is not there": _argument(
        "train-driver", "container", "{{workflow.parameters.implementations-none}}"
    ),
    "an implementation by another name": _argument("train-driver", "container", "{{workflow.parameters.mine}}"),
    "an implementation by an expression": _argument("train-driver", "container", "{{=workflow.parameters.mine}}"),
    "an import as implementation": _argument(
        "train-driver", "container", "{{workflow.parameters.implementations-comp-importer}}"
    ),
    "a pod patch in a task": _argument("train", "pod-spec-patch", '{"containers":[{"name":"main"}]}'),
    "a pod patch of another task": _argument(
        "train", "pod-spec-patch", "{{tasks.importer.outputs.parameters.pod-spec-patch}}"
    ),
    "a decision on the cache": _argument("train", "cached-decision", "true"),
    "a platform part in a task": lambda workflow: template(workflow, "root")["dag"]["tasks"][0]["arguments"][
        "parameters"
    ].append({"name": "kubernetes-config", "value": "{}"}),
    "a platform part with the node's powers": _platform(securityContext={"privileged": True}),
    "a platform part that is no object": _parameter(name="kubernetes-comp-x", value="[]"),
    "a platform part that Argo fills in": _parameter(name="kubernetes-comp-x", value='{"a":"{{workflow.name}}"}'),
    "an argument with a value from elsewhere as well": lambda workflow: template(workflow, "root")["dag"]["tasks"][0][
        "arguments"
    ]["parameters"][0].update(valueFrom={"expression": "mine"}),
    "a parameter from a config map": _parameter(
        name="implementations-x", valueFrom={"configMapKeyRef": {"name": "mine", "key": "x"}}
    ),
    "a parameter without a value": _parameter(name="implementations-x"),
    "a parameter with a default": _parameter(name="x", value="1", default="2"),
    "a parameter twice": _parameter(name="components-root", value="{}"),
    "arguments that are artifacts": lambda workflow: workflow["spec"]["arguments"].update(artifacts=[{"name": "a"}]),
    "a template twice": lambda workflow: workflow["spec"]["templates"].append(
        copy.deepcopy(workflow["spec"]["templates"][0])
    ),
    "an entrypoint that is not there": _spec(entrypoint="mine"),
    "a task whose template is not there": _step("train", template="mine"),
    "no templates": _spec(templates=[]),
    "templates that are texts": _spec(templates=["root"]),
    # In an implementation.
    "an implementation with a hook": _implementation(lifecycle={"preCacheCheck": {"command": ["sh"]}}),
    "an implementation that is no JSON": _raw("{{inputs.parameters.x}}"),
    "an implementation with a key twice": _raw(f'{{"image":"{TASK_IMAGE}","command":["a"],"command":["sh"]}}'),
    "an implementation that Argo fills in": _implementation(command=["sh", "-c", "{{workflow.parameters.x}}"]),
    "an implementation with an expression": _implementation(command=["{{=sprig.env('X')}}"]),
    "an implementation that Argo fills in, behind escapes": _raw(
        f'{{"image":"{TASK_IMAGE}",' + '"command":["sh","-c","\\u007b\\u007bworkflow.parameters.x}}"]}'
    ),
    "an implementation that Argo fills in, by an escaped name": _raw(
        f'{{"image":"{TASK_IMAGE}",' + '"command":["sh","-c","{{w\\u006frkflow.parameters.x}}"]}'
    ),
    "an implementation that Argo fills in, over two lines": _raw(
        f'{{"image":"{TASK_IMAGE}",' + '"command":["sh","-c","{{\\nworkflow.parameters.x}}"]}'
    ),
    "a variable that Argo fills in, behind escapes": _raw(
        f'{{"image":"{TASK_IMAGE}",' + '"command":["sh"],"env":[{"name":"A","value":"\\u007b{workflow.name}}"}]}'
    ),
    "a component that Argo fills in": _parameter(name="components-x", value="{{workflow.parameters.x}}"),
    "a component that Argo fills in, behind escapes": _parameter(
        name="components-x", value='{"a":"\\u007b\\u007bworkflow.parameters.x}}"}'
    ),
    "a component that hides what it says": _parameter(name="components-x", value='{"a":"\\u007b'),
    "a platform part that Argo fills in, behind escapes": _parameter(
        name="kubernetes-comp-x", value='{"a":"\\u007b\\u007bworkflow.name}}"}'
    ),
    "an implementation without an image": _raw('{"command":["sh"]}'),
    "an implementation that is a list": _raw("[]"),
    "a command that is a text": _implementation(command="sh"),
    "no command at all": _implementation(command=[], args=[]),
    "an image by tag": _implementation(image="python:3.11"),
    "an import with a command": _raw('{"artifactUri":{"constant":"s3://b/x"},"command":["sh"]}'),
    "the guard's module in another Python": _implementation(command=["/data/python", "-m", "sealflow_kfp.exec", "--"]),
    "the guard's module without isolation": _implementation(command=["python3", "-m", "sealflow_kfp.exec", "--", "sh"]),
    "another executor input for the guard": _implementation(
        command=["/sealflow/guard/guard", "--executor-input", "{}", "--", "sh"]
    ),
    "the guard with an option more": _implementation(
        command=["/sealflow/guard/guard", "--mode=audit", "--executor-input", "{{$}}", "--", "sh"]
    ),
    "a program beside the guard": _implementation(command=["/sealflow/guard/evil", "x"]),
    "the guard in the arguments": _implementation(
        command=[], args=["/sealflow/guard/guard", "--executor-input", "{{$}}", "--", "sh"]
    ),
    "the guard split between command and arguments": _implementation(
        command=["/sealflow/guard/guard"], args=["--executor-input", "{{$}}", "--", "sh"]
    ),
    "a setting of sealflow's": _implementation(env=[{"name": "SEALFLOW_MOUNT", "value": "/data"}]),
    "a library for every program": _implementation(env=[{"name": "LD_PRELOAD", "value": "/data/x.so"}]),
    "arguments in a file": _implementation(env=[{"name": "ARGO_CONTAINER_ARGS_FILE", "value": "/data/args"}]),
    "a variable without a name": _implementation(env=[{"value": "1"}]),
    # The guard's own pieces, brought along.
    "an init container under the guard's name": _more("initContainers", _OURS),
    "a volume under the guard's name": _more("volumes", {"name": "sealflow-guard", **_MINE}),
    "a volume under the name of the keys": _more("volumes", {"name": "sealflow-secret", **_MINE}),
    "a volume under the name of the policy": _more("volumes", {"name": "sealflow-policy", **_MINE}),
    "a volume of the Workflow under the guard's name": _spec(volumes=[{"name": "sealflow-guard", **_MINE}]),
    "the keys under another name": _more(
        "volumes", {"name": "k", "projected": {"sources": [{"secret": {"name": "sealflow"}}]}}
    ),
    "a part of the guard's volume": _more(
        "volumeMounts", {"name": "sealflow-guard", "mountPath": "/sealflow/guard", "subPath": "x", "readOnly": True}
    ),
    "the guard's volume to write": _more("volumeMounts", {"name": "sealflow-guard", "mountPath": "/data"}),
    "a mount over the guard": _more("volumeMounts", {"name": "gcs-scratch", "mountPath": "/sealflow/guard/lib"}),
    "a mount under the guard": _more("volumeMounts", {"name": "gcs-scratch", "mountPath": "/sealflow"}),
    "a mount over the settings": _more("volumeMounts", {"name": "gcs-scratch", "mountPath": "/run/sealflow/x"}),
    "a mount over the policy": _more("volumeMounts", {"name": "gcs-scratch", "mountPath": "//etc/./sealflow"}),
    "the guard's volume in the launcher": lambda workflow: template(workflow, "system-container-impl")[
        "initContainers"
    ][0]["volumeMounts"].append({"name": "sealflow-guard", "mountPath": "/x"}),
    "the guard's volume in the driver": _container(
        "system-container-driver", volumeMounts=[{"name": "sealflow-guard", "mountPath": "/x"}]
    ),
    "a setting in the task's template": _more("env", {"name": "SEALFLOW_TMPDIR", "value": "/data"}),
    "another secret where keys lie": _platform(
        secretAsVolume=[{"secretName": "mine", "mountPath": "/var/run/sealflow"}]
    ),
    "another secret under where keys lie": _platform(secretAsVolume=[{"secretName": "mine", "mountPath": "/var/run"}]),
    "another config map where the policy lies": _platform(
        configMapAsVolume=[{"configMapName": "mine", "mountPath": "/etc/sealflow"}]
    ),
    "a claim over the guard": _platform(pvcMount=[{"constant": "mine", "mountPath": "/sealflow/guard"}]),
    **{
        f"{kind} where a link of the image could lead": _platform(**{kind: [{name: "mine", "mountPath": "/a/b"}]})
        for kind, name in (
            ("secretAsVolume", "secretName"),
            ("configMapAsVolume", "configMapName"),
            ("pvcMount", "constant"),
            ("genericEphemeralVolume", "volumeName"),
        )
    },
    "a claim of many pods at /tmp": _platform(pvcMount=[{"constant": "mine", "mountPath": "/tmp"}]),
    "a setting by the platform": _platform(secretAsEnv=[{"keyToEnv": [{"envVar": "SEALFLOW_MOUNT"}]}]),
    # Of the Workflow itself.
    "the node's network": _spec(hostNetwork=True),
    "no spec": lambda workflow: workflow.pop("spec"),
    "a spec that is a list": lambda workflow: workflow.update(spec=[]),
}  # fmt: skip


def test_the_workflow_that_they_change_is_taken():
    assert decide(review(_workflow()), SETTINGS).allowed


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_hostile_workflow_is_refused(name):
    workflow = _workflow()
    WORKFLOWS[name](workflow)
    assert workflow != _workflow()
    decision = decide(review(workflow), SETTINGS)
    assert not decision.allowed
    assert "patch" not in answered(decision)
    assert 0 < len(answered(decision)["status"]["message"]) <= MAX_MESSAGE
    told = decide(review(workflow), AUDIT)
    assert told.allowed
    assert "patch" not in answered(told)
    assert told.findings == decision.findings


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_not_made_hostile_after_it_was_changed(name):
    # The same change on what is guarded already, by an update, or by another webhook after ours.
    old = changed(_workflow())
    workflow = copy.deepcopy(old)
    WORKFLOWS[name](workflow)
    update = decide(review(workflow, operation="UPDATE", oldObject=old), SETTINGS)
    assert not update.allowed
    assert not decide(review(workflow), SETTINGS, validate=True).allowed


def test_a_workflow_that_nobody_changed_is_refused_by_the_validating_webhook():
    decision = decide(review(_workflow()), SETTINGS, validate=True)
    assert not decision.allowed
    assert [finding.code for finding in decision.findings if finding.severity == "refusal"] == ["TASK_UNGUARDED"]
    assert "patch" not in answered(decision)


_DONE = {"phase": "Running", "nodes": {"churn-x-1": {"phase": "Succeeded", "displayName": "verify"}}}
STATUSES = {
    "a task that has succeeded": _DONE,
    "a spec of its own": {"storedWorkflowTemplateSpec": {"entrypoint": "mine", "templates": [{"name": "mine"}]}},
    "templates of its own": {"storedTemplates": {"namespaced/mine/x": {"name": "x"}}},
    "a run that is over": {"phase": "Succeeded"},
    "nodes where nobody reads them": {"compressedNodes": "H4sIAAAA"},
    "a list": ["x"],
}


@pytest.mark.parametrize("status", STATUSES)
def test_nobody_but_argo_and_kfp_says_what_ran(status):
    fresh = changed(_workflow())
    workflow = {**copy.deepcopy(fresh), "status": STATUSES[status]}
    author = {"userInfo": {"username": "system:serviceaccount:team-a:default-editor"}}
    for validate in (False, True):
        made = decide(review(workflow, **author), SETTINGS, validate=validate)
        written = decide(review(workflow, operation="UPDATE", oldObject=fresh, **author), SETTINGS, validate=validate)
        for decision in (made, written):
            assert not decision.allowed
            refused = [finding for finding in decision.findings if finding.severity == "refusal"]
            assert [(finding.code, finding.rule) for finding in refused] == [
                ("WORKFLOW_REFUSED", "kubeflow.status_writers")
            ]
    # The controller goes on, KFP tries a run again, and its author stops it.
    assert decide(review(workflow, operation="UPDATE", oldObject=fresh), SETTINGS, validate=True).allowed
    kfp = {"userInfo": {"username": "system:serviceaccount:kubeflow:ml-pipeline"}}
    assert decide(review(workflow, **kfp), SETTINGS).allowed
    stopped = {**workflow, "spec": {**workflow["spec"], "shutdown": "Terminate"}}
    assert decide(review(stopped, operation="UPDATE", oldObject=workflow, **author), SETTINGS).allowed


def test_one_task_taken_from_under_the_guard_again_is_put_back():
    old = changed(_workflow())
    workflow = copy.deepcopy(old)
    _implementation(command=["sh", "-c", "steal"])(workflow)
    again = changed(workflow)
    commands = [
        json.loads(item["value"])["command"][0]
        for item in again["spec"]["arguments"]["parameters"]
        if item["name"].startswith("implementations-") and "image" in item["value"]
    ]
    assert set(commands) == {"/sealflow/guard/guard"}


BODIES = {
    "nothing": b"",
    "no JSON": b"hello",
    "no UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "a number": b"1",
    "no kind": b'{"apiVersion":"admission.k8s.io/v1"}',
    "another version": b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"1"}}',
    "another kind": b'{"apiVersion":"admission.k8s.io/v1","kind":"Status","request":{"uid":"1"}}',
    "no request": b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}',
    "a request that is null": b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}',
    "no uid": review(HOSTILE["a pod that is no task"]).replace(b'"uid"', b'"uid2"'),
    "a uid that is a list": review(HOSTILE["a pod that is no task"], uid=[]),
    "a uid with a line break": review(HOSTILE["a pod that is no task"], uid="a\nb"),
    "a uid without end": review(HOSTILE["a pod that is no task"], uid="a" * 1000),
    "a key twice": review(_workflow()).replace(b'"spec": {', b'"spec": {}, "spec": {', 1),
    "a key twice, deep": review(_workflow()).replace(b'"emptyDir": {}', b'"emptyDir": {}, "emptyDir": {}', 1),
    "half a pair": review(_workflow()).replace(b"churn-", b"churn\\ud800", 1),
    "a number without end": review(_workflow()).replace(b'"finishedAt": null', b'"finishedAt": 1e999', 1),
    "not a number": review(_workflow()).replace(b'"finishedAt": null', b'"finishedAt": NaN', 1),
    "deep lists": review(_workflow()).replace(b'"finishedAt": null', b'"a":' + b"[" * 20_000 + b"]" * 20_000, 1),
    "deep objects": review(_workflow()).replace(
        b'"finishedAt": null', b'"a":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000, 1
    ),
    "a huge body": review(_workflow()) + b" " * MAX_BODY,
    "a million values": review(_workflow()).replace(b'"finishedAt": null', b'"a":[' + b"[]," * 700_000 + b"[]]", 1),
    "a cut body": review(_workflow())[:-200],
    "two bodies": review(_workflow()) * 2,
}


@pytest.mark.parametrize("settings", [SETTINGS, AUDIT], ids=["enforce", "audit"])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_review_is_no_yes(name, settings):
    decision = decide(BODIES[name], settings)
    assert (decision.status, decision.allowed) == (400, False)
    assert answered(decision)["allowed"] is False


@pytest.mark.parametrize(
    "kind",
    [
        {"group": "argoproj.io", "version": "v1alpha1", "kind": "WorkflowTemplate"},
        {"group": "apps", "version": "v1", "kind": "Pod"},
        {"group": "", "version": "v1", "kind": "Workflow"},
        {"group": "", "version": "v1", "kind": "Secret"},
    ],
)
def test_an_object_of_another_kind_is_refused(kind):
    decision = decide(review(_workflow(), kind=kind), SETTINGS)
    assert not decision.allowed
    assert [finding.code for finding in decision.findings] == ["REVIEW_MALFORMED"]


@pytest.mark.parametrize("body", [None, [], "x", 1, {}, {"spec": None}, {"spec": {"containers": None}}, {"spec": 1}])
@pytest.mark.parametrize("kind", [("argoproj.io", "Workflow"), ("", "Pod")])
def test_an_object_that_is_none_is_refused(kind, body):
    members = {"kind": {"group": kind[0], "version": "v1", "kind": kind[1]}, "object": body}
    assert not decide(review(_workflow(), **members), SETTINGS).allowed


def test_names_full_of_control_characters_harm_no_log():
    pod = copy.deepcopy(HOSTILE["a pod that is no task"])
    pod["metadata"]["name"] = "x\x1b[2J\n{}\u202e" * 50
    pod["spec"]["containers"].append({"name": "a\r\nallowed: true", "image": "\x00" * 500})
    decision = decide(review(pod, namespace="a\nb"), SETTINGS)
    for text in (decision.name, decision.namespace, *(finding.line() for finding in decision.findings)):
        assert text.isprintable()
    assert all(line.isprintable() for line in answered(decision)["status"]["message"].split("\n"))


def test_a_thousand_faults_make_a_short_answer():
    workflow = _workflow()
    workflow["spec"]["templates"] += [{"name": f"mine-{n}", "script": {"source": "x" * 500}} for n in range(2000)]
    decision = decide(review(workflow), SETTINGS)
    assert len(decision.response) < 8 * 1024
    assert len(decision.findings) == 100
    assert "and 1992 more" in answered(decision)["status"]["message"]
    told = answered(decide(review(workflow), AUDIT))
    assert len(json.dumps(told)) < 12 * 1024
    assert len(told["warnings"]) == 15


_MANY = 60_000
_LARGE = {
    "volumes": lambda spec: spec.update(volumes=[{"name": f"v{n}", "emptyDir": {}} for n in range(_MANY)]),
    "volumes of one name": lambda spec: spec.update(volumes=[{"name": "v", "emptyDir": {}}] * _MANY),
    "containers": lambda spec: spec.update(containers=[{"name": f"c{n}"} for n in range(_MANY)]),
    "containers called main": lambda spec: spec.update(containers=[{"name": "main"}] * _MANY),
    "init containers": lambda spec: spec.update(initContainers=[{"name": f"c{n}"} for n in range(_MANY)]),
    "mounts": lambda spec: spec["containers"][1].update(
        volumeMounts=[{"name": "v", "mountPath": f"/{n}"} for n in range(_MANY)]
    ),
    "tokens in mounts of tokens": lambda spec: (
        spec["volumes"][-1]["projected"].update(sources=[{"serviceAccountToken": {"path": "token"}}] * 20_000),
        spec["containers"][1].update(volumeMounts=[spec["containers"][1]["volumeMounts"][-1]] * 2_000),
    ),
    "variables": lambda spec: spec["containers"][1].update(env=[{"name": f"E{n}"} for n in range(_MANY)]),
    "arguments": lambda spec: spec["containers"][1].update(args=["a"] * _MANY * 4),
    "options": lambda spec: spec["containers"][1].update(command=[f"--o{n}=1" for n in range(_MANY)]),
    "fields": lambda spec: spec.update({f"f{n}": 1 for n in range(_MANY)}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", _LARGE)
def test_the_work_grows_with_the_request_and_no_faster(name):
    pod = copy.deepcopy(GOOD)
    _LARGE[name](pod["spec"])
    body = review(pod)
    assert len(body) < MAX_BODY
    begun = time.process_time()
    decision = decide(body, SETTINGS)
    # Quadratic work took a minute.
    assert time.process_time() - begun < 15
    assert not decision.allowed or name == "variables"
    assert len(decision.response) < 8 * 1024
