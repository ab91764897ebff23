"""How settings and keys reach a task."""

from pathlib import Path
from typing import Any

import pytest

import sealflow_kfp
from sealflow.actions.context import MOUNT
from sealflow.errors import UsageError
from tests.kubeflow.test_components import compiled

pytestmark = pytest.mark.kfp


def test_secret_is_a_required_volume_in_the_platform_spec(tmp_path: Path) -> None:
    from kfp import dsl

    seen: list[Any] = []

    @dsl.pipeline
    def pipeline(uri: str):
        model = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model).output
        task = sealflow_kfp.sign_artifact(artifact=model)
        seen.append((task, sealflow_kfp.mount(task, secret="team-keys")))
        sealflow_kfp.verify_artifact(artifact=model)

    body, platform = compiled(pipeline, tmp_path)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == {"exec-sign-artifact"}
    (volume,) = executors["exec-sign-artifact"]["secretAsVolume"]
    assert volume["mountPath"] == MOUNT == "/var/run/sealflow"
    assert volume["secretName"] == "team-keys"
    assert volume["optional"] is False
    assert "team-keys" not in str(body)
    ((task, returned),) = seen
    assert task is returned


def test_empty_name() -> None:
    with pytest.raises(UsageError, match="`secret` is empty"):
        sealflow_kfp.mount(None, secret="")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import kfp

    monkeypatch.delattr(kfp, "kubernetes", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "kfp.kubernetes", None)
    with pytest.raises(UsageError, match=r"pip install 'sealflow\[kfp\]'"):
        sealflow_kfp.mount(None, secret="keys")
