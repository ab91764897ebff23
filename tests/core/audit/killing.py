"""What the kill tests run in processes of their own: writers that put entries, and integrators.

    python killing.py <inbox> <log> <key>

reads lines: ``writer <file of acknowledged entries>`` or ``integrator``. For each it makes a process by forking, which
takes no time, and prints its number. A writer begins chain after chain and writes down each entry once its put has
returned: what stands there and is not in the log afterwards is lost. As in a pod, nothing else of it stays.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import traceback

from sealflow.audit.entry import Chain
from sealflow.audit.inbox import Inbox, open_inbox
from sealflow.audit.integrate import integrate
from sealflow.audit.log import LogStore, open_log
from sealflow.keys import KeySigner, load_signer
from sealflow.storage import Storages
from sealflow.storage.resolve import is_s3
from tests.core.audit.logs import ORIGIN


def write(inbox: Inbox, told: str) -> None:
    with open(told, "ab", buffering=0) as acknowledged:
        while True:
            chain = Chain()
            for _ in range(random.randint(1, 5)):
                some = [chain.add(b'{"sealflow_audit":1,"a":"%d"}' % os.getpid()) for _ in range(random.randint(1, 3))]
                inbox.put(some)
                # A put that is asked for again is a success.
                if random.random() < 0.2:
                    inbox.put(some[random.randrange(len(some)) :])
                # One write, in the system's hands whenever this process dies; at most the last line of it is cut off.
                acknowledged.write(b"".join(entry.line + b"\n" for entry in some))


def work(inbox: Inbox, log: LogStore, signer: KeySigner) -> None:
    while True:
        integrate(inbox, log, signer, ORIGIN, batch=random.choice([1, 5, 50, 300]))


def main() -> None:
    uri, place, key = sys.argv[1:]
    # Made once, without a connection: each child opens its own.
    storages = Storages()
    inbox, log, signer = open_inbox(uri, storages), open_log(place, storages), load_signer(f"file:{key}")
    if is_s3(uri):
        storages.s3(uri).client(uri)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getpid()
    for line in sys.stdin:
        if pid := os.fork():
            print(pid, flush=True)
            continue
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # with its parent, which ends with the test
        if os.getppid() != parent:
            os._exit(1)
        random.seed()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            kind, *rest = line.split()
            if kind == "writer":
                write(inbox, *rest)
            else:
                work(inbox, log, signer)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
