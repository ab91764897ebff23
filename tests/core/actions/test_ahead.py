"""Workers beside a walk: what they give is what the walk finds itself, and what they lose is unverifiable."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions import ahead as module
from sealflow.actions.ahead import ReadAhead
from sealflow.actions.gathering import EvidenceReader
from sealflow.actions.processors import usable
from sealflow.actions.trace import Rules, walk_under
from sealflow.evidence.bundle import make_bundle
from sealflow.findings import conclude
from sealflow.hashing import sha256_hex
from sealflow.keys import load_signer
from sealflow.policy import parse_identities
from sealflow.storage import Storages
from sealflow.verification.assess import WITH_SUMMARIES, Gathered, Start
from sealflow.verification.walk import Walked
from tests.lineages import Lineage, digest
from tests.pki import write_pki

pytestmark = pytest.mark.slow

WIDTH = 150


class Wide(Lineage):
    """A model made from many parts, each made from a dataset of its own; and a few that are wrong in every way."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, build=False)
        names = [f"part-{number}" for number in range(WIDTH)]
        self.attest("model", names)
        for number, name in enumerate(names):
            self.attest(name, [f"raw-{number}"])
            self.attest(f"raw-{number}", (), "owner")

    def signed(self, statement: Any, signer: str = "trainer") -> bytes:
        if not signer.startswith("file:"):
            return super().signed(statement, signer)
        return make_bundle(json.dumps(statement).encode(), load_signer(signer))

    def spoil(self) -> None:
        """Make some parts wrong, each in another way; their neighbours in a batch are sound."""
        self.remove("part-3")
        self.remove("part-10")
        self.attest("part-10", ["raw-10"], "stranger")
        (path,) = self.objects("part-20")
        path.write_bytes(path.read_bytes() + b" ")
        self.remove("part-30")
        self.file("part-30", b"{}")
        self.attest("part-40", ["raw-41"])
        self.remove("part-50")
        self.attest("raw-50", filed="part-50")
        self.again("part-60", lambda body: body["predicate"]["runDetails"].pop("metadata"), "trainer")
        self.again(
            "part-70", lambda body: body["predicate"]["buildDefinition"]["resolvedDependencies"].append({}), "trainer"
        )
        self.attest("part-80", ["raw-80"], "owner")
        (self.store / digest("part-90").path_segment / "notes.txt").write_text("no evidence")
        self.attest("part-100", ["raw-100", "model"], "trainer")

    def reader(self) -> EvidenceReader:
        return EvidenceReader([str(self.store)], Storages())

    def walk(self, gather: Any, *, identities: Any = None, **options: Any) -> Walked:
        identities = identities or {"trainer": str(self.key("trainer").public)}
        roots = parse_identities({"owner": str(self.key("owner").public)})
        rules = Rules(self.surroundings(), Storages(), identities, roots, frozenset(), None)
        start = [Start(digest("model"), (self.lies("model"),))]
        return walk_under(start, gather, rules, roots, frozenset(), **options)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Wide:
    return Wide(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def spoiled(tmp_path: Path) -> Wide:
    made = Wide(tmp_path)
    made.spoil()
    return made


def workers(gather: ReadAhead) -> list[int]:
    """Wait until the workers are up, and return their process ids."""
    until = time.monotonic() + 60
    while (gather.room(1 << 20) or 1) != len(gather.pids) * module.ROOM:
        assert time.monotonic() < until
        time.sleep(0.01)
    return gather.pids


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each answer of a worker that was used, how many pieces of it were opened."""
    found: list[int] = []
    unpack = module.opening.unpack

    def counted(*arguments: Any) -> Gathered:
        gathered = unpack(*arguments)
        found.append(sum(item is not None for item in gathered.opened))
        return gathered

    monkeypatch.setattr(module.opening, "unpack", counted)
    return found


# --- the same, with and without ---


def test_workers_change_nothing_of_what_is_found(spoiled: Wide, asked: list[int]) -> None:
    alone = spoiled.walk(spoiled.reader())
    with ReadAhead(spoiled.reader(), workers=2, start=1) as gather:
        workers(gather)
        assert spoiled.walk(gather, ahead=gather) == alone
        # The keys are known from the first walk now.
        first = len(asked)
        assert spoiled.walk(gather, ahead=gather) == alone
    assert len({item.code for item in alone.findings}) > 5
    assert sum(asked[first:]) > WIDTH


def test_order_of_a_sound_walk(sound: Wide, asked: list[int]) -> None:
    alone = sound.walk(sound.reader())
    with ReadAhead(sound.reader(), workers=3, start=1) as gather:
        workers(gather)
        found = sound.walk(gather, ahead=gather)
    assert found.findings == ()
    assert list(found.graph.nodes.items()) == list(alone.graph.nodes.items())
    assert list(found.graph.inputs.items()) == list(alone.graph.inputs.items())
    assert sum(asked) >= WIDTH


def test_a_signature_that_holds_opens_no_door(sound: Wide, asked: list[int]) -> None:
    """Workers say under which key it holds; whether that may speak is asked as ever."""
    place = (sound.lies("model"),)
    with ReadAhead(sound.reader(), workers=1, start=1) as gather:
        workers(gather)
        sound.walk(gather, ahead=gather)
        gather.announce([(digest("model"), place)])
        other = {"other": str(sound.key("other").public)}
        rules = Rules(sound.surroundings(), Storages(), other, (), frozenset(), None)
        walked = walk_under([Start(digest("model"), place)], gather, rules, (), frozenset(), ahead=gather)
    assert asked[-1] == 1
    assert {item.code for item in walked.findings} == {"SIGNER_NOT_ALLOWED"}
    assert conclude(walked.findings)[0] == "failed"


def test_certificates(tmp_path: Path, asked: list[int]) -> None:
    pki = write_pki(tmp_path)
    world = Wide(tmp_path)
    for number in range(WIDTH):
        world.remove(f"part-{number}")
        world.attest(f"part-{number}", [f"raw-{number}"], pki.signer)
    identities = {"trainer": str(world.key("trainer").public), "certified": pki.identity}
    assert world.walk(world.reader()).findings
    alone = world.walk(world.reader(), identities=identities)
    with ReadAhead(world.reader(), workers=2, start=1) as gather:
        workers(gather)
        world.walk(gather, ahead=gather, identities=identities)
        assert world.walk(gather, ahead=gather, identities=identities) == alone
        refused = world.walk(gather, ahead=gather)
    assert alone.findings == ()
    assert {item.code for item in refused.findings} == {"SIGNER_NOT_ALLOWED"}
    assert sum(asked) > 2 * WIDTH


def test_another_location_since_it_was_announced(sound: Wide, asked: list[int], tmp_path: Path) -> None:
    place = sound.lies("part-1")
    beside = tmp_path / "part-1.evidence" / digest("part-1").path_segment
    beside.mkdir(parents=True)
    data = sound.signed(sound.statement("part-1", ["raw-2"]))
    (beside / f"provenance-{sha256_hex(data)}.json").write_bytes(data)
    with ReadAhead(sound.reader(), workers=1, start=1) as gather:
        workers(gather)
        gather.announce([(digest("part-1"), (place,)), (digest("part-2"), (place,))])
        both = gather(digest("part-1"), (place, f"file://{tmp_path}/part-1"), WITH_SUMMARIES)
        one = gather(digest("part-2"), (place,), WITH_SUMMARIES)
    assert (len(both.evidence), len(one.evidence), len(asked)) == (2, 1, 1)


def test_what_was_announced_and_not_asked_for_is_let_go(sound: Wide) -> None:
    names = [f"part-{number}" for number in range(100)]
    with ReadAhead(sound.reader(), workers=1, start=1) as gather:
        workers(gather)
        gather.announce([(digest(name), ()) for name in names[:40]])
        gather.announce([(digest(name), ()) for name in names[40:80]])
        gather(digest(names[50]), (), WITH_SUMMARIES)
        assert not gather.is_waiting_for(digest(names[0]))
        assert gather.is_waiting_for(digest(names[51]))
        assert len(gather(digest(names[0]), (), WITH_SUMMARIES).evidence) == 1


def test_too_much_for_an_answer_is_left_to_the_walk(sound: Wide, tmp_path: Path) -> None:
    world = Wide.__new__(Wide)
    Lineage.__init__(world, tmp_path, build=False)
    for number in range(6):
        world.file("big", b'{"%d": "%s"}' % (number, b"x" * (1 << 20 - 4)))
        world.file("big", b'{"%d": "%s"}' % (number, b"y" * 1000_000))
    alone = world.reader()(digest("big"), (), WITH_SUMMARIES)
    with ReadAhead(world.reader(), workers=1, start=1) as gather:
        workers(gather)
        gather.announce([(digest("big"), ()), (digest("none"), ())])
        assert gather(digest("big"), (), WITH_SUMMARIES) == alone
    assert sum(len(item.data) for item in alone.evidence) > module.opening.MAX_ANSWER


# --- workers that fail ---


def silent(pid: int) -> None:
    """It stays as it is."""


def killed(pid: int) -> None:
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()


@pytest.mark.parametrize(
    ("end", "patience", "said"), [(silent, 1.0, "said nothing for 1 seconds"), (killed, 60.0, "died")]
)
def test_what_a_lost_worker_had_in_hand_is_unverifiable(
    sound: Wide, end: Callable[[int], None], patience: float, said: str
) -> None:
    with ReadAhead(sound.reader(), workers=1, start=1, patience=patience) as gather:
        (pid,) = workers(gather)
        os.kill(pid, signal.SIGSTOP)
        end(pid)
        walked = sound.walk(gather, ahead=gather)
        assert gather.pids == []
    assert conclude(walked.findings)[0] == "unverifiable"
    assert {item.code for item in walked.findings} == {"BACKEND_UNAVAILABLE"}
    assert said in walked.findings[0].message
    states = {node.state for node in walked.graph.nodes.values()}
    assert states >= {"attested", "unverifiable"}, "the rest is walked by this process alone"
    assert not states & {"refused", "unattested"}
    lost = [node for node in walked.graph.nodes.values() if node.state == "unverifiable"]
    assert all(node.digest not in walked.graph.inputs for node in lost)


def test_one_of_two_workers_is_lost(sound: Wide) -> None:
    with ReadAhead(sound.reader(), workers=2, start=1, patience=1.0) as gather:
        pid, other = workers(gather)
        os.kill(pid, signal.SIGSTOP)
        walked = sound.walk(gather, ahead=gather)
        assert gather.pids == [other]
    assert conclude(walked.findings)[0] == "unverifiable"


BOOTS = {
    "ends at once": "raise SystemExit",
    "says nonsense": "import os; os.write(1, b'nonsense' * 100)",
    "is of another installation": (
        "import marshal, os; d = marshal.dumps(('sealflow', 'older')); "
        "os.write(1, len(d).to_bytes(8, 'little') + d); import time; time.sleep(60)"
    ),
    "never comes up": "import time; time.sleep(60)",
}


@pytest.mark.parametrize("boot", BOOTS)
def test_a_worker_that_does_not_come_up_changes_nothing(
    sound: Wide, monkeypatch: pytest.MonkeyPatch, boot: str, asked: list[int]
) -> None:
    monkeypatch.setattr(module, "_BOOT", BOOTS[boot])
    with ReadAhead(sound.reader(), workers=2, start=1) as gather:
        until = time.monotonic() + (1 if boot == "never comes up" else 30)
        while (gather.room(1 << 20), gather.pids)[1] and time.monotonic() < until:
            time.sleep(0.01)
        assert len(gather.pids) == (2 if boot == "never comes up" else 0)
        assert sound.walk(gather, ahead=gather).findings == ()
    assert asked == []


ANSWERS = {
    "nothing": b"",
    "no frame": (64).to_bytes(8, "little") + b"\xff" * 64,
    "too few": module.opening.frame([]),
    "something else": module.opening.frame("x"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_worker_that_gives_no_answer(sound: Wide, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    code = (
        "import marshal, os, sys; from_, to = sys.stdin.buffer, os.dup(1); sys.path[:] = marshal.load(from_); "
        "from sealflow.actions import opening as o; o._read(from_); os.write(to, o.frame(o.HELLO)); o._read(from_); "
        f"os.write(to, {ANSWERS[answer]!r})"
    )
    monkeypatch.setattr(module, "_BOOT", code)
    with ReadAhead(sound.reader(), workers=1, start=1, patience=20) as gather:
        workers(gather)
        walked = sound.walk(gather, ahead=gather)
    assert conclude(walked.findings)[0] == "unverifiable"


# --- where workers are started ---


def test_none_is_started_for_a_small_walk(sound: Wide) -> None:
    with ReadAhead(sound.reader(), workers=2) as gather:
        sound.walk(gather, ahead=gather)
        assert gather.pids == []


def test_none_is_left_behind(sound: Wide) -> None:
    with ReadAhead(sound.reader(), workers=2, start=1) as gather:
        pids = workers(gather)
        sound.walk(gather, ahead=gather)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_none_is_started_on_one_processor(sound: Wide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.processors, "usable", lambda: 1)
    with ReadAhead(sound.reader(), start=1) as gather:
        assert gather.room(1 << 20) == 0
        assert gather.pids == []


@pytest.mark.parametrize("executable", ["", "/usr/sbin/uwsgi", "/opt/trainer/trainer"])
def test_none_is_started_where_python_is_built_in(
    sound: Wide, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with ReadAhead(sound.reader(), workers=2, start=1) as gather:
        assert gather.room(1 << 20) == 0
        assert gather.pids == []


class OtherStorages(Storages):
    """What a caller made his own way, a worker cannot make."""


@pytest.mark.parametrize(
    "reader",
    [
        lambda world: EvidenceReader(["s3://bucket/evidence"], Storages(s3_client=object())),
        lambda world: EvidenceReader([str(world.store)], OtherStorages()),
    ],
    ids=["stores elsewhere", "other storages"],
)
def test_none_is_started_for_what_it_could_not_read(sound: Wide, reader: Callable[[Wide], EvidenceReader]) -> None:
    with ReadAhead(reader(sound), workers=2, start=1) as gather:
        assert gather.room(1 << 20) == 0
        assert gather.pids == []


def test_artifacts_that_lie_elsewhere_are_left_to_the_walk(sound: Wide) -> None:
    with ReadAhead(sound.reader(), workers=1, start=1) as gather:
        workers(gather)
        gather.announce([(digest("part-1"), ("s3://lake/part-1",)), (digest("part-2"), ("file:///" + "x" * 5000,))])
        assert not gather.is_waiting_for(digest("part-1"))
        assert not gather.is_waiting_for(digest("part-2"))


def _in_a_daemon(world: Wide, results: Any) -> None:
    with ReadAhead(world.reader(), workers=2, start=1) as gather:
        pids = workers(gather)
        results.put((multiprocessing.current_process().daemon, len(pids), sound_of(world.walk(gather, ahead=gather))))


def sound_of(walked: Walked) -> tuple[int, int]:
    return len(walked.graph.nodes), len(walked.findings)


def test_in_a_daemonic_process(sound: Wide) -> None:
    """Such processes run Airflow's tasks, and may not have children of multiprocessing."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_in_a_daemon, args=(sound, results), daemon=True)
    process.start()
    try:
        assert results.get(timeout=120) == (True, 2, (2 * WIDTH + 1, 0))
    finally:
        process.join(30)


def test_a_main_module_is_not_run_again(sound: Wide, tmp_path: Path) -> None:
    """A script without a guard, as users write them: workers that ran it would start workers."""
    script = tmp_path / "trace.py"
    script.write_text(
        "from sealflow.actions import ahead, trace\n"
        "import time\n"
        "print('run')\n"
        "init = ahead.ReadAhead.__init__\n"
        "def at_once(self, reader):\n"
        "    init(self, reader, workers=2, start=1)\n"
        "    while not self.room(9): time.sleep(0.01)\n"
        "    print(len(self.pids))\n"
        "ahead.ReadAhead.__init__ = at_once\n"
        f"found = trace.trace({str(digest('model'))!r}, identities={str(sound.key('trainer').public)!r}, "
        f"roots={str(sound.key('owner').public)!r}, evidence_stores=[{str(sound.store)!r}])\n"
        "print(found.verdict.status, len(found.graph.nodes))\n"
    )
    environment = {**os.environ, "SEALFLOW_AUDIT_SPOOL": str(tmp_path / "spool")}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.stdout.split("\n")[:3] == ["run", "2", f"passed {2 * WIDTH + 1}"], done.stderr


# --- processors ---


def cgroup(root: Path, group: str, **files: str) -> None:
    folder = root / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


@pytest.mark.parametrize(
    ("group", "own", "files", "count"),
    [
        ("", "0::/", {"cpu_max": "max 100000\n"}, 64),
        ("", "0::/", {"cpu_max": "200000 100000\n"}, 2),
        ("pod", "0::/pod/task", {"cpu_max": "350000 100000\n"}, 3),
        ("pod", "0::/other", {"cpu_max": "100000 100000\n"}, 64),
        ("", "0::/", {"cpu_max": "50000 100000\n"}, 1),
        ("", "0::/../../host", {"cpu_max": "200000 100000\n"}, 2),
        ("", "0::/", {"cpu_max": "many\n"}, 64),
        ("cpu", "4:cpu,cpuacct:/", {"cpu_cfs_quota_us": "200000\n", "cpu_cfs_period_us": "100000\n"}, 2),
        ("cpu/pod", "4:cpu,cpuacct:/pod", {"cpu_cfs_quota_us": "300000\n", "cpu_cfs_period_us": "100000\n"}, 3),
        ("cpu", "4:cpu:/", {"cpu_cfs_quota_us": "-1\n", "cpu_cfs_period_us": "100000\n"}, 64),
        ("cpu/pod", "5:memory:/pod", {"cpu_cfs_quota_us": "100000\n", "cpu_cfs_period_us": "100000\n"}, 64),
    ],
)
def test_processors_are_those_of_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, own: str, files: dict[str, str], count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    cgroup(tmp_path / "cgroup", group, **files)
    (tmp_path / "own").write_text(f"{own}\n")
    assert usable(str(tmp_path / "cgroup"), str(tmp_path / "own")) == count


def test_processors_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert usable(str(tmp_path / "none"), str(tmp_path / "none")) == 2
