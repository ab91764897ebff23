"""The guard directory in containers that hold busybox and nothing else: no Python, no C library, no user, no /proc."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow_kfp.guard_command import IN_DIRECTORY, GuardMounts
from sealflow_kfp.hardening import harden
from tests.kubeflow.guard_roots import INPUT, MAKE, USE, Team, inside, program, put_guard, run
from tests.kubeflow.launcher import PIPELINE, Outcome, wait_for
from tests.kubeflow.test_harden_text import pipeline
from tests.trees import flip_byte

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("guard-directory")]

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = "11111111-1111-4111-8111-111111111111"


# What a guard is for.


def test_signs_verifies_and_refuses_where_there_is_nothing_but_busybox(busybox_team: Team) -> None:
    pod = busybox_team.launcher.root / "pod"
    made = busybox_team.make()
    assert made.status == 0, made.log
    assert "Output model is signed" in made.log
    assert not [path for path in pod.rglob("*python*") if "sealflow/guard" not in str(path)]
    assert not (pod / "lib").exists()

    used = busybox_team.use(made.outputs["model"])
    assert used.status == 0, used.log
    assert "1 inputs verified, 1 outputs signed" in used.log
    assert busybox_team.launcher.key(used.outputs["scores"].uri).read_text() == "weights\n"

    flip_byte(busybox_team.launcher.key(made.outputs["model"].uri))
    refused = busybox_team.use(made.outputs["model"], f"touch /ran; {USE}")
    assert refused.status == 97, refused.log
    assert not refused.artifacts_uploaded
    assert not (pod / "ran").exists()
    assert "DIGEST" in refused.termination or "failed" in refused.termination


def test_the_commands_own_status_passes(busybox_team: Team) -> None:
    assert busybox_team.make("exit 7").status == 7
    assert busybox_team.make(["/no/such/program"]).status == 127


def test_a_signal_reaches_the_command(busybox_team: Team) -> None:
    def interfere(process: subprocess.Popen[bytes], pod: Path) -> None:
        wait_for(pod / "tmp" / "started")
        process.send_signal(signal.SIGTERM)

    script = "trap 'touch /tmp/told; exit 9' TERM; touch /tmp/started; while :; do sleep 0.05; done"
    assert busybox_team.make(script, interfere=interfere).status == 9
    assert (busybox_team.launcher.root / "pod" / "tmp" / "told").exists()


def test_the_command_gets_its_own_environment_and_none_of_the_guards(busybox_team: Team) -> None:
    own = {
        "LD_LIBRARY_PATH": "/opt/libraries",
        "LD_PRELOAD": "/opt/allocator.so",
        "PYTHONPATH": "/opt/python",
        "PYTHONHOME": "/opt",
        "OPENSSL_CONF": "/opt/openssl.cnf",
        "HOME": "/home/author",
        "LC_ALL": "de_DE.UTF-8",
        "SEALFLOW_MOUNT": "/opt",
        "EMPTY": "",
        "UMLAUT": "ä=ö",
        "AWS_CONFIG_FILE": "/opt/aws",
    }
    busybox_team.launcher.environment = own
    done = busybox_team.make(["env"])
    said = dict(line.split("=", 1) for line in done.log.splitlines() if "=" in line and not line.startswith("sealflow"))
    assert said == busybox_team.launcher.given | own


def test_a_pipeline_hardened_for_it_runs_its_own_commands(busybox_team: Team) -> None:
    before = pipeline(pipelineInfo={"name": PIPELINE})
    executors = before["deploymentSpec"]["executors"]
    executors["exec-make"] = {"container": {"image": "busybox", "command": ["sh", "-c"], "args": [MAKE]}}
    executors["exec-use"] = {"container": {"image": "busybox", "command": ["cat"], "args": [INPUT]}}
    (body,) = harden([before], guard="directory").documents
    launcher = busybox_team.launcher
    # The pipeline itself names the guard.
    launcher.wrapped = False

    def run_task(name: str, **more: Any) -> Outcome:
        container = body["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
        given = body["root"]["dag"]["tasks"][name]["inputs"]["parameters"]
        values = {key: item["runtimeValue"]["constant"] for key, item in given.items()}
        values |= {"sealflow_run_id": RUN, "sealflow_task": name}
        return launcher.run(name, [*container["command"], *container["args"]], parameters=values, run=RUN, **more)

    made = run_task("make", outputs={"model": "system.Model"})
    assert made.status == 0, made.log
    used = run_task("use", inputs={"model": made.outputs["model"]})
    assert (used.status, "weights" in used.log) == (0, True), used.log
    # The plan says which task the model comes from.
    other = launcher.run("other", [*IN_DIRECTORY, "sh", "-c", MAKE], outputs={"model": "system.Model"}, run=RUN)
    assert other.status == 0, other.log
    refused = run_task("use", inputs={"model": other.outputs["model"]})
    assert (refused.status, "weights" in refused.log) == (97, False), refused.log


# Whose image it is.


@pytest.mark.parametrize("user", [pytest.param(None, id="root"), pytest.param(1_000_650_000, id="unknown-user")])
@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
def test_any_user_and_a_root_that_cannot_be_written(
    busybox_team: Team, user: int | None, read_only: bool, loud: Callable[[str], None]
) -> None:
    if user is not None and os.geteuid() != 0:
        loud("ROOT: the guard directory was not started as another user, only root can become one")
        pytest.skip("only root can become another user")
    (busybox_team.launcher.mount / "signing.pem").chmod(0o444)
    busybox_team.launcher.user, busybox_team.launcher.read_only = user, read_only
    made = busybox_team.make()
    assert made.status == 0, made.log
    used = busybox_team.use(made.outputs["model"])
    assert used.status == 0, used.log
    flip_byte(busybox_team.launcher.key(made.outputs["model"].uri))
    assert busybox_team.use(made.outputs["model"]).status == 97


def test_what_a_command_leaves_running_is_ended_or_named(busybox_team: Team) -> None:
    script = f"{MAKE}; setsid sleep 600 > /dev/null 2>&1 < /dev/null &"
    (busybox_team.launcher.root / "pod" / "dev").mkdir()
    (busybox_team.launcher.root / "pod" / "dev" / "null").write_text("")
    refused = busybox_team.make(f"setsid sleep 5 & {MAKE}")
    assert refused.status == 98, refused.log
    assert "there is no /proc" in refused.log
    assert not refused.artifacts_uploaded
    (busybox_team.launcher.root / "pod" / "dev" / "null").unlink()
    busybox_team.launcher.devices = True
    done = busybox_team.make(script)
    assert done.status == 0, done.log


def test_no_temporary_folder_is_needed_to_verify_and_sign(busybox_team: Team) -> None:
    made = busybox_team.make()
    busybox_team.launcher.scratch = False
    used = busybox_team.use(made.outputs["model"])
    assert used.status == 0, used.log
    assert not (busybox_team.launcher.root / "pod" / "tmp").exists()


def test_it_has_to_be_started_by_its_path(guard: Path) -> None:
    done = subprocess.run(["./guard", "--check"], cwd=guard, capture_output=True, text=True, env={})
    assert done.returncode == 98
    assert "absolute path" in done.stderr


# The directory itself.


def test_copies_itself_into_a_volume_without_a_shell(tmp_path: Path, guard: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    put_guard(guard, root)
    container = GuardMounts("image").init_container()
    volume = root / container["volumeMounts"][0]["mountPath"].removeprefix("/")
    volume.mkdir()
    volume.chmod(0o777)
    user = container["securityContext"]["runAsUser"] if os.geteuid() == 0 else None
    command = inside(root, container["command"], user=user)
    # Twice: an init container can be started again, over what it left.
    for _ in range(2):
        status, log = run(command, {}, root)
        assert (status, log.split()[:2]) == (0, ["sealflow:", "copied"]), log
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=volume, check=True)
    assert modes(volume) == modes(guard)
    digest = hashlib.sha256((guard / "SHA256SUMS").read_bytes()).hexdigest()
    assert digest in log
    status, log = run([str(volume / "guard"), "--check"], {}, root)
    assert (status, digest in log) == (0, True), log


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mode for path in folder.rglob("*") if path.is_file()}


def test_a_changed_file_is_not_copied(tmp_path: Path, guard: Path) -> None:
    changed = tmp_path / "guard"
    shutil.copytree(guard, changed)
    victim = next(changed.rglob("exec.pyc"))
    victim.chmod(0o644)
    # What does not run anything else: the date in its header.
    data = bytearray(victim.read_bytes())
    data[8] ^= 1
    victim.write_bytes(bytes(data))
    (tmp_path / "target").mkdir()
    done = subprocess.run([changed / "guard", "--copy-to", tmp_path / "target"], capture_output=True, text=True, env={})
    assert done.returncode == 98
    assert "exec.pyc is not the file that was built" in done.stderr
    # Nothing starts a copy that is not whole.
    assert not (tmp_path / "target" / "guard").exists()


def test_another_build_is_the_same_byte_for_byte(tmp_path: Path, guard: Path) -> None:
    again = tmp_path / "elsewhere" / "again"
    subprocess.run([sys.executable, ROOT / "scripts" / "build_guard.py", again], check=True, capture_output=True)
    assert (again / "SHA256SUMS").read_text() == (guard / "SHA256SUMS").read_text()


def test_nothing_of_the_machine_that_built_it_is_left_in_it(guard: Path) -> None:
    for path in guard.rglob("*.pyc"):
        assert str(ROOT).encode() not in path.read_bytes(), path
    assert not [path for path in guard.rglob("*") if path.is_symlink() or path.suffix == ".py"]
    assert program("guard") is None


def test_its_bill_names_what_is_in_it(guard: Path) -> None:
    bill = (guard / "THIRD-PARTY.txt").read_text()
    for name in ("Python", "glibc", "cryptography", "pydantic", "boto3", "libcrypto"):
        assert re.search(rf"^{name}\S* ", bill, re.MULTILINE), name
    size = sum(path.stat().st_size for path in guard.rglob("*") if path.is_file())
    assert size < 80e6
