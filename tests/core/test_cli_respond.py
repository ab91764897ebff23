"""`sealflow respond`: tables, JSON, pictures, exit statuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.actions.radius_world import Event, History, Statement, World, digest
from tests.core.conftest import Cli, body

HISTORY = History(
    (Statement(1, "stolen", (0,), 1), Statement(2, "alice", (1,), 2), Statement(3, "stranger", (2,), 3)),
    events=[Event(5, 2)],
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", HISTORY)


@pytest.fixture
def options(world: World) -> list[str]:
    """Where everything lies, and whom to believe."""
    assert world.log is not None
    (world.folder / "log.vkey").write_text(str(world.log.key))
    known = [item for name in ("alice", "stolen") for item in ("--identity", str(world.folder / f"{name}.pub.pem"))]
    return [
        "--evidence-store", world.store.uri, "--audit-log", world.log.store.uri,
        "--key", str(world.folder / "log.vkey"), *known,
    ]  # fmt: skip


def test_tables(cli: Cli, world: World, options: list[str]) -> None:
    done = cli("respond", "blast-radius", str(world.folder / "stolen.pub.pem"), *options)
    assert done.returncode == 5
    assert done.stdout.startswith("2 artifacts touched, 1 possible, 4 runs, 1 reads")
    lines = done.stdout.splitlines()
    first = next(line for line in lines if str(digest(1)) in line)
    assert "signed with the key" in first
    assert "airflow:flow/task1" in first
    assert "made from name-1" in next(line for line in lines if str(digest(2)) in line)
    assert "airflow:flow/task5/run-5#1 (claimed)" in done.stdout
    assert "EDGE_UNVERIFIED" in done.stdout


def test_json_and_picture(cli: Cli, world: World, options: list[str], tmp_path: Path) -> None:
    path = tmp_path / "radius.html"
    done = cli("respond", "blast-radius", str(digest(0)), *options, "--json", "--picture", str(path))
    found = body(done)
    assert found["sealflow_blast_radius"] == 1
    assert [item["certainty"] for item in found["artifacts"]] == ["touched", "touched", "touched", "possible"]
    assert "name-2" in path.read_text()
    assert cli("respond", "blast-radius", str(digest(0)), *options, "--picture", str(path)).returncode == 2
    assert cli("respond", "blast-radius", str(digest(0)), *options, "--picture", "x.png").returncode == 2


def test_exit_statuses(cli: Cli, world: World, options: list[str]) -> None:
    everybody = [*options, "--identity", str(world.folder / "stranger.pub.pem")]
    assert cli("respond", "blast-radius", str(digest(0)), *everybody).returncode == 0
    assert cli("respond", "blast-radius", str(digest(0))).returncode == 2
    assert cli("respond", "blast-radius", "nothing-there", *options).returncode == 3
    assert world.log is not None
    world.log.path("checkpoint").write_text("nonsense\n")
    assert cli("respond", "blast-radius", str(digest(0)), *everybody).returncode == 3
