"""A body is one event; what claims to be more is refused before it costs anything."""

from __future__ import annotations

import struct
import time
import tracemalloc
from typing import Any

import cbor2
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from jarvis_mesh.schema.codec import (
    COMPRESS_FROM_BYTES,
    MAX_BODY_BYTES,
    MAX_PLAIN_BYTES,
    ZSTD_MAGIC,
    decode_body,
    encode_body,
    iter_items,
)
from jarvis_mesh.schema.errors import EventError, MeshError, TooLargeError
from jarvis_mesh.schema.event import Event, Metadata, new_id
from tests.support.strategies import EVENTS

MIB = 1024 * 1024


def event(payload: object = None) -> Event:
    return Event(
        id=new_id(1),
        type="agent:created",
        source="agent-service",
        timestamp=1,
        payload=payload,
        metadata=Metadata(entity="a"),
    )


def zstd(plain: bytes, *, content_size: bool) -> bytes:
    compressor = zstandard.ZstdCompressor(write_content_size=content_size).compressobj(
        size=len(plain) if content_size else -1
    )
    return compressor.compress(plain) + compressor.flush()


@given(EVENTS)
def test_decoding_undoes_encoding(event: Event) -> None:
    decoded = decode_body(encode_body(event))
    assert decoded == event
    assert list(decoded.to_map()) == list(event.to_map())


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\xa6\x62id" + tail))
def test_any_bytes_are_an_event_or_an_error(body: bytes) -> None:
    with pytest.raises(MeshError):
        decode_body(body)


@given(st.binary(max_size=40))
def test_any_bytes_after_the_magic_are_an_error(tail: bytes) -> None:
    with pytest.raises(MeshError):
        decode_body(ZSTD_MAGIC + tail)


def test_a_small_event_travels_bare_and_a_large_one_compressed() -> None:
    assert not encode_body(event({"x": "a" * 20})).startswith(ZSTD_MAGIC)
    large = encode_body(event({"x": "a" * COMPRESS_FROM_BYTES}))
    assert large.startswith(ZSTD_MAGIC)
    assert len(large) < COMPRESS_FROM_BYTES


def test_what_does_not_compress_travels_bare() -> None:
    noise = "".join(chr(0x4E00 + (index * 7919) % 20_000) for index in range(400))
    body = encode_body(event({"x": noise}))
    assert len(body) <= len(cbor2.dumps(event({"x": noise}).to_map()))


@pytest.mark.parametrize("content_size", [True, False])
def test_a_compressed_event_decodes_with_and_without_its_size(content_size: bool) -> None:
    one = event({"x": "y" * 5_000})
    assert decode_body(zstd(cbor2.dumps(one.to_map()), content_size=content_size)) == one


@pytest.mark.parametrize("content_size", [True, False])
def test_a_bomb_is_refused_without_being_expanded(content_size: bool) -> None:
    bomb = zstd(b"\x00" * (64 * MIB), content_size=content_size)
    assert len(bomb) < 10_000
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises((TooLargeError, EventError), match=r"4 MiB|4,194,304"):
            decode_body(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 0.5
    assert peak < MAX_PLAIN_BYTES + MIB


def test_a_frame_that_wants_a_huge_window_is_refused() -> None:
    huge_window = ZSTD_MAGIC + b"\x00" + b"\x98" + b"\x01\x00\x00"  # 1.9 GiB, one empty block
    with pytest.raises(EventError, match="zstd"):
        decode_body(huge_window)


@pytest.mark.parametrize("plain", [b"\x00" * MAX_PLAIN_BYTES, b"\x9f" + b"\x80" * MIB + b"\xff"])
def test_megabytes_of_items_are_refused_before_they_are_decoded(plain: bytes) -> None:
    """Decoding them all took 9 s one by one, and 0.1 s and 56 MiB in a list."""
    body = zstd(plain, content_size=True)
    started = time.process_time()
    with pytest.raises(TooLargeError, match="values"):
        decode_body(body)
    assert time.process_time() - started < 0.5


def test_a_body_over_the_limit_is_too_large_whatever_it_holds() -> None:
    with pytest.raises(TooLargeError):
        decode_body(b"\x00" * (MAX_BODY_BYTES + 1))


def test_an_event_over_a_limit_is_not_encoded() -> None:
    with pytest.raises(TooLargeError, match="over 4,194,304"):
        encode_body(event({"x": "a" * MAX_PLAIN_BYTES}))
    noise = "".join(f"{hash((index, 'salt')):x}" for index in range(200_000))
    with pytest.raises(TooLargeError, match="publish a reference"):
        encode_body(event({"x": noise}))


def test_an_event_just_within_the_plain_limit_comes_back() -> None:
    one = event({"x": "a" * (MAX_PLAIN_BYTES - 200)})
    assert decode_body(encode_body(one)) == one


def test_every_cbor_tag_is_refused() -> None:
    """Two bytes number 65,536 of them; a newer cbor2 that decodes more by itself fails here."""
    for tag in range(65_536):
        for content in (b"\x00", b"\x80"):
            with pytest.raises(EventError, match="tags aren't allowed"):
                list(iter_items(_tag(tag) + content))


@pytest.mark.parametrize("tag", [2**16, 2**32 - 1, 2**32, 2**64 - 1])
def test_larger_tags_are_refused_too(tag: int) -> None:
    with pytest.raises(EventError, match="tags aren't allowed"):
        list(iter_items(b"\xdb" + struct.pack(">Q", tag) + b"\x00"))


def _tag(number: int) -> bytes:
    if number < 24:
        return bytes([0xC0 | number])
    if number < 256:
        return bytes([0xD8, number])
    return b"\xd9" + struct.pack(">H", number)


def test_shared_and_cyclic_references_are_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(EventError, match="tags"):
        list(iter_items(cbor2.dumps(cycle, value_sharing=True)))
    shared = ["x" * 100] * 3
    with pytest.raises(EventError, match="tags"):
        list(iter_items(cbor2.dumps(shared, string_referencing=True)))


def test_a_sequence_yields_its_items_up_to_the_malformed_one() -> None:
    items = iter_items(cbor2.dumps({"op": "ping"}) + cbor2.dumps([1]) + b"\xff" + b"\x01")
    assert next(items) == {"op": "ping"}
    assert next(items) == [1]
    with pytest.raises(EventError, match="malformed CBOR"):
        next(items)
    assert next(items, None) is None


def test_nothing_is_an_empty_sequence() -> None:
    assert list(iter_items(b"")) == []


@pytest.mark.parametrize(
    "claim",
    [b"\x9b" + b"\xff" * 8, b"\xbb" + b"\x7f" * 8, b"\x7b" + b"\x7f" * 8, b"\x5b" + b"\x7f" * 8],
    ids=["list", "map", "text", "bytes"],
)
def test_a_length_that_is_not_there_costs_no_memory(claim: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(EventError):
            list(iter_items(claim))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB


@pytest.mark.parametrize("opening", [b"\x81", b"\x9f", b"\xa1\x61a", b"\xbf\x61a", b"\xc1"])
def test_any_depth_of_nesting_is_refused_without_exhausting_the_stack(opening: bytes) -> None:
    with pytest.raises(EventError):
        list(iter_items(opening * 20_000))
    with pytest.raises(TooLargeError):
        list(iter_items(opening * 300_000))
