"""The settings of admission: one strict file."""

import re
from pathlib import Path

import pytest

from sealflow.errors import UsageError
from sealflow_kfp.admission.settings import (
    MAX_SETTINGS,
    Exemption,
    Guard,
    ImageRules,
    Kubeflow,
    Settings,
    load_settings,
    parse_settings,
)
from tests.kubeflow.argo import DIGEST, GUARD_IMAGE, LAUNCHER_IMAGE
from tests.kubeflow.cluster_pods import SETTINGS, SETTINGS_TEXT


def test_what_settings_say():
    assert SETTINGS.enforced
    assert SETTINGS.guard.mounts.image == GUARD_IMAGE
    assert SETTINGS.kubeflow.launcher_command == ("launcher-v2",)
    assert SETTINGS.images.digests == "required"
    assert [rule.name for rule in SETTINGS.exempt] == ["notebooks", "viewer"]
    assert SETTINGS.exec_users == ()
    assert not parse_settings(SETTINGS_TEXT.replace("enforce", "audit").encode()).enforced


def test_settings_are_read_from_a_file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS_TEXT)
    assert load_settings(str(path)) == SETTINGS
    with pytest.raises(UsageError, match=r"none\.yaml cannot be read: No such file"):
        load_settings(str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match="cannot be read"):
        load_settings(str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mode: enforce", "mode: warn", r"at mode \(line 3\)"),
        ("mode: enforce\n", "", "at mode"),
        ("mode: enforce", "mode: enforce\nmode: audit", "'mode' twice"),
        ("sealflow_admission: 1", "sealflow_admission: 2", "sealflow_admission"),
        ("sealflow_admission: 1", 'sealflow_admission: "1"', "sealflow_admission"),
        (GUARD_IMAGE, "registry.example/sealflow-guard:latest", "by digest"),
        (GUARD_IMAGE, f"@{DIGEST}", "by digest"),
        (LAUNCHER_IMAGE, "ghcr.io/kubeflow/kfp-launcher:2.16.1", "by digest"),
        (f'["{LAUNCHER_IMAGE}"]', "[]", "launcher_images"),
        ("secret: sealflow", "secret: Sealflow", "no name of a secret"),
        ("secret: sealflow", 'secret: ""', r"at guard\.secret \(line 6\)"),
        ("  secret: sealflow\n", "", r"at guard\.secret"),
        ("  policy_config_map: sealflow-policy\n", "", r"at guard\.policy_config_map"),
        ("exempt:", "exempted:", "exempted"),
        ("  - name: viewer", "  - name: all\n  - name: viewer", "creators, service_accounts or images"),
        ("  - name: viewer", "  - name: viewer\n    privileged: true", "privileged: true names creators"),
        ("    namespaces: [team-a]", "    namespaces: team-a", "namespaces"),
        ("    namespaces: [team-a]", "    labels: [team-a]", "labels"),
        ("exempt:", "images:\n  repositories: [registry.example/team]\nexempt:", "ends with /"),
        ("exempt:", "images:\n  mounts: [data]\nexempt:", "begins with /"),
        ("exempt:", "images:\n  mounts: [/data/../etc]\nexempt:", "no detours"),
        ("exempt:", 'images:\n  repositories: ["/"]\n  digests: never\nexempt:', "digests"),
        ("exempt:", "images:\n  sealflow: [registry.example/sealflow:1]\nexempt:", "by digest"),
        ("guard:", "guard: &a\nother: *a\n", "reference"),
    ],
)
def test_a_wrong_setting_is_named(old, new, message):
    assert old in SETTINGS_TEXT
    with pytest.raises(UsageError, match=message):
        parse_settings(SETTINGS_TEXT.replace(old, new, 1).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"\xff", b"a: [", b"#" * (MAX_SETTINGS + 1), b"{" * 1000])
def test_what_is_no_settings_file_is_refused(data):
    with pytest.raises(UsageError):
        parse_settings(data)


PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "kubeflow-cluster.md").read_text("utf-8")


def test_the_settings_of_the_page_are_taken():
    [text] = re.findall(r"```yaml\n(sealflow_admission: .*?)```", PAGE, re.DOTALL)
    shown = parse_settings(text.encode())
    assert shown.images.repositories == ("registry.example/",)
    assert shown.exempt[0].creators


def test_the_page_has_every_field_of_the_settings():
    section = PAGE[PAGE.index("### Settings") : PAGE.index("### Workflows")]
    for model in (Settings, Guard, Kubeflow, ImageRules, Exemption):
        for name in model.model_fields:
            assert re.search(rf"`(\w+\.)?{name}`", section) or name in ("guard", "kubeflow", "images"), name
