"""Options that several commands have, in one wording, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealflow.errors import UsageError

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Identity = Annotated[
    list[str] | None,
    typer.Option(help="Who may sign: public key (path, URI) or rule (JSON). Repeatable. Default: SEALFLOW_IDENTITIES."),
]
CertificateRoot = Annotated[
    list[str] | None, typer.Option("--certificate-root", help="PEM root for --certificate-name.")
]
CertificateName = Annotated[
    list[str] | None, typer.Option(help="Accepted name: email:…, dns:…, uri:…, subject:…. Repeatable.")
]
Policy = Annotated[
    str | None, typer.Option(help="One more policy, a draft or a signed one with its key; it can only tighten.")
]
PolicyKey = Annotated[list[str] | None, typer.Option(help="Public key that must have signed --policy. Repeatable.")]
Signer = Annotated[
    str | None, typer.Option(help="Signer URI: file:/key.pem, awskms:alias/name. Default: SEALFLOW_SIGNER.")
]


def identity_rules(
    identity: list[str] | None, root: list[str] | None = None, name: list[str] | None = None
) -> tuple[Any, ...] | None:
    """Return the identity rules that options name, ``None`` where they name none.

    Raises:
        UsageError: A rule that is none, or certificate roots without names.
    """
    from sealflow.policy import parse_identities

    if bool(root) != bool(name):
        raise UsageError("--certificate-root and --certificate-name go together; a root without a name is anybody's.")
    rules = [rule for text in identity or () for rule in parse_identities(text)]
    if root:
        rules += parse_identities({"certificate": {"roots": root, "names": name}})
    return tuple(rules) or None


def added_policy(policy: str | None, keys: list[str] | None) -> CompiledPolicy | None:
    """Return the policy that ``--policy`` adds, a draft or a signed one with ``--policy-key``.

    Raises:
        PolicyError: It cannot be taken.
        UsageError: Keys without a policy.
    """
    if keys and policy is None:
        raise UsageError("--policy-key goes with --policy.")
    if policy is None:
        return None
    from sealflow.actions.policies import read_added

    return read_added(policy, tuple(keys or ()))
