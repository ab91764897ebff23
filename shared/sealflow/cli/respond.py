"""`sealflow respond`: what to do when a key is stolen or an artifact turns out to be bad."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealflow.cli.options import AddedPolicy, AuditLogKey, Json, Signers, grouped, identity_rules
from sealflow.cli.options import Identity as IdentityOption
from sealflow.cli.terminal import as_command_line, passphrase, print_json, print_verdict
from sealflow.errors import UsageError, VerificationError
from sealflow.findings import printable

if TYPE_CHECKING:
    from sealflow.actions.respond_radius import BlastRadius

respond_app = typer.Typer(help="Respond to a stolen key or a bad artifact.", no_args_is_help=True)

#: Most rows of a table on a terminal; JSON shows all.
_MAX_ROWS = 40

_Stores = Annotated[
    list[str] | None, typer.Option("--evidence-store", metavar="LOCATION", help="Where evidence lies. Repeatable.")
]
_Log = Annotated[
    str | None,
    typer.Option("--audit-log", metavar="LOCATION", help="The audit log. Default: SEALFLOW_AUDIT_LOG."),
]


@respond_app.command("blast-radius")
@grouped
def blast_radius(
    target: Annotated[
        str,
        typer.Argument(
            metavar="KEY|DIGEST|DATASET",
            help="Public key (path, URI) or its fingerprint; artifact digest or reference; path or location.",
        ),
    ],
    *,
    evidence_store: _Stores = None,
    audit_log: _Log = None,
    key: AuditLogKey = None,
    identity: IdentityOption = None,
    added: AddedPolicy,
    picture: Annotated[str | None, typer.Option(metavar="FILE", help="Draw it too: FILE.svg or FILE.html.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
    as_json: Json = False,
) -> None:
    """Find every artifact, run and model that a key, an artifact or a dataset touched.

    Touched is what is proved, by evidence that verifies and by the audit log; possible is what somebody only claims.
    What could not be looked at is listed, and makes the exit status 5.
    """
    from sealflow.actions.respond_radius import blast_radius as find

    _check_picture(picture, overwrite)
    with as_command_line():
        found = find(
            target,
            evidence_stores=evidence_store or (),
            identities=identity_rules(identity),
            policy=added.read(),
            audit_log=audit_log,
            audit_log_key=key,
        )
    if picture is not None:
        from sealflow.actions.picture import as_html, as_svg
        from sealflow.storage.local import replace_file

        draw = as_svg if picture.endswith(".svg") else as_html
        replace_file(os.path.abspath(picture), draw(found.graph(), found.verdict).encode("utf-8"))
    if as_json:
        print_json(found.as_dict())
    else:
        _print_radius(found)
    sys.exit(found.verdict.exit_status)


@respond_app.command("revoke")
def revoke(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="KEY|IDENTITY|DIGEST",
            help="Public key (path, URI), fingerprint, identity of the policy, certificate name (email:…), artifact "
            "digest, reference or location.",
        ),
    ],
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="From when on: a date, an RFC 3339 time, or now. The earliest that may be."),
    ],
    reason: Annotated[str, typer.Option(help="Why; those who are refused read it.")],
    signer: Annotated[str, typer.Option(help="The admin's signer URI.")],
    place: Annotated[
        str | None,
        typer.Option("--list", metavar="LOCATION", help="The signed list. Default: that of the admin's channel."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--as", metavar="KIND", help="key, identity or digest, where it could be several.")
    ] = None,
    ticket: Annotated[str, typer.Option(help="Ticket of the incident.")] = "",
    life: Annotated[str, typer.Option(metavar="DURATION", help="How long the list is believed, at least.")] = "90d",
    new_list: Annotated[bool, typer.Option("--new-list", help="There is no list yet: this is the first.")] = False,
    after: Annotated[
        int | None, typer.Option(min=1, metavar="VERSION", help="This version of the list must lie there.")
    ] = None,
    admin_key: Annotated[
        list[str] | None, typer.Option(help="Public key of another admin who may have signed the list. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put the next version of the signed list of revocations in its place, with this in it.

    Who refuses it from then on needs nothing but the list. What is revoked already stays so; the same again does
    nothing.
    """
    from sealflow.actions.respond_revoke import revoke as put

    if kind not in (None, "key", "identity", "digest"):
        raise UsageError(f"--as {printable(kind, 60)} is unknown; known: key, identity, digest.")
    with as_command_line():
        made = put(
            subject,
            since=since,
            reason=reason,
            list_place=place,
            signer=signer,
            kind=kind,  # type: ignore[arg-type]
            ticket=ticket,
            life=life,
            new_list=new_list,
            after=after,
            keys=admin_key or (),
            passphrase=passphrase,
        )
    if as_json:
        print_json(made.as_dict())
        return
    typer.secho("revoked" if made.written else "already revoked", fg="green", bold=True, nl=False)
    typer.echo(f"    version {made.version} of {printable(made.place)}")
    for entry in made.entries:
        what = next(name for name in ("key", "identity", "digest") if name in entry)
        typer.echo(f"{what:9} {printable(entry[what])}  since {entry['since']}")
    for text in made.warnings:
        typer.secho(f"! {printable(text)}", fg="yellow")


@respond_app.command("quarantine")
def quarantine(
    artifact: Annotated[str, typer.Argument(help="Path, location (s3://…) or artifact reference (JSON text).")],
    to: Annotated[str, typer.Option(metavar="PREFIX", help="Folder or location under which it is kept then.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the list of revocations.")],
    place: Annotated[
        str | None,
        typer.Option("--list", metavar="LOCATION", help="The signed list. Default: that of the admin's channel."),
    ] = None,
    signer: Annotated[str | None, typer.Option(help="The admin's signer URI, for the list.")] = None,
    no_revoke: Annotated[
        bool, typer.Option("--no-revoke", help="Move it alone: copies and older versions still pass.")
    ] = False,
    new_list: Annotated[bool, typer.Option("--new-list", help="There is no list yet: this is the first.")] = False,
    after: Annotated[
        int | None, typer.Option(min=1, metavar="VERSION", help="This version of the list must lie there.")
    ] = None,
    content: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="Of an encrypted artifact, the digest of what is in it; it is revoked."),
    ] = None,
    evidence_store: _Stores = None,
    ticket: Annotated[str, typer.Option(help="Ticket of the incident.")] = "",
    as_json: Json = False,
) -> None:
    """Revoke an artifact and move it, with its evidence, where no reference leads.

    Nothing is removed before a copy was read back whole. After an interruption, run the same command again.
    """
    from sealflow.actions.respond_quarantine import quarantine as move
    from sealflow.hashing import Digest

    with as_command_line():
        done = move(
            artifact,
            to=to,
            reason=reason,
            list_place=place,
            signer=signer,
            revoked=not no_revoke,
            content=Digest.parse(content) if content else None,
            new_list=new_list,
            after=after,
            evidence_stores=evidence_store or (),
            ticket=ticket,
            passphrase=passphrase,
        )
    if as_json:
        print_json(done.as_dict())
        return
    typer.secho("in quarantine already" if done.existed else "quarantined", fg="green", bold=True, nl=False)
    typer.echo(f"    {printable(done.place, 2048)}")
    typer.echo(f"digest    {done.digest}")
    typer.echo(f"from      {printable(done.source, 2048)}")
    typer.echo(f"evidence  {printable(done.evidence, 2048)}")
    if done.revoked is not None:
        typer.echo(f"refused   by version {done.revoked} of the list of revocations")
    for text in done.warnings:
        typer.secho(f"! {printable(text)}", fg="yellow")


@respond_app.command("re-sign")
@grouped
def re_sign(
    artifacts: Annotated[list[str], typer.Argument(metavar="ARTIFACT…", help="Locations or references (JSON text).")],
    *,
    signer: Annotated[str, typer.Option(help="The new signer's URI.")],
    reason: Annotated[str, typer.Option(help="Why; it is signed.")],
    signers: Signers,
    evidence_store: Annotated[
        str | None, typer.Option("--evidence-store", metavar="LOCATION", help="Where the evidence lies.")
    ] = None,
    added: AddedPolicy,
    as_json: Json = False,
) -> None:
    """Verify artifacts anew, and sign with another key what their accepted evidence says.

    What does not pass is not signed; the others are. The exit status is that of the first that did not.
    """
    from sealflow.actions.respond_resign import re_sign as sign_again

    identities, policy = signers.rules(), added.read()
    made: list[dict[str, Any]] = []
    status = 0
    with as_command_line():
        for artifact in artifacts:
            try:
                done = sign_again(
                    artifact,
                    signer=signer,
                    reason=reason,
                    identities=identities,
                    evidence_store=evidence_store,
                    policy=policy,
                    passphrase=passphrase,
                )
            except VerificationError as error:
                status = status or error.exit_status
                made.append({"artifact": artifact, **error.verdict.as_dict()})
                if not as_json:
                    print_verdict(error.verdict)
                continue
            made.append({"artifact": artifact, **done.as_dict()})
            if not as_json:
                word = "signed again" if done.added else "signed again already"
                typer.secho(word, fg="green", bold=True, nl=False)
                typer.echo(f"    {printable(done.ref.uri, 2048)}  with {done.key}")
    if as_json:
        print_json(made)
    sys.exit(status)


def _check_picture(path: str | None, overwrite: bool) -> None:
    if path is None:
        return
    if not path.endswith((".svg", ".html")):
        raise UsageError(f"{printable(path)} is no .svg or .html file.")
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise UsageError(f"There is no folder for {printable(path)}.", next_step="Make it first.")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{printable(path)} exists already.", next_step="Choose another name, or give --overwrite.")


def _print_radius(found: BlastRadius) -> None:
    from sealflow.actions.picture import short
    from sealflow.verification.radius import WHYS

    radius = found.radius
    artifacts = list(radius.artifacts.values())
    touched = len(radius.of("touched"))
    typer.secho(f"{touched} artifacts touched", bold=True, nl=False)
    typer.echo(f", {len(artifacts) - touched} possible, {len(radius.runs)} runs, {len(radius.readers)} reads")

    def how(item: Any) -> str:
        via = radius.artifacts[item.via] if item.via is not None else None
        return f"{WHYS[item.why]} {(via.name or short(via.digest)) if via is not None else ''}".strip()

    _table(
        "Artifacts",
        ("", "name", "how", "made by", "where", "digest"),
        [
            (
                item.certainty,
                item.name + ("  (nothing made from it)" if item.final and item.why != "start" else ""),
                how(item),
                ", ".join(item.producers),
                ", ".join(item.places),
                str(item.digest),
            )
            for item in artifacts
        ],
    )
    _table(
        "Runs",
        ("", "run", "did"),
        [(item.certainty, item.run, ", ".join(item.ways)) for item in radius.runs.values()],
    )
    for title, uses in (("Reads", radius.readers), ("Uses of the key", radius.uses)):
        _table(
            title,
            ("entry", "who", "action", "outcome", "time", "artifact"),
            [
                (use.entry, f"{use.run or use.producer} ({use.who})", use.action, use.outcome or "unknown", use.time,
                 use.artifact or str(use.digest))
                for use in uses
            ],
        )  # fmt: skip
    print_verdict(found.verdict)


def _table(title: str, heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if not rows:
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows[:_MAX_ROWS]:
        table.add_row(*(Text(printable(cell, 200)) for cell in row))
    if len(rows) > _MAX_ROWS:
        table.caption = f"… {len(rows) - _MAX_ROWS} more; --json shows them"
    # A file or another program gets whole lines.
    width = None if sys.stdout.isatty() else 2000
    Console(markup=False, emoji=False, highlight=False, width=width).print(table)
