"""The overlays of the manifests, as kubectl builds them, and the certificate that the guide makes."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate
import pytest

from sealflow_kfp.admission.certificates import Certificates
from tests.kubeflow.admission_client import Authority, Judge, post, review, world
from tests.kubeflow.deployed import BASE, CONTAINER, DEPLOY, POD, RELEASES, ROOT, Objects, by_name

pytestmark = pytest.mark.slow

GUIDE = ROOT / "docs" / "how-to" / "kubeflow-cluster.md"
OVERLAYS = ("audit", "audit-cert-manager", "enforce", "enforce-cert-manager")


def documented_certificates(folder: Path) -> None:
    """Make the files with the guide's own commands."""
    (commands,) = (b for b in re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "openssl req" in b)
    subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, need_program: Callable[[str, str, str], None]) -> Path:
    """A copy of the folder with a certificate in its place."""
    need_program("openssl", "openssl", "KUSTOMIZE: the certificate of the guide on enforcement not made")
    folder = tmp_path_factory.mktemp("deploy") / "kubeflow"
    shutil.copytree(DEPLOY, folder)
    documented_certificates(folder / "components" / "own-certificate")
    return folder


@pytest.fixture(scope="module")
def built(deployed: Path, need_program: Callable[[str, str, str], None]) -> dict[str, Objects]:
    """What `kubectl apply -k` would apply, for each overlay."""
    need_program(
        "kubectl", "none; Kubernetes brings one, 1.27 or later", "KUSTOMIZE: the overlays of deploy/kubeflow not built"
    )
    return {name: by_name(kustomize(deployed / "overlays" / name).stdout) for name in OVERLAYS}


def kustomize(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_builds_to_objects_that_kubernetes_knows(built: dict[str, Objects], overlay: str) -> None:
    objects = built[overlay]
    assert {key for key in BASE if key not in objects} == set()
    for item in objects.values():
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "sealflow"
        # Its own resources are no part of Kubernetes' schemas; they have a test of their own.
        if not item["apiVersion"].startswith("cert-manager.io/"):
            kubernetes_validate.validate(item, RELEASES[-1], strict=True)
    pod = objects["Deployment", "sealflow-admission"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == f"registry.example/sealflow@sha256:{'0' * 64}"
    (settings,) = (name for kind, name in objects if kind == "ConfigMap")
    # With a hash of the content in its name, which is what replaces the pods.
    assert re.fullmatch(r"sealflow-admission-settings-[a-z0-9]{10}", settings)
    assert {"name": "settings", "configMap": {"name": settings}} in pod["volumes"]
    data = objects["ConfigMap", settings]["data"]["settings.yaml"]
    assert data == (DEPLOY / "base" / "settings.yaml").read_text()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_enforcing_and_watching_differ_in_this_alone(built: dict[str, Objects], overlay: str) -> None:
    objects, audit = built[overlay], overlay.startswith("audit")
    (container,) = objects["Deployment", "sealflow-admission"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == CONTAINER["args"] + ["--audit"] * audit
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        pairs = zip(BASE[kind, "sealflow-admission"]["webhooks"], objects[kind, "sealflow-admission"]["webhooks"], strict=True)  # fmt: skip  # noqa: E501
        for before, after in pairs:
            after = {**after, "clientConfig": {"service": after["clientConfig"]["service"]}}
            assert after == ({**before, "failurePolicy": "Ignore"} if audit else before)


@pytest.mark.parametrize("overlay", ["audit", "enforce"])
def test_the_guides_certificate_is_the_one_that_the_webhooks_trust(
    built: dict[str, Objects], deployed: Path, overlay: str
) -> None:
    objects, files = built[overlay], deployed / "components" / "own-certificate"
    secret = objects["Secret", "sealflow-admission-tls"]
    assert secret["type"] == "kubernetes.io/tls"
    assert {name: base64.b64decode(data) for name, data in secret["data"].items()} == {
        name: (files / name).read_bytes() for name in ("ca.crt", "tls.crt", "tls.key")
    }
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for hook in objects[kind, "sealflow-admission"]["webhooks"]:
            assert base64.b64decode(hook["clientConfig"]["caBundle"]) == (files / "ca.crt").read_bytes()


def test_the_guides_certificate_serves_under_the_services_name(deployed: Path, tmp_path: Path) -> None:
    files = deployed / "components" / "own-certificate"
    assert {path.name for path in files.iterdir() if path.suffix in (".csr", ".ext")} == set()
    authority = Authority(tmp_path)
    authority.certificates = lambda: Certificates(  # type: ignore[method-assign]
        str(files / "tls.crt"), str(files / "tls.key")
    )

    async def scenario() -> None:
        async with world(authority, Judge()) as made:
            context = ssl.create_default_context(cafile=str(files / "ca.crt"))
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            name = "sealflow-admission.sealflow-system.svc"
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", made.server.ports[0], ssl=context, server_hostname=name
            )
            writer.write(post(review()))
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.transport.abort()

    asyncio.run(scenario())


def test_without_a_certificate_nothing_is_built(built: dict[str, Objects], tmp_path: Path) -> None:
    folder = tmp_path / "kubeflow"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("*.crt", "*.key"))
    done = kustomize(folder / "overlays" / "enforce")
    assert done.returncode != 0
    assert "ca.crt" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("overlay", ["audit-cert-manager", "enforce-cert-manager"])
def test_cert_manager_makes_what_the_server_and_the_webhooks_need(built: dict[str, Objects], overlay: str) -> None:
    objects = built[overlay]
    leaf = objects["Certificate", "sealflow-admission"]
    secrets = [v["secret"] for v in POD["volumes"] if "secret" in v]
    assert [item["secretName"] for item in secrets] == [leaf["spec"]["secretName"]]
    assert "sealflow-admission.sealflow-system.svc" in leaf["spec"]["dnsNames"]
    assert not leaf["spec"].get("isCA")
    issuer = objects["Issuer", leaf["spec"]["issuerRef"]["name"]]
    root = objects["Certificate", "sealflow-admission-ca"]
    assert issuer["spec"] == {"ca": {"secretName": root["spec"]["secretName"]}}
    assert root["spec"]["isCA"] is True
    # Renewing the one must not change whom the API server trusts.
    hours = {name: int(item["spec"]["duration"].removesuffix("h")) for name, item in (("leaf", leaf), ("root", root))}
    assert hours["root"] > 30 * hours["leaf"] > 0
    assert int(leaf["spec"]["renewBefore"].removesuffix("h")) < hours["leaf"] / 2
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        assert objects[kind, "sealflow-admission"]["metadata"]["annotations"] == {
            "cert-manager.io/inject-ca-from": "sealflow-system/sealflow-admission"
        }
    assert not [key for key in objects if key[0] == "Secret"]
