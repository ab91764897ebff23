"""What a review of a Workflow takes: 100 tasks, over HTTPS, alone and with fifty of them in flight.

Two servers, as the manifests have two replicas, and the client share the processors of the machine. The tasks of each
Workflow are new, so that nothing of an earlier one helps, but where it is said that it is the same one. With fifty
always in flight nothing but processor time counts, also the client's: fifty times what one takes, over the
processors. How many of them would bring fifty within the bound is told; more replicas are how to have them.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import itertools
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import environment
from benchmarks.table import Figure

#: Tasks of a Workflow, each of its own component.
TASKS = 100
#: Reviews in flight.
CONCURRENT = 50
#: Most milliseconds of a review.
BOUND = 50.0
SERVERS = 2
#: Stands in the source of each task.
_NEW = "new00000"
#: MiB that a server's peak may still grow by; a kept body or answer of each would be hundreds.
GROWTH = 48.0

_CODE = "\n".join(f"    rows_{i} = [row for row in table if row['column {i}'] > {i}]" for i in range(30))
# What kfp's compiler writes before a component's source.
_START = """program_path=$(mktemp -d)

printf "%s" "$0" > "$program_path/ephemeral_component.py"
_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "$program_path/ephemeral_component.py" "$@"
"""

_numbers = itertools.count()


def measure(work: Path, rounds: int, quick: bool = False) -> list[Figure]:
    """Return latencies, the rate, and what memory does.

    Args:
        work: An empty folder.
        rounds: Hundreds of reviews of each kind of load.
        quick: A tenth of them.
    """
    number = max(2, rounds) * 100 // (10 if quick else 1)
    review, client = _review(), _files(work)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(_server(work)) for _ in range(SERVERS)]
        ports = [port for port, _ in servers]
        _load(ports, client, review, 1, 20 * SERVERS)
        alone = _load(ports, client, review, 1, number)
        paced = _load(ports, client, review, CONCURRENT, number, every=1.0)
        _load(ports, client, review, CONCURRENT, max(number, 20 if quick else 1600))
        before = [_peak(process) for _, process in servers]
        start, ours, cpu = time.perf_counter(), time.process_time(), sum(_cpu(process) for _, process in servers)
        full = _load(ports, client, review, CONCURRENT, 2 * number)
        wall, cpu = time.perf_counter() - start, sum(_cpu(process) for _, process in servers) - cpu
        ours = time.process_time() - ours
        again, again_cpu = [], 0.0
        for _ in range(2):  # the first to fill what is remembered
            again_cpu = sum(_cpu(process) for _, process in servers)
            again = _load(ports, client, review, CONCURRENT, number, same=True)
            again_cpu = sum(_cpu(process) for _, process in servers) - again_cpu
        after = [_peak(process) for _, process in servers]
    return [
        Figure(f"a Workflow of {TASKS} tasks: its review", len(review) / 1024, "KiB"),
        Figure("one review at a time: median", statistics.median(alone), "ms"),
        Figure("one review at a time: 99 of 100", _high(alone), "ms", most=BOUND),
        Figure(f"{CONCURRENT} connections, each a review a second: median", statistics.median(paced), "ms"),
        Figure(f"{CONCURRENT} connections, each a review a second: 99 of 100", _high(paced), "ms", most=BOUND),
        Figure(f"{CONCURRENT} reviews always in flight: median", statistics.median(full), "ms"),
        Figure(f"{CONCURRENT} reviews always in flight: 99 of 100", _high(full), "ms", most=BOUND),
        Figure("the same: reviews", 2 * number / wall, "/s"),
        Figure("the same: processor time of the servers for each", cpu / (2 * number) * 1000, "ms"),
        Figure("the same: processor time of the client for each", ours / (2 * number) * 1000, "ms"),
        Figure(
            f"processors that would bring {CONCURRENT} within {BOUND:g} ms",
            CONCURRENT * (cpu + ours) / (2 * number) * 1000 / BOUND, "",
        ),
        Figure(f"{CONCURRENT} always in flight, of one Workflow: 99 of 100", _high(again), "ms", most=BOUND),
        Figure("the same: processor time of the servers for each", again_cpu / number * 1000, "ms"),
        Figure("peak memory of a server after its first reviews", max(before), "MiB"),
        Figure(
            "server memory: growth in the later half of the load",
            max(b - a for a, b in zip(before, after, strict=True)), "MiB", most=GROWTH,
        ),
    ]  # fmt: skip


def _review() -> bytes:
    from tests.kubeflow import argo

    tasks = [
        argo.Task(
            f"task-{number}",
            command=["sh", "-ec", _START, f"from kfp import dsl\n\ndef task_{number}_{_NEW}(table):\n{_CODE}\n"],
            args=["--executor_input", "{{$}}", "--function_to_execute", f"task_{number}_{_NEW}"],
            after=[f"task-{number - 1}"] if number % 10 else [],
        )
        for number in range(TASKS)
    ]
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "argoproj.io", "version": "v1alpha1", "kind": "Workflow"},
        "operation": "CREATE",
        "namespace": "team",
        "userInfo": {"username": "system:serviceaccount:kubeflow:ml-pipeline"},
        "object": argo.compiled(tasks),
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    body = json.dumps(review, separators=(",", ":")).encode()
    head = (
        "POST /mutate?timeout=10s HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join([*head, "", ""]).encode() + body


def _files(work: Path) -> ssl.SSLContext:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    from tests.kubeflow import argo
    from tests.pki import certify, private_pem

    pair = certify(
        "admission",
        valid_from=datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1),
        purposes=(ExtendedKeyUsageOID.SERVER_AUTH,),
        alternative=(x509.IPAddress(ipaddress.ip_address("127.0.0.1")),),
    )
    (work / "tls.crt").write_bytes(pair.pem)
    (work / "tls.key").write_bytes(private_pem(pair.key))
    settings = {
        "sealflow_admission": 1,
        "mode": "enforce",
        "guard": {"image": argo.GUARD_IMAGE, "secret": "sealflow", "policy_config_map": "sealflow-policy"},
        "kubeflow": {
            "launcher_images": [argo.LAUNCHER_IMAGE],
            "driver_images": [argo.DRIVER_IMAGE],
            "executor_images": [argo.ARGO_IMAGE],
        },
    }
    (work / "settings.yaml").write_text(json.dumps(settings))
    return ssl.create_default_context(cadata=pair.pem.decode())


@contextlib.contextmanager
def _server(work: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    command = [
        str(Path(sys.executable).with_name("sealflow")), "kfp", "admission", f"--settings={work / 'settings.yaml'}",
        f"--certificate={work / 'tls.crt'}", f"--key={work / 'tls.key'}", "--address=127.0.0.1", "--port=0",
        "--status-port=0", "--drain=0",
    ]  # fmt: skip
    log = work / "log"
    with (
        log.open("a") as sink,
        subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=sink, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            said = next(line for line in map(json.loads, process.stdout) if line["event"] == "listening")
            # Its log goes on; somebody has to take it.
            drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
            yield said["port"], process
        finally:
            process.terminate()
            process.wait(30)
            drain.wait(30)


def _load(
    ports: list[int],
    context: ssl.SSLContext,
    review: bytes,
    clients: int,
    number: int,
    every: float = 0.0,
    same: bool = False,
) -> list[float]:
    """Send reviews; return each one's milliseconds.

    Args:
        ports: The servers'.
        context: Trusts them.
        review: What is sent.
        clients: Connections.
        number: Reviews of all of them together.
        every: Seconds between two reviews of one connection; 0: the next follows the answer.
        same: Whether the tasks are the same each time, instead of new ones.
    """
    times: list[float] = []

    async def client(index: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[index % len(ports)], ssl=context)
        await ready.wait()
        due = time.perf_counter() + every * index / clients
        for _ in range(max(1, number // clients)):
            if every:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent = review if same else review.replace(_NEW.encode(), b"%08x" % next(_numbers))
            # From when it was due: a late start of ours counts against the servers, never for them.
            start = due if every else time.perf_counter()
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            times.append((time.perf_counter() - start) * 1000)
            due += every
            assert b'"allowed":true' in body, body[:300]
            assert b'"patch":' in body
        writer.transport.abort()

    async def all_of_them() -> None:
        tasks = [asyncio.ensure_future(client(index)) for index in range(clients)]
        await asyncio.sleep(1.0)
        ready.set()
        await asyncio.gather(*tasks)

    ready = asyncio.Event()
    asyncio.run(all_of_them())
    return times


def _high(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def _peak(process: subprocess.Popen[Any]) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def _cpu(process: subprocess.Popen[Any]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
