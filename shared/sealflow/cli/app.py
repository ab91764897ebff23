"""Commands, options and output of `sealflow`.

Every command takes ``--json``; the exit statuses are those of :mod:`sealflow.errors`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, NoReturn

import typer

from sealflow import errors
from sealflow._version import __version__
from sealflow.cli.adopt import adopt
from sealflow.cli.audit import audit_app
from sealflow.cli.keys import keys_app
from sealflow.cli.kfp import kfp_app
from sealflow.cli.lineage import lineage_app
from sealflow.cli.options import AddedPolicy, Json, Signer, Signers, grouped
from sealflow.cli.policy import policy_app
from sealflow.cli.respond import respond_app
from sealflow.cli.terminal import (
    as_command_line,
    passphrase,
    print_json,
    print_verdict,
    progress_bar,
    size_text,
)
from sealflow.cli.transfer import register as register_transfer
from sealflow.errors import SealflowError, UsageError

app = typer.Typer(
    name="sealflow",
    help="Sign and verify artifacts that cross task boundaries.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done or passed, 2 usage, 3 refused evidence, 4 refused identity, 5 unverifiable.",
)
evidence_app = typer.Typer(help="Work with evidence.", no_args_is_help=True)
app.add_typer(evidence_app, name="evidence")
app.add_typer(keys_app, name="keys")
app.add_typer(policy_app, name="policy")
app.add_typer(audit_app, name="audit")
app.add_typer(respond_app, name="respond")
app.command()(adopt)
app.add_typer(lineage_app, name="lineage")
app.add_typer(kfp_app, name="kfp")
register_transfer(app)

_Store = Annotated[str | None, typer.Option("--evidence-store", metavar="LOCATION", help="Where the evidence lies.")]
_Artifact = Annotated[str, typer.Argument(help="Path, location (s3://…) or artifact reference (JSON text).")]


def run() -> None:
    """Run the command line and exit with its status."""
    as_json = "--json" in sys.argv[1:]
    try:
        _refuse_keys(sys.argv[1:])
        app()
    except SealflowError as error:
        _fail(error, as_json)
    except KeyboardInterrupt:
        typer.echo("Interrupted; nothing was left half done.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output is gone; that is its business.
        sys.stdout = None
        sys.exit(errors.EXIT_OK)


def _refuse_keys(arguments: list[str]) -> None:
    """Refuse a key where its place belongs: it looks like an option, and the parser would show it as an unknown one.

    Raises:
        UsageError: An argument is one. It is not repeated.
    """
    if any("PRIVATE KEY" in text and text.lstrip().startswith("-") for text in arguments):
        raise UsageError(
            "An argument is a private key.",
            code="KEY_MISSING",
            next_step="Name the file that holds it; and change the key, which may be in a history or a log by now.",
        )


def _fail(error: SealflowError, as_json: bool) -> NoReturn:
    if as_json:
        body = {"error": {"code": error.code, "message": error.message, "next_step": error.next_step}}
        typer.echo(json.dumps(body, sort_keys=True))
    else:
        typer.secho(f"{error.code}: {error.message}", err=True, fg="red")
        if error.next_step:
            typer.echo(f"  next: {error.next_step}", err=True)
    sys.exit(error.exit_status)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"sealflow {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def sign(
    artifact: Annotated[str, typer.Argument(help="File or folder: path or location (s3://…).")],
    signer: Signer = None,
    certificate: Annotated[str | None, typer.Option(help="PEM chain of the signing key, leaf first.")] = None,
    name: Annotated[str | None, typer.Option(help="Logical name. Default: last part of the location.")] = None,
    evidence_store: _Store = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Leave this exact relative path out, and record that. Repeatable.")
    ] = None,
    timestamp: Annotated[
        str | None,
        typer.Option(metavar="NAME|URL", help="Have this authority say when it was signed (RFC 3161)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign a file or a folder; prints the artifact reference to hand on."""
    from sealflow.actions.sign import sign_artifact

    if certificate is not None:
        if signer is None:
            raise UsageError("--certificate goes with --signer.")
        from urllib.parse import urlencode

        signer += ("&" if "?" in signer else "?") + urlencode({"certificate": certificate})
    with as_command_line(), progress_bar("Signing", as_json) as progress:
        made = sign_artifact(
            artifact,
            signer=signer,
            name=name,
            evidence_store=evidence_store,
            ignore=tuple(ignore or ()),
            timestamp=timestamp,
            passphrase=passphrase,
            progress=progress,
        )
    if as_json:
        print_json(made.as_dict())
        return
    typer.secho("signed", fg="green", bold=True, nl=False)
    typer.echo(f"    {made.ref.uri}  ({made.files} file{'s' * (made.files != 1)}, {size_text(made.size)})")
    typer.echo(f"name      {made.name}")
    typer.echo(f"digest    {made.ref.digest}")
    typer.echo(f"key       {made.key}")
    typer.echo(f"evidence  {made.ref.evidence}")
    typer.echo(f"reference {made.ref.to_json()}")


@app.command()
@grouped
def verify(
    artifact: _Artifact,
    *,
    signers: Signers,
    name: Annotated[str | None, typer.Option(help="Expected logical name.")] = None,
    producer: Annotated[str | None, typer.Option(help="Expected producer, such as 'airflow:train/*'.")] = None,
    file: Annotated[
        list[str] | None, typer.Option("--file", help="Check only this file of a folder. Repeatable.")
    ] = None,
    evidence_store: _Store = None,
    signature: Annotated[
        list[str] | None, typer.Option(help="Bundle file (.sig) to use instead of an evidence store. Repeatable.")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(help="Evidence to demand: signature, provenance. Default: the policy's, or both."),
    ] = None,
    accept_legacy: Annotated[bool, typer.Option("--accept-legacy", help="Accept model-signing 0.2 bundles.")] = False,
    added: AddedPolicy,
    recipient: Annotated[
        list[str] | None,
        typer.Option(help="Key that opens an encrypted artifact. Repeatable. Default: SEALFLOW_RECIPIENTS."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check an artifact where it lies; prints the verdict."""
    from sealflow.actions.verify import verify as check
    from sealflow.evidence import StoredEvidence

    rules, one_more = signers.rules(), added.read()
    given = [StoredEvidence(os.path.basename(path), _read_bundle(path)) for path in signature or ()]
    with as_command_line(), progress_bar("Verifying", as_json) as progress:
        verdict = check(
            artifact,
            identities=rules,
            name=name,
            producer=producer,
            files=file or None,
            evidence_store=evidence_store,
            evidence=given,
            only_given_evidence=bool(given),
            require=require or None,
            policy=one_more,
            accept_legacy=accept_legacy,
            recipients=recipient or None,
            passphrase=passphrase,
            progress=progress,
        )
    if as_json:
        print_json(verdict.as_dict())
    else:
        print_verdict(verdict)
    sys.exit(verdict.exit_status)


@app.command()
def inspect(artifact: _Artifact, evidence_store: _Store = None, as_json: Json = False) -> None:
    """Show what the evidence of an artifact says. Nothing shown here is verified."""
    from sealflow.actions.inspect import describe, inspect_evidence

    bundle = _bundle_at(artifact)
    if bundle is not None:
        items = [{"object": os.path.basename(artifact), **describe(bundle)}]
    else:
        items = inspect_evidence(artifact, evidence_store=evidence_store)
    if as_json:
        print_json({"verified": False, "evidence": items})
        return
    if not items:
        typer.echo("There is no evidence here.")
    from sealflow.findings import printable

    for item in items:
        typer.secho(printable(item["object"]), bold=True)
        for key, value in item.items():
            if key != "object":
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                typer.echo(f"  {key:15} {printable(text, 500)}")


@evidence_app.command()
def export(
    artifact: _Artifact,
    destination: Annotated[str, typer.Argument(help="Folder that receives the files.")] = ".",
    evidence_store: _Store = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of these names.")] = False,
    as_json: Json = False,
) -> None:
    """Write the evidence as .sig (for `model_signing`) and .intoto.jsonl (for in-toto tools)."""
    from sealflow.actions.export import export_evidence

    written = export_evidence(artifact, destination, evidence_store=evidence_store, overwrite=overwrite)
    if as_json:
        print_json({"written": written})
    else:
        for path in written:
            typer.echo(path)


def _bundle_at(path: str) -> bytes | None:
    """Read what is a bundle by its name, or by what it holds: an artifact may be a JSON file too."""
    from sealflow.evidence.bundle import parse_bundle
    from sealflow.evidence.store import is_evidence_name

    if not path.endswith((".sig", ".json")) or not os.path.isfile(path):
        return None
    if path.endswith(".sig") or is_evidence_name(os.path.basename(path)):
        return _read_bundle(path)
    try:
        data = _read_bundle(path)
        parse_bundle(data)
    except SealflowError:
        return None
    return data


def _read_bundle(path: str) -> bytes:
    from sealflow.evidence.bundle import MAX_BUNDLE
    from sealflow.storage.local import LocalStorage

    data = LocalStorage().get(path, MAX_BUNDLE)
    if data is None:
        raise UsageError(f"There is no bundle at {path!r}.")
    return data
