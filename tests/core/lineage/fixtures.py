"""What tests of signed commits start from: the programs that sign them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.core.lineage.gitrepo import Gpg, new_gpg


@pytest.fixture(scope="session")
def ssh_keygen(need_program: Callable[[str, str, str], None]) -> None:
    """What `gitrepo` makes keys and signatures with, so every test that makes a repository needs it."""
    need_program("ssh-keygen", "openssh-client", "signed commits were not checked")


@pytest.fixture(scope="module")
def gpg(need_program: Callable[[str, str, str], None]) -> Iterator[Gpg]:
    """A GnuPG home without keys."""
    need_program("gpg", "gnupg", "OpenPGP signatures of commits were not checked")
    home = new_gpg()
    yield home
    home.close()
