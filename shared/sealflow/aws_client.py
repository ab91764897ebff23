"""Clients of AWS, and of stores and services that speak its language: the same that boto3 hands out, made in one place.

They are made by botocore, which boto3 only passes them on from. boto3's own additions, resources and transfers, go
unused here, and their imports take a fifth of the time until the first request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sealflow.collector import rare_collection
from sealflow.errors import MissingExtraError, UsageError
from sealflow.findings import printable


def make_client(
    what: str,
    service: str,
    *,
    region: str | None = None,
    endpoint: str | None = None,
    next_step: str = "Check the AWS configuration; a region is named by AWS_REGION.",
    config: Mapping[str, Any] | None = None,
) -> Any:
    """Return a client from the process's own configuration.

    Args:
        what: The service in a reader's words.
        service: The service in AWS's.
        region: By default what the configuration says.
        endpoint: URL, by default AWS's own or what the configuration says.
        next_step: What to do when there is no way to make one.
        config: Arguments of ``botocore.config.Config``.

    Raises:
        MissingExtraError: The extra ``boto3`` is not installed.
        UsageError: The configuration cannot work.
    """
    with rare_collection():
        try:
            import botocore.session
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise MissingExtraError(what, "boto3") from None
        # A session of its own: one must not be shared between threads.
        session = botocore.session.get_session()
        made = Config(**(config or {}))
        try:
            return session.create_client(service, region_name=region, endpoint_url=endpoint, config=made)
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"There is no way to reach {what}: {printable(error, 200)}", next_step=next_step) from None
