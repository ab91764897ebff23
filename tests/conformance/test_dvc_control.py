"""Tampered DVC repositories: what we say, with DVC itself as the control column.

Each scenario changes one thing in a clean repository that real DVC made. The last two columns say what DVC 3 answers
and which of our codes decide at level L2. Whenever DVC says that something changed, we do; where DVC says ``clean`` and
we do not, a user of ``dvc status`` was deceived.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sealflow.actions import context
from sealflow.actions.lineage_evidence import Vouchers, store_of
from sealflow.actions.lineage_sign import sign_lineage
from sealflow.errors import ArtifactError
from sealflow.lineage.check import LineageCheck, check_repository
from sealflow.policy import parse_identities
from sealflow.storage import Storages
from tests.core.lineage import dvcrepo
from tests.core.lineage.dvcrepo import Dvc
from tests.core.lineage.repos import FIRST, SECOND
from tests.pki import KeyPair, write_key

pytestmark = [pytest.mark.oracle, pytest.mark.slow, pytest.mark.xdist_group("dvc")]

Tamper = Callable[[Path], None]


@dataclass(frozen=True)
class World:
    """DVC, and the clean repository that scenarios copy."""

    dvc: Dvc
    usual: Path
    key: KeyPair

    @property
    def store(self) -> str:
        return (self.usual.parent / "evidence").as_uri()

    def sign(self, root: Path, *targets: str) -> None:
        sign_lineage(str(root), targets, signer=self.key.signer, evidence_store=self.store)

    def check_signed(self, root: Path, level: str) -> LineageCheck:
        """Check with what was signed about the clean repository; without what else a level asks for."""
        surroundings = context.current()
        store = store_of(str(root), self.store, surroundings, Storages())
        vouchers = Vouchers(root.as_uri(), store, parse_identities(str(self.key.public)), None, surroundings)
        return check_repository(str(root), level=level, binding=vouchers)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    base = tmp_path_factory.mktemp("dvc")
    with dvcrepo.running(base / "home") as dvc:
        usual = dvcrepo.make_usual(dvc, base / "usual", dvcrepo.make_upstream(dvc, base / "upstream"))
        made = World(dvc, usual, write_key(base))
        # What hangs on data with a line feed in a name cannot be signed.
        made.sign(usual, "raw.csv.dvc", "train", "evaluate", "shard", "grid")
        yield made


# --- Ways to tamper ---


def edit(name: str, old: str, new: str, count: int = 1) -> Tamper:
    def tamper(root: Path) -> None:
        path = root / name
        text = path.read_text()
        assert old in text, (old, text)
        unprotected(path).write_text(text.replace(old, new, count))

    return tamper


def swap(name: str, pattern: str, new: str) -> Tamper:
    def tamper(root: Path) -> None:
        text = (root / name).read_text()
        changed = re.sub(pattern, new, text, count=1, flags=re.S)
        assert changed != text, text
        (root / name).write_text(changed)

    return tamper


def put(name: str, content: str | bytes) -> Tamper:
    return lambda root: (
        dvcrepo.write(root, {name: content}) if not (root / name).exists() else overwrite(root / name, content)
    )


def overwrite(path: Path, content: str | bytes) -> None:
    unprotected(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def unprotected(path: Path) -> Path:
    # DVC may have linked the file to its cache.
    if path.exists():
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    return path


def remove(name: str) -> Tamper:
    def tamper(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return tamper


def both(*tampers: Tamper) -> Tamper:
    def tamper(root: Path) -> None:
        for one in tampers:
            one(root)

    return tamper


def quietly(root: Path) -> None:
    """Same size, same inode, same times: what DVC's state database cannot see."""
    path = root / "raw.csv"
    info = path.stat()
    with path.open("r+b") as file:
        file.write(b"R\n")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def to_link(name: str, target: str) -> Tamper:
    def tamper(root: Path) -> None:
        (root / name).rename(root / target)
        (root / name).symlink_to(os.path.relpath(root / target, (root / name).parent))

    return tamper


def outside_link(root: Path) -> None:
    target = root.parent / f"{root.name}-outside.csv"
    target.write_bytes((root / "raw.csv").read_bytes())
    (root / "raw.csv").unlink()
    (root / "raw.csv").symlink_to(target)


def object_of(root: Path, digest: str) -> Path:
    return root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]


def digest_in(root: Path, name: str, path: str) -> str:
    match = re.search(rf"md5: (\S+)\n(?:  .*\n)*?  path: {re.escape(path)}\n", (root / name).read_text())
    assert match is not None
    return match[1]


def poison(root: Path) -> None:
    """A cache object with other bytes and the mode that DVC trusts, ready to be checked out."""
    place = object_of(root, digest_in(root, "raw.csv.dvc", "raw.csv"))
    place.chmod(0o644)
    place.write_bytes(b"evil\n")
    place.chmod(0o444)
    (root / "raw.csv").unlink()


def spoil_listing(root: Path) -> None:
    place = object_of(root, digest_in(root, "data.dvc", "data"))
    place.chmod(0o644)
    place.write_text(place.read_text().replace("a.csv", "x.csv"))
    place.chmod(0o444)


def escape(root: Path) -> None:
    """A consistent .dir object that names a file outside of its folder, recorded as if DVC had."""
    old = digest_in(root, "data.dvc", "data")
    body = json.loads(object_of(root, old).read_text())
    body.append({"md5": "0" * 32, "relpath": "../../escaped"})
    text = json.dumps(sorted(body, key=lambda item: item["relpath"]), sort_keys=True)
    new = hashlib.md5(text.encode()).hexdigest() + ".dir"
    object_of(root, new).parent.mkdir(exist_ok=True, parents=True)
    object_of(root, new).write_text(text)
    edit("data.dvc", old, new)(root)


def forge(root: Path) -> None:
    """Data and every record of it changed to fit each other."""
    overwrite(root / "shard_a.txt", b"forged\n")
    old = hashlib.md5(b"a\n").hexdigest()
    swap("dvc.lock", rf"{old}\n      size: 2", f"{hashlib.md5(b'forged' + bytes([10])).hexdigest()}\n      size: 7")(
        root
    )


def legacy(ends: bytes, *, size: bool) -> Tamper:
    """A digest of DVC 2, and the text with these line ends."""

    def tamper(root: Path) -> None:
        text = b"one\ntwo\n"
        overwrite(root / "raw.csv", text.replace(b"\n", ends))
        lines = [
            "outs:",
            f"- md5: {hashlib.md5(text).hexdigest()}",
            *(["  size: 8"] if size else []),
            "  path: raw.csv",
        ]
        (root / "raw.csv.dvc").write_text("\n".join(lines) + "\n")
        # The stage that reads it fits as well.
        lock = (root / "dvc.lock").read_text()
        entry = f"- path: raw.csv\n      md5: {hashlib.md5(text).hexdigest()}\n"
        (root / "dvc.lock").write_text(
            re.sub(r"- path: raw\.csv\n      hash: md5\n      md5: \S+\n      size: 2\n", entry, lock)
        )

    return tamper


def with_stage(text: str) -> Tamper:
    return lambda root: overwrite(root / "dvc.yaml", (root / "dvc.yaml").read_text() + text)


LOCK = "dvc.lock"
CHANGED, CLEAN, ERROR = "changed", "clean", "error"

# name, how, what DVC says, our deciding codes at L2 (empty: passed)
SCENARIOS: list[tuple[str, Tamper, str, set[str]]] = [
    ("nothing", lambda root: None, CLEAN, set()),
    # Data.
    ("file-edited", put("raw.csv", "other\n"), CHANGED, {"DATA_MISMATCH", "SIZE_MISMATCH"}),
    ("file-edited-in-place-times-kept", quietly, CLEAN, {"DATA_MISMATCH"}),
    ("file-removed", remove("raw.csv"), CHANGED, {"DATA_MISSING"}),
    ("file-became-empty", put("raw.csv", ""), CHANGED, {"DATA_MISMATCH", "SIZE_MISMATCH"}),
    ("file-became-folder", both(remove("raw.csv"), put("raw.csv/x", "r\n")), CHANGED, {"DATA_MISMATCH"}),
    ("code-edited", put("code/train.py", "print(2)\n"), CHANGED, {"DATA_MISMATCH"}),
    ("folder-file-edited", put("data/a.csv", "9,2\n"), CHANGED, {"DATA_MISMATCH"}),
    ("folder-file-added", put("data/new.csv", "x"), CHANGED, {"DATA_MISMATCH", "DATA_EXTRA"}),
    ("folder-file-removed", remove("data/sub/b.csv"), CHANGED, {"DATA_MISMATCH", "DATA_MISSING"}),
    ("folder-empty-file-removed", remove("data/empty"), CHANGED, {"DATA_MISMATCH", "DATA_MISSING"}),
    ("folder-file-renamed-by-case", lambda root: (root / "data/a.csv").rename(root / "data/A.csv"), CHANGED,
     {"DATA_MISMATCH", "DATA_MISSING", "DATA_EXTRA"}),
    ("folder-file-renamed-by-unicode-form", lambda root: (root / "data/ü é.txt").rename(root / "data/u\u0308 é.txt"),
     CHANGED, {"DATA_MISMATCH", "DATA_MISSING", "DATA_EXTRA"}),
    ("folder-file-with-newline-added", put("data/a\nb", ""), CHANGED, {"DATA_MISMATCH", "DATA_EXTRA"}),
    ("folder-files-swapped", both(put("data/a.csv", "3,4\n"), put("data/sub/b.csv", "1,2\n")), CHANGED,
     {"DATA_MISMATCH"}),
    ("folder-became-empty", both(remove("data"), lambda root: (root / "data").mkdir()), CHANGED,
     {"DATA_MISMATCH", "DATA_MISSING"}),
    ("folder-became-file", both(remove("data"), put("data", "x")), CHANGED, {"DATA_MISMATCH"}),
    ("folder-removed", remove("data"), CHANGED, {"DATA_MISSING"}),
    ("folder-became-link", to_link("data", "elsewhere"), CLEAN, {"DATA_REFUSED"}),
    ("file-in-folder-became-link", to_link("data/a.csv", "elsewhere.csv"), CLEAN, {"DATA_REFUSED"}),
    ("file-became-link-out-of-the-repository", outside_link, CLEAN, {"DATA_REFUSED"}),
    ("extra-file-hidden-by-dvcignore", both(put(".dvcignore", "*.hid\n"), put("data/x.hid", "evil")), CLEAN,
     {"DATA_MISMATCH", "DATA_EXTRA"}),
    ("extra-folder-hidden-by-its-name", put("data/.git/evil", "evil"), CLEAN, {"DATA_MISMATCH", "DATA_EXTRA"}),
    ("pipeline-smuggled-into-data", put("data/dvc.yaml", "stages: {}\n"), CHANGED, {"DATA_MISMATCH", "DATA_EXTRA"}),
    ("output-edited", put("clean.csv", "0,0\n"), CHANGED, {"DATA_MISMATCH", "SIZE_MISMATCH"}),
    ("output-folder-edited", put("model/meta", "2\n"), CHANGED, {"DATA_MISMATCH"}),
    ("metric-outside-of-the-cache-edited", put("score.json", "99\n"), CHANGED, {"DATA_MISMATCH"}),
    ("plot-edited", put("curve.csv", "y,x\n"), CHANGED, {"DATA_MISMATCH"}),
    ("persistent-output-edited", put("log.txt", "log\nlog\n"), CHANGED, {"DATA_MISMATCH", "SIZE_MISMATCH"}),
    ("output-in-another-folder-edited", put("grid/2/out.txt", "9-x\n"), CHANGED, {"DATA_MISMATCH"}),
    ("imported-data-edited", put("shared.csv", "1\n3\n"), CHANGED, {"DATA_MISMATCH"}),
    # Records.
    ("dvc-file-digest-edited", swap("raw.csv.dvc", r"md5: ..", "md5: 00"), CHANGED, {"DATA_MISMATCH", "CHAIN_BREAK"}),
    ("dvc-file-size-edited", swap("raw.csv.dvc", r"size: 2", "size: 3"), CLEAN, {"SIZE_MISMATCH"}),
    ("dvc-file-nfiles-edited", swap("data.dvc", r"nfiles: 5", "nfiles: 4"), CLEAN, {"SIZE_MISMATCH"}),
    ("dvc-file-without-digest", swap("raw.csv.dvc", r"md5: \S+", "md5: ''"), CHANGED, {"DATA_NOT_LOCKED"}),
    ("dvc-file-unknown-field", put("raw.csv.dvc", "outs:\n- path: raw.csv\n  evil: 1\n"), ERROR, {"LINEAGE_MALFORMED"}),
    ("dvc-file-no-yaml", put("raw.csv.dvc", "outs: [\n"), ERROR, {"LINEAGE_MALFORMED"}),
    ("dvc-file-names-a-path-outside", swap("raw.csv.dvc", r"path: raw.csv", "path: ../../raw.csv"), ERROR,
     {"DATA_EXTERNAL"}),
    ("dvc-file-removed", remove("raw.csv.dvc"), CLEAN, set()),
    ("dvc-file-always-changed", put("raw.csv.dvc", "always_changed: true\nouts:\n"
     "- md5: 72cfd272ace172fa35026445fbef9b03\n  size: 2\n  hash: md5\n  path: raw.csv\n"), CHANGED,
     {"STAGE_ALWAYS_CHANGED"}),
    ("import-revision-edited", swap("shared.csv.dvc", r"rev_lock: ....", "rev_lock: 0000"), ERROR,
     {"DVC_FILE_ALTERED"}),
    ("import-origin-edited", swap("shared.csv.dvc", r"url: /", "url: //"), CHANGED, {"DVC_FILE_ALTERED"}),
    ("lock-digest-edited", swap(LOCK, r"(clean\.csv\n      hash: md5\n      md5: )..", r"\g<1>00"), CHANGED,
     {"DATA_MISMATCH", "CHAIN_BREAK"}),
    ("lock-dependency-digest-edited", swap(LOCK, r"(raw\.csv\n      hash: md5\n      md5: )..", r"\g<1>00"), CHANGED,
     {"DATA_MISMATCH", "CHAIN_BREAK"}),
    ("lock-size-edited", swap(LOCK, r"size: 22", "size: 23"), CLEAN, {"SIZE_MISMATCH"}),
    ("lock-nfiles-edited", swap(LOCK, r"nfiles: 2", "nfiles: 3"), CLEAN, {"SIZE_MISMATCH"}),
    ("lock-hash-unknown", swap(LOCK, r"hash: md5", "hash: sha1"), CHANGED, {"LINEAGE_MALFORMED"}),
    ("lock-command-edited", swap(LOCK, r"echo a >", "echo evil >"), CHANGED, {"CMD_DRIFT"}),
    ("lock-parameter-edited", swap(LOCK, r"lr: 0.1", "lr: 0.2"), CHANGED, {"PARAMS_DRIFT"}),
    ("lock-parameter-removed", swap(LOCK, r"        train.epochs: 3\n", ""), CHANGED, {"LOCK_INCOMPLETE"}),
    ("lock-parameter-added", swap(LOCK, r"        train.epochs: 3\n", "        train.epochs: 3\n        zz: 1\n"),
     CLEAN,
     {"LOCK_ORPHAN"}),
    ("lock-dependency-removed", swap(LOCK, r"    - path: code/train.py\n.*?size: 9\n", ""), CHANGED,
     {"LOCK_INCOMPLETE"}),
    ("lock-output-removed", swap(LOCK, r"    - path: log.txt\n.*?size: 4\n", ""), CHANGED, {"LOCK_INCOMPLETE"}),
    ("lock-output-added", swap(LOCK, r"(    - path: log.txt\n)", "    - path: raw.csv\n      hash: md5\n"
     "      md5: 72cfd272ace172fa35026445fbef9b03\n\\g<1>"), CLEAN, {"LOCK_ORPHAN"}),
    ("lock-path-twice", swap(LOCK, r"(    - path: log.txt\n.*?size: 4\n)", r"\g<1>\g<1>"), CLEAN,
     {"LINEAGE_MALFORMED"}),
    ("lock-stage-removed", swap(LOCK, r"  evaluate:.*?(?=  shard@a)", ""), CHANGED, {"STAGE_NOT_LOCKED"}),
    ("lock-stage-added", edit(LOCK, "stages:\n", "stages:\n  ghost:\n    cmd: evil\n"), CLEAN, {"STAGE_ORPHAN"}),
    ("lock-stage-twice", edit(LOCK, "stages:\n", "stages:\n  prepare:\n    cmd: evil\n"), ERROR, {"LINEAGE_MALFORMED"}),
    ("lock-removed", remove(LOCK), CHANGED, {"STAGE_NOT_LOCKED"}),
    ("lock-emptied", put(LOCK, ""), ERROR, {"LOCK_SCHEMA"}),
    ("lock-of-schema-1", swap(LOCK, r"schema: '2.0'", "schema: '1.0'"), ERROR, {"LOCK_SCHEMA"}),
    ("lock-without-schema", swap(LOCK, r"schema: '2.0'\n", ""), ERROR, {"LOCK_SCHEMA"}),
    ("lock-schema-a-number", swap(LOCK, r"schema: '2.0'", "schema: 2.0"), ERROR, {"LOCK_SCHEMA"}),
    ("lock-and-data-forged-to-fit", forge, CHANGED, set()),
    # Definitions.
    ("command-edited", edit("dvc.yaml", "echo ${item} >", "echo x ${item} >"), CHANGED, {"CMD_DRIFT"}),
    ("command-edited-through-a-variable", edit("dvc.yaml", "greeting: hello", "greeting: bye"), CHANGED, {"CMD_DRIFT"}),
    ("dependency-added", edit("dvc.yaml", "deps: [data, raw.csv]", "deps: [data, raw.csv, shared.csv]"), CHANGED,
     {"LOCK_INCOMPLETE"}),
    ("dependency-removed", edit("dvc.yaml", "deps: [data, raw.csv]", "deps: [data]"), CLEAN, {"LOCK_ORPHAN"}),
    ("output-added", edit("dvc.yaml", "outs: [clean.csv]", "outs: [clean.csv, new.csv]"), CHANGED, {"LOCK_INCOMPLETE"}),
    ("output-removed", edit("dvc.yaml", "      - log.txt: {persist: true}\n", ""), CLEAN, {"LOCK_ORPHAN"}),
    ("parameter-added", edit("dvc.yaml", "      - lr\n", "      - lr\n      - other\n"), CHANGED, {"LOCK_INCOMPLETE"}),
    ("parameter-removed", edit("dvc.yaml", "      - lr\n", ""), CLEAN, {"LOCK_ORPHAN"}),
    ("stage-removed", swap("dvc.yaml", r"  evaluate:.*?(?=  shard:)", ""), CLEAN, {"STAGE_ORPHAN"}),
    ("stage-added", with_stage("  more:\n    cmd: echo\n    deps: [raw.csv]\n"), CHANGED, {"STAGE_NOT_LOCKED"}),
    ("stage-renamed", edit("dvc.yaml", "  evaluate:", "  assess:"), CHANGED, {"STAGE_NOT_LOCKED", "STAGE_ORPHAN"}),
    ("generated-stage-removed", edit("dvc.yaml", "[a, b]", "[a]"), CLEAN, {"STAGE_ORPHAN"}),
    ("generated-stage-added", edit("dvc.yaml", "[a, b]", "[a, b, c]"), CHANGED, {"STAGE_NOT_LOCKED"}),
    ("matrix-changed", edit("dvc.yaml", "size: [1, 2]", "size: [1]"), CLEAN, {"STAGE_ORPHAN"}),
    ("stage-frozen", edit("dvc.yaml", "  prepare:\n", "  prepare:\n    frozen: true\n"), CLEAN, {"STAGE_FROZEN"}),
    ("stage-frozen-and-its-parameter-changed", both(edit("dvc.yaml", "  train:\n", "  train:\n    frozen: true\n"),
     edit("params.yaml", "epochs: 3", "epochs: 4")), CHANGED, {"STAGE_FROZEN", "PARAMS_DRIFT", "CMD_DRIFT"}),
    ("stage-frozen-and-its-dependency-changed", both(edit("dvc.yaml", "  train:\n", "  train:\n    frozen: true\n"),
     put("code/train.py", "evil\n")), CLEAN, {"STAGE_FROZEN", "DATA_MISMATCH", "SIZE_MISMATCH"}),
    ("stage-always-changed", edit("dvc.yaml", "  prepare:\n", "  prepare:\n    always_changed: true\n"), CHANGED,
     {"STAGE_ALWAYS_CHANGED"}),
    ("stage-without-anything", with_stage("  nothing:\n    cmd: echo\n"), CHANGED,
     {"STAGE_NOT_LOCKED", "STAGE_ALWAYS_CHANGED"}),
    ("working-folder-changed", edit("dvc.yaml", "wdir: grid/${item.size}", "wdir: grid"), CHANGED,
     {"DATA_MISSING", "OUT_OVERLAP"}),
    ("output-of-two-stages", with_stage("  two:\n    cmd: echo\n    outs: [clean.csv]\n"), CHANGED,
     {"OUT_OVERLAP", "STAGE_NOT_LOCKED"}),
    ("output-inside-of-an-output", with_stage("  two:\n    cmd: echo\n    outs: [model/more]\n"), CHANGED,
     {"OUT_OVERLAP", "STAGE_NOT_LOCKED"}),
    ("cycle", edit("dvc.yaml", "deps: [data, raw.csv]", "deps: [data, raw.csv, model]"), CHANGED,
     {"GRAPH_CYCLE", "LOCK_INCOMPLETE"}),
    ("own-output-read", edit("dvc.yaml", "deps: [data, raw.csv]", "deps: [data, raw.csv, clean.csv]"), CHANGED,
     {"GRAPH_CYCLE", "LOCK_INCOMPLETE"}),
    ("variable-unknown", edit("dvc.yaml", "${greeting}", "${farewell}"), ERROR, {"TEMPLATE_UNRESOLVED"}),
    ("variable-given-twice", edit("dvc.yaml", "greeting: hello", "greeting: hello\n    lr: 1"), ERROR,
     {"TEMPLATE_UNRESOLVED"}),
    ("pipeline-no-yaml", with_stage("  [\n"), ERROR, {"LINEAGE_MALFORMED"}),
    ("pipeline-unknown-field", edit("dvc.yaml", "  prepare:\n", "  prepare:\n    evil: 1\n"), ERROR,
     {"LINEAGE_MALFORMED"}),
    ("pipeline-stage-twice", with_stage("  prepare:\n    cmd: evil\n"), ERROR, {"LINEAGE_MALFORMED"}),
    ("pipeline-removed", remove("dvc.yaml"), CLEAN, {"STAGE_ORPHAN"}),
    ("pipeline-hidden-by-dvcignore", both(put(".dvcignore", "dvc.yaml\n"), put("clean.csv", "evil\n")), CLEAN,
     {"DATA_MISMATCH", "SIZE_MISMATCH"}),
    ("pipeline-became-link", to_link("dvc.yaml", "other.yaml"), CLEAN, {"DATA_REFUSED"}),
    # Parameters.
    ("parameter-changed", edit("params.yaml", "lr: 0.1", "lr: 0.2"), CHANGED, {"PARAMS_DRIFT", "CMD_DRIFT"}),
    ("parameter-in-a-list-changed", edit("params.yaml", "[64, 32]", "[64, 33]"), CHANGED, {"PARAMS_DRIFT"}),
    ("parameter-of-another-type", edit("params.yaml", "[64, 32]", "[64.0, 32]"), CLEAN, {"PARAMS_DRIFT"}),
    ("parameter-deleted", edit("params.yaml", "  layers: [64, 32]\n", ""), CHANGED, {"PARAMS_DRIFT"}),
    ("parameter-nobody-names-changed", edit("params.yaml", "unused", "changed"), CLEAN, set()),
    ("parameters-removed", remove("conf.toml"), CHANGED, {"PARAMS_DRIFT"}),
    ("json-parameter-changed", edit("conf.json", "[1, 2]", "[1, 3]"), CHANGED, {"PARAMS_DRIFT"}),
    ("json-parameter-twice", edit("conf.json", '{"seed": 7', '{"seed": 7, "seed": 7'), CLEAN, {"PARAMS_UNREADABLE"}),
    ("toml-parameter-changed", edit("conf.toml", "adam", "sgd"), CHANGED, {"PARAMS_DRIFT"}),
    ("toml-parameter-added", edit("conf.toml", "size = 3", "size = 3\nnew = 1"), CHANGED, {"LOCK_INCOMPLETE"}),
    ("parameters-no-yaml", put("params.yaml", "lr: [\n"), ERROR, {"PARAMS_UNREADABLE"}),
    # The cache, and what a digest of DVC cannot tell.
    ("cache-object-poisoned-and-checked-out", poison, CLEAN, {"DATA_MISMATCH", "SIZE_MISMATCH"}),
    ("cache-listing-spoiled", spoil_listing, CLEAN, {"CACHE_CORRUPT"}),
    ("listing-leaves-its-folder", escape, CHANGED, {"DATA_MISMATCH", "CHAIN_BREAK", "DIR_MANIFEST_ESCAPE"}),
    ("cache-removed", remove(".dvc/cache"), CHANGED, set()),
    ("legacy-digest", legacy(b"\n", size=True), CHANGED, set()),
    ("legacy-digest-line-ends-changed", legacy(b"\r\n", size=False), CHANGED, set()),
    ("legacy-digest-line-ends-changed-size-known", legacy(b"\r\n", size=True), CHANGED, {"SIZE_MISMATCH"}),
    ("nested-repository-appears", put("inner/.dvc/config", ""), CLEAN, set()),
    ("data-outside-of-the-repository", lambda root: (
        dvcrepo.write(root.parent, {f"{root.name}.txt": "x"}),
        with_stage(f"  out:\n    cmd: echo\n    deps: [../{root.name}.txt]\n")(root),
        edit(LOCK, "stages:\n", f"stages:\n  out:\n    cmd: echo\n    deps:\n    - path: ../{root.name}.txt\n"
             f"      hash: md5\n      md5: {hashlib.md5(b'x').hexdigest()}\n      size: 1\n")(root),
    )[0], CLEAN, {"DATA_EXTERNAL"}),
]  # fmt: skip

# Where DVC says `changed` or `error` and we pass, and why that is right.
DVC_ALONE = {
    "lock-and-data-forged-to-fit": "CACHE_MISSING",
    "cache-removed": "CACHE_MISSING",
    "legacy-digest": "LEGACY_HASH",
    "legacy-digest-line-ends-changed": "LEGACY_HASH",
}


def deciding(checked: LineageCheck) -> set[str]:
    return {finding.code for finding in checked.findings if finding.severity in ("refusal", "unverifiable")}


def snapshot(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything about a tree that a check could change, access times aside."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            info = path.lstat()
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (info.st_mode, info.st_mtime_ns, info.st_ctime_ns, data)
    return found


@pytest.mark.parametrize(
    ("tamper", "theirs", "ours"),
    [pytest.param(how, theirs, ours, id=name) for name, how, theirs, ours in SCENARIOS],
)
def test_what_dvc_says_and_what_we_say(
    world: World, request: pytest.FixtureRequest, tmp_path: Path, tamper: Tamper, theirs: str, ours: set[str]
) -> None:
    name = request.node.callspec.id
    root = dvcrepo.copy(world.usual, tmp_path / "repo")
    if name == "file-edited-in-place-times-kept":
        # So that DVC's state database knows the file.
        assert world.dvc.status(root).word == CLEAN
    tamper(root)
    if name == "cache-object-poisoned-and-checked-out":
        world.dvc.do(root, "checkout", "-q", "-f", "raw.csv.dvc")
        assert (root / "raw.csv").read_bytes() == b"evil\n"
    before = snapshot(root)
    checked = check_repository(str(root))
    assert snapshot(root) == before
    signed = world.check_signed(root, "L2")
    assert snapshot(root) == before
    answer = world.dvc.status(root)
    assert answer.word == theirs, answer.output
    assert deciding(checked) == ours, [finding.line() for finding in checked.findings]
    # That signed data is read in another way shows nowhere.
    assert deciding(signed) == ours, [finding.line() for finding in signed.findings]
    if theirs != CLEAN and not ours:
        assert DVC_ALONE[name] in {finding.code for finding in checked.findings}


def test_the_table_is_large_and_says_who_deceives() -> None:
    names = [name for name, *_ in SCENARIOS]
    assert len(names) == len(set(names)) >= 40
    # Not one scenario in which DVC sees something that we do not, beyond those that are explained.
    assert {name for name, _, theirs, ours in SCENARIOS if theirs != CLEAN and not ours} == set(DVC_ALONE)
    assert sum(theirs == CLEAN and bool(ours) for _, _, theirs, ours in SCENARIOS) >= 13


# --- What DVC and L2 cannot see: who made data and lock ---


def a_twin(world: World, root: Path) -> None:
    """Other bytes with the same MD5 in place of those that were added, signed and recorded."""
    put("twin.bin", FIRST)(root)
    world.dvc.do(root, "add", "-q", "twin.bin")
    world.sign(root, "twin.bin.dvc")
    overwrite(root / "twin.bin", SECOND)
    shutil.rmtree(root / ".dvc" / "tmp", ignore_errors=True)


def made_by_hand(world: World, root: Path) -> None:
    put("clean.csv", "made,by,hand\n")(root)
    world.dvc.do(root, "commit", "-q", "--force")


@pytest.mark.parametrize(("how", "ours"), [(a_twin, "SHA256_MISMATCH"), (made_by_hand, "MD5_UNBOUND")])
def test_what_only_signatures_show(world: World, tmp_path: Path, how: Callable[[World, Path], None], ours: str) -> None:
    root = tmp_path / "repo"
    world.dvc.init(root)
    dvcrepo.write(root, {"raw.csv": "2\n1\n"})
    world.dvc.do(root, "add", "-q", "raw.csv")
    stage = {"cmd": "sort raw.csv > clean.csv", "deps": ["raw.csv"], "outs": ["clean.csv"]}
    (root / "dvc.yaml").write_text(json.dumps({"stages": {"clean": stage}}))
    world.dvc.do(root, "repro", "-q")
    world.sign(root)
    assert deciding(world.check_signed(root, "L5")) == set()
    how(world, root)
    assert world.dvc.status(root).word == CLEAN
    assert deciding(check_repository(str(root))) == set()
    assert ours in deciding(world.check_signed(root, "L5"))


# --- No false alarms: whatever DVC itself made and calls clean, we pass ---

PARTS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs", "Co", "Cn"]), min_size=1, max_size=12
).filter(lambda part: part.strip(" .") and not part.startswith((".", "-")) and not part.endswith((".dvc", " ")))
ODD = ["a", "A", "ü", "line\nfeed", 'q"', "back\\slash", "dvc.yaml"]
NAMES = st.lists(PARTS | st.sampled_from(ODD), min_size=1, max_size=3)
CONTENTS = st.binary(max_size=40) | st.sampled_from([b"", b"a\r\nb\r\n", b"\0" * 70_000, bytes(range(256)) * 1500])
WORDS = ["yes", "on", "~", "null", "1e3", "0x1f", "012", "1_0", "2020-01-02", ".5", "=", "a: b", "- x", "#"]
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8) | st.sampled_from(WORDS)
)  # fmt: skip
KEYS = st.text("abcxyz_", min_size=1, max_size=3)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
# DVC takes a second for each, and shrinking would ask it a hundred times.
FEW = settings(
    max_examples=settings().max_examples // 6,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path


@pytest.mark.timeout(1200)
@FEW
@given(files=st.lists(st.tuples(NAMES, CONTENTS), max_size=6))
def test_data_that_dvc_added_is_passed(world: World, files: list[tuple[list[str], bytes]]) -> None:
    root = world.usual.parent / "added"
    if not root.exists():
        world.dvc.init(root)
    data = fresh(root / "data")
    data.mkdir()
    for parts, content in files:
        path = data.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
    world.dvc.do(root, "add", "-q", "data")
    assert world.dvc.status(root).word == CLEAN
    checked = check_repository(str(root))
    assert deciding(checked) == set(), [finding.line() for finding in checked.findings]
    assert checked.contents["data"].digest == digest_in(root, "data.dvc", "data")
    content = check_repository(str(root), sha256=True).contents["data"]
    try:
        content.artifact_digest()
    except ArtifactError:
        return  # a name that no signed tree may hold
    if content.files:
        world.sign(root)
        signed = world.check_signed(root, "L5")
        assert deciding(signed) == set(), [finding.line() for finding in signed.findings]


@pytest.mark.timeout(1200)
@FEW
@given(
    params=st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), VALUES, min_size=1, max_size=4),
    items=st.lists(st.text("pqrst", min_size=1, max_size=3), unique=True, min_size=1, max_size=2),
    suffix=st.sampled_from(["yaml", "json"]),
    whole=st.booleans(),
)
def test_a_pipeline_that_dvc_ran_is_passed(
    world: World, params: dict[str, object], items: list[str], suffix: str, whole: bool
) -> None:
    from ruamel.yaml import YAML

    root = world.usual.parent / "ran"
    if not root.exists():
        world.dvc.init(root)
        dvcrepo.write(root, {"in.csv": "1\n"})
    for name in ("params.yaml", "p.yaml", "p.json", "dvc.lock"):
        (root / name).unlink(missing_ok=True)
    if suffix == "json":
        (root / "p.json").write_text(json.dumps(params))
    else:
        with (root / "p.yaml").open("w") as file:
            YAML().dump(params, file)
    wanted = {f"p.{suffix}": None if whole else sorted(params)}
    stages = {
        "each": {
            "foreach": items,
            "do": {
                "cmd": "echo ${item} > ${item}.out",
                "deps": ["in.csv"],
                "outs": ["${item}.out"],
                "params": [wanted],
            },
        },
        "all": {"cmd": "cat *.out > all.txt", "deps": [f"{item}.out" for item in items], "metrics": ["all.txt"]},
    }
    (root / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    world.dvc.do(root, "repro", "-q")
    # DVC writes some large floats with another last digit than it reads, and calls its own lock changed.
    theirs = world.dvc.status(root).word
    checked = check_repository(str(root))
    if theirs == CLEAN:
        world.sign(root)
        assert deciding(world.check_signed(root, "L5")) == set()
    expected = set() if theirs == CLEAN else {"PARAMS_DRIFT"}
    assert deciding(checked) == expected, [finding.line() for finding in checked.findings]
