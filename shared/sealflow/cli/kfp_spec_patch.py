"""``sealflow kfp spec-patch``: what KFP's API server adds to every pod of a pipeline."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from sealflow.errors import MissingExtraError, UsageError
from sealflow.findings import printable


def spec_patch(
    guard_image: Annotated[str, typer.Option(metavar="IMAGE", help="The guard image, by digest.")],
    secret: Annotated[
        str | None, typer.Option(help="Secret with settings and keys, in each namespace that runs pipelines.")
    ] = None,
    policy_config_map: Annotated[
        str | None, typer.Option(help="Config map with admin.json, which names the policy.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Variable of the tasks that the guard hears, in clear. Repeatable."),
    ] = None,
    onto: Annotated[
        str | None, typer.Option(metavar="FILE", help="The value that the variable has so far, to keep what it says.")
    ] = None,
    allow_tag: Annotated[bool, typer.Option("--allow-tag", help="Take an image that is named by a tag.")] = False,
) -> None:
    """Print the value of COMPILED_PIPELINE_SPEC_PATCH that mounts the guard directory, keys and policy into every pod.

    It puts the guard before no command: harden the pipelines with --guard directory, or let the admission server do it.
    """
    tools = _tools()
    names = import_module("sealflow_kfp.guard_command")
    given = tools.mounts(
        guard_image,
        secret=names.resource_name(secret, "secret"),
        policy_config_map=names.resource_name(policy_config_map, "config map"),
        allow_tag=allow_tag,
    )
    typer.echo(
        tools.to_text(given, dict(map(_variable, env or ())), None if onto is None else _read(onto, tools.MAX_PATCH))
    )


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise UsageError(f"--env {printable(text, 80)!r} is not of the form NAME=VALUE.")
    return name, value


def _read(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{printable(path)} cannot be read: {error.strerror}.") from None


def _tools() -> Any:
    # By its name: the core knows no orchestrator, and its wheel may come without this part.
    try:
        return import_module("sealflow_kfp.spec_patch")
    except ModuleNotFoundError as error:
        if error.name not in ("sealflow_kfp", "sealflow_kfp.spec_patch"):
            raise
        raise MissingExtraError("The spec patch", "kfp") from None


def register(app: typer.Typer) -> None:
    """Add the command to ``sealflow kfp``."""
    app.command("spec-patch")(spec_patch)
