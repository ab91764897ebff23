"""What is written down of an upload, and what an upload that goes on makes of it.

The promise that all of it serves: under each number of each message one thing left, and never another.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow.encryption import ARTIFACT, MessageEncryptor, load_recipient, parse_header
from sealflow.errors import UnavailableError
from sealflow.transfer.resume import UploadState, state_folder
from tests.core.transfer.stores import down, no_number_twice, sent_under
from tests.core.transfer.world import PLACE, TREE, Sender, giving_away, shaped

pytestmark = pytest.mark.slow

FRAME, FRAMES = 256, 2
OTHER = {**TREE, "sub/weights.bin": bytes(reversed(TREE["sub/weights.bin"]))}


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(tmp_path / "world")


def stop(sender: Sender, step: str, **options: Any) -> None:
    """Upload, and let a step fail so that the upload can be gone on with."""

    def hook(name: str) -> None:
        if name.startswith(step):
            raise down()

    sender.store.hook = hook
    try:
        with shaped(FRAME, FRAMES):
            sender.upload(**options)
    except UnavailableError:
        pass
    else:
        pytest.fail(f"nothing failed at {step}")
    sender.store.hook = lambda _: None


def again(sender: Sender, **options: Any) -> None:
    """Upload, check what lies there then, and that no number was used twice."""
    with shaped(FRAME, FRAMES):
        uploaded = sender.upload(**options)
    opener = options.get("recipients", sender.recipients)
    assert sender.verify(uploaded.ref, recipients=opener).status == "passed"
    sender.download(uploaded.ref, recipients=opener)
    assert sender.copy() == {str(p.relative_to(sender.source)): p.read_bytes() for p in files_below(sender.source)}
    no_number_twice(sender.store, FRAME)


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def tokens(sender: Sender) -> int:
    """How many uploads there were: more than one where one began anew."""
    return len({token for token, _, _ in sender.store.received()})


def state_file(sender: Sender) -> Path:
    (path,) = (sender.folder / "state").glob("upload-*.jsonl")
    return path


def lines(sender: Sender) -> list[bytes]:
    return state_file(sender).read_bytes().splitlines(keepends=True)


# --- The file ---


def test_is_private_and_gone_afterwards(sender: Sender) -> None:
    stop(sender, "send 4")
    folder = sender.folder / "state"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    again(sender)
    assert tokens(sender) == 1
    assert os.listdir(folder) == ["keeper.key"]


def test_tells_no_content(sender: Sender) -> None:
    stop(sender, "create ")
    text = state_file(sender).read_bytes()
    for word in text.split(b'"'):
        with contextlib.suppress(ValueError):
            text += base64.b64decode(word, validate=True)
    for secret in (
        b"weights",
        TREE["run.sh"],
        TREE["sub/weights.bin"][:32],
        bytes(sender.opener.unwrap(*wrapped(sender))),
    ):
        assert secret not in text


def wrapped(sender: Sender) -> Any:
    header = parse_header(sealed_header(sender))
    return header.data_keys[0], header.context


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SEALFLOW_STATE_DIR": "/a"}, "/a"),
        ({"SEALFLOW_STATE_DIR": "", "XDG_STATE_HOME": "/x"}, "/x/sealflow/transfers"),
        ({"SEALFLOW_STATE_DIR": "", "XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/sealflow/transfers"),
    ],
    ids=["given", "xdg", "home"],
)
def test_folder(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert state_folder() == expected


def test_upload_without_a_place_for_it(sender: Sender) -> None:
    """Nowhere to write: the upload goes through, and cannot be gone on with."""
    os.environ["SEALFLOW_STATE_DIR"] = str(sender.folder / "trainer.pem" / "state")
    again(sender)


def test_one_process_at_a_time(sender: Sender) -> None:
    state = UploadState("file:///model", PLACE)
    try:
        with pytest.raises(UnavailableError) as caught:
            UploadState("file:///model", PLACE)
        assert caught.value.code == "UPLOAD_RUNNING"
        UploadState("file:///model", PLACE + "2").close()
    finally:
        state.close()
    UploadState("file:///model", PLACE).close()


def test_upload_that_runs_is_left_alone(sender: Sender) -> None:
    seen: list[str] = []

    def hook(name: str) -> None:
        if name == "send 3" and not seen:
            seen.append(name)
            with pytest.raises(UnavailableError) as caught:
                sender.upload()
            seen.append(caught.value.code)

    sender.store.hook = hook
    again(sender)
    assert seen == ["send 3", "UPLOAD_RUNNING"]
    assert tokens(sender) == 1


def test_lock_of_a_file_that_is_gone_counts_nothing(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file was opened, and removed by the upload before us until we had the lock."""
    import fcntl

    from sealflow.transfer import resume

    before = fcntl.flock
    removed: list[str] = []

    def flock(fd: int, how: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if not removed:
            os.unlink(path)
            removed.append(path)
        before(fd, how)

    monkeypatch.setattr(resume.fcntl, "flock", flock)
    state = UploadState("file:///model", PLACE)
    try:
        assert removed
        assert os.path.exists(removed[0])
        monkeypatch.setattr(resume.fcntl, "flock", before)
        with pytest.raises(UnavailableError):
            UploadState("file:///model", PLACE)
    finally:
        state.close()


# --- Altered ---


def test_every_byte_counts(sender: Sender) -> None:
    """Whatever byte is altered: begun anew under another key, or what was altered says nothing."""
    stop(sender, "create ")
    data = state_file(sender).read_bytes()
    path, header = state_file(sender), sealed_header(sender)
    mode = path.stat().st_mode
    for position in range(0, len(data), 1 if len(data) < 4000 else 3):
        altered = bytearray(data)
        altered[position] ^= 1 << position % 8
        path.write_bytes(altered)
        state = UploadState(f"file://{sender.source}", PLACE)
        try:
            assert not state.resumed
            assert state.encryptor([], "") is None
        finally:
            state.close()
        assert not path.exists()
        path.write_bytes(data)
        path.chmod(mode)
    state = UploadState(f"file://{sender.source}", PLACE)
    assert state.resumed
    assert state._header == header
    state.close()


def sealed_header(sender: Sender) -> bytes:
    ((header,),) = [seen for (_, number), seen in sent_under(sender.store, FRAME).items() if number == 0]
    return header


ALTERED: dict[str, Callable[[list[bytes]], bytes]] = {
    "empty": lambda old: b"",
    "zeros": lambda old: bytes(1000),
    "first-line-gone": lambda old: b"".join(old[1:]),
    "second-line-gone": lambda old: b"".join(old[:1] + old[2:]),
    "lines-swapped": lambda old: b"".join([old[0], old[2], old[1], *old[3:]]),
    "line-twice": lambda old: b"".join([*old, old[-1]]),
    "beginning-twice": lambda old: b"".join([*old, old[0]]),
    "mac-gone": lambda old: b"".join([*old[:-1], old[-1].partition(b"\t")[0] + b"\n"]),
    "blank-line": lambda old: b"".join(old) + b"\n",
    "no-line-feed": lambda old: b"".join(old)[:-1],
    "line-feed-altered": lambda old: b"".join(old)[:-1] + b"\x0b",
    "carriage-returns": lambda old: b"".join(old).replace(b"\n", b"\r\n"),
    "huge": lambda old: b"".join(old) + b"x" * (5 << 20) + b"\n",
}


@pytest.mark.parametrize("how", ALTERED)
@pytest.mark.parametrize("changed", [False, True], ids=["same-source", "other-source"])
def test_altered_state(sender: Sender, how: str, changed: bool) -> None:
    stop(sender, "send 8")
    state_file(sender).write_bytes(ALTERED[how](lines(sender)))
    if changed:
        sender.write(OTHER)
    again(sender)
    assert tokens(sender) == 2


@pytest.mark.parametrize("changed", [False, True], ids=["same-source", "other-source"])
def test_state_that_was_set_back(sender: Sender, changed: bool) -> None:
    """An old copy of the file is authentic. What the store holds tells that more was sent since."""
    stop(sender, "commit")
    parts = b"".join(lines(sender)).count(b'"digests"')
    for count in range(1, len(lines(sender)), 4):
        world = Sender(sender.folder.parent / f"world-{count}")
        stop(world, "commit")
        cut = b"".join(lines(world)[:count])
        state_file(world).write_bytes(cut)
        if changed:
            world.write(OTHER)
        again(world)
        assert tokens(world) == (1 if cut.count(b'"digests"') == parts and not changed else 2)


def test_shorter_source_while_later_parts_were_faster(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part 3 left and part 2 did not; now the artifact ends in part 2."""
    sender.store.at_once = 4
    sending, third = UploadState.sending, threading.Event()

    def slow(self: UploadState, number: int, *args: Any) -> str | None:
        if number == 2:
            assert third.wait(10)
            raise down()
        try:
            return sending(self, number, *args)
        finally:
            if number == 3:
                third.set()

    monkeypatch.setattr(UploadState, "sending", slow)
    with shaped(2048, 1), pytest.raises(UnavailableError):
        sender.upload()
    monkeypatch.setattr(UploadState, "sending", sending)
    gc.collect()
    for path in files_below(sender.source)[1:]:
        path.unlink()
    with shaped(2048, 1):
        uploaded = sender.upload()
    assert sender.verify(uploaded.ref).status == "passed"
    assert tokens(sender) == 2
    no_number_twice(sender.store, 2048)


@pytest.mark.parametrize("kept", [1, 10, 40])
def test_torn_last_line(sender: Sender, kept: int) -> None:
    """A line that is not whole told of a part that did not leave; the others hold."""
    stop(sender, "send 5")
    whole = lines(sender)
    last = max(number for number, line in enumerate(whole) if b'"digests"' in line)
    # The part arrived nowhere: the process died while it wrote the line.
    state_file(sender).write_bytes(b"".join(whole[:last]) + whole[last][:kept])
    again(sender)
    assert tokens(sender) == 1


@pytest.mark.parametrize("length", [0, 31, 33], ids=str)
def test_keeper_that_was_cut(sender: Sender, length: int) -> None:
    """What was wrapped to it is lost; the next upload must not be."""
    stop(sender, "send 5")
    (sender.folder / "state" / "keeper.key").write_bytes(bytes(length))
    again(sender)


def test_keeper_that_was_exchanged(sender: Sender) -> None:
    stop(sender, "send 5")
    (sender.folder / "state" / "keeper.key").write_bytes(bytes(32))
    again(sender)
    assert tokens(sender) == 2


def test_state_of_another_upload(sender: Sender) -> None:
    stop(sender, "send 5")
    path = state_file(sender)
    UploadState(f"file://{sender.source}", PLACE + "2").close()
    state = UploadState(f"file://{sender.source}", PLACE + "2")
    other = Path(state._path)
    state.close()
    os.rename(path, other)
    state = UploadState(f"file://{sender.source}", PLACE + "2")
    assert not state.resumed
    state.close()


PLANTED: dict[str, Callable[[Path, Path, Callable[[Path], None]], object]] = {
    "file-that-others-read": lambda file, keeper, away: file.touch() or file.chmod(0o644),
    "file-that-others-write": lambda file, keeper, away: file.touch() or file.chmod(0o622),
    "file-of-another-user": lambda file, keeper, away: file.touch() or file.chmod(0o600) or away(file),
    "link": lambda file, keeper, away: file.symlink_to(file.parent.parent / "elsewhere"),
    "hard-link": lambda file, keeper, away: (
        (file.parent.parent / "theirs").touch() or os.link(file.parent.parent / "theirs", file)
    ),
    "key-that-others-read": lambda file, keeper, away: keeper.write_bytes(bytes(32)) and keeper.chmod(0o644),
    "key-of-another-user": lambda file, keeper, away: (
        keeper.write_bytes(bytes(32)) and (keeper.chmod(0o600) or away(keeper))
    ),
    "link-to-a-key": lambda file, keeper, away: (
        (keeper.parent.parent / "known").write_bytes(bytes(32)) and keeper.symlink_to(keeper.parent.parent / "known")
    ),
}


@pytest.mark.parametrize("how", PLANTED)
def test_planted_where_others_may_write(sender: Sender, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The data key would go where its planter can read it: such an upload is not written down at all."""
    folder = sender.folder / "state"
    folder.mkdir()
    state = UploadState(f"file://{sender.source}", PLACE)
    path, keeper = Path(state._path), folder / "keeper.key"
    state.close()
    keeper.unlink()
    PLANTED[how](path, keeper, giving_away(monkeypatch))
    with pytest.raises(UnavailableError) as caught:
        UploadState(f"file://{sender.source}", PLACE)
    assert caught.value.code != "UPLOAD_RUNNING"
    stop_without_state(sender)
    assert not path.is_file() or path.stat().st_size == 0


def stop_without_state(sender: Sender) -> None:
    stop(sender, "send 5")
    again(sender)
    assert tokens(sender) == 2


# --- What is wanted changed meanwhile ---


@pytest.mark.parametrize("step", ["send 9", "create ", "commit"])
def test_other_source(sender: Sender, step: str) -> None:
    stop(sender, step)
    sender.write(OTHER)
    again(sender)
    assert tokens(sender) == 2


def test_other_source_behind_what_was_sent(sender: Sender) -> None:
    """What left is the beginning of both: the same frames are the same under the same numbers."""
    stop(sender, "send 2")
    sender.write(OTHER)
    again(sender)
    assert tokens(sender) == 1


def test_file_more_in_the_source(sender: Sender) -> None:
    stop(sender, "send 8")
    sender.write({**TREE, "z": b"new"})
    again(sender)


def test_file_that_can_be_executed_now(sender: Sender) -> None:
    """Nothing but one mode: the header of a tar member is content too."""
    stop(sender, "commit")
    (sender.source / "config.json").chmod(0o755)
    again(sender)
    assert tokens(sender) == 2
    assert os.access(sender.folder / "out" / "copy" / "config.json", os.X_OK)


@pytest.mark.parametrize("step", ["send 2", "send 8", "commit"])
def test_other_recipients(sender: Sender, step: str) -> None:
    """A header that is kept would let in who is no recipient any more."""
    stop(sender, step, recipients=[sender.secret("team"), sender.secret("gone")])
    again(sender)
    assert tokens(sender) == 2
    refused = sender.verify(recipients=[sender.secret("gone")])
    assert refused.deciding_finding is not None
    assert refused.deciding_finding.code == "RECIPIENT_MISSING"


def test_one_recipient_more(sender: Sender) -> None:
    stop(sender, "send 8")
    again(sender, recipients=[*sender.recipients, sender.secret("new")])
    assert sender.verify(recipients=[sender.secret("new")]).status == "passed"


def test_recipient_that_is_named_twice_hides_no_other(sender: Sender) -> None:
    stop(sender, "send 8", recipients=[sender.secret("team"), sender.secret("gone")])
    again(sender, recipients=[sender.secret("team"), sender.secret("team") + "?"])
    refused = sender.verify(recipients=[sender.secret("gone")])
    assert refused.deciding_finding is not None
    assert refused.deciding_finding.code == "RECIPIENT_MISSING"


def test_another_key_under_the_same_name(sender: Sender) -> None:
    """The header only has the name; who names keys by hand can give it to another one."""
    old, new = sender.secret("old") + "?name=team", sender.secret("young") + "?name=team"
    stop(sender, "send 8", recipients=[old])
    again(sender, recipients=[new])
    assert tokens(sender) == 2
    refused = sender.verify(recipients=[old])
    assert refused.deciding_finding is not None
    assert refused.deciding_finding.code == "RECIPIENT_KEY_WRONG"


def test_what_a_dead_process_left_behind_a_commit_goes(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(state: UploadState, **_: bool) -> None:
        if state._fd >= 0:
            os.close(state._fd)  # the lock ends with the process
            state._fd = -1

    with monkeypatch.context() as patch:
        patch.setattr(UploadState, "close", die)
        with shaped(FRAME, FRAMES):
            sender.upload()
    assert state_file(sender)
    with shaped(FRAME, FRAMES):
        assert sender.upload().existed
    assert os.listdir(sender.folder / "state") == ["keeper.key"]


def test_other_logical_name(sender: Sender) -> None:
    stop(sender, "send 8", name="one")
    again(sender, name="two")
    assert sender.verify(name="two").status == "passed"
    assert tokens(sender) == 2


def test_other_signer(sender: Sender) -> None:
    stop(sender, "commit")
    with shaped(FRAME, FRAMES):
        uploaded = sender.upload(signer=sender.stranger.signer)
    assert sender.verify(uploaded.ref, identities=str(sender.stranger.public)).status == "passed"
    assert sender.verify(uploaded.ref).status == "failed"
    no_number_twice(sender.store, FRAME)


def test_other_shape_of_this_release(sender: Sender) -> None:
    """What was begun is gone on with as it was cut."""
    stop(sender, "send 8")
    with shaped(100, 7):
        uploaded = sender.upload()
    assert sender.verify(uploaded.ref).status == "passed"
    assert tokens(sender) == 1
    no_number_twice(sender.store, FRAME)


def test_same_uploader_on_and_on(sender: Sender) -> None:
    """Stopped again and again, and every time a little further."""
    for number in range(1, 9):
        stop(sender, f"sent {number}")
    again(sender)
    assert tokens(sender) == 1
    numbers = [number for _, number, _ in sender.store.received()]
    assert len(numbers) <= max(numbers) + 8


def test_part_that_the_store_changed_is_sent_again(sender: Sender) -> None:
    stop(sender, "send 8")
    (token,) = sender.store.uploads()
    (sender.store.root / "uploads" / token / "2").write_bytes(b"rubbish")
    again(sender)
    assert [number for _, number, _ in sender.store.received()].count(2) == 2


# --- Killed ---


class Killer:
    """Kills this process at the n-th step of all that it does to the store and to the state."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, name: str) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(sender: Sender, at: int) -> bool:
    """Upload in a process of its own that dies at a step; tell whether it died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            killer = Killer(at)
            sender.store.hook = killer
            write = UploadState._write

            def writing(self: UploadState, body: Any, **options: Any) -> None:
                killer("write")
                torn = killer.left == 0
                if torn:  # half of the line, and then the end
                    os.write(self._fd, b'{"part":1,"fir')
                    killer("torn")
                    killer("torn")
                write(self, body, **options)
                killer("written")

            with pytest.MonkeyPatch.context() as patch, shaped(FRAME, FRAMES):
                patch.setattr(UploadState, "_write", writing)
                sender.upload(overwrite=True)
            status = 0
        finally:
            os._exit(status)
    _, waited = os.waitpid(child, 0)
    assert os.WIFSIGNALED(waited) or os.WEXITSTATUS(waited) == 0
    return os.WIFSIGNALED(waited)


def steps(sender: Sender) -> int:
    """How many steps an upload has."""
    seen: list[str] = []
    sender.store.hook = seen.append
    with pytest.MonkeyPatch.context() as patch, shaped(FRAME, FRAMES):
        write = UploadState._write
        patch.setattr(
            UploadState,
            "_write",
            lambda self, body, **options: (seen.append("w"), write(self, body, **options), seen.append("w"))[1],
        )
        sender.upload()
    sender.store.hook = lambda _: None
    return len(seen)


SMALL = {"a": b"x" * 700, "b.sh": b"#!/bin/sh"}
SMALL_OTHER = {"a": b"y" * 700, "b.sh": b"#!/bin/sh"}


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True], ids=["same-source", "other-source"])
@pytest.mark.parametrize("at_once", [1, 4], ids=["one-by-one", "at-once"])
def test_killed_at_every_step(tmp_path: Path, changed: bool, at_once: int) -> None:
    """Old artifact or new one, whole; and no number used twice."""
    total = steps(Sender(tmp_path / "steps", SMALL))
    assert total > 40
    resumed = 0
    for at in range(total):
        sender = Sender(tmp_path / f"world-{at}", SMALL)
        sender.store.at_once = at_once
        assert killed(sender, at)
        before = sender.store.content(PLACE)
        if before is not None:
            assert sender.verify().status == "passed"
        if changed:
            sender.write(SMALL_OTHER)
        again(sender, overwrite=True)
        resumed += tokens(sender) == 1
    assert (resumed > total // 2) is not changed


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path) -> None:
    """At random steps, the source changed now and then, until one attempt comes to its end."""
    chance = random.Random(4)
    kills = 0
    for number in range(25):
        sender = Sender(tmp_path / f"world-{number}", SMALL)
        sender.store.at_once = chance.choice([1, 4])
        while killed(sender, chance.randrange(5, 60)):
            kills += 1
            assert kills < 2000
            if chance.random() < 0.2:
                sender.write(chance.choice([SMALL, SMALL_OTHER]))
        assert sender.verify().status == "passed"
        no_number_twice(sender.store, FRAME)
    assert kills > 50


# --- The encryptor that a state gives ---


def test_encryptor_of_an_empty_state(sender: Sender) -> None:
    state = UploadState("file:///m", PLACE)
    assert not state.resumed
    assert state.encryptor([load_recipient(sender.secret("team"))], "x") is None
    state.close()


def test_signature_is_kept(sender: Sender) -> None:
    """Each signature has other bytes; the first one is the content of the message."""
    from sealflow.evidence import make_bundle
    from sealflow.evidence.statement import make_statement
    from sealflow.keys import load_signer

    statement = make_statement("m", {"sha256": "ab" * 32}, "urn:x", {})

    def signature(state: UploadState, key: str = sender.key.signer, payload: bytes = statement) -> bytes:
        return state.signature(payload, lambda: make_bundle(payload, load_signer(key)))

    state = UploadState("file:///m", PLACE)
    encryptor = MessageEncryptor(
        [load_recipient(sender.secret("team"))], {ARTIFACT: "x"}, frame_length=FRAME, keeper=state.keeper
    )
    state.begin(encryptor, "token", FRAME, FRAMES, [load_recipient(sender.secret("team"))])
    first = signature(state)
    assert signature(state) == first
    state.close()
    state = UploadState("file:///m", PLACE)
    assert signature(state) == first
    Path(state._path + ".signature").write_bytes(first + b" ")
    second = signature(state)
    assert second != first
    assert signature(state) == second
    assert signature(state, sender.stranger.signer) != second
    assert signature(state, payload=statement + b" ") != second
    state.close(done=True)
    assert os.listdir(sender.folder / "state") == ["keeper.key"]
