"""``sealflow kfp doctor``: how a cluster with Kubeflow Pipelines is set up."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from sealflow.cli.options import Json, Skip, skipped
from sealflow.cli.terminal import as_command_line, print_checks
from sealflow.errors import EXIT_OK, MissingExtraError, UsageError
from sealflow.findings import printable

_ROUTES = ("admission", "kyverno", "spec-patch")
_SUBJECT = re.compile(r"(?:User|Group) \S(?:.{0,250}\S)?|ServiceAccount [a-z0-9.-]{1,253}/[a-z0-9.-]{1,253}")
# RFC 1123 label, as Kubernetes names namespaces.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def doctor(
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            help="Namespace whose runs must be guarded. Repeatable. Default: that of KFP, every profile, and all with "
            "the gates' label or with Workflows."
        ),
    ] = None,
    kubeflow_namespace: Annotated[str, typer.Option(help="Namespace of Kubeflow Pipelines.")] = "kubeflow",
    settings: Annotated[
        str | None, typer.Option(metavar="FILE", help="Settings of admission: what every task is to get.")
    ] = None,
    secret: Annotated[str | None, typer.Option(help="Secret with settings and keys, without --settings.")] = None,
    policy_config_map: Annotated[
        str | None, typer.Option(help="Config map with admin.json, without --settings.")
    ] = None,
    route: Annotated[
        list[str] | None,
        typer.Option(
            help="Route that must be taken: admission, kyverno or spec-patch. Repeatable. Default: what is there."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUBJECT",
            help="Who may do what would undo the guard: 'User NAME', 'Group NAME' or "
            "'ServiceAccount NAMESPACE/NAME'. Repeatable.",
        ),
    ] = None,
    account: Annotated[
        list[str] | None,
        typer.Option(help="Service account of tasks, beside pipeline-runner and default-editor. Repeatable."),
    ] = None,
    days: Annotated[int, typer.Option(min=0, max=3650, help="How long certificates must still be good for.")] = 14,
    probe: Annotated[
        bool, typer.Option("--probe", help="Have the cluster judge an unguarded pod, as a dry run that makes none.")
    ] = False,
    skip: Skip = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Exit with 0 whatever was found, if it could be asked.")
    ] = False,
    kubectl: Annotated[str, typer.Option(metavar="PATH", help="The program kubectl.")] = "kubectl",
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig. Default: the current one.")] = None,
    timeout: Annotated[int, typer.Option(min=1, max=600, help="Seconds that one question may take.")] = 20,
    time_limit: Annotated[int, typer.Option(min=1, max=7200, help="Seconds that all may take together.")] = 300,
    as_json: Json = False,
) -> None:
    """Check how a cluster enforces the guard: PASS, FAIL or UNKNOWN for each check.

    Asked through kubectl, with the rights of whoever calls; nothing is changed, and no secret is read. UNKNOWN, such
    as a missing permission, never counts as PASS: the exit status is 3 where something failed, else 5 where something
    is unknown.
    """
    with as_command_line():
        found = _examine(
            _wanted(
                kubeflow=_name(kubeflow_namespace),
                namespaces=tuple(dict.fromkeys(map(_name, namespace or ()))),
                settings=settings,
                secret=secret,
                policy_config_map=policy_config_map,
                routes=frozenset(map(_route, route or ())),
                allowed=frozenset(map(_subject, allow or ())),
                accounts=tuple(map(_name, account or ())),
                days=days,
                probe=probe,
            ),
            kubectl,
            context,
            timeout,
            time_limit,
            skipped(skip),
        )
    print_checks(found, as_json)
    sys.exit(EXIT_OK if report_only else found.verdict.exit_status)


def _wanted(*, settings: str | None, secret: str | None, policy_config_map: str | None, **others: Any) -> Any:
    package = _module("sealflow_kfp.doctor")
    guard = _module("sealflow_kfp.guard_command")
    if settings is None:
        mounts = guard.GuardMounts(
            "",
            guard.resource_name(secret, "secret"),
            guard.resource_name(policy_config_map, "config map"),
        )
        return package.Wanted(mounts=mounts, **others)
    if secret is not None or policy_config_map is not None:
        raise UsageError("--settings names secret and config map already.", next_step="Leave the others out.")
    read = _module("sealflow_kfp.admission.settings").load_settings(settings)
    return package.Wanted(mounts=read.guard.mounts, settings=read, **others)


def _examine(
    wanted: Any, kubectl: str, context: str | None, timeout: int, time_limit: int, skip: dict[str, str]
) -> Any:
    package = _module("sealflow_kfp.doctor")
    cluster = package.Kubectl(kubectl, context, timeout=timeout, budget=time_limit)
    return package.examine(cluster, wanted, skip=skip)


def _module(name: str) -> Any:
    # By its name: the core knows no orchestrator, and its wheel may come without this part.
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("sealflow_kfp"):
            raise
        raise MissingExtraError("Looking at a cluster", "kfp") from None


def _name(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise UsageError(f"{printable(text, 80)!r} is no name that Kubernetes gives to namespaces and accounts.")
    return text


def _route(text: str) -> str:
    if text not in _ROUTES:
        raise UsageError(f"There is no route {printable(text, 80)!r}.", next_step=f"Use {', '.join(_ROUTES)}.")
    return text


def _subject(text: str) -> str:
    if not _SUBJECT.fullmatch(text):
        raise UsageError(
            f"--allow {printable(text, 80)!r} names nobody.",
            next_step="Write 'User NAME', 'Group NAME' or 'ServiceAccount NAMESPACE/NAME'.",
        )
    return text


def register(app: typer.Typer) -> None:
    """Add the command to ``sealflow kfp``."""
    app.command()(doctor)
