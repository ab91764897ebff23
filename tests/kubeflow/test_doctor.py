"""`sealflow kfp doctor`: each thing that can be wrong with a cluster is seen, and nothing is wrong with a good one."""

from __future__ import annotations

import pytest

from sealflow.errors import UsageError
from sealflow.verification.posture import Result as PostureResult
from sealflow_kfp.doctor import CHECKS, Wanted
from tests.kubeflow import test_doctor_people, test_doctor_pipelines, test_doctor_webhook
from tests.kubeflow.cluster import MOUNTS, WANTED, Cluster, outcome
from tests.kubeflow.cluster_changes import no_webhooks, variable


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


def test_every_check_is_seen_to_fail() -> None:
    tables = [module.WRONG for module in (test_doctor_people, test_doctor_pipelines, test_doctor_webhook)]
    elsewhere = {"kyverno", "refusal"}
    rows = [row for table in tables for row in table.values()]
    assert {check for _, check, said, _ in rows if said == "FAIL"} | elsewhere == set(CHECKS)


@pytest.mark.parametrize("route", ["admission", "kyverno", "spec-patch"])
def test_a_route_that_must_be_taken_is_missed(route: str, good: Cluster) -> None:
    no_webhooks(good)
    wanted = Wanted(namespaces=("team-a",), mounts=MOUNTS, routes=frozenset({route}))
    check = {"admission": "webhook", "kyverno": "kyverno", "spec-patch": "spec_patch"}[route]
    assert outcome(good.examine(wanted), check)[0] == "FAIL"


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
