"""Lineage level L3: the bytes that a check relied on belong to a commit that an allowed signer signed, on a branch.

Git's own answers are not enough: ``git verify-commit`` runs whatever the repository's configuration names, and
``git status`` trusts the index. Here every object that matters is hashed anew, from the given bytes up through the
trees to the signed commit, and from the branch down to it. Nothing of the repository's configuration is read, no code
of the repository runs, and nothing is written into it.

What this proves, and what not:

- The given bytes are those of the commit, and the holder of an allowed key signed that commit. In a repository with
  SHA-1 ids this is as strong as SHA-1; lineage statements (L5) bind SHA-256.
- Commit times, and with them ``valid_after`` and ``valid_before``, are claims of the signer.
- A branch is a file in this repository. Whoever may write there can move it; fetch it from its server first, and name
  the remote-tracking branch.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Final

from sealflow.errors import ArtifactError, UsageError
from sealflow.findings import Finding, printable
from sealflow.lineage.git_program import (
    ALGORITHMS,
    Child,
    Deadline,
    Git,
    Stopped,
    find_program,
    object_id,
    private_folder,
    read_small,
    refused,
    unverifiable,
)
from sealflow.lineage.git_signature import (
    AllowedSigner,
    AllowedSigners,
    SignedBy,
    check_signature,
    load_allowed_signers,
    parse_allowed_signers,
    read_allowed_signers,
)
from sealflow.names import check_name, fold

__all__ = [
    "AllowedSigner",
    "CommitCheck",
    "Repository",
    "check_commit",
    "find_repository",
    "parse_allowed_signers",
    "read_allowed_signers",
]

#: Seconds that a check takes at most, all programs together.
TIME_LIMIT: Final = 60.0
#: Commits that are looked at between a branch and the commit.
MAX_COMMITS: Final = 2_000_000
_MAX_REF: Final = 4096
_MAX_PACKED_REFS: Final = 64 << 20
_MAX_STATUS: Final = 64 << 20
_MAX_SYMBOLIC: Final = 5
_MAX_TAGS: Final = 5
_BATCH: Final = 256
#: Questions after which a walk is long enough to be worth guessing.
_GUESS_AFTER: Final = 8

_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# git-check-ref-format(1), rules 1 to 9.
_NOT_A_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|@\{|//|^[-/]|[/.]$|(?:^|/)\.|\.lock(?:/|$)|^@$|^$")
_PERSON = re.compile(rb"[^<>\n\0]*<[^<>\n\0]*> (\d{1,12}) [+-]\d{4}")
_MODES: Final = frozenset({b"40000", b"100644", b"100755", b"100664", b"120000", b"160000"})
_FOLDER: Final = b"40000"


@dataclass(frozen=True)
class CommitCheck:
    """What is known of the commit that the bytes should belong to.

    Attributes:
        commit: Id of the commit; empty when the revision could not be resolved.
        signer: Principal of the allowed signer whose signature counts; empty when none does.
        key: Fingerprint of the key that signed, whether it is allowed or not.
        committed_at: The time that the commit states, a claim of its signer.
        findings: Observations; ``refusal`` and ``unverifiable`` decide.
    """

    commit: str = ""
    signer: str = ""
    key: str = ""
    committed_at: datetime | None = None
    findings: tuple[Finding, ...] = field(default=())


@dataclass(frozen=True)
class Repository:
    """A working tree and where its repository lies.

    Attributes:
        root: Real path of the working tree.
        folder: Folder with ``HEAD`` of this working tree.
        common: Folder with objects and branches, the same unless the tree is a linked one (git-worktree(1)).
    """

    root: str
    folder: str
    common: str


# --- Where the repository is ---


def find_repository(path: str) -> tuple[str, str]:
    """Return the root of the working tree that holds a folder, and the folder's path inside it.

    Args:
        path: A folder. Links on the way to it are followed; it is the caller's word.

    Returns:
        The root's real path, and the relative path with ``/`` as separator, empty for the root itself. A folder in no
        working tree is taken for a root, which :func:`check_commit` then refuses.
    """
    start = root = os.path.realpath(path)
    while not os.path.lexists(os.path.join(root, ".git")):
        parent = os.path.dirname(root)
        if parent == root:
            return start, ""
        root = parent
    inside = os.path.relpath(start, root)
    return root, "" if inside == "." else inside


def open_repository(root: str) -> Repository:
    """Find the parts of a repository without reading its configuration.

    ``.git`` may be a folder, or a file as ``git worktree`` and ``git submodule`` write it, when what it points to
    points back or lies in the repository around it. Every other redirection is refused: it makes this working tree
    speak with the branches of a repository that does not know it.

    Args:
        root: Real path of the working tree.

    Raises:
        Stopped: Why the repository is not taken.
    """
    at = os.path.join(root, ".git")
    try:
        mode = os.lstat(at).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise refused(
            "GIT_REPOSITORY_REFUSED",
            root,
            "The folder lies in no working tree of Git.",
            next_step="Name a folder of a checked-out repository; a bare one has no files to compare.",
        ) from None
    except OSError as error:
        raise unverifiable("PERMISSION_DENIED", at, f"It may not be looked at: {error.strerror}.") from None
    if stat.S_ISDIR(mode):
        repository = Repository(root, at, at)
    elif stat.S_ISREG(mode):
        repository = _linked(root, at)
    else:
        raise refused("GIT_REPOSITORY_REFUSED", at, "It is a symbolic link or a special file.", expected="a folder")
    _check_store(repository)
    return repository


def _linked(root: str, at: str) -> Repository:
    text = _text(read_small(root, ".git", _MAX_REF))
    if not text.startswith("gitdir: "):
        raise refused("GIT_REPOSITORY_REFUSED", at, "The file does not name a repository.", expected="gitdir: <path>")
    folder = os.path.normpath(os.path.join(root, text.removeprefix("gitdir: ").rstrip("\n")))
    if os.path.realpath(folder) != folder:
        raise refused("GIT_REPOSITORY_REFUSED", at, "The file points through a symbolic link.", found=folder)
    common = os.path.dirname(os.path.dirname(folder))
    if os.path.basename(os.path.dirname(folder)) == "worktrees":
        back = _text(read_small(folder, "gitdir", _MAX_REF)).rstrip("\n")
        shared = _text(read_small(folder, "commondir", _MAX_REF)).rstrip("\n")
        if (
            back
            and shared
            and os.path.realpath(os.path.join(folder, back)) == at
            and os.path.normpath(os.path.join(folder, shared)) == common
        ):
            return Repository(root, folder, common)
    # .git/modules/<name> of a repository around this one (gitsubmodules(7)); the name may have several parts.
    around, found, _ = folder.partition("/.git/modules/")
    if found and root.startswith(around + "/") and os.path.isdir(os.path.join(around, ".git")):
        return Repository(root, folder, folder)
    raise refused(
        "GIT_REPOSITORY_REFUSED",
        at,
        "The file points to a repository that does not know this working tree.",
        found=folder,
        next_step="Check out the repository here, or add the working tree with `git worktree add`.",
    )


def _check_store(repository: Repository) -> None:
    common = repository.common
    for name in ("objects", "objects/info", "objects/pack", "refs"):
        path = os.path.join(common, name)
        if os.path.islink(path):
            raise refused("GIT_REPOSITORY_REFUSED", path, "It is a symbolic link.", expected="a folder")
    try:
        os.stat(os.path.join(common, "objects", "."))
    except PermissionError:
        raise unverifiable("PERMISSION_DENIED", common, "Its objects may not be read.") from None
    except OSError:
        raise refused(
            "GIT_REPOSITORY_REFUSED", common, "It has no folder of objects, so it is no repository."
        ) from None
    if repository.folder == common and os.path.lexists(os.path.join(common, "commondir")):
        raise refused("GIT_REPOSITORY_REFUSED", common, "It takes its objects and branches from elsewhere.")
    if os.path.lexists(os.path.join(common, "reftable")):
        raise unverifiable(
            "GIT_UNREADABLE",
            common,
            "Its branches are stored in a reftable, which is not supported.",
            next_step="Convert them: git refs migrate --ref-format=files",
        )
    alternates = read_small(common, "objects/info/alternates", _MAX_PACKED_REFS)
    if any(line.strip() and not line.startswith(b"#") for line in (alternates or b"").split(b"\n")):
        raise unverifiable(
            "GIT_UNREADABLE",
            os.path.join(common, "objects/info/alternates"),
            "The repository takes objects from another one, which is not followed.",
            next_step="Make it whole: git repack -a -d && rm .git/objects/info/alternates",
        )


def _text(data: bytes | None) -> str:
    return os.fsdecode(data or b"")


# --- Names of commits ---


class Refs:
    """The branches of a repository, read from their files (gitrepository-layout(5))."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._packed: dict[str, str] | None = None

    def resolve(self, name: str, depth: int = 0) -> str | None:
        """Return the object id that a full ref name stands for, or ``None``.

        Raises:
            Stopped: It cannot be read, or says something else.
        """
        own = name == "HEAD" or name.startswith(("refs/worktree/", "refs/bisect/", "refs/rewritten/"))
        data = read_small(self._repository.folder if own else self._repository.common, name, _MAX_REF)
        if data is None:
            return self._from_packed().get(name)
        text = _text(data).rstrip()
        if text.startswith("ref:"):
            target = text.removeprefix("ref:").strip()
            if depth >= _MAX_SYMBOLIC or not target.startswith("refs/") or _NOT_A_REF.search(target):
                raise refused("GIT_REPOSITORY_REFUSED", name, "It points to what is no branch.", found=target)
            return self.resolve(target, depth + 1)
        if _ID.fullmatch(text) is None:
            raise refused("GIT_REPOSITORY_REFUSED", name, "It holds no object id.", found=text)
        return text

    def _from_packed(self) -> dict[str, str]:
        if self._packed is None:
            self._packed = {}
            for line in _text(read_small(self._repository.common, "packed-refs", _MAX_PACKED_REFS)).split("\n"):
                oid, _, name = line.partition(" ")
                if _ID.fullmatch(oid) and name.startswith("refs/"):
                    self._packed[name] = oid
        return self._packed


def check_revision(revision: str) -> None:
    if _NOT_A_REF.search(revision) or len(revision) > 1024:
        raise UsageError(
            f"{printable(revision, 100)!r} is not the name of a commit.",
            next_step="Give HEAD, a full commit id, or the name of a branch or tag; expressions are not taken.",
        )


def _check_branch(branch: str) -> None:
    if not branch.startswith(("refs/heads/", "refs/remotes/")) or _NOT_A_REF.search(branch) or len(branch) > 1024:
        raise UsageError(
            f"{printable(branch, 100)!r} is not the full name of a branch.",
            next_step="Write refs/heads/main, or refs/remotes/origin/main for what was last fetched.",
        )


def _candidates(revision: str) -> list[str]:
    """Return the refs that a revision can mean in somebody's own repository."""
    if revision == "HEAD" or revision.startswith("refs/"):
        return [revision]
    return [f"refs/{kind}/{revision}" for kind in ("heads", "tags", "remotes")]


def resolve_revision(
    refs: Refs, revision: str, candidates: Sequence[str], *, unknown: str, several: str
) -> tuple[str, bool]:
    """Return the id that a revision names, and whether it may be a tag's.

    Args:
        refs: The repository's refs.
        revision: A full id, which needs no ref; otherwise what the caller wrote.
        candidates: Full names of the refs that it can mean.
        unknown: Next step where there is none of them.
        several: Next step where they differ.

    Raises:
        Stopped: ``GIT_REVISION_UNKNOWN``: there is none, or they stand for several commits. Or one cannot be read.
    """
    if _ID.fullmatch(revision):
        return revision, False
    found = {name: oid for name in candidates if (oid := refs.resolve(name)) is not None}
    if not found:
        message = "The repository has no such branch or tag."
        raise refused("GIT_REVISION_UNKNOWN", revision, message, next_step=unknown)
    if len(set(found.values())) > 1:
        message = "The name stands for several commits."
        raise refused("GIT_REVISION_UNKNOWN", revision, message, found=" and ".join(found), next_step=several)
    name, oid = next(iter(found.items()))
    return oid, name.startswith("refs/tags/")


def peel(git: Git, oid: str, may_be_tag: bool, revision: str) -> str:
    """Return the id of the commit that a revision ends at. A tag's own signature counts for nothing here.

    Raises:
        Stopped: It ends at no commit, or an object is missing or corrupt.
    """
    for _ in range(_MAX_TAGS):
        entry = git.read([oid])[oid]
        if entry is None:
            raise unverifiable(
                "GIT_HISTORY_INCOMPLETE",
                revision,
                "The commit is not in this repository.",
                expected=oid,
                next_step="Fetch it, then check again.",
            )
        kind, data = entry
        if kind == "commit":
            return oid
        if kind != "tag" or not may_be_tag:
            break
        match = re.match(rb"object ([0-9a-f]+)\ntype (?:commit|tag)\n", data)
        if match is None or len(match[1]) != len(oid):
            break
        oid = match[1].decode("ascii")
    raise refused("GIT_REVISION_UNKNOWN", revision, "It does not name a commit.", expected="a commit", found=oid)


# --- Objects ---


@dataclass(frozen=True)
class Commit:
    """What a commit says.

    Attributes:
        tree: Id of its tree.
        parents: Ids of the commits before it.
        time: Seconds since 1970 as the committer states them, -1 when it states none.
        payload: The signed bytes.
        signature: The armored signature, ``None`` without one.
    """

    tree: str
    parents: tuple[str, ...]
    time: int
    payload: bytes
    signature: bytes | None


def parse_commit(oid: str, data: bytes, algorithm: str) -> Commit:
    """Read a commit strictly: what two readers could understand in two ways is refused.

    Raises:
        Stopped: It is malformed.
    """
    head, blank, _ = data.partition(b"\n\n")
    if not blank:
        # A commit without a message may end with the header.
        head = data.removesuffix(b"\n")
    fields: list[tuple[bytes, list[bytes]]] = []
    kept: list[bytes] = []
    for line in head.split(b"\n"):
        if line.startswith(b" "):
            if not fields:
                raise _malformed(oid, "it begins with a continued line")
            fields[-1][1].append(line[1:])
        else:
            name, _, value = line.partition(b" ")
            fields.append((name, [value]))
        if not fields[-1][0].startswith(b"gpgsig"):
            kept.append(line)
    names = [name for name, _ in fields]
    parents = [value[0] for name, value in fields if name == b"parent"]
    order = [b"tree"] + [b"parent"] * len(parents) + [b"author", b"committer"]
    if (
        b"\0" in head
        or names[: len(order)] != order
        or {b"tree", b"parent", b"author", b"committer"} & set(names[len(order) :])
    ):
        raise _malformed(oid, "its header is not in the order of Git")
    if any(len(value) != 1 for _, value in fields[: len(order)]):
        raise _malformed(oid, "its header has lines where none belong")
    width = len(oid)
    ids = [fields[0][1][0], *parents]
    if any(len(each) != width or _ID.fullmatch(each.decode("ascii", "replace")) is None for each in ids):
        raise _malformed(oid, "it names an object by what is no id")
    committer = _PERSON.fullmatch(fields[len(order) - 1][1][0])
    ours = b"gpgsig" if algorithm == "sha1" else b"gpgsig-sha256"
    signatures = [value for name, value in fields if name == ours]
    others = {name for name in names if name.startswith(b"gpgsig")} - {b"gpgsig", b"gpgsig-sha256"}
    if len(signatures) > 1 or others:
        # Git leaves every header out of the signed bytes whose name begins like this; so it could say anything.
        raise _malformed(oid, "it has more than one signature")
    signature = b"\n".join(signatures[0]) + b"\n" if signatures else None
    # What follows the header is signed as it stands (parse_buffer_signed_by_header in Git's commit.c).
    payload = b"\n".join(kept) + data[len(head) :]
    return Commit(
        ids[0].decode("ascii"),
        tuple(each.decode("ascii") for each in parents),
        int(committer[1]) if committer else -1,
        payload,
        signature,
    )


_LINKS = re.compile(rb"tree (?:[0-9a-f]{40}|[0-9a-f]{64})\n((?:parent (?:[0-9a-f]{40}|[0-9a-f]{64})\n)*)(?!parent)")
_TIME = re.compile(rb"\ncommitter [^\n]*> (\d{1,12}) ")


def _parse_links(oid: str, data: bytes) -> tuple[int, list[str]]:
    """Return the time and the parents of a commit on the way, as Git reads them (parse_commit_buffer in its commit.c).

    Nothing else of such a commit matters, and old histories hold all sorts of headers.

    Raises:
        Stopped: It is malformed.
    """
    match = _LINKS.match(data)
    parents = match[1].decode("ascii").split()[1::2] if match else []
    if match is None or any(len(parent) != len(oid) for parent in parents):
        raise _malformed(oid, "it does not begin with a tree and parents")
    time = _TIME.search(data, match.end() - 1)
    return int(time[1]) if time else 0, parents


def _malformed(oid: str, reason: str) -> Stopped:
    return refused("GIT_OBJECT_CORRUPT", oid, f"The object is malformed: {reason}.")


def parse_tree(oid: str, data: bytes) -> dict[bytes, tuple[bytes, str]]:
    """Read one level of a tree strictly: names to modes and ids.

    Raises:
        Stopped: It is malformed, unsorted, or holds a name twice.
    """
    width = len(oid) // 2
    entries: dict[bytes, tuple[bytes, str]] = {}
    at, last, count = 0, b"", 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        zero = data.find(b"\0", space + 1)
        if space < 0 or zero < 0 or zero + 1 + width > len(data):
            raise _malformed(oid, "it ends early")
        mode, name = data[at:space], data[space + 1 : zero]
        if mode not in _MODES or not name or b"/" in name or name in (b".", b".."):
            raise _malformed(oid, "it holds an entry that is none")
        # Folders sort as if their names ended with a slash.
        key = name + b"/" if mode == _FOLDER else name
        if count and key <= last:
            raise _malformed(oid, "its entries are not in order")
        last, count = key, count + 1
        entries[name] = (mode, data[zero + 1 : zero + 1 + width].hex())
        at = zero + 1 + width
    if len(entries) != count:
        raise _malformed(oid, "it holds a name twice")
    return entries


class _Tree:
    """Looks up files in the tree of a commit."""

    def __init__(self, git: Git, root: str) -> None:
        self._git = git
        self._root = root
        self._levels: dict[str, dict[bytes, tuple[bytes, str]]] = {}
        self._folded: dict[str, dict[str, list[bytes]]] = {}

    def find(self, path: str) -> tuple[bytes, str] | None:
        """Return mode and id of what lies at a path, or ``None``.

        Raises:
            Stopped: An object is missing or corrupt, a name is ambiguous, or the path leads into a submodule or link.
        """
        oid = self._root
        parts = path.encode("utf-8").split(b"/")
        for index, part in enumerate(parts):
            entry = self._level(oid).get(part)
            same = self._folded[oid].get(fold(part.decode("utf-8")), [])
            if others := [name for name in same if name != part]:
                raise refused(
                    "GIT_NAME_COLLISION",
                    path,
                    "The commit holds another name that is the same where case or Unicode form is ignored.",
                    found=others[0].decode("utf-8", "replace"),
                )
            if entry is None:
                return None
            mode, oid = entry
            if index == len(parts) - 1:
                return entry
            if mode == b"160000":
                raise refused(
                    "GIT_UNTRACKED",
                    path,
                    "The file lies in a submodule, of which the commit says nothing but its commit.",
                    next_step="Check the submodule as a repository of its own.",
                )
            if mode != _FOLDER:
                return None
        return None

    def _level(self, oid: str) -> dict[bytes, tuple[bytes, str]]:
        if oid not in self._levels:
            entries = parse_tree(oid, self._git.object(oid, "tree"))
            folded: dict[str, list[bytes]] = {}
            for name in entries:
                folded.setdefault(fold(name.decode("utf-8", "surrogateescape")), []).append(name)
            self._levels[oid], self._folded[oid] = entries, folded
        return self._levels[oid]


# --- The parts of the check ---


def _compare_files(git: Git, commit: Commit, inside: str, files: Mapping[str, bytes | None]) -> Iterator[Finding]:
    tree = _Tree(git, commit.tree)
    for path, data in files.items():
        try:
            check_name(path)
            entry = tree.find(_below(inside, path))
        except ArtifactError as error:
            yield Finding("ARTIFACT_REFUSED", "refusal", path, error.message, next_step="Rename the file.")
            continue
        except Stopped as stopped:
            yield stopped.finding
            continue
        finding = _compare(git, path, data, entry)
        if finding is not None:
            yield finding


def _below(inside: str, path: str) -> str:
    return f"{inside}/{path}" if inside else path


def _compare(git: Git, path: str, data: bytes | None, entry: tuple[bytes, str] | None) -> Finding | None:
    if entry is None:
        if data is None:
            return None
        return Finding("GIT_UNTRACKED", "refusal", path, "The commit does not hold this file.")
    mode, oid = entry
    if data is None:
        return Finding("GIT_DIRTY", "refusal", path, "The commit holds this file, and it was not there.")
    if mode not in (b"100644", b"100755", b"100664"):
        kind = {_FOLDER: "a folder", b"120000": "a symbolic link"}.get(mode, "a submodule")
        return Finding("GIT_DIRTY", "refusal", path, "The commit holds something else under this name.", found=kind)
    found = object_id("blob", data, git.algorithm)
    if found == oid:
        return None
    message = "The bytes that were read are not those of the commit."
    step = ""
    if b"\r\n" in data and object_id("blob", data.replace(b"\r\n", b"\n"), git.algorithm) == oid:
        message += " They differ in line ends alone."
        step = "Check the file out without conversion (core.autocrlf=false, no `text` attribute)."
    return Finding("GIT_DIRTY", "refusal", path, message, expected=f"blob {oid}", found=f"blob {found}", next_step=step)


def _signed_by(
    commit: str, parsed: Commit, allowed: AllowedSigners, home: str, root: str, deadline: Deadline
) -> SignedBy:
    if parsed.signature is None:
        raise refused("COMMIT_UNSIGNED", commit, "The commit has no signature.", expected="a signed commit")
    if not allowed:
        raise refused(
            "IDENTITY_RULE_MISSING",
            commit,
            "Nobody is named who may sign commits.",
            next_step="Name the allowed signers of commits.",
        )
    if parsed.time < 0:
        raise _malformed(commit, "it states no time")
    return check_signature(
        parsed.payload,
        parsed.signature,
        commit=commit,
        committed_at=_moment(commit, parsed.time),
        allowed=allowed,
        home=home,
        outside=root,
        deadline=deadline,
    )


def _moment(commit: str, seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise _malformed(commit, "it states an impossible time") from None


def _check_reachable(git: Git, commit: str, branch: str, tip: str) -> None:
    """Walk from the branch to the commit, hashing each commit anew.

    Raises:
        Stopped: The commit is not on the branch, or nobody can say.
    """
    waiting: list[tuple[int, str]] = [(0, tip)]
    seen = {tip}
    gap = ""
    with contextlib.closing(_Ahead(git, tip)) as ahead:
        # An id that stands in the branch, or in a commit that was hashed anew, is part of the branch.
        while waiting and commit not in seen:
            # Newest first, for the commit is rarely far. Dates only order the walk; nothing is left out for their sake.
            oid = heapq.heappop(waiting)[1]
            found = ahead.take(oid, waiting)
            if found is None:
                gap = gap or oid
                continue
            time, parents = found
            for parent in parents:
                if parent not in seen:
                    seen.add(parent)
                    heapq.heappush(waiting, (-time, parent))
            if len(seen) > MAX_COMMITS:
                raise unverifiable("GIT_UNREADABLE", branch, f"The branch has more than {MAX_COMMITS} commits.")
    if commit in seen:
        return
    if gap:
        raise unverifiable(
            "GIT_HISTORY_INCOMPLETE",
            branch,
            "The commit was not found on the branch, of which this repository holds only a part.",
            expected=f"commit {gap}",
            next_step="Fetch the whole history: git fetch --unshallow",
        )
    raise refused(
        "COMMIT_NOT_ON_BRANCH", branch, "The commit is not part of the branch.", expected=commit, found=f"tip {tip}"
    )


class _Ahead:
    """Reads commits by the hundred, guessing which ones a walk will ask for.

    Most histories are a line, on which each commit names only the next. So Git is asked for the list, too; a wrong
    guess costs time and nothing else, for every commit is still hashed, and the walk follows what is in the commits.
    """

    def __init__(self, git: Git, tip: str) -> None:
        self._git = git
        self._tip = tip
        self._read: dict[str, tuple[int, list[str]] | None] = {}
        self._asked = 0
        self._list: Child | None = None

    def take(self, oid: str, next_ones: list[tuple[int, str]]) -> tuple[int, list[str]] | None:
        """Return time and parents of a commit, ``None`` when it is not there.

        Raises:
            Stopped: It is corrupt or no commit.
        """
        if oid not in self._read:
            self._asked += 1
            wanted = [oid, *(other for _, other in next_ones[:_BATCH] if other not in self._read)][:_BATCH]
            if self._asked > _GUESS_AFTER:
                wanted += self._guesses(_BATCH - len(wanted))
            for each, entry in self._git.read(wanted, keep=False).items():
                self._read[each] = None if entry is None else self._parsed(each, *entry)
        return self._read.pop(oid)

    def _parsed(self, oid: str, kind: str, data: bytes) -> tuple[int, list[str]]:
        if kind != "commit":
            raise refused("GIT_OBJECT_CORRUPT", oid, "It is no commit.", expected="commit", found=kind)
        return _parse_links(oid, data)

    def _guesses(self, count: int) -> list[str]:
        if self._list is None:
            self._list = self._git.start("rev-list", self._tip, "--", what="git rev-list")
        found: list[str] = []
        while len(found) < count and (line := self._list.line()) is not None:
            oid = line.decode("ascii", "replace")
            if _ID.fullmatch(oid) and oid not in self._read:
                found.append(oid)
        return found

    def close(self) -> None:
        """End the list."""
        if self._list is not None:
            self._list.close()


def _look_around(git: Git, repository: Repository, commit: str, told: set[str]) -> Finding | None:
    """Tell of files that differ from the commit besides those told of: tracked and changed, or new and not ignored.

    The index is a fresh one of our own, so that no mark in the repository's hides a file. Git looks at attributes of
    line ends, but knows none of the repository's filters; whether that is right decides nothing.
    """
    git.close()
    tree = {"GIT_WORK_TREE": repository.root}
    try:
        with open(os.path.join(git.folder, "HEAD"), "w", encoding="ascii") as file:
            file.write(commit + "\n")
        with git.start("read-tree", "--reset", commit, what="git read-tree", **tree) as child:
            status, _ = child.finish(_MAX_STATUS)
        if status == 0:
            arguments = ("status", "--porcelain=v1", "-z", "--untracked-files=normal", "--ignore-submodules=all",
                         "--no-renames")  # fmt: skip
            with git.start(*arguments, what="git status", **tree) as child:
                status, output = child.finish(_MAX_STATUS)
    except Stopped as stopped:
        return Finding(
            "GIT_DIRTY_ELSEWHERE",
            "warning",
            repository.root,
            f"The other files were not compared: {stopped.finding.message}",
        )
    if status != 0:
        return Finding("GIT_DIRTY_ELSEWHERE", "warning", repository.root, "The other files could not be compared.")
    names = [os.fsdecode(line[3:]) for line in output.split(b"\0") if len(line) > 3]
    others = [name for name in names if name not in told]
    if not others:
        return None
    shown = ", ".join(printable(name, 60) for name in others[:3]) + (", …" if len(others) > 3 else "")
    return Finding(
        "GIT_DIRTY_ELSEWHERE",
        "warning",
        repository.root,
        f"{len(others)} other files or folders differ from the commit or are not part of it.",
        found=shown,
    )


# --- The check ---


def check_commit(
    repo: str,
    *,
    files: Mapping[str, bytes | None],
    allowed_signers: Iterable[AllowedSigner],
    branch: str | None,
    revision: str = "HEAD",
    time_limit: float = TIME_LIMIT,
) -> CommitCheck:
    """Check that bytes belong to a signed commit on a branch (lineage level L3).

    Args:
        repo: A folder of a working tree, its root or one inside; see :func:`find_repository`.
        files: The files that the lineage check relied on, by path relative to that folder with ``/`` as the separator,
            each with the bytes that were read, or ``None`` for a file that was looked for and not there.
        allowed_signers: Who may sign commits. With none the check fails.
        branch: Full name of the branch that has to hold the commit (``refs/heads/main``,
            ``refs/remotes/origin/main``). With ``None`` the check fails: a signature alone does not say that anybody
            took the commit.
        revision: The commit: ``HEAD``, a full id, or the name of a branch or tag. Expressions are not taken.
        time_limit: Seconds after which the check gives up as unverifiable.

    Returns:
        The commit, its signer, and the findings. The level is reached when no finding is a refusal or unverifiable.

    Raises:
        UsageError: A revision, branch, path of a repository or key that cannot be one.
        UnavailableError: The key file of an allowed signer cannot be read.
    """
    check_revision(revision)
    if branch is not None:
        _check_branch(branch)
    if "\0" in repo:
        raise UsageError("The path of a repository holds a NUL.")
    allowed = load_allowed_signers(allowed_signers)
    check = _Check(Deadline(time_limit))
    try:
        with private_folder() as home:
            check.run(repo, revision, files, allowed, branch, home)
    except Stopped as stopped:
        check.findings.append(stopped.finding)
    return CommitCheck(check.commit, check.signer, check.key, check.committed_at, tuple(check.findings))


class _Check:
    """One check: what it knows so far stays when it has to stop."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self.commit = self.signer = self.key = ""
        self.committed_at: datetime | None = None
        self.findings: list[Finding] = []

    def run(
        self,
        repo: str,
        revision: str,
        files: Mapping[str, bytes | None],
        allowed: AllowedSigners,
        branch: str | None,
        home: str,
    ) -> None:
        root, inside = find_repository(repo)
        repository = open_repository(root)
        program = find_program("git", outside=repository.root)
        if program is None:
            raise unverifiable(
                "PROGRAM_MISSING", "git", "There is no git program to read the repository with.",
                next_step="Install Git.",
            )  # fmt: skip
        refs = Refs(repository)
        oid, may_be_tag = resolve_revision(
            refs,
            revision,
            _candidates(revision),
            unknown="Fetch it, or name another; a commit is named by its full id.",
            several="Give the full name of the one that is meant.",
        )
        git = Git(program, home, os.path.join(repository.common, "objects"), ALGORITHMS[len(oid)], self._deadline)
        with contextlib.closing(git):
            commit = peel(git, oid, may_be_tag, revision)
            parsed = parse_commit(commit, git.object(commit, "commit"), git.algorithm)
            self.commit = commit
            if parsed.time >= 0:
                self.committed_at = _moment(commit, parsed.time)
            # Each part answers on its own, so that one refusal does not hide another.
            with self._noted():
                self._judge_signature(_signed_by(commit, parsed, allowed, home, repository.root, self._deadline))
            with self._noted():
                self.findings += _compare_files(git, parsed, inside, files)
            with self._noted():
                self._judge_branch(git, refs, branch)
            told = {finding.subject for finding in self.findings}
            other = _look_around(git, repository, commit, {_below(inside, path) for path in files if path in told})
            if other is not None:
                self.findings.append(other)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Stopped as stopped:
            self.findings.append(stopped.finding)

    def _judge_signature(self, signed: SignedBy) -> None:
        self.key = signed.key
        self.findings += signed.findings
        if not any(finding.severity == "refusal" for finding in signed.findings):
            self.signer = signed.name

    def _judge_branch(self, git: Git, refs: Refs, branch: str | None) -> None:
        if branch is None:
            raise refused("BRANCH_NOT_NAMED", self.commit, "No branch is named that has to hold the commit.")
        tip = refs.resolve(branch)
        if tip is None:
            raise refused("GIT_REVISION_UNKNOWN", branch, "The repository has no such branch.", expected=branch)
        if len(tip) != len(self.commit):
            raise refused("GIT_REPOSITORY_REFUSED", branch, "It holds an id of another object format.", found=tip)
        _check_reachable(git, self.commit, branch, tip)
        self.findings.append(
            Finding("BRANCH_CLAIMED", "note", branch, "The branch was taken as this repository states it.", found=tip)
        )
