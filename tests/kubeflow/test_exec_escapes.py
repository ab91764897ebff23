"""Ways around the wrapper that a hostile metadata store, producer or command could take: each ends the task."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealflow_kfp.evidence_metadata import KEY
from sealflow_kfp.exec import MISCONFIGURED, REFUSED
from sealflow_kfp.plan import Plan, Producer
from sealflow_kfp.signed_metadata import EVIDENCE as METADATA_EVIDENCE
from sealflow_kfp.signed_metadata import TEXT as METADATA_TEXT
from tests.e2e.admin import rule
from tests.kubeflow.launcher import Outcome, Stored, sends
from tests.kubeflow.test_exec import INPUT, MODEL, PROVENANCE, RUN, SCORES, Team, dependencies, made, sealed, team

pytestmark = pytest.mark.slow

__all__ = ["made", "sealed", "team"]  # fixtures

OTHER_RUN = "22222222-2222-4222-8222-222222222222"
CAT = f"cat {INPUT} > {SCORES}; echo the command ran"
SHOW = ["sh", "-c", f'printf %s "$0" > {SCORES}', "{{$}}"]


def planned(**changes: Any) -> dict[str, Any]:
    members = {
        "pipeline": "churn",
        "task": "score",
        "inputs": {"model": (Producer("train", "model"),)},
        "outputs": ("scores",),
        **changes,
    }
    return {"sealflow_plan": Plan(**members).to_text(), "sealflow_run_id": RUN}


def said(*artifacts: tuple[str, dict[str, Any]]) -> str:
    """Return the end of a script that writes an executor output."""
    body = json.dumps({"artifacts": {name: {"artifacts": [item]} for name, item in artifacts}})
    return f"; cat > {{{{output_file}}}} <<'END'\n{body}\nEND\n"


def given_metadata(team: Team, done: Outcome) -> dict[str, Any]:
    """Return the metadata of the input that a command saw which wrote down its executor input."""
    assert done.status == 0, done.log
    body = json.loads(team.launcher.key(done.outputs["scores"].uri).read_text())
    found: dict[str, Any] = body["inputs"]["artifacts"]["model"]["artifacts"][0]["metadata"]
    return found


def refused(done: Outcome, status: int = REFUSED) -> None:
    assert done.status == status, done.log
    assert done.artifacts_uploaded == []
    assert "the command ran" not in done.log.splitlines()


# --- An input that is said to lie where no rule holds ---

ELSEWHERE = {
    "a place that no rule names": "minio://otherbucket/evil",
    "a place that is only audited": "minio://lab/evil",
    "another store": "gs://bucket/evil",
    "an image": "oci://registry/evil",
    "a web address": "https://example.com/evil",
    "a file URL": "file:///tmp/evil",
    "memory": "mem://evil",
    "a path of the pod": "/tmp/evil",
}


@pytest.mark.parametrize("uri", ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_input_that_is_said_to_lie_elsewhere(team: Team, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    team.publish(
        rule("models", "s3://bucket/**", "team", **PROVENANCE),
        rule("lab", "s3://lab/**", "team", level="audit", **PROVENANCE),
    )
    evil = Stored(uri, "system.Model", {})
    if uri.startswith("minio:"):
        team.launcher.key(uri).parent.mkdir(parents=True)
        team.launcher.key(uri).write_text("evil")
    else:
        monkeypatch.setattr(team.launcher, "_download", lambda uri: None)
    refused(team.use(evil, CAT, parameters=planned()))


def test_a_producer_that_puts_its_output_where_no_rule_holds(team: Team) -> None:
    """It is signed there all the same, under the rules of the place where it belongs."""
    team.publish(rule("models", "s3://bucket/**", "team", **PROVENANCE))
    place = team.root / "pod" / "minio" / "otherbucket" / "x"
    script = f"mkdir -p {place}; echo moved > {place}/model" + said(("model", {"uri": "minio://otherbucket/x/model"}))
    model = team.make(script)
    assert KEY in model.metadata
    assert team.use(model, CAT, parameters=planned()).status == 0
    refused(team.use(replace(model, metadata={}), CAT, parameters=planned()))


def test_a_producer_that_puts_its_output_where_nobody_reads(team: Team) -> None:
    team.publish(rule("models", "s3://bucket/**", "team", **PROVENANCE))
    script = "true" + said(("model", {"uri": "https://example.com/model"}))
    refused(team.launcher.run("train", script, outputs={"model": "system.Model"}))


# --- Metadata ---


@pytest.mark.parametrize("kind", ["system.Metrics", "system.Model", "system.Artifact"])
def test_metadata_without_a_file_is_signed_for_each_type(team: Team, kind: str) -> None:
    model = team.make("true" + said(("model", {"metadata": {"accuracy": 0.1}})), kind)
    assert given_metadata(team, team.use(model, SHOW)) == {"accuracy": 0.1}
    # The command sees what KFP shows: no file.
    assert team.use(model, f"test ! -e {INPUT}; echo ok > {SCORES}").status == 0
    done = team.use(model, f"echo ok > {SCORES}")
    assert len(dependencies(done.outputs["scores"])) == 1


@pytest.mark.parametrize("kind", ["system.Artifact", "system.Model", ""])
def test_signed_metadata_of_an_artifact_with_another_type(team: Team, kind: str) -> None:
    model = team.make("true" + said(("model", {"metadata": {"accuracy": 0.1}})), "system.Metrics")
    forged = replace(model, kind=kind, metadata={**model.metadata, "accuracy": 0.99})
    assert given_metadata(team, team.use(forged, SHOW)) == {"accuracy": 0.1}


SAID = {"accuracy": 0.1, "layers": [1, {"a": True}], "framework": "x"}


def modelled(team: Team, kind: str = "system.Model", text: str = "w", **metadata: Any) -> Stored:
    return team.make(f"echo {text} > {MODEL}" + said(("model", {"metadata": {**SAID, **metadata}})), kind)


@pytest.mark.parametrize("kind", ["system.Model", "system.Metrics"])
@pytest.mark.parametrize("store", [False, True], ids=["metadata alone", "store"])
def test_metadata_of_an_artifact_with_files(team: Team, kind: str, store: bool) -> None:
    if store:
        team.write(evidence_store=str(team.root / "evidence"))
    model = modelled(team, kind)
    forged = replace(model, metadata={**model.metadata, "accuracy": 0.99, "planted": 1.0})
    for stored in (model, forged):
        done = team.use(stored, SHOW, parameters=planned())
        assert given_metadata(team, done) == SAID
        # What was signed beside an input is no further input.
        assert len(dependencies(done.outputs["scores"])) == 1


FORGED: dict[str, Any] = {
    "signature taken away": lambda team, model: {
        METADATA_TEXT: None,
        METADATA_EVIDENCE: None,
        KEY: model.metadata[KEY],
    },
    "provenance taken away": lambda team, model: {METADATA_EVIDENCE: None},
    "text edited": lambda team, model: {METADATA_TEXT: model.metadata[METADATA_TEXT].replace("0.1", "0.9")},
    "text of another type": lambda team, model: {METADATA_TEXT: 7.0},
    "of another artifact": lambda team, model: _metadata_of(modelled(team, text="other", accuracy=0.9)),
    "of another run": lambda team, model: _metadata_of(_made_in(team, OTHER_RUN)),
    "the artifact's own provenance": lambda team, model: {METADATA_EVIDENCE: model.metadata[KEY]},
}


def _metadata_of(model: Stored) -> dict[str, Any]:
    return {key: model.metadata[key] for key in (METADATA_TEXT, METADATA_EVIDENCE)}


def _made_in(team: Team, run: str) -> Stored:
    return team.make(f"echo w > {MODEL}" + said(("model", {"metadata": {"accuracy": 0.9}})), run=run)


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_metadata_that_nobody_signed_is_not_handed_on(team: Team, forge: Any) -> None:
    model = modelled(team)
    changed = {**model.metadata, "accuracy": 0.9, **forge(team, model)}
    forged = replace(model, metadata={key: value for key, value in changed.items() if value is not None})
    done = team.use(forged, SHOW, parameters=planned())
    assert "accuracy" not in given_metadata(team, done)
    assert "nobody signed its metadata accuracy" in done.log


def test_metadata_of_an_input_that_no_task_made_is_what_it_is(team: Team) -> None:
    model = modelled(team)
    plain = {key: value for key, value in model.metadata.items() if key not in (METADATA_TEXT, METADATA_EVIDENCE)}
    done = team.use(replace(model, metadata=plain), SHOW, parameters=planned(inputs={"model": ()}))
    assert given_metadata(team, done)["accuracy"] == 0.1
    assert "nobody signed its metadata accuracy" in done.log


def test_metadata_under_a_policy(team: Team) -> None:
    team.publish(rule("models", "s3://bucket/**", "team", **PROVENANCE))
    team.write(identities=None)
    assert given_metadata(team, team.use(modelled(team), SHOW, parameters=planned())) == SAID


# --- What is left running ---


@pytest.mark.parametrize("start", ["setsid", "setsid nohup", "setsid setsid", "(setsid"])
def test_no_process_of_the_command_outlives_it(team: Team, start: str) -> None:
    end = " &);" if start.startswith("(") else " &"
    swap = f"'while ! grep -q {KEY} {{{{output_file}}}} 2>/dev/null; do :; done; echo SWAPPED > {MODEL}'"
    script = f"echo honest > {MODEL}; {start} sh -c {swap} >/dev/null 2>&1{end} sleep 0.3"
    done = team.launcher.run("train", script, outputs={"model": "system.Model"})
    assert done.status == 0, done.log
    assert team.launcher.key(done.outputs["model"].uri).read_text() == "honest\n"
    assert team.use(done.outputs["model"]).status == 0


def test_a_flood_of_signals_while_outputs_are_signed(team: Team) -> None:
    def flood(process: subprocess.Popen[bytes], pod: Path) -> None:
        sends(signal.SIGTERM, "ready")(process, pod)
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)

    script = f"trap '' TERM; mkdir {MODEL}; for i in $(seq 300); do echo $i > {MODEL}/$i; done; touch ready; sleep 0.2"
    done = team.launcher.run("train", script, outputs={"model": "system.Model"}, interfere=flood)
    assert done.status in (0, 128 + signal.SIGTERM)
    assert bool(done.artifacts_uploaded) is (done.status == 0)
    assert "Traceback" not in done.log
    assert "Exception ignored" not in done.log


def test_a_signal_that_comes_while_an_object_is_cleaned_up_is_not_lost() -> None:
    script = (
        "import os, signal\n"
        "from sealflow_kfp.child import Signals, StoppedError\n"
        "class Thing:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "signals, thing = Signals(), Thing()\n"
        "signals.check()\n"
        "del thing\n"
        "try:\n"
        "    signals.check()\n"
        "except StoppedError as stopped:\n"
        "    print(stopped.number)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{int(signal.SIGTERM)}\n", "")


# --- The page ---


@pytest.mark.parametrize("key", ["customPath", "custom_path", "uri"])
@pytest.mark.parametrize("artifacts", [True, False], ids=["task with artifacts", "task without"])
def test_the_command_does_not_write_the_page(team: Team, key: str, artifacts: bool) -> None:
    place = team.root / "pod" / "minio" / "bucket" / "evil.html"
    item = {key: "minio://bucket/evil.html" if key == "uri" else str(place)}
    script = f"mkdir -p {place.parent}; echo forged > {place}; true" + said(("sealflow_verdict", item))
    outputs = {"sealflow_verdict": "system.HTML"}
    if artifacts:
        script, outputs = f"echo w > {MODEL}; {script}", {**outputs, "model": "system.Model"}
    done = team.launcher.run("train", script, outputs=outputs)
    assert done.status == 0, done.log
    text = team.launcher.key(done.outputs["sealflow_verdict"].uri).read_text()
    assert ("1 outputs signed" if artifacts else "Nothing to check") in text


@pytest.mark.parametrize("artifacts", [True, False], ids=["task with artifacts", "task without"])
def test_the_page_is_not_written_through_a_link(team: Team, artifacts: bool) -> None:
    precious = team.root / "precious"
    precious.write_text("precious")
    script = f"ln -s {precious} $(dirname {{{{output_file}}}})/sealflow_verdict"
    outputs = {"sealflow_verdict": "system.HTML"}
    if artifacts:
        script, outputs = f"echo w > {MODEL}; {script}", {**outputs, "model": "system.Model"}
    done = team.launcher.run("train", script, outputs=outputs)
    assert done.status == 0, done.log
    assert precious.read_text() == "precious"


def test_a_log_that_the_command_names_is_not_taken(team: Team) -> None:
    done = team.launcher.run(
        "train",
        f"echo w > {MODEL}" + said(("executor-logs", {"uri": "minio://b/x"})),
        outputs={"model": "system.Model"},
    )
    assert done.output_file is not None
    assert "executor-logs" not in done.output_file["artifacts"]


# --- Places ---


def test_a_custom_path_that_holds_the_place_of_the_output(team: Team) -> None:
    head, tail = output_of("model").split("PLACE")
    script = f"echo w > {MODEL}; printf %s%s%s '{head}' $(dirname {MODEL}) '{tail}' > {{{{output_file}}}}"
    done = team.launcher.run("train", script, outputs={"model": "system.Model"})
    refused(done)
    assert "overlap" in done.log


def output_of(name: str) -> str:
    return json.dumps({"artifacts": {name: {"artifacts": [{"customPath": "PLACE"}]}}})


def test_a_custom_path_that_is_an_input(team: Team) -> None:
    head, tail = output_of("scores").split("PLACE")
    refused(team.use(team.make(), f"printf %s%s%s '{head}' {INPUT} '{tail}' > {{{{output_file}}}}"))


def test_outputs_that_the_command_puts_into_one_another(sealed: Team) -> None:
    b = "{{$.outputs.artifacts['b'].path}}"
    uri = "{{$.outputs.artifacts['b'].uri}}/f"
    script = f"mkdir {b}; echo b > {b}/f" + said(("a", {"uri": uri}))
    refused(sealed.launcher.run("train", script, outputs={"a": "system.Dataset", "b": "system.Dataset"}))


def test_what_lies_behind_a_link_is_not_removed(team: Team) -> None:
    victim = team.root / "victim"
    (victim / "model").mkdir(parents=True)
    (victim / "model" / "precious").write_text("x")
    script = f"d=$(dirname {MODEL}); rm -rf $d; ln -s {victim} $d; exit 3"
    assert team.launcher.run("train", script, outputs={"model": "system.Model"}).status == 3
    assert (victim / "model" / "precious").exists()


def test_evidence_planted_beside_an_input_changes_nothing(team: Team) -> None:
    def plant(pod: Path) -> None:
        (place,) = (pod / "minio").rglob("model")
        place.with_name("model.evidence").mkdir()

    assert team.use(team.make(), before=plant).status == 0


# --- Names and runs ---


@pytest.mark.parametrize("name", ["train #1", "train#2", "Train the model (new)", "träin", "a*b", "a[b]?"])
def test_a_task_with_an_odd_name(team: Team, name: str) -> None:
    model = team.launcher.run(name, f'echo w > "{MODEL}"', outputs={"model": "system.Model"}).outputs["model"]
    parameters = planned(inputs={"model": (Producer(name, "model"),)})
    script = f'cat "{INPUT}" > {SCORES}'
    assert team.use(model, script, parameters=parameters).status == 0
    other = team.launcher.run("other", f'echo w > "{MODEL}"', outputs={"model": "system.Model"}).outputs["model"]
    refused(team.use(other, script, parameters=parameters))


def test_without_a_plan_an_input_is_of_this_run_all_the_same(team: Team) -> None:
    refused(team.use(team.make(run=OTHER_RUN), CAT))
    done = team.use(team.make(), CAT)
    assert done.status == 0
    assert "No plan says where the inputs come from" in done.log


def several(team: Team, count: int) -> list[Stored]:
    return [team.make(f"echo {number} > {MODEL}") for number in range(count)]


def test_a_list_that_holds_an_artifact_twice(team: Team) -> None:
    first, second = several(team, 2)
    looped = planned(inputs={"model": (Producer("for-loop-1/train", "model"),)})
    for items, status in (([first, second], 0), ([], 0), ([first, first], REFUSED), ([first, second, first], REFUSED)):
        done = team.launcher.run(
            "score",
            f"echo x > {SCORES}",
            inputs={"model": items},
            outputs={"scores": "system.Dataset"},
            parameters=looped,
        )
        assert done.status == status, done.log


def test_an_input_of_a_task_beside_is_not_left_out(team: Team) -> None:
    for inputs in ({}, {"model": []}):
        done = team.launcher.run(
            "score", CAT, inputs=inputs, outputs={"scores": "system.Dataset"}, parameters=planned()
        )
        refused(done)


def test_a_gate_whose_inputs_are_taken_away(team: Team) -> None:
    parameters = planned(outputs=())
    done = team.launcher.run("score", "echo the command ran", inputs={"model": []}, parameters=parameters)
    refused(done)
    done = team.launcher.run("gate", "echo the command ran", inputs={}, parameters=parameters)
    refused(done, MISCONFIGURED)


# --- The interpreter ---


def test_the_working_folder_is_no_place_for_modules(team: Team, tmp_path: Path) -> None:
    folder = tmp_path / "cwd"
    folder.mkdir()
    for name in ("html", "tempfile", "logging", "shutil"):
        (folder / f"{name}.py").write_text("import os; os.write(1, b'PLANTED')\nraise SystemExit(0)\n")
    (folder / "sealflow_kfp").mkdir()
    (folder / "sealflow_kfp" / "__init__.py").write_text("")
    (folder / "sealflow_kfp" / "exec.py").write_text("import os; os.write(1, b'PLANTED')\n")
    done = subprocess.run(
        [sys.executable, "-I", "-m", "sealflow_kfp.exec", "--executor-input", '{"outputs": {}}', "--", "echo", "ran"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "SEALFLOW_MOUNT": str(team.launcher.mount)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr


def test_variables_of_the_interpreter_are_the_commands(team: Team) -> None:
    team.launcher.environment = {"PYTHONSTARTUP": "/mine.py"}
    assert team.launcher.run("train", 'test "$PYTHONSTARTUP" = /mine.py').status == 0


def test_a_status_like_ours_can_be_told_from_ours(team: Team) -> None:
    done = team.launcher.run("train", f"echo w > {MODEL}; exit 97", outputs={"model": "system.Model"})
    assert done.status == 97
    assert done.termination == "The command itself ended with status 97; nothing is signed."
