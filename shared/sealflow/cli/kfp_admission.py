"""``sealflow kfp admission``: the server that a Kubernetes API server asks before it takes Workflows and pods."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from sealflow.errors import MissingExtraError


def admission(
    settings: Annotated[str, typer.Option(metavar="FILE", help="The admin's settings of admission, YAML.")],
    certificate: Annotated[str, typer.Option(metavar="FILE", help="PEM chain of the server, leaf first.")],
    key: Annotated[str, typer.Option(metavar="FILE", help="Its PEM key, without a passphrase.")],
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - a pod's
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of reviews, over TLS.")] = 8443,
    status_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of /healthz, /readyz and /metrics, in clear.")
    ] = 8080,
    drain: Annotated[
        float, typer.Option(min=0, max=600, help="Seconds to go on serving after SIGTERM, until everybody knows.")
    ] = 5.0,
    audit: Annotated[
        bool, typer.Option("--audit", help="Judge, and refuse nothing, whatever the settings say.")
    ] = False,
) -> None:
    """Answer admission reviews until SIGTERM. A changed certificate is taken up; changed settings need a restart."""
    server = _server()
    server.run(settings, certificate, key, server.Addresses(address, port, status_port), audit=audit, drain=drain)


def _server() -> Any:
    # By its name: the core knows no orchestrator, and its wheel may come without this part.
    try:
        return import_module("sealflow_kfp.admission.server")
    except ModuleNotFoundError as error:
        if error.name not in ("sealflow_kfp", "h11", "orjson", "prometheus_client"):
            raise
        raise MissingExtraError("The admission server", "admission") from None


def register(app: typer.Typer) -> None:
    """Add the command to ``sealflow kfp``."""
    app.command()(admission)
