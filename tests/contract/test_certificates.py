"""Certificates for the loopback interface are right, or wrong in one way."""

import socket
import ssl

import pytest

from kmsbridge.testing import FaultProxy, LoopbackCertificates

EXPIRED, OTHER_HOST, UNKNOWN_CA = 10, 64, 20
"""OpenSSL's codes of what it finds when it verifies."""


@pytest.fixture
def greet():
    """What comes of a TLS handshake, by a strict client that trusts a CA, with a server of 127.0.0.1."""

    def handshake(served, trusted=None):
        client = ssl.create_default_context(cafile=(trusted or served).ca_file)
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        with (
            socket.socket() as nowhere,
            FaultProxy(*bound(nowhere), tls=served.server_context()) as proxy,
            socket.create_connection(proxy.address, 10) as sock,
            client.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
        ):
            return tls.version()

    return handshake


def bound(sock):
    sock.bind(("127.0.0.1", 0))
    return sock.getsockname()


def made(folder, **how):
    folder.mkdir()
    return LoopbackCertificates.make(folder, **how)


def test_sound_certificate_is_accepted(greet, tmp_path):
    """By a client as strict as Python 3.13's."""
    assert greet(made(tmp_path / "ours")) == "TLSv1.3"


@pytest.mark.parametrize(
    "how, code",
    (({"expired": True}, EXPIRED), ({"host": "another-host.invalid"}, OTHER_HOST)),
    ids=("expired", "of another host"),
)
def test_certificate_is_wrong_in_one_way(greet, tmp_path, how, code):
    """Everything else about it is right."""
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        greet(made(tmp_path / "ours", **how))
    assert caught.value.verify_code == code


def test_certificate_of_another_ca_is_not_trusted(greet, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        greet(made(tmp_path / "theirs"), made(tmp_path / "ours"))
    assert caught.value.verify_code == UNKNOWN_CA
