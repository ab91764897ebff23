"""The cluster under examination: what was asked for, and what several checks look at."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sealflow_kfp.doctor.kubectl import Answer, Kubectl
from sealflow_kfp.doctor.report import Said, UnclearError, listed, mapped, text
from sealflow_kfp.doctor.rights import Grant, grants, read_lists
from sealflow_kfp.guard_command import GuardMounts

if TYPE_CHECKING:
    from sealflow_kfp.admission.settings import Settings

#: The API server of Kubeflow Pipelines, a Deployment.
API_SERVER: Final = "ml-pipeline"
#: Accounts under which tasks run: of a single user, and of a profile.
TASK_ACCOUNTS: Final = ("pipeline-runner", "default-editor")
#: Runs, as Argo's controller finds them.
WORKFLOWS: Final = "workflows.argoproj.io"
_PROFILES: Final = "app.kubernetes.io/part-of"
_GUARD: Final = "sealflow/guard"
# RFC 1123 label.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class NobodyKnowsError(Exception):
    """A question that a check depends on was not answered.

    Attributes:
        said: What the check says.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.problem)
        self.said = Said("UNKNOWN", answer.problem, answer.next_step)


@dataclass(frozen=True)
class Wanted:
    """What the admin says of the cluster.

    Attributes:
        kubeflow: Namespace of Kubeflow Pipelines.
        namespaces: Namespaces whose runs must be guarded; empty: that of KFP, every profile, what has the
            gates' label, and wherever a Workflow is.
        settings: Settings of admission, from which Kyverno's policies are generated; ``None`` where nobody named them.
        mounts: What every task is to get; parts that nobody named are empty, and only looked for.
        allowed: Who may do what would undo the guard, as the checks name them.
        accounts: More service accounts that tasks run under.
        days: How long certificates must still be good for.
        routes: Routes that must be taken: ``admission``, ``kyverno``, ``spec-patch``; others are looked at where
            something of them is there.
        probe: Whether a dry run asks the cluster to judge an unguarded pod.
    """

    kubeflow: str = "kubeflow"
    namespaces: tuple[str, ...] = ()
    settings: Settings | None = None
    mounts: GuardMounts = field(default_factory=lambda: GuardMounts(""))
    allowed: frozenset[str] = frozenset()
    accounts: tuple[str, ...] = ()
    days: int = 14
    routes: frozenset[str] = frozenset()
    probe: bool = False


class Place:
    """A cluster, and what is wanted of it.

    Args:
        cluster: Asks the questions.
        wanted: What the admin says of it.
    """

    def __init__(self, cluster: Kubectl, wanted: Wanted) -> None:
        self.cluster = cluster
        self.wanted = wanted

    def need(self, answer: Answer) -> Any:
        """Return what the cluster said; ``None`` where there is no such thing.

        Raises:
            NobodyKnowsError: It said nothing.
        """
        if not answer.known:
            raise NobodyKnowsError(answer)
        return answer.body

    def not_there(self, route: str, found: str) -> Said:
        """Say that nothing of a route is there, which is wrong only where it must be taken."""
        return Said("FAIL" if route in self.wanted.routes else "SKIPPED", found)

    def get(self, kind: str, name: str = "", namespace: str = "") -> Any:
        """Return an object or a list of them, ``None`` where there is none.

        Raises:
            NobodyKnowsError: Nobody could be asked.
            UnclearError: It is something else than what was asked for.
        """
        body = self.need(self.cluster.get(kind, name, namespace))
        if body is not None and name and text(body, "metadata", "name") != name:
            raise UnclearError(f"an answer about something else than {name}")
        if body is not None and not name and not isinstance(body.get("items"), list):
            raise UnclearError(f"no list of {kind}")
        return body

    @functools.cached_property
    def namespaces(self) -> tuple[str, ...]:
        """Namespaces whose runs must be guarded.

        Raises:
            NobodyKnowsError: Namespaces or Workflows may not be listed, and so nobody knows where runs are.
            UnclearError: The list is none.
        """
        if self.wanted.namespaces:
            return self.wanted.namespaces
        found = {self.wanted.kubeflow}
        for item in listed(self.get("namespaces"), "items"):
            labels = mapped(item, "metadata", "labels")
            if labels.get(_PROFILES) == "kubeflow-profile" or labels.get(_GUARD, "false") != "false":
                found.add(text(item, "metadata", "name"))
        # Argo's controller runs Workflows wherever they are.
        for row in self.need(self.cluster.rows(WORKFLOWS)) or ():
            if not row or not _NAME.fullmatch(row[0]):
                raise UnclearError("a table of Workflows without namespaces")
            found.add(row[0])
        return tuple(sorted(found))

    @property
    def accounts(self) -> tuple[str, ...]:
        """Names of the service accounts that tasks run under."""
        return tuple(dict.fromkeys([*TASK_ACCOUNTS, *self.wanted.accounts]))

    @functools.cached_property
    def api_container(self) -> dict[str, Any]:
        """The container of KFP's API server.

        Raises:
            UnclearError: The Deployment has no such container.
        """
        deployment = self.get("deployment", API_SERVER, self.wanted.kubeflow)
        if deployment is None:
            raise UnclearError(f"no Deployment {API_SERVER} in {self.wanted.kubeflow}; name its namespace")
        containers = listed(deployment, "spec", "template", "spec", "containers")
        # The others are the mesh's.
        for item in containers:
            if text(item, "name") == "ml-pipeline-api-server" or len(containers) == 1:
                return mapped(item)
        raise UnclearError("no container ml-pipeline-api-server in its Deployment")

    def variable(self, name: str) -> str | None:
        """Return an environment variable of KFP's API server, ``None`` where it is not set.

        The last of a name counts, as it does for Kubernetes; one that a secret holds is not read.

        Raises:
            UnclearError: It comes from a place that is not looked into.
            NobodyKnowsError: The config map that holds it cannot be read.
        """
        found: Any = None
        for item in listed(self.api_container, "env"):
            if text(item, "name") == name:
                found = item
        if found is None:
            return self._from_maps(name)
        reference = mapped(found, "valueFrom")
        if not reference:
            value = text(found, "value")
            if "$(" in value:
                raise UnclearError(f"{name} refers to another variable")
            return value
        entry = mapped(reference, "configMapKeyRef")
        if not entry:
            raise UnclearError(f"{name} comes from a secret or a field, which is not read")
        body = self.get("configmap", text(entry, "name"), self.wanted.kubeflow)
        held = mapped(body, "data").get(text(entry, "key"))
        if held is not None and not isinstance(held, str):
            raise UnclearError(f"{name} is no text")
        return held

    def _from_maps(self, name: str) -> str | None:
        found: str | None = None
        for source in listed(self.api_container, "envFrom"):
            prefix = text(source, "prefix")
            if not name.startswith(prefix):
                continue
            if not mapped(source, "configMapRef"):
                raise UnclearError(f"{name} may come from a secret, which is not read")
            body = self.get("configmap", text(source, "configMapRef", "name"), self.wanted.kubeflow)
            value = mapped(body, "data").get(name[len(prefix) :])
            if isinstance(value, str):
                found = value
        return found

    @functools.cached_property
    def grants(self) -> tuple[Grant, ...]:
        """Every rule that reaches somebody.

        Raises:
            NobodyKnowsError: Roles or bindings may not be read.
        """
        lists = [self.get(kind) for kind in ("clusterroles", "clusterrolebindings")]
        lists += [self.get(kind, namespace="*") for kind in ("roles", "rolebindings")]
        if not all(listed(item, "items") for item in lists[:2]):
            # Every cluster has some of its own.
            raise UnclearError("a cluster without any roles or bindings")
        roles = read_lists(lists[0], lists[2])
        return grants(_kind(roles, lists[0], "ClusterRole"), read_lists(lists[1], lists[3]))

    def labels(self, namespace: str) -> dict[str, Any]:
        """Return the labels of a namespace.

        Raises:
            UnclearError: There is no such namespace.
        """
        body = self.get("namespace", namespace)
        if body is None:
            raise UnclearError(f"no namespace {namespace}")
        # The API server sets this one, whatever is written there.
        return {**mapped(body, "metadata", "labels"), "kubernetes.io/metadata.name": namespace}


def _kind(objects: list[Any], first: Any, kind: str) -> list[Any]:
    # Lists of kubectl name the kind of each; those of other clients do not.
    count = len(listed(first, "items"))
    return [
        {"kind": kind if index < count else "Role", **item} if isinstance(item, dict) else item
        for index, item in enumerate(objects)
    ]


def selects(selector: Any, labels: dict[str, Any]) -> bool:
    """Tell whether a label selector takes an object in; an empty one takes all in.

    Raises:
        UnclearError: The selector is none.
    """
    wanted = mapped(selector, "matchLabels")
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    for item in listed(selector, "matchExpressions"):
        name, operator, values = text(item, "key"), text(item, "operator"), listed(item, "values")
        there = name in labels
        found = {
            "In": there and labels.get(name) in values,
            "NotIn": not there or labels[name] not in values,
            "Exists": there,
            "DoesNotExist": not there,
        }.get(operator)
        if found is None:
            raise UnclearError(f"a selector with {operator}")
        if not found:
            return False
    return True
