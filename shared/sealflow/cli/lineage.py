"""`sealflow lineage`: where data comes from, checked."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sealflow.cli.options import AddedPolicy, Json, Signer, grouped, identity_rules
from sealflow.cli.terminal import as_command_line, passphrase, print_json, print_verdict
from sealflow.cli.trace import register
from sealflow.findings import printable

_Store = Annotated[
    str | None, typer.Option(help="Where the evidence lies. Default: SEALFLOW_EVIDENCE_STORE, else REPO.evidence.")
]

_Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TARGET]...", help="Stages, outputs, .dvc or dvc.yaml files, relative to REPO. Default: all."
    ),
]

lineage_app = typer.Typer(help="Check where data comes from, and what was made from it.", no_args_is_help=True)


@lineage_app.callback()
def _root() -> None:
    pass


@lineage_app.command()
@grouped
def check(
    repository: Annotated[
        str, typer.Argument(metavar="REPO", help="Folder of the DVC repository, or the URL of a Git repository.")
    ],
    targets: _Targets = None,
    level: Annotated[
        str,
        typer.Option(
            help="L1: bytes are those of the lock. L2: lock, dvc.yaml and parameters agree. L3: signed commit. "
            "L4: whole on the remote. L5: SHA-256 signed. L6: made by signed runs, from data of data owners."
        ),
    ] = "L2",
    allowed_signers: Annotated[
        str | None, typer.Option(metavar="FILE", help="Who may sign commits, as ssh-keygen reads it. For L3.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option(help="Branch that has to hold the commit: refs/remotes/origin/main. For L3.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="The commit: an id, a branch or a tag. Default: HEAD. For L3.")
    ] = None,
    remote: Annotated[
        str | None, typer.Option(help="The remote: location, or name in .dvc/config. Default: its default. For L4.")
    ] = None,
    read_remote: Annotated[
        bool, typer.Option("--read-remote", help="Read objects that the remote's own checksums do not prove. For L4.")
    ] = False,
    identity: Annotated[
        list[str] | None,
        typer.Option(help="Who may sign: public key (path, URI) or rule (JSON). Repeatable. Needed from L5 on."),
    ] = None,
    evidence_store: _Store = None,
    root: Annotated[
        list[str] | None, typer.Option(help="A data owner, whose data is a beginning: as --identity. For L6.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Artifact digest that is a beginning too. Repeatable. For L6.")
    ] = None,
    *,
    added: AddedPolicy,
    as_json: Json = False,
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
            remote=remote,
            read_remote=read_remote,
            identities=identity_rules(identity),
            evidence_store=evidence_store,
            roots=identity_rules(root),
            datasets=tuple(dataset or ()),
            policy=added.read(),
        )
    if as_json:
        print_json(verdict.as_dict())
    else:
        print_verdict(verdict)
    sys.exit(verdict.exit_status)


@lineage_app.command()
def sign(
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Folder of the DVC repository.")],
    targets: _Targets = None,
    signer: Signer = None,
    evidence_store: _Store = None,
    as_json: Json = False,
) -> None:
    """Sign what stages made, or data that you own: which SHA-256 it has, and from what it was made.

    Checks the repository first, and signs nothing unless its bytes, lock and definitions agree.
    """
    from sealflow.actions.lineage_sign import sign_lineage

    with as_command_line():
        made = sign_lineage(
            repository,
            tuple(targets or ()),
            signer=signer,
            evidence_store=evidence_store,
            passphrase=passphrase,
        )
    if as_json:
        print_json(made.as_dict())
        return
    for path in made.statements:
        ref = made.refs.get(path)
        typer.secho("signed", fg="green", bold=True, nl=False)
        typer.echo(f"    {printable(path)}  {ref.digest if ref is not None else '(lineage alone)'}")
    typer.echo(f"producer  {made.producer}")
    for key in made.keys:
        typer.echo(f"key       {key}")
    typer.echo(f"evidence  {made.evidence_store}")


register(lineage_app)
