"""`sealflow upload | download | cat | ls | copy | recipients | uploads`: encrypted artifacts, there and back."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealflow.cli.options import AddedPolicy, Group, Json, Signer, Signers, grouped
from sealflow.cli.terminal import as_command_line, passphrase, print_json, print_verdict, progress_bar, size_text
from sealflow.errors import UsageError, VerificationError
from sealflow.findings import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealflow.actions.change_recipients import Changed, Holder
    from sealflow.findings import Verdict

_Artifact = Annotated[str, typer.Argument(help="Location (s3://…), path or artifact reference (JSON text).")]
_Recipient = Annotated[
    list[str] | None,
    typer.Option(
        help="Recipient URI: rsa:/key.pem, aes:/key, awskms:<key ARN>. Repeatable. Default: SEALFLOW_RECIPIENTS."
    ),
]
_Store = Annotated[str | None, typer.Option("--evidence-store", metavar="LOCATION", help="Where the evidence lies.")]
_CopyStore = Annotated[
    str | None,
    typer.Option("--destination-store", metavar="LOCATION", help="Where the copy's evidence goes."),
]
_Name = Annotated[str | None, typer.Option(help="Expected logical name.")]
_Producer = Annotated[str | None, typer.Option(help="Expected producer, such as 'airflow:train/*'.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what lies there.")]


@dataclass(frozen=True, kw_only=True)
class _Trust(Group):
    """What opens an artifact, and what is expected of it."""

    recipient: _Recipient = None
    signers: Signers
    name: _Name = None
    producer: _Producer = None
    evidence_store: _Store = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of an action."""
        return {
            "recipients": self.recipient or None,
            "identities": self.signers.rules(),
            "name": self.name,
            "producer": self.producer,
            "evidence_store": self.evidence_store,
        }


recipients_app = typer.Typer(help="Show or change who can open an encrypted artifact.", no_args_is_help=True)


@recipients_app.callback()
def _recipients() -> None:
    """Show or change who can open an encrypted artifact."""


def upload(
    source: Annotated[str, typer.Argument(help="File or folder: path or location.")],
    destination: Annotated[str, typer.Argument(help="Location of the encrypted object (s3://…) or path.")],
    recipient: _Recipient = None,
    signer: Signer = None,
    name: Annotated[
        str | None, typer.Option(help="Logical name, readable by all. Default: last part of DESTINATION.")
    ] = None,
    evidence_store: _Store = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Leave this exact relative path out, and record that. Repeatable.")
    ] = None,
    overwrite: _Overwrite = False,
    as_json: Json = False,
) -> None:
    """Encrypt, sign and store a file or a folder as one object; prints the reference to hand on.

    An upload to S3 that was interrupted goes on where it stopped when you start it again on this machine.
    """
    from sealflow.actions.upload import upload_artifact

    with as_command_line(), progress_bar("Uploading", as_json) as progress:
        made = upload_artifact(
            source,
            destination,
            recipients=recipient or None,
            signer=signer,
            name=name,
            evidence_store=evidence_store,
            ignore=tuple(ignore or ()),
            overwrite=overwrite,
            passphrase=passphrase,
            progress=progress,
        )
    if as_json:
        print_json(made.as_dict())
        return
    typer.secho("there already" if made.existed else "uploaded", fg="green", bold=True, nl=False)
    files = f"{made.files} file{'s' * (made.files != 1)}, {size_text(made.size)}"
    typer.echo(f"  {made.ref.uri}  ({files}; stored as {size_text(made.stored)})")
    typer.echo(f"name      {printable(made.name)}")
    typer.echo(f"digest    {made.ref.digest}")
    typer.echo(f"key       {made.key}")
    typer.echo(f"evidence  {made.ref.evidence}")
    typer.echo(f"reference {made.ref.to_json()}")


@grouped
def download(
    artifact: _Artifact,
    destination: Annotated[str, typer.Argument(help="Path of the file or folder to make.")],
    *,
    trust: _Trust,
    destination_store: _CopyStore = None,
    added: AddedPolicy,
    overwrite: _Overwrite = False,
    as_json: Json = False,
) -> None:
    """Copy an artifact to a path, verified, and decrypted where it is encrypted: whole or not at all.

    A download of an encrypted artifact that was interrupted goes on with what is there after checking it.
    """
    from sealflow.actions.download import download_artifact

    with _verdicts(as_json), as_command_line(), progress_bar("Downloading", as_json) as progress:
        done = download_artifact(
            artifact,
            destination,
            **trust.arguments(),
            destination_store=destination_store,
            policy=added.read(),
            overwrite=overwrite,
            passphrase=passphrase,
            progress=progress,
        )
    if as_json:
        print_json({"ref": done.ref.as_dict(), "verdict": done.verdict.as_dict()})
        return
    print_verdict(done.verdict)
    typer.echo(f"reference {done.ref.to_json()}")


@grouped
def copy(
    source: _Artifact,
    destination: Annotated[str, typer.Argument(help="Location (s3://…) or path of the copy.")],
    *,
    signer: Signer = None,
    trust: _Trust,
    destination_store: _CopyStore = None,
    added: AddedPolicy,
    overwrite: _Overwrite = False,
    as_json: Json = False,
) -> None:
    """Verify an artifact, copy it as it is with all its evidence, and sign that this was done."""
    from sealflow.actions.copy import promote_artifact

    with _verdicts(as_json), as_command_line(), progress_bar("Verifying", as_json) as progress:
        done = promote_artifact(
            source,
            destination,
            signer=signer,
            **trust.arguments(),
            destination_store=destination_store,
            policy=added.read(),
            overwrite=overwrite,
            passphrase=passphrase,
            progress=progress,
        )
    if as_json:
        body = {"ref": done.ref.as_dict(), "verdict": done.verdict.as_dict(), "existed": done.existed}
        print_json(body)
        return
    print_verdict(done.verdict)
    typer.echo(f"{'there' if done.existed else 'copied to':9} {done.ref.uri}")
    typer.echo(f"reference {done.ref.to_json()}")


@grouped
def cat(
    artifact: _Artifact,
    file: Annotated[
        str | None, typer.Option("--file", help="File in the artifact. Default: the only one there is.")
    ] = None,
    ranged: Annotated[
        str | None, typer.Option("--range", metavar="FIRST-LAST", help="Bytes, from 0, both included: 0-65535, 512-.")
    ] = None,
    *,
    trust: _Trust,
    added: AddedPolicy,
) -> None:
    """Write bytes of one file in an encrypted artifact to standard output; nothing else of it is fetched.

    Each piece is checked against what was signed before it is written.
    """
    from sealflow.actions.reading import reading

    start, length = _range(ranged)
    with (
        _verdicts(False),
        as_command_line(),
        reading(
            artifact,
            **trust.arguments(),
            policy=added.read(),
            passphrase=passphrase,
        ) as found,
    ):
        if file is None and len(found.files) > 1:
            raise UsageError(
                f"The artifact holds {len(found.files)} files.",
                next_step="Name one with --file; `sealflow ls` lists them.",
            )
        for piece in found.pieces(found.files[0].name if file is None else file, start, length):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


@grouped
def ls(
    artifact: _Artifact,
    *,
    trust: _Trust,
    added: AddedPolicy,
    as_json: Json = False,
) -> None:
    """List the files of an encrypted artifact: size, SHA-256 and name, as they were signed."""
    from sealflow.actions.reading import reading

    with (
        _verdicts(as_json),
        as_command_line(),
        reading(
            artifact,
            **trust.arguments(),
            policy=added.read(),
            passphrase=passphrase,
        ) as found,
    ):
        files, verdict = found.files, found.verdict
    if as_json:
        listed = [
            {"name": item.name, "size": item.size, "sha256": item.sha256, "executable": item.executable}
            for item in files
        ]
        print_json({"files": listed, "verdict": verdict.as_dict()})
        return
    for item in files:
        typer.echo(f"{item.size:>14} {item.sha256} {'x' if item.executable else ' '} {printable(item.name, 4096)}")


@recipients_app.command("list")
def list_all(artifact: _Artifact, as_json: Json = False) -> None:
    """Show who can open an artifact, as its header says. No key is needed; nothing shown here is verified."""
    from sealflow.actions.change_recipients import list_recipients

    holders = list_recipients(artifact)
    if as_json:
        print_json({"verified": False, "recipients": [item.as_dict() for item in holders]})
        return
    for item in holders:
        _print_holder(item)


@recipients_app.command()
@grouped
def add(
    artifact: _Artifact,
    who: Annotated[list[str], typer.Argument(metavar="URI...", help="Recipient URIs to add.")],
    *,
    recipient: _Recipient = None,
    signer: Signer = None,
    signers: Signers,
    name: _Name = None,
    evidence_store: _Store = None,
    as_json: Json = False,
) -> None:
    """Write an artifact anew under a new data key, so that these can open it too. --recipient opens it."""
    _change(artifact, as_json, signer, signers.rules(), name, evidence_store, recipient, add=who)


@recipients_app.command()
@grouped
def remove(
    artifact: _Artifact,
    who: Annotated[list[str], typer.Argument(metavar="WHO...", help="Recipient URIs, or names as `list` shows them.")],
    *,
    recipient: _Recipient = None,
    signer: Signer = None,
    signers: Signers,
    name: _Name = None,
    evidence_store: _Store = None,
    as_json: Json = False,
) -> None:
    """Write an artifact anew under a new data key, so that these cannot open it. --recipient opens it.

    Whoever could open it may have kept what was in it, and copies of the old object.
    """
    _change(artifact, as_json, signer, signers.rules(), name, evidence_store, recipient, remove=who)


def _change(
    artifact: str,
    as_json: bool,
    signer: str | None,
    identities: Any,
    name: str | None,
    evidence_store: str | None,
    recipient: list[str] | None,
    **change: Any,
) -> None:
    from sealflow.actions.change_recipients import change_recipients

    with _verdicts(as_json), as_command_line(), progress_bar("Writing", as_json) as progress:
        done: Changed = change_recipients(
            artifact,
            recipients=recipient or None,
            signer=signer,
            identities=identities,
            name=name,
            evidence_store=evidence_store,
            passphrase=passphrase,
            progress=progress,
            **change,
        )
    if as_json:
        holders = [item.as_dict() for item in done.holders]
        print_json({"ref": done.ref.as_dict(), "recipients": holders, "verdict": done.verdict.as_dict()})
        return
    typer.secho("written anew", fg="green", bold=True, nl=False)
    typer.echo(f"  {done.ref.uri}")
    for item in done.holders:
        _print_holder(item)
    typer.echo(f"reference {done.ref.to_json()}")


def uploads(
    location: Annotated[str, typer.Argument(help="Object, folder or bucket (s3://…).")],
    abort: Annotated[
        bool, typer.Option("--abort", help="Remove what is listed. Nobody can go on with it then.")
    ] = False,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Only those begun so long ago: 90m, 24h, 30d.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List uploads that were begun and never finished; stores charge for them and show them nowhere."""
    from sealflow.actions.uploads import unfinished_uploads

    with as_command_line():
        found = unfinished_uploads(location, older_than=older_than, abort=abort)
    if as_json:
        print_json({"aborted": abort, "uploads": [item.as_dict() for item in found]})
        return
    for item in found:
        typer.echo(f"{'aborted' if abort else 'since':8} {item.since}  {printable(item.uri)}")
    if not found:
        typer.echo("There is no unfinished upload here.")


def _print_holder(item: Holder) -> None:
    typer.echo(f"recipient {printable(item.provider)}:{printable(item.name)}")


def _range(text: str | None) -> tuple[int, int | None]:
    if text is None:
        return 0, None
    match = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})?", text)
    if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
        raise UsageError("A range is written FIRST-LAST or FIRST-, bytes from 0, such as 0-65535.")
    start = int(match[1])
    return start, None if match[2] is None else int(match[2]) - start + 1


@contextmanager
def _verdicts(as_json: bool) -> Iterator[None]:
    """Print the verdict of a refusal as `sealflow verify` prints it."""
    try:
        yield
    except VerificationError as error:
        verdict: Verdict = error.verdict
        if as_json:
            print_json({"verdict": verdict.as_dict()})
        else:
            print_verdict(verdict)
        sys.exit(verdict.exit_status)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (upload, download, cat, ls, copy, uploads):
        app.command()(command)
    app.add_typer(recipients_app, name="recipients")
