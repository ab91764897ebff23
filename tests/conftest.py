"""Fixtures and rules for every test: hermetic environment, real servers, loud lines."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import hypothesis
import pytest

from tests.servers.ceph import PACKAGES, ceph_rgw, missing_programs
from tests.servers.juicefs import juicefs
from tests.servers.postgresql import PACKAGE as POSTGRESQL
from tests.servers.postgresql import PostgresqlServer, postgresql_server, programs
from tests.servers.s3 import S3Server, moto_server
from tests.servers.seaweed import PACKAGE as SEAWEEDFS
from tests.servers.seaweed import program as weed
from tests.servers.seaweed import seaweedfs
from tests.servers.softhsm import PACKAGE as SOFTHSM
from tests.servers.softhsm import SoftHsm, softhsm_token
from tests.servers.softhsm import missing as missing_softhsm

ROOT = Path(__file__).resolve().parent.parent

# Read here, because every test runs without them.
VECTORS = Path(os.environ.get("SEALFLOW_VECTORS", ROOT.parent / "shared" / "vectors"))
REQUIRE_CEPH = os.environ.get("SEALFLOW_REQUIRE_CEPH") == "1"
REQUIRE_PROGRAMS = os.environ.get("SEALFLOW_REQUIRE_PROGRAMS") == "1"
REQUIRE_VECTORS = os.environ.get("SEALFLOW_REQUIRE_VECTORS") == "1"
REQUIRE_ALL = os.environ.get("SEALFLOW_REQUIRE_ALL") == "1"

# The machine's load is no property of the code, so no example has a deadline.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=200, derandomize=True, print_blob=True)
# `make fuzz`: other examples each time, as many as one has time for.
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "5000")))
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


# --- Loud lines: what a run did not do is said at its very end, once, also under xdist ---

LOUD = pytest.StashKey[dict[str, None]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LOUD] = {}
    _work_in_memory()
    # jsonschema builds a grammar of IRIs as it is imported, for a check of formats that no test asks for: a second and
    # a half in every worker. Without the library it has another way.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def loud(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Say a line at the end of the run, however often it is called with it."""
    return lambda line: pytestconfig.stash[LOUD].setdefault(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Audit chains end with the process, after their folders.
    logging.disable()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["loud"] = list(session.config.stash[LOUD])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    # A worker that crashed has no output.
    lines = getattr(node, "workeroutput", {}).get("loud", [])
    node.config.stash[LOUD].update(dict.fromkeys(lines))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    for line in config.stash[LOUD]:
        terminalreporter.write_line(f"!!! {line}", yellow=True, bold=True)


# --- Tests write into memory ---

#: Bytes that must be free there; a whole run takes a part of them.
ROOM = 6 << 30


def _work_in_memory() -> None:
    """Have pytest make its folders in memory, where there is room and programs can run.

    Every signature and every check makes an audit event durable. On a disk that is milliseconds of waiting each, and
    hours in all; that files survive a loss of power is nothing that a test could see.
    """
    memory = Path("/dev/shm")
    if "PYTEST_DEBUG_TEMPROOT" in os.environ or not os.access(memory, os.W_OK):
        return
    has = os.statvfs(memory)
    if has.f_bavail * has.f_frsize >= ROOM and not has.f_flag & os.ST_NOEXEC:
        # What pytest itself calls it. Workers inherit it.
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(memory)


_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if REQUIRE_ALL and report.skipped:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"SEALFLOW_REQUIRE_ALL=1, but this was left out: {why}"
    item.stash[_PASSED] = item.stash.get(_PASSED, True) and report.passed
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Empty the folder of a test that passed, and leave it there.

    pytest can remove it itself (`tmp_path_retention_policy`), and then hands the same path to the next test of a
    similar name: what the code under test keeps by path would be that of another test.
    """
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    result = yield
    if folder is not None and item.stash.get(_PASSED, False):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return result


_numbers = itertools.count()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for this test alone.

    pytest's own looks for a free number through every folder that a run has made so far, which was a quarter of the
    time that the quick tests took.
    """
    name = re.sub(r"\W", "_", request.node.name)[:26]
    folder = _folder_of(tmp_path_factory, "t") / f"{name}{next(_numbers)}"
    folder.mkdir(mode=0o700)
    return folder


def _folder_of(factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a folder of many, which nobody looks through who asks the factory for one."""
    folder = factory.getbasetemp() / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


# --- A test sees nothing of the machine's settings ---


@pytest.fixture(autouse=True)
def _hermetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Not the `monkeypatch` fixture: hypothesis rightly warns of it in property tests.
    home = _folder_of(tmp_path_factory, "homes") / str(next(_numbers))
    home.mkdir()
    # What a run has verified goes into what it signs; runs of the same name are another test's.
    if context := sys.modules.get("sealflow.actions.context"):
        context._verified.clear()
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("SEALFLOW_", "AWS_")):
                patch.delenv(name)
        # Otherwise boto3 may ask a cloud's metadata service for keys, and wait for it.
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setenv("HOME", str(home))
        for name in ("CACHE", "CONFIG", "DATA", "STATE"):
            patch.setenv(f"XDG_{name}_HOME", str(home / f".{name.lower()}"))
        yield


# --- Which tests, and in which order ---

#: ``-m 'not slow and not kfp'``, and nothing more involved.
_ONLY_NOT = re.compile(r"not \w+( and not \w+)*")
_MARKS_OF_A_FILE = re.compile(r"^pytestmark = (.+)$", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a file whose every test is left out: merely to import some takes seconds."""
    expression = config.option.markexpr
    if collection_path.suffix != ".py" or not _ONLY_NOT.fullmatch(expression):
        return None
    if any(Path(argument.partition("::")[0]).resolve() == collection_path for argument in config.args):
        return None
    marks = _MARKS_OF_A_FILE.search(collection_path.read_text())
    unwanted = set(re.findall(r"not (\w+)", expression))
    return True if marks and unwanted & set(re.findall(r"\bpytest\.mark\.(\w+)", marks[1])) else None


def pytest_collection() -> None:
    # Ten thousand tests stay until the end: no need to look through them for garbage again and again.
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


#: Folders whose single tests take up to minutes: they come first, so that no worker waits for another's at the end.
#: Groups come before all others anyway, the largest first: xdist does that.
_LONGEST_FIRST = ("e2e", ".", "servers", "conformance", "airflow", "kubeflow", "attacks")


@functools.cache
def _rank(path: Path) -> int:
    folder = path.relative_to(ROOT / "tests").parent.parts if path.is_relative_to(ROOT / "tests") else ()
    name = folder[0] if folder else "."
    return _LONGEST_FIRST.index(name) if name in _LONGEST_FIRST else len(_LONGEST_FIRST)


# First, so that both `-m` and xdist see the markers.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _rank(item.path))
    for item in items:
        if "s3_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server)
            # One worker runs them all, so one server is started.
            item.add_marker(pytest.mark.xdist_group("s3"))
        if "postgresql" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server)
            item.add_marker(pytest.mark.xdist_group("postgresql"))


# --- Servers ---


@pytest.fixture(scope="session")
def s3_server(loud: Callable[[str], None]) -> Iterator[S3Server]:
    """A real S3 server: Ceph's gateway, SeaweedFS where that is not installed; moto where neither is.

    ``SEALFLOW_TEST_S3`` asks for one of them: ``ceph``, ``seaweedfs``, ``moto``, or ``juicefs``, which stands in for
    none, since it heeds no conditions and keeps no versions.
    """
    missing, asked = missing_programs(), os.environ.get("SEALFLOW_TEST_S3", "")
    what = f"Ceph RGW is not installed (no {', '.join(missing)}; Debian packages: {PACKAGES})"
    servers: dict[str, Callable[[], AbstractContextManager[S3Server]]] = {
        "ceph": ceph_rgw,
        "seaweedfs": seaweedfs,
        "juicefs": juicefs,
        "moto": moto_server,
    }
    if asked and asked not in servers:
        pytest.fail(f"SEALFLOW_TEST_S3={asked} is no server that the tests know")
    if REQUIRE_CEPH and (missing or asked not in ("", "ceph")):
        pytest.fail(f"SEALFLOW_REQUIRE_CEPH=1, but {what if missing else f'SEALFLOW_TEST_S3={asked}'}")
    taken = asked or ("ceph" if not missing else "seaweedfs" if weed() is not None else "moto")
    why = "It was asked for" if asked else what
    if taken == "moto":
        loud(f"S3: moto fallback, a mock and no proof. {what}; neither is SeaweedFS ({SEAWEEDFS})")
    elif taken != "ceph":
        loud(f"S3: {taken}, some of whose ways are others than Ceph's. {why}")
    with servers[taken]() as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """The name of a fresh bucket without versioning."""
    return s3_server.make_bucket()


@pytest.fixture
def s3_versioned_bucket(s3_server: S3Server) -> str:
    """The name of a fresh bucket that keeps versions."""
    return s3_server.make_bucket(versioned=True)


@pytest.fixture(scope="session")
def postgresql(loud: Callable[[str], None]) -> Iterator[PostgresqlServer]:
    """A real PostgreSQL server; skipped loudly where none is installed."""
    if programs() is None:
        what = f"PostgreSQL is not installed (Debian package: {POSTGRESQL})"
        if REQUIRE_PROGRAMS:
            pytest.fail(f"SEALFLOW_REQUIRE_PROGRAMS=1, but {what}")
        loud(f"POSTGRESQL: inboxes in a database not checked, {what}")
        pytest.skip(what)
    with postgresql_server() as server:
        yield server


@pytest.fixture(scope="session")
def softhsm(loud: Callable[[str], None]) -> Iterator[SoftHsm]:
    """A PKCS#11 token; skipped loudly where SoftHSM2 is not installed."""
    if missing := missing_softhsm():
        what = f"SoftHSM2 is not installed (no {missing}; Debian package: {SOFTHSM})"
        if REQUIRE_PROGRAMS:
            pytest.fail(f"SEALFLOW_REQUIRE_PROGRAMS=1, but {what}")
        loud(f"SOFTHSM: keys on PKCS#11 tokens not checked, {what}")
        pytest.skip(what)
    with softhsm_token() as token:
        yield token


@pytest.fixture(scope="module")
def _posture_world() -> Iterator[str]:
    from tests.postures import world

    with world() as key:
        yield key


@pytest.fixture
def aws(_posture_world: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The buckets of tests.postures, in moto; the ARN of the good one's key. Each test forgets the variables."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    return _posture_world


# --- Programs that are not ours ---


@pytest.fixture(scope="session")
def need_program(loud: Callable[[str], None]) -> Callable[[str, str, str], None]:
    """Skip loudly where a program (of a Debian package) is missing: ``need_program("gpg", "gnupg", "what of it")``."""

    def need(program: str, package: str, unchecked: str) -> None:
        if shutil.which(program):
            return
        what = f"there is no {program} (Debian package: {package})"
        if REQUIRE_PROGRAMS:
            pytest.fail(f"SEALFLOW_REQUIRE_PROGRAMS=1, but {what}")
        loud(f"PROGRAM: {unchecked}, {what}")
        pytest.skip(what)

    return need


# --- Published vectors ---


@pytest.fixture(scope="session")
def vectors_dir(loud: Callable[[str], None]) -> Path:
    """The folder of published schemas and test vectors, which are not copied into the project."""
    if not VECTORS.is_dir():
        what = f"published vectors not found at {VECTORS} (set SEALFLOW_VECTORS)"
        if REQUIRE_VECTORS:
            pytest.fail(f"SEALFLOW_REQUIRE_VECTORS=1, but {what}")
        loud(f"VECTORS: conformance not checked, {what}")
        pytest.skip(what)
    return VECTORS
