"""Levels L1 and L2 over a whole repository, the action and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sealflow
from sealflow.actions.lineage import check_lineage
from sealflow.cli.app import app
from sealflow.errors import UsageError
from sealflow.findings import CODES
from sealflow.lineage.check import check_repository
from tests.audit_events import read_events
from tests.core.lineage.repos import check, codes, lock, md5, out, simple, write


@pytest.fixture(autouse=True)
def _log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))


def chain(root: Path) -> Path:
    """a.csv -> one -> mid/ -> two -> end.csv, and apart from them `lone` and a .dvc file."""
    folder = "[" + json.dumps({"md5": md5("m"), "relpath": "m.csv"}) + "]"
    mid = {"path": "mid", "hash": "md5", "md5": md5(folder) + ".dir", "size": 1, "nfiles": 1}
    return write(
        root,
        {
            "a.csv": "a", "mid/m.csv": "m", "sub/end.csv": "e", "l.csv": "l", "d.csv": "d",
            "d.csv.dvc": {"outs": [out("d.csv", "d")]},
            "dvc.yaml": {"stages": {
                "one": {"cmd": "1", "deps": ["a.csv", "d.csv"], "outs": ["mid"]},
                "lone": {"foreach": ["l"], "do": {"cmd": "3", "outs": ["${item}.csv"]}},
            }},
            "dvc.lock": lock(
                one={"cmd": "1", "deps": [out("a.csv", "a"), out("d.csv", "d")], "outs": [mid]},
                lone__l={"cmd": "3", "outs": [out("l.csv", "l")]},
            ),
            "sub/dvc.yaml": {"stages": {"two": {"cmd": "2", "deps": ["../mid/m.csv"], "outs": ["end.csv"]}}},
            "sub/dvc.lock": lock(two={"cmd": "2", "deps": [out("../mid/m.csv", "m")], "outs": [out("end.csv", "e")]}),
        },
    )  # fmt: skip


def test_a_whole_repository(tmp_path: Path) -> None:
    found = check_repository(str(chain(tmp_path / "r")))
    assert codes(found) == set()
    assert {stage.address for stage in found.stages} == {"d.csv.dvc", "lone@l", "one", "sub/dvc.yaml:two"}
    assert set(found.contents) == {"a.csv", "d.csv", "mid", "mid/m.csv", "sub/end.csv", "l.csv"}
    assert set(found.read) == {
        "dvc.yaml", "dvc.lock", "params.yaml", "d.csv.dvc", "sub/dvc.yaml", "sub/dvc.lock", "sub/params.yaml",
        ".dvc/config",
    }  # fmt: skip
    assert found.read["params.yaml"] is None
    assert found.read["sub/dvc.lock"] == (tmp_path / "r/sub/dvc.lock").read_bytes()


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ("one", {"one", "d.csv.dvc"}),
        ("dvc.yaml:one", {"one", "d.csv.dvc"}),
        ("mid", {"one", "d.csv.dvc"}),
        ("./mid/", {"one", "d.csv.dvc"}),
        ("sub/dvc.yaml:two", {"sub/dvc.yaml:two", "one", "d.csv.dvc"}),
        ("sub/dvc.yaml", {"sub/dvc.yaml:two", "one", "d.csv.dvc"}),
        ("sub/end.csv", {"sub/dvc.yaml:two", "one", "d.csv.dvc"}),
        ("dvc.yaml", {"one", "lone@l", "d.csv.dvc"}),
        ("lone", {"lone@l"}),
        ("lone@l", {"lone@l"}),
        ("d.csv.dvc", {"d.csv.dvc"}),
        ("d.csv", {"d.csv.dvc"}),
    ],
)
def test_targets_bring_what_is_upstream(tmp_path: Path, target: str, stages: set[str]) -> None:
    root = chain(tmp_path / "r")
    assert {stage.address for stage in check_repository(str(root), [target]).stages} == stages
    (root / "l.csv").write_text("changed")
    assert check(root, target) == ({"DATA_MISMATCH", "SIZE_MISMATCH"} if "lone@l" in stages else set())


@pytest.mark.parametrize("target", ["nothing", "two", "a.csv", "mid/m.csv", "", "../r/mid/x", "sub"])
def test_targets_that_name_nothing(tmp_path: Path, target: str) -> None:
    with pytest.raises(UsageError) as refusal:
        check_repository(str(chain(tmp_path / "r")), [target])
    assert refusal.value.code == "LINEAGE_TARGET_UNKNOWN"


def test_what_is_broken_fails_every_target(tmp_path: Path) -> None:
    root = write(chain(tmp_path / "r"), {"other/dvc.yaml": "stages: ["})
    # Nobody can say what that pipeline writes.
    assert check(root, "lone") == {"LINEAGE_MALFORMED"}
    assert check(root, "other/dvc.yaml") == {"LINEAGE_MALFORMED"}


def test_l1_is_about_bytes_alone(tmp_path: Path) -> None:
    root = write(simple(tmp_path / "r"), {"params.yaml": {"lr": 0.2}})
    assert check(root) == {"PARAMS_DRIFT"}
    assert check(root, level="L1") == set()
    (root / "in.csv").write_text("9\n")
    assert check(root, level="L1") == {"DATA_MISMATCH"}
    assert check(root) == {"DATA_MISMATCH", "PARAMS_DRIFT"}


@pytest.mark.parametrize("level", ["L1", "L2"])
@pytest.mark.parametrize(
    "change",
    [
        {"dvc.lock": None},
        {"dvc.yaml": None},
        {"dvc.lock": {"schema": "1.0"}},
        {"dvc.yaml": {"stages": {"make": {"cmd": "${nothing}", "outs": ["out.csv"]}}}},
    ],
    ids=["no-lock", "no-pipeline", "old-lock", "template"],
)
def test_no_level_passes_what_it_cannot_read(tmp_path: Path, change: dict[str, Any], level: str) -> None:
    root = simple(tmp_path / "r")
    for name, content in change.items():
        (root / name).unlink()
        if content is not None:
            write(root, {name: content})
    assert check(root, level=level)


@pytest.mark.parametrize("files", [{}, {"data.csv": "x"}, {"dvc.yaml": {}}, {"dvc.yaml": {}, "dvc.lock": lock()}])
def test_nothing_to_check_is_no_pass(tmp_path: Path, files: dict[str, Any]) -> None:
    assert check(write(tmp_path / "r", files)) == {"LINEAGE_MISSING"}
    (tmp_path / "plain").mkdir()
    assert check(tmp_path / "plain") == {"LINEAGE_MISSING"}
    assert check(tmp_path / "nowhere") == {"LINEAGE_MISSING"}


def test_old_digests_are_refused_from_l3(tmp_path: Path) -> None:
    entry = {"path": "d.csv", "md5": md5("d\n"), "size": 3}
    root = write(tmp_path / "r", {"d.csv": "d\r\n", "d.csv.dvc": {"outs": [entry]}})
    found = check_repository(str(root))
    assert (codes(found), codes(found, "warning")) == (set(), {"LEGACY_HASH", "CACHE_MISSING"})
    assert check(root, level="L3") == {"LEGACY_HASH"}


def test_paths_relative_to_the_working_folder(tmp_path: Path) -> None:
    stage = {"cmd": "x", "wdir": "work", "deps": ["../in"], "outs": ["out"], "params": ["k", {"../p.toml": ["t"]}]}
    root = write(
        tmp_path / "r",
        {
            "in": "i", "work/out": "o", "work/params.yaml": {"k": 1}, "p.toml": "t = 1.5\n", "params.yaml": {"k": 9},
            "dvc.yaml": {"stages": {"s": stage}},
            "dvc.lock": lock(s={"cmd": "x", "deps": [out("../in", "i")], "outs": [out("out", "o")],
                                "params": {"params.yaml": {"k": 1}, "../p.toml": {"t": 1.5}}}),
        },
    )  # fmt: skip
    assert check(root) == set()
    write(root, {"work/params.yaml": {"k": 2}})
    assert check(root) == {"PARAMS_DRIFT"}


def test_data_added_below_a_working_folder(tmp_path: Path) -> None:
    root = write(tmp_path / "r", {"sub/a.dvc": {"wdir": "../data", "outs": [out("a", "x")]}, "data/a": "x"})
    assert check(root) == set()
    (root / "data/a").write_text("y")
    assert check(root) == {"DATA_MISMATCH"}


@pytest.mark.parametrize(
    ("path", "code"),
    [("/etc/hostname", "DATA_EXTERNAL"), ("../x", "DATA_EXTERNAL"), ("s3://b/k", "DATA_EXTERNAL"),
     ("remote://r/k", "DATA_EXTERNAL"), ("ds://set", "DATA_EXTERNAL"), ("a/../../x", "DATA_EXTERNAL")],
)  # fmt: skip
@pytest.mark.parametrize("part", ["deps", "outs"])
def test_what_lies_elsewhere_is_never_passed(tmp_path: Path, path: str, code: str, part: str) -> None:
    root = simple(tmp_path / "r")
    stage = {"cmd": "x", part: [path]}
    write(
        root,
        {"dvc.yaml": {"stages": {"s": stage}}, "dvc.lock": lock(s={"cmd": "x", part: [{"path": path, "etag": "e"}]})},
    )
    found = check_repository(str(root))
    assert codes(found) == {code}
    assert codes(found, "refusal") == set()


def test_an_import_is_checked_and_its_origin_named(tmp_path: Path) -> None:
    root = write(
        tmp_path / "r",
        {
            "d.csv": "d",
            "d.csv.dvc": {"frozen": True, "deps": [{"path": "s3://b/d.csv", "etag": "e"}], "outs": [out("d.csv", "d")]},
        },
    )
    found = check_repository(str(root))
    assert (codes(found), codes(found, "note")) == (set(), {"UPSTREAM_NOT_CHECKED"})
    # Thawed, DVC would look at the origin at each status; we cannot.
    write(root, {"d.csv.dvc": {"deps": [{"path": "s3://b/d.csv", "etag": "e"}], "outs": [out("d.csv", "d")]}})
    assert check(root) == {"DATA_EXTERNAL"}
    write(root, {"src": "s", "d.csv.dvc": {"deps": [out("src", "s")], "outs": [out("d.csv", "d")]}})
    assert check(root) == set()
    write(root, {"src": "t"})
    assert check(root) == {"DATA_MISMATCH"}


def test_a_partial_import(tmp_path: Path) -> None:
    root = write(
        tmp_path / "r",
        {"d.csv.dvc": {"frozen": True, "deps": [{"path": "s3://b/d.csv"}], "outs": [{"path": "d.csv", "hash": "md5"}]}},
    )
    assert check(root) == {"DATA_NOT_LOCKED"}


def test_a_cache_elsewhere(tmp_path: Path) -> None:
    place = tmp_path / "shared" / "files" / "md5" / md5("d")[:2] / md5("d")[2:]
    place.parent.mkdir(parents=True)
    place.write_text("d")
    root = write(
        tmp_path / "r",
        {".dvc/config": "[core]\n    remote = x\n['remote \"x\"']\n    url = /x\n[cache]\n    dir = ../../shared\n",
         "d.csv.dvc": {"outs": [out("d.csv", "d")]}},
    )  # fmt: skip
    (root / "d.csv").symlink_to(place)
    found = check_repository(str(root))
    assert codes(found) == codes(found, "warning") == set()
    write(root, {".dvc/config": ""})
    assert check(root) == {"DATA_REFUSED"}


def test_names_that_collide_elsewhere(tmp_path: Path) -> None:
    root = write(
        tmp_path / "r",
        {"a": "1", "A": "2", "a.dvc": {"outs": [out("a", "1")]}, "b.dvc": {"outs": [out("A", "2")]}},
    )
    found = check_repository(str(root))
    assert (codes(found), "NAMES_COLLIDE" in codes(found, "warning")) == (set(), True)


def test_many_differences_are_counted(tmp_path: Path) -> None:
    listing = [{"md5": md5("x"), "relpath": f"{index:03}"} for index in range(50)]
    text = json.dumps(listing)
    place = f".dvc/cache/files/md5/{md5(text)[:2]}/{md5(text)[2:]}.dir"
    root = write(
        tmp_path / "r",
        {place: text, "d/x": "x", "d.dvc": {"outs": [{"path": "d", "hash": "md5", "md5": md5(text) + ".dir"}]}},
    )
    found = [item for item in check_repository(str(root)).findings if item.severity == "refusal"]
    assert len(found) == 22
    assert found[-1].message == "31 more files differ."


@pytest.mark.slow
def test_a_thousand_stages_in_a_row(tmp_path: Path) -> None:
    """No recursion over the graph, and no second look at a file."""
    count = 1200
    files: dict[str, Any] = {f"f{index}": str(index) for index in range(count + 1)}
    stages = {f"s{n}": {"cmd": "x", "deps": [f"f{n}"], "outs": [f"f{n + 1}"]} for n in range(count)}
    locked = {
        f"s{n}": {"cmd": "x", "deps": [out(f"f{n}", str(n))], "outs": [out(f"f{n + 1}", str(n + 1))]}
        for n in range(count)
    }
    root = write(tmp_path / "r", {**files, "dvc.yaml": {"stages": stages}, "dvc.lock": lock(**locked)})
    assert check(root, f"f{count}") == set()
    assert len(check_repository(str(root), [f"f{count}"]).stages) == count


# --- The action ---


def test_the_verdict(tmp_path: Path) -> None:
    root = simple(tmp_path / "r")
    verdict = check_lineage(str(root), ["make"])
    assert (verdict.status, verdict.artifact, verdict.exit_status) == ("passed", root.as_uri(), 0)
    assert verdict.findings[-1].code == "LINEAGE_LEVEL"
    assert verdict.checked_at.endswith("Z")
    (root / "in.csv").write_text("x")
    failed = check_lineage(root.as_uri())
    assert (failed.status, failed.exit_status) == ("failed", 3)
    write(root, {"in.csv": "1\n", "x.dvc": {"outs": [{"path": "s3://b/k", "etag": "e"}]}})
    assert (check_lineage(str(root)).status, check_lineage(str(root)).exit_status) == ("unverifiable", 5)
    events = read_events(tmp_path / "spool")
    assert [(event["action"], event.get("outcome", "")) for event in events[:4]] == [
        ("check_lineage", ""), ("check_lineage", "passed"), ("check_lineage", ""), ("check_lineage", "failed"),
    ]  # fmt: skip
    assert "DATA_MISMATCH" in events[3]["codes"]


@pytest.mark.parametrize(
    "arguments",
    [{"level": "L0"}, {"level": "L7"}, {"level": "l2"}, {"branch": "refs/heads/main"}, {"revision": "x"},
     {"allowed_signers": "x"}, {"targets": "make"}, {"level": "L3", "remote": "x"},
     {"level": "L5", "roots": "x"}, {"level": "L5", "datasets": ["x"]}],
    ids=str,
)  # fmt: skip
def test_arguments_that_cannot_work(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        check_lineage(str(simple(tmp_path / "r")), **arguments)


def test_l4_claims_nothing_where_nothing_was_looked_at(tmp_path: Path) -> None:
    """There is neither a remote nor anything that one would keep."""
    verdict = check_lineage(str(write(tmp_path / "r", {"dvc.yaml": {"stages": {}}})), level="L4")
    (said,) = [item.message for item in verdict.findings if item.code == "LINEAGE_LEVEL"]
    assert said.startswith("L4 holds for ")
    assert "if there are any" in said


def test_l3_needs_git_and_signers(tmp_path: Path) -> None:
    root = simple(tmp_path / "r")
    assert check_lineage(str(root), level="L3").status == "failed"
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=root, env=environment, check=True, capture_output=True)
    verdict = check_lineage(str(root), level="L3")
    assert verdict.status == "failed"
    assert "COMMIT_UNSIGNED" in {item.code for item in verdict.findings}
    write(root, {"params.yaml": '{"lr": 0.1} '})
    assert {"GIT_DIRTY", "COMMIT_UNSIGNED"} <= {item.code for item in check_lineage(str(root), level="L3").findings}


def test_l3_refuses_names_that_a_commit_should_not_hold(tmp_path: Path) -> None:
    root = write(simple(tmp_path / "r"), {"d": "d", "a\nb.dvc": {"outs": [out("d", "d")]}})
    assert check_lineage(str(root)).passed
    verdict = check_lineage(str(root), level="L3")
    assert [item.code for item in verdict.findings if item.severity == "refusal"] == ["DATA_REFUSED"]


# --- The command ---


@pytest.fixture
def cli() -> Callable[..., Any]:
    return lambda *words: CliRunner().invoke(app, ["lineage", "check", *words])


def test_the_command(tmp_path: Path, cli: Callable[..., Any]) -> None:
    root = simple(tmp_path / "r")
    done = cli(str(root))
    assert (done.exit_code, done.output.split()[0]) == (0, "passed")
    (root / "out.csv").write_text("x")
    done = cli(str(root), "make", "--level", "L1")
    assert done.exit_code == 3
    assert "DATA_MISMATCH out.csv" in done.output
    body = json.loads(cli(str(root), "--json").output)
    assert (body["status"], body["findings"][0]["code"]) == ("failed", "DATA_MISMATCH")


def test_no_library_is_loaded_that_a_check_does_not_need(tmp_path: Path) -> None:
    root = simple(tmp_path / "r")
    script = f"""
import sys
from sealflow.lineage.check import check_repository
assert not check_repository({str(root)!r}).findings[1:]
print(*sorted({{name.partition('.')[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"dvc", "dvc_data", "git", "pydantic", "cryptography", "ruamel", "boto3", "fsspec"})


def test_every_code_is_used() -> None:
    shared = Path(sealflow.__file__).parents[1]
    packages = [shared, *(shared.with_name(name) for name in ("airflow_plugin", "kfp_components"))]
    files = [path for package in packages for path in package.rglob("*.py") if path.name != "findings.py"]
    assert len(files) > 200
    source = "".join(path.read_text() for path in files)
    assert [code for code in CODES if f'"{code}"' not in source] == []
