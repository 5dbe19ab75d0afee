"""The message body on NATS: one event as CBOR (RFC 8949), bare or as one zstd frame (RFC 8878).

Decoding is bounded in every direction: bytes in, bytes out, depth, and no CBOR tags at all,
since shared references and string references would let a small body grow without end.

Source: docs/protocol.md, "Events".
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import cbor2
import zstandard

from jarvis_mesh.schema.errors import EventError, TooLargeError
from jarvis_mesh.schema.event import Event, parse_event
from jarvis_mesh.schema.json_value import MAX_DEPTH
from jarvis_mesh.schema.value_count import check_cbor_count

MAX_BODY_BYTES: Final = 1_000_000
"""As it travels on NATS."""
MAX_PLAIN_BYTES: Final = 4 * 1024 * 1024
"""Once decompressed."""
COMPRESS_FROM_BYTES: Final = 256
"""Below this, zstd without a dictionary saves less than it costs (6 µs an event)."""

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_MAX_WINDOW_BYTES: Final = 8 * 1024 * 1024
_BUILT_IN_TAGS: Final = (
    *range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799,
)  # fmt: skip
"""What cbor2 6.3 decodes by itself; tests try them all, so a newer one that adds some fails."""

_compressor = zstandard.ZstdCompressor(level=3)
_decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)


def encode_body(event: Event) -> bytes:
    """Return the bytes that *event* travels as: compressed when that makes them fewer.

    The event must have been checked; `Event` alone doesn't.

    Raises:
        TooLargeError: over 1,000,000 bytes, over 4 MiB before compression, or too many values.
    """
    plain = cbor2.dumps(event.to_map())
    if len(plain) < COMPRESS_FROM_BYTES:
        return plain
    if len(plain) > MAX_PLAIN_BYTES:
        raise TooLargeError(f"the event has {len(plain):,} bytes, over {MAX_PLAIN_BYTES:,}")
    check_cbor_count(plain)
    packed = _compressor.compress(plain)
    body = packed if len(packed) < len(plain) else plain
    if len(body) > MAX_BODY_BYTES:
        raise TooLargeError(
            f"the event has {len(body):,} bytes on NATS, over {MAX_BODY_BYTES:,}: "
            "publish a reference to what is large"
        )
    return body


def decode_body(body: bytes) -> Event:
    """Return the event that a NATS message body holds.

    Raises:
        EventError: not exactly one event, or one that breaks the schema.
        TooLargeError: over a limit; nothing is expanded beyond it.
    """
    if len(body) > MAX_BODY_BYTES:
        raise TooLargeError(f"a body of {len(body):,} bytes, over {MAX_BODY_BYTES:,}")
    plain = decompress(body) if body.startswith(ZSTD_MAGIC) else body
    check_cbor_count(plain)
    stream = io.BytesIO(plain)
    value = _decode_item(stream)
    if stream.tell() != len(plain):  # said before the rest is decoded: it could be 4 MiB of items
        raise EventError("bytes after the event: a body holds exactly one CBOR item")
    return parse_event(value)


def decompress(body: bytes) -> bytes:
    """Return what one zstd frame holds, at most 4 MiB.

    Raises:
        EventError: no valid frame, bytes after it, or a dictionary that isn't known.
        TooLargeError: it would expand beyond the limit.
    """
    try:
        parameters = zstandard.get_frame_parameters(body)
        if parameters.dict_id:
            raise EventError(f"the zstd dictionary {parameters.dict_id} isn't known here")
        if parameters.content_size > MAX_PLAIN_BYTES and (
            parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN
        ):
            raise TooLargeError(f"a body that expands beyond {MAX_PLAIN_BYTES:,} bytes")
        return _decompressor.decompress(
            body, max_output_size=MAX_PLAIN_BYTES, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise EventError(f"no complete zstd frame of at most 4 MiB: {error}") from None


def plain_bytes(body: bytes) -> int:
    """Return how many bytes *body* has once decompressed, as far as it says so, at most 4 MiB."""
    if not body.startswith(ZSTD_MAGIC):
        return len(body)
    try:
        said = zstandard.get_frame_parameters(body).content_size
    except zstandard.ZstdError:
        return len(body)  # it won't be decompressed
    return min(said, MAX_PLAIN_BYTES)  # that of a frame that doesn't say is a number beyond


def iter_items(plain: bytes) -> Iterator[Any]:
    """Yield the items of a CBOR sequence (RFC 8742), up to the first malformed one.

    Raises:
        EventError: an item is malformed or cut, or has tags, duplicate keys, keys that aren't
            strings, or too deep a nesting.
        TooLargeError: there are too many values, in all of them together.
    """
    check_cbor_count(plain)
    stream = io.BytesIO(plain)
    while stream.tell() < len(plain):
        yield _decode_item(stream)


def _decode_item(stream: io.BytesIO) -> object:
    try:
        return cbor2.CBORDecoder(
            stream,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
            max_depth=MAX_DEPTH + 2,  # the event's own map, and one for a clear error above it
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        ).decode()
    except cbor2.CBORDecodeError as error:
        cause = error.__cause__
        reason = cause.message if isinstance(cause, EventError) else str(error)
        raise EventError(f"malformed CBOR: {reason}") from None


def _refuse_tag(*_: object, **__: object) -> NoReturn:
    raise EventError("CBOR tags aren't allowed; payloads are what JSON can say")


_NO_TAGS: Final = dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag)
