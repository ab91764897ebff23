"""DVC's files as strict records: ``dvc.lock`` 2.0, ``.dvc`` files and ``dvc.yaml``.

What DVC's own schema does not know is refused, as it is there. Paths and values are claims; nothing here looks at data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sealflow import strictjson, strictyaml
from sealflow.errors import EvidenceError
from sealflow.findings import printable

#: Largest file of DVC that is read, in bytes.
MAX_FILE: Final = 32 << 20
#: Largest ``.dir`` object that is read, in bytes; it has about 100 for each file.
MAX_DIRECTORY: Final = 256 << 20
#: Deepest nesting; parameters in a lock go deeper than stages do.
MAX_DEPTH: Final = 48

_MD5: Final = re.compile(r"[0-9a-f]{32}(\.dir)?")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class MalformedError(EvidenceError):
    """A file of DVC that is not what its name says."""

    code = "LINEAGE_MALFORMED"


class Recorded(NamedTuple):
    """What a lock or a ``.dvc`` file says about one path.

    Attributes:
        path: As written, relative to the stage's working folder.
        digest: MD5 in hex, with ``.dir`` for a folder; empty when none is recorded.
        legacy: Whether the digest is one of DVC 2, made over text with Unix line ends.
        size: Bytes in all, ``None`` when it is not recorded.
        nfiles: Number of files of a folder, ``None`` when it is not recorded.
        files: Relative name → MD5 of a folder that is recorded file by file; empty otherwise.
        cache: Whether DVC keeps the data in its cache.
        upstream: Where an import came from, for messages; empty for everything else.
        line: Where it stands.
        remote: Name of the remote that keeps the data, empty for the default one.
    """

    path: str
    digest: str
    legacy: bool
    size: int | None
    nfiles: int | None
    files: tuple[tuple[str, str], ...] = ()
    cache: bool = True
    upstream: str = ""
    line: int = 0
    remote: str = ""


class LockedStage(NamedTuple):
    """One stage as ``dvc.lock`` records its last run.

    Attributes:
        name: With the key of a generated stage after ``@``.
        cmd: The command or the list of commands.
        deps: What it read.
        outs: What it wrote.
        params: Parameters file → key → value.
        line: Where it stands.
    """

    name: str
    cmd: str | list[str]
    deps: tuple[Recorded, ...]
    outs: tuple[Recorded, ...]
    params: Mapping[str, Mapping[str, Any]]
    line: int


class DvcFile(NamedTuple):
    """One ``.dvc`` file.

    Attributes:
        wdir: Folder that its paths are relative to, itself relative to the file's folder.
        outs: The data.
        deps: Where an import came from.
        frozen: Whether DVC leaves the dependencies alone, as it does for every import.
        always_changed: Whether DVC considers it changed at all times.
        altered: Whether its own checksum, which imports carry, does not fit its content.
    """

    wdir: str
    outs: tuple[Recorded, ...]
    deps: tuple[Recorded, ...]
    frozen: bool
    always_changed: bool
    altered: bool


class PipelineFile(NamedTuple):
    """``dvc.yaml`` as written, templates unresolved.

    Attributes:
        stages: Name → definition.
        variables: The ``vars`` section.
        lines: Line of each stage.
    """

    stages: Mapping[str, Mapping[str, Any]]
    variables: tuple[Any, ...]
    lines: Mapping[str, int]


class Out(NamedTuple):
    """One output of a resolved stage.

    Attributes:
        path: As written, relative to the stage's working folder.
        cache: Whether DVC keeps the data in its cache.
        remote: Name of the remote that keeps the data, empty for the default one.
    """

    path: str
    cache: bool
    remote: str = ""


class Definition(NamedTuple):
    """One stage of ``dvc.yaml`` with its templates resolved.

    Attributes:
        name: With the key of a generated stage after ``@``.
        cmd: The command or the list of commands.
        wdir: Working folder relative to the file's folder, empty for that folder.
        deps: What it reads.
        outs: What it writes, metrics and plots included.
        params: Parameters file → keys; no keys for the whole file.
        frozen: Whether ``dvc repro`` leaves it alone.
        always_changed: Whether DVC considers it changed at all times.
        line: Where it stands.
    """

    name: str
    cmd: str | list[str]
    wdir: str
    deps: tuple[str, ...]
    outs: tuple[Out, ...]
    params: Mapping[str, tuple[str, ...]]
    frozen: bool
    always_changed: bool
    line: int


def is_url(path: str) -> bool:
    """Tell whether DVC would look for a path elsewhere than in the file system."""
    return _SCHEME.match(path) is not None


class _At:
    """One mapping of a document, its members taken by name and type."""

    def __init__(self, document: _Document, place: tuple[Any, ...], body: Any, known: frozenset[str]) -> None:
        self._document = document
        self.place = place
        if not isinstance(body, dict):
            raise document.error(place, "must be a mapping")
        self.body = body
        for key in body:
            if key not in known:
                raise document.error((*place, key), f"has the unknown field {printable(key, 80)!r}")

    @property
    def line(self) -> int:
        return self._document.line(self.place)

    def error(self, name: str, problem: str) -> MalformedError:
        return self._document.error((*self.place, name), problem)

    def take(self, name: str, kinds: type | tuple[type, ...], *, required: bool = False) -> Any:
        value = self.body.get(name)
        if value is None:
            if required:
                raise self._document.error(self.place, f"lacks {name!r}")
            return None
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        # bool is a subclass of int in Python, not in YAML.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.error(name, f"has a {name!r} of the wrong type {type(value).__name__}")
        if isinstance(value, str) and "\0" in value:
            raise self.error(name, f"has a NUL in {name!r}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.take(name, bool)
        return default if value is None else value

    def items(self, name: str) -> list[Any]:
        return self.take(name, list) or []

    def inner(self, name: str, index: Any, body: Any, known: frozenset[str]) -> _At:
        return _At(self._document, (*self.place, name, index), body, known)


class _Document:
    def __init__(self, data: bytes, what: str) -> None:
        try:
            self.body, self._lines = strictyaml.loads(
                data, limit=MAX_FILE, what=what, scalar=strictyaml.core, depth=MAX_DEPTH
            )
        except EvidenceError as error:
            raise MalformedError(error.message) from None
        self.what = what

    def line(self, place: tuple[Any, ...]) -> int:
        while place not in self._lines and place:
            place = place[:-1]
        return self._lines.get(place, 1)

    def error(self, place: tuple[Any, ...], problem: str) -> MalformedError:
        return MalformedError(f"{self.what} {problem} (line {self.line(place)}).")


_CHECKSUMS: Final = frozenset(("md5", "checksum", "etag"))
_META: Final = frozenset(("size", "nfiles", "isexec", "version_id"))
_ANNOTATIONS: Final = frozenset(("desc", "type", "labels", "meta"))
_FILE: Final = _CHECKSUMS | _META | {"relpath", "cloud"}
_LOCKED: Final = _CHECKSUMS | _META | {"path", "cloud", "files", "hash", "dataset"}
_LOCKED_STAGE: Final = frozenset(("cmd", "deps", "params", "outs"))
_LOCK: Final = frozenset(("schema", "stages", "datasets"))
_OUT: Final = (
    _CHECKSUMS
    | _META
    | _ANNOTATIONS
    | {"path", "persist", "cloud", "hash", "cache", "remote", "push", "files", "fs_config"}
)
_DEP: Final = _CHECKSUMS | _META | {"path", "persist", "cloud", "hash", "repo", "db", "files", "fs_config"}
_DVC_FILE: Final = frozenset(
    ("md5", "wdir", "deps", "outs", "locked", "frozen", "meta", "always_changed", "desc"),
)
_PIPELINE: Final = frozenset(("datasets", "plots", "stages", "vars", "params", "metrics", "artifacts"))
_GENERATED: Final = frozenset(("foreach", "do"))
_STAGE: Final = frozenset(
    ("cmd", "wdir", "deps", "params", "vars", "frozen", "meta", "desc", "always_changed", "outs", "metrics", "plots")
)
_FLAGS: Final = _ANNOTATIONS | {"cache", "persist", "checkpoint", "remote", "push"}
_PLOT_FLAGS: Final = _FLAGS | {"template", "x", "y", "x_label", "y_label", "title", "header"}


def parse_lock(data: bytes, what: str) -> dict[str, LockedStage]:
    """Read ``dvc.lock``.

    Args:
        data: The file.
        what: Its name for messages.

    Raises:
        MalformedError: Not a lock of DVC; the code is ``LOCK_SCHEMA`` for one of another schema than 2.0.
    """
    document = _Document(data, what)
    body = document.body
    if not isinstance(body, dict) or body.get("schema") != "2.0":
        found = body.get("schema") if isinstance(body, dict) else None
        raise MalformedError(
            f"{what} has the schema {printable(found, 40)!r}; this release reads '2.0'.", code="LOCK_SCHEMA"
        )
    root = _At(document, (), body, _LOCK)
    stages: dict[str, LockedStage] = {}
    for name, item in (root.take("stages", dict) or {}).items():
        if not isinstance(name, str):
            raise root.error("stages", "has a stage whose name is no text")
        stage = root.inner("stages", name, item, _LOCKED_STAGE)
        params = stage.take("params", dict) or {}
        for file, values in params.items():
            if not isinstance(file, str) or "\0" in file or not isinstance(values, dict):
                raise stage.error("params", "has parameters that are no mapping of a file")
            if not all(isinstance(key, str) for key in values):
                raise stage.error("params", "has a parameter whose name is no text")
        stages[name] = LockedStage(
            name,
            _command(stage),
            _recorded(stage, "deps", _LOCKED),
            _recorded(stage, "outs", _LOCKED),
            params,
            stage.line,
        )
    return stages


def parse_dvc_file(data: bytes, what: str) -> DvcFile:
    """Read a ``.dvc`` file.

    Raises:
        MalformedError: Not a ``.dvc`` file.
    """
    document = _Document(data, what)
    root = _At(document, (), document.body, _DVC_FILE)
    outs = _recorded(root, "outs", _OUT)
    if not outs:
        raise document.error((), "names no data")
    checksum = root.take("md5", (str, int))
    return DvcFile(
        root.take("wdir", str) or "",
        outs,
        _recorded(root, "deps", _DEP),
        root.flag("frozen") or root.flag("locked"),
        root.flag("always_changed"),
        checksum is not None and str(checksum) != own_checksum(document.body),
    )


# What DVC leaves out of the checksum of a .dvc file, at every level.
_UNSUMMED: Final = _ANNOTATIONS | {"locked", "frozen", "metric", "persist", "isexec", "size", "nfiles"}


def own_checksum(body: Mapping[str, Any]) -> str:
    """Return the checksum that DVC writes into an import's own ``.dvc`` file; it is no signature, anybody can."""
    kept = {key: value for key, value in body.items() if key != "md5" and value}
    if kept.get("wdir") == ".":
        del kept["wdir"]
    for part in ("deps", "outs"):
        if part in kept:
            kept[part] = [{key: item[key] for key in item if not _is_default(key, item[key])} for item in kept[part]]
    text = json.dumps(_summed(kept), sort_keys=True, default=str)
    return hashlib.md5(text.encode("utf-8"), usedforsecurity=False).hexdigest()


def _is_default(key: str, value: Any) -> bool:
    # DVC does not write these, so a file that spells them out has the same checksum.
    return value is True if key in ("cache", "push") else not value and key in ("remote", "fs_config", "cloud")


def _summed(value: Any) -> Any:
    if isinstance(value, list):
        return [_summed(item) for item in value]
    if isinstance(value, dict):
        return {key: _summed(item) for key, item in value.items() if key not in _UNSUMMED}
    return value


def _recorded(at: _At, name: str, known: frozenset[str]) -> tuple[Recorded, ...]:
    found: list[Recorded] = []
    seen: set[str] = set()
    for index, item in enumerate(at.items(name)):
        entry = at.inner(name, index, item, known)
        upstream = _upstream(entry) if "repo" in known else ""
        path = entry.take("path", str, required=not upstream) or ""
        if path in seen:
            raise entry.error("path", f"names {printable(path)!r} twice among its {name}")
        seen.add(path)
        algorithm = entry.take("hash", str)
        if algorithm not in (None, "md5"):
            raise entry.error("hash", f"has the hash {printable(algorithm, 40)!r}; DVC knows md5")
        digest = entry.take("md5", str) or ""
        if digest and _MD5.fullmatch(digest) is None:
            raise entry.error("md5", f"has an 'md5' that is none: {printable(digest, 60)!r}")
        files = _files(entry)
        if files and not digest:
            digest = _digest_of(files)
        found.append(
            Recorded(
                path,
                digest,
                bool(digest) and algorithm is None,
                _count(entry, "size"),
                _count(entry, "nfiles"),
                files,
                entry.flag("cache", True) if "cache" in known else True,
                upstream,
                entry.line,
                (entry.take("remote", str) or "") if "remote" in known else "",
            )
        )
    return tuple(found)


def _upstream(entry: _At) -> str:
    repository = entry.take("repo", dict)
    if repository is not None:
        return f"repository {repository.get('url')} at {repository.get('rev_lock') or repository.get('rev')}"
    return "database" if entry.take("db", dict) is not None else ""


def _count(entry: _At, name: str) -> int | None:
    value = entry.take(name, int)
    if value is not None and value < 0:
        raise entry.error(name, f"has a negative {name!r}")
    return None if value is None else int(value)


def _files(entry: _At) -> tuple[tuple[str, str], ...]:
    files: dict[str, str] = {}
    for index, item in enumerate(entry.items("files")):
        file = entry.inner("files", index, item, _FILE)
        name = file.take("relpath", str, required=True)
        digest = file.take("md5", str) or ""
        if _MD5.fullmatch(digest) is None or digest.endswith(".dir"):
            raise file.error("md5", f"records {printable(name)!r} without an MD5, which only its remote could judge")
        if name in files or not is_contained(name):
            raise file.error("relpath", f"records {printable(name)!r}, which is named twice or leaves its folder")
        files[name] = digest
    return tuple(files.items())


def _digest_of(files: tuple[tuple[str, str], ...]) -> str:
    from sealflow.lineage.content import directory_digest

    return directory_digest(files)


def is_contained(name: str) -> bool:
    """Tell whether a relative name of a ``.dir`` object stays in its folder and is in its shortest form."""
    return bool(name) and "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def parse_directory(data: bytes, what: str) -> dict[str, str]:
    """Read a ``.dir`` object, whose own digest the caller has compared.

    Args:
        data: The object.
        what: Its name for messages.

    Returns:
        Relative name → MD5 of each file.

    Raises:
        MalformedError: Not a list of files; the code is ``DIR_MANIFEST_ESCAPE`` where a name leaves the folder.
    """
    try:
        body = strictjson.loads(data, limit=MAX_DIRECTORY, what=what)
    except EvidenceError as error:
        raise MalformedError(error.message) from None
    files: dict[str, str] = {}
    for entry in body if isinstance(body, list) else [None]:
        name = entry.get("relpath") if isinstance(entry, dict) else None
        digest = entry.get("md5") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not isinstance(digest, str) or name in files:
            raise MalformedError(f"{what} is no list of files.")
        if _MD5.fullmatch(digest) is None or digest.endswith(".dir"):
            # It becomes a path in the cache or on the remote.
            raise MalformedError(f"{what} gives {printable(name, 80)!r} a digest that is no MD5.")
        if not is_contained(name):
            raise MalformedError(
                f"{what} names a file outside of its folder: {printable(name, 80)!r}.", code="DIR_MANIFEST_ESCAPE"
            )
        files[name] = digest
    return files


def _command(at: _At) -> str | list[str]:
    cmd = at.take("cmd", (str, list), required=True)
    if isinstance(cmd, list) and not all(isinstance(item, str) for item in cmd):
        raise at.error("cmd", "has a command that is no text")
    return cmd  # type: ignore[no-any-return]


def parse_pipeline(data: bytes, what: str) -> PipelineFile:
    """Read ``dvc.yaml``; templates stay as they are.

    Raises:
        MalformedError: Not a pipeline of DVC.
    """
    document = _Document(data, what)
    root = _At(document, (), document.body if document.body is not None else {}, _PIPELINE)
    stages: dict[str, Mapping[str, Any]] = {}
    lines: dict[str, int] = {}
    for name, item in (root.take("stages", dict) or {}).items():
        if not isinstance(name, str):
            raise root.error("stages", "has a stage whose name is no text")
        generated = isinstance(item, dict) and not _GENERATED.isdisjoint(item)
        stage = root.inner("stages", name, item, _GENERATED if generated else _STAGE | {"matrix"})
        if generated:
            stage.take("foreach", (dict, list, str), required=True)
            _At(document, (*stage.place, "do"), stage.take("do", dict, required=True), _STAGE)
        elif "matrix" in item:
            stage.take("matrix", dict, required=True)
        stages[name] = item
        lines[name] = stage.line
    return PipelineFile(stages, _variables(root), lines)


def _variables(at: _At) -> tuple[Any, ...]:
    items = at.items("vars")
    if not all(isinstance(item, (str, dict)) for item in items):
        raise at.error("vars", "has variables that are neither a file nor a mapping")
    return tuple(items)


def parse_definition(name: str, body: Mapping[str, Any], what: str, line: int) -> Definition:
    """Read one stage whose templates are resolved.

    Raises:
        MalformedError: Not a stage.
    """
    at = _At(_Resolved(what, line), (), dict(body), _STAGE)
    wdir = at.take("wdir", str) or ""
    deps = at.items("deps")
    if not all(isinstance(item, str) and "\0" not in item for item in deps):
        raise at.error("deps", f"stage {printable(name)!r} has a dependency that is no text")
    outs: dict[str, dict[str, Any]] = {}
    for part, known in (("outs", _FLAGS), ("metrics", _FLAGS), ("plots", _PLOT_FLAGS)):
        # DVC merges flags of one path within a section; the same path in two sections is two outputs.
        merged: dict[str, dict[str, Any]] = {}
        for path, flags in _paths(at, part):
            merged.setdefault(path, {}).update(_At(_Resolved(what, line), (), flags, known).body)
        for path, flags in merged.items():
            if path in outs:
                raise at.error(part, f"stage {printable(name)!r} names {printable(path)!r} in two sections")
            outs[path] = flags
    found = []
    for path, flags in outs.items():
        cache = flags.get("cache", True)
        if not isinstance(cache, bool):
            raise at.error("outs", f"stage {printable(name)!r} has a 'cache' that is no truth value")
        remote = flags.get("remote")
        if remote is not None and not isinstance(remote, str):
            raise at.error("outs", f"stage {printable(name)!r} has a 'remote' that is no text")
        found.append(Out(path, cache, remote or ""))
    return Definition(
        name,
        _command(at),
        wdir,
        tuple(dict.fromkeys(deps)),
        tuple(found),
        _params(at, name),
        at.flag("frozen"),
        at.flag("always_changed"),
        line,
    )


class _Resolved(_Document):
    """A resolved stage has no text of its own; everything stands where the stage stands."""

    def __init__(self, what: str, line: int) -> None:
        self.what = what
        self._at = line

    def line(self, place: tuple[Any, ...]) -> int:
        return self._at


def _paths(at: _At, part: str) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for item in at.items(part):
        if isinstance(item, str):
            item = {item: {}}
        if not isinstance(item, dict):
            raise at.error(part, f"has {part!r} that are neither a path nor a mapping")
        for path, flags in item.items():
            if not isinstance(path, str) or "\0" in path:
                raise at.error(part, f"has a path among its {part!r} that is no text")
            # A plot may be drawn in several ways.
            several = flags if isinstance(flags, list) and part == "plots" else [flags]
            for one in several:
                found.append((path, {} if one is None else one))
    return found


_DEFAULT_PARAMS: Final = "params.yaml"


def _params(at: _At, name: str) -> dict[str, tuple[str, ...]]:
    items = at.items("params")
    whole: set[str] = set()
    keys: dict[str, list[str]] = {}
    problem = f"stage {printable(name)!r} has parameters that are neither a key nor a file with keys"
    for item in items:
        if isinstance(item, dict):
            whole.update(file for file, wanted in item.items() if not wanted)
        elif not isinstance(item, str):
            raise at.error("params", problem)
    for item in items:
        for file, wanted in ({_DEFAULT_PARAMS: [item]} if isinstance(item, str) else item).items():
            if not isinstance(file, str) or "\0" in file:
                raise at.error("params", problem)
            if file in whole:
                keys[file] = []
                continue
            if not isinstance(wanted, list) or not all(isinstance(key, str) for key in wanted):
                raise at.error("params", problem)
            keys.setdefault(file, []).extend(wanted)
    return {file: tuple(dict.fromkeys(wanted)) for file, wanted in keys.items()}
