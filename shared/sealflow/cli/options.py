"""Options that several commands have, in one wording, and what is made of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from sealflow.errors import UsageError

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy

G = TypeVar("G", bound="Group")

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
    str | None, typer.Option(help="Signer URI: file:/key.pem, awskms:alias/name, pkcs11:… Default: SEALFLOW_SIGNER.")
]
AuditInbox = Annotated[
    str | None,
    typer.Option(
        "--inbox",
        metavar="LOCATION",
        help="sqlite:/path.db, postgresql://host/database or s3://bucket/prefix. Default: SEALFLOW_AUDIT_INBOX.",
    ),
]
AuditLog = Annotated[
    str | None,
    typer.Option(
        "--log", metavar="LOCATION", help="The log: a folder or s3://bucket/prefix. Default: SEALFLOW_AUDIT_LOG."
    ),
]
AuditLogKey = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", help="The log's verifier key, or its file. Default: SEALFLOW_AUDIT_LOG_KEY."),
]

Skip = Annotated[
    list[str] | None, typer.Option(metavar="CHECK=REASON", help="Leave a check out, and say why. Repeatable.")
]


class Group:
    """Options that go together: a dataclass with one field an option, or a group of its own.

    A command marked with :func:`grouped` takes them as one keyword-only parameter.
    """


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options: each stands in its signature where its options stand in the help."""
    signature, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if _is_group(hint)}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name in groups:
            parameters += _options(groups[parameter.name])
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        made = {name: _made(group, given) for name, group in groups.items()}
        command(**{name: made[name] if name in made else given[name] for name in signature.parameters})

    # What typer reads. A name that two options would share is refused here.
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters} | {"return": None}
    return run


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Group)


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    found: list[inspect.Parameter] = []
    for item in fields(group):
        hint = hints[item.name]
        default = inspect.Parameter.empty if item.default is MISSING else item.default
        option = inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        found += _options(hint) if _is_group(hint) else [option]
    return found


def _made(group: type[G], given: Mapping[str, Any]) -> G:
    hints = get_type_hints(group, include_extras=True)
    values = {name: _made(hint, given) if _is_group(hint) else given[name] for name, hint in hints.items()}
    return group(**values)


@dataclass(frozen=True, kw_only=True)
class Signers(Group):
    """Who may have signed."""

    identity: Identity = None
    certificate_root: CertificateRoot = None
    certificate_name: CertificateName = None

    def rules(self) -> tuple[Any, ...] | None:
        """Return the rules, see :func:`identity_rules`."""
        return identity_rules(self.identity, self.certificate_root, self.certificate_name)


@dataclass(frozen=True, kw_only=True)
class AddedPolicy(Group):
    """One more policy."""

    policy: Policy = None
    policy_key: PolicyKey = None

    def read(self) -> CompiledPolicy | None:
        """Return the policy, see :func:`added_policy`."""
        return added_policy(self.policy, self.policy_key)


def skipped(texts: list[str] | None) -> dict[str, str]:
    """Return the reasons of ``--skip`` by check.

    Raises:
        UsageError: A text without ``=``, or a second one for its check.
    """
    from sealflow.findings import printable

    reasons: dict[str, str] = {}
    for text in texts or ():
        name, given, reason = text.partition("=")
        if not given or name in reasons:
            raise UsageError(f"--skip {printable(text, 80)} is no CHECK=REASON, or the second one for its check.")
        reasons[name] = reason
    return reasons


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
