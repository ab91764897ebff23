"""Packages that tasks install while they run: taken away, pinned, or kept and reported."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import UsageError
from sealflow_kfp.guard_command import IN_IMAGE as WRAPPER
from sealflow_kfp.hardening import PipelineError, harden
from sealflow_kfp.hardening.installs import MAX_LOCK, Lock, is_install, pinned
from tests.kubeflow.test_components import compiled
from tests.kubeflow.test_harden import codes, containers, documents

pytestmark = pytest.mark.kfp

HASH = "--hash=sha256:" + "0" * 64
LOCK = f"numpy==2.0.0 {HASH}\nkfp==2.16.1 \\\n    {HASH} \\\n    --hash=sha256:{'1' * 64}\n    # via nobody\n"


def command(done: Any, label: str = "exec-install") -> list[str]:
    found: list[str] = containers(done.documents[0])[label]["command"]
    return found[len(WRAPPER) :]


def test_installs_are_taken_away(tmp_path: Path) -> None:
    """What is left is how the compiler starts a component that needs no packages."""
    before = documents("installing", tmp_path)
    done = harden(before)
    plainly = containers(before[0])["exec-read"]["command"]
    assert command(done)[:3] == plainly[:3]
    assert command(done) == containers(before[0])["exec-install"]["command"][3:]
    assert codes(done) == {("INSTALL_REMOVED", "exec-install")}
    (gap,) = done.reports[0].gaps
    assert "numpy==2.0.0, kfp==" in gap.message
    assert "pip" not in str(command(done)[:3])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *((text, True) for text in (
            "pip install x", "pip3 install x", "python3 -m pip --quiet install x", "pip --no-cache-dir download x",
            "uv pip install x", "uv add x", "uv run x", "conda install -y x", "mamba create -n x",
            "apt-get -y install x", "easy_install x", "poetry install", "npm ci", "apk add x",
        )),
        *((text, False) for text in ("pip --version; install x y", "echo pipinstall", "installing", "uvicorn app")),
    ],
)  # fmt: skip
def test_installs_in_commands_are_reported(text: str, found: bool, tmp_path: Path) -> None:
    before = documents("steps", tmp_path)
    containers(before[0])["exec-copy"]["command"] = ["sh", "-c", f"set -e; {text} && run"]
    assert (("RUNTIME_INSTALL", "exec-copy") in codes(harden(before))) is found


def test_installs_that_are_kept_are_reported(tmp_path: Path) -> None:
    before = documents("installing", tmp_path)
    done = harden(before, keep_installs=True)
    assert command(done) == containers(before[0])["exec-install"]["command"]
    assert codes(done) == {("RUNTIME_INSTALL", "exec-install")}


def test_installs_are_pinned(tmp_path: Path) -> None:
    before = documents("installing", tmp_path)
    # The lock names what the script of this release of kfp asks for, whichever that is.
    done = harden(before, lock=_lock_for_kfp())
    script = command(done)[2]
    assert "--require-hashes --only-binary :all:" in script
    assert "--no-deps" in script
    assert "numpy==2.0.0 --hash=sha256:" in script
    assert "ensurepip" not in script
    assert command(done)[3:] == containers(before[0])["exec-install"]["command"][3:]
    # A task that installs nothing gets nothing.
    assert command(done, "exec-read") == containers(before[0])["exec-read"]["command"]
    assert not codes(done)
    for options in ({"lock": _lock_for_kfp()}, {}, {"keep_installs": True}):
        assert harden(done.documents, **options).documents == done.documents
    with pytest.raises(UsageError, match="another lock file already"):
        harden(done.documents, lock=f"numpy==2.0.1 {HASH}\n")


def _lock_for_kfp() -> str:
    import kfp

    return LOCK.replace("2.16.1", kfp.__version__)


@pytest.mark.parametrize("options", [{}, {"lock": LOCK}], ids=["plain", "lock"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda script: script.replace("lock=$(", "pip install evil; lock=$("), id="more-before"),
        pytest.param(lambda script: script.replace('exec "$0"', 'pip install evil; exec "$0"'), id="more-behind"),
        pytest.param(lambda script: script.replace("--require-hashes ", ""), id="no-hashes"),
        pytest.param(lambda script: script.replace("-r ", "--pre -r "), id="option"),
        pytest.param(lambda script: script.split("\n")[0] + f"\npip install evil # '{LOCK}' > ", id="mark-alone"),
    ],
)
def test_our_own_mark_hides_nothing(change: Any, options: dict[str, Any], tmp_path: Path) -> None:
    before = documents("installing", tmp_path)
    done = harden(before, lock=_lock_for_kfp())
    container = containers(done.documents[0])["exec-install"]
    script = container["command"][len(WRAPPER) + 2]
    assert change(script) != script
    container["command"][len(WRAPPER) + 2] = change(script)
    assert ("RUNTIME_INSTALL", "exec-install") in codes(harden(done.documents, **options))


@pytest.mark.parametrize(
    ("lock", "match"),
    [
        pytest.param(f"kfp==2.16.1 {HASH}\n", "'numpy==2.0.0', and the lock file holds no such package", id="missing"),
        pytest.param(LOCK.replace("2.0.0", "2.0.1"), "the lock file holds version 2.0.1", id="other-version"),
    ],
)
def test_a_lock_that_does_not_hold_what_is_installed_is_refused(lock: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=match):
        harden(documents("installing", tmp_path), lock=lock)


@pytest.mark.parametrize(
    "lock",
    [
        pytest.param("", id="empty"),
        pytest.param("# nothing\n", id="comment"),
        pytest.param("numpy==2.0.0\n", id="no-hash"),
        pytest.param(f"numpy>=2.0.0 {HASH}\n", id="no-version"),
        pytest.param("numpy==2.0.0 --hash=md5:" + "0" * 32, id="weak-hash"),
        pytest.param("numpy==2.0.0 --hash=sha256:" + "0" * 63, id="short-hash"),
        pytest.param(f"--index-url https://example.com/simple\nnumpy==2.0.0 {HASH}\n", id="option"),
        pytest.param("-r other.txt\n", id="other-file"),
        pytest.param(f"-e ./numpy {HASH}\n", id="editable"),
        pytest.param(f"numpy @ https://example.com/numpy.whl {HASH}\n", id="location"),
        pytest.param(f"./numpy.whl {HASH}\n", id="path"),
        pytest.param(f"numpy==2.0.0 {HASH} ; rm -rf /\n", id="behind-the-hash"),
        pytest.param(f"numpy==2.0.0'$(id)' {HASH}\n", id="shell"),
        pytest.param(f"numpy==2.0.0 {HASH}\nNumPy==2.0.1 {HASH}\n", id="two-versions"),
        pytest.param(b"\xff", id="not-utf-8"),
        pytest.param(b"#" * (MAX_LOCK + 1), id="long"),
    ],
)
def test_locks_that_are_none_are_refused(lock: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        harden(documents("steps", tmp_path), lock=lock)


def test_lock_and_kept_installs_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not both"):
        harden(documents("steps", tmp_path), lock=LOCK, keep_installs=True)


SCRIPT = """
if ! [ -x "$(command -v pip)" ]; then
    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip
fi

PIP_DISABLE_PIP_VERSION_CHECK=1 {} && "$0" "$@"
"""
PIP = "python3 -m pip install --quiet --no-warn-script-location "


@pytest.mark.parametrize(
    ("installs", "match"),
    [
        pytest.param("curl https://example.com | sh", "runs more than pip", id="another-program"),
        pytest.param(PIP + "'a' ; id", "no such package", id="second-command"),
        pytest.param(PIP + "'numpy==2.0.0' && id", "runs more than pip", id="behind-pip"),
        pytest.param(PIP + "'numpy", "cannot be read", id="open-quote"),
        pytest.param(PIP + "'git+https://example.com/numpy'", "no such package", id="repository"),
        pytest.param(PIP + "/wheels/numpy.whl", "no such package", id="path"),
        pytest.param(PIP + "--pre 'numpy==2.0.0'", "no such package", id="option"),
    ],
)
def test_scripts_that_do_more_are_not_pinned(installs: str, match: str) -> None:
    before = ["sh", "-c", SCRIPT.format(installs), "sh", "-ec", "true", "x"]
    assert is_install(before)
    with pytest.raises(UsageError, match=match):
        pinned(before, Lock.parse(LOCK.encode(), "x"), "The executor")


def test_index_of_the_author_is_kept(tmp_path: Path) -> None:
    from kfp import dsl

    @dsl.component(
        base_image="python",
        packages_to_install=["numpy==2.0.0"],
        pip_index_urls=["https://one.example/simple", "https://two.example/simple"],
    )
    def train():
        pass

    @dsl.pipeline
    def pipeline():
        train()

    done = harden(compiled(pipeline, tmp_path), lock=_lock_for_kfp())
    script = command(done, "exec-train")[2]
    assert script.count("--index-url https://one.example/simple --extra-index-url https://two.example/simple ") == 1


def test_a_virtual_environment_is_taken_away(tmp_path: Path) -> None:
    from kfp import dsl

    @dsl.component(base_image="python", use_venv=True)
    def train():
        pass

    @dsl.pipeline
    def pipeline():
        train()

    before = compiled(pipeline, tmp_path)
    done = harden(before)
    assert command(done, "exec-train") == containers(before[0])["exec-train"]["command"][3:]
    with pytest.raises(PipelineError, match="runs more than pip"):
        harden(before, lock=_lock_for_kfp())


@pytest.mark.parametrize("changed", [False, True])
def test_what_is_pinned_is_what_is_installed(changed: bool, tmp_path: Path) -> None:
    """Pip itself: the file with the hash is installed, another one of the same name and version is not."""
    wheel = tmp_path / "index" / "sealedthing-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sealedthing.py", "VALUE = 7\n")
        archive.writestr(
            "sealedthing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: sealedthing\nVersion: 1.0\n"
        )
        archive.writestr("sealedthing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("sealedthing-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if changed:
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("planted.py", "")
    lock = Lock.parse(f"sealedthing==1.0 --hash=sha256:{digest}\n".encode(), "x")
    asked = ["sh", "-c", SCRIPT.format(PIP + "'sealedthing'"), sys.executable, "-c", "import sealedthing"]
    made = pinned(asked, lock, "The executor")
    target = tmp_path / "target"
    pip = tmp_path / "bin" / "python3"
    pip.parent.mkdir()
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    pip.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{pip.parent}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheel.parent),
        "PIP_TARGET": str(target),
        "PYTHONPATH": str(target),
    }
    done = subprocess.run(made, env=env, capture_output=True, text=True)
    assert (done.returncode == 0) is not changed, done.stderr
    assert (target / "sealedthing.py").exists() is not changed
    if changed:
        assert "DO NOT MATCH THE HASHES" in done.stderr
