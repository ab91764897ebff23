"""What the guard directory's interpreter runs: guards a command, copies the directory, or checks it.

===================================== ==============================================================================
``guard --executor-input '{{$}}' -- COMMAND…``  guards a command, see :mod:`sealflow_kfp.exec`
``guard --copy-to FOLDER``            copies the directory, as an init container does, each file checked as it is copied
``guard --check``                     reads the directory back and loads every module of it
===================================== ==============================================================================

A task's image and environment belong to its author. So the guard starts without any variable of theirs
(``scripts/guard/guard.c`` hides them) and gets here those of :data:`ADMITTED` alone, while the command gets all of its
own back, and none of the guard's. Until that is done nothing may be imported that loads a library: OpenSSL reads the
image's configuration as soon as it is loaded.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Final

#: Lines as ``sha256sum`` writes and checks them.
MANIFEST: Final = "SHA256SUMS"
#: What stands before the name of each variable while nobody may know it.
HIDDEN: Final = ":"
_PIECE: Final = 1 << 20
#: Of nsswitch.conf(5), beside hosts.
_DATABASES: Final = b"aliases ethers group gshadow initgroups netgroup networks passwd protocols rpc services shadow"
_MISCONFIGURED: Final = 98
_UNAVAILABLE: Final = 99

#: The variables that the guard hears. Who it is, how it reaches a store and by which right; not its own settings, nor
#: what names programs, libraries, certificates or files that name programs (``AWS_CONFIG_FILE``).
ADMITTED: Final = frozenset(
    {
        *(
            "SEALFLOW_TERMINATION_LOG",
            "XDG_STATE_HOME",
            "HOSTNAME",
            "KFP_POD_NAME",
            "KFP_POD_UID",
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_SERVICE_PORT",
        ),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
        *("AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_STS_REGIONAL_ENDPOINTS"),
        *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        *("AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        *("AWS_EC2_METADATA_DISABLED", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"),
        *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL_STS", "AWS_CA_BUNDLE"),
        *("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT"),
        *("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"),
    }
)


def main(root: str) -> int:
    """Do what the arguments say, and return the exit status.

    Args:
        root: The guard directory.
    """
    given = own_environment(root)
    arguments = sys.argv[1:]
    # The interpreter is no program that anybody else could start: its loader's path is another.
    sys.executable = ""
    configure_names()
    if arguments[:1] == ["--copy-to"] and len(arguments) == 2:
        return _told(lambda: copy_to(root, arguments[1]))
    if arguments == ["--check"]:
        return _told(lambda: check(root))
    from sealflow_kfp.exec import main as guard

    covered = covered_places(root, _mounts())
    if covered:
        print(
            f"sealflow: something is mounted over {covered[0]}, so this may not be what the admin put there. Mount "
            "nothing there, nor at a path that a link of the image leads there.",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return _MISCONFIGURED
    return guard(arguments, given)


def _mounts() -> bytes:
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return file.read()
    except OSError:
        # Nobody can take /proc from a container; where there is none, no runtime mounted anything either.
        return b""


def covered_places(root: str, table: bytes) -> list[str]:
    """Return the places of the guard's, its keys' and its policy's that more than one mount belongs to.

    A runtime follows an image's links, so the path at which a volume is mounted does not say where it lies. An empty
    one over the policy would leave the task without.

    Args:
        root: The guard directory.
        table: The mounts, as the kernel lists them (``proc_pid_mountinfo(5)``).
    """
    from sealflow.actions.context import MOUNT
    from sealflow.policy.channel import MACHINE_FILE

    points = [_unescaped(fields[4]) for line in table.split(b"\n") if len(fields := line.split(b" ")) > 4]
    found = []
    for place in (root, MOUNT, os.path.dirname(MACHINE_FILE)):
        real = os.fsencode(os.path.realpath(place))
        if sum(point == real or point.startswith(real + b"/") for point in points) > 1:
            found.append(place)
    return found


def _unescaped(field: bytes) -> bytes:
    import re

    # The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
    return re.sub(rb"\\([0-3][0-7]{2})", lambda found: bytes([int(found[1], 8)]), field)


def own_environment(root: str) -> dict[str, str]:
    """Give this process the environment of the guard, and return the one that belongs to the command.

    Args:
        root: The guard directory.
    """
    given = {name.removeprefix(HIDDEN): value for name, value in os.environ.items() if name.startswith(HIDDEN)}
    # Python itself may have put LC_CTYPE there, which is nobody's.
    os.environ.clear()
    os.environ.update(guard_environment(root, given))
    return given


def guard_environment(root: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the guard, made of what a task has."""
    found = {name: value for name, value in given.items() if name in ADMITTED}
    if "XDG_STATE_HOME" not in found and given.get("HOME"):
        # What is remembered stays where it is remembered without the directory.
        found["XDG_STATE_HOME"] = os.path.join(given["HOME"], ".local", "state")
    nothing = os.path.join(root, "etc", "nothing")
    return found | {
        # An image's configuration of OpenSSL could name libraries, and one of AWS programs.
        "AWS_CONFIG_FILE": nothing,
        "AWS_SHARED_CREDENTIALS_FILE": nothing,
        "HOME": os.path.join(root, "etc"),
        "OPENSSL_CONF": nothing,
        "OPENSSL_ENGINES": os.path.join(root, "etc"),
        "OPENSSL_MODULES": os.path.join(root, "etc"),
        "SSL_CERT_DIR": os.path.join(root, "etc"),
        "SSL_CERT_FILE": os.path.join(root, "etc", "certificates.pem"),
    }


def configure_names() -> None:
    """Look up hosts and users in files and in DNS alone: an image's ``nsswitch.conf`` could name its own libraries."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        # nss.h: int __nss_configure_lookup(const char *database, const char *services)
        configure = ctypes.CDLL(None).__nss_configure_lookup
        configure(b"hosts", b"files dns")
        for database in _DATABASES.split():
            configure(database, b"files")


def read_manifest(root: str) -> list[tuple[str, str]]:
    """Return the digest and the path of each file, in their order.

    Raises:
        ValueError: It is no manifest.
    """
    found = []
    with open(os.path.join(root, MANIFEST), encoding="utf-8") as file:
        for line in file:
            digest, mark, path = line.rstrip("\n").partition("  ")
            parts = path.split("/")
            if not mark or len(digest) != 64 or not all(parts) or {".", ".."} & set(parts):
                raise ValueError(f"{MANIFEST} has a line that is none.")
            found.append((digest, path))
    if not found:
        raise ValueError(f"{MANIFEST} is empty.")
    return found


def copy_to(root: str, target: str) -> str:
    """Copy the directory, its program last, so that nothing starts a copy that is not whole; return its digest.

    What already lies there is written anew: an init container may be started again.

    Raises:
        OSError: Something cannot be read or written.
        ValueError: A file is not the one that was built.
    """
    import hashlib

    if not os.path.isdir(target) or os.path.realpath(target) == os.path.realpath(root):
        raise ValueError(f"{target} is no folder to copy to.")
    manifest = os.path.join(root, MANIFEST)
    with open(manifest, "rb") as source:
        whole = hashlib.sha256(source.read()).hexdigest()
    for digest, path in sorted([*read_manifest(root), (whole, MANIFEST)], key=lambda item: (item[1] == "guard", item)):
        place = os.path.join(target, path)
        _make_folders(target, os.path.dirname(path))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)
        with open(os.path.join(root, path), "rb") as source:
            mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
            fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            with open(fd, "wb") as copy:
                read = hashlib.sha256()
                for piece in _pieces(source):
                    read.update(piece)
                    copy.write(piece)
                os.fchmod(fd, mode)
        if read.hexdigest() != digest:
            os.unlink(place)
            raise ValueError(f"{path} is not the file that was built.")
    return f"copied {whole}"


def _make_folders(target: str, path: str) -> None:
    """Make folders that everybody can read, whatever the umask: the task may run as any user."""
    place = target
    for name in path.split("/") if path else ():
        place = os.path.join(place, name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(place)
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            raise ValueError(f"{place} is no folder.")
        os.chmod(place, 0o755)  # noqa: S103 - as images are laid out


def check(root: str) -> str:
    """Read every file back, load every module of sealflow that a task can need, and return the directory's digest.

    Raises:
        OSError: Something cannot be read.
        ValueError: A file is not the one that was built, or one too many.
        ImportError: A module lacks something.
    """
    import hashlib

    listed = {path: digest for digest, path in read_manifest(root)}
    for folder, folders, names in os.walk(root):
        # A link to a folder is listed among folders, and not gone into.
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in [*names, *links]:
            path = os.path.relpath(os.path.join(folder, name), root)
            if path != MANIFEST and path not in listed:
                raise ValueError(f"{path} does not belong to the directory.")
    for path, digest in listed.items():
        with open(os.path.join(root, path), "rb") as file:
            read = hashlib.sha256()
            for piece in _pieces(file):
                read.update(piece)
        if read.hexdigest() != digest:
            raise ValueError(f"{path} is not the file that was built.")
    count = load_all()
    outside = sorted(
        {
            place
            for module in list(sys.modules.values())
            if isinstance(place := getattr(module, "__file__", None), str) and not place.startswith(f"{root}/")
        }
    )
    if outside:
        raise ValueError(f"{outside[0]} was loaded from outside.")
    with open(os.path.join(root, MANIFEST), "rb") as file:
        return f"checked {hashlib.sha256(file.read()).hexdigest()}: {len(listed)} files, {count} modules"


def load_all() -> int:
    """Load every module of sealflow that is here, and those that they load when they need them; return how many."""
    import importlib
    import pkgutil

    from sealflow.errors import MissingExtraError

    count = 0
    for package in ("sealflow", "sealflow_kfp"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            with contextlib.suppress(MissingExtraError):
                importlib.import_module(module.name)
            count += 1
    for name in ("boto3", "sqlite3", "ssl", "botocore.httpsession", "encodings.idna"):
        importlib.import_module(name)
    return count


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _told(work: Callable[[], str]) -> int:
    try:
        print(f"sealflow: {work()}", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"sealflow: {error.filename or 'the guard directory'}: {error.strerror}.", file=sys.stderr, flush=True)
        return _UNAVAILABLE
    except (ImportError, ValueError) as error:
        print(f"sealflow: {error}", file=sys.stderr, flush=True)
        return _MISCONFIGURED
    return 0
