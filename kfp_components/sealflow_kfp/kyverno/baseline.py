"""The rest of the baseline of the Pod Security Standards, and annotations that a node's runtime obeys, in CEL."""

from __future__ import annotations

from collections.abc import Iterator

from sealflow_kfp.admission import baseline
from sealflow_kfp.kyverno.expressions import Rule, all_of, matches, text, texts


def rules() -> Iterator[Rule]:
    """Yield the rules."""
    container = "(!has(c.ports) || c.ports.all(p, !has(p.hostPort) || p.hostPort == 0))"
    yield Rule(
        f"{_context('object.spec')} && variables.everything.all(c, {_context('c')} && {container})",
        "ISOLATION_BROKEN: a container is confined by no profile, is of another kind of SELinux, or sets what is the "
        "node's (ports, sysctls).",
        "isolation",
    )
    name, value = "object.metadata.annotations[a]", "oldObject.metadata.annotations"
    before = (
        f'request.operation == "UPDATE" && has(oldObject.metadata.annotations) && a in {value} && {value}[a] == {name}'
    )
    yield Rule(
        f"""!has(object.metadata) || !has(object.metadata.annotations) || object.metadata.annotations.all(a, ({before})
            || (!{matches("a", f"(?s:{baseline.OF_THE_RUNTIME})")}
                && !(a.startsWith({text(baseline.APPARMOR)}) && {name} == "unconfined")))""",
        "ISOLATION_BROKEN: an annotation is of the node's runtime, which gives a container devices, hooks or mounts "
        "for it.",
        "annotations",
    )


def _context(parent: str) -> str:
    context = f"{parent}.securityContext"
    labels = f"{context}.seLinuxOptions"
    profiles = [
        f"!has({context}.{name}) || !has({context}.{name}.type) || {context}.{name}.type != {text(baseline.UNCONFINED)}"
        for name in baseline.PROFILES
    ]
    selinux = all_of(
        [
            f"!has({labels}.type) || {labels}.type in {texts(baseline.SELINUX)}",
            *(f'!has({labels}.{name}) || {labels}.{name} == ""' for name in ("user", "role")),
        ]
    )
    sysctls = f"!has({context}.sysctls) || {context}.sysctls.all(s, has(s.name) && s.name in {texts(baseline.SYSCTLS)})"
    return f"(!has({context}) || ({all_of([*profiles, f'!has({labels}) || ({selinux})', sysctls])}))"
