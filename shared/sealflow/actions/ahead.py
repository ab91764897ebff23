"""Worker processes that read and open the evidence of a large walk before the walk asks for it.

Reading, checking a signature and parsing is most of a walk, and follows from the bytes alone; what the rules make of it
stays in one process. What a worker gives is what the walk would have found itself, so it decides nothing. A worker that
dies or hangs takes what it had in hand with it: that is unverifiable then.

Workers are programs of their own on a pair of pipes, neither forked nor started by :mod:`multiprocessing`, which would
run the caller's main module once more, and is closed to the daemonic processes in which orchestrators run tasks.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from sealflow.actions import opening, processors
from sealflow.actions.gathering import EvidenceReader
from sealflow.evidence.bundle import Bundle
from sealflow.evidence.own_provenance import Digests
from sealflow.findings import Finding
from sealflow.hashing import Digest
from sealflow.keys import PublicKey
from sealflow.verification.assess import WITH_SUMMARIES, Gathered
from sealflow.verification.opening import Claim, claim_of

#: From how many known artifacts on workers are started: they take a while to come up.
START: Final = 2000
#: Most workers. One process asks the rules for all of them, and more would wait for it.
MAX_WORKERS: Final = 4
#: How many seconds a worker may be silent when its answer is waited for. It reads a few dozen files for one.
PATIENCE: Final = 300.0

_BATCH: Final = 64
#: Batches that a worker has in hand at most.
_DEPTH: Final = 3
#: Artifacts that a worker has in hand at most.
ROOM: Final = _BATCH * _DEPTH
#: Most characters of an artifact's locations that are sent: a request must never fill the pipe.
_MAX_LOCATIONS: Final = 2048
#: Most claims that are remembered. Certificates can be one for each signature.
_MAX_KEYS: Final = 1024
_PIPE: Final = 1 << 20

_BOOT: Final = (
    "import marshal, sys; sys.path[:] = marshal.load(sys.stdin.buffer); "
    "from sealflow.actions.opening import serve; serve()"
)


_NONSENSE: Final = "gave no answer that could be read"


class LostError(Exception):
    """A worker died, or says nothing."""


class _Batch:
    """Artifacts that a worker was asked for, in the order of the walk."""

    def __init__(self, worker: _Worker, wanted: Sequence[tuple[Digest, Sequence[str]]]) -> None:
        self.worker = worker
        self.waiting: dict[Digest, tuple[int, Sequence[str]]] = {
            digest: (index, locations) for index, (digest, locations) in enumerate(wanted)
        }
        self.size = len(self.waiting)
        self.answer: list[Any] | None = None
        self.lost = ""

    def take(self, answer: Any) -> None:
        """Take the worker's answer.

        Raises:
            LostError: It is none.
        """
        if not isinstance(answer, list) or len(answer) != self.size:
            raise LostError(_NONSENSE)
        self.answer = answer


class _Worker:
    """One process and the batches that it has in hand."""

    def __init__(self, reader: EvidenceReader) -> None:
        utf8 = ["-X", f"utf8={sys.flags.utf8_mode}"]
        self._process = subprocess.Popen(  # noqa: S603  (this Python and a constant)
            [sys.executable, "-I", *utf8, "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._pipes = [pipe for pipe in (self._process.stdin, self._process.stdout) if pipe is not None]
        self._to, self._from = [pipe.fileno() for pipe in self._pipes]
        for descriptor in (self._to, self._from):
            os.set_blocking(descriptor, False)
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            # Room for the answers to all batches in hand, so that a worker need not wait for the walk to take them.
            fcntl.fcntl(self._from, fcntl.F_SETPIPE_SZ, _PIPE)
        self._out = bytearray()
        self._in = bytearray()
        self.batches: deque[_Batch] = deque()
        #: How many of the learned keys it was told.
        self.told = 0
        self.up = False
        # The same installation, wherever this process found it.
        self._out += marshal.dumps([item for item in sys.path if isinstance(item, str)])
        self._out += opening.frame(([store.uri for store in reader.stores], reader.beside))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, value: Any) -> None:
        """Send a value, as far as there is room now.

        Raises:
            LostError: It is gone.
        """
        self._out += opening.frame(value)
        self._flush()

    def receive(self, patience: float) -> Any:
        """Return its next value; ``None`` when it says nothing for so many seconds.

        Raises:
            LostError: It is gone, or talks nonsense.
        """
        until = time.monotonic() + patience
        while True:
            try:
                value = opening.take_frame(self._in)
            except ValueError:
                raise LostError(_NONSENSE) from None
            if value is not None:
                return value
            left = max(0.0, until - time.monotonic())
            poll = select.poll()
            poll.register(self._from, select.POLLIN)
            if self._out:
                poll.register(self._to, select.POLLOUT)
            ready = [descriptor for descriptor, _ in poll.poll(left * 1000)]
            if self._to in ready:
                self._flush()
            if self._from in ready:
                piece = os.read(self._from, _PIPE)
                if not piece:
                    raise LostError("died")
                self._in += piece
                until = time.monotonic() + patience
            elif not left:
                return None

    def close(self) -> None:
        """End the process, whatever it is doing: it only reads."""
        self._process.kill()
        self._process.wait()
        for pipe in self._pipes:
            pipe.close()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: os.write(self._to, self._out)]
        except BlockingIOError:
            pass
        except OSError:
            raise LostError("died") from None


class ReadAhead:
    """Gives a walk its evidence, and lets workers prepare it where that pays.

    Args:
        reader: Gives the evidence that no worker prepared.
        workers: How many workers, by default as many as there are processors; none where there is one.
        start: From how many known artifacts on they are used.
        patience: How many seconds a worker may be silent.
    """

    def __init__(
        self, reader: EvidenceReader, *, workers: int | None = None, start: int = START, patience: float = PATIENCE
    ) -> None:
        self._reader = reader
        self._count = workers
        self._start = start
        self._patience = patience
        self._workers: list[_Worker] | None = None
        self._batches: deque[_Batch] = deque()
        self._where: dict[Digest, _Batch] = {}
        self._keys: dict[Claim, bytes] = {}
        self._digests = Digests()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers or ():
            worker.close()
        self._workers = []
        self._where.clear()
        self._batches.clear()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.pid for worker in self._workers or ()]

    def __call__(self, digest: Digest, locations: Sequence[str], kinds: frozenset[str]) -> Gathered:
        """Return what was found about a digest; see :data:`sealflow.verification.assess.Gather`."""
        batch = self._where.get(digest) if kinds == WITH_SUMMARIES else None
        if batch is None:
            return self._reader(digest, locations, kinds)
        while self._batches[0] is not batch:
            self._forget(self._batches.popleft())
        del self._where[digest]
        index, announced = batch.waiting.pop(digest)
        if batch.answer is None and not batch.lost:
            self._receive(batch)
        if batch.answer is None:
            message = f"A process that read evidence for the walk {batch.lost}, and this artifact's was in its hands."
            step = "Trace again; where it happens again, see whether memory runs out."
            return Gathered((), (Finding("BACKEND_UNAVAILABLE", "unverifiable", str(digest), message, next_step=step),))
        packed, batch.answer[index] = batch.answer[index], None
        if packed is None or announced != locations:
            return self._reader(digest, locations, kinds)
        return opening.unpack(packed, self._digests)

    def is_waiting_for(self, digest: Digest) -> bool:
        """Tell whether an artifact was announced and not asked for yet."""
        return digest in self._where

    def room(self, known: int) -> int:
        """See :class:`~sealflow.verification.walk.Ahead`."""
        if self._workers is None:
            if known < self._start:
                return 0
            self._workers = self._begin()
        room = 0
        for worker in tuple(self._workers):
            if worker.up or self._is_up(worker):
                room += _BATCH * (_DEPTH - len(worker.batches))
        return room

    def announce(self, wanted: Sequence[tuple[Digest, Sequence[str]]]) -> None:
        """See :class:`~sealflow.verification.walk.Ahead`."""
        wanted = [item for item in wanted if self._is_here(item[1])]
        free = [worker for worker in self._workers or () if worker.up and len(worker.batches) < _DEPTH]
        size = max(1, min(_BATCH, -(-len(wanted) // len(free)))) if free else 0
        while wanted and free:
            worker = min(free, key=lambda item: len(item.batches))
            batch = _Batch(worker, wanted[:size])
            wanted = wanted[size:]
            worker.batches.append(batch)
            self._batches.append(batch)
            self._where.update(dict.fromkeys(batch.waiting, batch))
            learned = list(self._keys.items())[worker.told :]
            worker.told = len(self._keys)
            try:
                worker.send((learned, [(str(digest), locations) for digest, (_, locations) in batch.waiting.items()]))
            except LostError as error:
                self._lose(worker, str(error))
            free = [item for item in free if len(item.batches) < _DEPTH and item in (self._workers or ())]

    def learn(self, bundle: Bundle, key: PublicKey) -> None:
        """See :class:`~sealflow.verification.walk.Ahead`."""
        claim = claim_of(bundle)
        if claim is not None and claim not in self._keys and len(self._keys) < _MAX_KEYS:
            self._keys[claim] = key.pem

    def _begin(self) -> list[_Worker]:
        count = processors.usable() if self._count is None else self._count
        # Where Python is built into something else, that would be started.
        python = "python" in os.path.basename(sys.executable or "").lower() and not getattr(sys, "frozen", False)
        if not python or not self._reader.is_local or (count < 2 and self._count is None):
            return []
        started: list[_Worker] = []
        with contextlib.suppress(OSError, LostError):
            for _ in range(min(count, MAX_WORKERS)):
                started.append(_Worker(self._reader))
        return started

    def _is_up(self, worker: _Worker) -> bool:
        try:
            said = worker.receive(0)
        except LostError:
            said = ()
        worker.up = said == opening.HELLO
        if said is not None and not worker.up:
            # It has nothing in hand, so nothing is lost.
            self._drop(worker)
        return worker.up

    def _is_here(self, locations: Sequence[str]) -> bool:
        """Tell whether all evidence of an artifact can only lie on this machine, and asking for it takes few bytes."""
        if sum(map(len, locations)) > _MAX_LOCATIONS:
            return False
        return not self._reader.beside or all(item.startswith("file:///") for item in locations)

    def _receive(self, batch: _Batch) -> None:
        worker = batch.worker
        try:
            while batch.answer is None:
                answer = worker.receive(self._patience)
                if answer is None:
                    raise LostError(f"said nothing for {self._patience:.0f} seconds")
                worker.batches[0].take(answer)
                worker.batches.popleft()
        except LostError as error:
            self._lose(worker, str(error))

    def _lose(self, worker: _Worker, why: str) -> None:
        for batch in worker.batches:
            batch.lost = why
        self._drop(worker)

    def _drop(self, worker: _Worker) -> None:
        worker.close()
        if self._workers is not None and worker in self._workers:
            self._workers.remove(worker)

    def _forget(self, batch: _Batch) -> None:
        """Let go of what was not asked for in the end, or with other locations since."""
        for digest in batch.waiting:
            if self._where.get(digest) is batch:
                del self._where[digest]
