"""``sealflow kfp admission`` as a process: it starts, serves, and goes when it is told."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from sealflow.cli import kfp_admission
from sealflow.errors import MissingExtraError
from tests.kubeflow.admission_client import Authority, review

pytestmark = pytest.mark.slow

IMAGE = "registry.example/guard@sha256:" + "a" * 64
SETTINGS = f"""
sealflow_admission: 1
mode: enforce
guard:
  image: {IMAGE}
  secret: sealflow
  policy_config_map: sealflow-policy
kubeflow:
  launcher_images: [registry.example/launcher@sha256:{"b" * 64}]
  driver_images: [registry.example/driver@sha256:{"c" * 64}]
  executor_images: [registry.example/argoexec@sha256:{"d" * 64}]
"""
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "bare", "namespace": "team"},
    "spec": {"containers": [{"name": "main", "image": "busybox", "command": ["sh"]}]},
}


def pod_review() -> bytes:
    body = json.loads(review())
    body["request"] |= {
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": "team",
        "object": POD,
    }
    return json.dumps(body).encode()


@pytest.fixture
def command(authority: Authority, tmp_path: Path) -> list[str]:
    settings = tmp_path / "settings.yaml"
    settings.write_text(SETTINGS)
    return [
        str(Path(sys.executable).with_name("sealflow")), "kfp", "admission", "--settings", str(settings),
        "--certificate", str(authority.certificate), "--key", str(authority.key), "--address", "127.0.0.1",
        "--port", "0", "--status-port", "0", "--drain", "0",
    ]  # fmt: skip


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The process, and what it says when it listens."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                said = json.loads(line)
                if said["event"] == "listening":
                    break
            else:
                raise AssertionError(process.stderr.read() if process.stderr else "")
            yield process, said
        finally:
            process.kill()


def ask(authority: Authority, port: int, path: str) -> Any:
    connection = HTTPSConnection("localhost", port, context=authority.client(), timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", path, pod_review(), {"Content-Type": "application/json"})
        return json.load(connection.getresponse())["response"]


def test_serves_with_the_real_judge_and_goes_with_status_0(command: list[str], authority: Authority) -> None:
    with running(command) as (process, said):
        answer = ask(authority, said["port"], "/validate?timeout=10s")
        assert answer["allowed"] is False
        assert answer["status"]["code"] == 403
        with urllib.request.urlopen(f"http://127.0.0.1:{said['status_port']}/metrics", timeout=60) as reply:
            text = reply.read().decode()
        assert 'sealflow_admission_requests_total{kind="Pod",verdict="refused"} 1.0' in text
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert [json.loads(line)["event"] for line in out.splitlines()] == ["review", "draining", "stopped"]


def test_handshakes_that_never_end_keep_nobody_out(command: list[str], authority: Authority) -> None:
    """More connections than the process may have: they are left after five seconds, and others are served."""
    with running(command) as (process, said), contextlib.ExitStack() as stack:
        for _ in range(700):
            silent = stack.enter_context(socket.socket())
            silent.setblocking(False)
            silent.connect_ex(("127.0.0.1", said["port"]))
        assert ask(authority, said["port"], "/validate")["allowed"] is False
        # What bounds them before they are counted.
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0] == 512
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert len([line for line in map(json.loads, out.splitlines()) if line["event"] == "trouble"]) < 60


def test_audit_refuses_nothing_and_says_what_it_would(command: list[str], authority: Authority) -> None:
    with running([*command, "--audit"]) as (_, said):
        answer = ask(authority, said["port"], "/validate")
        assert answer["allowed"] is True
        assert answer["warnings"]
        assert answer["auditAnnotations"]["verdict"] == "refused"


def test_a_second_signal_does_not_wait(command: list[str]) -> None:
    command[command.index("--drain") + 1] = "600"
    with running(command) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "draining"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_what_cannot_work_is_status_2_and_one_line(command: list[str], authority: Authority, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        (tmp_path / "bad.yaml").write_text(SETTINGS.replace("enforce", "hope"))
        tries = {
            "--settings": (str(tmp_path / "bad.yaml"), "mode"),
            "--certificate": (str(tmp_path / "none"), "CERTIFICATE_UNUSABLE"),
            "--key": (str(authority.certificate), "CERTIFICATE_UNUSABLE"),
            "--port": (port, "ADDRESS_UNUSABLE"),
        }
        for option, (value, told) in tries.items():
            changed = [*command]
            changed[changed.index(option) + 1] = value
            done = subprocess.run(changed, capture_output=True, text=True, timeout=60)
            assert done.returncode == 2, done.stderr
            assert told in done.stderr
            assert "Traceback" not in done.stderr


def test_memory_does_not_grow_with_what_is_sent(command: list[str], authority: Authority) -> None:
    """Bodies of 2 MiB and more, judged or refused; each that stayed would be seen."""
    import psutil

    large = json.loads(pod_review())
    large["request"]["object"]["metadata"]["annotations"] = {"x": "y" * (2 << 20)}
    bodies = [json.dumps(large).encode(), b"[" * (3 << 20)]

    def load(port: int, rounds: int) -> None:
        connection = HTTPSConnection("localhost", port, context=authority.client(), timeout=60)
        with contextlib.closing(connection):
            for number in range(rounds):
                connection.request("POST", "/validate", bodies[number % 2], {"Content-Type": "application/json"})
                assert connection.getresponse().read()

    with running(command) as (process, said):
        measured = psutil.Process(process.pid)
        load(said["port"], 20)
        before = measured.memory_info().rss
        load(said["port"], 60)
        # 150 MiB were sent; an allocator may keep the last ones.
        assert measured.memory_info().rss - before < 64 << 20


@pytest.mark.parametrize("library", ["h11", "orjson", "prometheus_client"])
def test_without_its_libraries_it_names_the_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sealflow_kfp.admission")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError) as caught:
        kfp_admission._server()
    assert caught.value.next_step == "pip install 'sealflow[admission]'"
