"""What every server of the tests needs: a folder of its own, free ports, a certificate, an end with its test run."""

from __future__ import annotations

import ctypes
import datetime
import fcntl
import http.client
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_PR_SET_PDEATHSIG = 1


def make_certificate(home: Path) -> None:
    """A certificate for this machine's loopback, its own authority, for some days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (home / "tls.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (home / "tls.key").touch(mode=0o600)
    (home / "tls.key").write_bytes(private)


def private_folder(stack: ExitStack, prefix: str, room: int) -> Path:
    """A folder for one server with so many bytes of room, which goes with it."""
    place = _place(room)
    # A run that was killed outright left its folder, perhaps gigabytes of memory. The lock in it
    # ended with the run: the daemons do not inherit it.
    for left in Path(place).glob(f"{prefix}*"):
        with suppress(OSError), (left / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
    home = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    stack.callback(shutil.rmtree, home, ignore_errors=True)
    fcntl.flock(stack.enter_context((home / "lock").open("wb")), fcntl.LOCK_EX)
    return home


def _place(room: int) -> str:
    """A folder with a short name (sockets' paths are limited) and room, in memory if it can be."""
    memory = "/dev/shm"
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= room:
        return memory
    return tempfile.gettempdir()


def free_ports(count: int) -> list[int]:
    """So many ports that are free now; another process can take one before a server binds it."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def die_with_parent() -> None:
    """End with the process that started this one; for ``preexec_fn``."""
    # A test run that is killed outright cannot clean up; the kernel then ends the daemons.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def answers(port: int, path: str, authority: str | None = None) -> bool:
    """Whether a server on a port says 200 to a GET of a path, over TLS where an authority (a PEM file) is named."""
    if authority is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    else:
        context = ssl.create_default_context(cafile=authority)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
