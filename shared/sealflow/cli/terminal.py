"""What the commands share: how they print, ask, and act."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from sealflow.actions.progress import size_text as size_text


def print_json(body: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False))


_COLOURS = {"passed": "green", "failed": "red", "unverifiable": "yellow"}
_MARKS = {"refusal": ("✗", "red"), "unverifiable": ("?", "yellow"), "warning": ("!", "yellow"), "note": ("·", None)}


def print_verdict(verdict: Any) -> None:
    """Print a verdict for people."""
    from sealflow.findings import MAX_FINDINGS, printable

    typer.secho(verdict.status, fg=_COLOURS[verdict.status], bold=True, nl=False)
    typer.echo(f"    {printable(verdict.artifact)}")
    for label, value in (
        ("digest", verdict.digest),
        ("name", verdict.name),
        ("producer", verdict.producer),
        ("run", verdict.run),
        ("rules", ", ".join(verdict.rules)),
        ("policy", verdict.policy if verdict.rules else ""),
    ):
        if value:
            typer.echo(f"{label:9} {printable(value)}")
    for signer in verdict.signers:
        typer.echo(f"signed by {printable(signer.identity)}  {signer.key}  ({signer.kind})")
    for finding in verdict.findings[:MAX_FINDINGS]:
        mark, colour = _MARKS[finding.severity]
        typer.secho(f"{mark} {finding.line()}", fg=colour)
        if finding.severity in ("refusal", "unverifiable"):
            typer.echo(f"  next: {finding.next_step}")
    if len(verdict.findings) > MAX_FINDINGS:
        typer.echo(f"  and {len(verdict.findings) - MAX_FINDINGS} more")


def passphrase(uri: str) -> bytes:
    """Return a key's passphrase from the environment, or ask for it on a terminal."""
    from sealflow.keys.signer import PASSPHRASE_VARIABLE, passphrase_from_environment

    if PASSPHRASE_VARIABLE not in os.environ and sys.stdin.isatty():
        return bytes(typer.prompt(f"Passphrase of {uri}", hide_input=True, err=True).encode("utf-8"))
    return passphrase_from_environment(uri)


def new_passphrase(path: str) -> bytes:
    """Return the passphrase for a new key from the environment, or ask for it twice on a terminal."""
    from sealflow.keys.signer import PASSPHRASE_VARIABLE, passphrase_from_environment

    if PASSPHRASE_VARIABLE not in os.environ and sys.stdin.isatty():
        text = typer.prompt(f"Passphrase for {path}", hide_input=True, confirmation_prompt=True, err=True)
        return bytes(text.encode("utf-8"))
    return passphrase_from_environment(path)


@contextmanager
def as_command_line() -> Iterator[None]:
    """Act as the command line, unless an orchestrator's task runs this command: then the task acts."""
    from dataclasses import replace

    from sealflow.actions import context
    from sealflow.run_identity import RunIdentity

    surroundings = context.current()
    if surroundings.run.orchestrator == "python":
        surroundings = replace(surroundings, run=RunIdentity(orchestrator="cli"))
    with context.run(surroundings):
        yield


@contextmanager
def progress_bar(label: str, as_json: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """Show progress on a terminal; elsewhere nothing, so that logs stay readable."""
    if as_json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


#: Of the outcomes of checks; what was skipped has none.
_OUTCOMES = {"PASS": "green", "FAIL": "red", "UNKNOWN": "yellow", "WARN": "yellow"}


def print_checks(found: Any, as_json: bool, *, keys: bool = False) -> None:
    """Print a verdict and the results of its checks, those that do not pass with what to do next.

    Args:
        found: A verdict with results, as ``sealflow audit posture`` and ``sealflow kfp doctor`` make it.
        as_json: Whether as JSON.
        keys: Whether the key that a check is of stands behind it; a bucket never does.
    """
    from sealflow.findings import printable

    if as_json:
        print_json(found.as_dict())
        return
    colour = {"passed": "green", "failed": "red"}.get(found.verdict.status, "yellow")
    typer.secho(found.verdict.status, fg=colour, bold=True, nl=False)
    typer.echo(f"    {printable(found.verdict.artifact)}")
    for item in found.results:
        body = item.as_dict()
        word = "WARN" if body["advisory"] and item.outcome in ("FAIL", "UNKNOWN") else item.outcome
        typer.secho(f"{word:8}", fg=_OUTCOMES.get(word), nl=False)
        where = f"  {body['resource']}" if keys and not body["resource"].startswith("s3://") else ""
        typer.echo(f"{item.check:22} {body['found']}{where}")
        if item.outcome in ("FAIL", "UNKNOWN"):
            typer.echo(f"{'':8}expected {body['expected']}")
            typer.echo(f"{'':8}next: {body['next_step']}")
