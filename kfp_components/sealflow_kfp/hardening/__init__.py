"""The hardener: rewrites a compiled pipeline so that every task of it runs guarded, with no change by its author.

Behind the wrapper (``python3 -m sealflow_kfp.exec``) inputs are verified before a task's command runs, and outputs are
signed after it. The hardener puts it before every command at every level of the pipeline, turns caching off, mounts
settings, keys and policy, and tells each task where its inputs have to come from. It decides nothing: what a hardened
pipeline says can only tighten what the cluster's policy demands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow_kfp.guard_command import resource_name
from sealflow_kfp.hardening.installs import Lock
from sealflow_kfp.hardening.pipeline import GUARDS, Options, harden_pipeline
from sealflow_kfp.hardening.reading import PipelineError, Source, plain, read, write
from sealflow_kfp.hardening.report import GAPS, UNGUARDED, Gap, Report

__all__ = ["GAPS", "UNGUARDED", "Gap", "Hardened", "PipelineError", "Report", "harden", "harden_text"]

_API = "pipelines.kubeflow.org/"
_WHAT = "The pipeline"


@dataclass(frozen=True)
class Hardened:
    """A hardened file.

    Attributes:
        documents: Its documents.
        reports: One for each pipeline in it.
        text: The file, where text was hardened.
    """

    documents: list[Any]
    reports: tuple[Report, ...]
    text: bytes = b""

    def as_dict(self) -> dict[str, Any]:
        """Return the reports in their JSON form."""
        return {"pipelines": [report.as_dict() for report in self.reports]}


def harden(
    documents: Iterable[Any],
    *,
    secret: str | None = None,
    policy_config_map: str | None = None,
    entrypoints: Mapping[str, Sequence[str]] | None = None,
    keep_installs: bool = False,
    lock: str | bytes | None = None,
    local: bool = False,
    allow_unguarded: bool = False,
    guard: str = "image",
) -> Hardened:
    """Harden what kfp's compiler wrote: a pipeline and its platform part, or Kubernetes manifests of PipelineVersions.

    Hardening twice changes nothing more.

    Args:
        documents: The documents of the compiled file, as :func:`yaml.safe_load_all` gives them; they are not changed.
        secret: Kubernetes secret that holds ``sealflow.json`` and keys, as for :func:`sealflow_kfp.mount`; by default
            none is mounted, and the cluster has to do it.
        policy_config_map: Config map that holds ``admin.json``, which names the policy and its keys; by default none is
            mounted.
        entrypoints: For images whose executors have no command: the command that the image would run.
        keep_installs: Leave the packages that tasks install when they run. By default that is taken away, and the image
            has to hold them.
        lock: Text of a lock file with hashes; tasks that install packages then install this file and nothing else.
        local: Let container components run under kfp.local's ``SubprocessRunner`` too; never for a cluster.
        allow_unguarded: Go on where a task would run unguarded; otherwise that is an error.
        guard: Where the guard is: in each task's ``image``, which then holds Python and sealflow; or in a ``directory``
            that the cluster mounts, see :mod:`sealflow_kfp.guard_command`. Images then need nothing.

    Raises:
        PipelineError: This is no compiled pipeline of kfp 2.16 or 2.17, or holds what can never be guarded.
        UsageError: A task would run unguarded (``PIPELINE_UNGUARDED``), or an option does not fit.
    """
    if lock is not None and keep_installs:
        raise UsageError("Run-time installs are kept as they are or replaced by a lock file, not both.")
    if guard not in GUARDS:
        raise UsageError(f"The guard is in the {' or in a '.join(GUARDS)}, not in {printable(guard, 40)!r}.")
    if local and guard != "image":
        raise UsageError("kfp.local mounts no guard directory; for it the guard is where Python runs.")
    options = Options(
        secret=resource_name(secret, "secret"),
        policy_config_map=resource_name(policy_config_map, "config map"),
        entrypoints={image: tuple(command) for image, command in (entrypoints or {}).items()},
        keep_installs=keep_installs,
        lock=None if lock is None else Lock.parse(_encoded(lock), "The lock file"),
        local=local,
        guard=guard,
    )
    hardened = [plain(document, _WHAT) for document in documents]
    if not hardened or not all(isinstance(item, dict) for item in hardened):
        raise PipelineError(f"{_WHAT} must be one or two YAML documents, each a mapping.")
    if any("apiVersion" in item or "kind" in item for item in hardened):
        reports = _harden_manifests(hardened, options)
    else:
        reports = (_harden_compiled(hardened, options),)
    open_ends = [gap for report in reports for gap in report.unguarded()]
    if open_ends and not allow_unguarded:
        named = "; ".join(f"{printable(gap.where, 80)}: {gap.message}" for gap in open_ends[:5])
        more = f" And {len(open_ends) - 5} more." if len(open_ends) > 5 else ""
        raise UsageError(
            f"{len(open_ends)} executor{'s' * (len(open_ends) != 1)} would run unguarded. {named}{more}",
            code="PIPELINE_UNGUARDED",
            next_step=open_ends[0].next_step,
        )
    return Hardened(hardened, reports)


def harden_text(data: bytes, *, what: str = _WHAT, **options: Any) -> Hardened:
    """Harden a compiled file; see :func:`harden`.

    Args:
        data: The file's bytes, YAML or JSON.
        what: Its name for messages.
        options: As :func:`harden` takes them.

    Raises:
        PipelineError: The text cannot be read for certain, or as :func:`harden`.
        UsageError: As :func:`harden`.
    """
    source = read(data, what)
    if not source.documents:
        raise PipelineError(f"{what} is empty.")
    done = harden(source.documents, **options)
    return Hardened(done.documents, done.reports, write(Source(done.documents, source.comments)))


def _harden_compiled(documents: list[Any], options: Options) -> Report:
    if len(documents) > 2 or "platforms" in documents[0]:
        raise PipelineError(f"{_WHAT} must be one document, and a second one for platforms.")
    platform = documents[1] if len(documents) == 2 else {}
    if set(platform) - {"platforms"}:
        raise PipelineError("The second document must hold platforms and nothing else.")
    report = harden_pipeline(documents[0], platform, options)
    if platform and len(documents) == 1:
        documents.append(platform)
    return report


def _harden_manifests(documents: list[Any], options: Options) -> tuple[Report, ...]:
    reports = []
    for item in documents:
        kind = item.get("kind")
        if not str(item.get("apiVersion")).startswith(_API) or kind not in ("Pipeline", "PipelineVersion"):
            raise PipelineError(
                f"A manifest of the kind {printable(kind, 60)!r} cannot be hardened, only Pipeline and PipelineVersion."
            )
        spec = item.get("spec")
        if kind == "Pipeline":
            continue
        if not isinstance(spec, dict) or not isinstance(spec.get("pipelineSpec"), dict):
            raise PipelineError("A PipelineVersion has no pipelineSpec that is an object.")
        platform = spec.get("platformSpec")
        if platform is None:
            platform = {}
        if not isinstance(platform, dict) or set(platform) - {"platforms"}:
            raise PipelineError("The platformSpec must hold platforms and nothing else.")
        reports.append(harden_pipeline(spec["pipelineSpec"], platform, options))
        if platform:
            spec["platformSpec"] = platform
    if not reports:
        raise PipelineError("There is no PipelineVersion to harden.")
    return tuple(reports)


def _encoded(text: str | bytes) -> bytes:
    return text.encode("utf-8", "replace") if isinstance(text, str) else text
