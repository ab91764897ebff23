"""Which image the components name."""

from __future__ import annotations

import pytest

import sealflow
from sealflow_kfp._image import default_image


def test_default_is_the_version_and_names_no_registry() -> None:
    assert default_image() == f"sealflow:{sealflow.__version__}"
    assert "/" not in default_image()


def test_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_KFP_IMAGE", "registry.example/team/sealflow:7")
    assert default_image() == "registry.example/team/sealflow:7"


def test_empty_environment_is_no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_KFP_IMAGE", "")
    assert default_image() == f"sealflow:{sealflow.__version__}"
