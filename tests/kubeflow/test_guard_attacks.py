"""What an image or an author would like the guard directory to load, and it does not.

Each trap is seen to close on an interpreter that was not told better.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kubeflow.guard_roots import Team, inside, make_root, put_guard, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("guard-directory")]

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


#: Python asks for it at its start; what is in it makes glibc look for a converter.
LOCALE = Path("/usr/lib/locale/C.utf8")


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
    converters = pod / "usr" / "lib" / "x86_64-linux-gnu" / "gconv"
    converters.mkdir(parents=True)
    shutil.copy(evil, converters / "EVIL.so")
    (converters / "gconv-modules").write_text(
        "alias UTF-8// EVIL//\nmodule EVIL// INTERNAL EVIL 1\nmodule INTERNAL EVIL// EVIL 1\n"
    )
    if LOCALE.is_dir():
        shutil.copytree(LOCALE, pod / "usr" / "lib" / "locale" / LOCALE.name)
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


def test_neither_image_nor_environment_make_it_load_anything(busybox_team: Team, evil: Path) -> None:
    pod = busybox_team.launcher.root / "pod"
    planted(pod, evil)
    made = busybox_team.make()
    busybox_team.launcher.environment = ATTACKS
    for task in (busybox_team.make, lambda: busybox_team.use(made.outputs["model"])):
        done = task()
        assert done.status == 0, done.log
        assert "signed" in done.log
        assert not (pod / "tmp" / "owned").exists()


def python(root: Path, code: str, *, environment: dict[str, str], loader: str = "/sealflow/guard/lib") -> str:
    """Run code with the guard's interpreter, without the program that stands before it; return what it says."""
    folder = root / "sealflow" / "guard"
    packages = next(folder.glob("lib/python3*/site-packages")).relative_to(root)
    libraries = "/sealflow/guard/lib"
    if (root / "own" / "libc.so.6").exists():
        loader, libraries = libraries, f"/own:{libraries}"
    command = [f"{loader}/ld-linux-x86-64.so.2", "--inhibit-cache", "--library-path", libraries]
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
        pytest.param("0", {}, "ld-linux-x86-64.so.2", True, id="preload-by-file"),
        pytest.param(f"exec({NAMES!r})", {}, "", True, id="names"),
        pytest.param(
            "0",
            {},
            "libc.so.6",
            True,
            id="converters",
            marks=pytest.mark.skipif(not LOCALE.is_dir(), reason="this machine's C library keeps no locale C.utf8"),
        ),
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
        # As the system has it: it listens to the image's files.
        (root / "own").mkdir()
        shutil.copy(Path("/lib64/ld-linux-x86-64.so.2").resolve().with_name(loader), root / "own")
    said = python(root, code, environment=environment, loader="/own" if loader else "/sealflow/guard/lib")
    assert (root / "tmp" / "owned").exists() is expected, said
