"""The list of what KFP's and Argo's own programs have mounted, in CEL; see the module of that name in admission."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sealflow_kfp import guard_command
from sealflow_kfp.admission import mounts, pod_helpers
from sealflow_kfp.admission import program_mounts as listed
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.kyverno.expressions import Rule, all_of, any_of, fields, matches, sidecar, text, texts

#: How a rule finds the containers of each kind: the list that they are in, and their name.
_CONTAINERS: Final = {
    listed.BEFORE: ("variables.inits", texts(pod_helpers.ARGO_BEFORE)),
    listed.BESIDE: ("object.spec.containers", texts(pod_helpers.ARGO_BESIDE)),
    listed.LAUNCHER: ("variables.inits", texts(["kfp-launcher"])),
    listed.GUARD: ("variables.inits", texts([guard_command.INIT_CONTAINER])),
    listed.DRIVER: ("variables.driver ? variables.mains : []", texts(["main"])),
    listed.IMPORTER: ("variables.importer ? variables.mains : []", texts(["main"])),
}


def rules(settings: Settings, tokens: str, ours: str) -> Iterator[Rule]:
    """Yield the rules.

    Args:
        settings: The settings of admission.
        tokens: The expression that the mount ``m`` is of the pod's token.
        ours: The expression that the mount ``m`` is the admin's, as a guarded task has it.
    """
    beside = sidecar(settings.kubeflow.sidecar_images)
    every = [
        f"({containers}).all(c, !(c.name in {names}) || ({beside}) || ((!has(c.workingDir) || c.workingDir == "
        f'"") && (!has(c.volumeMounts) || c.volumeMounts.all(m, {_fine(role, settings, tokens, ours)}))))'
        for role, (containers, names) in _CONTAINERS.items()
    ]
    yield Rule(
        all_of(every),
        "MOUNT_REFUSED: a program of KFP's, Argo's or sealflow's has a volume mounted that is not its own, or a "
        "workingDir; another program could lie under its name (kubeflow.mounts).",
    )


def _fine(role: str, settings: Settings, tokens: str, ours: str) -> str:
    """Return the expression that a container of this kind may have the mount ``m``."""
    plain = fields("m", listed.FIELDS)
    places = [
        f"m.mountPath == {text(path)} && m.name == {text(name)} && {plain}"
        for path, name in listed.PLACES[role].items()
    ]
    more = listed.places(role, settings)
    if more:
        places.append(f"m.mountPath in {texts(more)} && {plain}")
    path, name, part = listed.PASSING
    identity = f"{plain} && {matches('m.mountPath', listed.IDENTITIES)} && {_apart()} && {_volume(_IDENTITY)}"
    found = [*places, tokens, identity]
    if role in listed.OF_ARGO:
        keys = f"{matches('m.mountPath', listed.STORE_KEYS)} || m.mountPath == {text(mounts.TOKENS)}"
        found += [
            f"m.mountPath == {text(path)} && m.name == {text(name)} && {fields('m', listed.FIELDS | {'subPath'})} "
            f"&& (!has(m.subPath) || {matches('m.subPath', part)})",
            f"({keys}) && {plain} && {_volume(_SECRET)}",
        ]
    if role == listed.BESIDE:
        found.append(matches("m.mountPath", listed.MIRRORS))
    if role in (listed.DRIVER, listed.IMPORTER):
        found.append(ours)
    if role == listed.GUARD:
        (target,) = settings.guard.mounts.init_container()["volumeMounts"]
        found.append(
            f"m.name == {text(target['name'])} && m.mountPath == {text(target['mountPath'])} && {fields('m', target)}"
        )
    return any_of(found)


_SECRET: Final = f"{fields('v', ['name', 'secret'])} && has(v.secret)"
_IDENTITY: Final = f"""{fields("v", ["name", "projected"])} && has(v.projected) && has(v.projected.sources)
    && v.projected.sources.size() > 0 && v.projected.sources.all(s, s.size() == 1 && has(s.serviceAccountToken))"""


def _volume(expression: str) -> str:
    return f"variables.volumes.exists_one(v, v.name == m.name && {expression})"


def _apart() -> str:
    """Return the expression that a cloud's place is not the cluster's own token's, nor in it, nor over it."""
    place = text(f"{mounts.TOKEN}/")
    return f'!(m.mountPath + "/").startsWith({place}) && !{place}.startsWith(m.mountPath + "/")'
