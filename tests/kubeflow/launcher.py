"""KFP's launcher as its source describes it (``backend/src/v2/component/launcher_v2.go``), over a folder as bucket.

The order: open the bucket, make the folders of the outputs, substitute placeholders, download what begins with an
input's key, run, read the output file; after status 0 upload each output and record its metadata, otherwise only the
log. What the metadata store does to values on the way is done here as well.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kubeflow.forks import forks

PIPELINE = "churn"
LOGS = "executor-logs"
#: Bytes from which an argument can be too long for Linux (``MAX_ARG_STRLEN`` is 128 KiB, with the zero).
_LONG = 100_000

# The folders in which a launcher shows stores stand at the root of the file system. Here they stand in the test's own.
_BOOT = """
import sys
root = sys.argv.pop(1)
from sealflow_kfp import executor_io, run_context
executor_io.FOLDERS = {scheme: root + folder for scheme, folder in executor_io.FOLDERS.items()}
run_context.MOUNTS = {root + folder: place for folder, place in run_context.MOUNTS.items()}
import os
import sealflow.actions.context as context
context.MOUNT = root + "/var/run/sealflow"
if os.path.exists(root + "/etc/sealflow/admin.json"):
    # The environment's file, since whoever runs the tests owns this code as well, and need not be root.
    from sealflow.policy import source
    source.MACHINE_FILE, source.ENVIRONMENT_FILE = root + "/none", root + "/etc/sealflow/admin.json"
from sealflow_kfp.exec import main
sys.exit(main())
"""


@dataclass
class Stored:
    """An artifact in the metadata store.

    Attributes:
        uri: Its location.
        kind: Its type.
        metadata: As consumers get it.
        number: Its id, which consumers see as its name.
    """

    uri: str
    kind: str
    metadata: dict[str, Any]
    number: int = 1


@dataclass
class Outcome:
    """How a task ended.

    Attributes:
        status: Exit status of its container.
        log: All that it wrote.
        uploaded: Keys of the objects that were uploaded.
        outputs: Artifacts that were recorded.
        output_file: What the launcher read, ``None`` where the file is not there.
        termination: What Kubernetes keeps.
    """

    status: int
    log: str
    uploaded: list[str]
    outputs: dict[str, Stored] = field(default_factory=dict)
    output_file: dict[str, Any] | None = None
    termination: str = ""

    @property
    def artifacts_uploaded(self) -> list[str]:
        """Keys of what was uploaded beside the log."""
        return [key for key in self.uploaded if not key.endswith(LOGS)]


class Launcher:
    """One cluster: a bucket, a metadata store, and pods that share nothing else.

    Args:
        root: A folder of its own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bucket = root / "store"
        self.bucket.mkdir(parents=True)
        self.mount = root / "pod" / "var" / "run" / "sealflow"
        self.admin_file = root / "pod" / "etc" / "sealflow" / "admin.json"
        self.environment: dict[str, str] = {}
        self.wrapped = True
        self._recorded = 0

    def key(self, uri: str) -> Path:
        """Return where an object lies in the bucket's folder."""
        return self.bucket / uri.removeprefix("minio://")

    def run(
        self,
        task: str,
        code: str | Sequence[str],
        *,
        inputs: Mapping[str, Stored | Sequence[Stored]] | None = None,
        outputs: Mapping[str, str] | None = None,
        run: str = "11111111-1111-4111-8111-111111111111",
        parameters: Mapping[str, Any] | None = None,
        options: Sequence[str] = (),
        interfere: Callable[[subprocess.Popen[bytes], Path], None] | None = None,
        before: Callable[[Path], None] | None = None,
    ) -> Outcome:
        """Run one task in a pod of its own.

        Args:
            task: Name of the task.
            code: A shell script, or a whole command with placeholders.
            inputs: Artifacts.
            outputs: Types of its outputs.
            run: Run id.
            parameters: Values of its parameters.
            options: More options of the wrapper.
            interfere: Called with the wrapper's process and the pod's folder while it runs.
            before: Called with the pod's folder after the inputs were downloaded.
        """
        pod = self.root / "pod"
        for name in ("minio", "tmp"):
            shutil.rmtree(pod / name, ignore_errors=True)
            (pod / name).mkdir(parents=True)
        salt = str(uuid.uuid4())
        base = f"minio://bucket/v2/artifacts/{PIPELINE}/{run}/{task}/{salt}"
        kinds = {**(outputs or {}), LOGS: "system.Artifact"}
        given = {name: [item] if isinstance(item, Stored) else list(item) for name, item in (inputs or {}).items()}
        body: dict[str, Any] = {
            "inputs": {
                "parameterValues": dict(parameters or {}),
                "artifacts": {
                    name: {"artifacts": [_runtime(str(item.number), item) for item in items]}
                    for name, items in given.items()
                },
            },
            "outputs": {
                "artifacts": {
                    name: {"artifacts": [_runtime(name, Stored(f"{base}/{name}", kind, {}))]}
                    for name, kind in kinds.items()
                },
                "outputFile": f"{self._inside(base)}/output_metadata.json",
            },
        }
        for name in kinds:
            Path(self._local(f"{base}/{name}")).parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(body, separators=(",", ":"))
        command = ["sh", "-c", code] if isinstance(code, str) else list(code)
        whole = [self._substitute(item, body, text) for item in command]
        if self.wrapped:
            whole = [*self._start(pod), "--executor-input", text, *options, "--", *whole]
        for items in given.values():
            for item in items:
                self._download(item.uri)
        if before is not None:
            before(pod)
        status, log = self._process(whole, pod, interfere)
        uploaded = [self._upload_log(f"{base}/{LOGS}", log)]
        termination = (pod / "termination-log").read_text()
        if status:
            return Outcome(status, log, uploaded, termination=termination)
        found = Path(f"{self._local(base)}/output_metadata.json")
        said = json.loads(found.read_text()) if found.exists() else None
        outcome = Outcome(status, log, uploaded, output_file=said, termination=termination)
        for name, listed in body["outputs"]["artifacts"].items():
            if name != LOGS:
                self._record(name, listed["artifacts"][0], said or {}, outcome)
        return outcome

    def _process(
        self, command: list[str], pod: Path, interfere: Callable[[subprocess.Popen[bytes], Path], None] | None
    ) -> tuple[int, str]:
        (pod / "termination-log").write_text("")
        environment = {
            **os.environ,
            "TMPDIR": str(pod / "tmp"),
            "SEALFLOW_TERMINATION_LOG": str(pod / "termination-log"),
            **self.environment,
        }
        # The kernel says when an argument is too long.
        plain = interfere is None and not self.environment and max(map(len, command)) < _LONG
        if self.wrapped and plain:
            # Forked: the same process but for its start, which costs more than all the rest.
            _, _, code, *arguments = command
            (pod / "log").unlink(missing_ok=True)
            status = forks().run(code, arguments, environment, pod / "tmp", pod / "log")
            return (128 - status if status < 0 else status), (pod / "log").read_text("utf-8")
        with open(pod / "log", "w+b") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=pod / "tmp")
            if interfere is not None:
                interfere(process, pod)
            status = process.wait(timeout=120)
            log.seek(0)
            return (128 - status if status < 0 else status), log.read().decode()

    def _start(self, pod: Path) -> list[str]:
        """Return what stands before the wrapper's options."""
        return [sys.executable, "-c", _BOOT, str(pod)]

    def _inside(self, uri: str) -> str:
        """Return the path that the pod's processes see."""
        return self._local(uri)

    def _local(self, uri: str) -> str:
        return f"{self.root}/pod/minio/{uri.removeprefix('minio://')}"

    def _substitute(self, item: str, body: dict[str, Any], text: str) -> str:
        item = item.replace("{{$}}", text)
        for side in ("inputs", "outputs"):
            for name, listed in body[side]["artifacts"].items():
                if listed["artifacts"]:
                    uri = listed["artifacts"][0]["uri"]
                    item = item.replace(f"{{{{$.{side}.artifacts['{name}'].uri}}}}", uri)
                    item = item.replace(f"{{{{$.{side}.artifacts['{name}'].path}}}}", self._inside(uri))
        for name, value in body["inputs"]["parameterValues"].items():
            item = item.replace(f"{{{{$.inputs.parameters['{name}']}}}}", str(value))
        return item.replace("{{output_file}}", body["outputs"]["outputFile"])

    def _download(self, uri: str) -> None:
        # Everything whose key begins with the artifact's, as DownloadBlob lists it.
        source, target = self.key(uri), Path(self._local(uri))
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        elif source.exists() or source.is_symlink():
            shutil.copy2(source, target, follow_symlinks=False)

    def _upload_log(self, uri: str, log: str) -> str:
        self.key(uri).parent.mkdir(parents=True, exist_ok=True)
        self.key(uri).write_text(log)
        return uri

    def _record(self, name: str, artifact: dict[str, Any], said: dict[str, Any], outcome: Outcome) -> None:
        metadata = dict(artifact["metadata"])
        path = ""
        listed = said.get("artifacts", {}).get(name, {}).get("artifacts", [])
        if listed:
            artifact["uri"] = listed[0].get("uri") or artifact["uri"]
            metadata.update(listed[0].get("metadata") or {})
            path = listed[0].get("customPath") or listed[0].get("custom_path") or ""
        source, target = Path(path or self._local(artifact["uri"])), self.key(artifact["uri"])
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            # UploadBlob follows links.
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)
            outcome.uploaded.append(artifact["uri"])
        self._recorded += 1
        stored = {"display_name": name, "store_session_info": "{}", **{k: mangled(v) for k, v in metadata.items()}}
        outcome.outputs[name] = Stored(artifact["uri"], artifact["type"]["schemaTitle"], stored, self._recorded)


def mangled(value: Any) -> Any:
    """Return a value of metadata as it comes back from the metadata store."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if isinstance(value, list):
        return {"list": value}
    return {"struct": value} if isinstance(value, dict) else value


def _runtime(name: str, item: Stored) -> dict[str, Any]:
    return {"name": name, "type": {"schemaTitle": item.kind}, "uri": item.uri, "metadata": dict(item.metadata)}


def wait_for(path: Path, seconds: float = 30) -> None:
    """Wait until a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def sends(number: int, mark: str) -> Callable[[subprocess.Popen[bytes], Path], None]:
    """Return what sends a signal to the wrapper once its command has made a file in its temporary folder."""

    def interfere(process: subprocess.Popen[bytes], pod: Path) -> None:
        wait_for(pod / "tmp" / mark)
        process.send_signal(signal.Signals(number))

    return interfere
