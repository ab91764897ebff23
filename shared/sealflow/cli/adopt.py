"""`sealflow adopt`: sign in bulk what existed before."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sealflow.cli.options import Json
from sealflow.cli.terminal import as_command_line, passphrase, print_json, size_text

if TYPE_CHECKING:
    from sealflow.actions.adopt import Adopted

_COLOURS = {"signed": "green", "to sign": "green", "changed": "red", "refused": "red", "unavailable": "yellow"}


def adopt(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Folder: path or location (s3://…).")],
    reason: Annotated[str, typer.Option(help="Why they are taken over; everybody can read it in the provenance.")],
    signer: Annotated[
        str | None,
        typer.Option(help="Signer URI: file:/key.pem, awskms:alias/name. Default: the policy's, SEALFLOW_SIGNER."),
    ] = None,
    evidence_store: Annotated[
        str | None, typer.Option("--evidence-store", metavar="LOCATION", help="Default: <artifact>.evidence.")
    ] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Take every file below as an artifact, not each file and folder in it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be signed; write nothing.")] = False,
    journal: Annotated[
        str | None, typer.Option(metavar="FILE", help="What is done, for a run that goes on. Default: one of its own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign each artifact in a folder that existed before; start it again after a stop and it goes on."""
    from sealflow.actions.adopt import UNDONE
    from sealflow.actions.adopt import adopt as take_over
    from sealflow.findings import printable

    def show(item: Adopted) -> None:
        typer.secho(f"{item.status:12}", fg=_COLOURS.get(item.status), nl=False)
        typer.echo(f"  {size_text(item.size):>10}  {printable(item.location, 2000)}")
        if item.message:
            typer.secho(f"  {item.code}: {printable(item.message)}", fg=_COLOURS.get(item.status))

    with as_command_line():
        done = take_over(
            prefix,
            reason=reason,
            signer=signer,
            evidence_store=evidence_store,
            files=files,
            dry_run=dry_run,
            journal=journal,
            passphrase=passphrase,
            on_artifact=None if as_json else show,
        )
    if as_json:
        print_json(done.as_dict())
    else:
        verb = "to sign" if dry_run else "signed"
        parts = [f"{done.count(verb)} {verb} ({size_text(done.size)})"]
        parts += [
            f"{count} {status}" for status in ("done before", "has evidence", *UNDONE) if (count := done.count(status))
        ]
        typer.echo(f"{len(done.artifacts)} artifacts: {', '.join(parts)}")
        if done.count(*UNDONE):
            typer.echo("Start it again when what is wrong has been put right; what is signed is not read again.")
        if not dry_run:
            typer.echo(f"journal  {printable(done.journal, 2000)}")
    sys.exit(done.exit_status)
