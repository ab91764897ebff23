"""The command: output for people and for programs, exit statuses, and no trace on hostile input."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sealflow.storage import Storages
from tests.audit_events import read_events
from tests.core.conftest import Cli, body
from tests.servers.timestamp_authority import TimestampAuthority


@pytest.fixture
def signed(cli: Cli, tmp_path: Path) -> Path:
    """Return a signed folder; its key pair lies beside it."""
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights")
    (folder / "part" / "more.bin").write_bytes(b"more")
    assert cli("keys", "generate", "key.pem").returncode == 0
    assert cli("sign", "model", "--signer", "file:key.pem").returncode == 0
    return folder


def test_generate_keeps_the_private_key_private_and_writes_over_nothing(cli: Cli, tmp_path: Path) -> None:
    made = body(cli("keys", "generate", "key.pem", "--json"))
    assert made["algorithm"] == "ECDSA P-256"
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    before = (tmp_path / "key.pem").read_bytes()
    again = cli("keys", "generate", "key.pem")
    assert again.returncode == 2
    assert (tmp_path / "key.pem").read_bytes() == before


def test_the_audit_log_says_that_the_command_line_acted(cli: Cli, tmp_path: Path) -> None:
    place = str(tmp_path / "store" / "left")
    Storages().for_uri(place).begin(place, overwrite=False).send(1, 0, memoryview(b"half"))
    assert cli("keys", "generate", "key.pem").returncode == 0
    assert cli("uploads", "store", "--abort").returncode == 0
    found = {(event["action"], event["run"]["orchestrator"]) for event in read_events(tmp_path / "spool")}
    assert found == {("key-generate", "cli"), ("abort-uploads", "cli")}


def test_an_encrypted_key_needs_its_passphrase_from_the_environment(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    assert cli("keys", "generate", "key.pem", "--encrypt", SEALFLOW_KEY_PASSPHRASE="open sesame").returncode == 0
    assert "ENCRYPTED" in (tmp_path / "key.pem").read_text()
    assert cli("sign", "f", "--signer", "file:key.pem", SEALFLOW_KEY_PASSPHRASE="open sesame").returncode == 0
    for variables, code in (({}, "PASSPHRASE_MISSING"), ({"SEALFLOW_KEY_PASSPHRASE": "wrong"}, "KEY_UNREADABLE")):
        refused = cli("sign", "f", "--signer", "file:key.pem", "--json", **variables)
        assert refused.returncode == 2
        assert body(refused)["error"]["code"] == code


def test_no_option_takes_a_passphrase(cli: Cli) -> None:
    for command in (("keys", "generate"), ("sign",)):
        assert "--pass" not in cli(*command, "--help").stdout


def test_sign_prints_a_reference_that_verify_takes(cli: Cli, signed: Path) -> None:
    ref = body(cli("sign", "model", "--signer", "file:key.pem", "--json"))["ref"]
    done = cli("verify", json.dumps(ref), "--identity", "key.pem.pub", "--json")
    assert done.returncode == 0
    verdict = body(done)
    assert verdict["status"] == "passed"
    assert verdict["producer"] == "cli"
    assert "FRESHNESS_NOT_CHECKED" not in {finding["code"] for finding in verdict["findings"]}


@pytest.mark.parametrize(
    ("spoil", "arguments", "status", "code"),
    [
        pytest.param(lambda f: None, ("--identity", "key.pem.pub"), 0, "", id="sound"),
        pytest.param(
            lambda f: (f / "weights.bin").write_bytes(b"Weights"), ("--identity", "key.pem.pub"), 3, "FILE_CHANGED",
            id="changed-byte-is-evidence",
        ),
        pytest.param(
            lambda f: None, ("--identity", "other.pem.pub"), 4, "SIGNER_NOT_ALLOWED", id="other-key-is-identity"
        ),
        pytest.param(lambda f: None, (), 4, "IDENTITY_RULE_MISSING", id="nobody-named-is-identity"),
        pytest.param(
            lambda f: None, ("--identity", "key.pem.pub", "--evidence-store", "s3://bucket/evidence"), 5, "",
            id="unreachable-store-is-unverifiable",
        ),
    ],
)  # fmt: skip
def test_verify_ends_with_the_status_of_its_verdict(
    cli: Cli, signed: Path, spoil: Callable[[Path], object], arguments: tuple[str, ...], status: int, code: str
) -> None:
    assert cli("keys", "generate", "other.pem").returncode == 0
    spoil(signed)
    closed = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    done = cli("verify", "model", "--json", *arguments, **closed)
    assert done.returncode == status, done.stdout + done.stderr
    if code:
        assert body(done)["findings"][0]["code"] == code


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("verify",), id="no-artifact"),
        pytest.param(("verify", "model", "--identity", "missing.pub"), id="no-such-key"),
        pytest.param(("verify", "model", "--identity", "key.pem"), id="private-key-as-identity"),
        pytest.param(("verify", "model", "--certificate-root", "ca.pem"), id="root-without-a-name"),
        pytest.param(("verify", "model", "--require", "nothing"), id="unknown-kind"),
        pytest.param(("verify", "https://example.org/model"), id="web-address"),
        pytest.param(("verify", '{"sealflow_ref": 2}'), id="newer-reference"),
        pytest.param(("sign", "model"), id="no-signer"),
        pytest.param(("sign", "model", "--signer", "pkcs99:x"), id="unknown-scheme"),
        pytest.param(("sign", "model", "--certificate", "c.pem"), id="certificate-without-signer"),
        pytest.param(("frobnicate",), id="unknown-command"),
    ],
)
def test_usage_errors_end_with_2_and_say_what_to_do(cli: Cli, signed: Path, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_errors_are_json_too(cli: Cli, signed: Path) -> None:
    error = body(cli("sign", "model", "--json"))["error"]
    assert error["code"] == "SIGNER_MISSING"
    assert error["next_step"]


def test_a_subset_and_a_name_can_be_asked_for(cli: Cli, signed: Path) -> None:
    done = cli(
        "verify", "model", "--identity", "key.pem.pub", "--file", "part/more.bin", "--name", "model", "--json"
    )  # fmt: skip
    assert done.returncode == 0
    assert "SUBSET_CHECKED" in {finding["code"] for finding in body(done)["findings"]}
    assert cli("verify", "model", "--identity", "key.pem.pub", "--name", "other").returncode == 3


def test_inspect_believes_nothing(cli: Cli, signed: Path) -> None:
    shown = body(cli("inspect", "model", "--json"))
    assert shown["verified"] is False
    assert {item["predicate_type"] for item in shown["evidence"]} == {
        "https://model_signing/signature/v1.0",
        "https://slsa.dev/provenance/v1",
    }
    assert "Traceback" not in cli("inspect", "model").stderr


def test_inspect_takes_a_json_file_for_the_artifact_that_it_is(cli: Cli, signed: Path) -> None:
    artifact = signed.with_name("weights.json")
    artifact.write_text('{"slope": 2.0}')
    assert "There is no evidence" in cli("inspect", "weights.json").stdout
    cli("sign", "weights.json", "--signer", "file:key.pem")
    items = body(cli("inspect", "weights.json", "--json"))["evidence"]
    assert len(items) == 2
    (bundle,) = artifact.with_name("weights.json.evidence").rglob("signature-*.json")
    assert body(cli("inspect", str(bundle), "--json"))["evidence"][0]["object"] == bundle.name
    # What is named as evidence is evidence, however broken.
    bundle.write_text("{}")
    assert "EVIDENCE_MALFORMED" in cli("inspect", str(bundle)).stdout


def test_exported_evidence_verifies_as_a_bundle(cli: Cli, signed: Path, tmp_path: Path) -> None:
    written = body(cli("evidence", "export", "model", ".", "--json"))["written"]
    assert [Path(path).name for path in written] == ["model.sig", "model.intoto.jsonl"]
    assert cli("evidence", "export", "model", ".").returncode == 2, "it wrote over files"
    assert cli("evidence", "export", "model", ".", "--overwrite").returncode == 0
    arguments = ("verify", "model", "--signature", "model.sig", "--identity", "key.pem.pub")
    assert cli(*arguments, "--require", "signature").returncode == 0
    assert cli(*arguments).returncode == 3, "a bare signature passed for provenance"
    envelope = json.loads((tmp_path / "model.intoto.jsonl").read_text().splitlines()[0])
    assert set(envelope) == {"payload", "payloadType", "signatures"}


def test_hostile_names_cannot_reach_the_terminal(cli: Cli, signed: Path) -> None:
    (signed / "\x1b[2J\u202egnp.exe").write_text("x")
    done = cli("verify", "model", "--identity", "key.pem.pub")
    assert done.returncode == 3
    assert "\x1b" not in done.stdout + done.stderr
    assert "\u202e" not in done.stdout + done.stderr


@pytest.mark.slow
def test_progress_shows_on_a_terminal_only(cli: Cli, signed: Path, tmp_path: Path) -> None:
    with open(signed / "large.bin", "wb") as file:
        file.truncate(64 << 20)
    command = [
        sys.executable,
        "-c",
        "from sealflow.cli import main; main()",
        "sign",
        "model",
        "--signer",
        "file:key.pem",
    ]
    ours, theirs = pty.openpty()
    try:
        env = {**os.environ, "SEALFLOW_AUDIT_SPOOL": str(tmp_path / "spool"), "TERM": "xterm", "COLUMNS": "100"}
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        theirs = -1
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux reports the other end's closing as EIO
                break
            if not piece:
                break
            shown += piece
        assert process.wait(30) == 0
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    assert b"Signing" in shown
    assert cli("sign", "model", "--signer", "file:key.pem").stderr == ""


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(cli: Cli, signed: Path, tmp_path: Path) -> None:
    script = f"{sys.executable} -c 'from sealflow.cli import main; main()' inspect model --json | true"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_sign_with_a_timestamp(cli: Cli, signed: Path, tmp_path: Path) -> None:
    with TimestampAuthority(tmp_path / "authority").serving() as authority:
        (tmp_path / "m").write_bytes(b"m")
        assert cli("sign", "m", "--signer", "file:key.pem", "--timestamp", authority.url).returncode == 0
        assert authority.asked == 2
        url = authority.url
    (tmp_path / "n").write_bytes(b"n")
    gone = cli("sign", "n", "--signer", "file:key.pem", "--timestamp", url)
    assert gone.returncode == 5
    assert "timestamp authority" in gone.stderr
    assert not (tmp_path / "n.evidence").exists()
    unknown = cli("sign", "n", "--signer", "file:key.pem", "--timestamp", "company")
    assert unknown.returncode == 2
