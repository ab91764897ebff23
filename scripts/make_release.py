"""Build what is released, say what it is made of, sign it: ``python scripts/make_release.py SIGNER [--output dist]``.

Into the folder come the wheel, the source distribution and ``sealflow.cdx.json``, a CycloneDX bill of materials of all
that a user's extras bring, in the versions of this environment. The folder is one artifact: its evidence lies beside
it, and once more as ``<folder>.sig`` for the stock tool of OpenSSF Model Signing and ``<folder>.intoto.jsonl`` for
in-toto's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
#: Extras of those who develop sealflow, not of those who use it.
OWN = frozenset({"demo", "docs", "test"})
BILL = "sealflow.cdx.json"


def build(folder: Path) -> None:
    """Build wheel and source distribution; the same commit gives the same bytes."""
    asked = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    commit = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": commit})


def bill() -> dict[str, Any]:
    """Return the bill of materials."""
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "environment", sys.executable]
    command += ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library", "--short-PURLs"]
    command += ["--output-reproducible", "--of", "JSON"]
    whole = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    used = closure()
    root = whole["metadata"]["component"]
    root |= {"version": version("sealflow"), "purl": f"pkg:pypi/sealflow@{version('sealflow')}"}
    kept = {root["bom-ref"]}
    components = []
    for component in whole["components"]:
        if canonicalize_name(component["name"]) in used:
            kept.add(component["bom-ref"])
            components.append(component)
    missing = used - {canonicalize_name(component["name"]) for component in components}
    if missing:
        raise RuntimeError(f"Not in this environment: {', '.join(sorted(missing))}")
    edges = [
        {**edge, "dependsOn": [ref for ref in edge.get("dependsOn", ()) if ref in kept]}
        for edge in whole["dependencies"]
        if edge["ref"] in kept
    ]
    return {**whole, "components": components, "dependencies": edges}


def closure() -> set[str]:
    """Return the names of all distributions that ``sealflow`` with each of a user's extras needs here."""
    own = distribution("sealflow")
    extras = set(own.metadata.get_all("Provides-Extra") or ()) - OWN
    found: set[tuple[str, str]] = set()
    todo = [("sealflow", extra) for extra in ("", *extras)]
    while todo:
        name, extra = item = todo.pop()
        if item in found:
            continue
        found.add(item)
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                todo += [(needed, more) for more in ("", *requirement.extras)]
    return {name for name, _ in found} - {"sealflow"}


def main(arguments: list[str] | None = None) -> int:
    """Build, describe, sign."""
    parser = argparse.ArgumentParser(prog="make_release", description="Build, describe and sign a release.")
    parser.add_argument("signer", help="URI of the key that signs it, such as awskms:… or file:…")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder, which must be empty or new")
    given = parser.parse_args(arguments)
    folder = given.output.resolve()
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty: what lies there would be signed as ours")
    import sealflow
    from sealflow.actions.export import export_evidence

    build(folder)
    (folder / BILL).write_text(json.dumps(bill(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    reference = sealflow.sign(folder, signer=given.signer, name="sealflow")
    for path in (*sorted(folder.iterdir()), *map(Path, export_evidence(str(folder), str(folder.parent)))):
        print(path)
    print(reference.digest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
