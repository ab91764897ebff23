"""What importing the package costs and offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sealflow_kfp


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import sealflow_kfp",
        "import sealflow_kfp.run_context as c; c.current()",
        "from sealflow_kfp import mount, default_image, sign_output, verified_input",
        "from sealflow_kfp import harden; import sealflow_kfp.plan",
    ],
)
def test_kfp_is_not_imported_before_a_component_is_asked_for(statement: str) -> None:
    assert loaded_after(statement).isdisjoint({"kfp", "kubernetes", "google", "boto3", "airflow"})


@pytest.mark.kfp
def test_every_public_name_is_there() -> None:
    for name in sealflow_kfp.__all__:
        assert getattr(sealflow_kfp, name) is not None
    assert dir(sealflow_kfp) == sealflow_kfp.__all__


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sign_everything'"):
        _ = sealflow_kfp.sign_everything
