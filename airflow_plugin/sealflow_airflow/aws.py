"""S3 with the credentials of an Airflow connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowNotFoundException

from sealflow.errors import MissingExtraError, UsageError
from sealflow.findings import printable

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    from sealflow.storage import Storages
    from sealflow.storage.aws import Clients


def storages(aws_conn_id: str | None) -> Storages:
    """Return storages that reach S3 through ``aws_conn_id``, or through the worker's own AWS configuration.

    Raises:
        MissingExtraError: The amazon provider is not installed.
        UsageError: There is no such connection.
    """
    from sealflow.storage import Storages

    if aws_conn_id is None:
        return Storages()
    return Storages(s3_client=_s3_client(_hook(aws_conn_id, "s3")))


def clients(aws_conn_id: str | None) -> Clients | None:
    """Return what makes clients of other services with the same credentials; ``None``: the worker's own configuration.

    Raises:
        MissingExtraError: The amazon provider is not installed.
        UsageError: There is no such connection.
    """
    if aws_conn_id is None:
        return None
    return lambda service, region: _hook(aws_conn_id, service, region).get_conn()


def _s3_client(hook: AwsBaseHook) -> Any:
    from botocore.config import Config

    from sealflow.storage.s3 import spoken_to

    said = hook.config

    def make(dialect: dict[str, Any]) -> Any:
        # What the connection says itself, wins.
        style = {**dialect.get("s3", {}), **(said.s3 or {})}
        config = Config(**dialect).merge(said).merge(Config(s3=style) if style else Config())
        return hook.get_client_type(region_name=hook.region_name, config=config)

    return spoken_to(make, hook.conn_config.get_service_endpoint_url(service_name="s3"))


def _hook(aws_conn_id: str, service: str, region: str | None = None) -> AwsBaseHook:
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    except ImportError:
        raise MissingExtraError("aws_conn_id", "airflow,aws") from None
    try:
        # Looked up first: given an unknown id, the hook warns and falls back to whatever credentials it finds.
        AwsBaseHook.get_connection(aws_conn_id)
    except AirflowNotFoundException:
        raise UsageError(
            f"The connection {printable(aws_conn_id)!r} does not exist.",
            code="CONNECTION_MISSING",
            next_step="Create it with the type aws, or leave `aws_conn_id` out to use the worker's own configuration.",
        ) from None
    return AwsBaseHook(aws_conn_id=aws_conn_id, client_type=service, region_name=region)
