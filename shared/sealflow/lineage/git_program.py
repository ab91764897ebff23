"""Running ``git`` and ``gpg`` over hostile input: absolute paths, an empty environment, limits on time and output.

The configuration of the repository under check is never read. Git runs in a private, empty repository of our own that
borrows the other's object store through ``objects/info/alternates``; so hooks, filters, aliases, external programs,
replace refs, grafts and index of the checked repository do not exist for it, and whatever Git writes lands in ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

from sealflow.errors import UsageError
from sealflow.findings import Finding, printable

#: Largest object that is read: a commit or one level of a tree. A tree of 200,000 entries has about 16 MiB.
MAX_OBJECT: Final = 32 << 20
#: Git itself allocates no more than this at once, however large an object claims to be.
_ALLOCATION_LIMIT: Final = "64m"
_MAX_DIAGNOSTICS: Final = 16 << 10
_CHUNK: Final = 1 << 16
#: Seconds between two looks at what a program does, where somebody looks.
_WATCH: Final = 0.1

#: Length of an object id in hex, and what it says about the repository's hash.
ALGORITHMS: Final = {40: "sha1", 64: "sha256"}

_CONFIGURATION: Final = """\
[core]
	repositoryFormatVersion = {version}
	bare = false
	fsmonitor = false
	untrackedCache = false
	hooksPath = /dev/null
	attributesFile = /dev/null
	excludesFile = /dev/null
	pager = cat
	editor = false
	askPass =
	sshCommand = false
	commitGraph = false
	multiPackIndex = false
	useReplaceRefs = false
	bigFileThreshold = 1m
	packedGitLimit = 256m
	packedGitWindowSize = 16m
	deltaBaseCacheLimit = 64m
[credential]
	helper =
[diff]
	ignoreSubmodules = all
	renames = false
[submodule]
	recurse = false
[protocol]
	allow = never
[gc]
	auto = 0
[maintenance]
	auto = false
"""
_EXTENSIONS: Final = """\
[extensions]
	objectFormat = {algorithm}
"""


class Stopped(Exception):  # noqa: N818 - it carries an answer, not a defect
    """A check cannot go on; what it found says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def refused(code: str, subject: str, message: str, **more: str) -> Stopped:
    """Return what stops a check because something is wrong."""
    return Stopped(Finding(code, "refusal", subject, message, **more))


def unverifiable(code: str, subject: str, message: str, **more: str) -> Stopped:
    """Return what stops a check because nobody can say."""
    return Stopped(Finding(code, "unverifiable", subject, message, **more))


class Deadline:
    """The moment at which a check gives up.

    Args:
        seconds: How long it may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, never less than zero."""
        return max(0.0, self._end - time.monotonic())


def find_program(name: str, *, outside: str) -> str | None:
    """Return the absolute path of a program, or ``None``.

    Relative entries of ``PATH`` and those inside the checked folder are passed over: what lies there is not run.

    Args:
        name: Name of the program.
        outside: Real path of the folder whose contents are under check.
    """
    for folder in os.get_exec_path():
        if not os.path.isabs(folder):
            continue
        candidate = os.path.join(folder, name)
        real = os.path.realpath(candidate)
        if any(path == outside or path.startswith(outside.rstrip("/") + "/") for path in (candidate, real)):
            continue
        if os.path.isfile(real) and os.access(real, os.X_OK):
            return candidate
    return None


@contextlib.contextmanager
def private_folder() -> Iterator[str]:
    """Give a fresh folder that only this user can enter, and remove it afterwards."""
    folder = tempfile.mkdtemp(prefix="sealflow-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment(home: str, **more: str) -> dict[str, str]:
    """Return the whole environment of a program: nothing of ours is handed down."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "XDG_CACHE_HOME": home,
        "TMPDIR": home,
        "LC_ALL": "C",
        "TZ": "UTC",
        **more,
    }


class Child:
    """A program that runs under a deadline; its output is read as it comes, its diagnostics are kept in part.

    Args:
        arguments: The program by absolute path, and its arguments. No shell ever sees them.
        environ: Its whole environment.
        folder: Its working directory.
        deadline: When to give up.
        what: What the program does, for messages.
        watch: Called again and again while the program runs; raises :class:`Stopped` to end the waiting.

    Raises:
        Stopped: It cannot be started.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str],
        folder: str,
        deadline: Deadline,
        what: str,
        watch: Callable[[], None] | None = None,
    ) -> None:
        self._deadline = deadline
        self._what = what
        self._watch = watch
        self._pending = bytearray()
        self.diagnostics = bytearray()
        try:
            process: Any = subprocess.Popen(  # noqa: S603 - absolute path, no shell
                list(arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environ),
                cwd=folder,
                close_fds=True,
                # A group of its own, so that whatever it starts ends with it.
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise unverifiable(
                "PROGRAM_MISSING", arguments[0], f"The program cannot be started: {error.strerror}."
            ) from None
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._selector = selectors.DefaultSelector()
        for pipe in (self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ)
        self._open = {self._stdout, self._stderr}

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the program and everything that it started."""
        self._selector.close()
        with contextlib.suppress(OSError):
            self._stdin.close()
        if self._process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._stdout, self._stderr):
            pipe.close()
        self._process.wait()

    def send(self, data: bytes) -> None:
        """Write to the program. At most as much as fits into a pipe, unless the program reads all of it at once."""
        view = memoryview(data)
        os.set_blocking(self._stdin.fileno(), False)
        while view:
            try:
                view = view[os.write(self._stdin.fileno(), view) :]
            except BlockingIOError:
                self._wait(write=True)
            except BrokenPipeError:
                return

    def end_input(self) -> None:
        """Tell the program that there is no more to read."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def _wait(self, *, write: bool = False) -> bool:
        """Take what the program says; false when it said its last."""
        if not self._open and not write:
            return False
        if write:
            self._selector.register(self._stdin, selectors.EVENT_WRITE)
        try:
            ready = self._select()
        finally:
            if write:
                self._selector.unregister(self._stdin)
        if not ready:
            raise self._too_slow()
        for key, _ in ready:
            if key.fileobj is not self._stdin:
                self._take(key.fileobj)
        return True

    def _select(self) -> list[tuple[selectors.SelectorKey, int]]:
        if self._watch is None:
            return self._selector.select(self._deadline.left())
        while True:
            left = self._deadline.left()
            ready = self._selector.select(min(left, _WATCH))
            self._watch()
            if ready or not left:
                return ready

    def _take(self, pipe: Any) -> None:
        try:
            data = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(pipe)
            self._open.discard(pipe)
        elif pipe is self._stdout:
            self._pending += data
        elif len(self.diagnostics) < _MAX_DIAGNOSTICS:
            self.diagnostics += data

    def _too_slow(self) -> Stopped:
        return unverifiable(
            "GIT_UNREADABLE",
            self._what,
            f"There was no answer within the time limit of {self._deadline.seconds:g} s.",
            next_step="Look for what blocks the reading (a named pipe, a dead mount), or raise the time limit.",
        )

    def line(self, limit: int = 4096) -> bytes | None:
        """Return the next line of output without its end, or ``None`` at the end of the output.

        Raises:
            Stopped: The line is longer than the limit, or time is up.
        """
        start = 0
        while (end := self._pending.find(b"\n", start)) < 0:
            start = len(self._pending)
            if start > limit:
                raise unverifiable("GIT_UNREADABLE", self._what, f"A line of the answer exceeds {limit} bytes.")
            if self._stdout not in self._open or not self._wait():
                return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return line

    def exactly(self, size: int) -> bytes | None:
        """Return the next ``size`` bytes of output, or ``None`` when there are not as many.

        Raises:
            Stopped: Time is up.
        """
        while len(self._pending) < size:
            if self._stdout not in self._open or not self._wait():
                return None
        data = bytes(self._pending[:size])
        del self._pending[:size]
        return data

    def settle(self) -> bytes:
        """Return the diagnostics that are there now."""
        if self._stderr in self._open:
            self._take(self._stderr)
        return bytes(self.diagnostics)

    def finish(self, limit: int) -> tuple[int, bytes]:
        """Read the output to its end, and return the exit status and the output.

        Raises:
            Stopped: There is more output than the limit, or time is up.
        """
        self.end_input()
        while self._open:
            self._wait()
            if len(self._pending) > limit:
                raise unverifiable("GIT_UNREADABLE", self._what, f"The answer exceeds {limit} bytes.")
        try:
            status = self._process.wait(self._deadline.left())
        except subprocess.TimeoutExpired:
            raise self._too_slow() from None
        return status, bytes(self._pending)


class Git:
    """The ``git`` program in a private repository that borrows the objects of another one.

    Args:
        program: Absolute path of ``git``.
        home: A private folder.
        objects: Absolute path of the folder of objects to read.
        algorithm: ``sha1`` or ``sha256``.
        deadline: When to give up.
    """

    def __init__(self, program: str, home: str, objects: str, algorithm: str, deadline: Deadline) -> None:
        if "\n" in objects:
            raise UsageError(f"The path {printable(objects)!r} holds a line feed, which Git's alternates cannot.")
        self._program = program
        self._home = home
        self.algorithm = algorithm
        self._deadline = deadline
        self._reader: Child | None = None
        self._known: dict[str, tuple[str, bytes] | None] = {}
        self.folder = os.path.join(home, "repository")
        os.makedirs(os.path.join(self.folder, "objects", "info"), mode=0o700)
        os.mkdir(os.path.join(self.folder, "refs"))
        text = _CONFIGURATION.format(version=0 if algorithm == "sha1" else 1)
        if algorithm != "sha1":
            text += _EXTENSIONS.format(algorithm=algorithm)
        self._write("config", text.encode())
        self._write("HEAD", b"ref: refs/heads/none\n")
        self._write("objects/info/alternates", os.fsencode(objects) + b"\n")

    def _write(self, name: str, data: bytes) -> None:
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(data)

    def start(self, *arguments: str, what: str, **more: str) -> Child:
        """Start ``git`` with these arguments, which are all ours: nothing that others wrote is ever among them."""
        environ = environment(
            self._home,
            GIT_DIR=self.folder,
            GIT_CONFIG_NOSYSTEM="1",
            GIT_CONFIG_SYSTEM="/dev/null",
            GIT_CONFIG_GLOBAL="/dev/null",
            GIT_ATTR_NOSYSTEM="1",
            GIT_NO_REPLACE_OBJECTS="1",
            GIT_GRAFT_FILE="/dev/null",
            GIT_NO_LAZY_FETCH="1",
            GIT_OPTIONAL_LOCKS="0",
            GIT_TERMINAL_PROMPT="0",
            GIT_ALLOW_PROTOCOL="none",
            GIT_PAGER="cat",
            GIT_ALLOC_LIMIT=_ALLOCATION_LIMIT,
            **more,
        )
        command = [self._program, "--no-pager", "--no-replace-objects", "--no-optional-locks", *arguments]
        return Child(command, environ=environ, folder=self._home, deadline=self._deadline, what=what)

    def close(self) -> None:
        """End the reading of objects."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def read(self, ids: Iterable[str], *, keep: bool = True) -> dict[str, tuple[str, bytes] | None]:
        """Return kind and content of objects, each hashed anew; ``None`` for those that are not there.

        Args:
            ids: Object ids, at most a few hundred at a time.
            keep: Remember them for the next call.

        Raises:
            Stopped: An object is corrupt or too large, or Git gives no answer.
        """
        wanted = list(dict.fromkeys(ids))
        found = {oid: self._known[oid] for oid in wanted if oid in self._known}
        asked = [oid for oid in wanted if oid not in found]
        if asked:
            if self._reader is None:
                self._reader = self.start("cat-file", "--batch", what="git cat-file")
            self._reader.send("".join(f"{oid}\n" for oid in asked).encode("ascii"))
        try:
            for oid in asked:
                found[oid] = self._answer(oid)
                if keep:
                    self._known[oid] = found[oid]
        except Stopped:
            # The rest of its answers is nobody's; the next question goes to a new one.
            self.close()
            raise
        return found

    def object(self, oid: str, kind: str) -> bytes:
        """Return the content of one object that has to be there.

        Raises:
            Stopped: It is missing, corrupt, too large, or of another kind.
        """
        entry = self.read([oid])[oid]
        if entry is None:
            raise unverifiable(
                "GIT_HISTORY_INCOMPLETE", oid, f"The {kind} is not in this repository.", expected=f"{kind} {oid}"
            )
        if entry[0] != kind:
            raise refused("GIT_OBJECT_CORRUPT", oid, "The object is of another kind.", expected=kind, found=entry[0])
        return entry[1]

    def _answer(self, oid: str) -> tuple[str, bytes] | None:
        reader = self._reader
        assert reader is not None  # noqa: S101 - started above
        header = reader.line()
        if header is None:
            raise self._broken(oid)
        words = header.decode("ascii", "replace").split(" ")
        if words[0] == oid and words[1:] == ["missing"]:
            # Git says "missing" of objects that it cannot unpack, too; then it says why on the other channel.
            if reader.settle():
                raise self._broken(oid)
            return None
        if len(words) != 3 or words[0] != oid or not words[2].isdigit():
            raise refused("GIT_OBJECT_CORRUPT", oid, "Git gave an answer that makes no sense.", found=" ".join(words))
        kind, size = words[1], int(words[2])
        if size > MAX_OBJECT:
            raise unverifiable(
                "GIT_UNREADABLE", oid, f"The {kind} has {size} bytes; a check reads objects of at most {MAX_OBJECT}."
            )
        data = reader.exactly(size + 1)
        if data is None:
            raise self._broken(oid)
        data = data[:-1]
        if object_id(kind, data, self.algorithm) != oid:
            raise refused(
                "GIT_OBJECT_CORRUPT",
                oid,
                "The object store holds other bytes under this id.",
                expected=oid,
                found=object_id(kind, data, self.algorithm),
            )
        return kind, data

    def _broken(self, oid: str) -> Stopped:
        reason = self._reader.settle().decode("utf-8", "replace").strip() if self._reader else ""
        if "over limit" in reason or "Out of memory" in reason:
            return unverifiable("GIT_UNREADABLE", oid, f"The object is too large: {printable(reason, 160)}")
        if "Permission denied" in reason:
            return unverifiable("PERMISSION_DENIED", oid, f"The object may not be read: {printable(reason, 160)}")
        return refused(
            "GIT_OBJECT_CORRUPT", oid, f"Git cannot read the object: {printable(reason, 160) or 'it ended early'}"
        )


def object_id(kind: str, data: bytes, algorithm: str) -> str:
    """Return the id that Git gives to an object.

    Args:
        kind: ``blob``, ``tree``, ``commit`` or ``tag``.
        data: Its content.
        algorithm: ``sha1`` or ``sha256``, the repository's object format.
    """
    digest = hashlib.sha256() if algorithm == "sha256" else hashlib.sha1(usedforsecurity=False)
    digest.update(b"%s %d\0" % (kind.encode("ascii"), len(data)))
    digest.update(data)
    return digest.hexdigest()


def read_small(root: str, name: str, limit: int) -> bytes | None:
    """Return the content of a small regular file below a folder, following no link; ``None`` when there is none.

    Args:
        root: The folder.
        name: Relative path with ``/`` as the separator.
        limit: Largest size in bytes.

    Raises:
        Stopped: It is a link, no regular file, too large, or may not be read.
    """
    subject = os.path.join(root, name)
    parts = name.split("/")
    descriptor = -1
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            # O_NONBLOCK, so that a named pipe does not hold us.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_NONBLOCK if last else os.O_DIRECTORY)
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                return None
            raise refused("GIT_REPOSITORY_REFUSED", subject, "It is not a regular file.")
        data = bytearray()
        while len(data) <= limit and (chunk := os.read(descriptor, limit + 1 - len(data))):
            data += chunk
        if len(data) > limit:
            raise unverifiable("GIT_UNREADABLE", subject, f"It has more than {limit} bytes.")
        return bytes(data)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        # Either a plain file where a folder would be, or a link, which O_DIRECTORY reports in this way.
        at = root
        for part in parts:
            at = os.path.join(at, part)
            if os.path.islink(at):
                raise refused("GIT_REPOSITORY_REFUSED", at, "It is a symbolic link.") from None
        return None
    except PermissionError:
        raise unverifiable("PERMISSION_DENIED", subject, "It may not be read.") from None
    except OSError as error:
        if os.path.islink(subject):
            raise refused("GIT_REPOSITORY_REFUSED", subject, "It is a symbolic link.") from None
        raise unverifiable("GIT_UNREADABLE", subject, f"It cannot be read: {error.strerror}.") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
