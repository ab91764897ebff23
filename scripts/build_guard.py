"""Build the guard directory: sealflow's wrapper with its own interpreter and libraries, for images that have neither.

Usage: python scripts/build_guard.py <folder> [--with DISTRIBUTION]…

What it is made of is taken from the environment that runs this, in which sealflow's own requirements are installed as
constraints.txt pins them (``make guard`` makes one): the interpreter below it, its standard library, the distributions
of DISTRIBUTIONS, and each shared library that these need. It takes x86-64 Linux with glibc, CPython 3.10 to 3.13
and a C compiler.

Standard library only. The same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ROOT / "scripts" / "guard"
LOADER = "ld-linux-x86-64.so.2"
MANIFEST = "SHA256SUMS"

#: What the wrapper imports, and what that imports; nothing that only the command line needs.
DISTRIBUTIONS = (
    "annotated-types",
    "boto3",
    "botocore",
    "cffi",
    "cryptography",
    "jmespath",
    "pydantic",
    "pydantic-core",
    "python-dateutil",
    "pyyaml",
    "rfc3161-client",
    "s3transfer",
    "six",
    "typing-extensions",
    "typing-inspection",
    "urllib3",
)
#: Of sealflow: not the command line, and not what runs outside of tasks.
NOT_OURS = re.compile(
    r"sealflow/cli/|sealflow_kfp/[^/]+/|sealflow_kfp/(_functions|_image|_mount|components|guard_command|spec_patch)\.py"
)
#: Of the standard library: tests, desktops, terminals, installers, and what other systems have.
NOT_STANDARD = re.compile(
    r"(.*/)?(test|tests|__pycache__)/|(site-packages|dist-packages|idlelib|tkinter|turtledemo|ensurepip|lib2to3|distutils"
    r"|pydoc_data|venv|curses|dbm|msilib|wsgiref|xmlrpc|unittest|config-[^/]*|__phello__)/"
    r"|(turtle|pydoc|doctest|antigravity|this|cgi|cgitb|imaplib|nntplib|poplib|smtpd|smtplib|telnetlib|ftplib"
    r"|mailbox|mailcap|pdb|profile|cProfile|pstats|tabnanny|trace|webbrowser|zipapp|_aix_support"
    r"|_osx_support|_pydecimal|_pyio|sitecustomize|usercustomize)\.py"
    r"|lib-dynload/(_test|_xx|xx|_codecs_|_curses|_tkinter|_ctypes_test|_dbm|_gdbm|_lsprof|audioop|nis|ossaudiodev"
    r"|readline|spwd|_crypt)[^/]*"
)
#: Services of AWS whose descriptions are kept: where artifacts, keys and credentials come from.
SERVICES = ("kms", "s3", "signin", "sso", "sso-oidc", "sts")
_SERVICE = re.compile(rf"botocore/data/(?!({'|'.join(SERVICES)})/)[^/]+/")
_NOT_PACKAGED = re.compile(
    r"(^|/)(tests?|__pycache__)/|\.(pyi|pyx|pxd|h|c|rst|md)$|(^|/)py\.typed$"
    r"|\.dist-info/(RECORD|INSTALLER|REQUESTED|WHEEL|direct_url\.json|entry_points\.txt|top_level\.txt|sboms/)"
    r"|boto3/(data/(?!s3/)|examples/)|pydantic/v1/|pydantic/mypy\.py$|cffi/"
)

# Kept with -X importtime in mind: a module that is compiled once and has no source beside it is found by one look.
_COMPILE = """
import importlib.util, marshal, os, sys
root, suffix = sys.argv[1:]
for folder, folders, names in os.walk(root):
    folders.sort()
    for name in sorted(names):
        if not name.endswith(".py"):
            continue
        path = os.path.join(folder, name)
        with open(path, "rb") as file:
            source = file.read()
        # As it is called where it runs; nothing of the machine that built it.
        place = "/sealflow/guard/" + os.path.relpath(path, root)
        code = compile(source, place, "exec", dont_inherit=True, optimize=0)
        # Without a hash or a time of a source that is not there (PEP 552); twice, so that the code alone decides.
        data = marshal.dumps(marshal.loads(marshal.dumps(code)))
        with open(path + "c", "wb") as file:
            file.write(importlib.util.MAGIC_NUMBER + (0b01).to_bytes(4, "little") + bytes(8) + data)
        os.unlink(path)
"""


class BuildError(Exception):
    """Why it cannot be built."""


def main() -> int:
    """Build, check what was built by running it, and put it in place."""
    parser = argparse.ArgumentParser(description="Build the guard directory.")
    parser.add_argument("folder", type=Path, help="where it goes; an older one there is replaced")
    parser.add_argument("--with", action="append", default=[], dest="more", metavar="DISTRIBUTION", help="one more")
    given = parser.parse_args()
    target = given.folder.absolute()
    if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
        print(f"{target} is no guard directory; name another folder, or remove it.", file=sys.stderr)
        return 2
    making = target.with_name(f"{target.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    try:
        build(making, (*DISTRIBUTIONS, *given.more))
        said = subprocess.run([making / "guard", "--check"], check=False, capture_output=True, text=True, env={})
        if said.returncode:
            raise BuildError(f"What was built does not run: {said.stdout}{said.stderr}")
        shutil.rmtree(target, ignore_errors=True)
        making.rename(target)
    except BuildError as error:
        print(f"sealflow: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(making, ignore_errors=True)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {size / 1e6:.1f} MB, {said.stderr.strip().removeprefix('sealflow: ')}")
    return 0


def build(root: Path, distributions: tuple[str, ...]) -> None:
    """Build into a folder that is not there yet.

    Raises:
        BuildError: Something lacks, or is not what can be taken along.
    """
    version = _require()
    library = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    _copy_tree(Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})), library, NOT_STANDARD)
    packages = library / "site-packages"
    bill = _copy_distributions(distributions, packages)
    for source in (ROOT / "shared", ROOT / "kfp_components"):
        _copy_tree(source, packages, NOT_OURS, only=re.compile(r"(sealflow|sealflow_kfp)/.*\.py$"))
    interpreter = root / "bin" / "python3"
    _copy(Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable))), interpreter)
    _copy(PARTS / "start.py", root / "lib" / "start.py")
    (root / "etc").mkdir()
    _copy(packages / "botocore" / "cacert.pem", root / "etc" / "certificates.pem")
    (root / "etc" / "nothing").write_bytes(b"")
    libraries = _copy_libraries(root)
    _run("Python", [sys.executable, "-c", _COMPILE, root, "c"], {"PYTHONHASHSEED": "0"})
    for path in _programs(root):
        _run("strip (binutils)", ["strip", "--strip-unneeded", path])
    _make_deaf(root / "lib" / LOADER)
    _make_blind(root / "lib" / "libc.so.6")
    _compile_program(root / "guard")
    _check_closure(root)
    (root / "THIRD-PARTY.txt").write_text(
        "\n".join([f"Python {platform.python_version()}  PSF-2.0", version, *bill, *libraries, ""]), encoding="utf-8"
    )
    _settle(root)


def _require() -> str:
    """Return the version of the C library; refuse machines whose parts would not do."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.maxsize < 2**32:
        raise BuildError("The guard directory is made on x86-64 Linux.")
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        version = ""
    if not version.startswith("glibc") or platform.python_implementation() != "CPython":
        raise BuildError("The guard directory is made of CPython on glibc; this Python is something else.")
    for program in ("cc", "strip", "ldd"):
        if shutil.which(program) is None:
            raise BuildError(f"There is no {program}. Debian: apt install gcc libc-bin")
    return (
        f"{version}  LGPL-2.1-or-later; in {LOADER} the name of /etc/ld.so.preload is blanked, in libc.so.6 "
        "/sealflow/guard stands for the folders of locales and gconv"
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # What links lead to: none of them is left.
    shutil.copyfile(source, target)


def _copy_tree(source: Path, target: Path, leave: re.Pattern[str], only: re.Pattern[str] | None = None) -> None:
    for folder, folders, names in os.walk(source, followlinks=True):
        below = Path(folder).relative_to(source)
        folders[:] = [name for name in folders if not leave.match(f"{(below / name).as_posix()}/")]
        for name in names:
            path = (below / name).as_posix()
            wanted = only.match(path) if only is not None else path.endswith((".py", ".so", "LICENSE.txt"))
            if wanted and not leave.match(path) and "__pycache__" not in path:
                _copy(Path(folder) / name, target / path)


def _copy_distributions(names: tuple[str, ...], target: Path) -> list[str]:
    """Copy installed distributions, and return a line about each."""
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    bill = []
    for name in names:
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise BuildError(f"{name} is not installed in {sys.prefix}; `make guard` installs it.") from None
        if pins.get(name, found.version) != found.version:
            raise BuildError(f"{name} {found.version} is installed, and constraints.txt says {pins[name]}.")
        for item in found.files or ():
            path = item.as_posix()
            if path.startswith("../") or _NOT_PACKAGED.search(path) or _SERVICE.match(path):
                continue
            _copy(Path(str(item.locate())), target / path)
        said = found.metadata
        licence = said.get("License-Expression") or (said.get("License") or "see its dist-info").splitlines()[0]
        bill.append(f"{name} {found.version}  {licence}")
    return bill


def _programs(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def _copy_libraries(root: Path) -> list[str]:
    """Copy each library that something needs, and those that glibc opens by itself; return a line about each."""
    folder = root / "lib"
    found: dict[str, Path] = {}
    for program in list(_programs(root)):
        for name, path in _needed(program).items():
            found.setdefault(name, path)
    beside = found["libc.so.6"].parent
    # Threads are ended with libgcc; before 2.34 names are looked up by libraries apart.
    for name in ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libpthread.so.0"):
        if (beside / name).exists():
            found.setdefault(name, beside / name)
    for path in list(found.values()):
        found |= {name: path for name, path in _needed(path).items() if name not in found}
    for name, path in found.items():
        _copy(Path(os.path.realpath(path)), folder / name)
    return [f"{name}  {_package(path)}" for name, path in sorted(found.items())]


def _needed(program: Path) -> dict[str, Path]:
    done = subprocess.run(["ldd", program], capture_output=True, text=True)
    missing = re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE)
    if missing:
        raise BuildError(f"{program} needs {', '.join(missing)}, which is not on this machine.")
    found = {name: Path(path) for name, path in re.findall(r"^\s*(\S+) => (/\S+) \(", done.stdout, re.MULTILINE)}
    for path in re.findall(r"^\s*(/\S+) \(", done.stdout, re.MULTILINE):
        found[LOADER] = Path(path)
    return found


def _package(path: Path) -> str:
    if shutil.which("dpkg-query") is None:
        return "from the system"
    for place in (str(path), os.path.realpath(path), str(path).removeprefix("/usr")):
        done = subprocess.run(["dpkg-query", "--search", place], capture_output=True, text=True)
        if done.returncode == 0:
            name = done.stdout.partition(": ")[0].partition(",")[0]
            shown = ["dpkg-query", "--show", "--showformat=${Package} ${Version}", name]
            return f"{subprocess.check_output(shown, text=True)}, see its copyright file in Debian"
    return "built with Python"


def _make_deaf(loader: Path) -> None:
    """Blank the one path from which the loader takes libraries unasked: there lies the image's."""
    data = loader.read_bytes()
    path = b"/etc/ld.so.preload\0"
    if data.count(path) != 1:
        raise BuildError(f"{LOADER} is not as expected: it does not name /etc/ld.so.preload once.")
    loader.write_bytes(data.replace(path, bytes(len(path))))
    loader.chmod(0o755)


def _make_blind(library: Path) -> None:
    """Let the C library look for locales and converters in the directory, which has none: both can load libraries.

    glibc knows these places by name, and what an environment says of them comes before them, never instead.
    """
    mounted = b"/sealflow/guard"
    data = library.read_bytes()
    places = re.compile(rb"/usr/(?:lib/x86_64-linux-gnu|lib64|lib|share)/(?:locale|gconv)(?=[/\0])")
    found = {match.rpartition(b"/")[2] for match in places.findall(data)}
    if found != {b"locale", b"gconv"}:
        raise BuildError("libc.so.6 is not as expected: it does not name its folders of locales and converters.")
    # As long as it was: slashes more than one mean nothing.
    library.write_bytes(places.sub(lambda match: mounted + b"/" * (len(match.group()) - len(mounted)), data))


def _compile_program(target: Path) -> None:
    flags = "-Os -static -nostdlib -ffreestanding -fno-builtin -fno-pie -no-pie -fno-stack-protector -s -Wall -Wextra"
    flags += " -Werror -fno-asynchronous-unwind-tables -Wl,--build-id=none -Wl,-z,noexecstack"
    _run("The C compiler", ["cc", *flags.split(), "guard.c", "-o", target], {}, PARTS)


def _check_closure(root: Path) -> None:
    """Let the directory's own loader say where each part would find its libraries: here, and nowhere else."""
    folder = root / "lib"
    for program in _programs(root):
        if program.name in (LOADER, "guard"):
            continue
        command = [folder / LOADER, "--inhibit-cache", "--library-path", folder, "--list", program]
        done = subprocess.run(command, capture_output=True, text=True, env={})
        places = re.findall(r"=> (.*?)(?: \(|$)", done.stdout, re.MULTILINE)
        outside = [place for place in places if not place.startswith(f"{root}/")]
        if done.returncode or outside:
            raise BuildError(f"{program.relative_to(root)} would load {outside or done.stdout + done.stderr}.")


def _settle(root: Path) -> None:
    """Give all the same owner's rights and time, and write down what there is."""
    lines = []
    for path in sorted(root.rglob("*"), key=lambda item: item.relative_to(root).as_posix()):
        if path.is_symlink():
            raise BuildError(f"{path.relative_to(root)} is a link.")
        if path.is_dir():
            path.chmod(0o755)
            continue
        runs = path.name in ("guard", LOADER)
        path.chmod(0o755 if runs else stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        name = path.relative_to(root).as_posix()
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n")
    (root / MANIFEST).write_text("".join(lines), encoding="utf-8")
    (root / MANIFEST).chmod(0o444)
    root.chmod(0o755)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    for path in [root, *root.rglob("*")]:
        os.utime(path, (epoch, epoch))


def _run(what: str, command: list[object], environment: dict[str, str] | None = None, where: Path = ROOT) -> None:
    given = None if environment is None else {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **environment}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=given, cwd=where)
    if done.returncode:
        raise BuildError(f"{what} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
