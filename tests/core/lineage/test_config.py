"""DVC's configuration: what is read, and what is refused rather than guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealflow.errors import EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.lineage.config import MAX_CONFIG, is_remote_name, parse_configuration, remote_url
from sealflow.lineage.files import MalformedError
from tests.core.lineage.repos import check, simple, write

USUAL = b"""\
# written by hand
[core]
    remote = Storage   # the usual one
    analytics = false
['remote "storage"']
    url = s3://bucket/dvc store
    endpointurl = http://127.0.0.1:1
['remote "folder"']
\turl = "../../remote, with comma"
[cache]
    type = reflink,copy
    shared = group
"""


def test_the_usual_one() -> None:
    sections = parse_configuration(USUAL, "config")
    assert sections == {
        "core": {"remote": "Storage", "analytics": "false"},
        'remote "storage"': {"url": "s3://bucket/dvc store", "endpointurl": "http://127.0.0.1:1"},
        'remote "folder"': {"url": "../../remote, with comma"},
        "cache": {"type": ("reflink", "copy"), "shared": "group"},
    }
    assert remote_url(USUAL, None) == "s3://bucket/dvc store"
    assert remote_url(USUAL, "FOLDER") == "../../remote, with comma"
    assert remote_url(USUAL.replace(b"\n", b"\r\n"), None) == "s3://bucket/dvc store"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("url = a", "a"),
        ("url=a#b", "a"),
        ("url = 'a#b' # c", "a#b"),
        ('url = "it\'s"', "it's"),
        ('url = a "b" c', 'a "b" c'),
        ("url = a=b", "a=b"),
        ("URL = ä/%41", "ä/%41"),
        ("url = 100%", "100%"),
        ("url = a,", ("a",)),
        ("url = a, b # c", ("a", "b")),
        ("url =", ""),
        ("url = # nothing", ""),
    ],
)
def test_values(line: str, value: object) -> None:
    assert parse_configuration(f"[s]\n{line}\n".encode(), "config") == {"s": {"url": value}}


@pytest.mark.parametrize(
    "text",
    [
        "[core]\nremote = a\n[core]\nremote = b\n",
        "[core]\nremote = a\n[CORE]\nremote = b\n",
        "[core]\nremote = a\nRemote = b\n",
        "remote = a\n",
        "[core\nremote = a\n",
        "[core]]\nremote = a\n",
        "[[core]]\nremote = a\n",
        "[core]\n[[inner]]\nremote = a\n",
        "[]\n",
        "['']\n",
        "[core] remote = a\n",
        "[core]\nremote: a\n",
        "[core]\nremote\n",
        "[core]\n= a\n",
        "[core]\n'remote' = a\n",
        "[core]\nremote = '''a\nb'''\n",
        '[core]\nremote = """a"""\n',
        "[core]\nremote = 'a\n",
        "[core]\nremote = 'a' b\n",
        "[core]\nremote = 'a', b\n",
        "[core]\nremote = a,,b\n",
        "[core]\nremote = ,\n",
        "[core]\nremote = %(other)s\nother = x\n",
        "[core]\nremote = a\x0bb = c\n",
        "[core]\nremote = a\u2028b = c\n",
        "[core]\nremote = a\rb = c\n",
        "[core]\nremote = a\x00\n",
        "[core]\nremote =\u00a0a\n",
        "\ufeff[core]\nremote = a\n",
    ],
    ids=ascii,
)
def test_what_two_readers_could_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_configuration(text.encode(), "config")


def test_bytes_that_are_no_text_and_bytes_without_end() -> None:
    with pytest.raises(MalformedError, match="UTF-8"):
        parse_configuration(b"[core]\nremote = \xff\n", "config")
    with pytest.raises(MalformedError, match="more than"):
        parse_configuration(b"#" * (MAX_CONFIG + 1), "config")


def remotes(core: str = "a", **urls: str) -> bytes:
    text = f"[core]\nremote = {core}\n" + "".join(f"['remote \"{name}\"']\n{lines}\n" for name, lines in urls.items())
    return text.encode()


@pytest.mark.parametrize(
    ("configuration", "name", "expected"),
    [
        (remotes(a="url = /x"), None, "/x"),
        (remotes(a="url = ../x", b="url = s3://b"), "b", "s3://b"),
        (remotes(a="url = remote://b/sub/deep", b="url = s3://bucket/top"), None, "s3://bucket/top/sub/deep"),
        (remotes(a="url = remote://B/x", b="url = remote://c/y", c="url = ../z"), None, "../z/y/x"),
        (remotes(a="url = x\nversion_aware = false\nworktree = False"), None, "x"),
        (remotes(a="url = x\nsome_option_of_a_later_release = 1"), None, "x"),
    ],
)  # fmt: skip
def test_remotes(configuration: bytes, name: str | None, expected: str) -> None:
    assert remote_url(configuration, name) == expected


@pytest.mark.parametrize(
    ("configuration", "name", "kind", "code"),
    [
        (None, None, EvidenceError, "REMOTE_NOT_NAMED"),
        (b"", None, EvidenceError, "REMOTE_NOT_NAMED"),
        (b"['remote \"a\"']\nurl = x\n", None, EvidenceError, "REMOTE_NOT_NAMED"),
        (remotes(""), None, EvidenceError, "REMOTE_NOT_NAMED"),
        (None, "a", UsageError, "REMOTE_NOT_NAMED"),
        (remotes("gone", a="url = x"), None, UsageError, "REMOTE_NOT_NAMED"),
        (remotes(a="url = x"), "", UsageError, "REMOTE_NOT_NAMED"),
        (remotes(a="profile = x"), None, EvidenceError, "LINEAGE_MALFORMED"),
        (remotes(a="url ="), None, EvidenceError, "LINEAGE_MALFORMED"),
        (remotes(a="url = x,y"), None, EvidenceError, "LINEAGE_MALFORMED"),
        (remotes("a,b", a="url = x"), None, EvidenceError, "LINEAGE_MALFORMED"),
        (remotes(a="url = remote://a/x"), None, EvidenceError, "LINEAGE_MALFORMED"),
        (remotes(a="url = remote://b", b="url = remote://a"), None, EvidenceError, "LINEAGE_MALFORMED"),
        (remotes(a="url = remote://gone/x"), None, UsageError, "REMOTE_NOT_NAMED"),
        (remotes(a="url = remote://[x/x"), None, EvidenceError, "LINEAGE_MALFORMED"),
        (remotes(a="url = x") + b"['remote  \"a\"']\nurl = y\n", None, EvidenceError, "LINEAGE_MALFORMED"),
        (remotes(a="url = x\nversion_aware = perhaps"), None, EvidenceError, "LINEAGE_MALFORMED"),
        (remotes(a="url = s3://b\nversion_aware = true"), None, UnavailableError, "REMOTE_UNSUPPORTED"),
        (remotes(a="url = s3://b\nworktree = TRUE"), None, UnavailableError, "REMOTE_UNSUPPORTED"),
        (remotes(a="url = remote://b\nversion_aware = false", b="url = s3://b\nworktree = true"), None,
         UnavailableError, "REMOTE_UNSUPPORTED"),
    ],
)  # fmt: skip
def test_no_remote(configuration: bytes | None, name: str | None, kind: type[SealflowError], code: str) -> None:
    with pytest.raises(kind) as caught:
        remote_url(configuration, name)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "expected"), [("storage", True), ("", False), ("./storage", False), ("s3://b", False), ("/x", False)]
)
def test_names_and_locations(text: str, expected: bool) -> None:
    assert is_remote_name(text) is expected


@pytest.mark.parametrize("name", ["config", "config.local"])
def test_a_repository_with_a_malformed_configuration_is_refused(tmp_path: Path, name: str) -> None:
    root = simple(tmp_path / "r")
    assert check(root) == set()
    write(root, {f".dvc/{name}": "[cache\ndir = x\n"})
    assert check(root) == {"LINEAGE_MALFORMED"}
