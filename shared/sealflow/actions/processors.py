"""How many processors this process may use: what the machine has is often more than a container was given."""

from __future__ import annotations

import os

_ROOT = "/sys/fs/cgroup"


def usable(root: str = _ROOT, own: str = "/proc/self/cgroup") -> int:
    """Return the number of processors, by affinity and by the CPU quota of the control groups; at least one.

    Args:
        root: Where the hierarchy is mounted; ``cpu.max`` is that of version 2, ``cpu.cfs_quota_us`` that of version 1
            (Linux, admin-guide/cgroup-v2 and cgroup-v1).
        own: The file that names this process's groups.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        count = os.cpu_count() or 1
    for folder in _groups(root, own):
        quota = _quota(folder)
        if quota is not None:
            count = min(count, max(1, int(quota)))
    return max(1, count)


def _groups(root: str, own: str) -> list[str]:
    """Return the folders whose quota binds this process: those of its groups and of all that are around them."""
    found = [root, os.path.join(root, "cpu")]
    try:
        with open(own, encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 16).splitlines()
    except OSError:
        return found
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        parts = [part for part in path.split("/") if part not in ("", "..")]
        base = root if not controllers else os.path.join(root, "cpu") if "cpu" in controllers.split(",") else ""
        if base:
            found += [os.path.join(base, *parts[:depth]) for depth in range(1, len(parts) + 1)]
    return found


def _quota(folder: str) -> float | None:
    """Return the processors that a group gets, ``None`` where it sets no bound."""
    texts = _words(os.path.join(folder, "cpu.max"))
    if not texts:
        texts = [*_words(os.path.join(folder, "cpu.cfs_quota_us")), *_words(os.path.join(folder, "cpu.cfs_period_us"))]
    try:
        quota, period = map(int, texts)
    except ValueError:
        return None  # "max", or no such file
    return quota / period if quota > 0 and period > 0 else None


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(256).split()
    except OSError:
        return []
