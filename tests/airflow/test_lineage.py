"""The lineage gate: what it returns, pushes and raises over real repositories. Nothing runs behind a refusal."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.home import AirflowHome
from tests.audit_events import read_events
from tests.core.lineage.gitrepo import new_repo, public, snapshot, ssh_key
from tests.dvc_repository import DATA, MADE, edit, publish, write_repository
from tests.pki import write_key

pytestmark = pytest.mark.airflow


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "repository")


def check(context: dict[str, Any], repository: Any, **parameters: Any) -> str:
    from sealflow_airflow import DvcLineageCheckOperator

    return DvcLineageCheckOperator(task_id="gate", repository=str(repository), **parameters).execute(context)


def verdict(context: dict[str, Any]) -> dict[str, Any]:
    return context["ti"].pushed["verdict"]


def codes(context: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in verdict(context)["findings"]]


@pytest.mark.parametrize("level", ["L1", "L2"])
@pytest.mark.parametrize("targets", [(), ["clean"], [MADE, f"{DATA}.dvc"]], ids=["all", "stage", "files"])
def test_clean_repository_passes_and_hands_itself_on(connection, context, repository, level, targets):
    before = snapshot(repository)
    assert check(context, repository, level=level, targets=targets) == str(repository)
    assert (verdict(context)["status"], verdict(context)["artifact"]) == ("passed", f"file://{repository}")
    assert snapshot(repository) == before


def test_file_uri_is_a_repository_too(connection, context, repository):
    assert check(context, f"file://{repository}") == f"file://{repository}"


def test_signed_commit_passes_and_names_its_signer(connection, context, tmp_path):
    repo = new_repo(tmp_path / "repository")
    write_repository(repo.root)
    commit = repo.commit({})
    allowed = tmp_path / "allowed"
    allowed.write_text(f"ada@example.org {public(ssh_key())}\n")
    trust = {"level": "L3", "allowed_signers": str(allowed), "branch": "refs/heads/main"}
    assert check(context, repo.root, **trust) == str(repo.root)
    (signer,) = verdict(context)["signers"]
    assert (signer["kind"], signer["evidence"]) == ("commit", commit)

    from airflow.sdk.exceptions import AirflowFailException

    allowed.write_text(f"eve@example.org {public(ssh_key(owner='eve'))}\n")
    with pytest.raises(AirflowFailException):
        check(context, repo.root, **trust)
    assert verdict(context)["status"] == "failed"


def test_repository_behind_a_url_passes_with_the_data_of_a_named_remote(connection, context, repository, tmp_path):
    """Cloned at one commit, its data fetched, checked up to the remote; nothing of it stays."""
    found = publish(repository, tmp_path, ssh_key())
    allowed = tmp_path / "allowed"
    allowed.write_text(f"ada@example.org {public(ssh_key())}\n")
    trust = {"level": "L4", "allowed_signers": str(allowed), "branch": "refs/remotes/origin/main"}
    before = snapshot(found.remote)
    assert check(context, found.url, revision=found.commit, remote=str(found.remote), **trust) == found.url
    assert verdict(context)["artifact"] == found.url
    assert [signer["evidence"] for signer in verdict(context)["signers"]] == [found.commit]
    assert snapshot(found.remote) == before

    from airflow.sdk.exceptions import AirflowFailException

    found.corrupt()
    with pytest.raises(AirflowFailException):
        check(context, found.url, revision=found.commit, remote=str(found.remote), **trust)
    assert verdict(context)["status"] == "failed"


@pytest.mark.parametrize("level", ["L5", "L6"])
def test_connection_says_who_signs_lineage(connection, connect, context, repository, tmp_path, level):
    from airflow.sdk.exceptions import AirflowFailException

    import sealflow
    from sealflow.actions.lineage_sign import sign_lineage

    found = publish(repository, tmp_path, ssh_key())
    allowed = tmp_path / "allowed"
    allowed.write_text(f"ada@example.org {public(ssh_key())}\n")
    run = sealflow.RunIdentity("airflow", "train", "clean", str(tmp_path), None, 1)
    for targets, surroundings in (
        ([f"{DATA}.dvc"], sealflow.Surroundings()),
        (["clean"], sealflow.Surroundings(run)),
    ):
        with sealflow.run(surroundings):
            sign_lineage(str(repository), targets, signer=connection.signer)
    given = {
        "level": level,
        "allowed_signers": str(allowed),
        "branch": "refs/heads/main",
        "remote": str(found.remote),
        **({"roots": {"owner": f"file:{connection.public}"}} if level == "L6" else {}),
    }
    assert check(context, repository, **given) == str(repository), codes(context)
    assert {signer["kind"] for signer in verdict(context)["signers"]} > {"commit"}
    assert {signer["identity"] for signer in verdict(context)["signers"]} >= {"trainer"}
    # Nobody, said in so many words, is not the connection's somebody.
    with pytest.raises(AirflowFailException):
        check(context, repository, **given, identities=[])
    connect("other", extra={"identities": {"eve": f"file:{write_key(tmp_path, 'eve').public}"}})
    with pytest.raises(AirflowFailException):
        check(context, repository, **given, sealflow_conn_id="other")


def _unlock(root: Path) -> None:
    (root / "dvc.lock").unlink()


def _other_command(root: Path) -> None:
    path = root / "dvc.yaml"
    path.write_text(path.read_text().replace("sort -n", "sort -r"))


ATTACKS = {
    "data edited, its times restored": (lambda root: edit(root / DATA), "DATA_MISMATCH"),
    "output edited, its times restored": (lambda root: edit(root / MADE), "DATA_MISMATCH"),
    "data removed": (lambda root: (root / DATA).unlink(), "DATA_MISSING"),
    "lock removed": (_unlock, "STAGE_NOT_LOCKED"),
    "another command": (_other_command, "CMD_DRIFT"),
    "no repository at all": (lambda root: (root / ".dvc" / "config").unlink() or (root / ".dvc").rmdir(), "LINEAGE_"),
}


@pytest.mark.parametrize(("attack", "code"), ATTACKS.values(), ids=ATTACKS)
def test_tampered_repository_is_refused_for_good_and_the_verdict_is_pushed(
    connection, context, repository, attack, code
):
    from airflow.sdk.exceptions import AirflowFailException

    attack(repository)
    with pytest.raises(AirflowFailException, match=code):
        check(context, repository)
    assert verdict(context)["status"] == "failed"
    assert codes(context)[0].startswith(code)


def test_what_nobody_can_say_may_be_tried_again(connection, context, repository):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    external(repository)
    with pytest.raises(AirflowException, match="DATA_EXTERNAL") as caught:
        check(context, repository)
    assert not isinstance(caught.value, AirflowFailException)
    assert verdict(context)["status"] == "unverifiable"


def external(root: Path) -> Path:
    """Let the repository track data that lies outside of it, which is never read."""
    (root / "outside.dvc").write_text(f"outs:\n- md5: {'a' * 32}\n  path: s3://bucket/key\n")
    return root


def test_a_hundred_findings_travel_and_the_rest_is_counted(connection, context, repository):
    from airflow.sdk.exceptions import AirflowFailException

    for number in range(130):
        (repository / f"{number}.dvc").write_text(
            f"outs:\n- md5: a{number:031x}\n  size: 1\n  hash: md5\n  path: absent-{number}\n"
        )
    with pytest.raises(AirflowFailException):
        check(context, repository)
    assert len(verdict(context)["findings"]) == 100
    assert verdict(context)["findings_omitted"] >= 30


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        pytest.param({"level": "L9"}, "USAGE", id="no-such-level"),
        pytest.param({"targets": "clean"}, "USAGE", id="targets-no-list"),
        pytest.param({"targets": ["train"]}, "LINEAGE_TARGET_UNKNOWN", id="no-such-stage"),
        pytest.param({"branch": "refs/heads/main"}, "USAGE", id="branch-below-its-level"),
        pytest.param({"level": "L3", "allowed_signers": "/nowhere"}, "KEY_MISSING", id="no-such-signers"),
        pytest.param({"repository": "https://user:pass@example.org/r"}, "GIT_URL_REFUSED", id="url-with-a-password"),
        pytest.param({"repository": "ext::sh -c touch"}, "GIT_URL_REFUSED", id="url-that-starts-a-program"),
        pytest.param({"sealflow_conn_id": "absent"}, "CONNECTION_MISSING", id="no-such-connection"),
        pytest.param({"level": "L3", "aws_conn_id": "absent"}, "CONNECTION_MISSING", id="no-such-aws-connection"),
    ],
)
def test_wrong_parameter_fails_for_good_without_a_verdict(connection, context, repository, parameters, code):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=code):
        check(context, **{"repository": repository, **parameters})
    assert "verdict" not in context["ti"].pushed


def test_check_is_in_the_audit_log_with_the_task(connection, context, repository, monkeypatch, tmp_path):
    spool = tmp_path / "spool"
    monkeypatch.setenv("AIRFLOW__SEALFLOW__AUDIT_SPOOL", str(spool))
    check(context, repository)
    events = read_events(spool)
    assert [(event["action"], event.get("outcome", "")) for event in events] == [
        ("check_lineage", ""),
        ("check_lineage", "passed"),
    ]
    assert {event["run"]["task"] for event in events} == {"fit"}


def test_names_are_attributes_and_neither_trust_nor_the_demand_is_templated():
    from sealflow_airflow import DvcLineageCheckOperator

    parameters = set(inspect.signature(DvcLineageCheckOperator.__init__).parameters) - {"self", "kwargs"}
    demands = {"level", "read_remote", "branch"}
    trust = {"allowed_signers", "identities", "roots", "datasets", "policy"}
    assert set(DvcLineageCheckOperator.template_fields) == parameters - demands - trust
    made = DvcLineageCheckOperator(task_id="task", **dict.fromkeys(parameters, "value"))
    # Airflow keeps the name `roots` to itself.
    assert all(getattr(made, {"roots": "walk_roots"}.get(name, name)) == "value" for name in parameters)


def test_action_gets_every_parameter_as_it_is(connection, context, monkeypatch):
    """An empty list of identities is a demand that nobody meets; it must not become the connection's."""
    from sealflow.actions import lineage
    from sealflow.findings import Verdict
    from sealflow_airflow import DvcLineageCheckOperator

    got: list[dict[str, Any]] = []
    monkeypatch.setattr(
        lineage, "check_lineage", lambda *given, **named: got.append(named) or Verdict("passed", "file:///r")
    )
    own = set(inspect.signature(DvcLineageCheckOperator.__init__).parameters)
    names = own - {"self", "kwargs", "repository", "targets", "sealflow_conn_id", "aws_conn_id"}
    check(context, "/r", **{**{name: f"a {name}" for name in names}, "identities": []})
    del got[0]["storages"]
    assert got == [{**{name: f"a {name}" for name in names}, "identities": []}]


def test_defaults_are_those_of_the_action():
    from sealflow.actions.lineage import check_lineage
    from sealflow_airflow import DvcLineageCheckOperator

    ours, theirs = (
        {name: item.default for name, item in inspect.signature(function).parameters.items()}
        for function in (DvcLineageCheckOperator.__init__, check_lineage)
    )
    assert {name: ours[name] for name in theirs.keys() - {"storages", "sink"}} == {
        name: theirs[name] for name in theirs.keys() - {"storages", "sink"}
    }


def conf_of(folder: Path) -> dict[str, str]:
    return {"repository": str(folder / "repository"), "model": str(folder / "line.json")}


def test_example_trains_behind_the_gate(airflow_home: AirflowHome):
    folder = airflow_home.folder_for("gate_on_lineage")
    write_repository(folder / "repository")
    run = airflow_home.run("example_gate_on_lineage", conf_of(folder))
    assert run.states == {"gate": "success", "train": "success"}, run.output
    assert json.loads((folder / "line.json").read_text()) == {"slope": pytest.approx(2), "intercept": pytest.approx(1)}
    assert run.xcoms["gate", "return_value"] == str(folder / "repository")
    assert run.xcoms["gate", "verdict"]["status"] == "passed"


def test_example_does_not_train_on_tampered_data(airflow_home: AirflowHome):
    folder = airflow_home.folder_for("gate_on_tampered_lineage")
    edit(write_repository(folder / "repository") / MADE)
    run = airflow_home.run("example_gate_on_lineage", conf_of(folder))
    # On the first try, with two retries left.
    assert (run.states["gate"], run.tries["gate"], run.states["train"]) == ("failed", 1, "upstream_failed"), run.output
    assert run.xcoms["gate", "verdict"]["findings"][0]["code"] == "DATA_MISMATCH"
    assert not (folder / "line.json").exists()
