"""`sealflow audit review` and `sealflow audit export`: who touched what, for people, pages and other systems."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealflow.cli.audit_log import Seen, Vouching
from sealflow.cli.options import AuditLog, AuditLogKey, Json, grouped
from sealflow.cli.terminal import as_command_line, print_json
from sealflow.errors import EXIT_REFUSED_EVIDENCE, UsageError
from sealflow.findings import printable

if TYPE_CHECKING:
    from sealflow.actions.audit_review import Reviewed

#: Most rows of a table on a terminal; a page or JSON shows more.
_MAX_ROWS = 30
#: Most findings of one code there.
_MAX_FINDINGS = 5


@grouped
def review(
    log: AuditLog = None,
    key: AuditLogKey = None,
    *,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Begin: a date, an RFC 3339 time, or 7d before --until. Default: 7d."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="End, which is left out. Default: now.")] = None,
    artifact: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only these locations: s3://models/**. Repeatable.")
    ] = None,
    principal: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only these producers: airflow:train/*. Repeatable.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="LOCATION", help="One dataset with all below it. Default: each folder. Repeatable."),
    ] = None,
    cloudtrail: Annotated[
        str | None, typer.Option(metavar="LOCATION", help="CloudTrail's log files, to compare with.")
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="ARN=PRINCIPAL", help="Patterns: who acts under which role in CloudTrail. Repeatable."),
    ] = None,
    vouching: Vouching,
    seen: Seen,
    fail_on: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Fail when this is found; all: any of them. Repeatable.")
    ] = None,
    grace: Annotated[str, typer.Option(metavar="DURATION", help="How long an action or a run may last.")] = "1d",
    rows: Annotated[int, typer.Option(min=1, help="Most rows of each table in JSON and page.")] = 1000,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write it as one HTML page, too.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
    as_json: Json = False,
) -> None:
    """Report who touched what in a period: accesses, refusals, gaps, first times, volumes.

    The log is verified first, as `sealflow audit verify` does. A log that does not verify fails with 3; what could not
    be looked at, with 5; other findings only where --fail-on names them.
    """
    from sealflow.actions.audit_review import review_accesses

    _check_page(html, overwrite)
    with as_command_line():
        reviewed = review_accesses(
            log,
            key=key,
            since=since,
            until=until,
            artifacts=artifact or (),
            principals=principal or (),
            datasets=dataset or (),
            cloudtrail=cloudtrail,
            roles=_roles(role),
            **vouching.given(),
            **seen.given(),
            fail_on=fail_on or (),
            grace=grace,
            rows=rows,
        )
    if html is not None:
        from sealflow.actions.audit_report import as_html
        from sealflow.storage.local import replace_file

        replace_file(os.path.abspath(html), as_html(reviewed.report).encode("utf-8"))
    if as_json:
        print_json(reviewed.report)
    else:
        _print(reviewed)
    sys.exit(reviewed.verdict.exit_status)


@grouped
def export(
    log: AuditLog = None,
    key: AuditLogKey = None,
    *,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="jsonl, or ocsf: OCSF 1.8.")] = "jsonl",
    since: Annotated[str | None, typer.Option(metavar="TIME", help="A date or an RFC 3339 time.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="End, which is left out.")] = None,
    start: Annotated[int, typer.Option(min=0, metavar="INDEX", help="First entry, to continue an export.")] = 0,
    vouching: Vouching,
    as_json: Json = False,
) -> None:
    """Print the log's events, one JSON document a line, each with its index and leaf hash.

    Nothing is printed of a log that does not verify. An entry that holds no event is printed as such, and makes the
    exit status 3. With --json, too, each line is a document.
    """
    from sealflow.actions.audit_export import FORMS, export_events

    if form not in FORMS:
        raise UsageError(f"--format {printable(form, 60)} is unknown; known: {', '.join(FORMS)}.")
    malformed = 0
    out = sys.stdout.buffer
    with as_command_line():
        for item in export_events(
            log,
            key=key,
            form="ocsf" if form == "ocsf" else "jsonl",
            since=since,
            until=until,
            start=start,
            **vouching.given(),
        ):
            malformed += item.malformed
            out.write(item.line + b"\n")
    out.flush()
    if malformed:
        typer.echo(f"{malformed} entries hold no event that could be read.", err=True)
        sys.exit(EXIT_REFUSED_EVIDENCE)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(review)
    app.command()(export)


def _roles(items: list[str] | None) -> dict[str, list[str]] | None:
    found: dict[str, list[str]] = {}
    for item in items or ():
        arn, equals, principal = item.partition("=")
        if not equals or not arn or not principal:
            raise UsageError(f"--role {printable(item, 100)} is no ARN=PRINCIPAL.")
        found.setdefault(arn, []).append(principal)
    return found or None


def _check_page(path: str | None, overwrite: bool) -> None:
    if path is None:
        return
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise UsageError(f"There is no folder for {printable(path)}.", next_step="Make it first.")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{printable(path)} exists already.", next_step="Choose another name, or give --overwrite.")


def _print(reviewed: Reviewed) -> None:
    from rich.console import Console

    from sealflow.actions.audit_report import who

    report = reviewed.report
    colour = {"passed": "green", "failed": "red", "unverifiable": "yellow"}[report["status"]]
    typer.secho(report["status"], fg=colour, bold=True, nl=False)
    typer.echo(f"    {printable(report['log']['uri'])}, {report['log']['size']} entries")
    typer.echo(f"period    {report['period']['since']} to {report['period']['until']}")
    outcomes = ", ".join(f"{printable(name, 30)} {count}" for name, count in report["outcomes"].items())
    typer.echo(f"accesses  {outcomes or 'none'}")
    counts = report["counts"]
    for name, label in (("vouched", "vouched for"), ("claimed", "claimed: nobody who is named vouches for who it was")):
        if counts.get(name):
            typer.echo(f"          {counts[name]} {label}")
    for name, label in (("malformed", "not readable"), ("doubtful", "of doubtful time"), ("open", "may still go on")):
        if counts.get(name):
            typer.echo(f"          {counts[name]} {label}")
    # A file or another program gets whole lines.
    width = None if sys.stdout.isatty() else 2000
    console = Console(markup=False, emoji=False, highlight=False, width=width)
    for title, heads, rows, left in (
        (
            "Principals",
            ("principal", "who", "accesses", "artifacts", "refused", "busiest day"),
            [
                (
                    item["principal"],
                    who(item),
                    item["accesses"],
                    item["artifacts"],
                    item["refused"],
                    _busiest(item["volume"]),
                )
                for item in report["principals"]
            ],
            report["principals_omitted"],
        ),
        (
            "Artifacts",
            ("artifact", "accesses", "claimed", "principals", "refused", "last"),
            [
                (
                    item["artifact"],
                    item["accesses"],
                    item["claimed"],
                    item["principals"],
                    item["refused"],
                    item["last"],
                )
                for item in report["artifacts"]
            ],
            report["artifacts_omitted"],
        ),
        (
            "Refused",
            ("principal", "who", "artifact", "refused", "codes", "last entry"),
            [
                (
                    item["principal"],
                    who(item),
                    item["artifact"],
                    item["refused"],
                    ", ".join(item["codes"]),
                    item["last_entry"],
                )
                for item in report["accesses"]
                if item["refused"]
            ],
            0,
        ),
    ):
        if rows:
            console.print(_table(title, heads, rows, left))
    shown: dict[str, int] = {}
    for finding in reviewed.verdict.findings:
        shown[finding.code] = shown.get(finding.code, 0) + 1
        # One code must not push the others off the screen.
        if shown[finding.code] > _MAX_FINDINGS:
            continue
        mark, colour = {
            "refusal": ("✗", "red"), "unverifiable": ("?", "yellow"), "warning": ("!", "yellow"),
        }.get(finding.severity, ("·", "white"))  # fmt: skip
        typer.secho(f"{mark} {finding.line()}", fg=colour)
    for code, count in report["finding_counts"].items():
        if count > _MAX_FINDINGS:
            typer.echo(f"  {count - _MAX_FINDINGS} more of {code}; --json and --html show them")
    trail = report["cloudtrail"]
    if trail is not None:
        typer.echo(
            f"CloudTrail: {trail['compared']} requests compared by {trail['joined_by']}; "
            f"{trail['explained']} explained, {trail['unrecorded']} unrecorded, {trail['denied']} denied by S3, "
            f"{trail['phantom']} phantom"
        )


def _busiest(volume: dict[str, Any]) -> str:
    item = volume["busiest"]
    if item is None:
        return ""
    return f"{item['day']}: {item['accesses']} of {item['limit']}, {item['status'].replace('_', ' ')}"


def _table(title: str, heads: tuple[str, ...], rows: list[tuple[Any, ...]], left: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for head in heads:
        table.add_column(
            head, overflow="fold", justify="right" if isinstance(rows[0][heads.index(head)], int) else "left"
        )
    for row in rows[:_MAX_ROWS]:
        table.add_row(*(Text(printable(cell, 200)) for cell in row))
    if len(rows) > _MAX_ROWS or left:
        table.caption = f"… {len(rows) - min(len(rows), _MAX_ROWS) + left} more"
    return table
