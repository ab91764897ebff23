"""``sealflow kfp kyverno``: policies of Kyverno from the settings of admission."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from sealflow.cli.options import Json
from sealflow.cli.terminal import print_json
from sealflow.errors import EvidenceError, MissingExtraError, PolicyError, UsageError
from sealflow.findings import printable


def kyverno(
    settings: Annotated[str, typer.Option(metavar="FILE", help="Settings of admission: YAML.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Where the policies go.")],
    policy: Annotated[str, typer.Option(help="Signed trust policy that the guard enforces: path or location.")],
    admin_key: Annotated[
        list[str], typer.Option(metavar="KEY", help="Public key of the admin who signed the policy. Repeatable.")
    ],
    namespace: Annotated[
        list[str] | None,
        typer.Option(help="Guarded namespace. Repeatable. Default: those labelled sealflow/guard=true."),
    ] = None,
    api_version: Annotated[
        str, typer.Option(help="Version of Kyverno's API: v1alpha1 (Kyverno 1.14, 1.15), v1beta1 (1.16) or v1.")
    ] = "v1beta1",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what lies at the output.")] = False,
    as_json: Json = False,
) -> None:
    """Write policies with which Kyverno refuses tasks that are not under the guard; prints what they say of themselves.

    The same settings and policy always give the same bytes.
    """
    from sealflow.actions.policy_files import write_file

    generator = _module("sealflow_kfp.kyverno")
    read = _module("sealflow_kfp.admission.settings").load_settings(settings)
    made = generator.policies(
        read,
        _mark(generator, policy, tuple(admin_key)),
        namespaces=namespace or (),
        api_version=api_version,
    )
    write_file(output, generator.manifest(made), overwrite=overwrite)
    annotations = made[0]["metadata"]["annotations"]
    if as_json:
        found = {name.partition("/")[2]: value for name, value in annotations.items() if name.startswith("sealflow/")}
        names = [item["metadata"]["name"] for item in made]
        print_json({"output": output, "policies": names, "mode": read.mode, **found})
        return
    for item in made:
        typer.echo(f"policy     {item['metadata']['name']}  ({len(item['spec']['validations'])} rules)")
    typer.echo(f"mode       {read.mode}: {'refuses' if read.enforced else 'only reports'}")
    typer.echo(f"trust      {annotations['sealflow/trust-policy']}")
    typer.echo(f"settings   {annotations['sealflow/settings']}")
    typer.echo(f"written    {printable(output)}")


def _mark(generator: Any, location: str, keys: tuple[str, ...]) -> Any:
    """Return what marks the trust policy, whose signature must hold.

    Raises:
        PolicyError: It is no signed policy.
        EvidenceError: Nobody who was named signed it.
        UsageError: It has expired.
    """
    from sealflow.actions.policy_files import fetch, read_signed
    from sealflow.audit.event import utc_now

    found = read_signed(fetch(location), printable(location), keys)
    if found.kind != "policy":
        raise PolicyError(f"{printable(location)} is no policy but a {found.kind}.")
    if not found.verified:
        raise EvidenceError(f"{printable(location)}: {found.problem}", code="POLICY_SIGNER")
    document: Any = found.document
    if document.expires <= utc_now():
        raise UsageError(f"{printable(location)} has expired.", next_step="Sign it anew with a later date.")
    return generator.TrustPolicyMark(f"sha256:{found.digest}", document.version)


def _module(name: str) -> Any:
    # By its name: the core knows no orchestrator, and its wheel may come without this part.
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("sealflow_kfp"):
            raise
        raise MissingExtraError("Generating policies for a cluster", "kfp") from None


def register(app: typer.Typer) -> None:
    """Add the command to ``sealflow kfp``."""
    app.command()(kyverno)
