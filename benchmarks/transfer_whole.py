"""An artifact of 10 GiB, and the memory that artifacts of any size take.

The artifact of 10 GiB is a sparse file, whose ciphertext is as random as any; the server has a disk of its own for it,
not in memory. Requests and bytes of a cold open are all that a new process asks of the store, evidence included.

S3 takes 10,000 parts and a part is held whole, in memory or in a file, so that parts grow with large artifacts. Their
memory is measured with 1 GiB that is cut as 290 GiB, 1 TiB and 5 TiB are cut; the first has about the largest parts
that are held in memory.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks import transfer_clients as clients
from benchmarks.measure import python, run
from benchmarks.table import Figure
from benchmarks.transfer import Bench, answer
from tests.servers.ceph import ceph_rgw

#: MiB at any size of the artifact.
_MEMORY = 150.0
#: Sparse, and so large that a server keeps it in memory only where there is a lot.
_DISK = 32 << 30


def opening(bench: Bench, rounds: int, quick: bool) -> list[Figure]:
    """Upload an artifact of 10 GiB, open it and download it.

    Raises:
        RuntimeError: There is no room for it.
    """
    size, label = (1 << 30, "1 GiB") if quick else (10 << 30, "10 GiB")
    with tempfile.TemporaryDirectory(prefix="sealflow-bench-", dir="/var/tmp") as folder:
        if shutil.disk_usage(folder).free < 3 * size or shutil.disk_usage(tempfile.gettempdir()).free < 3 * size:
            raise RuntimeError(f"an artifact of {label} needs {3 * size >> 30} GiB of disk here")
        source, back = Path(folder, "data"), Path(folder, "back")
        with source.open("wb") as file:
            file.truncate(size)
        with ceph_rgw(_DISK) as server:
            bucket, env = server.make_bucket(), bench.environment(server)
            up = run(bench.ours(clients.UP, source, bucket, "whole"), env)
            command = [*python(clients.OPEN), bucket, str(bench.aes), str(bench.key), str(bench.folder / "whole.ref")]
            found = answer([*command, str(size)], env)
            down = run(bench.ours(clients.DOWN, back, bucket, "whole"), env)
            if back.stat().st_size != size:
                raise RuntimeError("What came back is not what was sent.")
    return [
        Figure(f"cold open of an artifact of {label}: requests", found["opened"]["requests"], "", most=6),
        Figure(f"cold open of an artifact of {label}: bytes", found["opened"]["bytes"] / (1 << 20), "MiB", most=8),
        Figure(f"cold open of an artifact of {label}: wall", float(found["took"]) * 1000, "ms"),  # type: ignore[arg-type]
        Figure(f"upload of {label}: peak memory", up.peak, "MiB", most=_MEMORY),
        Figure(f"upload of {label}: wall", up.wall, "s"),
        Figure(f"download of {label}: peak memory", down.peak, "MiB", most=_MEMORY),
        Figure(f"download of {label}: wall", down.wall, "s"),
    ]


def memory(bench: Bench, rounds: int, quick: bool) -> list[Figure]:
    """Upload 1 GiB in the parts of larger artifacts."""
    server, bucket = bench.server()
    env, source = bench.environment(server), bench.data(quick)
    rows = []
    for label, size in (("290 GiB", 290 << 30), ("1 TiB", 1 << 40), ("5 TiB", 5 << 40)):
        code = clients.CUT.format(size=size) + clients.UP
        peaks = sorted(run(bench.ours(code, source, bucket), env).peak for _ in range(1 if quick else 3))
        rows.append(Figure(f"upload in the parts of {label}: peak memory", peaks[-1], "MiB", most=_MEMORY))
    return rows
