"""The guard directory in containers that hold busybox and nothing else: no Python, no C library, no user, no /proc."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealflow_kfp.guard_command import GuardMounts
from tests.kubeflow.guard_roots import RootLauncher, inside, make_root, program, put_guard, run
from tests.kubeflow.launcher import Stored, wait_for
from tests.pki import write_key
from tests.trees import flip_byte

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("guard-directory")]

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL, SCORES = "{{$.outputs.artifacts['model'].path}}", "{{$.outputs.artifacts['scores'].path}}"
INPUT = "{{$.inputs.artifacts['model'].path}}"
MAKE, USE = f"echo weights > {MODEL}", f"cat {INPUT} > {SCORES}"


class Team:
    """A launcher whose pods hold busybox, and a team's key and settings in its secret."""

    def __init__(self, root: Path, guard: Path) -> None:
        self.launcher = RootLauncher(root, guard)
        mount = self.launcher.mount
        mount.mkdir(parents=True)
        write_key(mount, "signing")
        settings = {
            "signer": "file:/var/run/sealflow/signing.pem",
            "identities": {"team": "file:/var/run/sealflow/signing.pub.pem"},
            "audit_spool": "/minio/spool",
        }
        (mount / "sealflow.json").write_text(json.dumps(settings))

    def make(self, script: str = MAKE, **more: Any) -> Any:
        return self.launcher.run("train", script, outputs={"model": "system.Model"}, **more)

    def use(self, model: Stored, script: str = USE, **more: Any) -> Any:
        return self.launcher.run("score", script, inputs={"model": model}, outputs={"scores": "system.Dataset"}, **more)


@pytest.fixture
def team(tmp_path: Path, guard: Path) -> Iterator[Team]:
    made = Team(tmp_path / "cluster", guard)
    yield made
    shutil.rmtree(tmp_path / "cluster")


# What a guard is for.


def test_signs_verifies_and_refuses_where_there_is_nothing_but_busybox(team: Team) -> None:
    pod = team.launcher.root / "pod"
    made = team.make()
    assert made.status == 0, made.log
    assert "Output model is signed" in made.log
    assert not [path for path in pod.rglob("*python*") if "sealflow/guard" not in str(path)]
    assert not (pod / "lib").exists()

    used = team.use(made.outputs["model"])
    assert used.status == 0, used.log
    assert "1 inputs verified, 1 outputs signed" in used.log
    assert team.launcher.key(used.outputs["scores"].uri).read_text() == "weights\n"

    flip_byte(team.launcher.key(made.outputs["model"].uri))
    refused = team.use(made.outputs["model"], f"touch /ran; {USE}")
    assert refused.status == 97, refused.log
    assert not refused.artifacts_uploaded
    assert not (pod / "ran").exists()
    assert "DIGEST" in refused.termination or "failed" in refused.termination


def test_the_commands_own_status_passes(team: Team) -> None:
    assert team.make("exit 7").status == 7
    assert team.make(["/no/such/program"]).status == 127


def test_a_signal_reaches_the_command(team: Team) -> None:
    def interfere(process: subprocess.Popen[bytes], pod: Path) -> None:
        wait_for(pod / "tmp" / "started")
        process.send_signal(signal.SIGTERM)

    script = "trap 'touch /tmp/told; exit 9' TERM; touch /tmp/started; while :; do sleep 0.05; done"
    assert team.make(script, interfere=interfere).status == 9
    assert (team.launcher.root / "pod" / "tmp" / "told").exists()


def test_the_command_gets_its_own_environment_and_none_of_the_guards(team: Team) -> None:
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
    team.launcher.environment = own
    done = team.make(["env"])
    said = dict(line.split("=", 1) for line in done.log.splitlines() if "=" in line and not line.startswith("sealflow"))
    assert said == team.launcher.given | own


# Whose image it is.


@pytest.mark.parametrize("user", [pytest.param(None, id="root"), pytest.param(1_000_650_000, id="unknown-user")])
@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
def test_any_user_and_a_root_that_cannot_be_written(team: Team, user: int | None, read_only: bool) -> None:
    if user is not None and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    (team.launcher.mount / "signing.pem").chmod(0o444)
    team.launcher.user, team.launcher.read_only = user, read_only
    made = team.make()
    assert made.status == 0, made.log
    used = team.use(made.outputs["model"])
    assert used.status == 0, used.log
    flip_byte(team.launcher.key(made.outputs["model"].uri))
    assert team.use(made.outputs["model"]).status == 97


def test_what_a_command_leaves_running_is_ended_or_named(team: Team) -> None:
    script = f"{MAKE}; setsid sleep 600 > /dev/null 2>&1 < /dev/null &"
    (team.launcher.root / "pod" / "dev").mkdir()
    (team.launcher.root / "pod" / "dev" / "null").write_text("")
    refused = team.make(f"setsid sleep 5 & {MAKE}")
    assert refused.status == 98, refused.log
    assert "there is no /proc" in refused.log
    assert not refused.artifacts_uploaded
    (team.launcher.root / "pod" / "dev" / "null").unlink()
    team.launcher.devices = True
    done = team.make(script)
    assert done.status == 0, done.log


def test_no_temporary_folder_is_needed_to_verify_and_sign(team: Team) -> None:
    made = team.make()
    team.launcher.scratch = False
    used = team.use(made.outputs["model"])
    assert used.status == 0, used.log
    assert not (team.launcher.root / "pod" / "tmp").exists()


# What an image or an author would like it to load.

EVIL = """
static long call(long number, long first, long second, long third)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(first), "S"(second), "d"(third)
                     : "rcx", "r11", "memory");
    return result;
}
__attribute__((visibility("default"))) unsigned la_version(unsigned version) { return version; }
void evil(void) { call(2, (long)"/tmp/owned", 0101, 0666); }
"""


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory, guard: Path) -> Path:
    """A library that leaves a file behind when it is loaded."""
    folder = tmp_path_factory.mktemp("evil")
    (folder / "evil.c").write_text(EVIL)
    flags = ["-shared", "-nostdlib", "-fPIC", "-fno-stack-protector", "-Wl,-init,evil"]
    subprocess.run(["cc", *flags, "evil.c", "-o", "evil.so"], cwd=folder, check=True)
    return folder / "evil.so"


def planted(pod: Path, evil: Path) -> None:
    """Put into the image all that a C library, OpenSSL and Python take along when they find it."""
    places = ["evil.so", "lib/libc.so.6", "lib64/libc.so.6", "usr/lib/libc.so.6", "lib/x86_64-linux-gnu/libc.so.6"]
    places += ["lib/x86_64-linux-gnu/libnss_evil.so.2", "lib/libnss_evil.so.2", "usr/lib/libcrypto.so.3"]
    for place in places:
        (pod / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(evil, pod / place)
    (pod / "etc").mkdir(exist_ok=True)
    (pod / "etc" / "ld.so.preload").write_text("/evil.so\n")
    (pod / "etc" / "nsswitch.conf").write_text("passwd: evil files\ngroup: evil\nhosts: evil files dns\n")
    configuration = (
        "openssl_conf = a\n[a]\nproviders = b\n[b]\nevil = c\ndefault = d\n[c]\nmodule = /evil.so\nactivate = 1\n"
        "[d]\nactivate = 1\n"
    )
    for place in ("usr/lib/ssl/openssl.cnf", "etc/ssl/openssl.cnf", "evil.cnf"):
        (pod / place).parent.mkdir(parents=True, exist_ok=True)
        (pod / place).write_text(configuration)
    code = "open('/tmp/owned', 'w').close()\n"
    for name in ("sitecustomize.py", "usercustomize.py", "os.py", "sealflow.py", "sealflow_kfp/__init__.py"):
        for folder in ("", "usr/lib/python3.11", "usr/local/lib/python3.11", "root"):
            path = pod / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
    (pod / "home" / ".aws").mkdir(parents=True)
    (pod / "home" / ".aws" / "config").write_text("[default]\ncredential_process = /bin/touch /tmp/owned\n")


ATTACKS = {
    "LD_PRELOAD": "/evil.so",
    "LD_AUDIT": "/evil.so",
    "LD_LIBRARY_PATH": "/lib:/usr/lib",
    "LD_TRACE_LOADED_OBJECTS": "1",
    "LD_SHOW_AUXV": "1",
    "GLIBC_TUNABLES": "glibc.malloc.check=3",
    "GCONV_PATH": "/",
    "LOCPATH": "/",
    "PYTHONPATH": "/",
    "PYTHONHOME": "/usr",
    "PYTHONSTARTUP": "/os.py",
    "PYTHONINSPECT": "1",
    "PYTHONEXECUTABLE": "/bin/sh",
    "OPENSSL_CONF": "/evil.cnf",
    "OPENSSL_MODULES": "/",
    "SSLKEYLOGFILE": "/tmp/owned",
    "AWS_CONFIG_FILE": "/home/.aws/config",
    "AWS_DATA_PATH": "/",
    "HOME": "/home",
    ":LD_PRELOAD": "/evil.so",
}


def test_neither_image_nor_environment_make_it_load_anything(team: Team, evil: Path) -> None:
    pod = team.launcher.root / "pod"
    planted(pod, evil)
    made = team.make()
    team.launcher.environment = ATTACKS
    for task in (team.make, lambda: team.use(made.outputs["model"])):
        done = task()
        assert done.status == 0, done.log
        assert "signed" in done.log
        assert not (pod / "tmp" / "owned").exists()
    # Here busybox is static. That these traps close on what listens is seen below.


def python(root: Path, code: str, *, environment: dict[str, str], loader: str = "/sealflow/guard/lib") -> str:
    """Run code with the guard's interpreter, without the program that stands before it; return what it says."""
    folder = root / "sealflow" / "guard"
    packages = next(folder.glob("lib/python3*/site-packages")).relative_to(root)
    command = [f"{loader}/ld-linux-x86-64.so.2", "--inhibit-cache", "--library-path", "/sealflow/guard/lib"]
    command += ["/sealflow/guard/bin/python3", "-I", "-S", "-c", f"import sys; sys.path.append('/{packages}'); {code}"]
    return run(inside(root, command), environment, root)[1]


NAMES = "import socket\ntry: socket.getaddrinfo('nobody.invalid', 1)\nexcept OSError: pass"
CONFIGURED = "from sealflow_kfp.guard_directory import configure_names; configure_names(); "
NOTHING = "/sealflow/guard/etc/nothing"
SSL = "import ssl; ssl.create_default_context()"


@pytest.mark.parametrize(
    ("code", "environment", "loader", "expected"),
    [
        # Each trap closes on an interpreter that was not told better …
        pytest.param("0", {"LD_PRELOAD": "/evil.so"}, "", True, id="preload-by-variable"),
        pytest.param("0", {"LD_AUDIT": "/evil.so"}, "", True, id="audit-by-variable"),
        pytest.param("0", {}, "/own", True, id="preload-by-file"),
        pytest.param(f"exec({NAMES!r})", {}, "", True, id="names"),
        pytest.param(SSL, {}, "", True, id="openssl"),
        # … and not on ours.
        pytest.param("0", {}, "", False, id="our-loader"),
        pytest.param(f"{CONFIGURED}exec({NAMES!r})", {"OPENSSL_CONF": NOTHING}, "", False, id="our-names"),
        pytest.param(SSL, {"OPENSSL_CONF": NOTHING}, "", False, id="our-openssl"),
    ],
)
def test_the_traps_are_traps(
    tmp_path: Path, guard: Path, evil: Path, code: str, environment: dict[str, str], loader: str, expected: bool
) -> None:
    root = make_root(tmp_path / "root")
    put_guard(guard, root)
    planted(root, evil)
    (root / "tmp").mkdir()
    if loader:
        # As the system has it: it listens to the image's file.
        (root / "own").mkdir()
        shutil.copy("/lib64/ld-linux-x86-64.so.2", root / "own")
    said = python(root, code, environment=environment, loader=loader or "/sealflow/guard/lib")
    assert (root / "tmp" / "owned").exists() is expected, said


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
