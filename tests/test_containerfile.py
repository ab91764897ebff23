"""The image of the Kubeflow components: linted everywhere, built where a builder works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONTAINERFILE = (ROOT / "Containerfile").read_text()
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in CONTAINERFILE.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]

# Read here, because every test runs without them: a base that needs no registry, and what a builder
# behind a proxy or an index of its own must be told.
BASE = os.environ.get("SEALFLOW_TEST_BASE_IMAGE")
BUILD_ARGS = shlex.split(os.environ.get("SEALFLOW_TEST_BUILD_ARGS", ""))


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def test_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", ROOT / "Containerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_runs_as_a_numbered_user_who_is_not_root() -> None:
    assert arguments("USER")[-1].isdecimal()
    assert int(arguments("USER")[-1]) > 0


def test_versions_are_pinned() -> None:
    assert arguments("FROM")[-1] == "${BASE}"
    assert re.fullmatch(r"BASE=python:3\.\d+-\S+", arguments("ARG")[0])
    installs = [rest for rest in arguments("RUN") if "pip install" in rest]
    assert installs
    assert all("--constraint constraints.txt" in install for install in installs)


def test_no_secret_can_be_baked_in() -> None:
    # An ARG or ENV is readable in the image's history.
    names = " ".join(arguments("ARG") + arguments("ENV")).lower()
    assert not re.search(r"secret|password|token|passphrase|index_url", names)
    assert not arguments("ADD")


def test_builder_gets_only_what_is_copied() -> None:
    lines = (ROOT / ".containerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {source for rest in arguments("COPY") if not rest.startswith("--from") for source in rest.split()[:-1]}
    assert "*" in lines
    assert allowed == copied


def can_pull(builder: str, image: str) -> bool:
    try:
        return not subprocess.run([builder, "pull", image], capture_output=True, timeout=300).returncode
    except subprocess.TimeoutExpired:
        return False


def working_builder() -> str | None:
    for name in ("podman", "buildah", "docker"):
        if shutil.which(name) is None:
            continue
        try:
            done = subprocess.run([name, "info"], capture_output=True, timeout=30)
        except subprocess.TimeoutExpired:
            continue
        # docker's client exits 0 in some releases although no server answers.
        if done.returncode == 0 and b"Cannot connect" not in done.stdout + done.stderr:
            return name
    return None


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(1800)
def test_builds_and_runs(loud: Callable[[str], None]) -> None:
    builder = working_builder()
    base = BASE or arguments("ARG")[0].removeprefix("BASE=")
    if builder is None:
        problem = "no working podman, buildah or docker"
    elif not BASE and not can_pull(builder, base):
        problem = f"{builder} cannot pull {base} (SEALFLOW_TEST_BASE_IMAGE names another)"
    else:
        problem = None
    if problem:
        loud(f"CONTAINER: the image was linted, not built: {problem}")
        pytest.skip(problem)

    tag = "sealflow-test:build"
    build = [builder, "build", "--file", "Containerfile", "--tag", tag, "--build-arg"]
    subprocess.run([*build, f"BASE={base}", *BUILD_ARGS, "."], cwd=ROOT, check=True)
    imports = (
        "import os, shutil, boto3, kfp, sealflow, sealflow_kfp, sealflow_kfp.admission.server; "
        "assert os.getuid() == 10001; assert shutil.which('git'); assert shutil.which('sealflow')"
    )
    command = ["python3", "-c", imports]
    if builder == "buildah":  # which runs a command in a working container only
        container = subprocess.check_output([builder, "from", tag], text=True).strip()
        try:
            subprocess.run([builder, "run", container, "--", *command], check=True)
        finally:
            subprocess.run([builder, "rm", container], check=True)
    else:
        subprocess.run([builder, "run", "--rm", tag, *command], check=True)
