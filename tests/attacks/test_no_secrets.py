"""Nothing secret comes out: chains are run with keys that the test knows, and everything they left is searched.

The secrets are private keys, passphrases, PINs, keys of recipients, and the data keys that the processes made, which a
small patch in each of them tells the test. They are looked for in every spelling in which a program would show bytes:
raw, hex, Base64 at each offset, decimal lists and escaped text; in output, task logs, the metadata database with XComs
and rendered templates, evidence, the audit log, and what KFP keeps of each task.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.airflow.home import AirflowHome
from tests.pki import KeyPair, private_pem, public_pem
from tests.servers.softhsm import SoftHsm

PASSPHRASE = "marked-passphrase-7d1e5f0a"
WRONG = "marked-wrong-passphrase-91bc"

#: Read by each Python process first: tells the test which data keys it made.
_TELL = """
import os
_path = os.environ.get("SEALFLOW_TEST_DATA_KEYS")
if _path:
    try:
        import sealflow.encryption.suite as _suite
    except ImportError:
        pass
    else:
        _derive = _suite.derive
        def _told(data_key, *others):
            with open(_path, "a") as _file:
                _file.write(bytes(data_key).hex() + "\\n")
            return _derive(data_key, *others)
        _suite.derive = _told
"""

_DAG = """
import os
from pathlib import Path
from airflow.sdk import dag, task
import sealflow
from sealflow_airflow import EncryptedDownloadOperator, EncryptedUploadOperator
from sealflow_airflow import SignArtifactOperator, VerifyArtifactOperator

@dag(schedule=None, params={"folder": "", "other": ""})
def marked():
    @task
    def make(params: dict):
        folder = Path(params["folder"], "model")
        folder.mkdir()
        (folder / "weights").write_bytes(b"weights" * 1000)
        return str(folder)

    made = make()
    signed = SignArtifactOperator(task_id="sign", artifact=made)
    VerifyArtifactOperator(task_id="verify", artifact=signed.output)
    sent = EncryptedUploadOperator(task_id="send", source=made, destination="{{ params.folder }}/model.enc")
    got = EncryptedDownloadOperator(task_id="get", artifact=sent.output, destination="{{ params.folder }}/got")

    @task
    def use(model: dict):
        with sealflow.verified(model) as path:
            return sorted(os.listdir(path))

    used = use(sent.output)
    # What goes wrong tells most.
    broken = SignArtifactOperator(task_id="broken", artifact=made, signer="file:{{ params.other }}")
    got >> used >> broken

marked()
"""


@dataclass
class Marks:
    """What must not come out, and where it is searched.

    Attributes:
        known: Folder of what is secret; not searched.
        root: Folder of everything that the chains leave; searched whole.
    """

    known: Path
    root: Path
    secrets: dict[str, bytes] = field(default_factory=dict)

    def signer(self, name: str, passphrase: str = "") -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        pair = KeyPair(self.known / f"{name}.pem", self.known / f"{name}.pub.pem")
        pair.private.write_bytes(private_pem(key, passphrase.encode() or None))
        pair.public.write_bytes(public_pem(key))
        self.note(name, private_pem(key))
        self.note(f"{name} encrypted", pair.private.read_bytes())
        self.secrets[f"{name} scalar"] = key.private_numbers().private_value.to_bytes(32, "big")
        der = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.secrets[f"{name} der"] = key.private_bytes(*der)
        return pair

    def note(self, name: str, pem: bytes) -> None:
        """Note the body of a PEM text, line by line."""
        for number, line in enumerate(pem.splitlines()):
            if not line.startswith(b"-----"):
                self.secrets[f"{name} line {number}"] = line

    def environment(self) -> dict[str, str]:
        site = self.known / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(_TELL)
        return {"SEALFLOW_TEST_DATA_KEYS": str(self.known / "data.keys"), "SEALFLOW_KEY_PASSPHRASE": PASSPHRASE}

    def python_path(self, given: str) -> str:
        return os.pathsep.join([str(self.known / "site"), *filter(None, [given])])

    def data_keys(self) -> list[str]:
        path = self.known / "data.keys"
        return sorted(set(path.read_text().split())) if path.exists() else []

    def leaks(self, *texts: str) -> list[tuple[str, str]]:
        """Return what was found where."""
        for number, text in enumerate(self.data_keys()):
            self.secrets[f"data key {number}"] = bytes.fromhex(text)
        patterns = {(name, found) for name, secret in self.secrets.items() for found in spellings(secret)}
        places = [(str(path), path.read_bytes()) for path in files(self.root)]
        places += [(f"output {number}", text.encode()) for number, text in enumerate(texts)]
        assert len(places) > 5
        return sorted({(name, place) for place, data in places for name, found in patterns if found in data})


def files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def spellings(secret: bytes) -> set[bytes]:
    """Every way in which a program might show bytes."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret)[2:-1].encode()}
    for shift in range(3):
        # Within other bytes Base64 looks different at each of three offsets; the ends depend on the neighbours.
        coded = base64.b64encode(b"\0" * shift + secret)
        whole = coded[-(-shift * 4 // 3) : -4] if shift or len(secret) % 3 else coded
        found |= {whole, whole.replace(b"+", b"-").replace(b"/", b"_")}
    found.add(", ".join(map(str, secret)).encode())
    assert min(map(len, found)) >= 12, "too short to be told from anything else"
    return found


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    made = Marks(tmp_path / "known", tmp_path / "root")
    made.known.mkdir()
    made.root.mkdir()
    made.secrets["passphrase"] = PASSPHRASE.encode()
    made.secrets["wrong passphrase"] = WRONG.encode()
    team = made.known / "team.key"
    team.write_bytes(os.urandom(32))
    made.secrets["recipient"] = team.read_bytes()
    return made


# --- The search itself ---


@pytest.mark.parametrize("number", range(8))
def test_the_search_finds_every_spelling(marks: Marks, number: int) -> None:
    secret = marks.secrets["recipient"]
    shown = [
        secret,
        secret.hex().encode(),
        json.dumps({"key": base64.b64encode(secret).decode()}).encode(),
        base64.b64encode(b"x" + secret + b"tail"),
        base64.urlsafe_b64encode(b"xy" + secret + b"tail"),
        repr(secret).encode(),
        str(list(secret)).encode(),
        PASSPHRASE.encode(),
    ]
    for index in range(6):
        (marks.root / f"other-{index}").write_bytes(os.urandom(1000))
    assert marks.leaks() == []
    (marks.root / "log").write_bytes(b"before " + shown[number] + b" after")
    assert {place for _, place in marks.leaks()} == {str(marks.root / "log")}


# --- The command line ---


def run(marks: Marks, *arguments: str, env: dict[str, str], status: int | None = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", "from sealflow.cli import main; main()", *arguments],
        env=env,
        cwd=marks.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        text=True,
    )
    assert status is None or done.returncode == status, done.stdout
    return done.stdout


def plain_environment(marks: Marks, **extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEALFLOW_")}
    return {
        **kept,
        **marks.environment(),
        "PYTHONPATH": marks.python_path(kept.get("PYTHONPATH", "")),
        "SEALFLOW_AUDIT_SPOOL": str(marks.root / "spool"),
        "HOME": str(marks.root / "home"),
        **extra,
    }


@pytest.mark.slow
def test_the_command_line(marks: Marks) -> None:
    """Signing, encrypting, opening, revoking; and every mistake with a secret that we could think of."""
    key, other = marks.signer("worker", PASSPHRASE), marks.signer("plain")
    recovery = rsa.generate_private_key(65537, 2048)
    (marks.known / "recovery.pem").write_bytes(private_pem(recovery))
    (marks.known / "recovery.pub").write_bytes(public_pem(recovery))
    marks.note("recovery", private_pem(recovery))
    env = plain_environment(marks)
    team = f"aes:{marks.known}/team.key"
    (marks.root / "model").mkdir()
    (marks.root / "model" / "weights").write_bytes(b"weights" * 1000)
    texts = [
        run(marks, "sign", "model", "--signer", key.signer, env=env),
        run(marks, "verify", "model", "--identity", str(key.public), "--json", env=env),
        run(marks, "upload", "model", "model.enc", "--signer", key.signer, "--recipient", team, "--recipient",
            f"rsa:{marks.known}/recovery.pub", "--json", env=env),
        run(marks, "download", "model.enc", "got", "--recipient", team, "--identity", str(key.public), env=env),
        run(marks, "download", "model.enc", "again", "--recipient", f"rsa:{marks.known}/recovery.pem", "--identity",
            str(key.public), env=env),
        run(marks, "respond", "revoke", str(other.public), "--since", "now", "--reason", "drill", "--list", "list.json",
            "--new-list", "--signer", key.signer, "--json", env=env),
        run(marks, "keys", "generate", str(marks.known / "new.pem"), "--encrypt", env=env),
        run(marks, "inspect", "model", env=env),
    ]  # fmt: skip
    pem = other.private.read_text()
    wrong = {**env, "SEALFLOW_KEY_PASSPHRASE": WRONG}
    for mistake in (
        ("sign", "model", "--signer", pem),
        ("sign", "model", "--signer", f"file:{pem}"),
        ("sign", "model", "--signer", base64.b64encode(marks.secrets["plain der"]).decode()),
        ("verify", "model", "--identity", pem),
        ("verify", "model", "--identity", str(other.private)),
        ("upload", "model", "x.enc", "--signer", key.signer, "--recipient", f"aes:{marks.secrets['recipient'].hex()}"),
        (
            "download",
            "model.enc",
            "no",
            "--recipient",
            f"aes:{base64.b64encode(marks.secrets['recipient']).decode()}",
            "--identity",
            str(key.public),
        ),
        ("sign", pem, "--signer", key.signer),
        ("verify", f"--{pem}", "--identity", str(key.public)),
        ("download", "model.enc", "no", "--recipient", pem, "--identity", str(key.public)),
        ("respond", "revoke", pem, "--since", "now", "--reason", "x", "--list", "l2.json", "--signer", key.signer),
        ("respond", "blast-radius", pem, "--evidence-store", "model.evidence"),
    ):
        for more in ((), ("--json",)):
            said = run(marks, *mistake, *more, env=env, status=None)
            assert "Traceback" not in said
            texts.append(said)
    texts.append(run(marks, "sign", "model", "--signer", key.signer, env=wrong, status=2))
    assert len(marks.data_keys()) == 1, "the patch tells of the one message"
    assert marks.leaks(*texts) == []


@pytest.mark.slow
def test_a_pin(marks: Marks, softhsm: SoftHsm) -> None:
    marks.secrets["pin"] = softhsm.pin.encode()
    (marks.root / "data").write_bytes(b"data")
    module = {"SEALFLOW_PKCS11_MODULE": softhsm.library}
    good = plain_environment(marks, THE_PIN=softhsm.pin, **module)
    bad = plain_environment(marks, THE_PIN=f"{softhsm.pin}x", **module)
    uri = softhsm.uri("p256", **{"pin-source": "env:THE_PIN"})
    for index in range(6):
        (marks.root / f"other-{index}").write_bytes(b"x")
    texts = [
        run(marks, "sign", "data", "--signer", uri, "--json", env=good),
        run(marks, "sign", "data", "--signer", uri, env=bad, status=None),
        run(marks, "sign", "data", "--signer", softhsm.uri("p256", **{"pin-value": softhsm.pin}), env=good, status=2),
    ]
    assert marks.leaks(*texts) == []


# --- Airflow ---


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.xdist_group("airflow")
def test_a_dag(marks: Marks) -> None:
    """Task logs, XComs, rendered templates and all else in the database; one task fails over a key it cannot open."""
    key, other = marks.signer("worker", PASSPHRASE), marks.signer("locked", WRONG)
    folder = marks.root / "airflow"
    folder.mkdir()
    home = AirflowHome(folder, key)
    home.team.unlink()
    (home.dags / "marked.py").write_text(_DAG)
    home.migrate()
    work = home.folder_for("marked")
    env = marks.environment()
    env["PYTHONPATH"] = marks.python_path(home.environment()["PYTHONPATH"])
    env["AIRFLOW_CONN_SEALFLOW_DEFAULT"] = home.connection(
        signer=key.signer, identities={"trainer": f"file:{key.public}"}, recipients=[f"aes:{marks.known}/team.key"]
    )
    env["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "DEBUG"
    done = home.run("marked", {"folder": str(work), "other": str(other.private)}, env=env)
    assert done.states == {
        "make": "success", "sign": "success", "verify": "success", "send": "success", "get": "success",
        "use": "success", "broken": "failed",
    }, done.output  # fmt: skip
    assert marks.data_keys()
    rendered = home.rows("SELECT rendered_fields FROM rendered_task_instance_fields")
    assert any("model.enc" in str(row) for row in rendered), "templates are in what is searched"
    assert marks.leaks(done.output) == []


# --- Kubeflow ---


@pytest.mark.kfp
@pytest.mark.slow
def test_a_pipeline(marks: Marks, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from kfp import local

    from tests.kubeflow import pipelines

    key = marks.signer("worker", PASSPHRASE)
    mount = marks.root / "mount"
    mount.mkdir()
    settings = {
        "signer": key.signer,
        "identities": {"trainer": f"file:{key.public}"},
        "recipients": [f"aes:{marks.known}/team.key"],
        "audit_spool": str(marks.root / "spool"),
    }
    (mount / "sealflow.json").write_text(json.dumps(settings))
    monkeypatch.setenv("SEALFLOW_MOUNT", str(mount))
    for name, value in marks.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", marks.python_path(os.environ.get("PYTHONPATH", "")))
    monkeypatch.chdir(marks.root)
    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(marks.root / "kfp"), raise_on_error=True
    )

    try:
        pipelines.gate()
        pipelines.transfer(store=str(marks.root / "store"))
    finally:
        local.config.LocalExecutionConfig.instance = None
    captured = capfd.readouterr()
    assert marks.data_keys()
    assert any(path.name == "executor_output.json" for path in files(marks.root / "kfp"))
    assert marks.leaks(captured.out, captured.err) == []


def test_all_kinds_of_secret_are_marked(marks: Marks) -> None:
    """The search knows what it looks for: a kind left out would be found nowhere."""
    marks.signer("worker", PASSPHRASE)
    kinds: Iterable[Any] = {name.split()[-1] if " " in name else name for name in marks.secrets}
    assert {"passphrase", "recipient", "scalar", "der"} <= set(kinds)
