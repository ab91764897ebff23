"""Policies for Kyverno: the same answers as the admission server's last gate, and a form that Kyverno takes."""

from __future__ import annotations

import copy
import importlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from sealflow.errors import UsageError
from sealflow_kfp import spec_patch
from sealflow_kfp.admission.decide import decide
from sealflow_kfp.admission.settings import parse_settings
from sealflow_kfp.hardening.commands import own_component, own_patterns
from sealflow_kfp.kyverno import (
    API_VERSIONS,
    CONNECTIONS,
    PODS,
    POLICY_NAMES,
    WORKFLOWS,
    TrustPolicyMark,
    is_own,
    manifest,
    policies,
)
from tests.kubeflow.argo import Task, compiled
from tests.kubeflow.cluster_pods import (
    SETTINGS,
    SETTINGS_TEXT,
    answered,
    changed,
    good_pods,
    hostile_pods,
    review,
)


@pytest.fixture(scope="module")
def policy(loud: Callable[[str], None]) -> Callable[[dict[str, Any]], Any]:
    """Compile a policy."""
    if sys.version_info < (3, 11):
        what = "the policies for Kyverno are not evaluated: cel-expr-python has nothing for Python 3.10"
        loud(what)
        pytest.skip(what)
    return importlib.import_module("tests.kubeflow.cel").Policy  # type: ignore[no-any-return]


CREATOR = "system:serviceaccount:kubeflow:argo"
GOOD, HOSTILE = good_pods(), hostile_pods()


@pytest.fixture(scope="module")
def gates(policy: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The policies for the settings of the tables, compiled."""
    return {item["metadata"]["name"]: policy(item) for item in policies(SETTINGS)}


def request(operation: str = "CREATE", user: str = CREATOR) -> dict[str, Any]:
    return {"operation": operation, "namespace": "team-a", "userInfo": {"username": user}}


def refusals(gate: Any, pod: dict[str, Any], **more: Any) -> list[str]:
    return list(gate.refusals(object=pod, request=request(), **more))


def allowed(pod: dict[str, Any]) -> bool:
    return bool(answered(decide(review(pod), SETTINGS))["allowed"])


# --- Pods: the table that the admission server is held to ---


@pytest.mark.parametrize("name", GOOD)
def test_a_good_pod_is_taken(name: str, gates: dict[str, Any]) -> None:
    assert refusals(gates[PODS], GOOD[name]) == []


# The admission server refuses all of them in tests/attacks; the quick tests try some of them here.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (index % 8 > 0)) for index, name in enumerate(HOSTILE)]
)
def test_a_hostile_pod_is_refused(name: str, gates: dict[str, Any]) -> None:
    assert refusals(gates[PODS], HOSTILE[name], most=1)


def _strange(name: str) -> dict[str, Any]:
    pod = copy.deepcopy(GOOD["a task under guard"])
    (main,) = [item for item in pod["spec"]["containers"] if item["name"] == "main"]
    command = main["command"]
    start = command.index("/kfp-launcher/launch")
    if name == "an option as the value of another":
        command[start + 2 : start + 3] = ["--run_id", "sh"]
    elif name == "a word behind an option that has its value":
        command.insert(-1, "sh")
    elif name == "a first word that is no option":
        command.insert(start + 1, "sh")
    elif name == "an option with one dash":
        command.insert(-1, "-copy=/tmp")
    elif name == "a command that is too long to read":
        command[-1:-1] = [f"--task_spec={number}" for number in range(80)]
    elif name == "a path with empty parts":
        main["volumeMounts"].append({"name": "tmp", "mountPath": "//sealflow"})
    elif name == "the root":
        main["volumeMounts"].append({"name": "tmp", "mountPath": "/"})
    elif name == "sixty thousand volumes":
        pod["spec"]["volumes"] += [{"name": f"v{number}", "emptyDir": {}} for number in range(60_000)]
    elif name == "ten thousand mounts":
        main["volumeMounts"] += [{"name": "tmp", "mountPath": f"/m{number}"} for number in range(10_000)]
    elif name == "a guard with a line break":
        main["args"][0] = f"{main['args'][0]}\n"
    return pod


@pytest.mark.parametrize(
    "name",
    [
        "an option as the value of another",
        "a word behind an option that has its value",
        "a first word that is no option",
        "an option with one dash",
        "a command that is too long to read",
        "a path with empty parts",
        "the root",
        "a guard with a line break",
        "sixty thousand volumes",
        "ten thousand mounts",
    ],
)
def test_what_rules_in_cel_could_misread_is_refused(name: str, gates: dict[str, Any]) -> None:
    # The first answer is all that Kyverno gives, and all that it pays for.
    assert gates[PODS].refusals(object=_strange(name), request=request(), most=1)


@pytest.mark.parametrize("name", ["a creator", "an image"])
def test_an_exemption_is_the_admission_servers(name: str, gates: dict[str, Any]) -> None:
    bare = {"containers": [{"name": "notebook", "image": "registry.example/any:1"}]}
    user = "system:serviceaccount:kube-system:statefulset-controller"
    if name == "an image":
        bare["containers"][0]["image"] = SETTINGS.exempt[1].images[0]
        user = CREATOR
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "notebook"}, "spec": bare}
    assert gates[PODS].refusals(object=pod, request=request(user=user)) == []
    assert gates[PODS].refusals(object=pod, request={**request(user=user), "namespace": "team-b"}) == (
        [] if name == "an image" else gates[PODS].refusals(object=pod, request=request(user="somebody"))
    )
    # Either way a pod can run anything, so it must not reach the node.
    privileged = {"securityContext": {"privileged": True}}
    for more in (
        {"hostPID": True},
        {"containers": [{**bare["containers"][0], **privileged}]},
        {"ephemeralContainers": [{**bare["containers"][0], **privileged, "name": "debug"}]},
    ):
        pod["spec"] = {**bare, **more}
        assert gates[PODS].refusals(object=pod, request=request(user=user))


def test_an_exemption_with_the_nodes_powers_is_the_admins_to_give(policy: Callable[[dict[str, Any]], Any]) -> None:
    settings = parse_settings(
        SETTINGS_TEXT.replace("  - name: notebooks\n", "  - name: notebooks\n    privileged: true\n").encode()
    )
    gate = {item["metadata"]["name"]: policy(item) for item in policies(settings)}[PODS]
    spec = {"hostPID": True, "containers": [{"name": "notebook", "image": "registry.example/any:1"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "notebook"}, "spec": spec}
    user = settings.exempt[0].creators[0]
    assert gate.refusals(object=pod, request=request(user=user)) == []
    assert gate.refusals(object=pod, request=request(user="somebody"))


def test_an_update_is_judged_by_what_it_changes(gates: dict[str, Any]) -> None:
    old = copy.deepcopy(HOSTILE["an image by tag"])
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"workflows.argoproj.io/completed": "true"}
    new["spec"]["tolerations"] = [{"operator": "Exists"}]
    gate = gates[PODS]
    assert gate.refusals(object=new, oldObject=old, request=request("UPDATE")) == []
    assert gate.refusals(object=new, oldObject=old, request=request("CREATE"))
    good, other = GOOD["a task under guard"], copy.deepcopy(GOOD["a task under guard"])
    other["spec"]["containers"][1]["image"] = "registry.example/other:1"
    assert gate.refusals(object=other, oldObject=good, request=request("UPDATE"))
    # Even one that a new pod might have: it would start a second time, in the same pod.
    other["spec"]["containers"][1]["image"] = f"registry.example/other@sha256:{'3' * 64}"
    assert gate.refusals(object=other, request=request()) == []
    assert gate.refusals(object=other, oldObject=good, request=request("UPDATE"))
    resized = copy.deepcopy(good)
    resized["spec"]["containers"][1]["resources"] = {"limits": {"memory": "2Gi"}}
    assert gate.refusals(object=resized, oldObject=good, request=request("UPDATE")) == []
    debugged = copy.deepcopy(good)
    debugged["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "busybox"}]
    assert gate.refusals(object=debugged, oldObject=good, request=request("UPDATE"))


def test_an_update_brings_no_annotation_that_the_node_obeys(gates: dict[str, Any]) -> None:
    old = copy.deepcopy(GOOD["a task under guard"])
    new = copy.deepcopy(old)
    new["metadata"]["annotations"]["cdi.k8s.io/mine"] = "vendor.example/hook=all"
    gate = gates[PODS]
    assert gate.refusals(object=new, oldObject=old, request=request("UPDATE"))
    assert gate.refusals(object=new, oldObject=new, request=request("UPDATE")) == []
    assert gate.refusals(object=old, oldObject=new, request=request("UPDATE")) == []


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        yield from _places(item, (*path, key))


def _mutated(pod: dict[str, Any], path: tuple[Any, ...], how: int) -> dict[str, Any]:
    whole = copy.deepcopy(pod)
    place: Any = whole["spec"]
    for step in path[:-1]:
        place = place[step]
    value = place[path[-1]]
    if how == 0:
        del place[path[-1]]
    elif isinstance(value, str):
        place[path[-1]] = "--" if how == 1 else f"{value}x"
    elif isinstance(value, bool):
        place[path[-1]] = not value
    elif isinstance(value, list) and value:
        place[path[-1]] = [*value, value[0]]
    elif isinstance(value, dict):
        value["lifecycle"] = {"postStart": {"exec": {"command": ["sh"]}}}
    return whole


@pytest.mark.slow
def test_nothing_passes_kyverno_that_the_admission_server_refuses(gates: dict[str, Any]) -> None:
    """Whatever is changed about a good pod. The other way round there are differences, which the reference lists."""
    numbers = random.Random(20261123)
    compared = refused = 0
    for name, pod in GOOD.items():
        places = list(_places(pod["spec"]))
        for _ in range(24):
            path, how = numbers.choice(places), numbers.randrange(3)
            changed_pod = _mutated(pod, path, how)
            compared += 1
            if not allowed(changed_pod):
                refused += 1
                assert refusals(gates[PODS], changed_pod), (name, path, how)
    # A sample that nobody refuses would say nothing.
    assert refused > compared // 4


def test_own_components_are_told_by_their_whole_source(policy: Callable[[dict[str, Any]], Any]) -> None:
    own = f"registry.example/sealflow@sha256:{'9' * 64}"
    settings = parse_settings(f"{SETTINGS_TEXT}images:\n  sealflow: ['{own}']\n".encode())
    gate = {item["metadata"]["name"]: policy(item) for item in policies(settings)}[PODS]
    pod = copy.deepcopy(GOOD["a task under guard"])
    (main,) = [item for item in pod["spec"]["containers"] if item["name"] == "main"]
    main["image"] = own
    program, sources, last = own_patterns()
    name = "verify_artifact"
    words = [
        word.removeprefix(r"\Q").removesuffix(r"\E")
        for word in program.removeprefix(r"\s*").removesuffix(r"\s*").split(r"\s+")
    ]
    source = sources[name].partition(r"\Q")[2].rpartition(r"\E")[0]
    command = ["sh", "-ec", "\n".join(words), f"\nimport kfp\nfrom kfp import dsl\n\n{source}\n"]
    assert own_component(command, [*last, name]) == (name, True)
    main["args"] = [*command, *last, name]
    assert gate.refusals(object=pod, request=request()) == []
    for index, word in ((2, f"{command[2]} || sh"), (3, f"{command[3]}import os\n"), (7, "sign_artifact")):
        main["args"] = [*command, *last, name]
        main["args"][index] = word
        assert gate.refusals(object=pod, request=request())


@pytest.mark.parametrize("name", ["the driver of a task", "the driver of a pipeline", "an import"])
def test_the_spec_patch_reaches_pods_that_are_no_tasks_too(name: str, gates: dict[str, Any]) -> None:
    patch = spec_patch.pod_patch(SETTINGS.guard.mounts)
    pod = copy.deepcopy(GOOD[name])
    (main,) = [item for item in pod["spec"]["containers"] if item["name"] == "main"]
    main["volumeMounts"] = [*main.get("volumeMounts", ()), *patch["containers"][0]["volumeMounts"]]
    pod["spec"]["initContainers"] = [*pod["spec"].get("initContainers", ()), *patch["initContainers"]]
    pod["spec"]["volumes"] = [*pod["spec"].get("volumes", ()), *patch["volumes"]]
    assert refusals(gates[PODS], pod) == []
    assert allowed(pod)
    main["volumeMounts"][-3].pop("readOnly")
    assert refusals(gates[PODS], pod)
    assert not allowed(pod)


def test_an_admin_says_where_files_may_lie(policy: Callable[[dict[str, Any]], Any], gates: dict[str, Any]) -> None:
    settings = parse_settings(f"{SETTINGS_TEXT}images:\n  mounts: [/opt/models, /mnt/]\n".encode())
    gate = {item["metadata"]["name"]: policy(item) for item in policies(settings)}[PODS]
    for path in ("/opt/models", "/mnt/a/b", "/mnt", "/opt/models/a", "/opt/modelsx", "/srv/mnt/a", "/sealflow/guard/x"):
        pod = copy.deepcopy(GOOD["a task under guard"])
        pod["spec"]["volumes"].append({"name": "files", "configMap": {"name": "mine"}})
        pod["spec"]["containers"][1]["volumeMounts"].append({"name": "files", "mountPath": path})
        taken = answered(decide(review(pod), settings))["allowed"]
        assert (gate.refusals(object=pod, request=request()) == []) is taken
        assert refusals(gates[PODS], pod)


# --- Workflows and connections ---


def _workflow(**options: Any) -> dict[str, Any]:
    return compiled([Task("train")], **options)


def test_a_changed_workflow_is_taken_and_a_compiled_one_is_not(gates: dict[str, Any]) -> None:
    gate = gates[WORKFLOWS]
    plain = _workflow(importer=True)
    said = gate.refusals(object=plain, request=request())
    assert {item.partition(":")[0] for item in said} == {"CACHE_ON", "TASK_UNGUARDED"}
    assert gate.refusals(object=changed(plain), request=request()) == []
    bare = changed(compiled([Task("bare", command=(), args=("run",))]))
    assert gate.refusals(object=bare, request=request()) == []
    assert gate.refusals(object=plain, oldObject=plain, request=request("UPDATE")) == []


@pytest.mark.parametrize(
    "status",
    [{"phase": "Running", "nodes": {"a": {"phase": "Succeeded"}}}, {"storedTemplates": {"x": {}}}, {"phase": "Failed"}],
    ids=["nodes", "templates", "an end"],
)
def test_nobody_but_argo_and_kfp_says_what_ran(status: dict[str, Any], gates: dict[str, Any]) -> None:
    gate, fresh = gates[WORKFLOWS], changed(_workflow())
    workflow = {**copy.deepcopy(fresh), "status": status}
    author = "system:serviceaccount:team-a:default-editor"
    assert gate.refusals(object=workflow, request=request(user=author))
    assert gate.refusals(object=workflow, oldObject=fresh, request=request("UPDATE", author))
    assert gate.refusals(object=workflow, oldObject=fresh, request=request("UPDATE")) == []
    stopped = {**workflow, "spec": {**workflow["spec"], "shutdown": "Terminate"}}
    assert gate.refusals(object=stopped, oldObject=workflow, request=request("UPDATE", author)) == []
    del fresh["status"]
    assert gate.refusals(object=fresh, request=request(user=author)) == []


@pytest.mark.parametrize(
    "value",
    [
        '{"cachingOptions":{"enableCache":true}}',
        '{"cachingOptions": {"enableCache" :\n true}}',
        '{"caching_options":{"enable_cache":true}}',
        '{"cachingOptions":{"enable\\u0043ache":true}}',
        '{"cachingOptions":{"\\u0065nableCache":true}}',
        '{"x":"\\\\\\\\","cachingOptions":{"enable\\u0043ache":true}}',
    ],
)
def test_caching_is_seen_however_it_is_written(value: str, gates: dict[str, Any]) -> None:
    workflow = _without_cache_option(changed(_workflow()))
    _task(workflow)["value"] = value
    assert gates[WORKFLOWS].refusals(object=workflow, request=request())


@pytest.mark.parametrize(
    "value", ["{}", '{"cachingOptions":{}}', '{"x":"a \\\\u0043 in a text"}', '{"x":"\\u003c and \\u00e4"}']
)
def test_what_only_looks_like_caching_is_taken(value: str, gates: dict[str, Any]) -> None:
    workflow = _without_cache_option(changed(_workflow()))
    _task(workflow)["value"] = value
    assert gates[WORKFLOWS].refusals(object=workflow, request=request()) == []


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " :\t")], ids=["compact", "spaced", "odd"])
def test_the_guard_is_seen_however_json_is_spaced(separators: tuple[str, str], gates: dict[str, Any]) -> None:
    workflow = changed(_workflow())
    for item in workflow["spec"]["arguments"]["parameters"]:
        if item["name"].startswith("implementations-"):
            item["value"] = json.dumps(json.loads(item["value"]), separators=separators)
    assert gates[WORKFLOWS].refusals(object=workflow, request=request()) == []
    for item in workflow["spec"]["arguments"]["parameters"]:
        item["value"] = item["value"].replace("/sealflow/guard/guard", "/sealflow/guard/other")
    assert gates[WORKFLOWS].refusals(object=workflow, request=request())


def _task(workflow: dict[str, Any]) -> dict[str, Any]:
    return next(
        item
        for template in workflow["spec"]["templates"]
        for task in template.get("dag", {}).get("tasks", ())
        for item in task.get("arguments", {}).get("parameters", ())
        if item["name"] == "task"
    )


def _without_cache_option(workflow: dict[str, Any]) -> dict[str, Any]:
    for template in workflow["spec"]["templates"]:
        container = template.get("container", {})
        container["args"] = [word for word in container.get("args", ()) if not word.startswith("--cache_disabled")]
    return workflow


@pytest.mark.parametrize("user", ["system:serviceaccount:team-a:default-editor", "", "breaker", "break-glass-not"])
def test_nobody_comes_into_a_pod_but_who_is_named(user: str, policy: Callable[[dict[str, Any]], Any]) -> None:
    settings = parse_settings(f"{SETTINGS_TEXT}exec_users: [break-glass]\n".encode())
    gate = {item["metadata"]["name"]: policy(item) for item in policies(settings)}[CONNECTIONS]
    body = {"apiVersion": "v1", "kind": "PodExecOptions", "command": ["sh"]}
    assert gate.refusals(object=body, request=request("CONNECT", user))
    assert gate.refusals(object=body, request=request("CONNECT", "break-glass")) == []


# --- The form ---


def test_the_same_settings_give_the_same_bytes() -> None:
    mark = TrustPolicyMark(f"sha256:{'1' * 64}", 3)
    made = manifest(policies(SETTINGS, mark))
    assert made == manifest(policies(parse_settings(SETTINGS_TEXT.encode()), mark))
    read = list(yaml.safe_load_all(made))
    assert [item["metadata"]["name"] for item in read] == list(POLICY_NAMES)
    assert read == policies(SETTINGS, mark)
    for item in read:
        assert item["metadata"]["annotations"]["sealflow/trust-policy"] == mark.digest
        assert item["metadata"]["annotations"]["sealflow/trust-policy-version"] == "3"


@pytest.mark.parametrize("version", API_VERSIONS)
def test_the_form_is_kyvernos(version: str) -> None:
    """As the definition of ValidatingPolicy says, of which all versions have one and the same."""
    for item in policies(SETTINGS, api_version=version):
        assert (item["apiVersion"], item["kind"]) == (f"policies.kyverno.io/{version}", "ValidatingPolicy")
        spec = item["spec"]
        assert set(spec) <= {
            "auditAnnotations", "autogen", "evaluation", "failurePolicy", "matchConditions", "matchConstraints",
            "validationActions", "validations", "variables", "webhookConfiguration",
        }  # fmt: skip
        assert spec["failurePolicy"] == "Fail"
        assert spec["validationActions"] == ["Deny"]
        assert spec["evaluation"]["background"] == {"enabled": False}
        (rule,) = spec["matchConstraints"]["resourceRules"]
        assert set(rule) == {"apiGroups", "apiVersions", "operations", "resources", "scope"}
        assert set(rule["operations"]) <= {"CREATE", "UPDATE", "DELETE", "CONNECT"}
        for validation in spec["validations"]:
            assert set(validation) == {"expression", "message"}
            # What Kubernetes demands of a message.
            assert "\n" not in validation["message"]
            assert "\n" not in validation["expression"]
            assert len(validation["message"]) < 300
        names = [one["name"] for one in spec.get("variables", ())]
        assert len(set(names)) == len(names)
        assert all(name.isidentifier() for name in names)


def test_audit_mode_only_reports() -> None:
    settings = parse_settings(SETTINGS_TEXT.replace("mode: enforce", "mode: audit").encode())
    assert all(item["spec"]["validationActions"] == ["Audit"] for item in policies(settings))


def test_namespaces_by_name_or_by_label() -> None:
    for item in policies(SETTINGS, namespaces=["team-b", "team-a"]):
        assert item["spec"]["matchConstraints"]["namespaceSelector"] == {
            "matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a", "team-b"]}
            ]
        }
    for item in policies(SETTINGS):
        selector = item["spec"]["matchConstraints"]["namespaceSelector"]
        assert selector == {"matchLabels": {"sealflow/guard": "true"}}
    with pytest.raises(UsageError, match="no name"):
        policies(SETTINGS, namespaces=["Team A"])
    with pytest.raises(UsageError, match="no version"):
        policies(SETTINGS, api_version="v2")


def test_text_of_the_settings_stays_text(policy: Callable[[dict[str, Any]], Any]) -> None:
    hostile = 'a"]) || true || (["\\'
    settings = parse_settings(
        yaml.safe_dump(
            {**yaml.safe_load(SETTINGS_TEXT), "exempt": [{"name": "x", "creators": [hostile]}], "exec_users": [hostile]}
        ).encode()
    )
    made = {item["metadata"]["name"]: policy(item) for item in policies(settings)}
    assert made[PODS].refusals(object=HOSTILE["no guard before the command"], request=request())
    assert made[CONNECTIONS].refusals(object={}, request=request("CONNECT", "somebody"))
    assert made[CONNECTIONS].refusals(object={}, request=request("CONNECT", hostile)) == []


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_a_changed_policy_is_not_ours(name: str) -> None:
    made = {item["metadata"]["name"]: item for item in policies(SETTINGS, namespaces=["team-a"])}
    found = made[name]
    assert is_own(found, SETTINGS)
    found["spec"]["matchConstraints"]["objectSelector"] = {}
    assert is_own(found, SETTINGS)
    for change in (
        {"matchConditions": [{"name": "never", "expression": "false"}]},
        {"validationActions": ["Audit"]},
        {"failurePolicy": "Ignore"},
        {"validations": found["spec"]["validations"][1:]},
        {"matchConstraints": {**found["spec"]["matchConstraints"], "objectSelector": {"matchLabels": {"a": "b"}}}},
    ):
        assert not is_own({**found, "spec": {**found["spec"], **change}}, SETTINGS)
    assert not is_own({**found, "metadata": {"name": "other"}}, SETTINGS)
    assert not is_own({"metadata": None, "spec": []}, SETTINGS)
