"""`sealflow lineage`: where data comes from, checked."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sealflow.cli.terminal import as_command_line, print_json, print_verdict

lineage_app = typer.Typer(help="Check where data that DVC tracks comes from.", no_args_is_help=True)


@lineage_app.callback()
def _root() -> None:
    pass


@lineage_app.command()
def check(
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Folder of the DVC repository.")],
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET]...", help="Stages, outputs, .dvc or dvc.yaml files, relative to REPO. Default: all."
        ),
    ] = None,
    level: Annotated[
        str,
        typer.Option(
            help="L1: bytes are those of the lock. L2: lock, dvc.yaml and parameters agree. L3: signed commit."
        ),
    ] = "L2",
    allowed_signers: Annotated[
        str | None, typer.Option(metavar="FILE", help="Who may sign commits, as ssh-keygen reads it. For L3.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option(help="Branch that has to hold the commit: refs/remotes/origin/main. For L3.")
    ] = None,
    revision: Annotated[str, typer.Option(help="The commit: HEAD, an id, a branch or a tag. For L3.")] = "HEAD",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check a DVC repository, or TARGETs with everything upstream of them; prints the verdict.

    Writes nothing, runs nothing of the repository, and needs no DVC.
    """
    from sealflow.actions.lineage import check_lineage

    with as_command_line():
        verdict = check_lineage(
            repository,
            tuple(targets or ()),
            level=level,
            allowed_signers=allowed_signers,
            branch=branch,
            revision=revision,
        )
    if as_json:
        print_json(verdict.as_dict())
    else:
        print_verdict(verdict)
    sys.exit(verdict.exit_status)
