"""Frames reach a real socket whole and in order, however little it takes at a time."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from jarvis_mesh.gateway.fanout import Burst
from jarvis_mesh.gateway.formats import CBOR
from jarvis_mesh.gateway.outbox import JOIN_BYTES
from jarvis_mesh.gateway.socket_outbox import SocketOutbox
from tests.support.waiting import wait_until

HIGH_WATER = 32 * 1024


class Server(asyncio.Protocol):
    """Tells the outbox what the transport says."""

    outbox: SocketOutbox

    def pause_writing(self) -> None:
        self.outbox.pause()

    def resume_writing(self) -> None:
        self.outbox.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self.outbox.lost()


class Client:
    """The other end, which reads only when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.frames = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        self._socket = sock

    def read(self) -> list[Frame]:
        """Return the frames that are there."""
        try:
            while data := self._socket.recv(1 << 16):
                self.frames.receive_data(data)
        except BlockingIOError:
            pass  # that was all for now
        assert self.frames.parser_exc is None
        return [each for each in self.frames.events_received() if isinstance(each, Frame)]


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[SocketOutbox, Client, asyncio.Transport]]:
    ours, theirs = socket.socketpair()
    with theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)
        protocol, frames = Server(), Protocol(Side.SERVER, state=State.OPEN)
        loop = asyncio.get_running_loop()
        # Before the transport exists nothing is said, and so the outbox can come after it.
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        protocol.outbox = SocketOutbox(transport, frames, CBOR, HIGH_WATER)
        yield protocol.outbox, Client(theirs), transport
        transport.abort()
        await wait_until(lambda: ours.fileno() < 0, "the end of the transport")


def bursts(count: int) -> Iterator[Burst]:
    for number in range(count):
        yield Burst([number.to_bytes(4, "big"), os.urandom(997 * (number % 9))], CBOR, 0)


async def test_bursts_and_control_frames_reach_a_slow_reader_whole_and_in_order() -> None:
    async with connected() as (outbox, client, _):
        sent: list[bytes] = []
        received: list[bytes] = []
        pongs = 0
        for number, burst in enumerate(bursts(400)):
            if outbox.is_full:
                await wait_until(lambda: received.extend(data_of(client)) or outbox.is_drained)
            outbox.write_burst(burst)
            sent.append(burst.joined)
            if number % 3 == 0:
                outbox.write_control(Frame(Opcode.PONG, b"x").serialize(mask=False))
                pongs += 1
        await wait_until(
            lambda: received.extend(data_of(client)) or len(received) == len(sent) + pongs
        )
        assert [data for data in received if data != b"x"] == sent


async def test_it_is_full_above_the_high_mark_and_drained_when_the_reader_has_taken_it() -> None:
    async with connected() as (outbox, client, transport):
        count = 0
        while not outbox.is_full:
            outbox.write_burst(Burst([bytes(1000)], CBOR, 0))
            count += 1
        assert transport.get_write_buffer_size() <= HIGH_WATER + 1010
        assert not outbox.is_drained
        received: list[Frame] = []
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(outbox.drained())
            await wait_until(lambda: received.extend(client.read()) or len(received) == count)
            await waiting
        assert outbox.is_drained


async def test_what_one_turn_says_is_one_frame_and_a_large_message_its_own() -> None:
    async with connected() as (outbox, client, _):
        outbox.write(b"a")
        outbox.write(b"b")
        outbox.write(bytes(JOIN_BYTES))
        received: list[bytes] = []
        await wait_until(lambda: received.extend(data_of(client)) or len(received) == 2)
        assert received == [b"ab", bytes(JOIN_BYTES)]


async def test_what_was_said_comes_before_a_burst() -> None:
    async with connected() as (outbox, client, _):
        outbox.write(b"first")
        outbox.write_burst(Burst([b"second"], CBOR, 0))
        received: list[bytes] = []
        await wait_until(lambda: received.extend(data_of(client)) or len(received) == 2)
        assert received == [b"first", b"second"]


@pytest.mark.parametrize("discard", [False, True])
async def test_the_last_words_come_before_the_close_frame_unless_discarded(
    *, discard: bool
) -> None:
    async with connected() as (outbox, client, _):
        outbox.write(b"last words")
        outbox.finish(1012, "draining", discard=discard)
        outbox.write_burst(Burst([b"too late"], CBOR, 0))
        received: list[Frame] = []
        await wait_until(lambda: received.extend(client.read()) or client.frames.close_rcvd)
        words = [bytes(frame.data) for frame in received if frame.opcode is Opcode.BINARY]
        assert words == ([] if discard else [b"last words"])
        assert client.frames.close_rcvd is not None
        assert client.frames.close_rcvd.code == 1012


async def test_after_the_connection_is_lost_nothing_is_written_to_what_has_its_number_now() -> None:
    async with connected() as (outbox, client, transport):
        outbox.write_burst(Burst([b"one"], CBOR, 0))  # from here on past the transport
        outbox.write_burst(Burst([b"two"], CBOR, 0))
        assert outbox._is_clear
        number = transport.get_extra_info("socket").fileno()
        transport.abort()
        await wait_until(lambda: transport.get_extra_info("socket").fileno() < 0)
        with socket.socket() as other:
            other_pair = socket.socketpair()
            with other_pair[0], other_pair[1]:
                assert number in (other.fileno(), *(each.fileno() for each in other_pair))
                outbox.write_burst(Burst([b"for nobody"], CBOR, 0))
                other_pair[0].setblocking(False)
                with pytest.raises(BlockingIOError):
                    other_pair[0].recv(100)
                other_pair[1].setblocking(False)
                with pytest.raises(BlockingIOError):
                    other_pair[1].recv(100)
        assert data_of(client) == [b"one", b"two"]


async def test_over_tls_everything_goes_through_the_transport() -> None:
    written: list[bytes] = []
    transport = SimpleNamespace(
        get_extra_info={"sslcontext": object()}.get,
        get_write_buffer_size=lambda: 0,
        set_write_buffer_limits=lambda high: None,
        is_closing=lambda: False,
        write=written.append,
    )
    frames = Protocol(Side.SERVER, state=State.OPEN)
    outbox = SocketOutbox(cast(asyncio.Transport, transport), frames, CBOR, HIGH_WATER)
    sent = list(bursts(3))
    for burst in sent:
        outbox.write_burst(burst)
    assert written == [burst.frame for burst in sent]


def data_of(client: Client) -> list[bytes]:
    return [bytes(frame.data) for frame in client.read()]
