"""`sealflow kfp`: compiled pipelines of Kubeflow Pipelines."""

from __future__ import annotations

import shlex
from importlib import import_module
from typing import Annotated, Any

import typer

from sealflow.cli import kfp_admission, kfp_doctor, kfp_kyverno, kfp_spec_patch, kfp_verdict
from sealflow.cli.options import Json
from sealflow.cli.terminal import print_json
from sealflow.errors import EvidenceError, MissingExtraError, UsageError
from sealflow.findings import printable

kfp_app = typer.Typer(help="Guard pipelines of Kubeflow Pipelines.", no_args_is_help=True)

_MAX_FILE = 16 << 20


@kfp_app.callback()
def _root() -> None:
    pass


@kfp_app.command()
def harden(
    pipeline: Annotated[str, typer.Argument(help="Compiled pipeline or PipelineVersion manifest: path or location.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Where the hardened pipeline goes.")],
    secret: Annotated[
        str | None, typer.Option(help="Kubernetes secret with settings and keys. Default: the cluster mounts one.")
    ] = None,
    policy_config_map: Annotated[
        str | None, typer.Option(help="Config map with admin.json, which names the policy. Default: none is mounted.")
    ] = None,
    entrypoint: Annotated[
        list[str] | None,
        typer.Option(metavar="IMAGE=COMMAND", help="What an image runs, for executors without a command. Repeatable."),
    ] = None,
    keep_installs: Annotated[
        bool, typer.Option("--keep-installs", help="Leave packages that tasks install when they run.")
    ] = False,
    lock: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Lock file with hashes that replaces what tasks install when they run."),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="For kfp.local's SubprocessRunner, never a cluster.")] = False,
    allow_unguarded: Annotated[
        bool, typer.Option("--allow-unguarded", help="Go on where an executor would run unguarded.")
    ] = False,
    guard: Annotated[
        str,
        typer.Option(
            metavar="image|directory", help="Where tasks find the guard: in their images, or mounted by the cluster."
        ),
    ] = "image",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what lies at the output.")] = False,
    as_json: Json = False,
) -> None:
    """Let every task of a compiled pipeline run behind sealflow's wrapper; prints what could not be covered."""
    from sealflow.actions.policy_files import write_file

    done = _hardening().harden_text(
        _fetch(pipeline),
        what=printable(pipeline),
        secret=secret,
        policy_config_map=policy_config_map,
        entrypoints=dict(map(_entrypoint, entrypoint or ())),
        keep_installs=keep_installs,
        lock=None if lock is None else _fetch(lock),
        local=local,
        allow_unguarded=allow_unguarded,
        guard=guard,
    )
    write_file(output, done.text, overwrite=overwrite)
    if as_json:
        print_json({"output": output, **done.as_dict()})
        return
    for report in done.reports:
        _print(report)
    typer.echo(f"written    {printable(output)}")


def _print(report: Any) -> None:
    typer.secho("hardened", fg="green", bold=True, nl=False)
    typer.echo(f"   {printable(report.pipeline)}  ({report.tasks} task{'s' * (report.tasks != 1)})")
    typer.echo(f"wrapped    {len(report.wrapped)} executors")
    if report.own:
        typer.echo(f"own        {len(report.own)} executors are sealflow's and check for themselves")
    for path, name in report.renamed.items():
        typer.echo(
            f"renamed    {printable(path)} is {printable(name)} now, to be told from the other tasks of its name"
        )
    for gap in sorted(report.gaps):
        mark, colour = ("✗", "red") if gap.unguarded else ("!", "yellow")
        typer.secho(f"{mark} {gap.code}  {printable(gap.where)}: {printable(gap.message)}", fg=colour)
        if gap.next_step:
            typer.echo(f"  next: {gap.next_step}")


def _hardening() -> Any:
    # By its name: the core knows no orchestrator, and its wheel may come without this part.
    try:
        return import_module("sealflow_kfp.hardening")
    except ModuleNotFoundError as error:
        if error.name not in ("sealflow_kfp", "sealflow_kfp.hardening"):
            raise
        raise MissingExtraError("Hardening a pipeline", "kfp") from None


def _fetch(location: str) -> bytes:
    from sealflow.storage import Storages

    try:
        data = Storages().for_uri(location).get(location, _MAX_FILE)
    except EvidenceError as error:
        raise UsageError(error.message, code="PIPELINE_MALFORMED") from None
    if data is None:
        raise UsageError(f"There is nothing at {printable(location)}.", code="PIPELINE_MISSING")
    return data


def _entrypoint(text: str) -> tuple[str, list[str]]:
    # An image can hold an equals sign nowhere; a command can.
    image, separator, command = text.partition("=")
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if not image or not separator or not words:
        raise UsageError(f"--entrypoint {printable(text, 80)!r} is not of the form IMAGE=COMMAND.")
    return image, words


kfp_admission.register(kfp_app)
kfp_doctor.register(kfp_app)
kfp_kyverno.register(kfp_app)
kfp_spec_patch.register(kfp_app)
kfp_verdict.register(kfp_app)
