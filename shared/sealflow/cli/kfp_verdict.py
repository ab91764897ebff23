"""``sealflow kfp verdict``: why a run was stopped, from the audit inbox, once its pods and their logs are gone."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sealflow.cli.options import AuditInbox, Json
from sealflow.cli.terminal import as_command_line, print_json
from sealflow.errors import EXIT_OK, EXIT_UNVERIFIABLE
from sealflow.findings import printable


def verdict(
    run: Annotated[str, typer.Argument(help="Run id, or one task's: kfp:PIPELINE/TASK/RUN.")],
    inbox: AuditInbox = None,
    spool: Annotated[str | None, typer.Option(metavar="FOLDER", help="Read this spool instead.")] = None,
    as_json: Json = False,
) -> None:
    """Show what stopped a run. Exit status 0 when something was found, 5 when nothing was."""
    from sealflow.actions.stopped import advice, stopped

    with as_command_line():
        found = stopped(run, inbox=inbox, spool=spool)
    if as_json:
        print_json(found.as_dict())
    for event in () if as_json else found.events:
        typer.secho(f"{str(event['outcome']).upper():<13}", fg="red", bold=True, nl=False)
        typer.echo(f"{printable(event['run'].get('invocation', ''))}  {printable(event.get('time', ''))}")
        for label in ("action", "artifact", "digest", "producer", "rule", "policy"):
            if event.get(label):
                typer.echo(f"  {label:<10} {printable(event[label])}")
        for code, step in advice(event):
            typer.echo(f"  {printable(code):<10}" + (f"  next: {step}" if step else ""))
    if not as_json:
        if not found.events:
            typer.echo(f"Nothing in {printable(found.place)} says that this run was stopped.")
        if not found.complete:
            typer.echo("Older entries were not read; `sealflow audit review` reads the log.")
    sys.exit(EXIT_OK if found.events else EXIT_UNVERIFIABLE)


def register(app: typer.Typer) -> None:
    """Add the command to ``sealflow kfp``."""
    app.command()(verdict)
