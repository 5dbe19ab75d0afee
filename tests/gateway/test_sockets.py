"""What a listening socket is set to, those of its connections have."""

from __future__ import annotations

import socket

from jarvis_mesh.gateway.sockets import UNSENT_BYTES, set_up


def test_the_sockets_of_connections_are_for_small_urgent_messages() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        set_up(listening)
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                unsent = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
                assert unsent == UNSENT_BYTES


def test_other_kinds_of_sockets_are_left_alone() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        set_up(sock)
