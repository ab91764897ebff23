"""Messages that the official SDK wrote, kept here so that no test run goes without them."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from sealflow.encryption import MessageDecryptor, decrypt_message, parse_header
from sealflow.encryption.suite import derive
from tests.core.encryption.messages import aes, parts

# aws-encryption-sdk 4.0.7: 200 bytes in frames of 128, a raw AES keyring with the key 07 07 07 …
PLAIN = (
    "AgR4H6TtvloFS/46wGHu7STCB16oEBLeYpNi+oppv73413YAFgACAANydW4AATcAAsO8AAbml6XmnKwAAQAIc2VhbGZsb3cAGWtub3duAAAA"
    "gAAAAAyqZ+6eNuUabg8qY8oAMGRqdvC+JqS3q5EX5R1CnZhs0Y/lIc2P7LANHveUgFoqAZrpUrkUpYkIN2egY6liNQIAAACAPRT8oCh1wU2e"
    "RU8jHkEzIYiv3c7iteOAhiX6uLFmoV6uLgsreKlXLqjqq1Sj6DkQAAAAAQAAAAAAAAAAAAAAAb/odg1rV4BEKyA123vAuP35hQdYPhZLFb65"
    "E8L9p2BHV33Is+Szmf0i7klRFwio6PQADFi5hX92euCNu1wZ1OeOUxiqe/ASG8lXoJyhWlxc2G8DL2DoUzYn3pQVYtizDlfeNM1kz5UnrxTz"
    "acl4eRk6Uc/FsySGDQiwpx7ZE5gx2Xi90O5kcLYD7IRktqiZSf////8AAAACAAAAAAAAAAAAAAACAAAASPXlCVIqUcJdKYH2UWd1oKIs6QKg"
    "R6GElgJ9Ih5kK4i09zg1xF0Zijh6rKyNEhjU2YScwcR5woXoJKZy2t92snGoXZp06xSrAtW2nBAV9ZGvABgZj4xqTtA="
)
SIGNED = (
    "AgV4ykOaHJmJzdIEMimADoNh7a/UzvhoLqrpsSZEbxAKsegAcwADABVhd3MtY3J5cHRvLXB1YmxpYy1rZXkAREF2ZWRiaytVeXczV0Jyem1G"
    "Yy9yNVZYbXplQ1ZPUW16cW1BZU4yWUNMM0x3KzcxaWlvdGV0WGdiSUNXVjJYZzAwdz09AANydW4AATcAAsO8AAbml6XmnKwAAQAIc2VhbGZs"
    "b3cAGWtub3duAAAAgAAAAAzU5dHu6Z73dieIh7oAMJ595O6k1gGetsNGtYvJ9XNF2qtVf70Ur0sK8uX6tPyWPfeToGRgMV2KXmx6pqfpjwIA"
    "AACAAc3D4PAEL8jKC9ObFTH2L0mZCgwp5VAwEdtP5dvU1gvcwHihz6OP3b5eD0IARbO9AAAAAQAAAAAAAAAAAAAAAbVElNpyzWaK3+XFWevT"
    "LgBSfFveGY5B0sg0atow2C5lQZnGY1tBOARRM6OCL7rFeQOE89N2qfMKJ2eKGKHdpS74B9xmXIaOmVCq6jQi0NhVqPpU6NxkgG8bCGi+MNfp"
    "sLwrCGkHACpVzJtxXUSKAgSGP4iqN1eYyqiIiM4s4QOX6eHi8xnNDvqIO7Mp0JuuT/////8AAAACAAAAAAAAAAAAAAACAAAASB6+aX6WW8jM"
    "5gEIBYhs/Jhh+hg+cLwDGZ4aqBcHBH2AThiftL4Z+VO4a4Ppb646qVdJ/K+xqjlfdK79wVV73VJNWkQbpAyrXS8mrjEbHaeV7tJi3XaMJuoA"
    "ZzBlAjAA0eLYUcKNf5Q9sholt7tqkeUvLPFx6yfbGnB0IOa5sZT6helU1D9IUOWOAYguEXUCMQDsE2HCDV62EyFZHy9iFzSR8ve6xe+L7ZNA"
    "Pt1N7nZKdT1draf51XZFo6HWiCcl5Oo="
)
CONTENT = bytes(range(200))
CONTEXT = {"run": "7", "ü": "日本"}


@pytest.mark.parametrize("message", [PLAIN, SIGNED], ids=["plain", "signed"])
def test_known_messages(tmp_path: Path, message: str) -> None:
    data = base64.b64decode(message)
    assert decrypt_message(data, [aes(tmp_path, query="?name=known")], expected=CONTEXT) == CONTENT


def test_a_range_of_a_known_message(tmp_path: Path) -> None:
    data = base64.b64decode(PLAIN)
    decryptor = MessageDecryptor(data, [aes(tmp_path, query="?name=known")], expected=CONTEXT, size=len(data))
    frame = parts(data)[1][1]
    out = bytearray(72)
    decryptor.open(2, frame, out, sha256=hashlib.sha256(frame).digest())
    assert bytes(out) == CONTENT[128:]


def test_the_key_of_another_suite_is_another_key() -> None:
    """What is derived depends on the suite; the commitment does not, as the specification has it."""
    first, second = (derive(bytes(32), suite, bytes(32)) for suite in (0x0478, 0x0578))
    assert first[0].encrypt(bytes(12), b"", b"") != second[0].encrypt(bytes(12), b"", b"")
    assert first[1] == second[1]
    # In hex, what the specification's vectors have for an all-zero key and message id.
    assert first[1].hex() == "433d837f59cb7e9bc6334d154aff831109c6372d98f8b5ac8588bff7efaba651"


def test_headers_of_known_messages() -> None:
    plain, signed = (parse_header(base64.b64decode(message)) for message in (PLAIN, SIGNED))
    assert (plain.signed, signed.signed) == (False, True)
    assert dict(plain.context.pairs) == CONTEXT
    assert plain.context.encoded in plain.raw
    assert [key.name for key in (*plain.data_keys, *signed.data_keys)] == ["known", "known"]
