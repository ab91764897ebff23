"""The encrypted transfer's documents: the guide's commands do what it says, options and figures are the code's."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sealflow.actions import reading, uploads
from sealflow.actions.upload import _WORTH_RESUMING
from sealflow.cli.app import app
from sealflow.encryption import MAX_HEADER
from sealflow.evidence import encryption, promotion
from sealflow.storage import memory
from sealflow.storage.s3 import S3Storage
from sealflow.transfer import archive, receive, send
from sealflow.transfer.send import Shape
from tests.conformance.conftest import REQUIRE_ORACLES
from tests.guides import check_links, run_guide

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "how-to" / "encrypted-transfer.md"
REFERENCE = ROOT / "docs" / "reference" / "transfer.md"
ENCRYPTION = ROOT / "docs" / "reference" / "encryption.md"
THREATS = ROOT / "docs" / "explanation" / "threat-model.md"
TEXT = REFERENCE.read_text(encoding="utf-8")

COMMANDS = ("upload", "download", "cat", "ls", "copy", "uploads", "recipients list", "recipients add",
            "recipients remove")  # fmt: skip


@pytest.mark.parametrize(
    "path", [GUIDE, REFERENCE, ENCRYPTION, THREATS, ROOT / "README.md"], ids=lambda path: path.name
)
def test_links_lead_somewhere(path: Path) -> None:
    check_links(path)


# --- The reference ---


def section(title: str) -> str:
    """Return what stands under a title of the second level."""
    _, found, rest = TEXT.partition(f"\n## {title}\n")
    assert found, title
    return rest.partition("\n## ")[0]


@functools.cache
def _whole_command() -> Any:
    return typer.main.get_command(app)


def options(command: str) -> set[str]:
    """Return the long options of a command."""
    found = _whole_command()
    for name in command.split():
        found = found.commands[name]
    return {text for item in found.params for text in item.opts if text.startswith("--")} - {"--help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    text = section("Commands")
    assert f"| `{command} " in text
    row = text.partition(f"| `{command} ")[2].partition("\n")[0]
    shared = text.partition("| option of several commands |")[2].partition("\n\n")[0]
    missing = {option for option in options(command) if f"`{option}" not in row + shared}
    assert not missing


def test_no_option_is_invented() -> None:
    known = set().union(*map(options, COMMANDS))
    assert set(re.findall(r"`(--[a-z-]+)", TEXT)) <= known


def test_options_of_a_row_belong_to_its_command() -> None:
    for command in COMMANDS:
        row = section("Commands").partition(f"| `{command} ")[2].partition("\n")[0]
        assert set(re.findall(r"`(--[a-z-]+)", row)) <= options(command), command


def test_the_calls_are_there() -> None:
    import sealflow
    from sealflow.actions import change_recipients

    rows = section("In Python")
    for name in set(re.findall(r"`(?:with )?sealflow\.(\w+)\(", rows)) | {"upload_artifact", "download_artifact"}:
        assert callable(getattr(sealflow, name))
    assert "`sealflow.actions.uploads.unfinished_uploads(" in rows
    assert callable(uploads.unfinished_uploads)
    for name in ("change_recipients", "list_recipients"):
        assert f"`{name}(" in rows
        assert callable(getattr(change_recipients, name))


@pytest.mark.parametrize(
    ("size", "frame", "said"),
    [
        (0, 256 << 10, "| up to 16 GiB | 256 KiB |"),
        (16 << 30, 256 << 10, "| up to 16 GiB | 256 KiB |"),
        ((16 << 30) + 1, 1 << 20, "| up to 256 GiB | 1 MiB |"),
        (256 << 30, 1 << 20, "| up to 256 GiB | 1 MiB |"),
        ((256 << 30) + 1, 4 << 20, "| up to 1 TiB | 4 MiB |"),
        (1 << 40, 4 << 20, "| up to 1 TiB | 4 MiB |"),
        ((1 << 40) + 1, 8 << 20, "| up to 8 TiB | 8 MiB |"),
        ((8 << 40) + 1, 16 << 20, "| larger, up to 31 TiB | 16 MiB |"),
        (send.LARGEST, 16 << 20, "| larger, up to 31 TiB | 16 MiB |"),
    ],
)
def test_the_frames_are_as_it_says(size: int, frame: int, said: str) -> None:
    assert Shape.of(size, S3Storage.most_parts).frame == frame
    assert said in TEXT


def test_the_parts_are_as_it_says() -> None:
    def part(size: int) -> int:
        shape = Shape.of(size, S3Storage.most_parts)
        return shape.frame * shape.frames

    def held(size: int) -> int:
        shape = Shape.of(size, S3Storage.most_parts)
        return send.buffers(shape.frames * (shape.frame + 32), 16)

    assert (
        "Parts have 15.75 MiB, or the least whole number of frames that is as long. S3 takes 10,000 of them, so there "
        "they grow from about 149 GiB on" in TEXT
    )
    assert part(16 << 30) == send.PART == 15.75 * (1 << 20)
    assert part(148 << 30) == 16 << 20 < part(149 << 30)
    assert Shape.of(1 << 40, None) == (4 << 20, 4)
    assert S3Storage.most_parts == 10_000
    assert f"At most {send.MOST_IN_FLIGHT} are sent at the same time" in TEXT
    assert f"Buffers take {send._MEMORY >> 20} MiB of memory at most" in TEXT
    largest = memory.LARGEST_IN_MEMORY
    assert f"parts of more than {largest >> 20} MiB, from about 297 GiB on, wait encrypted in temporary files" in TEXT
    assert part(296 << 30) + (1 << 20) < largest <= part(298 << 30)
    assert "without a name, three at most" in TEXT
    assert held(298 << 30) == send.MOST_IN_FILES == 3
    assert "112 MiB for 1 TiB, 552 MiB for 5 TiB" in TEXT
    assert (part(1 << 40) >> 20, part(5 << 40) >> 20) == (112, 552)
    assert "8 MiB for 1 TiB, 20 MiB for 5 TiB" in TEXT
    assert [(size << 40) // Shape.of(size << 40, None).frame * 32 >> 20 for size in (1, 5)] == [8, 20]


def test_a_download_fetches_as_it_says() -> None:
    said = f"at most {receive._PARALLEL} requests of {receive._GROUP >> 20} MiB at a time"
    assert said in TEXT
    assert f"A download holds {(2 * receive._PARALLEL + 1) * receive._GROUP >> 20} MiB at most" in TEXT
    assert f"`found.pieces(…)` of at most {reading._PIECE >> 20} MiB each" in TEXT


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (_WORTH_RESUMING, "An upload of 20 MiB or more to S3"),
        (uploads.MOST, "at most 10,000 at once"),
        (archive._MAX_RECIPIENTS, "| recipients | 32 |"),
        (MAX_HEADER, "| header | 64 KiB |"),
        (archive.MAX_INDEX, "| index, and the signature in the artifact | 256 MiB each"),
        (encryption.MAX_LIST, "| list of frame digests | 64 MiB, 2,097,151 frames: 31 TiB in frames of 16 MiB |"),
    ],
)
def test_the_limits_are_as_it_says(value: int, said: str) -> None:
    assert said in TEXT
    units = {"MiB": 1 << 20, "KiB": 1 << 10}
    numbers = [
        int(number.replace(",", "")) * units.get(unit, 1)
        for number, unit in re.findall(r"(\d[\d,]*) ?(MiB|KiB)?", said)
    ]
    assert value in numbers


def test_what_is_stored_bears_the_names_that_it_says() -> None:
    for name in (archive.SIGNATURE, archive.INDEX, encryption.PREDICATE_TYPE, promotion.PREDICATE_TYPE):
        assert f"`{name}`" in TEXT
    assert "its own length in 20 digits" in TEXT


def test_the_variables_are_those_of_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "shared").rglob("*.py"))
    for name in set(re.findall(r"SEALFLOW_[A-Z_]+", TEXT)):
        assert f'"{name}"' in code, name


# --- The guide ---


@pytest.mark.slow
def test_the_guide_shows_every_command() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"\nsealflow {name} " not in text] == []


@pytest.mark.slow
def test_the_guide_does_what_it_says(
    tmp_path: Path, need_program: Callable[[str, str, str], None], loud: Callable[[str], None]
) -> None:
    need_program("openssl", "openssl", "the guide to encrypted transfer was not run")
    programs, folder = tmp_path / "bin", tmp_path / "empty"
    for made in (programs, folder):
        made.mkdir()
    ours = f"#!{sys.executable}\nimport sys\nsys.argv[0] = 'sealflow'\nfrom sealflow.cli import main\nmain()\n"
    # Isolated, so that nothing of ours helps it by lying in the folder.
    theirs = f'#!/bin/sh\nexec {sys.executable} -I "$@"\n'
    for name, text in (("sealflow", ours), ("python", theirs)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    page = ENCRYPTION.read_text(encoding="utf-8")
    (script,) = re.findall(r"<!-- A test runs exactly this. -->\n```python\n(.*?)```", page, re.DOTALL)
    (folder / "recover.py").write_text(script)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    run_guide(_without_recovery(loud, tmp_path), folder, environment, blocks=17)


def _without_recovery(loud: Callable[[str], None], folder: Path) -> Path:
    """Return the guide, without the chapter that needs the official SDK where that cannot be installed."""
    try:
        import aws_cryptographic_material_providers.mpl  # noqa: F401
        import aws_encryption_sdk  # noqa: F401
    except ImportError as error:
        what = f"the official encryption SDK cannot be imported ({error})"
        if REQUIRE_ORACLES and sys.version_info >= (3, 11):
            pytest.fail(f"SEALFLOW_REQUIRE_ORACLES=1, but {what}")
        loud(f"ORACLE: the guide's recovery without us was not run, {what}")
        text, count = re.subn(r"(?ms)^## 7\..*?(?=^## 8\.)", "", GUIDE.read_text(encoding="utf-8"))
        assert count == 1
        copy = folder / GUIDE.name
        copy.write_text(text, encoding="utf-8")
        return copy
    return GUIDE
