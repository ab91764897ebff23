"""A single-node Ceph RADOS Gateway: one monitor, one OSD, one gateway, nothing left behind.

Runs as any user, from Debian's packages ceph-mon, ceph-osd, radosgw and ceph-common.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import uuid
from contextlib import AbstractContextManager, ExitStack
from functools import partial

from tests.servers.loopback import (
    Daemon,
    ServerError,
    answers,
    free_ports,
    make_certificate,
    private_folder,
    started,
)
from tests.servers.s3 import S3Server

PROGRAMS = (
    "ceph",
    "ceph-authtool",
    "ceph-mon",
    "ceph-osd",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
)
PACKAGES = "ceph-mon ceph-osd radosgw ceph-common"

DISK = 8 << 30  # the sparse file that is the OSD's disk; a full OSD blocks writes without an error

# Not obvious:
# - cephx stays on: without authentication the gateway never gets past its first request.
# - no manager runs, so placement groups are fixed and the crush map is written by hand.
# - without tcp_nodelay each answer with a body waits 40 ms: Nagle's algorithm meets delayed acknowledgement.
# - garbage goes after seconds; by default overwritten parts stay for two hours and fill the disk.
CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port}/0]
keyring = {home}/keyring
public network = 127.0.0.0/8
ms bind ipv6 = false
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd crush update on start = false
osd objectstore = {store}
osd memory target = 1610612736
bluestore block size = {disk}
memstore device bytes = {disk}
mon allow pool size one = true
mon warn on pool no redundancy = false
run dir = {home}
log file = {home}/$name.log
admin socket = {home}/$name.asok
[mon.a]
mon data = {home}/mon
[osd.0]
osd data = {home}/osd
[client.rgw.a]
rgw frontends = beast tcp_nodelay=1 endpoint=127.0.0.1:{rgw_port} ssl_endpoint=127.0.0.1:{tls_port} \\
  ssl_certificate={home}/tls.pem ssl_private_key={home}/tls.key
rgw data = {home}/rgw
rgw dns name = localhost
rgw enable usage log = false
rgw enable ops log = false
rgw gc obj min wait = 1
rgw gc processor period = 2
rgw gc processor max time = 2
rgw gc max concurrent io = 20
rgw gc max trim chunk = 64
"""


def missing_programs() -> list[str]:
    """Names of the programs that are not installed; empty when a cluster can be started."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def ceph_rgw(disk: int = DISK) -> AbstractContextManager[S3Server]:
    """Start a cluster with one S3 user and a disk of so many bytes, and stop it whatever happens."""
    # The last keeps objects in memory: BlueStore wants direct I/O, which not every file system has.
    stores = ("bluestore", "bluestore", "memstore")
    return started("Ceph", (partial(_start, store=store, disk=disk) for store in stores))


def _start(stack: ExitStack, store: str, disk: int) -> S3Server:
    home = private_folder(stack, "sf-ceph-", disk)
    for folder in ("mon", "osd", "rgw"):
        (home / folder).mkdir()
    fsid, osd_id = str(uuid.uuid4()), str(uuid.uuid4())
    mon_port, rgw_port, tls_port = free_ports(3)
    access_key, secret_key = "AK" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30)
    (home / "ceph.conf").write_text(
        CONFIGURATION.format(
            home=home, fsid=fsid, store=store, disk=disk, mon_port=mon_port, rgw_port=rgw_port, tls_port=tls_port
        )
    )
    make_certificate(home)
    # Nothing of the caller's environment: CEPH_ARGS, PYTHONPATH and the like would reach the tools.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    conf = ("-c", str(home / "ceph.conf"))

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise ServerError(f"{store}: {program} {arguments[0]}…: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def daemon(program: str, *arguments: str) -> Daemon:
        return Daemon(stack, [program, "-f", *arguments, *conf], home / f"{program}.out", environment, home)

    keyring = str(home / "keyring")
    run("ceph-authtool", "-C", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
    for name in ("client.admin", "client.rgw.a"):
        run("ceph-authtool", keyring, "--gen-key", "-n", name, *everything)
    osd_capabilities = ("--cap", "mon", "allow profile osd", "--cap", "osd", "allow *")
    run("ceph-authtool", keyring, "--gen-key", "-n", "osd.0", *osd_capabilities)
    monmap = str(home / "monmap")
    address = f"[v2:127.0.0.1:{mon_port}]"
    run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)

    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring, *conf)
    monitor = daemon("ceph-mon", "-i", "a")
    run("ceph", *conf, "osd", "new", osd_id, "0")
    run("ceph", *conf, "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
    monitor.check()

    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id, *conf)
    daemon("ceph-osd", "-i", "0").wait_until(lambda: "1 up" in run("ceph", *conf, "osd", "stat"), 60)

    daemon("radosgw", "-n", "client.rgw.a").wait_until(lambda: answers(rgw_port, "/"), 120)
    keys = (f"--access-key={access_key}", f"--secret-key={secret_key}")
    run("radosgw-admin", *conf, "user", "create", "--uid=t", "--display-name=t", *keys)
    return S3Server(
        f"http://127.0.0.1:{rgw_port}",
        access_key,
        secret_key,
        "ceph",
        secure_url=f"https://127.0.0.1:{tls_port}",
        ca=str(home / "tls.pem"),
    )
