"""A DVC repository as its files describe it: every stage with its definition and its lock, every ``.dvc`` file.

Only these small files are read here. What cannot be read or resolved becomes a finding, so that nothing is left out
silently.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError
from sealflow.findings import Finding, printable
from sealflow.lineage.config import MAX_CONFIG, parse_configuration, text_of
from sealflow.lineage.content import WorkTree, walk_names
from sealflow.lineage.files import (
    MAX_FILE,
    Definition,
    DvcFile,
    LockedStage,
    MalformedError,
    Recorded,
    is_url,
    parse_dvc_file,
    parse_lock,
    parse_pipeline,
)
from sealflow.lineage.params import MAX_PARAMS, parse_params
from sealflow.lineage.template import Problem, TemplateError, resolve

#: Most stages and ``.dvc`` files of one repository.
MAX_STAGES: Final = 200_000
_SKIPPED: Final = frozenset((".git", ".hg", ".dvc"))


@dataclass(frozen=True, slots=True)
class Stage:
    """One node of the graph: a stage of ``dvc.yaml``, or a ``.dvc`` file.

    Attributes:
        address: As DVC names it: ``train``, ``sub/dvc.yaml:train``, ``data.dvc``.
        file: The file that defines it, relative to the repository.
        wdir: Folder that its paths are relative to, itself relative to the repository, empty for the repository.
        definition: The resolved stage, ``None`` for a ``.dvc`` file.
        locked: The lock's entry, ``None`` when there is none, and for a ``.dvc`` file.
        dvc: The ``.dvc`` file, ``None`` for a stage.
    """

    address: str
    file: str
    wdir: str
    definition: Definition | None = None
    locked: LockedStage | None = None
    dvc: DvcFile | None = None

    @property
    def out_paths(self) -> tuple[str, ...]:
        """What it claims to write, as written."""
        if self.definition is not None:
            return tuple(out.path for out in self.definition.outs)
        return tuple(out.path for out in self.dvc.outs) if self.dvc is not None else ()

    @property
    def recorded_outs(self) -> tuple[Recorded, ...]:
        """What is recorded about its outputs."""
        source = self.locked or self.dvc
        return source.outs if source is not None else ()

    @property
    def recorded_deps(self) -> tuple[Recorded, ...]:
        """What is recorded about its dependencies, without those of imports, which lie elsewhere."""
        if self.locked is not None:
            return self.locked.deps
        return () if self.dvc is None or self.dvc.frozen else tuple(dep for dep in self.dvc.deps if not dep.upstream)

    @property
    def dep_paths(self) -> tuple[str, ...]:
        """What it claims to read from this repository, as written."""
        if self.definition is not None:
            return self.definition.deps
        return tuple(dep.path for dep in self.recorded_deps)

    def place(self, path: str) -> str | None:
        """Return a path relative to the repository in its shortest form, ``None`` when it leads out of it."""
        return inside(self.wdir, path)


def inside(folder: str, path: str) -> str | None:
    """Return ``path``, relative to ``folder``, relative to the repository; ``None`` when it leads out of it."""
    if is_url(path) or path.startswith("/"):
        return None
    joined = posixpath.normpath(posixpath.join(folder, path))
    return None if joined == ".." or joined.startswith("../") else joined


@dataclass
class Repository:
    """What was read.

    Attributes:
        tree: The work tree, open for reading.
        stages: Every node of the graph that could be read.
        findings: What could not be read, and what is wrong at any level.
        read: The files that all of this rests on, with their bytes; ``None`` for one that was looked for and is
            not there.
        caches: Folders of DVC's caches.
        problems: Names of stages that could not be resolved.
        ignoring: Whether a ``.dvcignore`` was seen.
    """

    tree: WorkTree
    stages: list[Stage] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    read: dict[str, bytes | None] = field(default_factory=dict)
    caches: list[str] = field(default_factory=list)
    problems: set[str] = field(default_factory=set)
    ignoring: bool = False
    _params: dict[str, Mapping[Any, Any] | EvidenceError | None] = field(default_factory=dict)

    def params(self, path: str) -> Mapping[Any, Any] | None:
        """Return a parameters file by its path relative to the repository, ``None`` when there is none.

        Raises:
            EvidenceError: It cannot be read, or leads out of the repository.
        """
        if path not in self._params:
            try:
                self._params[path] = self._read_params(path)
            except EvidenceError as error:
                self._params[path] = error
        found = self._params[path]
        if isinstance(found, EvidenceError):
            raise found
        return found

    def _read_params(self, path: str) -> Mapping[Any, Any] | None:
        if inside("", path) is None:
            raise TemplateError(f"The parameters file {printable(path)} lies outside of the repository.")
        try:
            data = self.get(path, MAX_PARAMS)
        except (ArtifactError, UnavailableError) as error:
            raise EvidenceError(error.message, code="PARAMS_UNREADABLE") from None
        return None if data is None else parse_params(data, path, printable(path))

    def get(self, path: str, limit: int = MAX_FILE) -> bytes | None:
        """Return a small file's bytes and note that they were relied on.

        Raises:
            ArtifactError: It is no regular file, or too large.
            UnavailableError: It cannot be read.
        """
        if path not in self.read:
            self.read[path] = self.tree.get(path, limit)
        return self.read[path]

    def refuse(self, subject: str, error: SealflowError) -> None:
        """Note an error as a finding."""
        self.findings.append(as_finding(error, subject))


def as_finding(error: SealflowError, subject: str) -> Finding:
    """Return an error as the finding that it is."""
    if isinstance(error, UnavailableError):
        return Finding(error.code, "unverifiable", subject, error.message, next_step=error.next_step)
    if isinstance(error, ArtifactError) and error.code == "ARTIFACT_REFUSED":
        return Finding("DATA_REFUSED", "refusal", subject, error.message)
    return Finding(error.code, "refusal", subject, error.message, next_step=error.next_step)


def load(tree: WorkTree) -> Repository:
    """Read every file of DVC below the root of a work tree.

    Raises:
        UnavailableError: A folder cannot be read.
    """
    found = Repository(tree)
    parsing = _configuration(found)
    outs: set[str] = set()
    files: list[str] = []
    placed = 0
    for folder, folders, names in walk_names(tree.root):
        prefix = f"{folder}/" if folder else ""
        if ".dvc" in folders and folder:
            found.findings.append(
                Finding(
                    "NESTED_REPOSITORY", "warning", folder, "Another DVC repository lies here; it was not looked at."
                )
            )
            folders.clear()
            continue
        found.ignoring |= ".dvcignore" in names
        for name in names:
            path = prefix + name
            if name == "dvc.yaml" or (name == "dvc.lock" and "dvc.yaml" not in names):
                _pipeline(found, prefix, parsing)
                files.append(path)
            elif name.endswith(".dvc") and name != ".dvc":
                _dvc_file(found, path)
                files.append(path)
        for stage in found.stages[placed:]:
            outs.update(at for out in stage.out_paths if (at := stage.place(out)) is not None)
        placed = len(found.stages)
        # What DVC tracks is data; a folder of data is walked when it is hashed.
        folders[:] = [name for name in folders if name not in _SKIPPED and prefix + name not in outs]
        if len(found.stages) > MAX_STAGES:
            raise UnavailableError(f"The repository has more than {MAX_STAGES} stages.", code="EVIDENCE_TOO_MUCH")
    _stages_in_data(found, files, outs)
    return found


def _stages_in_data(found: Repository, files: list[str], outs: set[str]) -> None:
    # Data that brings its own stages would speak for itself.
    hidden = set()
    for path in files:
        above = posixpath.dirname(path)
        while above:
            if above in outs:
                found.findings.append(
                    Finding("OUT_OVERLAP", "refusal", path, f"The file lies inside of the output {printable(above)}.")
                )
                hidden.add(path)
                break
            above = posixpath.dirname(above)
    found.stages = [stage for stage in found.stages if stage.file not in hidden]


def _pipeline(found: Repository, prefix: str, parsing: Mapping[str, str]) -> None:
    yaml, lock = f"{prefix}dvc.yaml", f"{prefix}dvc.lock"
    locked: dict[str, LockedStage] = {}
    unlocked = False
    try:
        data = found.get(lock)
        if data is not None:
            locked = parse_lock(data, printable(lock))
    except SealflowError as error:
        # Whoever cannot read the lock cannot say that a stage is missing from it.
        unlocked = True
        found.refuse(lock, error)
    try:
        data = found.get(yaml)
        pipeline = parse_pipeline(data, printable(yaml)) if data is not None else None
    except SealflowError as error:
        found.refuse(yaml, error)
        return
    folder = prefix.rstrip("/")
    known: set[str] = set()
    groups: set[str] = set()
    for item in resolve(pipeline, printable(yaml), folder, found.params, parsing) if pipeline is not None else ():
        address = item.name if not prefix else f"{yaml}:{item.name}"
        if isinstance(item, Problem):
            groups.add(item.name)
            found.problems.add(address)
            found.findings.append(
                Finding(item.error.code, "refusal", address, f"{item.error.message} ({yaml}, line {item.line})")
            )
            continue
        if item.name in known:
            found.findings.append(
                Finding("LINEAGE_MALFORMED", "refusal", address, f"Two stages have this name ({yaml}).")
            )
            continue
        known.add(item.name)
        runs_in = inside(folder, item.wdir or ".")
        if runs_in is None:
            found.problems.add(address)
            found.findings.append(
                Finding("DATA_EXTERNAL", "unverifiable", address, "The stage runs outside of the repository.")
            )
            continue
        wdir = "" if runs_in == "." else runs_in
        entry = locked.get(item.name)
        found.stages.append(Stage(address, yaml, wdir, item, entry))
        if entry is None and not unlocked:
            found.findings.append(
                Finding("STAGE_NOT_LOCKED", "refusal", address, f"{printable(lock)} has no entry for the stage.")
            )
    for name in locked:
        if name not in known and name not in groups and name.rpartition("@")[0] not in groups:
            address = name if not prefix else f"{yaml}:{name}"
            found.findings.append(
                Finding(
                    "STAGE_ORPHAN",
                    "refusal",
                    address,
                    f"{printable(lock)} holds a stage that {printable(yaml)} does not (line {locked[name].line}).",
                )
            )


def _dvc_file(found: Repository, path: str) -> None:
    try:
        data = found.get(path)
        if data is None:
            raise MalformedError(f"{printable(path)} vanished while it was read.", code="ARTIFACT_CHANGED")
        parsed = parse_dvc_file(data, printable(path))
        wdir = inside(posixpath.dirname(path), parsed.wdir or ".")
        if wdir is None:
            raise UnavailableError(
                f"{printable(path)} speaks of a folder outside of the repository.", code="DATA_EXTERNAL"
            )
    except SealflowError as error:
        found.refuse(path, error)
        return
    found.stages.append(Stage(path, path, "" if wdir == "." else wdir, dvc=parsed))


def _configuration(found: Repository) -> dict[str, str]:
    """Take from DVC's configuration where the cache is and how templates become options, and nothing else."""
    parsing: dict[str, str] = {}
    folder = ".dvc/cache"
    for path in (".dvc/config", ".dvc/config.local"):
        try:
            # The local one is nobody's claim about data, and is not part of a commit.
            data = found.get(path, MAX_CONFIG) if path == ".dvc/config" else found.tree.get(path, MAX_CONFIG)
            sections = parse_configuration(data or b"", path)
            if cache := text_of(sections, "cache", "dir", path):
                folder = os.path.join(".dvc", cache)
            if path == ".dvc/config":
                parsing = {name: text_of(sections, "parsing", name) or "" for name in sections.get("parsing", ())}
        except SealflowError as error:
            found.refuse(path, error)
    found.caches.append(os.path.normpath(os.path.join(found.tree.root, folder)))
    found.tree.link_to(found.caches[0])
    return parsing
