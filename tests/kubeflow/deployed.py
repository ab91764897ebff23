"""What lies in deploy/kubeflow, as objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "kubeflow"
#: The oldest release that has all that is used, and the newest whose schemas there are.
RELEASES = ("1.30", kubernetes_validate.latest_version())

Objects = dict[tuple[str, str], dict[str, Any]]


def by_name(text: str) -> Objects:
    objects = [item for item in yaml.safe_load_all(text) if item]
    named = {(item["kind"], item["metadata"]["name"]): item for item in objects}
    assert len(named) == len(objects)
    return named


BASE = by_name("\n---\n".join(p.read_text() for p in (DEPLOY / "base").glob("*.yaml")
                             if p.name not in ("kustomization.yaml", "settings.yaml")))  # fmt: skip
DEPLOYMENT = BASE["Deployment", "sealflow-admission"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
