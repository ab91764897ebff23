"""Settings and keys reach a task as a mounted secret, never as parameters, which KFP stores and prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealflow.actions.context import MOUNT
from sealflow.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask


def mount(task: PipelineTask, *, secret: str) -> PipelineTask:
    """Mount a Kubernetes secret with sealflow's settings and keys into a task's container.

    The secret's item ``sealflow.json`` holds settings (``signer``, ``identities``, ``evidence_store``, ``audit_inbox``,
    ``parameter_key``, ``verifier``, ``recipients``), which name the other items as ``file:/var/run/sealflow/<item>``,
    keys of recipients as ``rsa:/var/run/sealflow/<item>`` or ``aes:/var/run/sealflow/<item>``. Any task can have it,
    not only sealflow's components. The task does not start without the secret.

    Args:
        task: A task of a pipeline that is being compiled.
        secret: Name of the secret in the namespace of the run. A name, not its content.

    Returns:
        The task, for chaining.

    Raises:
        UsageError: The name is empty.
        MissingExtraError: ``kfp-kubernetes`` is not installed.
    """
    if not secret:
        raise UsageError("`secret` is empty; name the Kubernetes secret that holds sealflow.json.")
    try:
        from kfp import kubernetes
    except ImportError:
        raise MissingExtraError("Mounting a secret", "kfp") from None
    return kubernetes.use_secret_as_volume(task, secret_name=secret, mount_path=MOUNT, optional=False)
