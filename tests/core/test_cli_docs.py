"""Commands that pages show outside of guides, run: what a page can only name, such as a bucket, is made here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.keys_generate import generate_key
from tests.core.audit.logs import MadeLog, chain_lines
from tests.core.audit.test_witness import HonestWitness, serving
from tests.core.conftest import Cli, body
from tests.core.encryption.messages import RSA_PUBLIC_PEM
from tests.core.lineage.elsewhere import make
from tests.core.lineage.gitrepo import public, ssh_key
from tests.documents import ROOT, block, blocks_of
from tests.guides import compare, run_session
from tests.lineages import Lineage, digest
from tests.pki import NOW
from tests.postures import ACCOUNT, GOOD, world
from tests.servers.s3 import S3Server, moto_server
from tests.servers.timestamp_authority import TimestampAuthority
from tests.test_values_docs import alike


@pytest.fixture(autouse=True)
def folder(cli: Cli, tmp_path: Path) -> Path:
    """The folder in which the commands run."""
    return tmp_path


def key(name: str, algorithm: str = "p256") -> None:
    generate_key(name, algorithm=algorithm)


def test_adopt(cli: Cli, folder: Path) -> None:
    models = folder / "data" / "models"
    (models / "ranking").mkdir(parents=True)
    (folder / "keys").mkdir()
    (models / "churn.bin").write_bytes(bytes(int(2.1 * 2**20)))
    (models / "ranking" / "weights.bin").write_bytes(bytes(14 * 2**20))
    (models / "latest").symlink_to("ranking")
    made, looked, signed = (
        item.text for item in blocks_of(ROOT / "docs/how-to/adopt.md") if item.language == "console"
    )
    here = {"/data": str(folder / "data"), "/keys": str(folder / "keys")}
    # The journal lies in the home of whoever runs it.
    signed = re.sub(r"(?m)^journal .*$", "journal  …/sealflow/adopt/….jsonl", signed)
    assert [done.status for text in (made, looked, signed) for done in run_session(text, cli, here)] == [0, 3, 3]
    assert not (models / "latest.evidence").exists()
    assert sealflow.verify(
        models / "ranking", identities=str(folder / "keys" / "archivist.pem.pub"), require="signature"
    ).passed


def test_a_proof_from_the_pages(cli: Cli, folder: Path) -> None:
    log = MadeLog(folder)
    log.add(chain_lines(50))
    assert (
        cli("audit", "prove", ".", "--index", "42", "--log", str(folder / "log"), "--key", str(log.key)).returncode == 0
    )
    (folder / "audit.vkey").write_text(f"{log.key}\n")
    (done,) = run_session(block("how-to/airflow-pages", "sh"), cli)
    assert (done.status, done.output.startswith("passed")) == (0, True)


def test_a_review(cli: Cli, folder: Path) -> None:
    log = MadeLog(folder)
    log.add(chain_lines(50))
    (folder / "log.key").write_text(f"{log.key}\n")
    (done,) = run_session(block("reference/access-review", "console"), cli, {"s3://audit/log": str(folder / "log")})
    assert done.status == 0, done.output
    assert (folder / "review.html").read_text().startswith("<!DOCTYPE html>")


def test_a_witness(cli: Cli, folder: Path) -> None:
    log = MadeLog(folder)
    log.add(chain_lines(50))
    (folder / "log.vkey").write_text(f"{log.key}\n")
    witness = HonestWitness([log.key])
    shown = block("reference/audit-log", "console")
    (named,) = re.findall(r"witness (\S+) ", shown)
    with serving(witness) as url:
        (done,) = run_session(shown, cli, {named: f"{url}={witness.key}", "s3://audit/log": str(folder / "log")})
    assert done.status == 0, done.output
    assert witness.asked == [0]


def test_a_stamp(cli: Cli, folder: Path) -> None:
    key("signing.pem")
    (folder / "model.bin").write_bytes(b"weights")
    with TimestampAuthority(folder / "authority").serving() as authority:
        shown = block("how-to/trusted-time", "bash", "--timestamp")
        (done,) = run_session(shown, cli, {"https://tsa.example.org/": authority.url})
    assert done.status == 0, done.output
    for path in (folder / "model.bin.evidence").rglob("*.json"):
        assert json.loads(path.read_bytes())["verificationMaterial"]["timestampVerificationData"]


def test_what_prove_time_tells(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way is a test of its own; here, what is printed."""
    monkeypatch.setenv("SEALFLOW_AUDIT_INBOX", f"sqlite:{folder / 'inbox.db'}")
    monkeypatch.setenv("SEALFLOW_AUDIT_LOG", str(folder / "log"))
    monkeypatch.setenv("SEALFLOW_EVIDENCE_STORE", str(folder / "evidence"))
    monkeypatch.delenv("SEALFLOW_AUDIT_SPOOL")
    key("signing.pem")
    key("log.pem", "ed25519")
    (folder / "model.bin").write_bytes(b"weights")
    assert cli("audit", "inbox", "init").returncode == 0
    assert cli("sign", "model.bin", "--signer", "file:signing.pem").returncode == 0
    done = cli("audit", "integrate", "--signer", "file:log.pem", "--origin", "example.com/audit")
    (name,) = re.findall(r"(?m)^key +(\S+)$", done.stdout)
    from sealflow.audit.note import VerifierKey

    witness = HonestWitness([VerifierKey.parse(name)])
    witness.time = int(NOW.timestamp()) - 3600
    with serving(witness) as url:
        assert cli("audit", "witness", f"{url}={witness.key}", "--key", name).returncode == 0
    told = cli("audit", "prove-time", "evidence", "--key", name, "--witness", str(witness.key))
    assert told.returncode == 0, told.stderr
    # Its numbers and its time are those of somebody else's log.
    shown = re.sub(r"\d+", "…", block("how-to/trusted-time", "text"))
    compare(shown, re.sub(r" bundle,", " bundles,", re.sub(r" proof$", " proofs", told.stdout, flags=re.MULTILINE)))


@pytest.mark.slow
def test_a_release(cli: Cli, folder: Path) -> None:
    """The commands of verify-a-release, as they stand; `tests/test_release.py` verifies a whole release."""
    key("maintainers.pem")
    (folder / "sealflow").mkdir()
    (folder / "sealflow" / "sealflow.whl").write_bytes(b"wheel")
    assert cli("sign", "sealflow", "--signer", "file:maintainers.pem", "--name", "sealflow").returncode == 0
    assert cli("evidence", "export", "sealflow", ".").returncode == 0
    ours, theirs = run_session(block("how-to/verify-a-release", "console", "sealflow verify"), cli)
    assert (ours.status, ours.output.startswith("passed")) == (0, True)
    assert (theirs.status, "Verification succeeded" in theirs.output) == (0, True), theirs.output


def test_a_task_body(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key("trainer.pem")
    (folder / "data").write_bytes(b"numbers")
    (folder / "team.key").write_bytes(bytes(32))
    data = sealflow.sign(folder / "data", signer="file:trainer.pem")
    code = block("reference/airflow", "python").replace("s3://models/churn.enc", str(folder / "churn.enc"))
    for name, value in {
        "SIGNER": "file:trainer.pem",
        "IDENTITIES": "trainer.pem.pub",
        "RECIPIENTS": "aes:team.key",
    }.items():
        monkeypatch.setenv(f"SEALFLOW_{name}", value)

    def train(given: Path, made: str) -> None:
        Path(made).write_bytes(Path(given).read_bytes()[::-1])

    space: dict[str, Any] = {"sealflow": sealflow, "data": data, "train": train}
    exec(compile(code, "reference/airflow", "exec"), space)
    assert space["ref"]["encrypted"]
    with sealflow.verified(space["ref"]) as path:
        assert Path(path).read_bytes() == b"srebmun"


# --- Policies ---


def test_a_waiver(cli: Cli, folder: Path) -> None:
    for name in ("admin", "oncall"):
        key(f"{name}.pem", "ed25519")
    key("trainer.pem")
    rule = {
        "name": "models",
        "scope": {"artifact": ["s3://models/**"]},
        "require": {"identities": {"any_of": ["trainer"]}},
    }
    draft = {
        "apiVersion": "sealflow/v1",
        "version": 1,
        "expires": "2999-01-01T00:00:00Z",
        "identities": {"trainer": {"key": "trainer.pem.pub"}},
        "rules": [rule],
    }
    (folder / "policy.yaml").write_text(json.dumps(draft))
    assert cli("policy", "sign", "policy.yaml", "--signer", "file:admin.pem", "--output", "policy.json").returncode == 0
    (done,) = run_session(block("reference/policy", "bash"), cli)
    assert done.status == 0, done.output
    assert re.search(r"(?m)^signed +\S*waiver-", done.output)


def test_a_list_of_revocations(cli: Cli, folder: Path) -> None:
    (folder / "keys").mkdir()
    key("keys/admin.pem", "ed25519")
    (folder / "admin.pem.pub").write_bytes((folder / "keys" / "admin.pem.pub").read_bytes())
    (folder / "revocations.yaml").write_text(block("reference/revocations", "yaml"))
    done = run_session(block("reference/revocations", "bash"), cli, {"/keys/": f"{folder}/keys/"})
    assert [item.status for item in done] == [0, 0, 0], done
    assert "SEC-4711" in done[-1].output


# --- Lineage ---


def test_a_graph(cli: Cli, folder: Path) -> None:
    """A tree of the form, and JSON of the members, that reference/trace shows."""
    lineage = Lineage(folder / "world")
    trust = ["--identity", str(lineage.key("trainer").public), "--root", str(lineage.key("owner").public),
             "--evidence-store", str(lineage.store)]  # fmt: skip
    tree = cli("lineage", "trace", str(digest("model")), *trust).stdout.splitlines()
    shown = block("reference/trace", "console").splitlines()[1:]
    form = re.compile(r"^([│ ├└─]*)([✓■]) \S+  (attested|dataset)  made by \S+  signed by \S+  \S+")
    assert [form.match(line) is not None for line in (*shown[:4], *tree[:4])] == [True] * 8
    assert (shown[4].split()[0], tree[4].split()[0]) == ("passed", "passed")
    told = body(cli("lineage", "trace", str(digest("model")), *trust, "--json"))
    expected = json.loads(block("reference/trace", "json"))
    assert set(expected) <= set(told)
    (node,) = expected["graph"]["nodes"]
    # Known of what is named by a location; here it is named by its digest.
    node.pop("locations")
    alike(expected["graph"], told["graph"])


@pytest.mark.slow
def test_a_check_behind_an_address(cli: Cli, folder: Path, need_program: Callable[[str, str, str], None]) -> None:
    """The command of reference/lineage, with a repository and a remote of this machine in their places."""
    need_program("ssh-keygen", "openssh-client", "a signed revision behind an address was not checked")
    there = make(folder)
    there.repo.git("tag", "v1.4")
    there.publish()
    (folder / "signers").write_text(f"ada@example.org {public(ssh_key())}\n")
    here = {"https://git.example/team/churn.git": there.url, "s3://models/dvc": str(there.remote)}
    (done,) = run_session(block("reference/lineage", "sh"), cli, here)
    assert done.status == 0, done.output
    assert "LINEAGE_LEVEL L3" in done.output


# --- Clouds ---


@pytest.mark.slow
def test_posture(cli: Cli) -> None:
    """Literally: moto's account and the bucket of the tests are those of the page."""
    with world():
        (done,) = run_session(block("reference/posture", "console"), cli)
    assert done.status == 0, done.output
    assert f"s3://{GOOD}/" in done.output
    assert ACCOUNT in block("reference/posture", "console")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with moto_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        yield server


@pytest.mark.slow
def test_there_and_back_through_s3(cli: Cli, folder: Path, s3: S3Server) -> None:
    key("trainer.pem")
    (folder / "recovery.pub").write_bytes(RSA_PUBLIC_PEM)
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(b"weights")
    s3.client().create_bucket(Bucket="models")
    arn = s3.client("kms").create_key()["KeyMetadata"]["Arn"]
    up, down = block("reference/transfer", "console").splitlines()
    (done,) = run_session(up, cli, {"arn:aws:kms:…": arn})
    assert done.status == 0, done.output
    (folder / "model").rename(folder / "before")
    (done,) = run_session(down, cli, {"arn:aws:kms:…": arn})
    assert done.status == 0, done.output
    assert (folder / "model" / "weights.bin").read_bytes() == b"weights"
