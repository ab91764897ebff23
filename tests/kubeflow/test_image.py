"""Which image the components name, and the image that brings the guard directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sealflow
from sealflow_kfp._image import default_image
from sealflow_kfp.guard_command import GUARD_PROGRAM, GuardMounts

ROOT = Path(__file__).resolve().parent.parent.parent
GUARD_IMAGE = ROOT / "Containerfile.guard"


def test_default_is_the_version_and_names_no_registry() -> None:
    assert default_image() == f"sealflow:{sealflow.__version__}"
    assert "/" not in default_image()


def test_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_KFP_IMAGE", "registry.example/team/sealflow:7")
    assert default_image() == "registry.example/team/sealflow:7"


def test_empty_environment_is_no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_KFP_IMAGE", "")
    assert default_image() == f"sealflow:{sealflow.__version__}"


def test_the_guard_image_holds_the_directory_and_nothing_else() -> None:
    lines = [line for line in GUARD_IMAGE.read_text().replace("\\\n", " ").splitlines() if not line.startswith("#")]
    instructions = [line.split(maxsplit=1)[0] for line in lines if line]
    # Nothing is pulled, and nothing runs while it is built.
    assert lines[0] == "FROM scratch"
    assert not {"RUN", "ADD"} & set(instructions)
    assert instructions.count("FROM") == instructions.count("COPY") == 1
    assert f"COPY . {GUARD_PROGRAM.rpartition('/')[0]}" in lines
    assert f'ENTRYPOINT ["{GUARD_PROGRAM}"]' in lines
    (user,) = re.findall(r"^USER (\d+)$", GUARD_IMAGE.read_text(), re.MULTILINE)
    assert int(user) == GuardMounts("image").init_container()["securityContext"]["runAsUser"] > 0


def test_hadolint_has_nothing_to_say_of_the_guard_image() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", GUARD_IMAGE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def buildah(
    tmp_path: Path, need_program: Callable[[str, str, str], None], loud: Callable[[str], None]
) -> Iterator[Callable[..., str]]:
    """Buildah with a store of its own; it needs no service, and no namespaces where it runs as root."""
    need_program("buildah", "buildah", "the guard image is not built")
    if os.geteuid() != 0:
        loud("ROOT: the guard image was not built, buildah without a namespace of users needs root")
        pytest.skip("buildah without a namespace of users needs root")
    store = ["--root", str(tmp_path / "store"), "--runroot", str(tmp_path / "run")]
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "HOME": str(tmp_path)}

    def call(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            ["buildah", *store, *words], env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=240
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + (done.stderr if status or "run" in words else "")

    yield call
    call("rm", "--all")
    shutil.rmtree(tmp_path / "store")


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.xdist_group("guard-directory")
def test_the_guard_image_is_built_and_copies_its_directory(
    guard: Path, buildah: Callable[..., str], tmp_path: Path
) -> None:
    build = ["build", "--timestamp", "0", "--file", str(GUARD_IMAGE), "--build-arg", "VERSION=1"]
    buildah(*build, "--tag", "guard:first", str(guard))
    image = json.loads(buildah("inspect", "--type", "image", "guard:first"))
    config = image["OCIv1"]["config"]
    assert (config["User"], config["Entrypoint"]) == ("65532", [GUARD_PROGRAM])

    container = buildah("from", "guard:first").strip()
    assert "sealflow: checked" in buildah("run", container, "--", *config["Entrypoint"], *config["Cmd"])
    target = tmp_path / "target"
    target.mkdir()
    target.chmod(0o777)
    made = GuardMounts("guard:first").init_container()
    volume = f"{target}:{made['volumeMounts'][0]['mountPath']}"
    assert "sealflow: copied" in buildah("run", "--volume", volume, container, "--", *made["command"])
    assert (target / "SHA256SUMS").read_bytes() == (guard / "SHA256SUMS").read_bytes()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=target, check=True)

    # The same files, the same image: a digest that somebody else can come to.
    buildah(*build, "--no-cache", "--tag", "guard:second", str(guard))
    again = json.loads(buildah("inspect", "--type", "image", "guard:second"))
    assert again["FromImageDigest"] == image["FromImageDigest"]
