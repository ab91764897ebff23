"""Hardening for the guard directory: images without Python, and a cluster that brings the guard."""

from __future__ import annotations

from typing import Any

import pytest

from sealflow.errors import UsageError
from sealflow_kfp.guard_command import GUARD_DIRECTORY, IN_DIRECTORY, IN_IMAGE, is_guarded
from sealflow_kfp.hardening import PipelineError, harden
from tests.kubeflow.test_harden_text import pipeline


def containers(body: Any) -> dict[str, Any]:
    return {label: item["container"] for label, item in body["deploymentSpec"]["executors"].items()}


def with_platform(config: dict[str, Any]) -> list[Any]:
    executors = {"exec-make": config}
    return [pipeline(), {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}]


def codes(done: Any) -> set[tuple[str, str]]:
    return {(gap.code, gap.where) for report in done.reports for gap in report.gaps}


def test_every_command_starts_from_the_directory() -> None:
    (body,) = harden([pipeline()], guard="directory").documents
    for label, container in containers(body).items():
        assert is_guarded(container["command"], (IN_DIRECTORY,)) == containers(pipeline())[label]["command"]
        assert container["args"] == ["true"]


def test_all_else_is_as_for_images() -> None:
    (there,) = harden([pipeline()], guard="directory").documents
    (here,) = harden([pipeline()]).documents
    for container in [*containers(there).values(), *containers(here).values()]:
        container["command"] = is_guarded(container["command"])
    assert there == here


def test_the_report_says_what_the_cluster_has_to_bring() -> None:
    done = harden([pipeline()], guard="directory")
    assert codes(done) == {("GUARD_DIRECTORY", "small")}
    (gap,) = done.reports[0].gaps
    assert not gap.unguarded
    assert "spec-patch" in gap.next_step
    assert codes(harden([pipeline()])) == set()


@pytest.mark.parametrize(
    ("first", "then"), [("image", "directory"), ("directory", "image"), ("directory", "directory")]
)
def test_hardening_again_puts_one_guard_in_the_place_of_the_other(first: str, then: str) -> None:
    once = harden([pipeline()], guard=first).documents
    (body,) = harden(once, guard=then).documents
    (fresh,) = harden([pipeline()], guard=then).documents
    assert body == fresh


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([IN_DIRECTORY[0], "--copy-to", "/tmp"], id="copies"),
        pytest.param([*IN_DIRECTORY], id="nothing-behind"),
        pytest.param(["env", *IN_DIRECTORY, "sh"], id="something-before"),
        pytest.param([*IN_DIRECTORY, *IN_DIRECTORY, "sh"], id="twice"),
        pytest.param([*IN_DIRECTORY, *IN_IMAGE, "sh"], id="both"),
        pytest.param([f"{GUARD_DIRECTORY}/bin/python3", "-c", "0"], id="its-interpreter"),
    ],
)
@pytest.mark.parametrize("guard", ["image", "directory"])
def test_a_guard_of_the_authors_own_is_refused(command: list[str], guard: str) -> None:
    before = pipeline()
    containers(before)["exec-make"]["command"] = command
    with pytest.raises(PipelineError, match="exec-make"):
        harden([before], guard=guard)


@pytest.mark.parametrize("guard", ["image", "directory"])
@pytest.mark.parametrize("path", ["/sealflow", "/sealflow/guard", "/sealflow/guard/lib", "/sealflow/./guard", "/"])
def test_nothing_of_an_authors_is_mounted_over_the_directory(path: str, guard: str) -> None:
    with pytest.raises(PipelineError, match="mounts"):
        harden(with_platform({"emptyDirMounts": [{"volumeName": "x", "mountPath": path}]}), guard=guard)


@pytest.mark.parametrize(
    ("path", "reported"), [("/usr/bin", False), ("/opt/x", False), ("/tmp", True), ("/proc", True)]
)
def test_volumes_that_the_guard_uses_are_reported(path: str, reported: bool) -> None:
    done = harden(with_platform({"pvcMount": [{"constant": "x", "mountPath": path}]}), guard="directory")
    assert (("PROGRAM_VOLUME", "exec-make") in codes(done)) is reported


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        ("LD_PRELOAD", False),
        ("PATH", False),
        ("HOME", False),
        ("OPENSSL_CONF", False),
        ("AWS_CONFIG_FILE", False),
        ("AWS_CA_BUNDLE", True),
        ("AWS_ENDPOINT_URL_S3", True),
        ("HTTPS_PROXY", True),
        ("https_proxy", True),
    ],
)
def test_variables_that_the_guard_hears_are_reported(name: str, reported: bool) -> None:
    before = pipeline()
    containers(before)["exec-make"]["env"] = [{"name": name, "value": "x"}]
    assert (("PROGRAM_VARIABLE", "exec-make") in codes(harden([before], guard="directory"))) is reported
    assert ("PROGRAM_VARIABLE", "exec-make") in codes(harden([before]))


def test_settings_are_no_authors_variables_there_either() -> None:
    before = pipeline()
    containers(before)["exec-make"]["env"] = [{"name": "SEALFLOW_TERMINATION_LOG", "value": "x"}]
    with pytest.raises(PipelineError, match="SEALFLOW_TERMINATION_LOG"):
        harden([before], guard="directory")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"guard": "elsewhere"}, "elsewhere"), ({"guard": "directory", "local": True}, "mounts no guard directory")],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        harden([pipeline()], **options)
