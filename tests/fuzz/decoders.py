"""Finds what decodes bytes: the calls by which a module turns what lies somewhere into values."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
PACKAGES: Final = (
    ROOT / "shared/sealflow",
    ROOT / "airflow_plugin/sealflow_airflow",
    ROOT / "kfp_components/sealflow_kfp",
)

#: Functions and methods that decode, by the last part of their name.
_NAMES: Final = {
    "b64decode", "from_bytes", "loads", "safe_load", "safe_load_all", "unpack", "unpack_from", "iter_unpack",
    "load_der_x509_certificate", "load_pem_x509_certificates", "decode_timestamp_response", "load_der_public_key",
    "load_pem_public_key", "load_pem_private_key", "load_der_private_key", "load_ssh_public_key",
    "load_ssh_private_key", "load_key_and_certificates", "raw_decode", "from_encoded_point", "next_event",
    "literal_eval", "decompress", "decompressobj", "fromstring",
}  # fmt: skip


_CALLED: Final = re.compile(rf"\b({'|'.join(sorted(_NAMES))})\(")


def decoders(source: str) -> set[str]:
    """Return the calls in a module's text that decode, as they are written."""
    if not _CALLED.search(source):
        return set()
    return {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Attribute) and node.func.attr in _NAMES)
            or (isinstance(node.func, ast.Name) and node.func.id in _NAMES)
        )
    }


@functools.cache
def modules() -> dict[str, set[str]]:
    """Return the modules that decode something, by their names, and how."""
    found = {}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            if calls := decoders(path.read_text(encoding="utf-8")):
                name = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
                found[name] = calls
    return found
