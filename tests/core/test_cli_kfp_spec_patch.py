"""`sealflow kfp spec-patch`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sealflow_kfp.guard_command import GuardMounts
from sealflow_kfp.spec_patch import patch, to_text
from tests.core.conftest import Cli

IMAGE = "registry.example/sealflow-guard@sha256:" + "a" * 64
GIVEN = GuardMounts(IMAGE, "sealflow", "sealflow-policy")


def test_the_command_prints_one_line(cli: Cli, tmp_path: Path) -> None:
    options = ["--guard-image", IMAGE, "--secret", "sealflow", "--policy-config-map", "sealflow-policy"]
    done = cli("kfp", "spec-patch", *options)
    assert (done.returncode, done.stdout) == (0, to_text(GIVEN) + "\n")
    (tmp_path / "before.json").write_text('{"ttlStrategy": {}}')
    done = cli("kfp", "spec-patch", *options, "--onto", "before.json", "--env", "AWS_REGION=eu-central-1")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"ttlStrategy": {}, **patch(GIVEN, {"AWS_REGION": "eu-central-1"})}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--guard-image", "guard:1"], "not named by digest"),
        (["--guard-image", IMAGE, "--secret", "A"], "no name of a secret"),
        (["--guard-image", IMAGE, "--env", "x"], "NAME=VALUE"),
        (["--guard-image", IMAGE, "--onto", "missing"], "cannot be read"),
    ],
)
def test_the_command_refuses(cli: Cli, options: list[str], said: str) -> None:
    done = cli("kfp", "spec-patch", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not done.stdout
