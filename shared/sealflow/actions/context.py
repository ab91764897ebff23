"""What surrounds an action: the run it is part of, the settings that hold there, and what the run has verified so far.

The run is found in this order: the one entered with :func:`run`; the one that an orchestrator package recognises
(:data:`RECOGNISERS`, modules whose ``current()`` returns a :class:`Surroundings` or ``None``); plain Python.

The admin's channel is found apart from the run, so that entering another run is no way around it: the machine's file;
what an orchestrator took from its configuration when the process started (``admin()`` of such a module); the run's. Nor
does a task take on another's name: inside of one, ``identity()`` and ``MOUNTS`` of such a module stand before what was
entered.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError, VerificationError
from sealflow.findings import printable
from sealflow.policy.channel import ENVIRONMENT_FILE, MACHINE_FILE, is_there
from sealflow.run_identity import RunIdentity

if TYPE_CHECKING:
    from sealflow.evidence.provenance import Dependency
    from sealflow.policy.source import AdminChannel, BrokenChannel

#: Folder that ``sealflow_kfp.mount`` mounts; its ``sealflow.json`` holds settings and its other files hold keys.
MOUNT: Final = "/var/run/sealflow"
SETTINGS_FILE: Final = "sealflow.json"
_MAX_SETTINGS: Final = 256 << 10
_REMEMBERED_RUNS: Final = 256
_AUDIT: Final = "audit_"

#: Modules of this distribution that know an orchestrator, each with the module or argument by which a process shows
#: that it may be one of its tasks. Others need not pay for the look.
RECOGNISERS: Final = (("sealflow_airflow.run_context", "airflow.sdk"), ("sealflow_kfp.run_context", "--executor_input"))


@dataclass(frozen=True)
class Settings:
    """Defaults for whatever a call leaves open. References only, never secrets.

    Attributes:
        signer: Signer URI.
        identities: Identity rules, see :mod:`sealflow.policy.identities`.
        evidence_store: Location of the evidence store.
        audit_spool: Folder of the audit spool. To name one declares that it outlives the process.
        audit_inbox: Location of the audit inbox, see :func:`sealflow.audit.inbox.open_inbox`. Without a spool every
            event is put there before the action goes on.
        audit_log: Location of the audit log into which the inbox is integrated.
        audit_log_key: Verifier key of that log (C2SP signed-note), or the path of a file that holds it.
        audit_witness_keys: Verifier keys of the log's witnesses, or paths of files that hold one each; separated by
            commas.
        audit_signer: Signer URI of the key that vouches for this deployment's audit writers.
        audit_details: Where payloads of audit events are kept that may be deleted; by default beside spool or inbox.
        audit_personal: Members of audit events that are personal here and go into such a payload: any of
            ``artifact``, ``host`` and ``triggered_by``, separated by commas.
        audit_timeout: How many seconds an action waits for what the policy's ``audit`` demands of its event.
        parameter_key: Path of a file with the deployment's HMAC key for parameter values.
        verifier: Signer URI of the verifier that signs verification summaries; never a key that signs artifacts.
        recipients: Recipient URIs: who can open what is encrypted here, and with which keys it is opened here. One
            URI, a list, or the JSON text of a list.
    """

    signer: str | None = None
    identities: Any = None
    evidence_store: str | None = None
    audit_spool: str | None = None
    audit_inbox: str | None = None
    audit_log: str | None = None
    audit_log_key: str | None = None
    audit_witness_keys: str | None = None
    audit_signer: str | None = None
    audit_details: str | None = None
    audit_personal: str | None = None
    audit_timeout: str | None = None
    parameter_key: str | None = None
    verifier: str | None = None
    recipients: Any = None

    def over(self, other: Settings) -> Settings:
        """Return these settings with the gaps filled from ``other``.

        The audit's belong together: where one of them is named, none comes from elsewhere. A spool that a task names
        must not stand before the inbox that its admin named.
        """
        names = [item.name for item in fields(self) if getattr(self, item.name) is None]
        if any(getattr(self, item.name) is not None for item in fields(self) if item.name.startswith(_AUDIT)):
            names = [name for name in names if not name.startswith(_AUDIT)]
        return replace(self, **{name: getattr(other, name) for name in names})

    @classmethod
    def parse(cls, body: Mapping[str, Any], where: str) -> Settings:
        """Read settings from a decoded JSON object.

        Raises:
            UsageError: An unknown member, or one of the wrong type.
        """
        known = {item.name for item in fields(cls)}
        for name, value in body.items():
            if name not in known:
                raise UsageError(
                    f"{where} has the unknown setting {printable(name)!r}; known: {', '.join(sorted(known))}."
                )
            if name not in ("identities", "recipients") and value is not None and not isinstance(value, str):
                raise UsageError(f"{where}: the setting {name} must be text.")
        return cls(**{name: value or None for name, value in body.items()})


@dataclass(frozen=True)
class Surroundings:
    """What an orchestrator package says about the task that is running.

    Attributes:
        run: The run's identity.
        settings: Defaults that hold in this task.
        parameters: Names and values of the run's parameters; values leave the process as HMACs or not at all.
        refusal: What is raised for a refused artifact, which no other attempt can heal: an orchestrator's own
            "do not retry" joined with :class:`~sealflow.errors.VerificationError`.
        admin: The admin's channel of a program that is neither a task nor on a machine with an admin's file
            (:func:`sealflow.policy.source.machine_channel`); both stand before it.
        mounts: Folders in which the orchestrator shows object stores, and the locations that they show: rules about
            these locations hold for what lies in the folders.
        triggered_by: Who is said to have started the run; a claim that nobody proved.
    """

    run: RunIdentity = field(default_factory=RunIdentity)
    settings: Settings = field(default_factory=Settings)
    # Not in the repr: values end up in logs otherwise.
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    refusal: type[VerificationError] = VerificationError
    admin: AdminChannel | BrokenChannel | None = None
    mounts: Mapping[str, str] = field(default_factory=dict)
    triggered_by: str = ""


_entered: contextvars.ContextVar[Surroundings | None] = contextvars.ContextVar("sealflow_run", default=None)
_verified: dict[RunIdentity, list[Dependency]] = {}
_lock = threading.Lock()


@contextlib.contextmanager
def run(surroundings: Surroundings) -> Iterator[Surroundings]:
    """Enter a run explicitly. Orchestrator packages use it where they know the run better than its process does.

    When it is left, the audit chains end that began in it.
    """
    token = _entered.set(surroundings)
    try:
        yield surroundings
    finally:
        _entered.reset(token)
        if (writer := sys.modules.get("sealflow.audit.writer")) is not None:
            writer.close_writers(surroundings)


def entered() -> Surroundings | None:
    """Return what was entered last with :func:`run` and not yet left."""
    return _entered.get()


def current() -> Surroundings:
    """Return the surroundings of this call, settings from mounts and environment included.

    Raises:
        UsageError: A settings file is malformed.
    """
    entered = _entered.get()
    found = _from_orchestrators() or Surroundings() if entered is None else _in_its_task(entered)
    settings = found.settings.over(_mounted()).over(_environment())
    return replace(found, settings=settings, admin=_machine_channel() or _configured() or found.admin)


def _machine_channel() -> AdminChannel | BrokenChannel | None:
    # Most processes have no such file, and need not load what would read it.
    loaded = "sealflow.policy.source" in sys.modules
    if not loaded and not any(map(is_there, (MACHINE_FILE, os.path.join(sys.prefix, ENVIRONMENT_FILE)))):
        return None
    from sealflow.policy.source import machine_channel

    return machine_channel()


def _from_orchestrators() -> Surroundings | None:
    for recogniser in _recognisers():
        found: Surroundings | None = recogniser.current()
        if found is not None:
            return found
    return None


def _in_its_task(entered: Surroundings) -> Surroundings:
    for recogniser in _recognisers():
        identity: RunIdentity | None = recogniser.identity()
        if identity is not None:
            return replace(entered, run=identity, mounts=recogniser.MOUNTS)
    return entered


def _configured() -> AdminChannel | BrokenChannel | None:
    for recogniser in _recognisers():
        admin: AdminChannel | BrokenChannel | None = recogniser.admin()
        if admin is not None:
            return admin
    return None


def _recognisers() -> Iterator[Any]:
    for module, trace in RECOGNISERS:
        if trace in sys.modules or any(item.partition("=")[0] == trace for item in sys.argv):
            try:
                yield import_module(module)
            except ModuleNotFoundError as error:
                # The package may be left out of an installation. Anything else that is missing is a broken one.
                if error.name != module.partition(".")[0]:
                    raise


def _environment() -> Settings:
    identities = os.environ.get("SEALFLOW_IDENTITIES")
    return Settings(
        signer=os.environ.get("SEALFLOW_SIGNER") or None,
        identities=identities or None,
        evidence_store=os.environ.get("SEALFLOW_EVIDENCE_STORE") or None,
        **{
            item.name: os.environ.get(f"SEALFLOW_{item.name.upper()}") or None
            for item in fields(Settings)
            if item.name.startswith(_AUDIT)
        },
        parameter_key=os.environ.get("SEALFLOW_PARAMETER_KEY") or None,
        verifier=os.environ.get("SEALFLOW_VERIFIER") or None,
        recipients=os.environ.get("SEALFLOW_RECIPIENTS") or None,
    )


def _mounted() -> Settings:
    path = os.path.join(MOUNT, SETTINGS_FILE)
    # The variable is for machines without the mount; where an admin mounted settings, a task's environment cannot
    # point somewhere else.
    if not os.path.lexists(path):
        path = os.path.join(os.environ.get("SEALFLOW_MOUNT") or MOUNT, SETTINGS_FILE)
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_SETTINGS + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Settings()
    except OSError as error:
        raise UsageError(f"The settings file {path} cannot be read: {error.strerror}.") from None
    try:
        body = strictjson.loads(data, limit=_MAX_SETTINGS, what=f"The settings file {path}")
    except EvidenceError as error:
        raise UsageError(error.message) from None
    if not isinstance(body, dict):
        raise UsageError(f"The settings file {path} is not a JSON object.")
    return Settings.parse(body, path)


def remember_verified(identity: RunIdentity, dependency: Dependency) -> None:
    """Note an input that was verified in this run; what the run signs later names it.

    Outside of orchestrators a process is no run, so nothing is noted there.
    """
    if identity.run:
        with _lock:
            known = _verified.setdefault(identity, [])
            if dependency not in known:
                known.append(dependency)
            # A process that serves one run after the other must not remember all of them.
            while len(_verified) > _REMEMBERED_RUNS:
                del _verified[next(iter(_verified))]


def verified_inputs(identity: RunIdentity) -> tuple[Dependency, ...]:
    """Return the inputs that this run has verified so far."""
    with _lock:
        return tuple(_verified.get(identity, ()))


def forget_verified(identity: RunIdentity, location: str) -> None:
    """Forget what was verified at a location: the run has replaced it since."""
    with _lock:
        if identity in _verified:
            _verified[identity] = [item for item in _verified[identity] if item.uri != location]
