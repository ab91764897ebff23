"""Why a run was stopped can be read from the audit inbox when its pods are gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sealflow.actions.stopped import stopped
from sealflow.audit.inbox import open_inbox
from sealflow.cli.kfp_verdict import register
from sealflow.errors import UsageError
from sealflow.storage import Storages
from tests.kubeflow.test_exec import MODEL, RUN, Team
from tests.trees import flip_byte

OTHER = "22222222-2222-4222-8222-222222222222"


@pytest.fixture
def team(tmp_path: Path) -> Team:
    made = Team(tmp_path)
    made.write(audit_spool=None, audit_inbox=f"sqlite:{tmp_path}/inbox.db")
    return made


def command(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    done = CliRunner().invoke(app, ["verdict", *arguments])
    return done.exit_code, done.output


def test_a_refusal_is_found_by_its_run_and_by_its_task(team: Team) -> None:
    inbox = f"sqlite:{team.root}/inbox.db"
    model = team.make()
    assert command(RUN, "--inbox", inbox)[0] == 5
    flip_byte(team.launcher.key(model.uri))
    refused = team.use(model)
    assert refused.artifacts_uploaded == []
    team.make(run=OTHER)
    for asked in (RUN, f"kfp:churn/score/{RUN}"):
        status, text = command(asked, "--inbox", inbox)
        assert status == 0
        assert "FAILED" in text
        assert "EVIDENCE_OF_OTHER_ARTIFACT" in text
        assert "next:" in text
    for asked in (OTHER, f"kfp:churn/train/{RUN}", "RUN", ""):
        assert command(asked, "--inbox", inbox)[0] == 5
    status, text = command(RUN, "--inbox", inbox, "--json")
    (event,) = json.loads(text)["events"]
    assert (status, event["outcome"], event["run"]["task"]) == (0, "failed", "score")


def test_a_task_whose_name_holds_the_sign_of_an_attempt(team: Team) -> None:
    done = team.launcher.run(
        "train #1", f"echo w > '{MODEL}'; echo '[]' > '{{{{output_file}}}}'", outputs={"model": "system.Model"}
    )
    assert done.status == 97
    inbox = f"sqlite:{team.root}/inbox.db"
    assert len(stopped(f"kfp:churn/train #1/{RUN}", inbox=inbox).events) == 1
    assert len(stopped("kfp:churn/train ", inbox=inbox).events) == 0


def test_what_is_no_verdict_is_found_too(team: Team) -> None:
    done = team.launcher.run(
        "train", f"echo w > {MODEL}; echo '[]' > {{{{output_file}}}}", outputs={"model": "system.Model"}
    )
    assert done.status == 97
    (event,) = stopped(RUN, inbox=f"sqlite:{team.root}/inbox.db").events
    assert (event["action"], event["outcome"], event["codes"]) == ("guard", "error", ["EVIDENCE_MALFORMED"])


def test_a_spool_that_was_not_shipped(team: Team) -> None:
    team.write(audit_inbox=None, audit_spool=str(team.root / "spool"))
    model = team.make()
    flip_byte(team.launcher.key(model.uri))
    team.use(model)
    assert len(stopped(RUN, spool=str(team.root / "spool")).events) == 1


def test_only_the_end_of_a_long_inbox_is_read(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = f"sqlite:{team.root}/inbox.db"
    model = team.make()
    flip_byte(team.launcher.key(model.uri))
    team.use(model)
    monkeypatch.setattr("sealflow.actions.stopped.BATCH", 2)
    found = stopped(RUN, inbox=inbox)
    assert (len(found.events), found.complete) == (1, True)
    opened = open_inbox(inbox, Storages())
    assert opened.size() > 4
    opened.close()
    found = stopped(RUN, inbox=inbox, most=2)
    assert not found.complete


def test_without_a_place_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="inbox"):
        stopped(RUN)
    with pytest.raises(UsageError, match="both"):
        stopped(RUN, inbox="sqlite:/a", spool="/b")
