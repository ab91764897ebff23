"""`sealflow keys`: the keys with which artifacts, policies and logs are signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealflow.cli.options import Json
from sealflow.cli.terminal import as_command_line, new_passphrase, passphrase, print_json
from sealflow.findings import printable

if TYPE_CHECKING:
    from sealflow.actions.keys_list import Trust
    from sealflow.keys import PublicKey

keys_app = typer.Typer(help="Make signing keys, take them in, list them, replace them.", no_args_is_help=True)

_Encrypt = Annotated[
    bool,
    typer.Option("--encrypt", help="Encrypt it with the passphrase in SEALFLOW_KEY_PASSPHRASE, or ask for one."),
]


@keys_app.callback()
def _root() -> None:
    pass


@keys_app.command()
def generate(
    path: Annotated[str, typer.Argument(help="Where the private key goes; the public one goes to PATH.pub.")],
    algorithm: Annotated[str, typer.Option(help="p256, p384, p521, or ed25519 (attestations only).")] = "p256",
    encrypt: _Encrypt = False,
    as_json: Json = False,
) -> None:
    """Make a key pair. Never writes over a file."""
    from sealflow.actions.keys_generate import generate_key

    with as_command_line():
        public = generate_key(path, algorithm=algorithm, passphrase=new_passphrase(path) if encrypt else None)
    _print_pair(path, public, as_json)


@keys_app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="PEM, DER, PKCS#8, PKCS#12 or OpenSSH file with a private key.")],
    path: Annotated[str, typer.Argument(help="Where the private key goes; the public one goes to PATH.pub.")],
    encrypt: Annotated[
        bool | None,
        typer.Option(
            "--encrypt/--no-encrypt",
            help="Encrypt it with the passphrase in SEALFLOW_KEY_PASSPHRASE, or ask for one. Default: as it was.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take in a key that another tool made. Never writes over a file, and refuses keys that can be guessed."""
    from sealflow.actions.keys_import import import_key

    with as_command_line():
        made = import_key(source, path, passphrase=passphrase, new_passphrase=new_passphrase, encrypt=encrypt)
    more = {
        "encrypted": made.encrypted,
        "certificates": f"{path}.crt" if made.certificates else None,
        "warnings": list(made.warnings),
    }
    _print_pair(path, made.public, as_json, more)
    if not as_json:
        if made.certificates:
            typer.echo(f"certificate  {path}.crt  (sign with file:{path}?certificate={path}.crt)")
        for text in made.warnings:
            typer.secho(f"! {text}", fg="yellow", err=True)


@keys_app.command("list")
def list_(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Public keys or certificates: path, URI. Default: all of the policy."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draft or signed policy. Default: the one in force here.")
    ] = None,
    revocations: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draft or signed list. Default: the one in force here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show who each key is, what it is trusted for, until when, and whether it was revoked."""
    from sealflow.actions.keys_list import list_keys

    found = list_keys(keys or (), policy=policy, revocations=revocations)
    if as_json:
        print_json(found.as_dict())
        return
    typer.echo(f"policy       {printable(found.policy)}  ({found.believed})" if found.policy else "policy       none")
    typer.echo(f"revocations  {printable(found.revocations) or 'none asked'}")
    for item in found.keys:
        what = f"{item.key}  {item.algorithm}" if item.key else printable(", ".join(item.names), 500)
        typer.secho(f"\n{what}", bold=True)
        for source in item.sources:
            typer.echo(f"  named      {printable(source)}" if source else "  named      as text")
        if item.revoked is not None:
            typer.secho(f"  revoked    since {item.revoked.since:%Y-%m-%d %H:%M} UTC: {item.revoked.reason}", fg="red")
        for trust in item.trust:
            _print_trust(trust)
        if not item.trust:
            typer.echo("  trusted    for nothing")
        for text in item.warnings:
            typer.secho(f"  ! {printable(text)}", fg="yellow")


_STATES = {"valid": "green", "not yet": "yellow", "expired": "red", "revoked": "red"}


def _print_trust(trust: Trust) -> None:
    window = " ".join(
        f"{word} {when:%Y-%m-%d}" for word, when in (("from", trust.valid_from), ("until", trust.expires)) if when
    )
    typer.echo(f"  {trust.role:9}  {trust.identity}  ", nl=False)
    typer.secho(trust.state, fg=_STATES[trust.state], nl=False)
    typer.echo(f"  {window}" if window else "")
    for label, values in (("for", trust.producers), ("builders", trust.builders)):
        if values:
            typer.echo(f"             {label} {printable(', '.join(values), 500)}")
    for name, places in trust.rules:
        typer.echo(f"             rule {name}: {printable(', '.join(places), 500)}")


@keys_app.command()
def rotate(
    old: Annotated[str, typer.Argument(help="Public key that is replaced: path, URI or PEM text.")],
    new: Annotated[str, typer.Argument(help="Signer URI of the new key; its public key is enough without artifacts.")],
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARTIFACT]...", help="Check these under OLD, then sign the same payloads with NEW."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="DRAFT", help="Draft in which both keys are to count for a while.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new identity. Default: the old one's, dated.")] = None,
    days: Annotated[int, typer.Option(help="How long the old key counts beside the new one.")] = 30,
    evidence_store: Annotated[
        str | None, typer.Option("--evidence-store", metavar="LOCATION", help="Where the evidence lies.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replace a key: open the window in the policy's draft, and give old artifacts bundles of the new key.

    What is there already stays as it is, so it can be run again after a stop.
    """
    from sealflow.actions.keys_rotate import Resigned, rotate_artifacts, rotate_in_draft
    from sealflow.actions.sign import open_signer
    from sealflow.audit.event import utc_now
    from sealflow.errors import UsageError
    from sealflow.keys import load_public_key

    if policy is None and not artifacts:
        raise UsageError("There is nothing to do.", next_step="Give --policy, the draft, or artifacts, or both.")

    def told(item: Resigned) -> None:
        if as_json:
            return
        colour = {"passed": "green", "failed": "red"}.get(item.verdict.status, "yellow")
        typer.secho(item.verdict.status, fg=colour, nl=False)
        typer.echo(f"    {printable(item.artifact)}  ({len(item.added)} added, {item.present} there already)")
        for finding in item.verdict.findings:
            if finding.severity in ("refusal", "unverifiable"):
                typer.secho(f"  {finding.line()}", fg=colour)

    body: dict[str, Any] = {}
    done: list[Resigned] = []
    with as_command_line():
        old_key = load_public_key(old)
        signer = open_signer(new, passphrase) if artifacts else None
        new_key = signer.public_key if signer is not None else load_public_key(new)
        body |= {"old": f"sha256:{old_key.hint}", "new": f"sha256:{new_key.hint}"}
        if policy is not None:
            window = rotate_in_draft(policy, old=old_key, new=new_key, start=utc_now(), days=days, name=name)
            body["policy"] = {
                "draft": policy,
                "changed": window.changed,
                "identities": dict(window.identities),
                "notes": list(window.notes),
            }
            if not as_json:
                for before, after in window.identities.items():
                    typer.echo(
                        f"identity  {before} -> {after}  in {policy}" + ("" if window.changed else "  (as it was)")
                    )
                for note in window.notes:
                    typer.secho(f"! {note}", fg="yellow")
                typer.echo(f"next: sealflow policy check {policy}, sign it, and let tasks sign with ?also=")
        if artifacts and signer is not None:
            done = rotate_artifacts(
                artifacts, old=old_key, signer=signer, evidence_store=evidence_store, passphrase=passphrase, told=told
            )
            body["artifacts"] = [item.as_dict() for item in done]
    if as_json:
        print_json(body)
    raise typer.Exit(max((item.verdict.exit_status for item in done), default=0))


def _print_pair(path: str, public: PublicKey, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    body = {
        "private_key": path,
        "public_key": path + ".pub",
        "algorithm": public.algorithm,
        "key": f"sha256:{public.hint}",
        **(more or {}),
    }
    if as_json:
        print_json(body)
        return
    typer.echo(f"private key  {path}  (keep it; readable by you only)")
    typer.echo(f"public key   {path}.pub  (hand it to those who verify)")
    typer.echo(f"fingerprint  sha256:{public.hint}")
