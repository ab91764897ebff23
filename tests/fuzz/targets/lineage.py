"""Git's and DVC's files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sealflow.errors import SealflowError
from tests.fuzz.targets.base import Target


def _lineage(module: str, function: str, *more: Any) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        import importlib

        return getattr(importlib.import_module(f"sealflow.lineage.{module}"), function)(data, *more)

    return read


def _git(function: str, *more: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        from sealflow.lineage import git

        return getattr(git, function)("0" * 40, data, *more)

    return read


def _sshsig(data: bytes) -> object:
    from sealflow.lineage.git_signature import _read_sshsig

    return _read_sshsig(data.decode("utf-8", "replace"), b"payload", "0" * 40)


def _stopped() -> tuple[type[Exception], ...]:
    from sealflow.lineage.git_program import Stopped

    return (SealflowError, Stopped)


def _preflight(data: bytes) -> object:
    from sealflow import strictyaml
    from sealflow.lineage.preflight import _body, _pipeline

    # What the parser of these files refuses is said by it, and nothing here.
    strictyaml.loads(data, limit=1 << 20, what="dvc.yaml", scalar=strictyaml.core)
    _body("dvc.yaml", data)
    return list(_pipeline("dvc.yaml", data))


TARGETS: Final = [
    Target("dvc-lock", _lineage("files", "parse_lock", "dvc.lock"), ("sealflow.lineage.files",)),
    Target("dvc-file", _lineage("files", "parse_dvc_file", "a.dvc"), ("sealflow.lineage.files",)),
    Target("dvc-pipeline", _lineage("files", "parse_pipeline", "dvc.yaml"), ("sealflow.lineage.files",)),
    Target("dvc-directory", _lineage("files", "parse_directory", "a.dir"), ("sealflow.lineage.files",)),
    Target("dvc-config", _lineage("config", "parse_configuration", "config"), ("sealflow.lineage.config",)),
    Target("dvc-before-running", _preflight, ("sealflow.lineage.preflight",)),
    Target("params-yaml", _lineage("params", "parse_params", "p.yaml", "p.yaml"), ("sealflow.lineage.params",)),
    Target("params-json", _lineage("params", "parse_params", "p.json", "p.json"), ("sealflow.lineage.params",)),
    Target("params-toml", _lineage("params", "parse_params", "p.toml", "p.toml"), ("sealflow.lineage.params",)),
    Target("git-commit", _git("parse_commit", "sha1"), ("sealflow.lineage.git",), _stopped()),
    Target("git-links", _git("_parse_links"), ("sealflow.lineage.git",), _stopped()),
    Target("git-tree", _git("parse_tree"), ("sealflow.lineage.git",), _stopped()),
    Target("git-signature", _sshsig, ("sealflow.lineage.git_signature",), _stopped()),
    Target(
        "allowed-signers",
        _lineage("git_signature", "parse_allowed_signers", "the file"),
        ("sealflow.lineage.git_signature",),
    ),
]
