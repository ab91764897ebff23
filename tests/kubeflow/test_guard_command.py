"""How a command is put under the guard: word for word, and what a pod needs for it."""

from __future__ import annotations

import pytest

from sealflow.errors import UsageError
from sealflow_kfp.guard_command import (
    GUARD_DIRECTORY,
    GUARD_PROGRAM,
    IN_DIRECTORY,
    IN_IMAGE,
    GuardMounts,
    has_digest,
    is_guarded,
    looks_guarded,
    resource_name,
)

IMAGE = "registry.example/sealflow-guard@sha256:" + "a" * 64


@pytest.mark.parametrize("prefix", [IN_IMAGE, IN_DIRECTORY])
def test_the_command_under_the_guard_is_found(prefix: tuple[str, ...]) -> None:
    assert is_guarded([*prefix, "sh", "-c", "true"]) == ["sh", "-c", "true"]


def test_where_images_are_not_trusted_their_python_is_no_guard() -> None:
    assert is_guarded([*IN_IMAGE, "sh"], (IN_DIRECTORY,)) is None
    assert is_guarded([*IN_DIRECTORY, "sh"], (IN_DIRECTORY,)) == ["sh"]


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param([], id="nothing"),
        pytest.param(["sh"], id="other"),
        pytest.param(list(IN_IMAGE), id="nothing-behind"),
        pytest.param(list(IN_DIRECTORY), id="nothing-behind-the-directory"),
        pytest.param(["env", *IN_DIRECTORY, "sh"], id="something-before"),
        pytest.param(["/sealflow/guard/./guard", *IN_DIRECTORY[1:], "sh"], id="other-spelling"),
        pytest.param(["/sealflow//guard/guard", *IN_DIRECTORY[1:], "sh"], id="two-slashes"),
        pytest.param(["/tmp/sealflow/guard/guard", *IN_DIRECTORY[1:], "sh"], id="elsewhere"),
        pytest.param(["guard", *IN_DIRECTORY[1:], "sh"], id="from-the-path"),
        pytest.param([GUARD_PROGRAM, "--executor-input", "{}", "--", "sh"], id="other-input"),
        pytest.param([GUARD_PROGRAM, "--executor-input={{$}}", "--", "sh"], id="joined"),
        pytest.param([GUARD_PROGRAM, "--copy-to", "{{$}}", "--", "sh"], id="copies"),
        pytest.param(["python3", *IN_IMAGE[2:], "sh"], id="not-isolated"),
        pytest.param(["/usr/bin/python3", *IN_IMAGE[1:], "sh"], id="python-by-path"),
        pytest.param([*IN_IMAGE[:3], "sealflow_kfp.exec2", *IN_IMAGE[4:], "sh"], id="other-module"),
    ],
)
def test_what_only_looks_like_the_guard_is_none(argv: list[str]) -> None:
    assert is_guarded(argv) is None


@pytest.mark.parametrize(
    "argv", [[*IN_IMAGE, "sh"], [*IN_DIRECTORY, "sh"], ["python", "-m", "sealflow_kfp.exec"], ["env", GUARD_PROGRAM]]
)
def test_what_looks_like_a_guard_is_known(argv: list[str]) -> None:
    assert looks_guarded(argv)
    assert not looks_guarded(["sh", "-c", "python3 -m sealflow_kfp.exec"])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (IMAGE, True),
        ("registry.example:5000/a/b:1.2@sha256:" + "0" * 64, True),
        ("registry.example/a:1", False),
        ("registry.example/a@sha256:" + "a" * 63, False),
        ("registry.example/a@sha256:" + "A" * 64, False),
        ("@sha256:" + "a" * 64, False),
        (IMAGE + "\n", False),
        (IMAGE + "0", False),
        ("a@sha256:" + "a" * 64 + "@sha256:" + "b" * 64, False),
    ],
)
def test_which_image_has_a_digest(image: str, expected: bool) -> None:
    assert has_digest(image) is expected


def test_a_pod_gets_the_directory_read_only_and_what_is_named() -> None:
    mounts = GuardMounts(IMAGE, "sealflow", "sealflow-policy")
    assert [item["name"] for item in mounts.volumes()] == ["sealflow-guard", "sealflow-secret", "sealflow-policy"]
    assert {item["mountPath"]: item["name"] for item in mounts.volume_mounts()} == {
        GUARD_DIRECTORY: "sealflow-guard",
        "/var/run/sealflow": "sealflow-secret",
        "/etc/sealflow": "sealflow-policy",
    }
    assert all(item["readOnly"] is True for item in mounts.volume_mounts())
    bare = GuardMounts(IMAGE)
    assert [item["name"] for item in bare.volumes()] == [item["name"] for item in bare.volume_mounts()]


def test_the_init_container_may_nothing_but_copy() -> None:
    container = GuardMounts(IMAGE, "sealflow").init_container()
    assert container["image"] == IMAGE
    # It sees no key.
    assert [item["name"] for item in container["volumeMounts"]] == ["sealflow-guard"]
    assert container["volumeMounts"][0]["mountPath"] == container["command"][-1] != GUARD_DIRECTORY
    security = container["securityContext"]
    assert (security["runAsNonRoot"], security["readOnlyRootFilesystem"]) == (True, True)
    assert security["allowPrivilegeEscalation"] is security["privileged"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["runAsUser"] > 0


def test_pieces_are_made_anew_each_time() -> None:
    mounts = GuardMounts(IMAGE, "sealflow")
    for make in (mounts.init_container, mounts.volumes, mounts.volume_mounts):
        assert make() == make()
        assert make() is not make()


@pytest.mark.parametrize("name", ["", "A", "a/b", "-a", "a" * 254, "a..b", "a\n"])
def test_what_kubernetes_calls_nothing_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="no name of a secret"):
        resource_name(name, "secret")
    assert resource_name(None, "secret") == ""
