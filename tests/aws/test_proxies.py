"""A proxy between this host and AWS keeps no call longer than its deadline either."""

import contextlib
import socket
import threading

import pytest
from botocore.exceptions import ProxyConnectionError, ReadTimeoutError

from kmsbridge.testing import LoopbackCertificates

PATIENCE = 30.0


@pytest.fixture
def slow_proxy(tmp_path, end):
    """A proxy whose answer comes byte by byte, for ever; over TLS where that is asked for."""
    certificates = LoopbackCertificates.make(tmp_path)
    over, asked = threading.Event(), []

    def start(scheme):
        listener = end.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(PATIENCE)

        def run():
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                sock.settimeout(PATIENCE)
                context = certificates.server_context() if scheme == "https" else None
                with context.wrap_socket(sock, server_side=True) if context else sock as sock:
                    asked.append(sock.recv(4096))
                    sock.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
                    while not over.wait(0.02):
                        sock.sendall(b"x")

        thread = threading.Thread(target=run)
        thread.start()
        end.callback(thread.join, PATIENCE)
        end.callback(over.set)
        return f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", certificates.ca_file, asked

    return start


@pytest.mark.parametrize("scheme", ("http", "https"))
def test_proxy_that_answers_slowly_costs_the_timeout(driver_of, slow_proxy, monkeypatch, scheme):
    """Also one that is reached over TLS, within which the service's own TLS would be spoken."""
    address, ca_file, asked = slow_proxy(scheme)
    monkeypatch.setenv("HTTPS_PROXY", address)
    key = {"access_key_id": "AKIA", "secret_access_key": "s"}
    driver = driver_of("aws-kms://alias/app?region=eu-west-1", ca_file=ca_file, **key)
    with pytest.raises(ReadTimeoutError):
        driver.resolve(timeout=3)
    assert asked[0].startswith(b"CONNECT kms.eu-west-1.amazonaws.com:443 ")


def test_proxy_of_an_unknown_ca_gets_nothing(driver_of, slow_proxy, monkeypatch):
    """Its certificate is checked as the service's is."""
    address, _, asked = slow_proxy("https")
    monkeypatch.setenv("HTTPS_PROXY", address)
    key = {"access_key_id": "AKIA", "secret_access_key": "s"}
    driver = driver_of("aws-kms://alias/app?region=eu-west-1", **key)
    with pytest.raises(ProxyConnectionError):
        driver.resolve(timeout=10)
    assert asked == []
