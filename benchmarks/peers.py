"""Peers that cannot be installed beside us: an environment of their own, made when they are first asked for.

The S3 Encryption Client pins an older ``cryptography``, and tink another ``protobuf``. What is installed is pinned in
peers.txt; the environment is kept under build/ and made anew when a pin changes.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PINS = Path(__file__).with_name("peers.txt")
HOME = Path(__file__).resolve().parents[1] / "build" / "peers"


class PeerError(RuntimeError):
    """A peer cannot be had here."""


@functools.cache
def python(pins: Path = PINS, home: Path = HOME) -> str:
    """Return the interpreter of the environment that holds the peers.

    Raises:
        PeerError: It could not be made: the message says why.
    """
    key = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:16]
    place = home / key
    interpreter, complete = place / "bin" / "python", place / "complete"
    if complete.exists():
        return str(interpreter)
    shutil.rmtree(place, ignore_errors=True)
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    try:
        venv.create(place, with_pip=uv is None, symlinks=True)
        command = (
            [uv, "pip", "install", "--python", str(interpreter)] if uv else [str(interpreter), "-m", "pip", "install"]
        )
        done = subprocess.run([*command, "--quiet", "-r", str(pins)], capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        raise PeerError(f"No environment could be made for the peers: {error}") from error
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise PeerError(f"The peers in {pins.name} cannot be installed here: {said}")
    complete.touch()
    return str(interpreter)
