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
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_PR_SET_PDEATHSIG = 1

T = TypeVar("T")


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


class ServerError(RuntimeError):
    """A server did not come up."""


def installed(name: str) -> str | None:
    """The path of a program: the one that a wheel put beside this interpreter, or any; ``None`` where there is none."""
    own = os.path.join(sysconfig.get_path("scripts"), name)
    return own if os.access(own, os.X_OK) else shutil.which(name)


@contextmanager
def started(called: str, attempts: Iterable[Callable[[ExitStack], T]]) -> Iterator[T]:
    """Yield what the first attempt that succeeds returns, and undo what each attempt did, whatever happens.

    There is a second one because a port that is free now can be taken before a server binds it.

    Raises:
        ServerError: None succeeded; it says what each ended with.
    """
    errors = []
    for attempt in attempts:
        with ExitStack() as stack:
            try:
                server = attempt(stack)
            except (ServerError, OSError, subprocess.SubprocessError) as error:
                errors.append(str(error))
                continue
            yield server
            return
    raise ServerError(f"{called} did not start:\n" + "\n".join(errors))


class Daemon:
    """A program that runs until its stack ends.

    Args:
        stack: Ends it.
        command: The program and its arguments.
        output: A file for what it says.
        env: Its whole environment: nothing of the caller's would do it good.
        cwd: Its folder.
    """

    def __init__(
        self, stack: ExitStack, command: Sequence[str], output: Path, env: Mapping[str, str], cwd: Path
    ) -> None:
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        # There is nothing to save, so no time is given for an orderly end.
        stack.callback(self._process.wait)
        stack.callback(self._process.kill)
        self._called = os.path.basename(command[0])

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            ServerError: It has ended; with the last that it said.
        """
        if self._process.poll() is not None:
            raise ServerError(f"{self._called} ended with status {self._process.returncode}: {self._said()}")

    def wait_until(self, ready: Callable[[], bool], seconds: float, every: float = 0.1) -> None:
        """Wait for something that it does.

        Raises:
            ServerError: It has ended before, or takes too long; with the last that it said.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ServerError(f"{self._called} is not ready after {seconds:g} s: {self._said()}")
            time.sleep(every)

    def _said(self) -> str:
        return self._output.read_text(errors="replace")[-2000:]
