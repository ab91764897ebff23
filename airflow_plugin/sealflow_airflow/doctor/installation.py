"""Which sealflow this process runs, and whether Airflow finds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow_airflow.doctor.report import Line

#: Entry points that Airflow finds us by.
ENTRY_POINTS: Final = {
    "apache_airflow_provider": ("provider_info", "sealflow_airflow.get_provider_info:get_provider_info"),
    "airflow.policy": ("sealflow", "sealflow_airflow.policy"),
}

_MAX_DIRECT_URL: Final = 1 << 20


def distribution(same: dict[str, str]) -> Iterator[Line]:
    """Say which distribution the imported packages are from."""
    found = [item for item in metadata.distributions() if (item.metadata["Name"] or "").lower() == "sealflow"]
    places = sorted({str(item.locate_file("")) for item in found})
    expected = "one distribution, sealflow"
    if len(places) != 1:
        there = ", ".join(places) or "none"
        yield Line("distribution", "fault", expected, there, "Uninstall all of them, and install sealflow once.")
    else:
        yield Line("distribution", "ok", expected, f"sealflow {found[0].version} in {places[0]}")
    owners = metadata.packages_distributions()
    for package in ("sealflow", "sealflow_airflow"):
        strangers = sorted(set(owners.get(package, ())) - {"sealflow"})
        if strangers:
            yield Line(
                "distribution",
                "fault",
                f"{package} from sealflow alone",
                f"also from {', '.join(strangers)}",
                "Uninstall the other distribution.",
            )
        yield _origin(package, found[0] if found else None)


def _origin(package: str, distribution: metadata.Distribution | None) -> Line:
    """Say from where a package was imported; PYTHONPATH or the working folder may stand before the installed one."""
    from importlib.util import find_spec

    spec = find_spec(package)
    origin = os.path.realpath(spec.origin) if spec is not None and spec.origin else ""
    folders = [
        os.path.realpath(item or os.getcwd()) for item in os.environ.get("PYTHONPATH", "").split(os.pathsep) if item
    ]
    shadows = [folder for folder in folders if origin.startswith(folder + os.sep)]
    expected = f"{package} from where it is installed"
    if distribution is not None and any(
        os.path.realpath(str(distribution.locate_file(name))) == origin for name in distribution.files or ()
    ):
        return Line("distribution", "ok", expected, origin)
    if distribution is not None and _editable(distribution, origin):
        found = f"{origin}, an editable installation"
        return Line("distribution", "note", expected, found, "Install a wheel where tasks of others run.")
    how = f", which PYTHONPATH puts first ({shadows[0]})" if shadows else ""
    return Line("distribution", "fault", expected, origin + how, "Take it out of PYTHONPATH and of the working folder.")


def _editable(distribution: metadata.Distribution, origin: str) -> bool:
    try:
        direct = strictjson.loads(
            (distribution.read_text("direct_url.json") or "{}").encode(), limit=_MAX_DIRECT_URL, what="direct_url.json"
        )
    except EvidenceError:
        return False
    from urllib.parse import unquote, urlsplit

    root = os.path.realpath(unquote(urlsplit(str(direct.get("url", ""))).path))
    return bool(direct.get("dir_info", {}).get("editable")) and origin.startswith(root + os.sep)


def entry_points(same: dict[str, str]) -> Iterator[Line]:
    """Look for the entry points by which Airflow finds us."""
    for group, (name, value) in ENTRY_POINTS.items():
        # Providers all have the same name for theirs.
        found = [
            item
            for item in metadata.entry_points(group=group)
            if item.name == name
            and (name != "provider_info" or (item.dist is not None and item.dist.name == "sealflow"))
        ]
        expected = f"{group}: {name} = {value}"
        values = sorted({item.value for item in found})
        if values == [value]:
            yield Line("entry points", "ok", expected, "there")
        else:
            there = ", ".join(values) or "nothing"
            yield Line("entry points", "fault", expected, there, "Install sealflow anew, in this environment.")


def loading(same: dict[str, str]) -> Iterator[Line]:
    """Load what guards need; where that fails, so does each task that has assets."""
    from importlib import import_module

    from sealflow_airflow.policy import LOADED_AHEAD

    expected = "a sealflow that can be loaded"
    try:
        for name in LOADED_AHEAD:
            import_module(name)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        hint = "Install sealflow anew, in this environment, with all that it needs; `pip check` names what is missing."
        yield Line("installation", "fault", expected, found, hint)
    else:
        yield Line("installation", "ok", expected, "it was loaded")


def hooks(same: dict[str, str]) -> Iterator[Line]:
    """Compare names: Airflow ignores a hook whose name it does not know, without a word."""
    from airflow import policies
    from airflow.settings import get_policy_plugin_manager

    from sealflow_airflow import policy

    manager = get_policy_plugin_manager()
    expected = "sealflow_airflow.policy among Airflow's policies"
    if not manager.is_registered(policy):
        yield Line("hooks", "fault", expected, "it is not there", "Install sealflow anew, in this environment.")
    else:
        hooks = sorted(caller.name for caller in manager.get_hookcallers(policy) or ())
        yield Line("hooks", "ok", expected, f"there, with {', '.join(hooks)}")
        same["hooks"] = ",".join(hooks)
    known = {name for name in vars(policies) if manager.parse_hookspec_opts(policies, name) is not None}
    for name, plugin in manager.list_name_plugin():
        for attribute in dir(plugin) if plugin is not None else ():
            if manager.parse_hookimpl_opts(plugin, attribute) is not None and attribute not in known:
                yield Line(
                    "hooks",
                    "fault",
                    f"one of {', '.join(sorted(known))}",
                    f"{name}.{attribute}, which Airflow never calls",
                    "Correct the name of the hook.",
                )
