"""Folders for tests: shapes that tell one way of walking, naming or ordering from another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: Files that no name, order or size may confuse. Names are relative, bytes differ unless the shape is about that.
SHAPES: dict[str, Mapping[str, bytes]] = {
    "plain": {"model.bin": b"\x00\x01\x02weights", "config.json": b'{"layers": 3}'},
    "nested": {"a/b/c/deep.bin": b"deep", "a/b/other.bin": b"other", "top.txt": b"top"},
    "unicode-names": {"gewichte-größe.bin": b"1", "模型/权重.bin": b"2", "emoji-\U0001f916.txt": b"3", "é/é": b"4"},
    "names-with-spaces": {"my model.bin": b"1", " leading": b"2", "trailing ": b"3", "a b/c d": b"4"},
    "names-with-colons": {"a:b": b"1", "a:0:5": b"2", "c:\u202fd/e:f:g": b"3"},
    # Code points order '-' and '.' before '/'; path parts order it the other way round.
    "code-point-order-is-not-part-order": {"a/x": b"1", "a-b": b"2", "a.txt": b"3", "a/-": b"4", "B": b"5"},
    "empty-files": {"empty.bin": b"", "sub/__init__.py": b"", "full.bin": b"full"},
    "equal-bytes": {"one": b"same", "two": b"same", "three/four": b"same"},
    "hidden-and-quoted": {".hidden": b"1", "quote'\"s": b"2", "$(touch x)": b"3", "-rf": b"4", "~": b"5", "%41": b"6"},
    "300-files": {f"shard-{number // 50:02}/part-{number:03}.bin": b"%d" % number for number in range(300)},
}


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below ``root`` and return it."""
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def flip_byte(path: Path, position: int = 0) -> None:
    """Change one bit of a file and nothing else."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))
