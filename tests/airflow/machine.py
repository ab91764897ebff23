"""A machine with an Airflow, where sealflow is installed, broken and uninstalled like any other distribution."""

from __future__ import annotations

import shutil
import site
import subprocess
from importlib import metadata
from pathlib import Path

from tests.airflow.home import AirflowHome
from tests.airflow.test_guard_runs import Guarded
from tests.e2e.environment import PythonEnvironment
from tests.pki import write_key


class Machine:
    """An Airflow on a machine where sealflow is installed and uninstalled.

    Args:
        folder: Where everything lies.
    """

    def __init__(self, folder: Path) -> None:
        libraries = folder / "libraries"
        libraries.mkdir()
        ours = ("sealflow", "_editable_impl_sealflow")
        for path in (path for place in site.getsitepackages() for path in Path(place).iterdir()):
            if not path.name.startswith(ours) and not (libraries / path.name).is_symlink():
                (libraries / path.name).symlink_to(path)
        environment = PythonEnvironment(folder / "environment", [libraries])
        # `airflow standalone` starts its parts by this name.
        program = environment.python.parent / "airflow"
        program.write_text(f'#!/bin/sh\nexec "{environment.python}" -m airflow "$@"\n')
        program.chmod(0o755)
        self.installation = folder / "installation"
        self.home = AirflowHome(folder, write_key(folder, "signing"))
        self.home.python = str(environment.python)
        self.guarded = Guarded(self.home, "kinds")

    def install(self) -> None:
        """Put our packages and their metadata, with the entry points, where Python finds them."""
        self.installation.mkdir()
        found = metadata.distribution("sealflow")
        made = self.installation / "sealflow-0.dist-info"
        made.mkdir()
        for name in ("METADATA", "entry_points.txt"):
            (made / name).write_text(found.read_text(name) or "")
        for package in ("sealflow", "sealflow_airflow", "sealflow_kfp"):
            source = Path(__import__(package).__path__[0])
            shutil.copytree(source, self.installation / package, ignore=shutil.ignore_patterns("__pycache__"))

    def uninstall(self) -> None:
        """Take them away again."""
        shutil.rmtree(self.installation)

    def options(self, *, policy: bool = False) -> dict[str, str]:
        """Return the environment; the bytecode of our packages is no file that a task leaves."""
        options = self.guarded.environment(PYTHONPATH=str(self.installation), PYTHONDONTWRITEBYTECODE="1")
        return options if policy else {name: value for name, value in options.items() if "__SEALFLOW__" not in name}

    def entry_points(self) -> list[str]:
        """Return which of our entry points Airflow finds."""
        code = (
            "from importlib.metadata import distributions\n"
            "found = [item for one in distributions() for item in one.entry_points]\n"
            "print(*(item.group for item in found if item.value.startswith('sealflow')))"
        )
        done = subprocess.run(
            [self.home.python, "-c", code],
            env=self.home.environment(**self.options()),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return sorted(done.stdout.split())
