"""`sealflow audit integrate` and `sealflow audit inbox init`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sealflow.actions.audit_integrate import integrate_audit_log
from sealflow.audit.checkpoint import open_checkpoint
from sealflow.audit.inbox import open_inbox
from sealflow.audit.note import VerifierKey
from sealflow.errors import UsageError
from sealflow.storage import Storages
from tests.core.audit.chains import chain, forged
from tests.core.audit.logs import ORIGIN, ed25519_signer
from tests.core.conftest import Cli, body
from tests.servers.postgresql import PostgresqlServer


def put(path: Path, *chains) -> str:
    inbox = open_inbox(f"sqlite:{path}", Storages())
    for entries in chains:
        inbox.put(entries)
    inbox.close()
    return inbox.uri


def test_it_integrates_and_says_what_it_left_out(cli: Cli, tmp_path: Path) -> None:
    signer = ed25519_signer(tmp_path)
    entries, hostile = chain(3), chain(1)
    uri = put(tmp_path / "inbox.db", entries, [forged(hostile[0])])
    options = ("--inbox", uri, "--log", "log", "--signer", signer.uri, "--origin", ORIGIN)
    done = cli("audit", "integrate", *options, "--json")
    assert done.returncode == 0, done.stderr
    told = body(done)
    assert (told["added"], told["size"]) == (3, 3)
    assert [finding["code"] for finding in told["findings"]] == ["AUDIT_SIGNATURE"]
    key = VerifierKey.parse(told["log_key"])
    checkpoint = open_checkpoint((tmp_path / "log" / "checkpoint").read_bytes(), key).checkpoint
    assert (checkpoint.size, checkpoint.root.hex()) == (3, told["root"])
    put(tmp_path / "inbox.db", chain(2))
    done = cli("audit", "integrate", *options[4:], SEALFLOW_AUDIT_INBOX=uri, SEALFLOW_AUDIT_LOG=str(tmp_path / "log"))
    assert done.returncode == 0, done.stderr
    assert "added     2 entries" in done.stdout
    assert told["log_key"] in done.stdout


def test_what_waits_for_an_entry_that_is_not_there_is_said_each_time(cli: Cli, tmp_path: Path) -> None:
    signer = ed25519_signer(tmp_path)
    lost, *left = chain(4)
    uri = put(tmp_path / "inbox.db", left, chain(2))
    options = ("--inbox", uri, "--log", "log", "--signer", signer.uri, "--origin", ORIGIN)
    for added in (2, 0):
        told = body(cli("audit", "integrate", *options, "--json"))
        assert (told["added"], told["waiting"]) == (
            added, {"entries": 3, "oldest": f"{lost.writer}/1", "since": ""},
        )  # fmt: skip
        (finding,) = told["findings"]
        assert (finding["code"], finding["severity"]) == ("AUDIT_WAITING", "warning")
        assert "3 entries" in finding["message"]
    assert "waiting   3 entries" in cli("audit", "integrate", *options).stdout
    put(tmp_path / "inbox.db", [lost])
    told = body(cli("audit", "integrate", *options, "--json"))
    assert (told["added"], told["waiting"]["entries"], told["findings"]) == (4, 0, [])


def test_an_altered_log_is_a_refusal(cli: Cli, tmp_path: Path) -> None:
    signer = ed25519_signer(tmp_path)
    uri = put(tmp_path / "inbox.db", chain(3))
    options = ("--inbox", uri, "--log", "log", "--signer", signer.uri, "--origin", ORIGIN)
    assert cli("audit", "integrate", *options).returncode == 0
    (tmp_path / "log" / "checkpoint").unlink()
    done = cli("audit", "integrate", *options)
    assert done.returncode == 3
    assert "LOG_TRUNCATED" in done.stderr


@pytest.mark.parametrize("missing", ["inbox", "log"])
def test_a_place_that_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    places = {"inbox": f"sqlite:{tmp_path}/inbox.db", "log": str(tmp_path / "log")} | {missing: None}
    with pytest.raises(UsageError) as caught:
        integrate_audit_log(**places, signer=ed25519_signer(tmp_path), origin=ORIGIN)
    assert missing in caught.value.message


@pytest.mark.slow
def test_every_so_often_it_integrates_until_it_is_stopped(tmp_path: Path) -> None:
    signer = ed25519_signer(tmp_path)
    uri = put(tmp_path / "inbox.db", chain(1))
    code = "from sealflow.cli import main; main()"
    options = ["--inbox", uri, "--log", "log", "--signer", signer.uri, "--origin", ORIGIN, "--every", "0.2"]
    process = subprocess.Popen([sys.executable, "-c", code, "audit", "integrate", *options], cwd=tmp_path)
    try:
        for size in (1, 3):
            deadline = time.monotonic() + 60
            while True:
                text = (
                    (tmp_path / "log" / "checkpoint").read_text() if (tmp_path / "log" / "checkpoint").exists() else ""
                )
                if f"\n{size}\n" in text:
                    break
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.05)
            put(tmp_path / "inbox.db", chain(2))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_init_prints_what_roles_need_and_no_more(cli: Cli) -> None:
    done = cli("audit", "inbox", "init", "--sql", "--writer", "airflow", "--integrator", "log")
    assert done.returncode == 0, done.stderr
    assert 'GRANT INSERT (writer, n, line), SELECT (writer, n, hash, idx) ON sealflow_audit.entries TO "airflow";' in (
        done.stdout
    )
    assert 'GRANT SELECT, UPDATE (idx, code) ON sealflow_audit.entries TO "log";' in done.stdout


def test_init_makes_a_file(cli: Cli, tmp_path: Path) -> None:
    done = cli("audit", "inbox", "init", "--inbox", f"sqlite:{tmp_path}/new.db")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new.db").exists()
    assert cli("audit", "inbox", "init", "--inbox", f"sqlite:{tmp_path}/new.db", "--writer", "x").returncode == 2
    assert cli("audit", "inbox", "init").returncode == 2


def test_init_makes_the_tables_of_a_database(
    cli: Cli, postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in postgresql.environment.items():
        monkeypatch.setenv(name, value)
    database = postgresql.make_database()
    for _ in range(2):
        done = cli("audit", "inbox", "init", "--inbox", postgresql.uri(database), "--writer", "writer")
        assert done.returncode == 0, done.stderr
    inbox = open_inbox(postgresql.uri(database, "writer"), Storages())
    inbox.put(chain(2))
    inbox.close()


def test_a_password_in_a_location_is_refused_and_not_shown(cli: Cli) -> None:
    done = cli("audit", "inbox", "init", "--inbox", "postgresql://me:secret@host/db")
    assert done.returncode == 2
    assert "secret" not in done.stdout + done.stderr.replace("SECRET", "")
