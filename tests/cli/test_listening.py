"""The gateway's socket."""

from __future__ import annotations

import contextlib
import socket

import pytest

from jarvis_mesh.cli.listening import listen, spread, url_of
from jarvis_mesh.schema.errors import SetupError


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.8.8"])
def test_this_machine_is_listened_on_without_more_ado(host: str) -> None:
    with listen(host, 0, is_open=False) as sock:
        socket.create_connection(sock.getsockname()[:2], timeout=5).close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - that is the point
def test_other_machines_are_let_in_only_when_told(host: str) -> None:
    with pytest.raises(SetupError, match="--insecure"):
        listen(host, 0, is_open=False)


def test_the_url_of_a_wildcard_is_one_that_can_be_opened() -> None:
    with listen("0.0.0.0", 0, is_open=True) as sock:  # noqa: S104 - that is the point
        assert url_of(sock, tls=False) == f"http://127.0.0.1:{sock.getsockname()[1]}"
        assert url_of(sock, tls=True) == f"https://127.0.0.1:{sock.getsockname()[1]}"


def test_no_such_host_is_said() -> None:
    with pytest.raises(SetupError, match="--host 'no such host'"):
        listen("no such host", 0, is_open=True)
    with pytest.raises(SetupError, match="--host ''"):
        listen("", 0, is_open=True)
    with pytest.raises(SetupError, match="can't be listened on"):
        listen("192.0.2.1", 0, is_open=True)


def test_connections_are_spread_over_the_sockets_of_several_processes() -> None:
    with (
        listen("127.0.0.1", 0, is_open=False) as sock,
        spread(sock, 2) as sockets,
        contextlib.ExitStack() as closing,
    ):
        for _ in range(200):
            closing.enter_context(socket.create_connection(sock.getsockname(), timeout=5))
        accepted = [_accept_all(each) for each in sockets]
        assert sum(accepted) == 200
        assert min(accepted) > 50


def test_where_the_kernel_does_not_spread_them_all_processes_share_one_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with (
        listen("127.0.0.1", 0, is_open=False) as sock,
        spread(sock, 2) as (_, other),
        socket.create_connection(sock.getsockname(), timeout=5),
    ):
        assert _accept_all(other) == 1


def test_nobody_else_gets_a_port_that_processes_share() -> None:
    with listen("127.0.0.1", 0, is_open=False) as sock, spread(sock, 3):
        port = sock.getsockname()[1]
        with pytest.raises(SetupError, match="is taken"):
            listen("127.0.0.1", port, is_open=False)


def _accept_all(sock: socket.socket) -> int:
    sock.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.accept()[0].close()
            count += 1
    return count
