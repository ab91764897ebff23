"""`sealflow audit review` and `sealflow audit export`: output, files, exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core.actions.access_log import at, made, one
from tests.core.audit.logs import MadeLog
from tests.core.conftest import Cli, cli

__all__ = ["cli"]  # a fixture

MODEL = "s3://models/churn/model.pkl"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeLog:
    lines = [line for day in range(60) for line in one(at(day), MODEL)]
    found = made(tmp_path / "world", lines + one(at(59, 60), "s3://raw/people.csv", "failed", codes=("FILE_CHANGED",)))
    (tmp_path / "key").write_text(str(found.key))
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    return found


def arguments(tmp_path: Path, log: MadeLog, *more: str) -> tuple[str, ...]:
    period = ("--since", "2026-10-01", "--until", "2026-11-01")
    return ("audit", "review", "--log", log.store.uri, "--key", str(tmp_path / "key"), *period, *more)


def test_terminal_shows_who_what_and_how_often(tmp_path: Path, log: MadeLog, cli: Cli) -> None:
    done = cli(*arguments(tmp_path, log))
    assert done.returncode == 0
    for text in ("passed", "airflow:train/fit", MODEL, "FILE_CHANGED", "FIRST_SEEN s3://raw/", "183 entries"):
        assert text in done.stdout


def test_page_and_json(tmp_path: Path, log: MadeLog, cli: Cli) -> None:
    page = tmp_path / "review.html"
    done = cli(*arguments(tmp_path, log, "--html", str(page), "--json"))
    assert done.returncode == 0
    assert json.loads(done.stdout)["outcomes"] == {"failed": 1, "passed": 30}
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert cli(*arguments(tmp_path, log, "--html", str(page))).returncode == 2
    assert cli(*arguments(tmp_path, log, "--html", str(page), "--overwrite")).returncode == 0
    assert cli(*arguments(tmp_path, log, "--html", str(tmp_path / "none" / "x.html"))).returncode == 2


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (("--fail-on", "FIRST_SEEN"), 3),
        (("--fail-on", "VOLUME"), 0),
        (("--fail-on", "all"), 3),
        (("--fail-on", "NONSENSE"), 2),
        (("--since", "never"), 2),
        (("--role", "arn"), 2),
        (("--policy-key", "k"), 2),
        (("--artifact", "s3://none/**"), 0),
    ],
    ids=str,
)
def test_exit_statuses(tmp_path: Path, log: MadeLog, cli: Cli, more: tuple[str, ...], status: int) -> None:
    assert cli(*arguments(tmp_path, log, *more)).returncode == status


def test_log_that_does_not_verify_fails_and_one_out_of_reach_is_another_thing(
    tmp_path: Path, log: MadeLog, cli: Cli
) -> None:
    log.path().write_bytes(log.path().read_bytes().replace(b"\n183\n", b"\n182\n"))
    done = cli(*arguments(tmp_path, log))
    assert (done.returncode, "LOG_CHECKPOINT" in done.stdout) == (3, True)
    assert cli("audit", "review", "--log", str(tmp_path / "none"), "--key", str(tmp_path / "key")).returncode == 3
    log.path().unlink()
    log.path().mkdir()
    assert cli(*arguments(tmp_path, log)).returncode in (3, 5)


def test_settings_name_the_log(tmp_path: Path, log: MadeLog, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_LOG", log.store.uri)
    assert cli("audit", "review").returncode == 2
    monkeypatch.setenv("SEALFLOW_AUDIT_LOG_KEY", str(log.key))
    assert cli("audit", "review").returncode == 0


@pytest.mark.parametrize("form", ["jsonl", "ocsf"])
def test_export_prints_a_document_a_line(tmp_path: Path, log: MadeLog, cli: Cli, form: str) -> None:
    given = ("audit", "export", "--log", log.store.uri, "--key", str(log.key), "--format", form)
    done = cli(*given)
    assert (done.returncode, len([json.loads(line) for line in done.stdout.splitlines()])) == (0, 183)
    assert len(cli(*given, "--start", "180").stdout.splitlines()) == 3
    assert cli(*given, "--since", "soon").returncode == 2


def test_export_says_what_it_could_not_read(log: MadeLog, cli: Cli) -> None:
    log.add([b"nonsense"])
    done = cli("audit", "export", "--log", log.store.uri, "--key", str(log.key))
    assert (done.returncode, len(done.stdout.splitlines())) == (3, 184)
    assert "1 entries" in done.stderr


def test_unknown_format_is_a_usage_error(log: MadeLog, cli: Cli) -> None:
    assert cli("audit", "export", "--log", log.store.uri, "--key", str(log.key), "--format", "xml").returncode == 2
