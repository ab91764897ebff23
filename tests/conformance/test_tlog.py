"""The audit log in the hands of golang.org/x/mod, which knows nothing of us."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sealflow.actions.audit_prove import prove_event
from sealflow.audit.checkpoint import open_checkpoint
from tests.core.audit.logs import MadeLog, chain_lines
from tests.documents import block

PROGRAM = Path(__file__).parent / "tlogcheck" / "main.go"
#: Where Debian's golang-golang-x-mod-dev puts its sources.
GOPATH = "/usr/share/gocode"
NOTE = Path(GOPATH, "src/golang.org/x/mod/sumdb/note/note.go")

Go = Callable[..., "tuple[int, str]"]


@pytest.fixture(scope="session")
def go(
    need_program: Callable[[str, str, str], None], loud: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Go:
    """The Go program, built; called with its arguments it returns exit status and output."""
    unchecked = "the audit log was not opened with Go's x/mod"
    need_program("go", "golang-go", unchecked)
    if not NOTE.exists():
        what = f"there is no {NOTE} (Debian package: golang-golang-x-mod-dev)"
        if os.environ.get("SEALFLOW_REQUIRE_PROGRAMS") == "1":
            pytest.fail(f"SEALFLOW_REQUIRE_PROGRAMS=1, but {what}")
        loud(f"PROGRAM: {unchecked}, {what}")
        pytest.skip(what)
    folder = tmp_path_factory.mktemp("go")
    environment = os.environ | {"GO111MODULE": "off", "GOPATH": GOPATH, "GOCACHE": str(folder / "cache")}
    environment |= {"GOFLAGS": "", "GOPROXY": "off", "CGO_ENABLED": "0"}
    built = folder / "tlogcheck"
    subprocess.run(["go", "build", "-o", built, PROGRAM], env=environment, check=True, timeout=240)

    def run(*arguments: object) -> tuple[int, str]:
        done = subprocess.run([built, *map(str, arguments)], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout.strip()

    return run


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeLog:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return MadeLog(tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize("sizes", [(1,), (2, 5), (256,), (300, 700), (255, 1, 1), (70_000,)], ids=str)
def test_go_recomputes_the_tree(go: Go, log: MadeLog, sizes: tuple[int, ...]) -> None:
    roots = {}
    for size in sizes:
        log.add([b"entry %d" % (log.size + number) for number in range(size)])
        assert log.checkpoint is not None
        checkpoint = open_checkpoint(log.checkpoint, log.key).checkpoint
        roots[checkpoint.size] = checkpoint.root
    for old, root in roots.items():
        status, said = go("log", log.key, log.path("."), old)
        assert (status, said.splitlines()) == (0, [base64.b64encode(root).decode(), "ok"])


def test_the_lines_of_the_reference() -> None:
    """The two calls that docs/reference/audit-log.md shows are those of the program that is run below."""
    program = PROGRAM.read_text(encoding="utf-8")
    for line in block("reference/audit-log", "go").splitlines():
        (call,) = re.findall(r"((?:note|tlog)\.\w+)\(", line.partition("//")[0])[:1]
        package = line.partition("// ")[2].strip()
        assert f"{call}(" in program
        assert f'"{package}"' in program


@pytest.mark.oracle
def test_go_checks_our_proofs(go: Go, log: MadeLog, tmp_path: Path) -> None:
    log.add(chain_lines(300))
    log.add(chain_lines(300))
    for index in (0, 255, 256, 299, 300, 599):
        (proved,) = prove_event(str(tmp_path / "out"), log.store.uri, str(log.key), index=index)
        entry, proof, key = map(Path, proved.files)
        vkey = key.read_text().strip()
        assert go("proof", vkey, entry, proof) == (0, "ok")
        (tmp_path / "altered").write_bytes(entry.read_bytes().replace(b"verify", b"forged"))
        if index not in (299, 599):
            status, said = go("proof", vkey, tmp_path / "altered", proof)
            assert status == 1
            assert "invalid transparency proof" in said
    (tmp_path / "moved").write_bytes(proof.read_bytes().replace(b"index 599", b"index 598"))
    assert go("proof", vkey, entry, tmp_path / "moved")[0] == 1
    other = MadeLog(tmp_path, uri=str(tmp_path / "other"), key="other")
    assert go("proof", other.key, entry, proof)[0] == 1


@pytest.mark.oracle
def test_go_refuses_what_was_altered(go: Go, log: MadeLog) -> None:
    log.add(chain_lines(300))
    tile = log.path("tile/0/001.p/44")
    data = tile.read_bytes()
    tile.write_bytes(bytes((data[0] ^ 1,)) + data[1:])
    assert go("log", log.key, log.path("."), 257)[0] == 1
    tile.write_bytes(data)
    assert go("log", log.key, log.path("."), 257)[0] == 0
    log.path().write_bytes(log.path().read_bytes().replace(b"\n300\n", b"\n299\n"))
    assert go("log", log.key, log.path("."), 257)[0] == 1
