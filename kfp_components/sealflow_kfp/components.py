"""The components, with image and caching settled once for all of them."""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

from kfp import components as kfp_components
from kfp import dsl

from sealflow.errors import UsageError
from sealflow_kfp import _functions
from sealflow_kfp._image import default_image
from sealflow_kfp.run_context import RUN_ID_PARAMETER


class Component(kfp_components.PythonComponent):
    """A component whose tasks are never cached: a task that KFP takes from its cache checks and signs nothing."""

    def __call__(self, *args: Any, **kwargs: Any) -> dsl.PipelineTask:
        """Make a task of the pipeline that is being defined.

        Mappings and lists for ``identities``, ``recipients``, ``roots``, ``source`` and ``expected_ref`` become JSON,
        the form in which KFP carries them.
        """
        for name in ("identities", "recipients", "roots", "source", "expected_ref"):
            if isinstance(kwargs.get(name), (dict, list)):
                kwargs[name] = json.dumps(kwargs[name], sort_keys=True)
        # It differs in every run, so that a client that turns caching on for all tasks still gets no cached verdict.
        kwargs.setdefault(RUN_ID_PARAMETER, dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        # kfp.local before 2.17 stops at an optional artifact that is left open, so such a task has no such input.
        left_open = [
            name
            for name, item in self.component_spec.inputs.items()
            if item.optional and item.type.startswith("system.") and kwargs.get(name) is None
        ]
        component = self._without_inputs(left_open) if left_open else self
        for name in left_open:
            kwargs.pop(name, None)
        # Not `component(...)`, which would come back here.
        task = kfp_components.PythonComponent.__call__(component, *args, **kwargs).set_caching_options(False)

        def set_caching_options(enable_caching: bool, cache_key: str | None = None) -> dsl.PipelineTask:
            if enable_caching:
                raise UsageError(
                    f"The task {task.name} cannot be cached.",
                    next_step="Leave caching off: what KFP takes from its cache is neither checked nor signed.",
                )
            return task

        task.set_caching_options = set_caching_options
        return task

    @property
    def pipeline_spec(self) -> Any:
        """The component compiled by itself; see the base class."""
        spec = super().pipeline_spec
        for task in spec.root.dag.tasks.values():
            task.caching_options.Clear()
        return spec

    def _without_inputs(self, names: list[str]) -> Component:
        spec = copy.deepcopy(self.component_spec)
        for name in names:
            del spec.inputs[name]
        return type(self)(component_spec=spec, python_func=self.python_func)


class Components(NamedTuple):
    """Components of one image."""

    audit_access: Component
    check_dvc_lineage: Component
    check_posture: Component
    encrypted_download: Component
    encrypted_upload: Component
    integrate_audit_log: Component
    promote_artifact: Component
    respond_to_refusal: Component
    sign_artifact: Component
    verified_import: Component
    verify_artifact: Component


def make_components(image: str | None = None) -> Components:
    """Make the components.

    Args:
        image: The image that their tasks run in, by default ``$SEALFLOW_KFP_IMAGE``, else ``sealflow:<version>``. It
            must hold sealflow with its extra ``kfp``; nothing is installed when a task runs.
    """

    def make(function: Any) -> Component:
        made = dsl.component(function, base_image=image or default_image(), install_kfp_package=False)
        return Component(component_spec=made.component_spec, python_func=made.python_func)

    return Components(*(make(getattr(_functions, name)) for name in Components._fields))


(
    audit_access,
    check_dvc_lineage,
    check_posture,
    encrypted_download,
    encrypted_upload,
    integrate_audit_log,
    promote_artifact,
    respond_to_refusal,
    sign_artifact,
    verified_import,
    verify_artifact,
) = make_components()
