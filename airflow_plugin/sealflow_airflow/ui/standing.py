"""Where an installation stands: the policy, its keys and waivers, and which DAGs are guarded and which not."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sealflow.errors import SealflowError
from sealflow.findings import Finding
from sealflow_airflow.stored import assets, managed_level, out_of_reach

#: A key that ends within so many days is shown first.
SOON: Final = 30
#: Most tasks and assets that are named of one DAG.
_NAMED: Final = 3
# DAGs that are read from the database at a time.
_PIECE: Final = 50

State = Literal["unguarded", "audited", "guarded", "unconcerned"]
#: How the states are said.
STATES: Final[Mapping[State, str]] = {
    "unguarded": "not guarded",
    "audited": "audited only",
    "guarded": "guarded",
    "unconcerned": "nothing managed",
}


@dataclass(frozen=True)
class Key:
    """A key or certificate that the policy trusts.

    Attributes:
        name: The identity.
        mark: Fingerprint, or the certificate's subject.
        use: What it is trusted for.
        ends: When it ends, ``None`` for never.
        begins: From when on it counts, ``None`` for ever since.
        left: Days that are left, ``None`` where it never ends; negative when it has ended.
    """

    name: str
    mark: str
    use: str
    ends: datetime.datetime | None = None
    begins: datetime.datetime | None = None
    left: int | None = None


@dataclass(frozen=True)
class Policy:
    """The policy as this process sees it.

    Attributes:
        status: See :func:`sealflow.actions.policy_status.status`.
        keys: What it trusts, what ends first at the top.
        names: Fingerprints of keys and the identities that they belong to.
        in_force: The policy, the channel where it is not to be had, ``None`` where none is configured.
        warnings: What is to be said about it: what ends soon, that it stands in.
    """

    status: Mapping[str, Any]
    keys: tuple[Key, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    in_force: Any = None
    warnings: tuple[Finding, ...] = ()

    @property
    def mark(self) -> str:
        """What changes when another policy decides."""
        return f"{self.status['state']} {self.status.get('digest', '')}"


@dataclass(frozen=True)
class Guarding:
    """How one DAG stands.

    Attributes:
        dag: The DAG.
        state: See :data:`STATES`.
        why: In words.
        managed: How many of its assets rules name.
        tasks: How many tasks it has.
    """

    dag: str
    state: State
    why: str
    managed: int = 0
    tasks: int = 0


def read_policy() -> Policy:
    """Read the policy anew, as the admin's channel names it."""
    from sealflow.actions import context
    from sealflow.actions.policy_status import status
    from sealflow.policy.source import InForce
    from sealflow_airflow.doctor.configured import in_force_here

    found = status(context.current())
    in_force = in_force_here() if found["state"] != "none" else None
    if not isinstance(in_force, InForce):
        return Policy(found, in_force=in_force)
    now = datetime.datetime.now(datetime.timezone.utc)
    keys = sorted(_keys(in_force, now), key=lambda key: (key.left is None, key.left or 0, key.name))
    names = {key.mark: key.name for key in keys if key.mark.startswith("sha256:")}
    return Policy(found, tuple(keys), names, in_force, in_force.findings)


def _keys(in_force: Any, now: datetime.datetime) -> Iterator[Key]:
    from sealflow.keys.certificate import load_certificates
    from sealflow.policy.identities import KeyIdentity

    policy = in_force.policy
    for use, known in (("signs artifacts", policy.identities), ("signs summaries", policy.verifiers)):
        for name, identity in known.items():
            left = _left(identity.expires, now)
            if isinstance(identity, KeyIdentity):
                try:
                    mark = f"sha256:{identity.public_key.hint}"
                except SealflowError as error:
                    mark = error.message
                yield Key(name, mark, use, identity.expires, getattr(identity, "valid_from", None), left)
                continue
            yield Key(name, "certificates", use, identity.expires, getattr(identity, "valid_from", None), left)
            model = policy.document.identities[name].certificate
            for pem in model.roots if model is not None else ():
                for certificate in load_certificates(pem):
                    ends = certificate.not_valid_after_utc
                    subject = certificate.subject.rfc4514_string()
                    yield Key(name, subject, "root certificate", ends, None, _left(ends, now))


def _left(ends: datetime.datetime | None, now: datetime.datetime) -> int | None:
    return None if ends is None else (ends - now).days


class Coverage:
    """Says of each DAG how it stands; remembers that while neither the DAG nor the policy changes."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, Guarding]] = {}
        self._mark = ""
        self._levels: dict[str, str] = {}

    def read(self, policy: Policy) -> dict[str, Guarding]:
        """Return how all DAGs in Airflow's database stand."""
        from airflow.models.serialized_dag import SerializedDagModel

        if policy.mark != self._mark:
            self._known, self._levels, self._mark = {}, {}, policy.mark
        hashes = _hashes()
        found = {dag: self._known[dag] for dag, mark in hashes.items() if self._known.get(dag, ("",))[0] == mark}
        changed = [dag for dag in hashes if dag not in found]
        for start in range(0, len(changed), _PIECE):
            for stored in SerializedDagModel.get_latest_serialized_dags(dag_ids=changed[start : start + _PIECE]):
                found[stored.dag_id] = (stored.dag_hash, self._judge(stored, policy))
        self._known = found
        return {dag: guarding for dag, (_, guarding) in found.items()}

    def _judge(self, stored: Any, policy: Policy) -> Guarding:
        try:
            tasks = list(stored.dag.task_dict.values())
        except Exception as error:
            # One that cannot be read must not hide the others.
            why = f"What Airflow has stored of it cannot be read ({type(error).__name__})."
            return Guarding(stored.dag_id, "unguarded", why)
        return judge(stored.dag_id, tasks, policy, self._levels)


def judge(dag: str, tasks: list[Any], policy: Policy, levels: dict[str, str]) -> Guarding:
    """Return how a DAG stands.

    Args:
        dag: Its id.
        tasks: Its tasks, as they are stored.
        policy: The policy.
        levels: What is known of locations already; grows.
    """
    if policy.status["state"] == "none":
        return Guarding(dag, "unguarded", "No policy is configured, so nothing is.", tasks=len(tasks))
    managed: dict[str, str] = {}
    beyond: list[str] = []
    for task in tasks:
        uris = {uri for uri in assets(task) if _level(uri, policy, levels)}
        managed.update((uri, levels[uri]) for uri in uris)
        if uris and out_of_reach(task):
            beyond.append(task.task_id)
    if beyond:
        more = f" and {len(beyond) - _NAMED} more" if len(beyond) > _NAMED else ""
        named = ", ".join(sorted(beyond)[:_NAMED])
        why = f"No guard can stand before {named}{more}: the work ends where no worker of Airflow's looks on."
        return Guarding(dag, "unguarded", why, len(managed), len(tasks))
    if not managed:
        why = "No rule of the policy names an asset that its tasks declare."
        return Guarding(dag, "unconcerned", why, 0, len(tasks))
    named = ", ".join(sorted(managed)[:_NAMED])
    if policy.status["state"] == "unavailable":
        why = f"The policy is not to be had, so tasks with {named} fail and are tried again."
        return Guarding(dag, "guarded", why, len(managed), len(tasks))
    level = "guarded" if "enforce" in managed.values() else "audited"
    if level == "audited":
        why = f"Rules name {named}, and only audit: what is refused is a warning in the task's log."
        return Guarding(dag, "audited", why, len(managed), len(tasks))
    return Guarding(dag, "guarded", f"Rules name {named}.", len(managed), len(tasks))


def _level(uri: str, policy: Policy, levels: dict[str, str]) -> str:
    if uri not in levels:
        levels[uri] = managed_level(uri, policy.in_force)
    return levels[uri]


def _hashes() -> dict[str, str]:
    from airflow.models.dag_version import DagVersion
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    newest = select(DagVersion.dag_id, func.max(DagVersion.version_number).label("number")).group_by(DagVersion.dag_id)
    newest_of = newest.subquery()
    asked = (
        select(SerializedDagModel.dag_id, SerializedDagModel.dag_hash)
        .join(DagVersion, SerializedDagModel.dag_version_id == DagVersion.id)
        .join(
            newest_of,
            (DagVersion.dag_id == newest_of.c.dag_id) & (DagVersion.version_number == newest_of.c.number),
        )
    )
    with create_session() as session:
        return {row.dag_id: row.dag_hash for row in session.execute(asked)}


def in_numbers(known: Mapping[str, Guarding]) -> dict[str, int]:
    """Return how many DAGs are in each state."""
    found = Counter(item.state for item in known.values())
    return {state: found[state] for state in STATES}
