"""Import a key: from the container of another tool into the form that a ``file:`` signer opens."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from sealflow.actions.keys_generate import write_pair
from sealflow.findings import printable
from sealflow.keys import PassphraseCallback, PublicKey
from sealflow.keys.public import read_key_file
from sealflow.storage.local import to_path


@dataclass(frozen=True)
class Imported:
    """What an import wrote.

    Attributes:
        public: The public half.
        encrypted: Whether the private half is encrypted.
        certificates: How many certificates were written beside it.
        warnings: What is amiss with where it came from.
    """

    public: PublicKey
    encrypted: bool
    certificates: int
    warnings: tuple[str, ...]


def import_key(
    source: str,
    path: str,
    *,
    passphrase: PassphraseCallback,
    new_passphrase: Callable[[str], bytes],
    encrypt: bool | None = None,
) -> Imported:
    """Write the private key in ``source`` to ``path`` (PKCS#8 PEM, mode 0600) and its public half to ``path.pub``.

    Certificates that lie beside the key go to ``path.crt``, the key's own first. Never writes over a file, and leaves
    the source as it is.

    Args:
        source: PEM, DER, PKCS#8, PKCS#12 or OpenSSH file.
        path: Where the private key goes.
        passphrase: Asked for the passphrase of an encrypted source.
        new_passphrase: Asked for a new passphrase, with ``path``, where ``encrypt`` is set.
        encrypt: Whether to encrypt it anew; ``None`` leaves it as it was, under the same passphrase.

    Raises:
        UsageError: No such source, not opened by this passphrase, a weak key or one of another kind, or a file is
            there already.
        UnavailableError: The source cannot be read, or the audit is out of reach.
    """
    from sealflow.keys.certificate import to_pem
    from sealflow.keys.containers import open_container

    found = open_container(read_key_file(source), source, passphrase)
    secret = found.passphrase if encrypt is None else new_passphrase(path) if encrypt else None
    chain = "".join(map(to_pem, found.chain)).encode("ascii")
    write_pair("key-import", path, found.key, found.public, passphrase=secret, chain=chain)
    return Imported(found.public, secret is not None, len(found.chain), tuple(_exposed(source, found.passphrase)))


def _exposed(source: str, passphrase: bytes | None) -> list[str]:
    mode = stat.S_IMODE(os.stat(to_path(source)).st_mode)
    if passphrase is not None or not mode & 0o077:
        return []
    return [
        f"{printable(source)} holds the same key, unencrypted, and others may read it (mode {mode:04o}); remove it, "
        "and make a new key if somebody may have read it."
    ]
