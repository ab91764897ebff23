"""PKCS#11 URIs (RFC 7512): what is taken, and that no PIN is ever repeated."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import UsageError
from sealflow.keys.pkcs11_uri import parse_pkcs11_uri

SECRET = "hunter2"


def test_all_attributes() -> None:
    uri = parse_pkcs11_uri(
        "pkcs11:token=the%20token;manufacturer=Snake%20Oil;model=1.0;serial=DECAFBAD;slot-id=7;object=my%2Dkey;"
        "id=%69%95%00;type=private?pin-source=file:/etc/pin&certificate=/chain.pem"
    )
    assert dict(uri.token) == {
        "token": "the token",
        "manufacturer": "Snake Oil",
        "model": "1.0",
        "serial": "DECAFBAD",
        "slot-id": "7",
    }
    assert (uri.label, uri.id) == ("my-key", b"\x69\x95\x00")
    assert (uri.pin_source, uri.certificate) == ("file:/etc/pin", "/chain.pem")
    assert "?" not in uri.text
    assert parse_pkcs11_uri("pkcs11:object=k").token == ()


@pytest.mark.parametrize(
    "uri",
    [
        f"pkcs11:object=k?pin-value={SECRET}",
        f"pkcs11:object=k;pin-value={SECRET}",
        f"pkcs11:object=k?pin%2Dvalue={SECRET}",
        f"pkcs11:object=k?PIN-VALUE={SECRET}",
        f"pkcs11:object=k?pin-source={SECRET}",
        f"pkcs11:object=k?pin-source=%7Ccat%20{SECRET}",
        f"pkcs11:object=k?pin-source=|cat {SECRET}",
        f"pkcs11:object=k?pin-source=env:{SECRET}%20x",
        f"pkcs11:object=k?pin-source=https://host/{SECRET}",
        f"pkcs11:object=k?pin-source=file://host/{SECRET}",
        f"pkcs11:object=k?{SECRET}",
        f"pkcs11:object=k?pin-source=/a&pin-source={SECRET}",
        f"pkcs11:{SECRET}",
    ],
)
def test_a_pin_is_refused_wherever_it_stands_and_never_repeated(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_pkcs11_uri(uri)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:",
        "pkcs11:token=t",
        "pkcs11:object=",
        "pkcs11:object=k;object=l",
        "pkcs11:object=k;id=%0",
        "pkcs11:object=k;id=%zz",
        "pkcs11:object=k;type=cert",
        "pkcs11:object=k;unknown=1",
        "pkcs11:object=k?module-name=opensc",
        "pkcs11:object=k?module-path=/usr/lib/evil.so",
        "pkcs11:object=k?pin-source=/a&module-path=/usr/lib/evil.so",
        "pkcs11:object=k?module%2Dpath=/usr/lib/evil.so",
        "pkcs11:object=k;module-path=/usr/lib/evil.so",
        "pkcs11:object=k?region=eu",
    ],
)
def test_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        parse_pkcs11_uri(uri)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_pkcs11_uri("pkcs11:" + text)
