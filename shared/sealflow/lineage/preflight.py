"""A DVC repository from elsewhere, looked at before its data is fetched.

DVC trusts the repository that it runs in. Its configuration says where data and caches lie, which programs give
credentials, and which tokens go where; its files name paths and URLs that DVC reads and writes. Here all of that is
read by our own parsers, and only what is known to stay inside of the repository is let through.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from sealflow import strictyaml
from sealflow.errors import ArtifactError, EvidenceError, SealflowError
from sealflow.findings import Finding, printable
from sealflow.lineage.clone import is_git_name
from sealflow.lineage.config import MAX_CONFIG, Sections, parse_configuration
from sealflow.lineage.content import WorkTree, walk_names
from sealflow.lineage.files import MAX_DEPTH, MAX_FILE, Recorded, is_url
from sealflow.lineage.repository import Stage, as_finding, inside, load
from sealflow.names import check_name, check_tree

# Options that neither lead anywhere nor run, load or send anything (dvc/config_schema.py of DVC 3.67).
_HARMLESS: Final[Mapping[str, frozenset[str]]] = {
    "core": frozenset(
        ("analytics", "autostage", "check_update", "checksum_jobs", "experiments", "interactive", "no_scm", "remote")
    ),
    "cache": frozenset(("protected", "slow_link_warning", "type", "verify")),
    "parsing": frozenset(("bool", "list")),
    "hydra": frozenset(("enabled",)),
}
_REMOTE: Final = 'remote "'
_HARMLESS_OF_REMOTES: Final = frozenset(
    ("checksum_jobs", "connect_timeout", "jobs", "listobjects", "no_traverse", "read_timeout", "region", "verify")
)

# What the check itself says better, of the same files and right afterwards.
_LEFT_TO_THE_CHECK: Final = frozenset(("STAGE_NOT_LOCKED", "STAGE_ORPHAN", "OUT_OVERLAP", "NESTED_REPOSITORY"))
# Findings of one repository that are named; more say nothing new.
_MOST: Final = 50
_DEFINITIONS: Final = frozenset(("dvc.yaml", "dvc.lock", ".dvcignore", ".gitattributes", ".gitmodules"))


def preflight(root: str, *, remotes: Collection[str] = ()) -> tuple[Finding, ...]:
    """Look for what could make DVC act outside of a repository, or on somebody else's word.

    Nothing is written and nothing is run.

    Args:
        root: Folder of the working tree, which holds ``.dvc``.
        remotes: URLs that remotes of the configuration may have.

    Returns:
        ``FOREIGN_REFUSED``, ``REMOTE_NOT_ALLOWED`` and what could not be read, as refusals; empty when there is
        nothing of the kind.
    """
    findings: list[Finding] = []
    try:
        with WorkTree(root) as tree:
            for finding in _all(tree, {canonical_remote(url) for url in remotes}):
                if finding not in findings:
                    findings.append(finding)
                if len(findings) >= _MOST:
                    break
    except SealflowError as error:
        findings.append(as_finding(error, root))
    return tuple(findings)


def canonical_remote(url: str) -> str:
    """Return one form for the URLs of one remote: paths and ``file:`` URLs are the same, and so is a last slash."""
    if url[:7].lower() == "file://":
        url = unquote(urlsplit(url).path) if urlsplit(url).netloc in ("", "localhost") else url
    scheme, mark, rest = url.partition("://")
    if mark:
        return f"{scheme.lower()}://{rest.rstrip('/')}"
    return posixpath.normpath(url).replace("//", "/") if url.startswith("/") else url


def refused_place(path: str) -> str:
    """Return why data must not be written to a path relative to the repository, empty when it may.

    Args:
        path: In its shortest form.
    """
    try:
        check_name(path)
    except ArtifactError as error:
        return error.message
    parts = path.split("/")
    if any(is_git_name(part) for part in parts):
        return "Git on some system would take it for its own folder."
    if any(is_git_name(part, ".dvc") for part in parts):
        return "DVC on some system would take it for its own folder."
    return ""


def _refuse(subject: str, message: str, **more: str) -> Finding:
    return Finding("FOREIGN_REFUSED", "refusal", subject, message, **more)


def _all(tree: WorkTree, remotes: set[str]) -> Iterator[Finding]:
    yield from _names(tree.root)
    yield from _configuration(tree, remotes)
    repository = load(tree)
    for finding in repository.findings:
        if finding.severity in ("refusal", "unverifiable") and finding.code not in _LEFT_TO_THE_CHECK:
            yield finding
    for stage in repository.stages:
        yield from _stage(stage)
    for path, data in repository.read.items():
        if data is not None and posixpath.basename(path) in ("dvc.yaml", "dvc.lock"):
            yield from _pipeline(path, data)
        elif data is not None and path.endswith(".dvc"):
            yield from _dvc_file(path, data)


# --- The tree ---


def _names(root: str) -> Iterator[Finding]:
    every: list[str] = []
    for folder, folders, files in walk_names(root):
        prefix = f"{folder}/" if folder else ""
        if not folder:
            # Git's own folder is ours: a clone wrote it.
            folders[:] = [name for name in folders if name != ".git"]
        for name in files:
            path = prefix + name
            every.append(path)
            kind = _kind(root, path)
            if kind:
                yield _refuse(path, f"It is {kind}.", expected="a file or a folder")
            elif folder == ".dvc" and name not in ("config", ".gitignore"):
                yield _refuse(
                    path,
                    "DVC keeps this file to itself; a repository has no business to bring it.",
                    expected=".dvc/config and .dvc/.gitignore",
                )
        for name in folders:
            path = prefix + name
            if is_git_name(name):
                yield _refuse(path, "A repository of Git lies here, or what some system takes for one.")
            elif is_git_name(name, ".dvc") and path != ".dvc":
                yield _refuse(path, "Another DVC repository lies here, or what some system takes for one.")
            elif folder == ".dvc" and name != "plots":
                yield _refuse(path, "DVC keeps this folder to itself; a repository has no business to bring it.")
        yield from (
            _refuse(prefix + name, "Its name is reserved for a folder of Git or DVC.")
            for name in files
            if is_git_name(name) or is_git_name(name, ".dvc")
        )
    try:
        for path in every:
            check_name(path)
        check_tree(every)
    except ArtifactError as error:
        yield _refuse(root, error.message)


def _kind(root: str, path: str) -> str:
    mode = os.lstat(os.path.join(root, path)).st_mode
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "" if stat.S_ISREG(mode) else "a special file"


# --- The configuration ---


def _configuration(tree: WorkTree, remotes: set[str]) -> Iterator[Finding]:
    what = ".dvc/config"
    try:
        sections: Sections = parse_configuration(tree.get(what, MAX_CONFIG) or b"", what)
    except SealflowError as error:
        yield as_finding(error, what)
        return
    for section, options in sections.items():
        if section.startswith(_REMOTE) and section.endswith('"'):
            yield from _remote(section, options, remotes)
            continue
        known = _HARMLESS.get(section, frozenset())
        for option in sorted(options.keys() - known) or ([""] if section not in _HARMLESS else []):
            name = f"{section}.{option}" if option else section
            yield _refuse(
                what,
                f"The setting {printable(name, 100)!r} could make DVC read, write, run or send something of its own.",
                next_step="Remove it, or keep it in the local configuration of those who need it.",
            )


def _remote(section: str, options: Mapping[str, Any], remotes: set[str]) -> Iterator[Finding]:
    url = options.get("url")
    # A URL that is not allowed may hold a password, so it is shown without what stands before its host.
    shown = _without_user(url) if isinstance(url, str) else ""
    if not isinstance(url, str) or not url or canonical_remote(url) not in remotes:
        yield Finding(
            "REMOTE_NOT_ALLOWED",
            "refusal",
            f"'{section}'",
            "The remote of the repository is not one that the caller named.",
            expected=", ".join(sorted(_without_user(each) for each in remotes)),
            found=shown,
        )
    for option in sorted(options.keys() - _HARMLESS_OF_REMOTES - {"url"}):
        yield Finding(
            "REMOTE_NOT_ALLOWED",
            "refusal",
            f"'{section}'",
            f"Its option {printable(option, 80)!r} says where data or credentials go, or how they are kept; "
            "that is for the caller to say.",
            next_step="Remove the option, or keep it in the local configuration of those who need it.",
        )


def _without_user(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}" if mark else url


# --- The files of DVC ---


def _stage(stage: Stage) -> Iterator[Finding]:
    written: Iterable[Recorded] = stage.recorded_outs
    read: Iterable[Recorded] = stage.dvc.deps if stage.dvc is not None else stage.recorded_deps
    for path in dict.fromkeys((*stage.out_paths, *(item.path for item in written))):
        yield from _path(stage, path, "output")
    for path in dict.fromkeys((*stage.dep_paths, *(item.path for item in read if not item.upstream))):
        yield from _path(stage, path, "dependency")
    for item in read:
        if item.upstream:
            yield _refuse(
                stage.address,
                "It imports from elsewhere, where DVC would go to fetch it.",
                found=_without_user(item.upstream.partition(" ")[2] or item.upstream),
                next_step="Check the lineage in the repository that the data came from.",
            )


def _path(stage: Stage, path: str, what: str) -> Iterator[Finding]:
    place = stage.place(path)
    if is_url(path):
        yield _refuse(stage.address, f"Its {what} lies at a URL.", found=_without_user(path))
    elif place is None:
        yield _refuse(stage.address, f"Its {what} lies outside of the repository.", found=path)
    elif place != ".":
        problem = refused_place(place)
        if not problem and what == "output" and _is_definition(posixpath.basename(place)):
            problem = "Data that is a file of DVC or Git would define itself."
        if problem:
            yield _refuse(stage.address, f"Its {what} has a place that data must not have. {problem}", found=path)
    elif what == "output":
        yield _refuse(stage.address, "Its output is the repository itself.", found=path)


def _is_definition(name: str) -> bool:
    return name.casefold() in _DEFINITIONS or name.casefold().endswith(".dvc")


def _body(path: str, data: bytes) -> Mapping[str, Any]:
    try:
        body, _ = strictyaml.loads(data, limit=MAX_FILE, what=printable(path), scalar=strictyaml.core, depth=MAX_DEPTH)
    except EvidenceError:
        # Said already, by the parser of these files.
        return {}
    return body if isinstance(body, dict) else {}


def _pipeline(path: str, data: bytes) -> Iterator[Finding]:
    body = _body(path, data)
    if body.get("datasets"):
        yield _refuse(path, "It names datasets elsewhere, where DVC would go to resolve them.")
    folder = posixpath.dirname(path)
    for name in _shown(body):
        if inside(folder, name) is None:
            yield _refuse(path, "It shows a file outside of the repository.", found=_without_user(name))


def _shown(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths that DVC opens to show metrics, parameters, plots and artifacts; a fetch opens none of them."""
    for part in ("metrics", "params"):
        for item in body.get(part) or () if isinstance(body.get(part), list) else ():
            yield from (name for name in ([item] if isinstance(item, str) else item or ()) if isinstance(name, str))
    artifacts = body.get("artifacts")
    for item in artifacts.values() if isinstance(artifacts, dict) else ():
        if isinstance(item, dict) and isinstance(item.get("path"), str):
            yield item["path"]
    plots = body.get("plots")
    for item in plots if isinstance(plots, list) else [plots]:
        for name, plot in item.items() if isinstance(item, dict) else ([(item, None)] if item else ()):
            if isinstance(name, str):
                yield name
            axes = [plot.get("x"), plot.get("y")] if isinstance(plot, dict) else []
            yield from (file for axis in axes if isinstance(axis, dict) for file in axis if isinstance(file, str))
            template = plot.get("template") if isinstance(plot, dict) else None
            if isinstance(template, str):
                yield template


def _dvc_file(path: str, data: bytes) -> Iterator[Finding]:
    body = _body(path, data)
    for part in ("outs", "deps"):
        for item in body.get(part) or () if isinstance(body.get(part), list) else ():
            for option in ("db", "fs_config", "repo"):
                if isinstance(item, dict) and item.get(option):
                    yield _refuse(path, f"Its {option!r} says how DVC reaches a place elsewhere.")
