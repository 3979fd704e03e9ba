"""HTTP within a deadline, with the plainest client there is: whatever the server does, the call ends."""

import contextlib
import http.client
import socket
import ssl
import threading
import time

import pytest

from kmsbridge.driverkit import http as kit
from kmsbridge.driverkit.deadline import is_over, left, within
from kmsbridge.testing import LoopbackCertificates
from tests.support import PATIENCE

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def certificates(tmp_path):
    return LoopbackCertificates.make(tmp_path)


@pytest.fixture(params=("plain", "TLS"))
def ask(request, serve):
    """Ask the server at a port, over TCP or TLS, within so many seconds: the body of its answer."""
    certificates = request.getfixturevalue("certificates") if request.param == "TLS" else None

    def ask(answer, timeout, *, requests=1):
        port = serve(answer, certificates and certificates.server_context())
        with within(timeout):
            sock = kit.connect("127.0.0.1", port)
            if certificates:
                context = ssl.create_default_context(cafile=certificates.ca_file)
                sock = kit.tls_within_deadline(context).wrap_socket(sock, server_hostname="127.0.0.1")
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.sock = sock
            with contextlib.closing(connection):
                bodies = []
                for _ in range(requests):
                    connection.request("GET", "/")
                    bodies.append(connection.getresponse().read())
        return bodies[-1]

    return ask


@pytest.fixture
def serve():
    """Serve one connection: `answer(send, over)` is called after each request."""
    over, threads = threading.Event(), []
    listeners = contextlib.ExitStack()

    def serve(answer, context=None):
        listener = listeners.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(PATIENCE)

        def run():
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                sock.settimeout(PATIENCE)
                with context.wrap_socket(sock, server_side=True) if context else sock as sock:
                    while sock.recv(65536):
                        answer(sock.sendall, over)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return listener.getsockname()[1]

    yield serve
    over.set()
    for thread in threads:
        thread.join(PATIENCE)
    listeners.close()


def trickle(send, over):
    """A byte now and then, for ever: no single read waits long."""
    send(HEAD % 10**6)
    while not over.wait(0.02):
        send(b"x")


def flood(send, over):
    """As much as goes, without end."""
    send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not over.is_set():
        send(bytes(2**20))


def silence(_send, over):
    over.wait(PATIENCE)


def test_answer_comes_whole(ask):
    assert ask(lambda send, _: send(HEAD % 5 + b"whole"), PATIENCE) == b"whole"


@pytest.mark.parametrize("answer", (trickle, silence))
def test_answer_that_does_not_end_is_given_up_at_the_deadline(ask, answer):
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        ask(answer, 0.5)
    assert time.monotonic() - begun < PATIENCE / 2


def test_endless_answer_is_refused(ask, monkeypatch):
    """Long before its deadline."""
    monkeypatch.setattr(kit, "LARGEST_ANSWER", 2**22)
    monkeypatch.setattr(kit._Bounded, "_room", 2**22)
    with pytest.raises(OSError, match="longer than"):
        ask(flood, 10 * PATIENCE)


def test_bound_is_one_answers_and_not_the_connections(ask, monkeypatch):
    monkeypatch.setattr(kit, "LARGEST_ANSWER", 1000)
    monkeypatch.setattr(kit._Bounded, "_room", 1000)
    assert ask(lambda send, _: send(HEAD % 600 + bytes(600)), PATIENCE, requests=3) == bytes(600)


def test_handshake_that_hangs_is_given_up_at_the_deadline(serve):
    """The server takes the client's first message and says nothing."""
    context = kit.tls_within_deadline(ssl.create_default_context())
    with within(0.3), pytest.raises(TimeoutError):
        context.wrap_socket(kit.connect("127.0.0.1", serve(silence)), server_hostname="localhost")


def test_request_that_nobody_reads_is_given_up_at_the_deadline():
    """Once the buffers are full."""
    with socket.create_server(("127.0.0.1", 0)) as listener, within(0.3):
        sock = kit.connect("127.0.0.1", listener.getsockname()[1])
        with contextlib.closing(sock), pytest.raises(TimeoutError):
            sock.sendall(bytes(2**26))


def test_address_that_is_dead_leaves_time_for_the_next(monkeypatch):
    """Each has its share of what is left; the last has all of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        alive = (socket.AF_INET, socket.SOCK_STREAM, 0, "", listener.getsockname())
        given = []
        real = kit.DeadlineSocket.connect

        def connect(sock, address):
            given.append(sock.gettimeout())
            if len(given) < 3:
                raise TimeoutError
            real(sock, address)

        monkeypatch.setattr(kit.DeadlineSocket, "connect", connect)
        monkeypatch.setattr(kit.socket, "getaddrinfo", lambda *_, **__: [alive] * 3)
        with within(30):
            kit.connect("many.example", 1).close()
    assert given[0] <= 10
    assert given[1] <= 15
    assert 15 < given[2] <= 30


def test_host_that_refuses_and_name_that_is_not_known_are_told_apart(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with within(PATIENCE), pytest.raises(ConnectionRefusedError):
        kit.connect("127.0.0.1", port)
    with within(PATIENCE), pytest.raises(socket.gaierror):
        kit.connect("no such name", 1)


# --- the deadline itself --------------------------------------------------------------------------


def test_inner_block_ends_with_the_outer_one_at_the_latest():
    with within(1):
        with within(100):
            assert left() <= 1
        with within(0.5):
            assert left() <= 0.5
        assert left() > 0.5


def test_no_time_is_a_timeout():
    with within(0):
        assert is_over()
        with pytest.raises(TimeoutError):
            left()


def test_deadline_is_the_threads_own():
    """Another thread has none, and is told so."""
    raised = []

    def elsewhere():
        with pytest.raises(RuntimeError, match="within"):
            left()
        raised.append(True)

    with within(5):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(PATIENCE)
    assert raised == [True]
