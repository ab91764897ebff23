"""Digests and their text form."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import EvidenceError, UsageError
from sealflow.hashing import FILE_HASHES, Digest, dir_hash, new_hash, sha256_hex

HEX = "0123456789abcdef" * 4
hexes = st.text("0123456789abcdef", min_size=64, max_size=64)


@pytest.mark.parametrize("algorithm", ["sha256", "dirHash"])
def test_round_trip(algorithm: str) -> None:
    digest = Digest.parse(f"{algorithm}:{HEX}")
    assert digest == Digest(algorithm, HEX)
    assert str(digest) == f"{algorithm}:{HEX}"
    assert digest.path_segment == f"{algorithm}-{HEX}"
    assert digest.as_digest_set() == {algorithm: HEX}


@pytest.mark.parametrize(
    "text",
    ["", HEX, f"sha256:{HEX[:-1]}", f"sha256:{HEX}0", f"sha256:{HEX.upper()}", f"SHA256:{HEX}", f"dirhash:{HEX}",
     f"sha512:{HEX}", f" sha256:{HEX}", f"sha256:{HEX}\n", f"sha256: {HEX}", f"sha256:{'g' * 64}", f"sha256-{HEX}",
     None, 1, b"x"],
    ids=ascii,
)  # fmt: skip
def test_not_a_digest(text: object) -> None:
    with pytest.raises(UsageError, match="not an artifact digest"):
        Digest.parse(text)  # type: ignore[arg-type]


def test_the_algorithm_is_part_of_the_identity() -> None:
    assert Digest("sha256", HEX) != Digest("dirHash", HEX)


@pytest.mark.parametrize("algorithm", FILE_HASHES)
def test_file_hashes_have_their_published_length(algorithm: str) -> None:
    state = new_hash(algorithm)
    state.update(b"abc")
    assert len(state.hexdigest()) == FILE_HASHES[algorithm]


def test_known_answers() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    blake2b = new_hash("blake2b")
    blake2b.update(b"abc")
    assert blake2b.hexdigest().startswith("ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1")
    blake3 = new_hash("blake3")
    blake3.update(b"")
    assert blake3.hexdigest() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "SHA256", "", "sha256-sharded-1000"])
def test_other_hashes_are_refused(algorithm: str) -> None:
    with pytest.raises(EvidenceError, match="Unknown hash algorithm"):
        new_hash(algorithm)


@given(st.dictionaries(st.text(min_size=1), hexes, max_size=6), st.randoms())
def test_dir_hash_ignores_the_order_of_the_listing(files: dict[str, str], random: object) -> None:
    try:
        "".join(files).encode()
    except UnicodeEncodeError:
        return
    listing = list(files.items())
    random.shuffle(listing)  # type: ignore[attr-defined]
    assert dir_hash(listing) == dir_hash(files.items())


def test_dir_hash_binds_names_and_bytes() -> None:
    one = dir_hash([("a", HEX), ("b", HEX[::-1])])
    assert one != dir_hash([("b", HEX), ("a", HEX[::-1])])
    assert one != dir_hash([("a", HEX), ("c", HEX[::-1])])
    expected = hashlib.sha256(f"{HEX}  a\n{HEX[::-1]}  b\n".encode()).hexdigest()
    assert one == Digest("dirHash", expected)
