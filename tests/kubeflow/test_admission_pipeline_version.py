"""PipelineVersions at admission: always taken; authors learn what will become of their runs."""

import copy

import pytest

from sealflow_kfp import guard_command
from sealflow_kfp.admission.decide import decide
from sealflow_kfp.admission.settings import parse_settings
from tests.kubeflow.argo import TASK_IMAGE
from tests.kubeflow.cluster_pods import AUDIT, SETTINGS, SETTINGS_TEXT, answered, review

INSTALL = (
    '\nif ! [ -x "$(command -v pip)" ]; then\n    python3 -m ensurepip || python3 -m ensurepip --user || apt-get '
    "install python3-pip\nfi\n\nPIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet "
    '--no-warn-script-location \'kfp==2.16.1\' && "$0" "$@"\n'
)


def version(**executors):
    spec = {"pipelineInfo": {"name": "churn"}, "deploymentSpec": {"executors": executors}, "root": {"dag": {}}}
    return {
        "apiVersion": "pipelines.kubeflow.org/v2beta1",
        "kind": "PipelineVersion",
        "metadata": {"name": "churn-v1", "namespace": "team-a"},
        "spec": {"pipelineName": "churn", "pipelineSpec": spec},
    }


def container(*command, image=TASK_IMAGE):
    return {"container": {"image": image, "command": list(command)}}


def told(body, settings=SETTINGS):
    decision = decide(review(body), settings)
    assert decision.allowed
    assert "patch" not in answered(decision)
    warnings = answered(decision).get("warnings", [])
    assert all(len(line) <= 240 for line in warnings)
    return [finding.code for finding in decision.findings], "\n".join(warnings)


def test_what_admission_will_do_is_said():
    codes, text = told(version(**{"exec-a": container("sh"), "exec-b": container("sh")}))
    assert codes == ["TASK_UNGUARDED"]
    assert "puts 2 of its commands under the guard when it runs, and turns caching off" in text


def test_a_hardened_pipeline_needs_nothing():
    hardened = container(*guard_command.IN_DIRECTORY, "sh")
    assert told(version(a=hardened, b=container(*guard_command.IN_IMAGE, "sh"))) == ([], "")


def test_what_cannot_be_guarded_is_said():
    codes, text = told(
        version(**{"exec-import": {"importer": {}}, "exec-pip": container("sh", "-c", INSTALL, "sh", "-ec", "run")})
    )
    assert codes == ["TASK_NOT_GUARDABLE", "TASK_NOT_GUARDABLE", "TASK_UNGUARDED"]
    assert "executor 'exec-import': KFP's launcher imports it" in text
    assert "executor 'exec-pip': It installs kfp==2.16.1 while it runs" in text


def test_images_that_runs_may_not_have_are_said():
    codes, text = told(version(a=container(*guard_command.IN_DIRECTORY, "sh", image="python:3.11")))
    assert codes == ["IMAGE_NOT_PINNED"]
    assert "Its runs will be refused" in text
    settings = parse_settings((SETTINGS_TEXT + "images:\n  digests: advised\n").encode())
    codes, text = told(version(a=container(*guard_command.IN_DIRECTORY, "sh", image="python:3.11")), settings)
    assert codes == ["IMAGE_NOT_PINNED"]
    assert "refused" not in text


def test_images_that_are_none_or_known_later_are_let_be():
    stub = container("true", image="argostub/createpvc")
    later = container(*guard_command.IN_DIRECTORY, "sh", image="{{$.inputs.parameters['image']}}")
    assert told(version(a=stub, b=later)) == ([], "")


@pytest.mark.parametrize("settings", [SETTINGS, AUDIT], ids=["enforce", "audit"])
@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        {},
        {"pipelineSpec": None},
        {"pipelineSpec": []},
        {"pipelineSpec": {"deploymentSpec": []}},
        {"pipelineSpec": {"deploymentSpec": {"executors": []}}},
        {"pipelineSpec": {"deploymentSpec": {"executors": {"a": 1}}}},
        {"pipelineSpec": {"deploymentSpec": {"executors": {"a": {"container": {"image": 1, "command": "x"}}}}}},
    ],
)
def test_what_is_no_pipeline_is_taken_as_well(spec, settings):
    # It says nothing about runs: each brings its own pipeline along, and is judged then.
    assert decide(review({**version(), "spec": spec}), settings).allowed


def test_many_executors_make_a_short_answer():
    many = {f"exec-{n}": container("sh", image=f"python:{n}") for n in range(500)}
    decision = decide(review(version(**many)), SETTINGS)
    assert len(answered(decision)["warnings"]) == 15
    assert len(decision.response) < 8 * 1024
    again = copy.deepcopy(version(**many))
    assert decide(review(again, operation="UPDATE", oldObject=again), SETTINGS).allowed
