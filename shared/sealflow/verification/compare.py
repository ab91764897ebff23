"""What was signed against what lies there, file by file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sealflow.evidence.oms import split_shard
from sealflow.findings import Finding
from sealflow.manifest import Manifest, Resource
from sealflow.manifest.build import is_ignored
from sealflow.manifest.model import DEFAULT_IGNORED

#: Differences that are spelled out; an artifact of a million wrong files needs no million sentences.
MAX_DIFFERENCES = 200

_RULE = "signature"


def differences(
    signed: Manifest, actual: Manifest, *, files: Sequence[str] = (), held: bool = False, name: str | None = None
) -> list[Finding]:
    """Return a finding for each difference; ignored files that lie there are notes when the bytes are held.

    Args:
        signed: The manifest under a verified signature.
        actual: The manifest of the bytes, made with the same serialization.
        files: Compare only these; empty for all.
        held: Whether the caller drops ignored files from a private copy.
        name: Expected logical name; a single file may carry it instead of its basename.
    """
    if actual.kind == "file":
        return _single(signed, actual, name)
    if signed.resources == actual.resources and not actual.unhashed and not files:
        return []
    signed_map = _by_file(signed)
    actual_map = _by_file(actual)
    for path in actual.unhashed:
        actual_map.setdefault(path, {})
    found: list[Finding] = []
    if files:
        wanted = frozenset(files)
        unknown = sorted(wanted - signed_map.keys())
        found += [
            Finding(
                "FILE_UNSIGNED",
                "refusal",
                path,
                "The file was asked for, but the signature does not list it.",
                rule=_RULE,
            )
            for path in unknown[:MAX_DIFFERENCES]
        ]
        signed_map = {path: value for path, value in signed_map.items() if path in wanted}
        actual_map = {path: value for path, value in actual_map.items() if path in signed_map}
    for path in _first(sorted(signed_map.keys() - actual_map.keys())):
        found.append(Finding("FILE_MISSING", "refusal", path, "The file was signed and is not there.", rule=_RULE))
    for path in _first(
        sorted(path for path in signed_map.keys() & actual_map.keys() if signed_map[path] != actual_map[path])
    ):
        found.append(
            Finding(
                "FILE_CHANGED",
                "refusal",
                path,
                "The file's bytes are not the signed ones.",
                expected=_shown(signed_map[path], signed),
                found=_shown(actual_map[path], actual),
                rule=_RULE,
            )
        )
    ignored = (*signed.ignored, *DEFAULT_IGNORED)
    for path in _first(sorted(actual_map.keys() - signed_map.keys())):
        # Files without bytes have no shard, so their presence cannot be signed in that form; they stay unsigned files.
        if is_ignored(path, ignored):
            found.append(
                Finding(
                    "FILE_IGNORED",
                    "note" if held else "refusal",
                    path,
                    "The signature leaves this path out, so nobody vouches for it.",
                    rule=_RULE,
                )
            )
        else:
            found.append(
                Finding("FILE_UNSIGNED", "refusal", path, "The file lies in the artifact unsigned.", rule=_RULE)
            )
    return found


def ignored_files(signed: Manifest, actual: Manifest) -> list[str]:
    """Return the files that lie in the artifact but that the signature leaves out."""
    if signed.resources == actual.resources and not actual.unhashed:
        return []
    listed = _by_file(signed).keys()
    names = [*(resource.name for resource in actual.resources), *actual.unhashed]
    return [name for name in names if name not in listed and is_ignored(name, (*signed.ignored, *DEFAULT_IGNORED))]


def _single(signed: Manifest, actual: Manifest, name: str | None) -> list[Finding]:
    signed_map = _by_file(signed)
    actual_map = _by_file(actual) or {actual.name: {}}
    if len(signed_map) != 1:
        return [
            Finding(
                "FILE_MISSING",
                "refusal",
                actual.name,
                "A folder was signed and a single file lies there.",
                expected=f"{len(signed_map)} files",
                found="1 file",
                rule=_RULE,
            )
        ]
    ((signed_name, signed_digests),) = signed_map.items()
    ((_, actual_digests),) = actual_map.items()
    found = []
    if signed_digests != actual_digests:
        found.append(
            Finding(
                "FILE_CHANGED",
                "refusal",
                actual.name,
                "The file's bytes are not the signed ones.",
                expected=_shown(signed_digests, signed),
                found=_shown(actual_digests, actual),
                rule=_RULE,
            )
        )
    if signed_name not in (".", actual.name, name):
        found.append(
            Finding(
                "NAME_MISMATCH",
                "refusal",
                actual.name,
                "The file was signed under another name.",
                expected=signed_name,
                found=actual.name,
                rule=_RULE,
                next_step="State the signed name as `name` if the file was moved on purpose.",
            )
        )
    return found


def _by_file(manifest: Manifest) -> dict[str, dict[tuple[int, int], str]]:
    """Return path → byte range → digest; whole files have the range (0, 0)."""
    if manifest.serialization.method == "files":
        return {resource.name: {(0, 0): resource.digest} for resource in manifest.resources}
    result: dict[str, dict[tuple[int, int], str]] = {}
    for resource in manifest.resources:
        path, start, end = split_shard(resource.name)
        result.setdefault(path, {})[start, end] = resource.digest
    return result


def _shown(digests: dict[tuple[int, int], str], manifest: Manifest) -> str:
    if not digests:
        return "no bytes"
    algorithm = manifest.serialization.hash_type
    first = next(iter(digests.values()))
    return f"{algorithm}:{first}" if len(digests) == 1 else f"{len(digests)} shards, the first {algorithm}:{first}"


def _first(paths: Iterable[str]) -> list[str]:
    return list(paths)[:MAX_DIFFERENCES]


__all__ = ["MAX_DIFFERENCES", "Resource", "differences", "ignored_files"]
