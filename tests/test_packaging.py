"""What the wheel holds, what it asks for, and that its pins are nothing but pins."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "sealflow": ROOT / "shared",
    "sealflow_airflow": ROOT / "airflow_plugin",
    "sealflow_kfp": ROOT / "kfp_components",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    (member,) = (n for n in wheel.namelist() if n.endswith(f".dist-info/{name}"))
    return wheel.read(member).decode()


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(dist_info(wheel, "METADATA"))


@pytest.mark.slow
def test_wheel_holds_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    members = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(folder).as_posix()
        for package, folder in PACKAGES.items()
        for path in (folder / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert members == expected


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_packages_say_that_they_are_typed(wheel: zipfile.ZipFile, package: str) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


@pytest.mark.slow
def test_entry_points_are_those_of_today(wheel: zipfile.ZipFile) -> None:
    groups = re.findall(r"^\[(.+)\]$", dist_info(wheel, "entry_points.txt"), re.MULTILINE)
    # The policy and the plugin act on every Airflow process of whoever installs us: both do nothing until an admin
    # says so.
    assert set(groups) == {"airflow.plugins", "airflow.policy", "apache_airflow_provider", "console_scripts"}


def requirements(metadata: Message, *extras: str) -> set[str]:
    """Names that ``sealflow[extras]`` asks for, our own extras followed."""
    names: set[str] = set()
    for text in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            if requirement.name == "sealflow":
                names |= requirements(metadata, *requirement.extras)
            else:
                names.add(requirement.name)
    return names


@pytest.mark.slow
def test_extras_bring_what_they_promise_and_no_more(metadata: Message) -> None:
    core = requirements(metadata)
    assert core == {"cryptography", "pydantic", "pyyaml", "rich", "typer"}
    assert "apache-airflow-providers-amazon" in requirements(metadata, "airflow", "aws")
    assert "apache-airflow-providers-amazon" not in requirements(metadata, "airflow")
    assert not any("openlineage" in name for name in requirements(metadata, "airflow", "aws", "demo"))
    assert "apache-airflow-providers-openlineage" in requirements(metadata, "openlineage")
    assert requirements(metadata, "boto3") - core == {"boto3"}
    # A pipeline's image carries no Airflow.
    assert not any("airflow" in name for name in requirements(metadata, "boto3", "kfp"))


def test_constraints_are_pins_and_nothing_else() -> None:
    # An index, a path or a hash in this file would bind every user to the machine that wrote it.
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.!+]+( ; [^#]+)?", line), line


@pytest.mark.slow
def test_constraints_pin_every_direct_requirement(metadata: Message) -> None:
    pins = (ROOT / "constraints.txt").read_text()
    for name in requirements(metadata, "test"):
        normal = re.sub(r"[-_.]+", "-", name).lower()
        assert re.search(rf"^{re.escape(normal)}==", pins, re.MULTILINE), name
