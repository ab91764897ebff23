"""Fixtures of the core: the command `sealflow`, run in this process, for starting one takes a second."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sealflow.actions import context
from sealflow.cli import main
from sealflow.cli.app import app
from sealflow.policy.source import AdminChannel, BrokenChannel, forget

Cli = Callable[..., subprocess.CompletedProcess[str]]


@functools.cache
def _command() -> Any:
    """The command with all options, which typer puts together anew for each run otherwise: 50 ms."""
    return typer.main.get_command(app)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs `sealflow` in the test's folder, with variables and under an admin's channel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr("sealflow.cli.app.app", _command())
    forget()

    def run(
        *arguments: str, channel: AdminChannel | BrokenChannel | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        admin = context.run(context.Surroundings(admin=channel)) if channel else contextlib.nullcontext()
        capfd.readouterr()
        with monkeypatch.context() as patch, admin:
            patch.setattr(sys, "argv", ["sealflow", *arguments])
            for name, value in variables.items():
                patch.setenv(name, value)
            try:
                main()
                status: Any = 0
            except SystemExit as end:
                status = end.code or 0
        told = capfd.readouterr()
        assert "Traceback" not in told.err
        return subprocess.CompletedProcess(arguments, status, told.out, told.err)

    return run


def body(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the one JSON document on standard output."""
    return json.loads(done.stdout)
