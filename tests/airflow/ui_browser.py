"""The pages behind a real server, and a real browser before it. ``tests.screenshots`` takes pictures of them."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import html
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sealflow.audit.event import AuditEvent
from tests.airflow.ui_world import Log, Users, database, store_dags, told
from tests.e2e.admin import Admin, rule
from tests.pki import DAY, NOW, write_key

#: Debian package of the browser.
PACKAGE = "chromium"
#: Below what a proxy shows Airflow, as `[api] base_url` says.
BEHIND = "/behind/proxy"


#: What is looked at.
PAGES = {
    "trust": "trust",
    "verdicts": "verdicts?artifact=models",
    "dags": "dags",
    "evidence": "evidence?dag_id=churn_train&run_id=scheduled__2026-11-23T02%3A00%3A00%2B00%3A00",
    "refused": "evidence?dag_id=churn_score&run_id=manual__2026-11-23T03%3A10%3A00%2B00%3A00&task_id=load_model",
}
_TRAIN, _SCORE = "scheduled__2026-11-23T02:00:00+00:00", "manual__2026-11-23T03:10:00+00:00"


@contextlib.contextmanager
def deployment(folder: Path) -> Iterator[None]:
    """An Airflow with some DAGs, a policy, keys that end soon, a waiver, a revocation, and a night's verdicts."""
    from airflow.api_fastapi.app import _AuthManagerState

    from sealflow.actions.policy_sign import make_waiver
    from sealflow.actions.revocation_list import sign_list
    from sealflow.policy.revocations import parse_revocations
    from sealflow.policy.source import forget

    log = Log(folder)
    keys = {name: write_key(folder, name) for name in ("trainer", "lake", "old-trainer", "auditor")}
    marks = {name: _mark(key.public) for name, key in keys.items()}
    log.tell(*night(marks))
    admin = Admin(folder / "admin")
    ends = {"trainer": 200, "lake": 5, "old-trainer": -3}
    identities = {
        name: {"key": keys[name], "expires": (NOW + days * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")}
        for name, days in ends.items()
    }
    identities["auditor"] = {"key": keys["auditor"], "verifier": True}
    admin.publish(
        [
            rule("models", "s3://models/**", "trainer"),
            rule("data", "s3://lake/**", "lake"),
            rule("reports", "s3://reports/**", "trainer", level="audit"),
        ],
        identities,
        version=12,
        expires=(NOW + 20 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    make_waiver(
        rules=["data"], artifacts=["s3://lake/2019/**"], reason="Signed before there were keys; DATA-41.", hours=72,
        signer=admin.key.signer, policy=str(admin.policy),
    )  # fmt: skip
    since = (NOW - 3 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
    revoked = {"key": marks["old-trainer"], "since": since, "reason": "Laptop stolen.", "id": "INC-7"}
    body = {"apiVersion": "sealflow/v1", "kind": "Revocations", "version": 3, "revocations": [revoked]}
    body["expires"] = (NOW + 7 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
    place = str(folder / "admin" / "revocations.json")
    sign_list(parse_revocations(json.dumps(body).encode()), signer=admin.key.signer, output=place)
    channel = replace(admin.channel(revocations=place), where="[sealflow] in Airflow's configuration")
    forget()
    with database(folder / "airflow.db"), pytest.MonkeyPatch.context() as patch:
        store_dags(
            {
                "churn_train": ["s3://models/churn", "s3://reports/churn"],
                "churn_score": ["s3://models/scores"],
                "lake_prepare": ["s3://lake/customers"],
                "weekly_report": ["s3://reports/week"],
                "event_driven": ["s3://models/events"],
                "housekeeping": [],
            },
            triggered=["event_driven"],
        )
        patch.setenv("AIRFLOW__SEALFLOW__AUDIT_LOG", log.store.uri)
        patch.setenv("AIRFLOW__SEALFLOW__AUDIT_LOG_KEY", str(log.key_file))
        patch.setenv("AIRFLOW__SEALFLOW__PAGES_STATE", str(folder / "pages"))
        patch.setattr("sealflow_airflow.policy.channel", lambda: channel)
        patch.setattr(_AuthManagerState, "instance", Users({"admin": ["*"]}))
        # On a busy machine the first answer of each kind takes longer than a reader would wait.
        patch.setattr("sealflow_airflow.ui.aged.PATIENCE", 60.0)
        patch.setattr("sealflow_airflow.ui.follow.FIRST_WAIT", 60.0)
        yield


def _mark(path: Path) -> str:
    from sealflow.keys import load_public_key

    return f"sha256:{load_public_key(str(path)).hint}"


def night(marks: Mapping[str, str]) -> list[AuditEvent]:
    """What happened, the first thing first; the last ten minutes ago."""
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("raw", "clean", "model", "report", "other")}
    clean, model, report, raw, other = (
        f"sha256:{digests[name]}" for name in ("clean", "model", "report", "raw", "other")
    )
    lake, trainer = marks["lake"], marks["trainer"]
    prepare = {"dag": "lake_prepare", "task": "clean", "run": _TRAIN}
    train = {"dag": "churn_train", "task": "fit", "run": _TRAIN}
    score = {"dag": "churn_score", "task": "load_model", "run": _SCORE}
    raw_place, place = "s3://lake/raw/customers.parquet", "s3://models/churn/v7"
    made = [
        told(**prepare, artifact=raw_place, digest=raw, producer="cli", signers=(lake,), rule="data"),
        told("sign", "done", **prepare, artifact="s3://lake/customers", digest=clean, key=lake, rule="data"),
        told(
            **train, artifact="s3://lake/customers", digest=clean, producer="airflow:lake_prepare/clean",
            signers=(lake,), rule="data",
        ),
        told("sign", "done", **train, artifact=place, digest=model, key=trainer, rule="models"),
        told("sign", "done", **train, artifact="s3://reports/churn", digest=report, key=trainer, rule="reports"),
        told("gate", "passed", **train, artifact=place, digest=model, rule="models"),
        told(
            **score, artifact=place, digest=model, producer="airflow:churn_train/fit", signers=(trainer,),
            rule="models",
        ),
        told(
            outcome="failed", **score, artifact="s3://models/churn/v8", digest=other, rule="models",
            codes=("KEY_REVOKED", "SIGNERS_TOO_FEW"),
        ),
        told(outcome="unverifiable", **{**score, "task": "load_customers"}, artifact="s3://lake/customers",
             codes=("BACKEND_UNAVAILABLE",)),
        told("verify", orchestrator="kfp", dag="churn-pipeline", task="evaluate", run="run-8c1f", artifact=place,
             digest=model, producer="airflow:churn_train/fit", signers=(trainer,)),
    ]  # fmt: skip
    start = NOW - datetime.timedelta(minutes=10 * len(made))
    moments = [start + datetime.timedelta(minutes=10 * number) for number in range(len(made))]
    return [
        replace(event, time=moment.isoformat(timespec="microseconds"))
        for event, moment in zip(made, moments, strict=True)
    ]


#: Shows a page as Airflow's UI does, with the theme that a user has chosen there, and writes down what it looks like.
_FRAME = """<!DOCTYPE html><html style="color-scheme: dark"><body>
<iframe id="page" src="PAGE" style="width: 400px; height: 900px; border: 0"
  sandbox="allow-scripts allow-same-origin allow-forms allow-downloads"></iframe><pre id="found"></pre><script>
document.getElementById("page").onload = () => {
  const view = document.getElementById("page").contentWindow, page = view.document;
  page.querySelectorAll("details").forEach((item) => { item.open = true; });
  const reached = [...page.querySelectorAll("a, button, input, select, summary, [tabindex='0']")];
  const unseen = reached.filter((item) => { item.focus(); return page.activeElement !== item
    || !item.getClientRects().length || view.getComputedStyle(item).outlineStyle === "none"; });
  document.getElementById("found").textContent = JSON.stringify({
    width: page.documentElement.scrollWidth, reached: reached.length, unseen: unseen.map((item) => item.outerHTML),
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches, scripts: page.scripts.length });
};
</script></body></html>"""


@contextlib.contextmanager
def served(app: Any, user: str) -> Iterator[str]:
    """Serve an application below a proxy's prefix, for a user who is signed in; yields the address of the pages."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse
    from starlette.routing import Mount, Route

    async def signed_in(scope: Any, receive: Any, send: Any) -> None:
        headers = [*scope["headers"], (b"authorization", f"Bearer {user}".encode())]
        await app({**scope, "headers": headers}, receive, send)

    async def framed(request: Any) -> Any:
        return HTMLResponse(_FRAME.replace("PAGE", html.escape(f"{BEHIND}/sealflow/{request.url.query}")))

    site = Starlette(routes=[Route(f"{BEHIND}/frame", framed), Mount(f"{BEHIND}/sealflow", app=signed_in)])
    server = uvicorn.Server(uvicorn.Config(site, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}{BEHIND}/sealflow"
    finally:
        server.should_exit = True
        thread.join(10)


@dataclass(frozen=True)
class Look:
    """How somebody looks at a page."""

    width: int = 1280
    height: int = 1600
    dark: bool = False


def browse(address: str, look: Look, picture: Path | None = None, patience: int = 0) -> tuple[str, str]:
    """Open a page in a browser of its own; return its document as the browser has it, and what the console says.

    Args:
        address: The page.
        look: How it is looked at.
        picture: Where a picture of it is wanted, instead of the document.
        patience: How many seconds a page that needs scripts has to become what it is.
    """
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                f"--blink-settings=preferredColorScheme={0 if look.dark else 1}",
                f"--user-data-dir={profile}",
                f"--window-size={look.width},{look.height}",
                *([f"--virtual-time-budget={patience * 1000}"] if patience else []),
                f"--screenshot={picture}" if picture is not None else "--dump-dom",
                address,
            ],
            env={"PATH": os.environ["PATH"], "HOME": profile, "LANG": "C.UTF-8"},
            capture_output=True,
            timeout=120,
            text=True,
            errors="replace",
        )
    assert done.returncode == 0, done.stderr[-2000:]
    # The second is about the frame that Airflow itself makes.
    console = [
        line for line in done.stderr.splitlines() if "CONSOLE" in line and "for its sandbox attribute" not in line
    ]
    return done.stdout, "\n".join(console)
