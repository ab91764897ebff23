"""``sealflow audit verify | prove | check-proof | prove-time | key | witness``: the log itself."""

from __future__ import annotations

import datetime
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from sealflow.cli.options import AddedPolicy, AuditLog, AuditLogKey, Group, Json, grouped, identity_rules
from sealflow.cli.terminal import as_command_line, passphrase, print_json, print_verdict
from sealflow.errors import UsageError
from sealflow.findings import printable

Witnesses = Annotated[
    list[str] | None,
    typer.Option("--witness", metavar="KEY", help="Verifier key of a witness, or its file. Repeatable."),
]
#: Most bundles that are named, of those which a log does not hold.
_MOST_NAMED = 20

Quorum = Annotated[int | None, typer.Option(help="How many witnesses must have cosigned. Default: all.")]


@dataclass(frozen=True, kw_only=True)
class Seen(Group):
    """What others saw of a log."""

    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOCATION", help="Checkpoint kept elsewhere, which the log must have grown out of. Repeatable."
        ),
    ] = None
    witness: Witnesses = None
    quorum: Quorum = None

    def given(self) -> dict[str, Any]:
        """Return the arguments of an action."""
        return {"checkpoints": self.checkpoint or (), "witnesses": self.witness or (), "quorum": self.quorum}


@dataclass(frozen=True, kw_only=True)
class Vouching(Group):
    """Who may vouch for writers."""

    identity: Annotated[
        list[str] | None,
        typer.Option(
            help="Who may vouch for writers, as `audit_signer`: public key (path, URI) or rule (JSON). Repeatable. "
            "Default: the policy's, without one SEALFLOW_IDENTITIES."
        ),
    ] = None
    added: AddedPolicy

    def given(self) -> dict[str, Any]:
        """Return the arguments of an action."""
        return {"identities": identity_rules(self.identity), "policy": self.added.read()}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(verify)
    app.command()(prove)
    app.command("check-proof")(check_proof)
    app.command("prove-time")(prove_time)
    app.command()(key)
    app.command()(witness)


@grouped
def verify(
    log: AuditLog = None,
    key: AuditLogKey = None,
    *,
    seen: Seen,
    vouching: Vouching,
    vouched: Annotated[bool, typer.Option("--vouched", help="Refuse chains for whose writer nobody vouches.")] = False,
    accept_gap: Annotated[
        list[str] | None, typer.Option(metavar="WRITER", help="Chain whose missing end, or bad vouch, was looked into.")
    ] = None,
    grace_hours: Annotated[float, typer.Option(min=0, help="How long a chain may be without its end.")] = 24.0,
    as_json: Json = False,
) -> None:
    """Re-compute the whole log: entries, tiles, root, writers' chains; it must have grown out of what was seen last."""
    from sealflow.actions.audit_verify import verify_audit_log
    from sealflow.verification.audit_log import MAX_KEPT

    with as_command_line():
        report = verify_audit_log(
            log,
            key,
            **seen.given(),
            **vouching.given(),
            vouched=vouched,
            accept_gaps=accept_gap or (),
            grace=_grace(grace_hours),
            strict=False,
        )
    if as_json:
        print_json(report.as_dict())
    else:
        print_verdict(report.verdict)
        if report.note is not None:
            typer.echo(f"entries   {report.size}")
            typer.echo(f"root      {report.root}")
            typer.echo(f"writers   {report.writers}, of which {report.open} without an end")
            for name, count in report.vouched.items():
                typer.echo(f"          {count} vouched for by {printable(name, 100)}")
            typer.echo(f"          {report.claimed} claimed: nobody who is named vouches for who they are")
            for name, time in report.witnesses.items():
                typer.echo(f"witness   {name} at {time}")
        for code, count in report.more.items():
            typer.echo(f"  and {count} more of {code}: {MAX_KEPT} of a code are kept, the others counted")
    sys.exit(report.verdict.exit_status)


def _grace(hours: float) -> datetime.timedelta:
    try:
        return datetime.timedelta(hours=hours)
    except (OverflowError, ValueError):  # nan, inf
        raise UsageError(f"--grace-hours {hours} is no number of hours.") from None


def prove(
    destination: Annotated[str, typer.Argument(help="Folder for the entry, its proof and the log's key.")],
    index: Annotated[int | None, typer.Option(min=0, help="Index in the log.")] = None,
    event: Annotated[str | None, typer.Option(metavar="ID", help="Id of the event.")] = None,
    correlation: Annotated[str | None, typer.Option(metavar="ID", help="All events of one action.")] = None,
    log: AuditLog = None,
    key: AuditLogKey = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that hold something else.")] = False,
    as_json: Json = False,
) -> None:
    """Write what proves an event to somebody who has only the log's key."""
    from sealflow.actions.audit_prove import prove_event

    with as_command_line():
        proved = prove_event(
            destination, log, key, index=index, event=event, correlation=correlation, overwrite=overwrite
        )
    if as_json:
        print_json({"proved": [{"index": item.index, "event": item.event, "files": item.files} for item in proved]})
        return
    for item in proved:
        typer.echo(f"entry {item.index}")
        for name in item.files:
            typer.echo(f"  {name}")


def check_proof(
    path: Annotated[str, typer.Argument(metavar="FILE", help="The .tlog-proof file.")],
    key: Annotated[str, typer.Option(help="The log's verifier key or its file, from a source that you trust.")],
    entry: Annotated[str | None, typer.Option(help="File with the entry. Default: the one in the proof.")] = None,
    witness: Witnesses = None,
    quorum: Quorum = None,
    as_json: Json = False,
) -> None:
    """Check offline that a log holds an event, and show the event."""
    from sealflow.actions.audit_prove import check_proof as check

    verdict, event = check(path, key, entry=entry, witnesses=witness or (), quorum=quorum, strict=False)
    if as_json:
        print_json({"verdict": verdict.as_dict(), "event": event})
    else:
        print_verdict(verdict)
        if event:
            print_json(event)
    sys.exit(verdict.exit_status)


def prove_time(
    evidence_stores: Annotated[
        list[str] | None, typer.Argument(metavar="[STORE]…", help="Evidence stores. Default: SEALFLOW_EVIDENCE_STORE.")
    ] = None,
    log: AuditLog = None,
    key: AuditLogKey = None,
    witness: Witnesses = None,
    quorum: Quorum = None,
    as_json: Json = False,
) -> None:
    """Keep beside evidence the proof that the witnessed log holds it: it counts then although its key is revoked later.

    Without --witness the policy in force says which witnesses of this log count.
    """
    from sealflow.actions.audit_time import prove_time as prove_it

    with as_command_line():
        proved = prove_it(evidence_stores or (), log, key, witnesses=witness or (), quorum=quorum)
    if as_json:
        print_json(proved.as_dict())
        return
    typer.echo(f"seen by the witnesses at {proved.time:%Y-%m-%dT%H:%M:%SZ}")
    typer.echo(f"proved    {proved.proved} bundles, {proved.before} before, by {len(proved.added)} new proofs")
    for name in proved.revoked:
        typer.echo(f"revoked   {printable(name, 200)}: what this witness says did not count")
    if proved.unlogged:
        typer.echo(f"unlogged  {len(proved.unlogged)}: no entry of the log names them (yet)")
        for name in proved.unlogged[:_MOST_NAMED]:
            typer.echo(f"  {printable(name, 400)}")


def key(
    signer: Annotated[str, typer.Argument(help="Signer URI of the log's Ed25519 key: file:/log.pem.")],
    origin: Annotated[str, typer.Option(help="The log's name: an address without scheme, like log.example/audit.")],
    as_json: Json = False,
) -> None:
    """Print the verifier key of a log: what reviewers, auditors and witnesses need."""
    from sealflow.audit.note import VerifierKey
    from sealflow.keys import load_signer

    found = str(VerifierKey.of(load_signer(signer, passphrase), origin))
    if as_json:
        print_json({"origin": origin, "key": found})
    else:
        typer.echo(found)


def witness(
    witnesses: Annotated[list[str], typer.Argument(metavar="URL=KEY…", help="Submission prefix and verifier key.")],
    log: AuditLog = None,
    key: AuditLogKey = None,
    as_json: Json = False,
) -> None:
    """Have witnesses cosign the log's checkpoint."""
    from sealflow.actions.audit_verify import witness_log

    with as_command_line():
        cosigned = witness_log(witnesses, log, key)
    if as_json:
        print_json({"witnesses": cosigned})
        return
    for name in cosigned:
        typer.echo(f"cosigned by {name}")
