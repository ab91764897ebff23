"""`make demo`: one story in both orchestrators, a model that travels encrypted; then a byte changes, in it and in data.

Everything lies below ``.demo/`` and stays there to be looked at. Nothing here is mocked: Airflow's own command runs the
DAGs, KFP's local runner runs the pipelines, git and DVC track the data.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.table import Column, Table

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent
ROOT = Path(os.environ.get("SEALFLOW_DEMO_DIR") or EXAMPLES.parent / ".demo").resolve()
PROJECT = ROOT / "project"
KEYS = ROOT / "keys"
EVIDENCE = ROOT / "evidence"
LOG = ROOT / "audit-log"
EDITED = ROOT / "edited-log"
LOGS = ROOT / "logs"
BIN = Path(sys.executable).parent

console = Console(highlight=False, soft_wrap=True)


class UnexpectedError(Exception):
    """A step went otherwise than it should."""


@dataclass(frozen=True)
class Made:
    """What one orchestrator made."""

    where: str
    accuracy: float
    model: dict[str, Any]
    data: dict[str, Any]
    verdict: dict[str, Any]


def main() -> int:
    """Tell the story; 0 only if every step, refusals included, went as it should."""
    start = time.monotonic()
    try:
        story()
    except UnexpectedError as error:
        console.print(f"\n[bold red]The demo failed:[/] {error}", markup=True)
        console.print(f"Logs: {LOGS}")
        return 1
    console.print(f"\nAll as it should be, in {time.monotonic() - start:.0f} s. Look around in {ROOT}")
    return 0


def story() -> None:
    """Run all steps."""
    if ROOT.exists():
        shutil.rmtree(ROOT)
    for folder in (PROJECT, KEYS, LOGS, ROOT / "models", ROOT / "mount"):
        folder.mkdir(parents=True)

    headline("1", "Digits as files, tracked by DVC in a git repository; a key for each orchestrator")
    with ThreadPoolExecutor(2) as both:
        database = both.submit(prepare_airflow)
        images = write_digits()
        track_with_dvc()
        make_keys()
        database.result()
    console.print(f"   {images} images in {PROJECT / 'data' / 'digits'}; keys in {KEYS}")

    headline("2", "Check lineage, train, sign, verify and score: once as an Airflow DAG, once as a KFP pipeline")
    with ThreadPoolExecutor(2) as both:
        dag, pipeline = both.submit(run_dag), both.submit(run_pipeline)
        by_airflow, by_kfp = dag.result(), pipeline.result()
    table = Table(
        "made by",
        Column("model", overflow="fold"),
        "signed by",
        "verdict",
        "accuracy",
        box=None,
        pad_edge=False,
        padding=(0, 2),
    )
    for made in (by_airflow, by_kfp):
        signer = expect_passed(made.verdict, f"the model made by {made.where}")
        place = os.path.relpath(local_path(made.model), ROOT)
        table.add_row(made.where, place, signer, "[green]passed[/]", f"{made.accuracy:.3f}")
    console.print(table)

    headline("3", "Cross over: what one signed, the other verifies and scores")
    with ThreadPoolExecutor(2) as both:
        dag_scores = both.submit(score_in_airflow, by_kfp, "crossed")
        pipeline_scores = both.submit(score_in_kfp, by_airflow, "crossed")
        crossed = {"Airflow": dag_scores.result(), "KFP": pipeline_scores.result()}
    table = Table("scored by", "made by", "signed by", "verdict", "accuracy", box=None, pad_edge=False, padding=(0, 2))
    for where, made, identity in (("Airflow", by_kfp, "kfp"), ("KFP", by_airflow, "airflow")):
        accuracy, verdict = crossed[where]
        signer = expect_passed(verdict, f"the model scored by {where}")
        expect(signer == identity, f"{where} says that {signer} signed, and {identity} did")
        expect(accuracy == made.accuracy, f"{where} scored {accuracy}, {made.where} {made.accuracy}")
        table.add_row(where, made.where, signer, "[green]passed[/]", f"{accuracy:.3f}")
    console.print(table)

    headline("4", "What Airflow made has travelled encrypted; the store holds nothing that can be read")
    words, stored = unreadable(by_airflow)
    console.print(f"   in the store     none of {', '.join(words)} in {stored} files")
    console.print(f"   with the key     [green]passed[/], and there they all are: {open_with_key(by_airflow, words)}")
    console.print(f"   with another     [bold red]refused[/]: {refusal_without_key(by_airflow)}")

    headline("5", "One byte changes in the encrypted model")
    change_one_byte(Path(local_path(by_airflow.model)))
    with ThreadPoolExecutor(2) as both:
        dag_refusal = both.submit(refusal_in_airflow, by_airflow)
        first = both.submit(refusal_in_kfp, by_airflow, "refused-1")
        tries = dag_refusal.result()
        refusals = [first.result(), refusal_in_kfp(by_airflow, "refused-2")]
    console.print(f"   Airflow  [bold red]refused[/] on try {tries[0]} of {tries[1]}: {tries[2]}")
    for number, refusal in enumerate(refusals, 1):
        console.print(f"   KFP      [bold red]refused[/] on attempt {number}: {refusal}")

    headline("6", "An admin's policy, and no DAG changes: only the gate may open what KFP trained")
    sign_policy(by_kfp)
    rule, refusal = score_under_policy(by_kfp)
    console.print(f"   the gate         [green]passed[/] under the rule {rule}")
    console.print(f"   the next task    [bold red]refused[/] on try 1: {refusal}")

    headline("7", "One pixel changes in the data; the file keeps its size and its times")
    pixel = edit_unseen()
    console.print(f"   changed          {pixel.relative_to(PROJECT)}")
    console.print(f"   dvc status       {dvc_status()}")
    with ThreadPoolExecutor(2) as both:
        dag_lineage = both.submit(lineage_refusal_in_airflow, pixel)
        pipeline_lineage = both.submit(lineage_refusal_in_kfp, pixel)
        tries, seen = dag_lineage.result(), pipeline_lineage.result()
    console.print(f"   Airflow's gate   [bold red]refused[/] on try {tries[0]} of {tries[1]}: {tries[2]}")
    console.print(f"   KFP's gate       [bold red]refused[/]: {seen}")

    headline("8", "All of it stands in one log; then, in a copy, somebody makes a refusal a success")
    console.print(f"   recorded         {audit_account()}")
    key, entries = integrate_log()
    console.print(f"   in the log       {entries} signed entries under one signed checkpoint")
    console.print(f"   the review       [green]passed[/]: {review_log(key)}")
    console.print(f"   edited           {edit_log()}")
    console.print(f"   the next reader  [bold red]refused[/]: {refused_log(key)}")

    headline("9", "What is there to check it all without us")
    console.print(f"   evidence   {EVIDENCE}")
    console.print(f"   audit log  {LOG}, for any client of C2SP tlog-tiles, with the key {LOG / 'log.vkey'}")
    model, key = local_path(by_kfp.model), KEYS / "kfp.pem.pub"
    console.print(f"   try        {BIN / 'sealflow'} lineage check {PROJECT}")
    console.print(f"   or         {BIN / 'sealflow'} verify {model} --evidence-store {EVIDENCE} --identity {key}")


# ---------------------------------------------------------------------------------------------------- preparation


def write_digits() -> int:
    """Write scikit-learn's digits as one PGM image a file."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = PROJECT / "data" / "digits" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        rows = "\n".join(" ".join(str(int(value)) for value in row) for row in image)
        (folder / f"{number:04}.pgm").write_text(f"P2\n8 8\n16\n{rows}\n")
    return len(digits.target)


DVC = [sys.executable, "-m", "dvc"]


def dvc_env() -> dict[str, str]:
    """Return the environment of git and DVC: nothing of the user's own settings."""
    return {
        "DVC_NO_ANALYTICS": "true",
        "DVC_SITE_CACHE_DIR": str(ROOT / "dvc"),
        **{
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "demo"), ("EMAIL", "demo@example.org"))
        },
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


def track_with_dvc() -> None:
    """Make the repository: DVC tracks the images, git tracks what DVC says of them."""
    env = dvc_env()
    run(["git", "init", "--quiet", "--initial-branch=main"], "git", cwd=PROJECT, env=env)
    run([*DVC, "init", "--quiet"], "dvc-init", cwd=PROJECT, env=env)
    run([*DVC, "add", "--quiet", "data/digits"], "dvc-add", cwd=PROJECT, env=env)
    run(["git", "add", "--all"], "git", cwd=PROJECT, env=env)
    run(["git", "commit", "--quiet", "--message", "Track the digits"], "git", cwd=PROJECT, env=env)


def edit_unseen() -> Path:
    """Change one pixel of one image and put the file's times back."""
    path = min((PROJECT / "data" / "digits" / "0").iterdir())
    before = path.stat()
    head, _, pixels = path.read_text().rpartition("16\n")
    # A digit for a digit, so that the size stays.
    at = next(index for index, character in enumerate(pixels) if character in "0123456789")
    path.write_text(f"{head}16\n{pixels[:at]}{(int(pixels[at]) + 1) % 10}{pixels[at + 1 :]}")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path


def dvc_status() -> str:
    """Return what DVC says of the repository."""
    run([*DVC, "status"], "dvc-status", cwd=PROJECT, env=dvc_env())
    return (LOGS / "dvc-status.log").read_text(errors="replace").strip().splitlines()[-1]


def make_keys() -> None:
    """Make a signing key for each orchestrator, a key to open with, and the settings in which each trusts both."""
    for name in ("team.key", "other.key"):
        write_private(KEYS / name, secrets.token_bytes(32))
    for who in ("airflow", "kfp"):
        run([str(BIN / "sealflow"), "keys", "generate", str(KEYS / f"{who}.pem")], "keys")
    # Each key may speak for its own orchestrator's tasks only.
    identities = {
        who: {"key": str(KEYS / f"{who}.pem.pub"), "producers": [f"{who}:digits/*"]} for who in ("airflow", "kfp")
    }
    common = {"identities": identities, "evidence_store": str(EVIDENCE), "recipients": [f"aes:{KEYS / 'team.key'}"]}
    (ROOT / "connection.json").write_text(
        json.dumps({"conn_type": "sealflow", "extra": {"signer": f"file:{KEYS / 'airflow.pem'}", **common}})
    )
    (ROOT / "mount" / "sealflow.json").write_text(
        json.dumps({"signer": f"file:{KEYS / 'kfp.pem'}", "audit_spool": str(ROOT / "audit"), **common})
    )


def write_private(path: Path, data: bytes) -> None:
    """Write a file that nobody else can read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


# ------------------------------------------------------------------------------------------------------ encrypted


def unreadable(made: Made) -> tuple[list[str], int]:
    """Look for what such a model holds in all that is stored of it; returns the words, and the number of files."""
    words = ["digits.joblib", "sklearn", "LogisticRegression"]
    places = [Path(local_path(made.model)), *(path for path in EVIDENCE.rglob("*") if path.is_file())]
    for path in places:
        seen = [word for word in words if word.encode() in path.read_bytes()]
        expect(not seen, f"{', '.join(seen)} can be read in {path}")
    return words, len(places)


def open_with_key(made: Made, words: list[str]) -> Path:
    """List and fetch the model with the key; what was looked for must be there, else looking for it showed nothing."""
    listed = [str(BIN / "sealflow"), "ls", json.dumps(made.model), *with_key("team.key")]
    run(listed, "ls", env={"SEALFLOW_AUDIT_SPOOL": str(ROOT / "audit")})
    folder = ROOT / "opened"
    folder.mkdir()
    expect(fetch(made, folder / "digits.joblib", "team.key") == 0, "the model did not open with the key")
    content = (LOGS / "ls.log").read_bytes() + (folder / "digits.joblib").read_bytes()
    expect(all(word.encode() in content for word in words), "the model is another one")
    return (folder / "digits.joblib").relative_to(ROOT)


def refusal_without_key(made: Made) -> str:
    """Fetch the model with a key that is not the right one; returns the finding."""
    there = ROOT / "opened" / "with-another-key"
    expect(fetch(made, there, "other.key") != 0 and not there.exists(), "the model opened with another key")
    return logged("fetch-other.key", "RECIPIENT_MISSING")


def fetch(made: Made, destination: Path, key: str) -> int:
    """Fetch a model by the command line; returns its exit status."""
    command = [str(BIN / "sealflow"), "download", json.dumps(made.model), str(destination)]
    env = {"SEALFLOW_AUDIT_SPOOL": str(ROOT / "audit")}
    return run([*command, *with_key(key)], f"fetch-{key}", env=env, check=False)


def with_key(key: str) -> list[str]:
    """Return the options that name a key to open with, and who may have signed."""
    return ["--recipient", f"aes:{KEYS / key}", "--identity", str(KEYS / "airflow.pem.pub")]


# -------------------------------------------------------------------------------------------------------- Airflow


def airflow_env() -> dict[str, str]:
    """Return the environment of a small Airflow of its own: SQLite, our examples, one connection."""
    connection = ROOT / "connection.json"
    return {
        "AIRFLOW_HOME": str(ROOT / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__SEALFLOW__AUDIT_SPOOL": str(ROOT / "audit"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_SEALFLOW_DEFAULT": connection.read_text() if connection.exists() else "",
    }


def prepare_airflow() -> None:
    """Make the database."""
    run([sys.executable, "-m", "airflow", "db", "migrate"], "airflow-db", env=airflow_env())


def let_airflow_run(dag: str, conf: dict[str, Any], label: str, env: dict[str, str] | None = None) -> bool:
    """Let Airflow run a DAG; tells whether it succeeded."""
    command = [sys.executable, "-m", "airflow", "dags", "test", dag, "--conf", json.dumps(conf)]
    return run(command, f"airflow-{label}", env={**airflow_env(), **(env or {})}, check=False) == 0


def last_states(dag: str) -> list[tuple[Any, ...]]:
    """Return id, state, try and most retries of the tasks of a DAG's latest run."""
    return from_airflow(
        "select t.task_id, t.state, t.try_number, t.max_tries from task_instance t join dag_run r "
        "on r.dag_id = t.dag_id and r.run_id = t.run_id where t.dag_id = ? "
        "and r.id = (select max(id) from dag_run where dag_id = t.dag_id)",
        dag,
    )


def from_airflow(query: str, *values: str) -> list[tuple[Any, ...]]:
    """Ask Airflow's database, read-only."""
    database = sqlite3.connect(f"file:{ROOT / 'airflow' / 'airflow.db'}?mode=ro", uri=True)
    try:
        return database.execute(query, values).fetchall()
    finally:
        database.close()


def xcom(dag: str, task: str, key: str = "return_value") -> Any:
    """Return the latest value that a task pushed."""
    found = from_airflow(
        "select x.value from xcom x join dag_run r on r.id = x.dag_run_id "
        "where x.dag_id = ? and x.task_id = ? and x.key = ? order by r.id desc limit 1",
        dag, task, key,
    )  # fmt: skip
    expect(bool(found), f"the task {dag}.{task} pushed no {key}")
    value = found[0][0]
    # The column holds JSON text inside of JSON, depending on the database's own JSON type.
    for _ in range(2):
        value = json.loads(value) if isinstance(value, str) else value
    return value


def digits_conf(model: str) -> dict[str, Any]:
    """Return what the DAG `digits` takes."""
    return {"repository": str(PROJECT), "model": str(ROOT / "models" / f"{model}.enc")}


def run_dag() -> Made:
    """Run the DAG `digits`."""
    expect(let_airflow_run("digits", digits_conf("digits"), "digits"), "the DAG digits failed")
    expect_passed(xcom("digits", "check_lineage", "verdict"), "the repository")
    return Made(
        "Airflow",
        xcom("digits", "score"),
        xcom("digits", "train"),
        xcom("digits", "sign_data"),
        xcom("digits", "verify_model", "verdict"),
    )


def score_in_airflow(made: Made, label: str) -> tuple[float, dict[str, Any]]:
    """Run the DAG `digits_score` over what somebody else made."""
    succeeded = let_airflow_run("digits_score", {"model": made.model, "data": made.data}, label)
    expect(succeeded, "the DAG digits_score failed")
    return xcom("digits_score", "score"), xcom("digits_score", "verify_model", "verdict")


def refusal_in_airflow(made: Made) -> tuple[int, int, str]:
    """Run `digits_score` over the changed model; returns the try that refused, the tries allowed, and the finding."""
    succeeded = let_airflow_run("digits_score", {"model": made.model, "data": made.data}, "refused")
    expect(not succeeded, "Airflow took the changed model")
    states = {task: (state, number, most) for task, state, number, most in last_states("digits_score")}
    state, number, most = states["verify_model"]
    expect(state == "failed" and number == 1 and most == 2, f"the verifying task is {state} after try {number}")
    expect(states["score"][0] == "upstream_failed", f"the scoring task is {states['score'][0]}")
    return number, most + 1, refused_finding(xcom("digits_score", "verify_model", "verdict"))


def lineage_refusal_in_airflow(changed: Path) -> tuple[int, int, str]:
    """Run `digits` over the changed data; returns the try that refused, the tries allowed, and the finding."""
    succeeded = let_airflow_run("digits", digits_conf("tampered"), "lineage")
    expect(not succeeded, "Airflow trained on the changed data")
    states = {task: (state, number, most) for task, state, number, most in last_states("digits")}
    state, number, most = states["check_lineage"]
    expect(state == "failed" and number == 1, f"the gate is {state} after try {number}")
    expect(states["train"][0] == "upstream_failed", f"the training task is {states['train'][0]}")
    expect(not (ROOT / "models" / "tampered.enc").exists(), "there is a model of the changed data")
    return number, most + 1, refused_data(xcom("digits", "check_lineage", "verdict"), changed)


def sign_policy(made: Made) -> None:
    """Write, check and sign a policy with a key of the admin's."""
    folder = ROOT / "policy"
    folder.mkdir()
    body = {
        "apiVersion": "sealflow/v1",
        "version": 1,
        "expires": time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() + 365 * 86400)),
        "identities": {"kfp-train": {"key": str(KEYS / "kfp.pem.pub"), "producers": ["kfp:digits/train"]}},
        "rules": [
            {
                "name": "models-by-kfp",
                "scope": {"artifact": [local_path(made.model)]},
                "require": {
                    "identities": {"any_of": ["kfp-train"]},
                    "producers": ["kfp:digits/train"],
                    "loaders": ["airflow:digits_score/verify_model"],
                },
            }
        ],
    }
    draft = folder / "policy.draft.json"
    draft.write_text(json.dumps(body, indent=1))
    sealflow = str(BIN / "sealflow")
    run([sealflow, "keys", "generate", str(folder / "admin.pem")], "policy")
    signer, signed = f"file:{folder / 'admin.pem'}", str(folder / "policy.json")
    run([sealflow, "policy", "sign", str(draft), "--signer", signer, "--output", signed], "policy")


def score_under_policy(made: Made) -> tuple[str, str]:
    """Run the DAG `digits_score` as it is; returns the rule under which its gate passed, and the next refusal."""
    env = {
        "AIRFLOW__SEALFLOW__POLICY": str(ROOT / "policy" / "policy.json"),
        "AIRFLOW__SEALFLOW__POLICY_KEYS": str(ROOT / "policy" / "admin.pem.pub"),
    }
    succeeded = let_airflow_run("digits_score", {"model": made.model, "data": made.data}, "policy", env)
    expect(not succeeded, "a task opened what the policy keeps from it")
    verdict = xcom("digits_score", "verify_model", "verdict")
    expect_passed(verdict, "the model under the policy")
    states = {task: (state, number) for task, state, number, _ in last_states("digits_score")}
    expect(states["score"] == ("failed", 1), f"the scoring task is {states['score']}")
    return ", ".join(verdict["rules"]), logged("airflow-policy", "LOADER_NOT_ALLOWED")


# ------------------------------------------------------------------------------------------------------------ KFP


def pipeline(name: str, parameters: dict[str, Any], label: str) -> dict[str, Any] | None:
    """Run a pipeline on KFP's local runner; returns its outputs, ``None`` when it failed."""
    outputs = ROOT / "kfp" / label / "outputs.json"
    outputs.parent.mkdir(parents=True)
    command = [sys.executable, str(EXAMPLES / "kubeflow" / "digits.py"), name, json.dumps(parameters), str(outputs)]
    status = run(command, f"kfp-{label}", env={"SEALFLOW_MOUNT": str(ROOT / "mount")}, check=False)
    return json.loads(outputs.read_text()) if status == 0 else None


def digits_parameters() -> dict[str, Any]:
    """Return what the pipeline `digits` takes."""
    return {"repository": str(PROJECT), "data": str(PROJECT / "data" / "digits")}


def run_pipeline() -> Made:
    """Run the pipeline `digits`."""
    made = pipeline("digits", digits_parameters(), "digits")
    if made is None:
        raise UnexpectedError("the pipeline digits failed")
    return Made("KFP", made["accuracy"], *(json.loads(made[key]) for key in ("model", "data", "verdict")))


def score_parameters(made: Made) -> dict[str, Any]:
    """Return what the pipeline `digits_score` takes."""
    return {"model_uri": local_path(made.model), "model": json.dumps(made.model), "data": json.dumps(made.data)}


def score_in_kfp(made: Made, label: str) -> tuple[float, dict[str, Any]]:
    """Run the pipeline `digits_score` over what somebody else made."""
    scored = pipeline("digits_score", score_parameters(made), label)
    if scored is None:
        raise UnexpectedError("the pipeline digits_score failed")
    return scored["accuracy"], json.loads(scored["verdict"])


def refusal_in_kfp(made: Made, label: str) -> str:
    """Run `digits_score` over the changed model; returns the finding."""
    expect(pipeline("digits_score", score_parameters(made), label) is None, "KFP took the changed model")
    return logged(f"kfp-{label}", "MESSAGE_ALTERED")


def lineage_refusal_in_kfp(changed: Path) -> str:
    """Run `digits` over the changed data; returns the finding."""
    expect(pipeline("digits", digits_parameters(), "lineage") is None, "KFP trained on the changed data")
    expect(not list((ROOT / "kfp" / "lineage").glob("*/train")), "the training task ran")
    (path,) = (ROOT / "kfp" / "lineage").glob("*/check-dvc-lineage/verdict")
    return refused_data(json.loads(path.read_text()), changed)


# ------------------------------------------------------------------------------------------------------- telling


def run(
    command: Sequence[str],
    label: str,
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> int:
    """Run a command with its output in a log; returns its exit status."""
    settings = {key: value for key, value in os.environ.items() if not key.startswith(("SEALFLOW_", "AIRFLOW", "AWS_"))}
    # Also where the environment was not activated: DVC and Airflow start programs of their own.
    settings["PATH"] = f"{BIN}{os.pathsep}{settings.get('PATH', '')}"
    with open(LOGS / f"{label}.log", "ab") as log:
        status = subprocess.run(
            command,
            env={**settings, **(env or {})},
            cwd=cwd or ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        ).returncode
    if check and status:
        raise UnexpectedError(f"`{' '.join(command[:4])} …` ended with {status}; see {LOGS / label}.log")
    return status


def expect(holds: bool, otherwise: str) -> None:
    """Stop the story when something is not as it should be."""
    if not holds:
        raise UnexpectedError(otherwise)


def expect_passed(verdict: dict[str, Any], what: str) -> str:
    """Return who signed; the verdict must be `passed`."""
    expect(verdict["status"] == "passed", f"the verdict over {what} is {verdict['status']}")
    return ", ".join(sorted({signer["identity"] for signer in verdict["signers"]}))


def refused_data(verdict: dict[str, Any], changed: Path) -> str:
    """Return the finding about the changed file as one line; it must be the only file."""
    expect(verdict["status"] == "failed", f"the verdict over the changed data is {verdict['status']}")
    found = {item["subject"]: item for item in verdict["findings"] if item["code"] == "DATA_MISMATCH"}
    named = str(changed.relative_to(PROJECT))
    expect(set(found) == {"data/digits", named}, f"refused are {', '.join(found)}")
    return f"DATA_MISMATCH {named}: {found[named]['message']}"


def refused_finding(verdict: dict[str, Any]) -> str:
    """Return the deciding finding as one line; it must be that bytes of the encrypted model changed."""
    expect(verdict["status"] == "failed", f"the verdict over the changed model is {verdict['status']}")
    first = verdict["findings"][0]
    expect(first["code"] == "MESSAGE_ALTERED", f"the first finding is {first['code']}")
    return f"{first['code']} {first['subject']}: {first['message']}"


def logged(label: str, code: str) -> str:
    """Return a finding with this code from a log."""
    log = (LOGS / f"{label}.log").read_text(errors="replace")
    finding = next((line for line in log.splitlines() if code in line), "")
    expect(bool(finding), f"the task failed, and not for {code}; see {LOGS / label}.log")
    return finding[finding.rindex(code) :].partition(" Next: ")[0]


def change_one_byte(path: Path) -> None:
    """Flip one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def local_path(ref: dict[str, Any]) -> str:
    """Return the path in a reference."""
    return unquote(urlsplit(ref["uri"]).path)


def audit_account() -> str:
    """Count the audit events; each intent must have its outcome."""
    lines = [line for path in (ROOT / "audit").glob("*.entries") for line in path.read_text().splitlines()]
    # An entry is format, writer, number, hash of the one before, event, signature.
    events = [json.loads(line.split(" ", 4)[4].rpartition(" ")[0]) for line in lines]
    intents = {event["correlation"] for event in events if event["phase"] == "intent"}
    outcomes = [event for event in events if event["phase"] == "outcome"]
    expect(intents == {event["correlation"] for event in outcomes}, "an audit intent has no outcome")
    refused = sum(event["outcome"] == "failed" for event in outcomes)
    return f"{len(outcomes)} actions, {refused} of them refused"


# ------------------------------------------------------------------------------------------------------ audit log


def sealflow_json(*arguments: str, label: str, check: bool = True) -> dict[str, Any]:
    """Run our command with --json and return what it prints."""
    # What checks the log is recorded elsewhere: it must not grow while it is looked at.
    env = {"SEALFLOW_AUDIT_SPOOL": str(ROOT / "audit-of-reviews"), "XDG_STATE_HOME": str(ROOT / "state")}
    command = [str(BIN / "sealflow"), *arguments, "--json"]
    run(command, label, env=env, check=check)
    body: dict[str, Any] = json.loads((LOGS / f"{label}.log").read_bytes())
    return body


def integrate_log() -> tuple[str, int]:
    """Bring what both orchestrators recorded into one log; returns its verifier key and its size."""
    signer, inbox = KEYS / "log.pem", f"sqlite:{ROOT / 'inbox.db'}"
    run([str(BIN / "sealflow"), "keys", "generate", "--algorithm", "ed25519", str(signer)], "keys-log")
    sealflow_json("audit", "ship", "--spool", str(ROOT / "audit"), "--inbox", inbox, label="ship")
    options = ["--inbox", inbox, "--log", str(LOG), "--signer", f"file:{signer}", "--origin", "demo.example/audit"]
    done = sealflow_json("audit", "integrate", *options, label="integrate")
    (LOG / "log.vkey").write_text(done["log_key"] + "\n")
    return done["log_key"], done["size"]


def review_log(key: str) -> str:
    """Ask who touched what; the log must be whole, and know of the refusals in both orchestrators."""
    report = sealflow_json("audit", "review", "--log", str(LOG), "--key", key, label="review")
    expect(report["status"] == "passed", f"the review is {report['status']}")
    refused = {item["principal"] for item in report["principals"] if item["refused"]}
    for who in ("airflow:digits", "kfp:digits"):
        expect(any(name.startswith(who) for name in refused), f"the log knows of no refusal in {who}")
    return f"{len(report['principals'])} principals, {len(refused)} of them refused something"


def edit_log() -> str:
    """Let the first refusal in a copy have passed, as the log's keeper could; returns the name of the object."""
    shutil.copytree(LOG, EDITED)
    for path in sorted((EDITED / "tile" / "entries").rglob("*")):
        if path.is_file() and b'"outcome":"failed"' in (data := path.read_bytes()):
            path.chmod(0o644)
            path.write_bytes(data.replace(b'"outcome":"failed"', b'"outcome":"passed"', 1))
            return str(path.relative_to(ROOT))
    raise UnexpectedError("the log knows of no refusal")


def refused_log(key: str) -> str:
    """Verify the edited copy; returns the finding, by which it must be refused."""
    body = sealflow_json("audit", "verify", "--log", str(EDITED), "--key", key, label="verify-log", check=False)
    verdict = body["verdict"]
    expect(verdict["status"] == "failed", f"the edited log is {verdict['status']}")
    first = verdict["findings"][0]
    expect(first["code"] == "LOG_ALTERED", f"the first finding is {first['code']}")
    return f"{first['code']} {first['subject']}: {first['message']}"


def headline(number: str, text: str) -> None:
    """Print the start of a step."""
    console.print(f"\n[bold]{number}  {text}[/]")


if __name__ == "__main__":
    sys.exit(main())
