"""``sealflow audit integrate`` and ``sealflow audit inbox``: from the inbox into the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from sealflow.cli.options import AuditInbox, AuditLog, Json
from sealflow.cli.terminal import as_command_line, passphrase, print_json
from sealflow.errors import UnavailableError, UsageError
from sealflow.findings import printable

if TYPE_CHECKING:
    from sealflow.actions.audit_integrate import Integration

inbox_app = typer.Typer(help="Set up an audit inbox.", no_args_is_help=True)
inbox_app.callback()(lambda: None)


def integrate(
    signer: Annotated[str, typer.Option(metavar="URI", help="The log's Ed25519 key: file:/keys/log.pem.")],
    origin: Annotated[str, typer.Option(metavar="NAME", help="The log's name, such as example.com/audit.")],
    inbox: AuditInbox = None,
    log: AuditLog = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(metavar="URL=KEY", help="Who cosigns the checkpoint: https://witness.example=name+id+key."),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.1, help="Go on for ever, with so long a pause. Default: until empty."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring everything that waits in an audit inbox into the log, and sign a checkpoint.

    May be run by several at once, and be killed at any time. What is no entry, or not signed by its writer, is left
    out and reported. With --every what is out of reach is tried again.
    """
    from sealflow.actions.audit_integrate import integrate_audit_log

    while True:
        try:
            with as_command_line():
                done = integrate_audit_log(
                    inbox, log, signer=signer, origin=origin, witnesses=witness or (), passphrase=passphrase
                )
            _print(done, as_json)
        except UnavailableError as error:
            if every is None:
                raise
            typer.secho(str(error), fg="yellow", err=True)
        if every is None:
            return
        time.sleep(every)


def _print(done: Integration, as_json: bool) -> None:
    if as_json:
        print_json(done.as_dict())
        return
    typer.echo(f"added     {done.added} entries to {done.log}")
    typer.echo(f"size      {done.size}")
    if done.waiting.entries:
        typer.echo(f"waiting   {done.waiting.entries} entries, for one before them that is not there")
    if done.witnesses:
        typer.echo(f"witnesses {printable(', '.join(done.witnesses))}")
    typer.echo(f"key       {done.log_key}")
    for finding in done.findings:
        typer.secho(f"{finding.code}  {finding.subject}: {finding.message}", fg="red")
    if done.more_findings:
        typer.secho(f"and {done.more_findings} more left out", fg="red")


def init(
    inbox: AuditInbox = None,
    writer: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="PostgreSQL role of writers. Repeatable.")
    ] = None,
    integrator: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="PostgreSQL role of integrators. Repeatable.")
    ] = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements, and connect to nothing.")] = False,
) -> None:
    """Make the tables of an inbox in PostgreSQL, as their owner, and give roles what they need and no more.

    Other inboxes need none: the file of SQLite is made by its first writer, and S3 needs only the bucket.
    """
    from sealflow.actions import context
    from sealflow.audit.inbox import open_inbox
    from sealflow.storage import Storages

    with as_command_line():
        if sql:
            from sealflow.audit.inbox_postgresql import setup_sql

            typer.echo(setup_sql(writer or (), integrator or ()), nl=False)
            return
        where = inbox or context.current().settings.audit_inbox
        if not where:
            raise UsageError("No inbox is named.", next_step="Name it with --inbox.")
        from sealflow.audit.inbox_postgresql import PostgresqlInbox

        opened = open_inbox(where, Storages())
        try:
            if isinstance(opened, PostgresqlInbox):
                opened.set_up(writer or (), integrator or ())
            elif writer or integrator:
                raise UsageError("Only an inbox in PostgreSQL has roles.")
            else:
                opened.size()
        finally:
            opened.close()
    typer.echo(f"ready     {printable(opened.uri)}")


def register(app: typer.Typer) -> None:
    """Add the commands to ``sealflow audit``."""
    inbox_app.command()(init)
    app.command()(integrate)
    app.add_typer(inbox_app, name="inbox")
