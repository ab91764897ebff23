"""Packages that a task installs while it runs: KFP puts a script before the command that calls pip.

What comes from an index at run time is code that nobody signed. The script is taken away, and the image has to hold the
packages; or it is replaced by one that installs a lock file, each file of it pinned by its hash.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow_kfp.hardening.reading import PipelineError

#: Largest lock file in bytes. It travels in one argument, and Linux takes none longer than 128 KiB.
MAX_LOCK: Final = 96 << 10

# dsl/component_factory.py of kfp 2.0 to 2.17.
_SCRIPT = re.compile(
    r'\s*if ! \[ -x "\$\(command -v pip\)" \]; then\n'
    r"    python3 -m ensurepip \|\| python3 -m ensurepip --user(?: \|\| apt-get install python3-pip)?\n"
    r'fi\n\s*PIP_DISABLE_PIP_VERSION_CHECK=1 (?P<installs>.*) && "\$0" "\$@"\s*',
    re.DOTALL,
)
_PIP = re.compile(
    r"\bpip3?\b[^\n;&|]*\s(?:install|download)\b|\b(?:easy_install|ensurepip|uvx)\b|\buv\s+(?:add|sync|run|tool)\b"
    r"|\b(?:(?:micro)?mamba|conda|poetry|p?npm|yarn|apt(?:-get)?|apk|dnf|yum)\b[^\n;&|]*\s(?:install|add|create|update|ci)\b"
)

_MARK: Final = "# sealflow: packages pinned by hash"
_PINNED: Final = """{mark}
lock=$(mktemp) && printf '%s' {lock} > "$lock" &&
PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location --no-deps --require-hashes \
--only-binary :all: {options}-r "$lock" && rm -f "$lock" && exec "$0" "$@"
"""

_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_LOCKED = re.compile(
    rf"(?P<name>{_NAME})(?:\[[A-Za-z0-9,._ -]+\])?==(?P<version>[A-Za-z0-9.!+_-]+)"
    r"(?: *;(?P<marker>[^#\\\n]*?))?(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64})+)"
)
_WANTED = re.compile(rf"(?P<name>{_NAME})(?:\[[^\]]*\])?(?P<versions>[^;]*)(?P<marker>;.*)?", re.DOTALL)
_OPTIONS: Final = frozenset({"--index-url", "--extra-index-url", "--trusted-host"})
_FLAGS: Final = frozenset({"--quiet", "--no-warn-script-location", "--no-deps"})


@dataclass(frozen=True)
class Lock:
    """A lock file as ``uv pip compile --generate-hashes`` or ``pip-compile --generate-hashes`` writes it.

    Attributes:
        versions: Version of each package, by its normalised name.
        text: The file's requirements, one a line, sorted.
    """

    versions: dict[str, str]
    text: str

    @classmethod
    def parse(cls, data: bytes, what: str) -> Lock:
        """Read a lock file.

        Raises:
            UsageError: Too long, or a line that is no package with version and SHA-256. Names the line.
        """
        if len(data) > MAX_LOCK:
            raise UsageError(f"{what} has more than {MAX_LOCK} bytes.")
        try:
            lines = re.sub(r"\\\r?\n", "  ", data.decode("utf-8")).splitlines()
        except UnicodeDecodeError:
            raise UsageError(f"{what} is not UTF-8.") from None
        versions: dict[str, str] = {}
        kept = []
        for line in lines:
            line = re.sub(r"(?:^|\s)#.*", "", line).strip()
            if not line:
                continue
            match = _LOCKED.fullmatch(line)
            if match is None:
                raise UsageError(
                    f"{what}: {printable(line, 120)!r} is no package with its version and SHA-256.",
                    next_step="Make the file with `uv pip compile --generate-hashes`.",
                )
            name = _normal(match["name"])
            if versions.setdefault(name, match["version"]) != match["version"]:
                raise UsageError(f"{what} has the package {name} in two versions.")
            kept.append(" ".join(line.split()))
        if not kept:
            raise UsageError(f"{what} names no package.")
        return cls(versions, "\n".join(sorted(kept)) + "\n")


def is_install(command: Sequence[str]) -> bool:
    """Tell whether a command begins with a script that installs packages, as KFP writes it or as we do."""
    return (
        len(command) > 3
        and list(command[:2]) == ["sh", "-c"]
        and (_SCRIPT.fullmatch(command[2]) is not None or is_pinned(command))
    )


def is_pinned(command: Sequence[str]) -> bool:
    """Tell whether a command begins with our script, and it is what we would write, to the byte."""
    if len(command) <= 3 or list(command[:2]) != ["sh", "-c"] or not command[2].startswith(_MARK + "\n"):
        return False
    try:
        words = shlex.split(command[2], comments=True)
        lock, options = words[words.index("%s") + 1], words[words.index(":all:") + 1 : words.index("-r")]
        if not all(name in _OPTIONS for name in options[::2]) or len(options) % 2:
            return False
        return command[2] == _script(Lock.parse(lock.encode(), "It"), options)
    except (UsageError, ValueError, IndexError):
        return False


def _script(lock: Lock, options: Sequence[str]) -> str:
    chosen = "".join(f"{shlex.quote(item)} " for item in options)
    return _PINNED.format(mark=_MARK, lock=shlex.quote(lock.text), options=chosen)


def installed(command: Sequence[str], where: str) -> list[str]:
    """Return what KFP's script before a command installs; empty where there is none, or none that can be read."""
    if not is_install(command) or is_pinned(command):
        return []
    try:
        return _read_installs(_SCRIPT.sub(r"\g<installs>", command[2]), where)[0]
    except PipelineError:
        return ["something"]


def without_install(command: list[str]) -> list[str]:
    """Return a command without KFP's script; one without it, or with ours, stays as it is."""
    return command[3:] if is_install(command) and not is_pinned(command) else command


def pinned(command: list[str], lock: Lock, where: str) -> list[str]:
    """Return a command whose script installs a lock file and nothing else; one without a script stays as it is.

    Raises:
        UsageError: The script installs what the lock does not hold, or installs another lock.
        PipelineError: The script is not understood.
    """
    if not is_install(command):
        return command
    if is_pinned(command):
        if f" {shlex.quote(lock.text)} > " not in command[2]:
            raise UsageError(f"{where} installs another lock file already.", next_step="Harden the original pipeline.")
        return command
    wanted, options = _read_installs(_SCRIPT.sub(r"\g<installs>", command[2]), where)
    for spec in wanted:
        _check_locked(spec, lock, where)
    return ["sh", "-c", _script(lock, options), *command[3:]]


def installs_elsewhere(command: Sequence[str], args: Sequence[str]) -> bool:
    """Tell whether pip is spoken of anywhere but in a script that pins by hash."""
    rest = [*(command[3:] if is_pinned(command) else command), *args]
    return any(_PIP.search(item) for item in rest)


def _read_installs(text: str, where: str) -> tuple[list[str], list[str]]:
    wanted: list[str] = []
    options: list[str] = []
    try:
        commands = [shlex.split(part) for part in re.split(r"\s&&\s", text)]
    except ValueError:
        raise PipelineError(f"{where} installs packages with a script that cannot be read.") from None
    for words in commands:
        if words[:4] != ["python3", "-m", "pip", "install"]:
            raise PipelineError(
                f"{where} runs more than pip before its command: {printable(' '.join(words), 120)!r}.",
                next_step="Have run-time installs taken away, and put the packages into the image.",
            )
        rest = iter(words[4:])
        for word in rest:
            if word in _OPTIONS:
                pair = (word, next(rest, ""))
                if pair not in zip(options[::2], options[1::2], strict=True):
                    options += pair
            elif word not in _FLAGS:
                wanted.append(word)
    return wanted, options


def _check_locked(spec: str, lock: Lock, where: str) -> None:
    match = _WANTED.fullmatch(spec)
    if match is not None and match["marker"]:
        # It may be meant for another Python; if it is needed, pip says so by what is missing.
        return
    held = None if match is None else lock.versions.get(_normal(match["name"]))
    asked = "" if match is None else match["versions"].strip()
    if held is None or (asked.startswith("==") and asked[2:].strip() != held):
        raise UsageError(
            f"{where} installs {printable(spec, 80)!r}, and the lock file holds "
            f"{'no such package' if held is None else f'version {held}'}.",
            next_step="Add it to the lock file.",
        )


def _normal(name: str) -> str:
    # PEP 503.
    return re.sub(r"[-_.]+", "-", name).lower()
