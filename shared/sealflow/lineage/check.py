"""Levels L1 and L2 of a DVC repository, on which the others stand.

L1: the bytes in the work tree are the bytes that ``dvc.lock`` and the ``.dvc`` files name. L2: the lock agrees with
``dvc.yaml``, with the parameters files and with itself. Each level holds what the one below does.

From L5 on bytes are hashed with SHA-256 alone, and somebody has signed which MD5 they have.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.findings import Finding, Severity, printable
from sealflow.lineage.content import Content, WorkTree
from sealflow.lineage.files import MAX_DIRECTORY, Definition, LockedStage, Recorded, is_url, parse_directory
from sealflow.lineage.params import same, value_at
from sealflow.lineage.repository import Repository, Stage, as_finding, inside, load
from sealflow.names import fold

#: Levels by name, and what each adds.
LEVELS: Final[Mapping[str, int]] = {"L1": 1, "L2": 2, "L3": 3, "L4": 4, "L5": 5, "L6": 6}

#: Says why nobody vouches that bytes have a recorded digest, nothing where somebody does: path, bytes, record.
Binding = Callable[[str, Content, Recorded], Sequence[Finding]]

# Files of one folder that are named; the rest is counted.
_NAMED: Final = 20


@dataclass(frozen=True)
class LineageCheck:
    """What a check of levels L1 and L2 found.

    Attributes:
        findings: Observations; ``refusal`` and ``unverifiable`` decide.
        stages: The stages and ``.dvc`` files that were checked: those that the targets name and everything upstream.
        named: Those that the targets name; all without targets.
        read: The files of DVC and of parameters that the check relied on, by path relative to the repository, with
            their bytes; ``None`` for one that was looked for and is not there.
        contents: What was found at each path of data, by path relative to the repository.
        written: Paths of all outputs in the repository.
    """

    findings: tuple[Finding, ...]
    stages: tuple[Stage, ...]
    named: tuple[Stage, ...]
    read: Mapping[str, bytes | None]
    contents: Mapping[str, Content]
    written: frozenset[str] = frozenset()

    def inputs(self, stage: Stage) -> dict[str, bool]:
        """Return the paths of what a stage read, as outputs where there are some, and whether each is source.

        A dependency inside of an output stands for that output, and a folder around outputs for these and for itself.
        What no stage and no ``.dvc`` file writes is source.
        """
        found: dict[str, bool] = {}
        for item in stage.recorded_deps:
            place = stage.place(item.path)
            if place is None:
                continue
            above = place
            while above and above not in self.written:
                above = above.rpartition("/")[0]
            if above:
                found[above] = False
                continue
            found[place] = True
            found |= {path: False for path in sorted(self.written) if path.startswith(f"{place}/")}
        return found


def check_repository(
    root: str,
    targets: Sequence[str] = (),
    *,
    level: str = "L2",
    sha256: bool = False,
    binding: Binding | None = None,
) -> LineageCheck:
    """Check a repository against its own lock.

    Args:
        root: Folder that holds ``.dvc``.
        targets: Stages, outputs, ``.dvc`` or ``dvc.yaml`` files, relative to the root. Everything upstream of them is
            checked too. Without any, everything.
        level: The level. The part of ``L3`` and above here is that of ``L2``, and that digests of DVC 2 are refused.
        sha256: Whether ``contents`` carry SHA-256 digests too, made in the same pass.
        binding: Who vouches that bytes have a recorded digest. With it, ``contents`` carry SHA-256 digests, and MD5
            digests are made only where nobody does: below ``L5`` to decide, from ``L5`` on to explain the refusal.

    Raises:
        UsageError: An unknown level or target.
        UnavailableError: The folder cannot be read.
    """
    if level not in LEVELS:
        raise UsageError(f"{printable(level, 40)!r} is no level of lineage.", next_step=f"Use {', '.join(LEVELS)}.")
    try:
        os.stat(os.path.join(root, ".dvc", "."))
    except PermissionError:
        finding = Finding("PERMISSION_DENIED", "unverifiable", root, "The folder may not be looked into.")
        return LineageCheck((finding,), (), (), {}, {})
    except OSError:
        # A missing .dvc folder would make every relative path mean something else.
        finding = Finding("LINEAGE_MISSING", "refusal", root, "This is no DVC repository: it has no folder .dvc.")
        return LineageCheck((finding,), (), (), {}, {})
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(WorkTree(root, md5=binding is None, sha256=sha256 or binding is not None))
        repository = load(tree)
        check = _Check(repository, LEVELS[level], binding, stack)
        named, stages = check.select(targets)
        check.data(stages)
        if LEVELS[level] >= 2:
            check.agreement(stages)
        if not stages and not any(finding.severity in ("refusal", "unverifiable") for finding in check.findings):
            check.refuse("LINEAGE_MISSING", root, "The repository holds no stage and no .dvc file.")
        return LineageCheck(
            tuple(check.findings),
            tuple(stages),
            tuple(named),
            repository.read,
            check.contents,
            check.written,
        )


class _Graph:
    """Who writes what: outputs by path, and the stages that a path depends on."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.writers: dict[str, list[Stage]] = {}
        for stage in stages:
            for out in stage.out_paths:
                if (path := stage.place(out)) is not None:
                    self.writers.setdefault(path, []).append(stage)
        self._sorted = sorted(self.writers)

    def above(self, path: str) -> Iterator[str]:
        """Yield outputs that hold ``path``, itself included."""
        while path:
            if path in self.writers:
                yield path
            path = path.rpartition("/")[0]
        if "." in self.writers:
            yield "."

    def below(self, path: str) -> Iterator[str]:
        """Yield outputs inside of the folder ``path``."""
        if path == ".":
            yield from (item for item in self._sorted if item != ".")
            return
        start = path + "/"
        for item in self._sorted[bisect_left(self._sorted, start) :]:
            if not item.startswith(start):
                return
            yield item

    def upstream(self, stage: Stage) -> list[Stage]:
        """Return the stages whose outputs a stage reads."""
        found: dict[str, Stage] = {}
        for dep in stage.dep_paths:
            path = stage.place(dep)
            if path is None:
                continue
            for out in (*self.above(path), *self.below(path)):
                for writer in self.writers[out]:
                    found[writer.address] = writer
        return list(found.values())


class _Check:
    def __init__(
        self, repository: Repository, level: int, binding: Binding | None, stack: contextlib.ExitStack
    ) -> None:
        self._binding = binding
        self._stack = stack
        self._explaining: WorkTree | None = None
        self._repository = repository
        self._tree = repository.tree
        self._level = level
        self._graph = _Graph(repository.stages)
        self.findings: list[Finding] = list(repository.findings)
        self.contents: dict[str, Content] = {}
        self._compared: set[tuple[Any, ...]] = set()

    def refuse(
        self,
        code: str,
        subject: str,
        message: str,
        expected: str = "",
        found: str = "",
        *,
        severity: Severity = "refusal",
    ) -> None:
        self.findings.append(Finding(code, severity, subject, message, expected, found))

    @property
    def written(self) -> frozenset[str]:
        return frozenset(self._graph.writers)

    # --- What is checked ---

    def select(self, targets: Sequence[str]) -> tuple[list[Stage], list[Stage]]:
        """Return the stages that the targets name, and these with everything upstream of them.

        Raises:
            UsageError: A target names nothing.
        """
        every = self._repository.stages
        if not targets:
            return every, every
        waiting: list[Stage] = []
        for target in targets:
            named = self._named(target)
            if not named and not self._is_problem(target):
                raise UsageError(
                    f"{printable(target)!r} names no stage, output or file of DVC.",
                    code="LINEAGE_TARGET_UNKNOWN",
                    next_step="Give targets relative to the repository, or none to check everything.",
                )
            waiting += named
        named_ones = {stage.address for stage in waiting}
        chosen: dict[str, Stage] = {}
        while waiting:
            stage = waiting.pop()
            if stage.address not in chosen:
                chosen[stage.address] = stage
                waiting += self._graph.upstream(stage)
        return (
            [stage for stage in every if stage.address in named_ones],
            [stage for stage in every if stage.address in chosen],
        )

    def _named(self, target: str) -> list[Stage]:
        target = target.removeprefix("dvc.yaml:")
        path = inside("", target)
        return [
            stage
            for stage in self._repository.stages
            if target == stage.address
            or path == stage.file
            or stage.address.startswith(target + "@")
            or any(stage.place(out) == path for out in stage.out_paths if path is not None)
        ]

    def _is_problem(self, target: str) -> bool:
        # What is malformed or cannot be resolved is refused already, under its own name.
        target = target.removeprefix("dvc.yaml:")
        names = (printable(target), printable(inside("", target) or ""))
        return any(
            finding.subject in names and finding.severity in ("refusal", "unverifiable")
            for finding in self._repository.findings
        )

    # --- L1: the bytes ---

    def data(self, stages: Sequence[Stage]) -> None:
        """Compare what is recorded with what lies in the work tree."""
        recorded: list[tuple[str, Stage, Recorded, bool]] = []
        for stage in stages:
            for out in stage.recorded_outs:
                self._add(recorded, stage, out, True)
            for dep in stage.recorded_deps:
                self._add(recorded, stage, dep, False)
            if stage.dvc is not None:
                for dep in stage.dvc.deps:
                    self._imported(stage, dep)
        # Folders before what lies in them, so that nothing is read twice.
        for path, stage, item, is_out in sorted(recorded, key=lambda entry: (entry[0].count("/"), entry[0])):
            self._compare(path, stage, item, is_out)
        self._collisions(path for path, _, _, _ in recorded)

    def _add(
        self, recorded: list[tuple[str, Stage, Recorded, bool]], stage: Stage, item: Recorded, is_out: bool
    ) -> None:
        path = stage.place(item.path)
        what = "output" if is_out else "dependency"
        if path is None:
            self.refuse(
                "DATA_EXTERNAL",
                item.path,
                f"The {what} of {printable(stage.address)} lies outside of the repository and was not looked at.",
                item.digest,
                severity="unverifiable",
            )
        elif not item.digest:
            self.refuse(
                "DATA_NOT_LOCKED", path, f"The {what} of {printable(stage.address)} is recorded without a digest."
            )
        else:
            recorded.append((path, stage, item, is_out))

    def _imported(self, stage: Stage, dep: Recorded) -> None:
        if dep.upstream or is_url(dep.path) or stage.dvc is None or stage.dvc.frozen:
            where = f"{dep.upstream} " if dep.upstream else ""
            self.refuse(
                "UPSTREAM_NOT_CHECKED",
                stage.address,
                f"What was imported is as it was then; its origin, {where}{dep.path}, was not looked at.",
                severity="note",
            )

    def _compare(self, path: str, stage: Stage, item: Recorded, is_out: bool) -> None:
        if item.legacy:
            self._legacy(path, item)
        key = (path, item.digest, item.legacy, item.size, item.nfiles)
        if key in self._compared:
            return
        self._compared.add(key)
        where = f"{printable(stage.file if stage.dvc else _lock_of(stage))}, line {item.line}"
        try:
            content = self._tree.look(path, legacy=item.legacy)
        except SealflowError as error:
            self.findings.append(as_finding(error, path))
            return
        if content is None:
            self.refuse("DATA_MISSING", path, f"Nothing lies here ({where}).", item.digest)
            return
        self.contents[path] = content
        if self._binding is not None and not item.legacy:
            try:
                refused = self._bound(path, content, item)
                # Whether it is the data or the signature that is wrong, the MD5 of these bytes tells.
                content = self._explained(path, content) if refused else replace(content, digest=item.digest)
            except UsageError:
                raise  # nothing about the data: the call or a policy names a key that cannot be
            except SealflowError as error:
                self.findings.append(as_finding(error, path))
                return
            if content.digest == item.digest:
                self.findings += [item for item in refused if self._level >= 5 or item.code == "SHA256_MISMATCH"]
        self.contents[path] = content
        if content.digest != item.digest:
            self._differs(path, item, content, where)
            return
        if item.size is not None and item.size != content.size:
            self.refuse("SIZE_MISMATCH", path, f"The size differs ({where}).", f"{item.size} bytes", f"{content.size}")
        if item.nfiles is not None and item.nfiles != len(content.files or ()):
            found = str(len(content.files or ()))
            self.refuse("SIZE_MISMATCH", path, f"The number of files differs ({where}).", f"{item.nfiles} files", found)
        if is_out and self._is_cached(stage, item):
            self._cached(path, item)

    def _bound(self, path: str, content: Content, item: Recorded) -> Sequence[Finding]:
        """Say why nobody vouches that bytes have the recorded MD5; below L5 that is only the quicker way to know it."""
        assert self._binding is not None  # noqa: S101
        try:
            return self._binding(path, content, item)
        except (ArtifactError, UnavailableError) as error:
            if self._level >= 5:
                raise
            return (as_finding(error, path),)

    def _explained(self, path: str, seen: Content) -> Content:
        """Return what lies at a path with its MD5."""
        if self._explaining is None:
            self._explaining = self._stack.enter_context(WorkTree(self._tree.root, self._repository.caches))
        content = self._explaining.look(path)
        if content is None or content.size != seen.size:
            raise ArtifactError(f"{printable(path)} changed while it was read.", code="ARTIFACT_CHANGED")
        return content

    def _legacy(self, path: str, item: Recorded) -> None:
        if ("legacy", path) not in self._compared:
            self._compared.add(("legacy", path))
            self.refuse(
                "LEGACY_HASH",
                path,
                "The digest is one of DVC 2: in text it does not tell CRLF from LF.",
                severity="refusal" if self._level >= 3 else "warning",
            )

    def _differs(self, path: str, item: Recorded, content: Content, where: str) -> None:
        folder = content.files is not None
        if folder != item.digest.endswith(".dir"):
            kinds = ("a folder", "a file") if item.digest.endswith(".dir") else ("a file", "a folder")
            self.refuse("DATA_MISMATCH", path, f"This is of another kind ({where}).", *kinds)
            return
        self.refuse(
            "DATA_MISMATCH", path, f"The bytes are not the recorded ones ({where}).", item.digest, content.digest
        )
        if not folder:
            if item.size is not None and item.size != content.size:
                self.refuse(
                    "SIZE_MISMATCH", path, f"The size differs ({where}).", f"{item.size} bytes", f"{content.size}"
                )
            return
        expected = dict(item.files) or self._directory_object(item, path)
        if expected is not None:
            self._name_files(path, expected, content)

    def _name_files(self, path: str, expected: Mapping[str, str], content: Content) -> None:
        files = content.files or {}
        named: list[tuple[str, str, str, str, str]] = []
        for name, digest in expected.items():
            if name not in files:
                named.append(("DATA_MISSING", name, "The file is missing.", digest, ""))
            elif files[name].md5 != digest:
                named.append(("DATA_MISMATCH", name, "The bytes are not the recorded ones.", digest, files[name].md5))
        ignored = " A .dvcignore of the repository may hide it from DVC." if self._repository.ignoring else ""
        for name in files:
            if name not in expected:
                named.append(("DATA_EXTRA", name, f"Nothing is recorded about the file.{ignored}", "", files[name].md5))
        for code, name, message, wanted, found in named[:_NAMED]:
            self.refuse(code, f"{path}/{name}", message, wanted, found)
        if len(named) > _NAMED:
            self.refuse("DATA_MISMATCH", path, f"{len(named) - _NAMED} more files differ.")

    # --- The cache, looked at without touching it ---

    def _object_paths(self, item: Recorded) -> list[str]:
        part = f"{item.digest[:2]}/{item.digest[2:]}"
        return [os.path.join(cache, "" if item.legacy else "files/md5", part) for cache in self._repository.caches]

    def _is_cached(self, stage: Stage, item: Recorded) -> bool:
        if stage.definition is not None:
            return any(out.path == item.path and out.cache for out in stage.definition.outs)
        return item.cache

    def _cached(self, path: str, item: Recorded) -> None:
        """Say when DVC would miss the object, and refuse a ``.dir`` object that is not what its name says."""
        if item.files:
            return
        if not any(os.path.lexists(place) for place in self._object_paths(item)):
            self.refuse(
                "CACHE_MISSING",
                path,
                "The data is whole, but DVC's cache does not hold it.",
                item.digest,
                severity="warning",
            )
        elif item.digest.endswith(".dir"):
            self._read_object(item, path)

    def _read_object(self, item: Recorded, path: str) -> bytes | None:
        for place in self._object_paths(item):
            if not os.path.lexists(place):
                continue  # it is only missing, which the caller knows what to make of
            try:
                with WorkTree(os.path.dirname(place)) as folder:
                    data = folder.get(os.path.basename(place), MAX_DIRECTORY)
            except ArtifactError as error:
                self.refuse("CACHE_CORRUPT", path, f"The .dir object in the cache cannot be taken: {error.message}")
                return None
            except UnavailableError:
                # Only an explanation of what was found; the bytes have been compared without it.
                continue
            if data is None:
                continue
            found = hashlib.md5(data, usedforsecurity=False).hexdigest() + ".dir"
            if found != item.digest:
                self.refuse(
                    "CACHE_CORRUPT", path, "The .dir object in the cache is not what its name says.", item.digest, found
                )
                return None
            return data
        return None

    def _directory_object(self, item: Recorded, path: str) -> dict[str, str] | None:
        data = self._read_object(item, path)
        if data is None:
            return None
        try:
            return parse_directory(data, "The .dir object in the cache")
        except EvidenceError as error:
            code = error.code if error.code == "DIR_MANIFEST_ESCAPE" else "CACHE_CORRUPT"
            self.refuse(code, path, error.message)
            return None

    def _collisions(self, paths: Iterable[str]) -> None:
        names = set(paths)
        for path, content in self.contents.items():
            names.update(f"{path}/{name}" for name in content.files or ())
        # Folded in one piece: no name holds a NUL, and nothing composes or folds across one.
        if len(set(fold("\0".join(names)).split("\0"))) == len(names):
            return
        first: dict[str, str] = {}
        for name in sorted(names):
            other = first.setdefault(fold(name), name)
            if other != name:
                self.refuse(
                    "NAMES_COLLIDE",
                    name,
                    "Two names are one where case or Unicode form does not count.",
                    found=other,
                    severity="warning",
                )
                return

    # --- L2: the lock agrees ---

    def agreement(self, stages: Sequence[Stage]) -> None:
        """Compare the lock with ``dvc.yaml``, with the parameters and with itself."""
        recorded: dict[str, tuple[Recorded, Stage]] = {}
        for stage in self._repository.stages:
            for out in stage.recorded_outs:
                if (path := stage.place(out.path)) is not None:
                    recorded.setdefault(path, (out, stage))
        for stage in stages:
            definition = stage.definition
            if stage.dvc is not None:
                if stage.dvc.altered:
                    self.refuse(
                        "DVC_FILE_ALTERED", stage.address, "The checksum inside of the file does not fit its content."
                    )
                if stage.dvc.always_changed:
                    self._always_changed(stage)
            elif definition is not None:
                if definition.frozen:
                    self.refuse("STAGE_FROZEN", stage.address, "DVC does not look whether the stage is out of date.")
                if definition.always_changed or not (definition.deps or definition.outs or definition.params):
                    self._always_changed(stage)
                if stage.locked is not None:
                    self._definition(stage, definition, stage.locked)
            self._chain(stage, recorded)
        self._overlaps(stages)
        self._cycles(stages)

    def _always_changed(self, stage: Stage) -> None:
        self.refuse("STAGE_ALWAYS_CHANGED", stage.address, "The stage counts as out of date at all times.")

    def _definition(self, stage: Stage, definition: Definition, locked: LockedStage) -> None:
        where = f"{_lock_of(stage)}, line {locked.line}"
        if locked.cmd != definition.cmd:
            self.refuse(
                "CMD_DRIFT",
                stage.address,
                f"The lock records another command ({where}).",
                _shown(definition.cmd),
                _shown(locked.cmd),
            )
        self._listed(stage, "dependency", definition.deps, [dep.path for dep in locked.deps], where)
        self._listed(stage, "output", [out.path for out in definition.outs], [out.path for out in locked.outs], where)
        self._listed(stage, "parameters file", definition.params, locked.params, where)
        for file, keys in definition.params.items():
            if file in locked.params:
                self._parameters(stage, file, keys, locked.params[file], where)

    def _listed(self, stage: Stage, what: str, wanted: Iterable[str], locked: Iterable[str], where: str) -> None:
        wanted, locked = set(wanted), set(locked)
        for path in sorted(wanted - locked):
            message = f"The lock does not know this {what} of the stage ({where})."
            self.refuse("LOCK_INCOMPLETE", stage.address, message, path)
        for path in sorted(locked - wanted):
            message = f"The lock has a {what} that the stage does not name ({where})."
            self.refuse("LOCK_ORPHAN", stage.address, message, "", path)

    def _parameters(self, stage: Stage, file: str, keys: Sequence[str], locked: Mapping[str, Any], where: str) -> None:
        path = stage.place(file)
        what = f"{printable(file)} of {printable(stage.address)}"
        if path is None:
            self.refuse(
                "DATA_EXTERNAL", file, "The parameters file lies outside of the repository.", severity="unverifiable"
            )
            return
        try:
            body = self._repository.params(path)
            if body is None:
                self.refuse("PARAMS_DRIFT", stage.address, f"There is no {printable(path)}.", file)
                return
            if not keys:
                current = {str(key): value for key, value in body.items()}
                wanted = [*current, *(key for key in locked if key not in current)]
            else:
                current = {}
                wanted = list(keys)
                for key in keys:
                    present, value = value_at(body, key, what)
                    if present:
                        current[key] = value
                for key in sorted(set(locked) - set(keys)):
                    message = f"The lock has a parameter that the stage does not name ({where})."
                    self.refuse("LOCK_ORPHAN", stage.address, message, "", f"{file}:{key}")
        except EvidenceError as error:
            self.findings.append(as_finding(error, stage.address))
            return
        for key in wanted:
            name = f"{file}:{key}"
            if key not in locked:
                message = f"The lock does not know this parameter of the stage ({where})."
                self.refuse("LOCK_INCOMPLETE", stage.address, message, name)
            elif key not in current:
                self.refuse("PARAMS_DRIFT", stage.address, f"{printable(path)} has no {printable(key)}.", name)
            elif not same(current[key], locked[key]):
                message = f"{printable(name, 100)} is not what the lock records ({where})."
                self.refuse("PARAMS_DRIFT", stage.address, message, _shown(locked[key]), _shown(current[key]))

    def _chain(self, stage: Stage, recorded: Mapping[str, tuple[Recorded, Stage]]) -> None:
        for dep in stage.recorded_deps:
            path = stage.place(dep.path)
            if path is None or path not in recorded:
                continue
            out, writer = recorded[path]
            if out.legacy == dep.legacy and out.digest and dep.digest and out.digest != dep.digest:
                self.refuse(
                    "CHAIN_BREAK",
                    stage.address,
                    f"The stage read another {printable(path)} than {printable(writer.address)} wrote.",
                    out.digest,
                    dep.digest,
                )

    def _overlaps(self, stages: Sequence[Stage]) -> None:
        chosen = {stage.address for stage in stages}
        for path, writers in self._graph.writers.items():
            names = [writer.address for writer in writers]
            if is_own(path) and not chosen.isdisjoint(names):
                self.refuse("OUT_OVERLAP", path, "A file that DVC or Git keeps for itself is no output.")
            if len(names) > 1 and not chosen.isdisjoint(names):
                self.refuse("OUT_OVERLAP", path, "Several stages write this.", found=" and ".join(sorted(names)[:3]))
            for above in self._graph.above(path):
                if above != path and not chosen.isdisjoint([*names, *(w.address for w in self._graph.writers[above])]):
                    self.refuse("OUT_OVERLAP", path, f"It lies inside of the output {printable(above)}.")

    def _cycles(self, stages: Sequence[Stage]) -> None:
        # Depth first without recursion: a chain may be longer than the stack.
        done: set[str] = set()
        for start in stages:
            path: dict[str, None] = {}
            waiting: list[tuple[Stage, bool]] = [(start, False)]
            while waiting:
                stage, leaving = waiting.pop()
                if leaving:
                    path.pop(stage.address)
                    done.add(stage.address)
                    continue
                if stage.address in done:
                    continue
                if stage.address in path:
                    self.refuse("GRAPH_CYCLE", stage.address, "The stage depends on its own output.")
                    return
                path[stage.address] = None
                waiting.append((stage, True))
                waiting += [(item, False) for item in self._graph.upstream(stage)]


def is_own(path: str) -> bool:
    """Tell whether a path belongs to DVC or Git themselves, or is the whole repository."""
    parts = path.split("/")
    return (
        path == "."
        or not {".git", ".hg", ".dvc"}.isdisjoint(parts)
        or parts[-1] in ("dvc.yaml", "dvc.lock")
        or parts[-1].endswith(".dvc")
    )


def _lock_of(stage: Stage) -> str:
    return stage.file.removesuffix("dvc.yaml") + "dvc.lock"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
