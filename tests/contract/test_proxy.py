"""The fault proxy does to a connection what it is told, and nothing when it is over."""

import contextlib
import socket
import socketserver
import threading

import pytest

from kmsbridge.testing import FaultProxy

PATIENCE = 10.0
HEAD, BODY = b"HTTP/1.0 200 OK\r\n\r\n", b"0123456789" * 10


class _Answer(socketserver.BaseRequestHandler):
    """Answers each request, once it is here, with the same bytes, and closes."""

    requests = 0

    def handle(self):
        if self.request.recv(4096):
            type(self).requests += 1
            self.request.sendall(HEAD + BODY)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def server():
    _Answer.requests = 0
    with _Server(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server):
    with FaultProxy(*server.server_address) as proxy:
        yield proxy


def ask(proxy):
    """All that comes back for a request, until the connection ends."""
    with contextlib.closing(connected(proxy)) as sock:
        sock.sendall(b"request")
        return received(sock)


def connected(proxy):
    return socket.create_connection(proxy.address, PATIENCE)


def received(sock, most=4096):
    data = b""
    while block := sock.recv(4096):
        data += block
        assert len(data) <= most
    return data


def test_everything_passes_until_told(proxy):
    assert [ask(proxy) for _ in range(3)] == [HEAD + BODY] * 3
    assert proxy.connections == 3


def test_refused_connection_is_refused_and_the_port_kept(proxy, server):
    """Nobody else can take it meanwhile, and it is the same afterwards."""
    address = proxy.address
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        ask(proxy)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(address)
    proxy.heal()
    assert ask(proxy) == HEAD + BODY
    assert proxy.address == address


def test_reset_ends_a_connection_before_the_server_sees_it(proxy, server):
    proxy.reset()
    with pytest.raises(ConnectionError):
        ask(proxy)
    assert _Answer.requests == 0


@pytest.mark.parametrize("count", (0, 1, 30))
def test_reset_after_some_bytes_of_the_answer(proxy, server, count):
    """The server has answered; no more than these bytes arrive, and the end is no orderly one."""
    proxy.reset_after(count)
    with contextlib.closing(connected(proxy)) as sock:
        sock.sendall(b"request")
        with pytest.raises(ConnectionResetError):
            received(sock, most=count)
    assert _Answer.requests == 1


def test_hanging_proxy_answers_nothing(proxy, server):
    proxy.hang()
    with contextlib.closing(connected(proxy)) as sock:
        sock.sendall(b"request")
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    assert _Answer.requests == 0


def test_slow_answer_is_whole_in_the_end(proxy):
    """Byte by byte, each as the server sent it."""
    proxy.slow(2000)
    assert ask(proxy) == HEAD + BODY


def test_slow_answer_comes_in_single_bytes(proxy):
    proxy.slow(1)
    with contextlib.closing(connected(proxy)) as sock:
        sock.sendall(b"request")
        assert sock.recv(4096) == HEAD[:1]


def test_late_answer_is_whole(proxy):
    proxy.delay(0.05)
    assert ask(proxy) == HEAD + BODY


def test_late_answer_is_not_there_before(proxy):
    proxy.delay(PATIENCE)
    with contextlib.closing(connected(proxy)) as sock:
        sock.sendall(b"request")
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_half_an_answer_has_its_head_and_half_its_body(proxy):
    """And ends in good order, as when a server is stopped."""
    proxy.half()
    assert ask(proxy) == HEAD + BODY[: len(BODY) // 2]


def test_answer_is_reset_in_the_middle(proxy):
    proxy.reset_amid()
    with contextlib.closing(connected(proxy)) as sock:
        sock.sendall(b"request")
        with pytest.raises(ConnectionResetError):
            received(sock, most=len(HEAD) + len(BODY) // 2)


def test_answer_stops_in_the_middle(proxy):
    """And the connection stays open."""
    proxy.stall()
    with contextlib.closing(connected(proxy)) as sock:
        sock.sendall(b"request")
        data = b""
        while len(data) < len(HEAD) + len(BODY) // 2:
            data += sock.recv(4096)
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_connection_is_closed_without_an_answer(proxy, server):
    proxy.end()
    assert ask(proxy) == b""
    assert _Answer.requests == 0


def test_answer_of_ones_own_is_given(proxy, server):
    proxy.answer(b"220 something else\r\n")
    assert ask(proxy) == b"220 something else\r\n"
    assert _Answer.requests == 0


def test_connection_stays_open_after_an_answer_of_ones_own(proxy):
    proxy.answer(b"wait\r\n", then_end=False)
    with contextlib.closing(connected(proxy)) as sock:
        sock.sendall(b"request")
        assert sock.recv(4096) == b"wait\r\n"
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_answer_without_end_goes_on(proxy):
    """For as long as it is read."""
    proxy.endless(b"head", b"x" * 1000)
    with contextlib.closing(connected(proxy)) as sock:
        sock.sendall(b"request")
        data = b""
        while len(data) < 10**6:
            data += sock.recv(1 << 20)
    assert data.startswith(b"headx")
    assert not data[4:].strip(b"x")


def test_idle_connection_is_closed_in_good_order(proxy):
    """When that is done the end is there already, and new connections work."""
    with contextlib.closing(connected(proxy)) as idle:
        assert ask(proxy) == HEAD + BODY
        proxy.drop()
        idle.setblocking(False)
        assert idle.recv(1) == b""
    assert ask(proxy) == HEAD + BODY


def test_idle_connection_goes_silent(proxy, server):
    """Nothing comes back on it, nor does its end; new connections work; when it is over it is reset."""
    with contextlib.closing(connected(proxy)) as idle:
        assert ask(proxy) == HEAD + BODY
        proxy.vanish()
        idle.sendall(b"request")
        assert ask(proxy) == HEAD + BODY
        idle.settimeout(0.1)
        with pytest.raises(TimeoutError):
            idle.recv(1)
        assert _Answer.requests == 2
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            idle.recv(1)


def test_connections_since_a_fault_are_counted(proxy):
    """Of every kind of fault."""
    for fault in (proxy.heal, proxy.drop, proxy.vanish, proxy.end):
        ask(proxy)
        fault()
        assert proxy.connections == 0


def test_open_connections_end_when_the_fault_changes(proxy):
    """A client that waits is not left to wait for ever."""
    proxy.slow(1)
    with contextlib.closing(connected(proxy)) as sock:
        sock.sendall(b"request")
        assert sock.recv(1)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert ask(proxy) == HEAD + BODY


def test_service_that_is_not_there_is_a_broken_connection(server):
    """The proxy itself does not fail over it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with FaultProxy(*unused.getsockname()) as proxy, pytest.raises(ConnectionError):
            ask(proxy)


def test_closed_proxy_leaves_nothing_open(server):
    """No thread, no listener; closing again does nothing."""
    before = threading.active_count()
    proxy = FaultProxy(*server.server_address)
    waiting = connected(proxy)
    proxy.close()
    proxy.close()
    assert threading.active_count() <= before + 1
    with contextlib.closing(waiting), pytest.raises(ConnectionResetError):
        waiting.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
