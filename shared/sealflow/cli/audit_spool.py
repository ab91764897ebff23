"""``sealflow audit ship``: from the spool to the inbox."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sealflow.cli.options import AuditInbox, Json
from sealflow.cli.terminal import as_command_line, print_json


def ship(
    spool: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The spool. Default: SEALFLOW_AUDIT_SPOOL, then this user's.")
    ] = None,
    inbox: AuditInbox = None,
    as_json: Json = False,
) -> None:
    """Bring audit events from a spool to the inbox. May be run at any time, several at once, and be killed."""
    from sealflow.actions.audit_ship import ship as run

    with as_command_line():
        shipped = run(spool, inbox)
    if as_json:
        print_json(shipped.as_dict())
    else:
        typer.echo(f"shipped   {shipped.entries} entries to {shipped.inbox}")
        typer.echo(f"removed   {shipped.removed} chains; {shipped.alive} are still written")
        for item in shipped.troubles:
            typer.secho(f"{item.code}  {item.writer}: {item.message}", fg="red")
    sys.exit(shipped.exit_status)


def register(app: typer.Typer) -> None:
    """Add the command to ``sealflow audit``."""
    app.command()(ship)
