"""How the client of a store is made from the surroundings: as AWS is spoken to, or as its imitators understand it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import botocore
import pytest

from sealflow.errors import UsageError
from sealflow.storage.aws import is_aws_url
from sealflow.storage.s3 import S3Storage

AWS = ("when_supported", "when_supported", None, None)
PLAIN = ("when_required", "when_required", "path", None)
TLS = ("when_required", "when_required", "path", False)


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SK")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


def spoken(client: Any) -> tuple[Any, ...]:
    config = client.meta.config
    style = config.s3 or {}
    return (
        config.request_checksum_calculation,
        config.response_checksum_validation,
        style.get("addressing_style"),
        style.get("payload_signing_enabled"),
    )


@pytest.mark.parametrize(
    ("uri", "variables", "endpoint", "expected"),
    [
        pytest.param("s3://b/k", {}, "https://s3.eu-central-1.amazonaws.com", AWS, id="aws"),
        pytest.param(
            "s3://b/k",
            {"AWS_ENDPOINT_URL_S3": "https://bucket.vpce-1a2b.s3.eu-central-1.vpce.amazonaws.com"},
            "https://bucket.vpce-1a2b.s3.eu-central-1.vpce.amazonaws.com",
            AWS,
            id="aws-in-a-private-network",
        ),
        pytest.param(
            "s3://b/k", {"AWS_ENDPOINT_URL_S3": "https://ceph.example:9000"}, "https://ceph.example:9000", TLS, id="tls"
        ),
        pytest.param("s3://b/k", {"AWS_ENDPOINT_URL": "http://ceph.example"}, "http://ceph.example", PLAIN, id="plain"),
        pytest.param("minio://b/k", {}, "http://minio-service.kubeflow:9000", PLAIN, id="kubeflow"),
        pytest.param(
            "s3://b/k",
            {"AWS_ENDPOINT_URL_S3": "https://s3.amazonaws.com.example"},
            "https://s3.amazonaws.com.example",
            TLS,
            id="only-named-like-aws",
        ),
    ],
)
def test_a_store_is_spoken_to_as_it_understands(
    monkeypatch: pytest.MonkeyPatch, uri: str, variables: dict[str, str], endpoint: str, expected: tuple[Any, ...]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    client = S3Storage().client(uri)
    assert client.meta.endpoint_url == endpoint
    assert spoken(client) == expected


def test_an_endpoint_that_a_profile_names_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile store]\nendpoint_url = https://ceph.example:9000\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "store")
    client = S3Storage().client("s3://b/k")
    assert client.meta.endpoint_url == "https://ceph.example:9000"
    assert spoken(client) == TLS


@pytest.mark.parametrize("endpoint", ["http://[::1", "no url", "https://"])
def test_an_endpoint_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(UsageError, match="no way to reach S3"):
        S3Storage().client("s3://b/k")


def test_each_partition_of_aws_is_aws() -> None:
    data = json.loads((Path(botocore.__file__).parent / "data" / "partitions.json").read_bytes())
    domains = [partition["outputs"]["dnsSuffix"] for partition in data["partitions"]]
    assert len(domains) > 5
    assert [domain for domain in domains if not is_aws_url(f"https://s3.region-1.{domain}")] == []
    assert not any(
        is_aws_url(f"https://s3.{domain}.example") or is_aws_url(f"https://not{domain}") for domain in domains
    )
