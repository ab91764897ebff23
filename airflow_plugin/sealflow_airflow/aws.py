"""S3 with the credentials of an Airflow connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowNotFoundException

from sealflow.errors import MissingExtraError, UsageError
from sealflow.findings import printable

if TYPE_CHECKING:
    from sealflow.storage import Storages


def storages(aws_conn_id: str | None) -> Storages:
    """Return storages that reach S3 through ``aws_conn_id``, or through the worker's own AWS configuration.

    Raises:
        MissingExtraError: The amazon provider is not installed.
        UsageError: There is no such connection.
    """
    from sealflow.storage import Storages

    if aws_conn_id is None:
        return Storages()
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
    return Storages(s3_client=AwsBaseHook(aws_conn_id=aws_conn_id, client_type="s3").get_conn())
