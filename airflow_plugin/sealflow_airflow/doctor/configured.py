"""What is configured: the policy, the XCom backend, variables, and what of it ends soon."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from configparser import RawConfigParser
from typing import Any, Final

from sealflow.errors import SealflowError
from sealflow.findings import printable
from sealflow_airflow.doctor.report import NO_KEYS, Line, State

BACKEND: Final = "sealflow_airflow.xcom.SealedXComBackend"

#: Variables of the core that a task of Airflow's reads, with the option that stands before it where there is one.
VARIABLES: Final[dict[str, str]] = {
    "SEALFLOW_EVIDENCE_STORE": "evidence_store",
    **dict.fromkeys(
        (
            "SEALFLOW_BUCKET_OWNERS",
            "SEALFLOW_IDENTITIES",
            "SEALFLOW_KEY_PASSPHRASE",
            "SEALFLOW_MOUNT",
            "SEALFLOW_PARAMETER_KEY",
            "SEALFLOW_PKCS11_MODULE",
            "SEALFLOW_RECIPIENTS",
            "SEALFLOW_SIGNER",
            "SEALFLOW_STATE_DIR",
            "SEALFLOW_TMPDIR",
            "SEALFLOW_VERIFIER",
        ),
        "",
    ),
}
_OPTION: Final = "AIRFLOW__SEALFLOW__"
#: Codes of keys that are not here, or for others to read.
_NOT_HERE: Final = frozenset({"KEY_MISSING", "PERMISSION_DENIED"})
#: A certificate or key that ends within so many days is said.
SOON: Final = 30


def policy(same: dict[str, str]) -> Iterator[Line]:
    """Say which of the three states holds."""
    found = _status()
    if found["state"] == "none":
        same["policy"] = "none"
        yield Line(
            "policy",
            "warning",
            "a policy in force",
            "no policy is configured: enforcement is inert, and explicit operators go by their own arguments",
            "Set [sealflow] policy and policy_keys, or leave it so.",
        )
        return
    yield from _passed_over()
    channel = found.get("channel", {})
    where = f" by {channel['where']}: {channel['policy']}" if channel else ""
    if found["state"] == "unavailable":
        same["policy"] = "unavailable"
        managed = ", ".join(channel.get("managed", ("**",)))
        yield Line(
            "policy",
            "unknown",
            f"the policy that is configured{where}",
            f"{found['code']}: {found['reason']} Tasks with {managed} fail and are tried again; others run",
            found["next_step"],
        )
        return
    same["policy"] = f"version {found['version']} {found['digest']}"
    rules = ", ".join(f"{number} {level}" for level, number in found["rules"].items())
    yield Line(
        "policy",
        "ok",
        f"the policy that is configured{where}",
        f"in force: version {found['version']}, {found['digest']}, rules: {rules}; expires {found['expires']}",
    )
    for text in found["waivers_refused"]:
        yield Line("policy", "warning", "waivers that hold", text, "Sign the waiver anew, or remove it.")


def _passed_over() -> Iterator[Line]:
    """Say where [sealflow] names a policy and is not asked, since a file of the machine stands before it."""
    from sealflow.actions import context
    from sealflow_airflow.policy import channel

    if channel() is not None and channel() != (decides := context.current().admin):
        where = getattr(decides, "where", "") or "a file of this machine"
        found = f"[sealflow] names a policy and is not asked: {where} stands before it"
        yield Line("policy", "warning", "one place that decides", found, "Keep one of the two.")


def _status() -> dict[str, Any]:
    from sealflow.actions import context
    from sealflow.actions.policy_status import status

    return status(context.current())


def in_force_here() -> Any:
    """Return the policy in force, the channel where it is not to be had, ``None`` where none is configured."""
    from sealflow.actions import context
    from sealflow.audit.event import utc_now
    from sealflow.errors import UnavailableError
    from sealflow.policy.source import policy_in_force
    from sealflow.storage import Storages

    channel = context.current().admin
    if channel is None:
        return None
    try:
        return policy_in_force(channel, Storages(), utc_now())
    except UnavailableError:
        return channel


def connection(same: dict[str, str], *, worker: bool = False) -> Iterator[Line]:
    """Open the keys of the default connection, where tasks run."""
    from sealflow_airflow.hooks.sealflow import SealflowHook

    expected = "a default connection whose keys can be opened, or none"
    if not worker:
        yield Line("connection", "note", expected, "not looked at: that is for processes that run tasks, with --worker")
        return
    hook = SealflowHook()
    settings = hook.get_conn()
    if settings.signer is None:
        yield Line(
            "connection", "note", expected, "no signer: policies, operators or SEALFLOW_SIGNER name one, or none"
        )
    if settings.signer or settings.identities or settings.recipients:
        opened, found = hook.test_connection()
        hint = "" if opened else "Give this process the keys that the connection names."
        yield Line("connection", "ok" if opened else "fault", expected, found, hint)


def xcom(same: dict[str, str], *, worker: bool = False) -> Iterator[Line]:
    """Say whether XComs are sealed, and with which keys."""
    from airflow.configuration import conf

    configured = conf.get("core", "xcom_backend")
    same["xcom backend"] = configured
    if configured != BACKEND:
        yield Line(
            "xcom backend",
            "note",
            BACKEND,
            f"{configured}: XComs are not sealed",
            "Set [core] xcom_backend, if XComs are worth it; docs/how-to/sealed-xcom.md.",
        )
        return
    from sealflow_airflow import xcom

    found, storage = xcom.settings(), xcom.storage()
    try:
        keys = xcom.keys()
    except SealflowError as error:
        same["xcom keys"] = NO_KEYS
        yield _keyless("xcom backend", error, worker)
        return
    # Keys of one name need not be the same; the fingerprint does not tell the key.
    same["xcom keys"] = ", ".join(f"{key.name} {key.fingerprint[:16]}" for key in keys)
    same["xcom storage"], same["xcom_max_bytes"] = found.storage or "the database", str(found.max_bytes)
    same["xcom_accept_clear"] = str(found.accept_clear)
    others = f", {len(keys) - 1} more open" if len(keys) > 1 else ""
    where = f"{storage.__module__}.{storage.__qualname__}" if found.storage else "the database"
    yield Line(
        "xcom backend", "ok", BACKEND, f"{keys[0].name} seals{others}; at most {found.max_bytes} bytes, in {where}"
    )
    if found.accept_clear:
        yield Line(
            "xcom backend",
            "warning",
            "sealed values only",
            "xcom_accept_clear is on: whoever writes to the database makes values that tasks believe",
            "Turn it off when the runs that began before sealing have ended.",
        )


def environment(same: dict[str, str]) -> Iterator[Line]:
    """Name variables and options that nobody reads, or that stand before others. Values are not shown."""
    from airflow.configuration import conf

    from sealflow_airflow.get_provider_info import get_provider_info

    options = get_provider_info()["config"]["sealflow"]["options"]
    known = set(options)
    in_file = set(conf.options("sealflow") if conf.has_section("sealflow") else ())
    # The file that Airflow writes at its first start holds every option with its default; nobody set those.
    set_there = {
        name
        for name in in_file & known
        if RawConfigParser.get(conf, "sealflow", name, raw=True, fallback="") not in ("", options[name]["default"])
    }
    clean = True
    for name in sorted(os.environ):
        option = name.removeprefix(_OPTION).lower()
        # Airflow reads capitals, and `_CMD` and `_SECRET` only of options that are sensitive, as none of ours is.
        if name.startswith(_OPTION) and (option not in known or name != name.upper()):
            clean = False
            expected = f"options of [sealflow]: {', '.join(sorted(known))}"
            yield Line(
                "environment", "fault", expected, f"{name}, which nobody reads", "Correct the name, or remove it."
            )
        elif name.startswith(_OPTION) and option in set_there:
            clean = False
            found = f"{name} stands before {option} in airflow.cfg"
            yield Line("environment", "warning", "one place that decides", found, "Keep one of the two.")
        elif name.startswith("SEALFLOW_"):
            clean = False
            yield _variable(name)
    for name in sorted(in_file - known):
        clean = False
        expected = f"options of [sealflow]: {', '.join(sorted(known))}"
        yield Line("environment", "fault", expected, f"{name} in airflow.cfg, which nobody reads", "Correct the name.")
    if clean:
        yield Line("environment", "ok", "no variable that is ignored or stands before the configuration", "none")


def _variable(name: str) -> Line:
    from airflow.configuration import conf

    if name not in VARIABLES:
        option = name.removeprefix("SEALFLOW_")
        return Line(
            "environment",
            "warning",
            "variables that Airflow's tasks read",
            f"{name} is set and is not read in Airflow",
            f"Remove it; options are set as {_OPTION}{option}." if option.startswith("AUDIT") else "Remove it.",
        )
    option = VARIABLES[name]
    if option and conf.get("sealflow", option, fallback=""):
        found = f"{name} is set and ignored: [sealflow] {option} stands before it"
        return Line("environment", "warning", "one place that decides", found, "Remove the variable.")
    found = f"{name} is set; it counts where argument, connection and [sealflow] say nothing"
    return Line("environment", "note", "settings of the admin's", found)


def _keyless(check: str, error: SealflowError, worker: bool) -> Line:
    """Return what is said of a key that is not here; the error itself where tasks run, or the key is a wrong one."""
    if worker or error.code not in _NOT_HERE:
        raise error
    found = f"{error.code}: {error.message} All is well, unless tasks run here"
    return Line(check, "note", "keys where tasks run", found, "Ask with --worker where they do.")


def expiry(same: dict[str, str], *, worker: bool = False) -> Iterator[Line]:
    """Name waivers, and what ends soon: the policy, its identities, certificates."""
    now = datetime.datetime.now(datetime.timezone.utc)
    lines = [*_ends(now, worker)]
    yield from lines
    if not lines:
        yield Line("expiry", "ok", f"nothing that ends within {SOON} days", "nothing")


def _ends(now: datetime.datetime, worker: bool) -> Iterator[Line]:
    from sealflow.policy.source import InForce

    found = _status()
    # The policy itself warns of itself and of its keys.
    for item in found.get("warnings", ()):
        yield Line("expiry", "warning", "time that is left", f"{item['message']} ({item['found']})", "Sign it anew.")
    for item in found.get("waivers", ()):
        if item["holds"]:
            rules = ", ".join(item["rules"])
            text = f"the waiver {item['id']} turns off {rules} until {item['expires']}: {item['reason']}"
            yield Line("expiry", "warning", "no waiver", text, "Repair what it waives before it ends.")
    in_force = in_force_here()
    known = in_force.policy.document.identities if isinstance(in_force, InForce) else {}
    for name, identity in known.items():
        for pem in identity.certificate.roots if identity.certificate is not None else ():
            yield from _certificates(pem, f"a root of the identity {name}", now)
    from sealflow.keys.signer import chains_of
    from sealflow_airflow.hooks.sealflow import SealflowHook

    settings = SealflowHook().get_conn()
    for what, uri in (("signer", settings.signer), ("verifier", settings.verifier)):
        for chain in chains_of(uri) if uri else ():
            try:
                yield from _certificates(chain, f"a certificate of the connection's {what}", now)
            except SealflowError as error:
                yield _keyless("expiry", error, worker)


def _certificates(source: str, what: str, now: datetime.datetime) -> Iterator[Line]:
    from sealflow.keys.certificate import load_certificates

    for certificate in load_certificates(source):
        end = certificate.not_valid_after_utc
        if end - now < datetime.timedelta(days=SOON):
            state: State = "fault" if end <= now else "warning"
            name = printable(certificate.subject.rfc4514_string(), 200)
            text = f"{what}, {name}, ends {end:%Y-%m-%d %H:%M} UTC"
            yield Line(
                "expiry", state, f"{SOON} days that are left", text, "Have a new certificate made, and sign with it."
            )
