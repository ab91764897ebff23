"""A private copy of a Git repository from elsewhere, at one revision.

The URL is the caller's word; everything that comes from there is hostile. Git only moves objects: it runs with our
settings alone and checks each object as it comes. The files are then written by us from objects that are hashed anew,
so no attribute, filter, hook, link or submodule of the repository has a say, and no name of a file reaches a shell.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from sealflow.errors import ArtifactError
from sealflow.findings import Finding, printable
from sealflow.lineage.git import Refs, check_revision, open_repository, parse_commit, parse_tree, peel, resolve_revision
from sealflow.lineage.git_program import (
    ALGORITHMS,
    Child,
    Deadline,
    Git,
    Stopped,
    environment,
    find_program,
    private_folder,
    refused,
    unverifiable,
)
from sealflow.lineage.git_url import check_url
from sealflow.names import check_name, fold

#: Seconds that a clone and the writing of its files take at most.
TIME_LIMIT: Final = 900.0
#: Largest clone, history and files together, in bytes.
SIZE_LIMIT: Final = 4 << 30
#: Most files of one revision.
MAX_FILES: Final = 500_000
#: Most folders of one revision: a few small objects can stand for as many as one likes.
_MAX_FOLDERS: Final = 100_000
_MAX_LEVELS: Final = 128
_PIECE: Final = 1 << 20
_BATCH: Final = 256
_MAX_TAIL: Final = 240

#: Folders of clones that exist now: data is fetched into nothing else.
_OURS: Final[set[str]] = set()

# Variables of the machine that say how https gets out. None of them is a credential of a Git server.
_WAY_OUT: Final = (
    "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
)  # fmt: skip

_SETTINGS: Final = """\
[core]
	hooksPath = /dev/null
	attributesFile = /dev/null
	excludesFile = /dev/null
	fsmonitor = false
	symlinks = false
	protectHFS = true
	protectNTFS = true
	askPass =
	pager = cat
	editor = false
	commitGraph = false
	bigFileThreshold = 1m
	packedGitLimit = 256m
	packedGitWindowSize = 16m
	deltaBaseCacheLimit = 64m
[init]
	defaultBranch = main
[credential]
	helper =
[http]
	followRedirects = false
	sslVerify = true
	emptyAuth = false
	saveCookies = false
[protocol]
	allow = never
[transfer]
	fsckObjects = true
	bundleURI = false
[fetch]
	fsckObjects = true
	unpackLimit = 1
	recurseSubmodules = false
	writeCommitGraph = false
[submodule]
	recurse = false
[gc]
	auto = 0
[maintenance]
	auto = false
[advice]
	detachedHead = false
"""


@dataclass(frozen=True)
class Clone:
    """A private copy.

    Attributes:
        root: Folder of the working tree; its ``.git`` holds the whole history of all branches and tags.
        commit: Id of the commit whose files lie there; ``HEAD`` names it.
        findings: What was left out, as warnings.
    """

    root: str
    commit: str
    findings: tuple[Finding, ...] = field(default=())


@contextlib.contextmanager
def cloned(
    url: str, revision: str = "HEAD", *, time_limit: float = TIME_LIMIT, size_limit: int = SIZE_LIMIT
) -> Iterator[Clone]:
    """Clone a repository into a private folder, write the files of one revision, and remove all of it afterwards.

    Git sees no settings of the user, the machine or the repository. It has no credentials for https; for ssh it has
    the caller's agent (``SSH_AUTH_SOCK``), keys and known hosts, and refuses hosts that are not known.

    Args:
        url: ``https://``, ``ssh://``, ``user@host:path`` or ``file:///``, without credentials.
        revision: ``HEAD`` for the default branch, a full commit id, or the name of a branch or tag. A commit that is
            on no branch or tag is not found.
        time_limit: Seconds after which the work is given up.
        size_limit: Bytes that history and files together may have.

    Raises:
        UsageError: A URL or revision that cannot be taken.
        Stopped: What stopped the clone, as a finding: ``GIT_CLONE_FAILED``, ``GIT_REVISION_UNKNOWN``,
            ``FOREIGN_REFUSED``, ``GIT_OBJECT_CORRUPT``, ``PROGRAM_MISSING``.
    """
    protocol = check_url(url)
    check_revision(revision)
    deadline = Deadline(time_limit)
    with private_folder() as folder:
        # The system's folder for temporary files may be reached through links.
        folder = os.path.realpath(folder)
        root = os.path.join(folder, "repository")
        _transfer(url, protocol, folder, root, deadline, size_limit)
        clone = _check_out(folder, root, revision, deadline, size_limit)
        _OURS.add(root)
        try:
            yield clone
        finally:
            _OURS.discard(root)


def is_ours(root: str) -> bool:
    """Tell whether a folder is a clone that :func:`cloned` made and will remove."""
    return root in _OURS


# --- What Git does ---


def _transfer(url: str, protocol: str, folder: str, root: str, deadline: Deadline, size_limit: int) -> None:
    home = os.path.join(folder, "home")
    template = os.path.join(folder, "template")
    os.mkdir(home, 0o700)
    os.mkdir(template, 0o700)
    settings = os.path.join(home, "settings")
    with open(settings, "w", encoding="ascii") as file:
        file.write(_SETTINGS + f'[protocol "{protocol}"]\n\tallow = always\n')
    environ = environment(
        home,
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_SYSTEM="/dev/null",
        # The programs that Git starts read it too, which they would not with settings on the command line.
        GIT_CONFIG_GLOBAL=settings,
        GIT_ATTR_NOSYSTEM="1",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_NO_LAZY_FETCH="1",
        GIT_TERMINAL_PROMPT="0",
        GIT_ALLOW_PROTOCOL=protocol,
        GIT_PROTOCOL_FROM_USER="0",
        GIT_DEFAULT_REF_FORMAT="files",
        GIT_ASKPASS="false",
        SSH_ASKPASS="false",
        SSH_ASKPASS_REQUIRE="never",
        GIT_PAGER="cat",
        GIT_ALLOC_LIMIT="64m",
    )
    if protocol == "https":
        environ.update({name: os.environ[name] for name in _WAY_OUT if name in os.environ})
    if protocol == "ssh":
        environ.update(_ssh(folder))
    command = [
        _program("git", folder), "--no-pager", "--no-replace-objects", "clone", "--quiet", "--no-checkout",
        "--no-local", "--no-hardlinks", "--reject-shallow", "--no-recurse-submodules", "--origin=origin",
        f"--template={template}", "--", url, root,
    ]  # fmt: skip
    watch = Watch(root, size_limit, "GIT_CLONE_FAILED", url)
    try:
        with Child(command, environ=environ, folder=home, deadline=deadline, what="git clone", watch=watch) as child:
            status, _ = child.finish(1 << 20)
            diagnostics = bytes(child.diagnostics)
    except Stopped as stopped:
        raise _as_failure(stopped, url) from None
    if status != 0:
        raise unverifiable("GIT_CLONE_FAILED", url, f"Git could not clone the repository: {tail(diagnostics)}")
    watch.now()


def _ssh(folder: str) -> dict[str, str]:
    # The user's own settings for ssh are none of ours: they may run programs.
    options = (
        "BatchMode=yes", "StrictHostKeyChecking=yes", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes",
        "PermitLocalCommand=no", "ControlMaster=no", "ControlPath=none", "UpdateHostKeys=no",
    )  # fmt: skip
    command = [_program("ssh", folder), "-F", "none", "-T", *(f"-o{option}" for option in options)]
    environ = {"GIT_SSH_COMMAND": shlex.join(command), "GIT_SSH_VARIANT": "ssh"}
    if agent := os.environ.get("SSH_AUTH_SOCK"):
        environ["SSH_AUTH_SOCK"] = agent
    return environ


def _program(name: str, folder: str) -> str:
    program = find_program(name, outside=folder)
    if program is None:
        raise unverifiable("PROGRAM_MISSING", name, f"There is no {name} program to fetch the repository with.")
    return program


def _as_failure(stopped: Stopped, url: str) -> Stopped:
    finding = stopped.finding
    if finding.code in ("PROGRAM_MISSING", "GIT_CLONE_FAILED"):
        return stopped
    return unverifiable("GIT_CLONE_FAILED", url, finding.message, next_step="Raise the time limit, or try again.")


def tail(diagnostics: bytes, secrets: Iterable[str] = ()) -> str:
    """Return the end of what a program said, printable and without credentials.

    Args:
        diagnostics: Its output.
        secrets: Texts that are replaced wherever they stand.
    """
    text = diagnostics.decode("utf-8", "replace")
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"(?<=://)[^/\s@]*@", "***@", text)
    text = re.sub(
        r"(?i)((?:x-amz-|aws)[a-z-]*(?:signature|credential|token|keyid)[a-z-]*\s*[=:]\s*)[^\s&'\"<]+", r"\1***", text
    )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = " / ".join(lines)
    said = said if len(said) <= _MAX_TAIL else "…" + said[1 - _MAX_TAIL :]
    return printable(said) or "it said nothing"


class Watch:
    """Ends the waiting for a program when a folder grows beyond a limit.

    Args:
        folder: The folder.
        limit: Bytes.
        code: Code of the finding.
        subject: What grew, for the finding.
    """

    def __init__(self, folder: str, limit: int, code: str, subject: str) -> None:
        self._folder = folder
        self._limit = limit
        self._code = code
        self._subject = subject
        self._next = 0.0

    def __call__(self) -> None:
        """Look, unless that was done a moment ago."""
        if time.monotonic() >= self._next:
            self.now()

    def now(self) -> None:
        """Look.

        Raises:
            Stopped: It is too large.
        """
        began = time.monotonic()
        if folder_size(self._folder) > self._limit:
            raise unverifiable(
                self._code,
                self._subject,
                f"It is larger than the limit of {self._limit} bytes.",
                next_step="Raise the limit if that is to be expected.",
            )
        # A look at many files takes long; most of the time has to be left for the work.
        self._next = time.monotonic() + 10 * (time.monotonic() - began)


def folder_size(folder: str) -> int:
    """Return the bytes that the files below a folder take; what vanishes meanwhile counts as nothing."""
    total = 0
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as scan:
                for item in scan:
                    with contextlib.suppress(OSError):
                        if item.is_dir(follow_symlinks=False):
                            waiting.append(item.path)
                        else:
                            # Every file takes at least a block.
                            total += max(4096, item.stat(follow_symlinks=False).st_size)
        except OSError:
            continue
    return total


# --- What we do ---


def _check_out(folder: str, root: str, revision: str, deadline: Deadline, size_limit: int) -> Clone:
    repository = open_repository(root)
    refs = Refs(repository)
    oid, may_be_tag = resolve_revision(
        refs,
        revision,
        _candidates(revision),
        unknown="Name a branch or tag that was pushed, or the full id of a commit.",
        several="Write refs/heads/… or refs/tags/….",
    )
    head = refs.resolve("HEAD")
    if head is not None and len(head) != len(oid):
        raise refused("GIT_REVISION_UNKNOWN", revision, "The repository has ids of another length.", expected=head)
    home = os.path.join(folder, "reader")
    os.mkdir(home, 0o700)
    git = Git(_program("git", folder), home, os.path.join(root, ".git", "objects"), ALGORITHMS[len(oid)], deadline)
    with contextlib.closing(git):
        commit = peel(git, oid, may_be_tag, revision)
        tree = parse_commit(commit, git.object(commit, "commit"), git.algorithm).tree
        files, submodules = _list(git, tree)
        left = size_limit - folder_size(os.path.join(root, ".git"))
        _Writer(git, root, left, deadline).write(files)
    with open(os.path.join(root, ".git", "HEAD"), "w", encoding="ascii") as file:
        file.write(commit + "\n")
    left_out = tuple(
        Finding("NESTED_REPOSITORY", "warning", name, "The submodule was not fetched, and not looked at.")
        for name in submodules
    )
    return Clone(root, commit, left_out)


def _candidates(revision: str) -> list[str]:
    """Return the refs that a revision can mean in a clone, whose branches are those of its origin."""
    if revision == "HEAD":
        return ["HEAD"]
    if revision.startswith("refs/heads/"):
        return ["refs/remotes/origin/" + revision.removeprefix("refs/heads/")]
    if revision.startswith("refs/"):
        return [revision]
    return [f"refs/remotes/origin/{revision}", f"refs/tags/{revision}", f"refs/remotes/{revision}"]


def _list(git: Git, tree: str) -> tuple[list[tuple[str, str, bool]], list[str]]:
    """Return path, blob and whether it is executable of every file, and the paths of submodules.

    Raises:
        Stopped: A name or a kind that is not written, or too many of them.
    """
    files: list[tuple[str, str, bool]] = []
    submodules: list[str] = []
    folders = 0
    waiting = [("", tree, 0)]
    while waiting:
        prefix, oid, level = waiting.pop()
        folders += 1
        if folders > _MAX_FOLDERS or level > _MAX_LEVELS:
            raise refused("FOREIGN_REFUSED", prefix, "The revision has too many folders, or too deep ones.")
        seen: dict[str, str] = {}
        for raw, (mode, entry) in parse_tree(oid, git.object(oid, "tree")).items():
            path = prefix + _plain_name(prefix, raw)
            name = path[len(prefix) :]
            if (other := seen.setdefault(fold(name), name)) != name:
                raise refused(
                    "FOREIGN_REFUSED",
                    path,
                    "Two names are the same where case or Unicode form is ignored.",
                    found=f"{other} and {name}",
                )
            if mode == b"120000":
                raise refused("FOREIGN_REFUSED", path, "It is a symbolic link.", expected="a file or a folder")
            if mode == b"160000":
                submodules.append(path)
            elif mode == b"40000":
                waiting.append((path + "/", entry, level + 1))
            else:
                files.append((path, entry, mode == b"100755"))
        if len(files) + len(submodules) > MAX_FILES:
            raise refused("FOREIGN_REFUSED", prefix, f"The revision has more than {MAX_FILES} files.")
    return files, submodules


def _plain_name(prefix: str, raw: bytes) -> str:
    name = os.fsdecode(raw)
    try:
        check_name(name)
        check_name(prefix + name)
    except ArtifactError as error:
        raise refused("FOREIGN_REFUSED", prefix + name, error.message) from None
    if is_git_name(name):
        raise refused("FOREIGN_REFUSED", prefix + name, "Git on some system would take it for its own folder.")
    return name


# Characters that HFS+ leaves out when it compares names (next_hfs_char in Git's utf8.c).
_HFS_IGNORES: Final = dict.fromkeys(
    [*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF], ""
)


def is_git_name(name: str, of: str = ".git") -> bool:
    """Tell whether some file system takes a name for ``.git``: other case, ignored characters, short and long forms.

    Args:
        name: One component of a path.
        of: What it must not be taken for.
    """
    plain = fold(name.translate(_HFS_IGNORES)).partition(":")[0].rstrip(" .")
    return plain in (of, f"{of[1:]}~1")


class _Writer:
    """Writes blobs into a folder, each hashed anew on the way."""

    def __init__(self, git: Git, root: str, limit: int, deadline: Deadline) -> None:
        self._git = git
        self._root = root
        self._left = limit
        self._deadline = deadline
        self._made = {""}

    def write(self, files: list[tuple[str, str, bool]]) -> None:
        """Write files that are not there yet.

        Raises:
            Stopped: An object is missing or corrupt, the limit is reached, or time is up.
        """
        with self._git.start("cat-file", "--batch", what="git cat-file") as reader:
            for start in range(0, len(files), _BATCH):
                batch = files[start : start + _BATCH]
                reader.send("".join(f"{oid}\n" for _, oid, _ in batch).encode("ascii"))
                for path, oid, executable in batch:
                    self._file(reader, path, oid, executable)

    def _file(self, reader: Child, path: str, oid: str, executable: bool) -> None:
        words = (reader.line() or b"").decode("ascii", "replace").split(" ")
        if len(words) != 3 or words[0] != oid or words[1] != "blob" or not words[2].isdigit():
            raise self._broken(path, oid, reader)
        size = int(words[2])
        # Small files take a block, too.
        self._left -= max(4096, size)
        if self._left < 0:
            raise unverifiable("GIT_CLONE_FAILED", path, "History and files together are larger than the limit.")
        hasher = hashlib.sha256() if self._git.algorithm == "sha256" else hashlib.sha1(usedforsecurity=False)
        hasher.update(b"blob %d\0" % size)
        self._folder(path.rpartition("/")[0])
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(os.path.join(self._root, path), flags, 0o700 if executable else 0o600), "wb") as file:
            while size:
                piece = reader.exactly(min(size, _PIECE))
                if piece is None:
                    raise self._broken(path, oid, reader)
                size -= len(piece)
                hasher.update(piece)
                file.write(piece)
        if reader.exactly(1) != b"\n" or hasher.hexdigest() != oid:
            raise refused("GIT_OBJECT_CORRUPT", path, "The object store holds other bytes under this id.", expected=oid)

    def _folder(self, path: str) -> None:
        if path not in self._made:
            self._folder(path.rpartition("/")[0])
            os.mkdir(os.path.join(self._root, path), 0o700)
            self._made.add(path)

    def _broken(self, path: str, oid: str, reader: Child) -> Stopped:
        said = tail(reader.settle())
        if "over limit" in said or "Out of memory" in said:
            return unverifiable("GIT_UNREADABLE", path, f"The object is too large: {said}", expected=oid)
        return refused("GIT_OBJECT_CORRUPT", path, f"Git cannot read the object: {said}.", expected=oid)
