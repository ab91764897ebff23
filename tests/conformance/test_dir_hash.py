"""``dirHash`` is what standard tools compute, so that an auditor needs none of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.hashing import Digest
from sealflow.manifest import build_manifest
from sealflow.storage import Storages
from tests.trees import SHAPES, write_tree

COMMAND = r"find . -type f | cut -c3- | LC_ALL=C sort | xargs -d '\n' sha256sum -- | sha256sum"

# sha256sum escapes names with a backslash or a line break; ours refuses those anyway.
parts = st.text(
    st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Cn"), exclude_characters="/\\"),
    min_size=1,
    max_size=12,
).filter(lambda part: part not in (".", ".."))
# A file called - at the root is standard input to sha256sum.
names = st.lists(parts, min_size=1, max_size=3).map("/".join).filter(lambda name: name != "-")
files = st.dictionaries(names, st.binary(max_size=64), max_size=8)


def ours(root: Path) -> Digest:
    storage = Storages().for_uri(str(root))
    location = storage.locate(str(root))
    assert location is not None
    return build_manifest(storage, location).digest


def theirs(root: Path) -> Digest:
    done = subprocess.run(["bash", "-c", COMMAND], cwd=root, capture_output=True, check=True, text=True)
    return Digest("dirHash", done.stdout.split()[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(tmp_path: Path, shape: str) -> None:
    root = write_tree(tmp_path / "model", SHAPES[shape])
    assert ours(root) == theirs(root)


@pytest.mark.slow
@given(files=files.filter(bool))
def test_any_tree(files: dict[str, bytes]) -> None:
    from hypothesis import assume

    from sealflow.errors import ArtifactError
    from sealflow.names import check_name, check_tree

    try:
        for name in files:
            check_name(name)
        check_tree(files)
    except ArtifactError:
        assume(False)
    root = Path(tempfile.mkdtemp(dir=os.environ["HOME"]))
    try:
        write_tree(root, files)
        assert ours(root) == theirs(root)
    finally:
        shutil.rmtree(root)
