"""The admin's settings of admission: one YAML file, strictly read.

This module imports pydantic, which takes a quarter of a second; a server does so once.
"""

from __future__ import annotations

import posixpath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from sealflow import strictyaml
from sealflow.errors import EvidenceError, UsageError
from sealflow.policy.document import place
from sealflow.policy.form_models import Strict, problems_of
from sealflow_kfp import guard_command

#: Largest settings file in bytes.
MAX_SETTINGS: Final = 1 << 20
#: Images that are no images: KFP's driver makes and deletes volume claims itself where a task names one of them.
STUB_IMAGES: Final = frozenset({"argostub/createpvc", "argostub/deletepvc"})


def _pinned(image: str) -> str:
    if not guard_command.has_digest(image):
        raise ValueError("an image here is named by digest, <repository>@sha256:<64 hex digits>; a tag can be moved")
    return image


def _resource(name: str) -> str:
    try:
        return guard_command.resource_name(name, "secret or config map")
    except UsageError as error:
        raise ValueError(error.message) from None


def _place(path: str) -> str:
    if not path.startswith("/") or posixpath.normpath(path) != path or path == "/" or path.startswith("//"):
        raise ValueError("a place is an absolute path without detours, and not the root")
    return path


Text = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Image = Annotated[Text, AfterValidator(_pinned)]
Images = Annotated[tuple[Image, ...], Field(max_length=1000)]
Texts = Annotated[tuple[Text, ...], Field(max_length=1000)]
Places = Annotated[tuple[Annotated[Text, AfterValidator(_place)], ...], Field(max_length=100)]
Command = Annotated[tuple[Text, ...], Field(min_length=1, max_length=20)]
Resource = Annotated[Text, AfterValidator(_resource)]


class Guard(Strict):
    """What is put into every task."""

    image: Image = Field(description="The guard image, which brings the guard directory; by digest.")
    secret: Resource = Field(description="Secret with settings and keys; it is there in every guarded namespace.")
    policy_config_map: Resource = Field(description="Config map with the admin's file that names the policy.")
    previous_images: Images = Field(
        default=(), description="Guard images before an upgrade: runs that began with one may go on with it."
    )

    @property
    def images(self) -> tuple[str, ...]:
        """All images that a pod may have its guard from."""
        return (self.image, *self.previous_images)

    @property
    def mounts(self) -> guard_command.GuardMounts:
        """What a pod needs for it, in the words of Kubernetes."""
        return guard_command.GuardMounts(self.image, self.secret, self.policy_config_map)


class Kubeflow(Strict):
    """The installation of Kubeflow Pipelines: what runs in a task's pod beside the task."""

    launcher_images: Images = Field(min_length=1, description="`V2_LAUNCHER_IMAGE`, before and during an upgrade two.")
    driver_images: Images = Field(min_length=1, description="`V2_DRIVER_IMAGE`.")
    executor_images: Images = Field(min_length=1, description="Argo's `argoexec`: the controller's executor image.")
    launcher_command: Command = Field(default=("launcher-v2",), description="`V2_LAUNCHER_COMMAND`.")
    driver_command: Command = Field(default=("driver",), description="`V2_DRIVER_COMMAND`.")
    sidecar_images: Images = Field(default=(), description="Images of containers that a mesh or an agent adds.")
    status_writers: Texts = Field(
        default=("system:serviceaccount:kubeflow:argo", "system:serviceaccount:kubeflow:ml-pipeline"),
        description="Users who write the status of Workflows: Argo's controller, and KFP's API server for retries.",
    )
    pod_spec_patches: Texts = Field(
        default=(), description="Workflow-wide `podSpecPatch` texts that an admin sets, word for word."
    )
    fields: Texts = Field(
        default=(), description="Further fields that a Workflow's spec, a template, a pod or a container may have."
    )
    variables: Texts = Field(
        default=(), description="Further variables of KFP's and Argo's own programs, such as those of `executor.env`."
    )
    mounts: Places = Field(
        default=(), description="Further paths at which KFP's and Argo's own containers have volumes."
    )
    options: Texts = Field(default=(), description="Further options of the launcher in a newer KFP, without dashes.")


class ImageRules(Strict):
    """Which images tasks may have."""

    digests: Literal["required", "advised"] = Field(
        default="required", description="Whether a task's image has to be named by digest."
    )
    repositories: Texts = Field(
        default=(), description="Beginnings of images that are taken, such as `registry.example/team/`; none: all."
    )
    sealflow: Images = Field(
        default=(), description="Images of sealflow's own components, which guard themselves and run without wrapper."
    )

    mounts: Texts = Field(
        default=(),
        description="Further paths at which tasks mount volumes that bring files; one that ends with / is a beginning.",
    )

    @model_validator(mode="after")
    def _whole_paths(self) -> ImageRules:
        for path in self.mounts:
            if posixpath.normpath(path).rstrip("/") != path.rstrip("/") or not path.startswith("/"):
                raise ValueError("a path here begins with / and has no detours")
        return self

    @model_validator(mode="after")
    def _whole_names(self) -> ImageRules:
        for text in self.repositories:
            if "/" not in text or not text.endswith(("/", "@", ":")):
                # registry.example/team would also let in registry.example/team-of-somebody-else.
                raise ValueError("a beginning of images holds a registry and ends with /, : or @")
        return self


class Exemption(Strict):
    """Pods that are no tasks and are let be. All that is given has to hold; each value is exact."""

    name: Text
    namespaces: Texts = ()
    creators: Texts = Field(
        default=(), description="User who creates the pod. A controller makes pods for whoever may make its objects."
    )
    service_accounts: Texts = Field(default=(), description="Service account of the pod; whoever makes pods chooses.")
    images: Images = Field(default=(), description="Every image of the pod is one of these, whatever it runs.")
    privileged: bool = Field(
        default=False, description="Such pods may have the node's powers and volumes; with `creators` alone."
    )

    @model_validator(mode="after")
    def _one_at_least(self) -> Exemption:
        if self.privileged and not self.creators:
            # An image says nothing about the command, and whoever makes a pod chooses its account.
            raise ValueError("an exemption with privileged: true names creators")
        if not (self.creators or self.service_accounts or self.images):
            raise ValueError("an exemption names creators, service_accounts or images")
        return self


class Settings(Strict):
    """Settings of admission."""

    sealflow_admission: Literal[1] = Field(description="Version of this form.")
    mode: Literal["enforce", "audit"] = Field(description="audit: nothing is changed or refused, everything is said.")
    guard: Guard
    kubeflow: Kubeflow
    images: ImageRules = ImageRules()
    exempt: Annotated[tuple[Exemption, ...], Field(max_length=200)] = ()
    exec_users: Texts = Field(
        default=(), description="Users who may run commands in, and attach to, pods of guarded namespaces."
    )

    @property
    def enforced(self) -> bool:
        """Whether findings refuse."""
        return self.mode == "enforce"


def parse_settings(data: bytes, what: str = "The settings of admission") -> Settings:
    """Read settings from YAML, or JSON.

    Raises:
        UsageError: Not YAML of the strict kind, an unknown field, a value that cannot be. Names the line.
    """
    try:
        body, lines = strictyaml.loads(data, limit=MAX_SETTINGS, what=what)
    except EvidenceError as error:
        raise UsageError(error.message) from None
    if not isinstance(body, dict):
        raise UsageError(f"{what} is no mapping.", next_step="docs/reference/kubeflow-cluster.md shows one.")
    try:
        return Settings.model_validate(_tuples(body))
    except ValidationError as error:
        where, problem = problems_of(error)[0]
        line = lines.get(where) or lines.get(where[:-1])
        raise UsageError(
            f"{what} at {place(where) or 'its root'}{f' (line {line})' if line else ''}: {problem}."
        ) from None


def load_settings(path: str) -> Settings:
    """Read a settings file.

    Raises:
        UsageError: There is none, it cannot be read, or as :func:`parse_settings`.
    """
    from sealflow.findings import printable

    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SETTINGS + 1)
    except OSError as error:
        raise UsageError(f"{printable(path)} cannot be read: {error.strerror or error}.") from None
    return parse_settings(data, printable(path))


def _tuples(value: Any) -> Any:
    # Strict models take tuples for tuples, and YAML knows lists alone.
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
