"""The admission server's TLS: of today only, and its certificate follows its files."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from sealflow.errors import UsageError
from tests.kubeflow.admission_client import (
    Authority,
    days,
    post,
    review,
    run,
    until,
    world,
)
from tests.pki import NOW, private_pem

pytestmark = pytest.mark.slow

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_of_today(authority: Authority, version: ssl.TLSVersion) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            client = await made.connect(authority.client(minimum_version=version, maximum_version=version))
            assert (await client.ask(post(review(UID)))).response["uid"] == UID
            # Nothing to resume: each handshake shows the certificate.
            session = client.writer.get_extra_info("ssl_object").session
            assert session is None or not session.has_ticket

    run(scenario())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_tls_of_yesterday_is_refused(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            old = authority.client(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
            # What the client's own library would not speak either is let speak.
            old.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await made.connect(old)

    run(scenario())


def test_a_weak_cipher_is_refused(authority: Authority) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            weak = authority.client(maximum_version=ssl.TLSVersion.TLSv1_2)
            weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await made.connect(weak)

    run(scenario())


@pytest.mark.parametrize("name", ["localhost", None], ids=["with its name", "without a name"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_new_pair_is_used_for_new_connections(
    authority: Authority, version: ssl.TLSVersion, name: str | None
) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            context = authority.client(minimum_version=version, maximum_version=version)
            if name is None:
                context.check_hostname = False
            before = await made.connect(context)
            new = authority.write()
            await until(lambda: len(made.log("certificate")) == 2)
            _, writer = await asyncio.open_connection(
                "127.0.0.1", made.server.ports[0], ssl=context, server_hostname=name or ""
            )
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert der == new.certificate.public_bytes(Encoding.DER)
            writer.transport.abort()
            assert before.certificate() != new.certificate
            # What was open stays open.
            assert (await before.ask(post(review(UID)))).response["uid"] == UID
            assert await made.metric("certificate_files_good") == 1
            assert await made.metric("certificate_loads_total") == 2

    run(scenario())


def _mismatched(authority: Authority) -> None:
    authority.write(authority.issue(), key=ec.generate_private_key(ec.SECP256R1()))


def _expired(authority: Authority) -> None:
    authority.write(authority.issue(valid_from=NOW - days(9), valid_to=NOW - days(1)))


def _future(authority: Authority) -> None:
    authority.write(authority.issue(valid_from=NOW + days(1)))


def _encrypted(authority: Authority) -> None:
    pair = authority.write()
    authority.key.write_bytes(private_pem(pair.key, b"passphrase"))


BAD_PAIRS: dict[str, Callable[[Authority], Any]] = {
    "another key": _mismatched,
    "ended": _expired,
    "not yet begun": _future,
    "a key with a passphrase": _encrypted,
    "no certificate": lambda authority: authority.certificate.unlink(),
    "no key": lambda authority: authority.key.unlink(),
    "an empty certificate": lambda authority: authority.certificate.write_bytes(b""),
    "half a certificate": lambda a: a.certificate.write_bytes(a.certificate.read_bytes()[:200]),
    "a key for a certificate": lambda a: a.certificate.write_bytes(a.key.read_bytes()),
    "garbage": lambda authority: authority.key.write_bytes(bytes(range(256))),
    "a huge file": lambda authority: authority.certificate.write_bytes(b"\n" * ((1 << 20) + 1)),
    "a folder": lambda authority: (authority.key.unlink(), authority.key.mkdir()),
}


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_a_bad_pair_leaves_the_one_in_use(authority: Authority, name: str) -> None:
    async def scenario() -> None:
        async with world(authority) as made:
            used = (await made.connect()).certificate()
            BAD_PAIRS[name](authority)
            await until(lambda: any(line["problem"] for line in made.log("certificate")))
            assert (await made.connect()).certificate() == used
            assert await made.metric("certificate_files_good") == 0
            ready = await made.get("/readyz")
            assert (ready.status, ready.body[:2]) == (200, b"ok")
            assert b"from before" in ready.body
            # Said once, not with every look.
            await asyncio.sleep(0.1)
            assert len([line for line in made.log("certificate") if line["problem"]]) == 1
            # A good one puts all in order.
            if authority.key.is_dir():
                authority.key.rmdir()
            new = authority.write()
            await until(lambda: not made.log("certificate")[-1]["problem"])
            assert (await made.connect()).certificate() == new.certificate
            assert (await made.get("/readyz")).body == b"ok\n"

    run(scenario())


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_nothing_starts_with_a_bad_pair(authority: Authority, name: str) -> None:
    BAD_PAIRS[name](authority)
    with pytest.raises(UsageError) as caught:
        authority.certificates()
    assert caught.value.code == "CERTIFICATE_UNUSABLE"
    assert "PRIVATE KEY" not in str(caught.value)


def test_the_pair_from_before_comes_back_as_well(authority: Authority) -> None:
    pair = authority.certificate.read_bytes(), authority.key.read_bytes()
    certificates = authority.certificates()
    _mismatched(authority)
    assert certificates.look()
    assert certificates.problem
    authority.certificate.write_bytes(pair[0])
    authority.key.write_bytes(pair[1])
    assert certificates.look()
    assert not certificates.problem
    assert not certificates.look()


def test_looking_at_files_never_ends(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when a parser fails as nobody foresaw."""

    async def scenario() -> None:
        async with world(authority) as made:
            with monkeypatch.context() as patch:
                patch.setattr(x509, "load_pem_x509_certificates", lambda data: {}["secret"])
                authority.write()
                await until(lambda: made.log("certificate")[-1]["problem"])
            assert made.log("certificate")[-1]["problem"] == "Certificate or key cannot be judged (KeyError)."
            await until(lambda: not made.log("certificate")[-1]["problem"])

    run(scenario())
