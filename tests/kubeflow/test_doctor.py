"""`sealflow kfp doctor`: each thing that can be wrong with a cluster is seen, and nothing is wrong with a good one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import UsageError
from sealflow.verification.posture import Result as PostureResult
from sealflow_kfp import spec_patch
from sealflow_kfp.doctor import CHECKS, Wanted
from sealflow_kfp.kyverno import policies
from tests.kubeflow import cluster as clusters
from tests.kubeflow.cluster import GUARD, METRICS, MOUNTS, RUNS, SYSTEM, WANTED, Cluster, bound, key, may, outcome

AUTHORITY = clusters.authority()


@pytest.fixture
def good(tmp_path: Path) -> Cluster:
    """A cluster with the admission server, as it should be."""
    return clusters.good(tmp_path / "cluster", AUTHORITY)


def test_a_good_cluster_passes(good: Cluster) -> None:
    report = good.examine(process=True)
    assert {item.check: item.outcome for item in report.results if item.outcome != "PASS"} == {
        "kyverno": "SKIPPED",
        "refusal": "SKIPPED",
        "spec_patch": "SKIPPED",
    }
    assert report.verdict.status == "passed"
    assert report.verdict.exit_status == 0
    # Nothing is changed, and no content of a secret is asked for.
    asked = good.asked()
    assert all(question.startswith("get_") for question in asked), asked
    assert [question for question in asked if "_secret" in question] == [
        "get_secret_sealflow_--namespace=team-a_--no-headers"
    ]


def test_the_shape_is_that_of_posture(good: Cluster) -> None:
    body = good.examine().as_dict()
    assert [item["check"] for item in body["checks"]] == list(CHECKS)
    posture = PostureResult("bucket_owner", "s3://models", "PASS").as_dict()
    assert {frozenset(item) for item in body["checks"]} == {frozenset(posture) - {"prowler"}}
    assert body["verdict"]["status"] == "passed"


# --- One thing wrong ---


def variable(name: str, value: str | None) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        (container, _) = cluster.get("deployment", "ml-pipeline", "kubeflow")["spec"]["template"]["spec"]["containers"]
        container["env"] = [item for item in container["env"] if item["name"] != name]
        if value is not None:
            container["env"].append({"name": name, "value": value})

    return change


def hooks(cluster: Cluster) -> list[dict[str, Any]]:
    return [
        hook
        for kind in ("mutating", "validating")
        for hook in cluster.get(f"{kind}webhookconfigurations", "sealflow-admission")["webhooks"]
    ]


def each_hook(**members: Any) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        for hook in hooks(cluster):
            hook.update(copy.deepcopy(members))

    return change


def bundle(**options: float) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        for hook in hooks(cluster):
            hook["clientConfig"]["caBundle"] = clusters.authority(**options)

    return change


def right(subject: str, *rules: dict[str, Any], namespace: str = "") -> Callable[[Cluster], None]:
    kind, _, name = subject.partition(" ")
    found = {"kind": kind, "name": name}
    if kind == "ServiceAccount":
        found["namespace"], _, found["name"] = name.partition("/")

    def change(cluster: Cluster) -> None:
        for listed, body in bound(found, list(rules), namespace):
            body["metadata"]["name"] += "-more"
            if "roleRef" in body:
                body["roleRef"]["name"] += "-more"
            cluster.put(listed, body)

    return change


def runs(**options: bool) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        cluster.raw[RUNS]["items"].append(clusters.workflow("run-3", **options))

    return change


def drop(kind: str, name: str, namespace: str = "") -> Callable[[Cluster], None]:
    return lambda cluster: cluster.drop(kind, name, namespace)


def no_webhooks(cluster: Cluster) -> None:
    for kind in ("mutating", "validating"):
        cluster.drop(f"{kind}webhookconfigurations", "sealflow-admission")


def nobody_ready(cluster: Cluster) -> None:
    body = cluster.get("endpointslices.discovery.k8s.io", "sealflow-admission-1", SYSTEM)
    body["endpoints"][0]["conditions"]["ready"] = False


def without_label(cluster: Cluster) -> None:
    cluster.get("namespace", "team-a")["metadata"]["labels"] = {}


def forgets(resource: str) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        for hook in hooks(cluster):
            hook["rules"] = [rule for rule in hook["rules"] if resource not in rule["resources"]]

    return change


def native(cluster: Cluster) -> None:
    (container, _) = cluster.get("deployment", "ml-pipeline", "kubeflow")["spec"]["template"]["spec"]["containers"]
    container["args"] = ["--config=/config", "--pipelinesStoreKubernetes=true"]


def metric(text: str) -> Callable[[Cluster], None]:
    return lambda cluster: cluster.raw.update({METRICS: text})


def patched(change: Callable[[dict[str, Any]], None]) -> Callable[[Cluster], None]:
    body = spec_patch.pod_patch(MOUNTS)
    change(body)
    return variable("COMPILED_PIPELINE_SPEC_PATCH", json.dumps({"podSpecPatch": json.dumps(body)}))


TASK = "ServiceAccount team-a/default-editor"
SOMEBODY = "User somebody@example.com"

WRONG: dict[str, tuple[Callable[[Cluster], Any], str, str, str]] = {
    "no namespace": (drop("namespace", "kubeflow"), "cluster", "FAIL", "no namespace kubeflow"),
    "no Argo": (
        lambda cluster: cluster.raw.pop("/apis/argoproj.io/v1alpha1"), "workflows", "FAIL", "no Workflows",
    ),
    "caching on": (variable("CACHEENABLED", "true"), "caching", "FAIL", "true"),
    "caching not set": (variable("CACHEENABLED", None), "caching", "FAIL", "not set"),
    "caching off in no word of Go's": (variable("CACHEENABLED", "no"), "caching", "FAIL", "takes for true"),
    "logs published": (variable("PUBLISH_LOGS", "true"), "publish_logs", "FAIL", "true"),
    "logs not set": (variable("PUBLISH_LOGS", None), "publish_logs", "FAIL", "not set"),
    "launcher by tag": (variable("V2_LAUNCHER_IMAGE", "kfp-launcher:2.17"), "launcher_image", "FAIL", "2.17"),
    "launcher not set": (variable("V2_LAUNCHER_IMAGE", None), "launcher_image", "FAIL", "by tag"),
    "driver by tag": (variable("V2_DRIVER_IMAGE", "kfp-driver:2.17"), "driver_image", "FAIL", "2.17"),
    "native mode": (native, "native_mode", "FAIL", "PipelineVersions"),
    "no Deployment": (drop("deployment", "ml-pipeline", "kubeflow"), "caching", "UNKNOWN", "no Deployment"),
    "a patch that is no JSON": (variable("COMPILED_PIPELINE_SPEC_PATCH", "{x"), "spec_patch", "FAIL", "JSON"),
    "a patch of somebody else's": (
        variable("COMPILED_PIPELINE_SPEC_PATCH", '{"parallelism":2}'), "spec_patch", "FAIL", "without sealflow",
    ),
    "a whole patch": (patched(lambda body: None), "spec_patch", "PASS", GUARD),
    "a patch without a mount": (
        patched(lambda body: body["containers"][0]["volumeMounts"].pop()), "spec_patch", "FAIL", "not all",
    ),
    "a patch with a volume more": (
        patched(lambda body: body["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
        "spec_patch", "FAIL", "other things",
    ),
    "a patch with another image": (
        patched(lambda body: body["initContainers"][0].update(image=GUARD.replace("aaa", "bbb"))),
        "spec_patch", "FAIL", "the guard image is",
    ),
    "a patch with an image by tag": (
        patched(lambda body: body["initContainers"][0].update(image="registry.example/guard:1")),
        "spec_patch", "FAIL", "by tag",
    ),
    "a patch with a variable that the guard does not hear": (
        patched(lambda body: body["containers"][0].update(env=[{"name": "LD_PRELOAD", "value": "/x"}])),
        "spec_patch", "FAIL", "LD_PRELOAD",
    ),
    "no webhook": (no_webhooks, "enforcement", "FAIL", "neither"),
    "no mutating webhook": (
        drop("mutatingwebhookconfigurations", "sealflow-admission"), "webhook", "FAIL", "CREATE workflows (mutating)",
    ),
    "a webhook not asked about pods": (forgets("pods"), "webhook", "FAIL", "CREATE pods"),
    "a webhook not asked about debugging": (forgets("pods/ephemeralcontainers"), "webhook", "FAIL", "ephemeral"),
    "a webhook for some objects": (
        each_hook(objectSelector={"matchLabels": {"a": "b"}}), "webhook", "FAIL", "not asked about",
    ),
    "a webhook with a condition": (
        each_hook(matchConditions=[{"name": "x", "expression": "false"}]), "webhook", "FAIL", "not asked about",
    ),
    "a webhook for one version": (each_hook(matchPolicy="Exact"), "webhook", "FAIL", "not asked about"),
    "a webhook that fails open": (each_hook(failurePolicy="Ignore"), "webhook_failure_policy", "FAIL", "let through"),
    "a webhook that fails open does not enforce": (each_hook(failurePolicy="Ignore"), "enforcement", "FAIL", "neither"),
    "a namespace without the label": (without_label, "webhook_namespaces", "FAIL", "team-a"),
    "a namespace that is not there": (drop("namespace", "team-a"), "webhook_namespaces", "UNKNOWN", "no namespace"),
    "a selector of an unknown kind": (
        each_hook(namespaceSelector={"matchExpressions": [{"key": "a", "operator": "Near"}]}),
        "webhook_namespaces", "UNKNOWN", "Near",
    ),
    "an authority that has expired": (bundle(days=-1, ago=9), "webhook_authority", "FAIL", "expired"),
    "an authority that expires soon": (bundle(days=3), "webhook_authority", "FAIL", "2 days"),
    "no authority": (
        each_hook(clientConfig={"service": {"name": "sealflow-admission", "namespace": SYSTEM}}),
        "webhook_authority", "FAIL", "names no certificate authority",
    ),
    "an authority that is none": (
        each_hook(clientConfig={"caBundle": "eA==", "service": {"name": "a", "namespace": "b"}}),
        "webhook_authority", "UNKNOWN", "bundle",
    ),
    "a certificate that has expired": (
        metric("sealflow_admission_certificate_not_after_seconds 17e8\n"), "webhook_certificate", "FAIL", "expired",
    ),
    "a server that only tells": (
        metric("sealflow_admission_enforcing 0.0\n"), "webhook_mode", "FAIL", "audit",
    ),
    "a server that only tells does not enforce": (
        metric("sealflow_admission_enforcing 0.0\n"), "enforcement", "FAIL", "neither",
    ),
    "a server that does not say whether it refuses": (metric(""), "enforcement", "UNKNOWN", "neither"),
    "advice that may be out of reach": (
        lambda cluster: [hook.update(failurePolicy="Ignore") for hook in hooks(cluster) if "version" in hook["name"]],
        "webhook_failure_policy", "PASS", "refused",
    ),
    "a webhook not asked who comes into pods": (forgets("pods/exec"), "webhook", "FAIL", "CONNECT pods/exec"),
    "a certificate that nobody tells of": (metric("up 1\n"), "webhook_certificate", "UNKNOWN", "do not say"),
    "a certificate without end": (
        metric("sealflow_admission_certificate_not_after_seconds 9e99\n"), "webhook_certificate", "UNKNOWN", "do not",
    ),
    "nobody ready": (nobody_ready, "webhook_endpoints", "FAIL", "nobody ready"),
    "no service": (drop("service", "sealflow-admission", SYSTEM), "webhook_endpoints", "FAIL", "no Service"),
    "a webhook somewhere else": (
        each_hook(clientConfig={"url": "https://evil.example/admit", "caBundle": AUTHORITY}),
        "webhook_endpoints", "UNKNOWN", "no service of the cluster",
    ),
    "a run without the wrapper": (runs(guarded=False), "runs_guarded", "FAIL", "team-a/run-3"),
    "a run with caching": (runs(cached=True), "runs_cached", "FAIL", "team-a/run-3"),
    "a run with caching that the server overrules": (runs(cached=True, disabled=True), "runs_cached", "PASS", "3 runs"),
    "no runs": (lambda cluster: cluster.raw[RUNS]["items"].clear(), "runs_guarded", "UNKNOWN", "no run"),
    "no secret": (drop("secret", "sealflow", "team-a"), "secret", "FAIL", "team-a"),
    "no policy": (drop("configmap", "sealflow-policy", "team-a"), "policy_config_map", "FAIL", "team-a"),
    "a policy without its item": (
        lambda cluster: cluster.get("configmap", "sealflow-policy", "team-a")["data"].clear(),
        "policy_config_map", "FAIL", "admin.json",
    ),
    "no launcher configuration": (drop("configmap", "kfp-launcher", "team-a"), "launcher_config", "FAIL", "team-a"),
    "tasks that make Workflows": (
        right(TASK, may("argoproj.io", "workflows", "create"), namespace="team-a"),
        "task_accounts", "FAIL", "create workflows",
    ),
    "tasks that come into pods": (
        right("Group system:serviceaccounts:team-a", may("", "pods/exec", "create"), namespace="team-a"),
        "task_accounts", "FAIL", "create pods/exec",
    ),
    "tasks that do everything": (right(TASK, may("*", "*", "*")), "task_accounts", "FAIL", "list secrets"),
    "somebody who makes Workflows": (
        right(SOMEBODY, may("argoproj.io", "*", "*"), namespace="team-a"), "workflow_creators", "FAIL", SOMEBODY,
    ),
    "somebody elsewhere who makes Workflows": (
        right(SOMEBODY, may("argoproj.io", "*", "*"), namespace="team-b"), "workflow_creators", "PASS", "nobody",
    ),
    "somebody who makes pods": (right(SOMEBODY, may("", "pods", "create")), "pod_creators", "FAIL", SOMEBODY),
    "somebody who comes into pods": (
        right(SOMEBODY, may("", "pods/exec", "create"), namespace="team-a"), "pod_visitors", "FAIL", SOMEBODY,
    ),
    "everybody comes into pods": (
        right("Group system:authenticated", may("", "*/exec", "get")), "pod_visitors", "FAIL", "system:authenticated",
    ),
    "somebody who reads the keys": (
        right(SOMEBODY, may("", "secrets", "get", names=["sealflow"]), namespace="team-a"),
        "key_readers", "FAIL", SOMEBODY,
    ),
    "somebody who reads other secrets": (
        right(SOMEBODY, may("", "secrets", "get", names=["other"]), namespace="team-a"),
        "key_readers", "PASS", "nobody",
    ),
    "somebody who writes the policy": (
        right(SOMEBODY, may("", "configmaps", "patch"), namespace="team-a"), "policy_writers", "FAIL", SOMEBODY,
    ),
    "somebody who sets KFP up": (
        right(SOMEBODY, may("apps", "deployments", "update"), namespace="kubeflow"), "policy_writers", "FAIL", SOMEBODY,
    ),
    "somebody who labels namespaces": (
        right(SOMEBODY, may("", "namespaces", "patch")), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who labels his own namespace": (
        right(SOMEBODY, may("", "namespaces", "patch"), namespace="team-a"), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who changes webhooks": (
        right(SOMEBODY, may("admissionregistration.k8s.io", "*", "*")), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who makes exceptions": (
        right(SOMEBODY, may("policies.kyverno.io", "policyexceptions", "create"), namespace="team-a"),
        "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who becomes others": (
        right(SOMEBODY, may("", "users", "impersonate")), "gate_changers", "FAIL", SOMEBODY,
    ),
    "an account in a user's clothes": (
        right("User system:serviceaccount:team-a:default-editor", may("*", "*", "*")),
        "gate_changers", "FAIL", "ServiceAccount team-a/default-editor",
    ),
    "a controller of the cluster itself": (
        right("ServiceAccount kube-system/namespace-controller", may("*", "*", "*")), "gate_changers", "PASS", "nobody",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_seen(name: str, good: Cluster) -> None:
    change, check, expected, words = WRONG[name]
    change(good)
    report = good.examine()
    found, said = outcome(report, check)
    assert (found, words in said) == (expected, True), said
    advisory = CHECKS[check].advisory
    if not advisory and expected != "PASS":
        assert report.verdict.status == (
            "failed" if "FAIL" in {r.outcome for r in report.results if not r.rule.advisory} else "unverifiable"
        )
        assert report.verdict.exit_status == (3 if report.verdict.status == "failed" else 5)
    for item in report.results:
        # Whatever is not as it should be comes with a next step.
        assert item.outcome in ("PASS", "SKIPPED") or item.next_step, item.check


def test_every_check_is_seen_to_fail() -> None:
    elsewhere = {"kyverno", "refusal"}
    assert {check for _, check, said, _ in WRONG.values() if said == "FAIL"} | elsewhere == set(CHECKS)


# --- The other gate, and what is left to say ---


@pytest.fixture
def kyverno(good: Cluster) -> Cluster:
    """A cluster with Kyverno in the place of the admission server."""
    from tests.kubeflow.cluster_pods import SETTINGS

    no_webhooks(good)
    for policy in policies(SETTINGS):
        body = json.loads(json.dumps(policy))
        body["status"] = {"conditionStatus": {"ready": True, "message": ""}}
        good.put("validatingpolicies.policies.kyverno.io", body)
    hook = clusters.hook("vpol.validate.kyverno.svc-fail", [clusters.rule("", ["pods"], ["CREATE"])], AUTHORITY)
    hook["namespaceSelector"] = {
        "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kyverno"]}]
    }
    metadata = clusters.named("kyverno-resource", **{"webhook.kyverno.io/managed-by": "kyverno"})
    good.put("validatingwebhookconfigurations", {"metadata": metadata, "webhooks": [hook]})
    return good


def with_settings(**members: Any) -> Wanted:
    from tests.kubeflow.cluster_pods import SETTINGS

    return Wanted(namespaces=("team-a",), settings=SETTINGS, mounts=SETTINGS.guard.mounts, **members)


def policy(cluster: Cluster, name: str) -> dict[str, Any]:
    return dict(cluster.get("validatingpolicies.policies.kyverno.io", name))


def not_ready(cluster: Cluster) -> None:
    policy(cluster, "sealflow-pods")["status"]["conditionStatus"]["ready"] = False


def only_tells(cluster: Cluster) -> None:
    policy(cluster, "sealflow-pods")["spec"]["validationActions"] = ["Audit"]


def never(cluster: Cluster) -> None:
    policy(cluster, "sealflow-workflows")["spec"]["matchConditions"] = [{"name": "x", "expression": "false"}]


def lenient(cluster: Cluster) -> None:
    cluster.get("validatingwebhookconfigurations", "kyverno-resource")["webhooks"][0]["failurePolicy"] = "Ignore"


def excluded(cluster: Cluster) -> None:
    hook = cluster.get("validatingwebhookconfigurations", "kyverno-resource")["webhooks"][0]
    hook["namespaceSelector"]["matchExpressions"][0]["values"].append("team-a")


@pytest.mark.parametrize(
    ("change", "expected", "words"),
    [
        (lambda cluster: None, "PASS", "3 policies"),
        (drop("validatingpolicies.policies.kyverno.io", "sealflow-connections"), "FAIL", "no policy sealflow-conn"),
        (not_ready, "FAIL", "not ready"),
        (only_tells, "FAIL", "only tells: Audit"),
        (never, "FAIL", "not what this release generates"),
        (lenient, "FAIL", "fails closed"),
        (excluded, "FAIL", "team-a"),
        (without_label, "FAIL", "leaves out team-a"),
    ],
    ids=["good", "one missing", "not ready", "audit", "a condition", "fails open", "excluded", "no label"],
)
def test_kyverno_as_the_gate(change: Callable[[Cluster], Any], expected: str, words: str, kyverno: Cluster) -> None:
    change(kyverno)
    report = kyverno.examine(with_settings())
    found, said = outcome(report, "kyverno")
    assert (found, words in said) == (expected, True), said
    assert outcome(report, "enforcement")[0] == expected
    assert outcome(report, "webhook")[0] == "SKIPPED"


def test_kyverno_without_settings_is_not_known(kyverno: Cluster) -> None:
    assert outcome(kyverno.examine(), "kyverno") == ("UNKNOWN", "sealflow-pods, from settings that nobody named")


@pytest.mark.parametrize("route", ["admission", "kyverno", "spec-patch"])
def test_a_route_that_must_be_taken_is_missed(route: str, good: Cluster) -> None:
    no_webhooks(good)
    wanted = Wanted(namespaces=("team-a",), mounts=MOUNTS, routes=frozenset({route}))
    check = {"admission": "webhook", "kyverno": "kyverno", "spec-patch": "spec_patch"}[route]
    assert outcome(good.examine(wanted), check)[0] == "FAIL"


def test_who_is_allowed_is_left_out(good: Cluster) -> None:
    right(SOMEBODY, may("*", "*", "*"))(good)
    report = good.examine(Wanted(namespaces=("team-a",), mounts=MOUNTS, allowed=frozenset({SOMEBODY})))
    assert report.verdict.passed


def test_namespaces_are_found_by_their_profiles(good: Cluster) -> None:
    report = good.examine(Wanted(mounts=MOUNTS))
    # That of KFP itself holds runs, too, where nobody says otherwise; it has no label here.
    assert outcome(report, "webhook_namespaces")[1].startswith("not asked about kubeflow")


def test_names_that_nobody_gave_are_unknown(good: Cluster) -> None:
    report = good.examine(Wanted(namespaces=("team-a",)))
    unknown = {item.check for item in report.results if item.outcome == "UNKNOWN"}
    assert unknown == {"secret", "policy_config_map", "key_readers"}
    assert report.verdict.exit_status == 5


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (
            'Error from server (Forbidden): admission webhook "pods.admission.sealflow" denied the request: x',
            "PASS",
            "",
        ),
        (
            'Error from server: error when creating "STDIN": admission webhook "vpol.validate.kyverno.svc-fail" '
            "denied the request: Policy sealflow-pods failed: TASK_UNGUARDED",
            "PASS",
            "",
        ),
        ('Error from server (Forbidden): pods is forbidden: User "a" cannot create resource "pods"', "UNKNOWN", ""),
        ('Error from server (Forbidden): admission webhook "other" denied the request: no', "UNKNOWN", "other"),
        (None, "FAIL", "may start in team-a"),
    ],
    ids=["the admission server", "Kyverno", "no right to ask", "somebody else refuses", "it may start"],
)
def test_the_cluster_judges_an_unguarded_pod(answer: str | None, expected: str, words: str, good: Cluster) -> None:
    question = ("create", "--dry-run=server", "--validate=false", "--output=name", "--filename=-")
    if answer is None:
        good.raw["unused"] = ""
        good.program()
        (good.folder / key(*question)).write_text("pod/sealflow-doctor-x created (server dry run)\n")
    else:
        good.refused[question] = answer
    report = good.examine(Wanted(namespaces=("team-a",), mounts=MOUNTS, probe=True))
    found, said = outcome(report, "refusal")
    assert (found, words in said) == (expected, True), said


def test_rights_are_asked_for_where_roles_may_not_be_read(good: Cluster) -> None:
    good.refused["get", "clusterroles", "--output=json"] = (
        'Error from server (Forbidden): clusterroles is forbidden: User "a" cannot list resource "clusterroles"'
    )
    good.program()
    who = "--as=system:serviceaccount:team-a:default-editor"
    for account in ("pipeline-runner", "default-editor"):
        for verb, kind in (
            ("create", "workflows.argoproj.io"), ("patch", "workflows.argoproj.io"), ("create", "pods"),
            ("create", "pods/exec"), ("list", "secrets"), ("patch", "configmaps"), ("patch", "namespaces"),
        ):  # fmt: skip
            name = key(
                "auth", "can-i", verb, kind, f"--as=system:serviceaccount:team-a:{account}", "--namespace=team-a"
            )
            (good.folder / f"{name}.no").write_text("no - nobody said so\n")
    report = good.examine()
    assert outcome(report, "task_accounts")[0] == "PASS"
    assert outcome(report, "gate_changers")[0] == "UNKNOWN"
    name = key("auth", "can-i", "create", "pods/exec", who, "--namespace=team-a")
    (good.folder / name).write_text("yes\n")
    found, said = outcome(good.examine(), "task_accounts")
    assert (found, said) == ("FAIL", "team-a/default-editor: create pods/exec")


@pytest.mark.parametrize(
    "skip", [{"unheard": "of"}, {"caching": " "}, dict.fromkeys(CHECKS, "x")], ids=["unknown", "empty", "all"]
)
def test_a_skip_that_cannot_be(skip: dict[str, str], good: Cluster) -> None:
    with pytest.raises(UsageError):
        good.examine(skip=skip)


def test_a_skipped_check_shows_its_reason(good: Cluster) -> None:
    variable("PUBLISH_LOGS", "true")(good)
    report = good.examine(WANTED, skip={"publish_logs": "logs are wanted, and hold nothing"})
    assert report.verdict.passed
    assert outcome(report, "publish_logs") == ("SKIPPED", "logs are wanted, and hold nothing")
