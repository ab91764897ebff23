"""``sealflow audit posture``: how a bucket and its keys are set up."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sealflow.cli.options import Json, Skip, skipped
from sealflow.cli.terminal import as_command_line, print_checks
from sealflow.errors import EXIT_OK


def posture(
    location: Annotated[str, typer.Argument(help="Bucket, or a place in it: s3://bucket/prefix.")],
    kms_key: Annotated[
        list[str] | None, typer.Option(metavar="URI", help="One more key to look at: awskms:<ARN>. Repeatable.")
    ] = None,
    bucket_owner: Annotated[
        str | None,
        typer.Option(
            metavar="ACCOUNT",
            help="Account that must own the bucket. Default: SEALFLOW_BUCKET_OWNERS, then the credentials' own.",
        ),
    ] = None,
    allow_account: Annotated[
        list[str] | None,
        typer.Option(metavar="ACCOUNT", help="Account or organization (o-…) that policies may let in. Repeatable."),
    ] = None,
    skip: Skip = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Exit with 0 whatever was found, if it could be asked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check how a bucket and its keys in AWS are set up: PASS, FAIL or UNKNOWN for each check.

    Only settings are read. UNKNOWN, such as a missing permission, never counts as PASS: the exit status is 3 where
    something failed, else 5 where something is unknown.
    """
    from sealflow.actions.audit_posture import check_posture

    with as_command_line():
        found = check_posture(
            location,
            kms_keys=tuple(kms_key or ()),
            bucket_owner=bucket_owner,
            allow_accounts=tuple(allow_account or ()),
            skip=skipped(skip),
            strict=False,
        )
    print_checks(found, as_json, keys=True)
    sys.exit(EXIT_OK if report_only else found.verdict.exit_status)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(posture)
