"""Where files of an author's may lie in a task: the rule of ``admission.mounts.may_lie``, in CEL."""

from __future__ import annotations

from collections.abc import Iterator

from sealflow_kfp.admission import mounts, shapes
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.kyverno import parts
from sealflow_kfp.kyverno.expressions import MAX_WORDS, Rule, any_of, matches, text, texts


def rules(settings: Settings) -> Iterator[Rule]:
    """Yield the rule."""
    known = any_of(
        f"m.mountPath in {texts([path, f'{path}/'])} && m.name == {text(name)}" for path, name in mounts.SYSTEM.items()
    )
    named = any_of(
        f"m.mountPath in {texts([path.rstrip('/'), path.rstrip('/') + '/'])}"
        + (f" || m.mountPath.startsWith({text(path)})" if path.endswith("/") else "")
        for path in settings.images.mounts
    )
    empty = _volume('v.all(k, k in ["name", "emptyDir"]) && has(v.emptyDir)')
    free = any_of([*parts.ours(settings).values(), known, parts.tokens(), empty, _identity(), _bundle(), named])
    first = f"variables.positions.all(j, j >= i || variables.mounts[j].mountPath != {text(shapes.LAUNCHER_MOUNT)})"
    yield Rule(
        f"""!variables.task || (variables.mounts.size() <= {MAX_WORDS}
            && variables.positions.all(i, i >= variables.mounts.size() || [variables.mounts[i]].all(m, ({free})
                || ({matches("m.mountPath", "/[^/]+/?")} && !(m.mountPath in ["/tmp", "/tmp/"]) && {first}))))""",
        "MOUNT_REFUSED: files are mounted where a link of the image could lead over the guard. Mount them at a path of "
        "one part, such as /data, before KFP's own, or name the path (images.mounts).",
    )


def _volume(expression: str) -> str:
    return f"variables.volumes.exists_one(v, v.name == m.name && {expression})"


def _identity() -> str:
    """Return the expression that the mount ``m`` holds tokens of the account alone, as clouds add one."""
    places = parts.spellings(mounts.IDENTITIES.rstrip("/"))
    below = any_of(f"m.mountPath.startsWith({text(f'{place}/')})" for place in places)
    alone = """has(v.projected) && has(v.projected.sources) && v.projected.sources.size() > 0
        && v.projected.sources.all(s, s.size() == 1 && has(s.serviceAccountToken))"""
    return f"({below}) && {_volume(alone)}"


def _bundle() -> str:
    """Return the expression that the mount ``m`` is KFP's bundle of certificates, one file of one name."""
    items = '{0}.items.size() == 1 && {0}.items.all(item, item.path == "ca.crt")'
    one = any_of(
        f"has(v.{kind}) && has(v.{kind}.items) && {items.format(f'v.{kind}')}" for kind in ("configMap", "secret")
    )
    return f"""m.mountPath == {text(mounts.CERTIFICATE_MOUNT)} && m.name == {text(mounts.CERTIFICATE_VOLUME)}
        && !has(m.subPath) && !has(m.subPathExpr) && {_volume(f"({one})")}"""
