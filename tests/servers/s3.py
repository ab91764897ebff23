"""What a test sees of an S3 server, whichever program serves it."""

from __future__ import annotations

import functools
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

# Clients may be used by several threads, but not made.
_one_by_one = threading.Lock()


@functools.cache
def _session() -> Any:
    """One for all clients: each session reads the description of S3 anew, which takes 100 ms."""
    import boto3

    return boto3.session.Session()


@dataclass(frozen=True)
class S3Server:
    """A running S3 server, the key of one user who owns everything on it, and what it is."""

    endpoint_url: str
    access_key: str
    secret_key: str
    kind: str  # "ceph", "seaweedfs", "juicefs" or "moto"
    region: str = "us-east-1"
    secure_url: str = ""  # the same over TLS, where there is one
    ca: str = ""  # who vouches for it: a PEM file

    def secure(self) -> S3Server:
        """The same server over TLS."""
        return replace(self, endpoint_url=self.secure_url)

    def client(self, service: str = "s3", **config: Any) -> Any:
        """A boto3 client; ``config`` goes to ``botocore.config.Config``."""
        from botocore.config import Config

        defaults: dict[str, Any] = {
            "s3": {"addressing_style": "path"},
            # A server that went away is a failed test at once, not after a minute of retries.
            "connect_timeout": 5,
            "read_timeout": 60,
            "retries": {"total_max_attempts": 2},
        }
        with _one_by_one:
            return _session().client(
                service,
                endpoint_url=self.endpoint_url,
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
                region_name=self.region,
                config=Config(**(defaults | config)),
                verify=self.ca or None,
            )

    def make_bucket(self, *, versioned: bool = False) -> str:
        """Make a bucket that no other test knows, and return its name."""
        client = self.client()
        name = f"t-{secrets.token_hex(8)}"
        client.create_bucket(Bucket=name)
        if versioned:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a subprocess reaches this server and no other."""
        authority = {"AWS_CA_BUNDLE": self.ca} if self.endpoint_url.startswith("https:") else {}
        return authority | {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """moto's S3 in a thread of this process: a mock, and slow with large objects."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}", "AKTEST", "SKTEST", "moto")
    finally:
        server.stop()
