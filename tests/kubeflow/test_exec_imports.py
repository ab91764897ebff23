"""What the wrapper loads: every task pays for it before its own command begins."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sealflow.audit.event import utc_now
from sealflow.keys import load_signer
from sealflow.policy.delivery import time_text
from sealflow.policy.signed import POLICY_TYPE, REVOCATIONS_TYPE, WAIVER_TYPE, make_signed
from tests.e2e.admin import Admin, rule
from tests.kubeflow.test_exec import PROVENANCE, Team, team
from tests.pki import write_key

__all__ = ["team"]  # a fixture

_WRAPPED = """
import json, sys
found, body, admin = sys.argv[1:]
if admin:
    from sealflow.policy import source
    source.MACHINE_FILE, source.ENVIRONMENT_FILE = admin + ".none", admin
before = set(sys.modules)
from sealflow_kfp.exec import main
sys.argv = ["exec", "--executor-input", body, "--", "true"]
status = main()
ours = [vars(module) for name, module in sys.modules.items() if name.startswith("sealflow")]
made = {item for module in ours for item in module.values() if isinstance(item, type)}
made = {item for item in made if "__dataclass_params__" in vars(item) and item.__module__.startswith("sealflow")}
loaded = {"modules": sorted(set(sys.modules) - before), "dataclasses": sorted(item.__qualname__ for item in made)}
with open(found, "w") as file:
    json.dump(loaded, file)
sys.exit(status)
"""

_PLUGIN = """
class Plugin:
    def new_schema_validator(self, *_, **__):
        return None, None, None

plugin = Plugin()
"""

#: Slow to load, and of no use where artifacts are plain files and nothing goes wrong.
NEEDLESS = {"boto3", "botocore", "fsspec", "google", "kfp", "logging", "rich", "traceback", "typer", "yaml"}
#: Our own that are for others: encrypted artifacts, lineage and long walks.
FOR_OTHERS = ("encryption", "transfer", "lineage", "actions.upload", "actions.encrypted", "evidence.own_provenance")


class Loaded:
    """What one wrapped task loaded, with an input and an output that are plain files.

    Args:
        team: Whose key signs.
        admin: The admin's file, if there is one.
        path: Another folder from which Python loads.
        refused: What the task says where it must be refused.
    """

    def __init__(self, team: Team, admin: str = "", path: str = "", refused: str = "") -> None:
        self._team, self._admin = team, admin
        self._run = team.root / "p-2026-11-22-07-15-23-240111"
        self._path, self._refused = path, refused
        said = self._task("train", [])
        if not refused:
            output = json.loads((self._run / "train" / "executor_output.json").read_text())
            said = self._task("score", output["artifacts"]["artifact"]["artifacts"])
        self.modules: set[str] = set(said["modules"])
        self.dataclasses: list[str] = said["dataclasses"]

    def _task(self, name: str, given: list[dict[str, Any]]) -> dict[str, Any]:
        place = self._run / name / "artifact"
        place.parent.mkdir(parents=True)
        place.write_text(name)
        body = {
            "inputs": {"artifacts": {"given": {"artifacts": given}}} if given else {},
            "outputs": {
                "artifacts": {"artifact": {"artifacts": [{"name": "artifact", "uri": str(place)}]}},
                "outputFile": str(place.with_name("executor_output.json")),
            },
        }
        found = self._team.root / "loaded.json"
        done = subprocess.run(
            [sys.executable, "-c", _WRAPPED, str(found), json.dumps(body), self._admin],
            env={**os.environ, "SEALFLOW_MOUNT": str(self._team.launcher.mount), "PYTHONPATH": self._pythonpath()},
            capture_output=True,
            text=True,
        )
        assert (done.returncode != 0) == bool(self._refused), done.stderr
        assert (self._refused or "1 outputs signed") in done.stderr
        said: dict[str, Any] = json.loads(found.read_text())
        return said

    def _pythonpath(self) -> str:
        return os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), self._path]))

    def for_others(self) -> set[str]:
        """Modules of ours that are for others."""
        names = tuple(f"sealflow.{name}" for name in FOR_OTHERS)
        return {item for item in self.modules if item.startswith(names)}


def test_a_task_with_plain_artifacts_loads_nothing_that_is_for_others(team: Team) -> None:
    loaded = Loaded(team)
    needless = NEEDLESS | {"pydantic", "sealflow.policy.source", "sealflow.policy.document"}
    assert loaded.modules & needless == set()
    assert loaded.for_others() == set()
    # Python compiles the methods of each anew in every process, which takes three times as long as a NamedTuple's.
    assert len(loaded.dataclasses) <= 25, loaded.dataclasses


def publish(team: Team) -> str:
    """Put a policy in force, and return the admin's file."""
    team.publish(rule("all", f"{team.root}/**", "team", **PROVENANCE))
    return str(team.launcher.admin_file)


#: What words the complaint about a bad policy; nobody else waits for it.
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types"}


@pytest.mark.slow
def test_a_task_under_a_policy_loads_what_reads_it_and_no_more(team: Team) -> None:
    loaded = Loaded(team, publish(team))
    assert "sealflow.policy.document" in loaded.modules
    assert loaded.modules & (NEEDLESS | PYDANTIC) == set()
    assert loaded.for_others() == set()


@pytest.mark.slow
def test_nor_with_everything_that_an_admin_can_deliver(team: Team) -> None:
    """Revocations, a waiver, a team's own policy, the last good policy, and a signer and an audit level from it."""
    everything = rule("all", f"{team.root}/**", "team", audit="spooled", freshness={"max_age": "1d"}, **PROVENANCE)
    owner = write_key(team.root, "owner")
    place = str(team.root / "team.json")
    admin = Admin(team.root / "admin")
    admin.publish(
        [everything],
        {"team": team.key},
        signers=[{"uri": team.key.signer}],
        delegations=[{"team": "ml", "artifact": [f"{team.root}/**"], "key": owner.public.read_text(), "policy": place}],
        grace_hours=24,
    )
    head = {"apiVersion": "sealflow/v1", "version": 1, "expires": "2099-01-01T00:00:00Z"}
    mine = {
        **head,
        "identities": {"team": {"key": team.key.public.read_text()}},
        "rules": [rule("mine", f"{team.root}/**", "team", **PROVENANCE)],
    }
    listed = {
        **head,
        "kind": "Revocations",
        # One in the form in which the tools write it, and one as people do.
        "revocations": [
            {"digest": "sha256:" + "0" * 64, "reason": "poisoned", "since": "2026-01-01T00:00:00Z"},
            {"identity": "dns:example.org", "since": "2026-01-01 00:00+01:00", "reason": "left \u00e9"},
        ],
    }
    now = utc_now()
    waiver = {
        "apiVersion": "sealflow/v1",
        "kind": "Waiver",
        "id": "w",
        "scope": {"artifact": ["/elsewhere/**"]},
        "rules": [{"name": "all", "digest": "sha256:" + "0" * 64}],
        "reason": "the store burned down",
        "not_before": time_text(now),
        "expires": time_text(now + datetime.timedelta(days=1)),
    }
    Path(place).write_bytes(make_signed(json.dumps(mine).encode(), load_signer(owner.signer), POLICY_TYPE))
    for name, body, kind in (
        ("revocations.json", listed, REVOCATIONS_TYPE),
        ("policy.json.waivers/w.json", waiver, WAIVER_TYPE),
    ):
        path = admin.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make_signed(json.dumps(body).encode(), load_signer(admin.key.signer), kind))
    state = team.root / "state"
    admin.write_file(team.launcher.admin_file, revocations=str(admin.folder / "revocations.json"), state=str(state))
    loaded = Loaded(team, str(team.launcher.admin_file))
    assert len(list(state.iterdir())) == 2
    assert "sealflow.policy.revocations" in loaded.modules
    assert loaded.modules & (NEEDLESS | PYDANTIC) == set()
    assert loaded.for_others() == set()
    # All of it was read: what is wrong with any of it is said.
    Path(place).write_bytes(make_signed(b'{"apiVersion": "sealflow/v1"}', load_signer(owner.signer), POLICY_TYPE))
    shutil.rmtree(team.root / "p-2026-11-22-07-15-23-240111")
    again = Loaded(team, str(team.launcher.admin_file), refused="this field is missing")
    assert again.modules >= PYDANTIC


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [True, False])
def test_plugins_of_pydantic_in_a_task_s_image_are_left_alone(team: Team, tmp_path: Path, guarded: bool) -> None:
    folder = tmp_path / "image"
    information = folder / "meddling-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: meddling\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[pydantic]\nmeddling = meddling:plugin\n")
    (folder / "meddling.py").write_text(_PLUGIN)
    if guarded:  # it words what is wrong with a policy
        team.publish(rule("all", f"{team.root}/**", "team", **PROVENANCE), grace_hours=-1)
        loaded = Loaded(team, str(team.launcher.admin_file), str(folder), refused="greater than or equal to 0")
        assert "pydantic" in loaded.modules
        assert "meddling" not in loaded.modules
    else:  # the plugin is one that pydantic would load
        code = "import sys, sealflow.policy.form_models; sys.exit('meddling' not in sys.modules)"
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(folder)}, check=True)
